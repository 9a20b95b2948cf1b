//! Any bytes as log, cut anywhere, are filtered or refused, keep their length, and come out the same in one
//! piece.

use std::collections::BTreeSet;

use everpoint_pgformat::{
    Lsn, Oid,
    wal::{
        decoder::WalDecoder,
        filter::{Databases, Piece, WalFilter},
    },
};

use super::LogInput;

/// How many bytes were changed.
pub(crate) fn run(data: &[u8]) -> usize {
    let Some(input) = LogInput::parse(data) else {
        return 0;
    };
    let new = || {
        let decoder = WalDecoder::searching(input.version, input.size, input.start);
        let databases = match input.choice {
            0 => Databases::All,
            kept => Databases::Only(BTreeSet::from([Oid::new(u32::from(kept))])),
        };
        WalFilter::new(decoder, input.size, databases)
    };
    let Some(whole) = filter(new(), input.start, input.log, input.log.len().max(1)) else {
        return 0;
    };
    assert_eq!(whole.len(), input.log.len());
    if let Some(cut) = filter(new(), input.start, input.log, input.cut) {
        assert_eq!(cut, whole);
    }
    let changed = whole.iter().zip(input.log).filter(|(new, old)| new != old);
    changed.count()
}

/// The log filtered; `None` when it is refused.
fn filter(mut filter: WalFilter, start: Lsn, log: &[u8], cut: usize) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut at = start;
    for piece in log.chunks(cut) {
        let bytes = piece.to_vec();
        filter.push(Piece { start: at, bytes }).ok()?;
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
