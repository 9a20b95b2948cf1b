//! Any contents of records, their checksums made right, are summarised or refused; a summary made of them
//! survives storing and cutting.

use everpoint_pgformat::{
    Lsn, MajorVersion, TimelineId,
    wal::{
        decoder::{Next, WalDecoder},
        record::record_crc,
        segment::SegmentSize,
    },
    wal_summary::{SummaryBuilder, WalSummary},
};

use super::version;

const START: u64 = 8192 * 3;
const PAGE: usize = 8192;

/// How many records were summarised.
pub(crate) fn run(data: &[u8]) -> usize {
    let Some((major, contents)) = data.split_first() else {
        return 0;
    };
    let Some(version) = version(*major) else {
        return 0;
    };
    let log = log(version, contents);
    let start = Lsn::new(START);
    let mut decoder = WalDecoder::new(version, SegmentSize::DEFAULT, start);
    let mut whole = SummaryBuilder::new(version, TimelineId::FIRST, start);
    let mut parts = SummaryBuilder::new(version, TimelineId::FIRST, start);
    let mut merged: Option<WalSummary> = None;
    let mut chunk = decoder.feed(start, &log);
    while let Ok(Next::Record(record)) = chunk.next() {
        for block in record.blocks() {
            if let Some(image) = block.image {
                let _ = image.restore(&mut [0; PAGE]);
            }
        }
        if whole.add(&record).is_err() {
            assert!(parts.add(&record).is_err());
            return 0;
        }
        assert!(parts.add(&record).is_ok());
        let part = parts.cut();
        match &mut merged {
            None => merged = Some(part),
            Some(merged) => merged.absorb(part).expect("consecutive"),
        }
    }
    let whole = whole.cut();
    whole.databases.dropped();
    let stored = whole.encode();
    assert_eq!(WalSummary::decode(&stored).as_ref(), Ok(&whole));
    if let Some(merged) = merged {
        assert_eq!(merged.changes, whole.changes);
        assert_eq!(merged.times, whole.times);
        assert_eq!(merged.relations, whole.relations);
        assert_eq!(merged.transactions, whole.transactions);
    }
    usize::try_from(whole.records).unwrap_or(usize::MAX)
}

/// One page of records: of each a length, a resource manager, info bits and a transaction, then contents.
fn log(version: MajorVersion, mut contents: &[u8]) -> Vec<u8> {
    let mut page = Vec::with_capacity(PAGE);
    page.extend(version.row().wal_page_magic.to_le_bytes());
    page.extend([0, 0, 1, 0, 0, 0]);
    page.extend(START.to_le_bytes());
    page.extend([0; 8]);
    let mut previous = 0;
    while let Some(([len0, len1, manager, info, transaction], rest)) = contents.split_first_chunk()
    {
        let start = START + page.len() as u64;
        let room = PAGE.saturating_sub(page.len() + 24);
        let len = usize::from(u16::from_le_bytes([*len0, *len1])).min(rest.len());
        if len > room {
            break;
        }
        let (body, rest) = rest.split_at(len);
        contents = rest;
        let mut record = Vec::new();
        record.extend((24 + u32::try_from(len).unwrap_or(u32::MAX - 24)).to_le_bytes());
        record.extend([*transaction, 0, 0, 0]);
        record.extend(u64::to_le_bytes(previous));
        record.extend([*info, *manager, 0, 0, 0, 0, 0, 0]);
        record.extend(body);
        let crc = record_crc(&record);
        record[20..24].copy_from_slice(&crc.to_le_bytes());
        page.extend(record);
        page.resize(page.len().next_multiple_of(8), 0);
        previous = start;
    }
    page
}
