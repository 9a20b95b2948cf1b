//! Any bytes as log, cut anywhere, are filtered or refused, keep their length, and come out the same in one
//! piece.
#![no_main]

use std::collections::BTreeSet;

use everpoint_pgformat::{
    Lsn, MajorVersion, Oid,
    wal::{
        decoder::WalDecoder,
        filter::{Databases, Piece, WalFilter},
        segment::SegmentSize,
    },
};
use libfuzzer_sys::fuzz_target;

/// The log filtered; `None` when it is refused.
fn filter(mut filter: WalFilter, start: Lsn, log: &[u8], cut: usize) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut at = start;
    for piece in log.chunks(cut) {
        filter.push(Piece { start: at, bytes: piece.to_vec() }).ok()?;
        while let Some(piece) = filter.pop() {
            out.extend(piece.bytes);
        }
        at = at.advance(piece.len() as u64);
    }
    while let Some(piece) = filter.finish() {
        out.extend(piece.bytes);
    }
    Some(out)
}

fuzz_target!(|data: &[u8]| {
    let Some(([major, page, cut, kept], log)) = data.split_first_chunk() else {
        return;
    };
    let Ok(version) = MajorVersion::try_from(15 + u16::from(major % 4)) else {
        return;
    };
    let size = SegmentSize::DEFAULT;
    let start = Lsn::new(u64::from(*page) * 8192);
    let new = || {
        let databases = Databases::Only(BTreeSet::from([Oid::new(u32::from(*kept))]));
        WalFilter::new(WalDecoder::new(version, size, start), size, databases)
    };
    let Some(whole) = filter(new(), start, log, log.len().max(1)) else {
        return;
    };
    assert_eq!(whole.len(), log.len());
    if let Some(cut) = filter(new(), start, log, usize::from(*cut) + 1) {
        assert_eq!(cut, whole);
    }
});
