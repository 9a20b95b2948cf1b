//! Any bytes as log, cut anywhere, are decoded or refused, and come out the same in one piece.
#![no_main]

use everpoint_pgformat::{
    Lsn, MajorVersion,
    wal::{
        decoder::{Next, WalDecoder},
        segment::SegmentSize,
    },
};
use libfuzzer_sys::fuzz_target;

fn decode(mut decoder: WalDecoder, log: &[u8], cut: usize) -> Vec<(Lsn, Lsn, Vec<u8>)> {
    let mut records = Vec::new();
    let mut at = decoder.position();
    for piece in log.chunks(cut) {
        let mut chunk = decoder.feed(at, piece);
        loop {
            match chunk.next() {
                Ok(Next::Record(record)) => {
                    records.push((record.start(), record.end(), record.bytes().to_vec()));
                }
                Ok(Next::NeedBytes) => break,
                Ok(Next::End(_)) | Err(_) => return records,
            }
        }
        at = at.advance(piece.len() as u64);
    }
    records
}

fuzz_target!(|data: &[u8]| {
    let Some(([major, page, cut, mode], log)) = data.split_first_chunk() else {
        return;
    };
    let Ok(version) = MajorVersion::try_from(15 + u16::from(major % 4)) else {
        return;
    };
    let size = SegmentSize::DEFAULT;
    let start = Lsn::new(u64::from(*page) * 8192);
    let decoder = || match mode % 2 {
        0 => WalDecoder::new(version, size, start),
        _ => WalDecoder::searching(version, size, start),
    };
    let whole = decode(decoder(), log, log.len().max(1));
    assert_eq!(decode(decoder(), log, usize::from(*cut) + 1), whole);
});
