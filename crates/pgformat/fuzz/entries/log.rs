//! Any bytes as log, cut anywhere, are decoded or refused, and come out the same in one piece.

use everpoint_pgformat::{
    Lsn,
    wal::decoder::{Next, WalDecoder},
};

use super::LogInput;

/// How many records there are.
pub(crate) fn run(data: &[u8]) -> usize {
    let Some(input) = LogInput::parse(data) else {
        return 0;
    };
    let decoder = || match input.choice % 2 {
        0 => WalDecoder::new(input.version, input.size, input.start),
        _ => WalDecoder::searching(input.version, input.size, input.start),
    };
    let whole = decode(decoder(), input.log, input.log.len().max(1));
    assert_eq!(decode(decoder(), input.log, input.cut), whole);
    whole.len()
}

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
