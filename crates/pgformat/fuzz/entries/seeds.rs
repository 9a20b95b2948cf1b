//! Inputs made of log that real servers wrote: of the fixtures of the tests.

use everpoint_pgformat::{
    Lsn, MajorVersion, TimelineId,
    wal::{
        block::ImageCompression,
        decoder::{Next, WalDecoder},
        record::{RECORD_HEADER_SIZE, Record},
        segment::SegmentSize,
    },
    wal_summary::{
        SummaryBuilder,
        format::{FORMAT_VERSION, MAGIC},
    },
};

/// Log of PostgreSQL 15 to 18, and where it begins.
const LOGS: [(u16, &[u8], &str); 4] = [
    (
        15,
        include_bytes!("../../tests/fixtures/wal_15.bin"),
        include_str!("../../tests/fixtures/wal_15.txt"),
    ),
    (
        16,
        include_bytes!("../../tests/fixtures/wal_16.bin"),
        include_str!("../../tests/fixtures/wal_16.txt"),
    ),
    (
        17,
        include_bytes!("../../tests/fixtures/wal_17.bin"),
        include_str!("../../tests/fixtures/wal_17.txt"),
    ),
    (
        18,
        include_bytes!("../../tests/fixtures/wal_18.bin"),
        include_str!("../../tests/fixtures/wal_18.txt"),
    ),
];
const PAGE: usize = 8192;
/// Records of one input, which has to fit into a page.
const RECORDS: usize = 40;
/// Of so many images of a log one is taken.
const IMAGES: usize = 3;

/// Inputs of one target.
pub(crate) struct Seeds {
    pub(crate) target: &'static str,
    pub(crate) inputs: Vec<Vec<u8>>,
}

/// Inputs of every target.
pub(crate) fn all() -> Vec<Seeds> {
    let seeds = |target, inputs| Seeds { target, inputs };
    vec![
        seeds(
            "log",
            LOGS.iter().flat_map(|log| logs(log, &[0, 1])).collect(),
        ),
        seeds(
            "filter",
            LOGS.iter().flat_map(|log| logs(log, &[0, 1])).collect(),
        ),
        seeds("records", LOGS.iter().flat_map(records).collect()),
        seeds("summary", LOGS.iter().flat_map(summaries).collect()),
        seeds("image", LOGS.iter().flat_map(images).collect()),
    ]
}

type Log = (u16, &'static [u8], &'static str);

fn first_page((_, _, text): &Log) -> u32 {
    let page = text
        .lines()
        .next()
        .and_then(|line| line.strip_prefix("# page "));
    let page: Lsn = page
        .and_then(|page| page.parse().ok())
        .unwrap_or(Lsn::INVALID);
    u32::try_from(page.get() / PAGE as u64).unwrap_or_default()
}

fn choice(major: u16) -> u8 {
    major.to_le_bytes()[0] - 15
}

/// Stretches of a few pages from everywhere in a log, of segments of 1 MiB as they were written.
fn logs(log: &Log, choices: &[u8]) -> Vec<Vec<u8>> {
    let (major, bytes, _) = log;
    let first = first_page(log);
    let mut inputs = Vec::new();
    for (number, pages) in bytes.chunks(3 * PAGE).enumerate() {
        let cut = u8::try_from(number * 29 % 256).unwrap_or_default();
        let page = first + u32::try_from(number * 3).unwrap_or_default();
        for choice_of_target in choices {
            let mut input = vec![choice(*major), 0, *choice_of_target, cut];
            input.extend(page.to_le_bytes());
            input.extend(pages);
            inputs.push(input);
        }
    }
    inputs
}

fn each_record((major, bytes, text): &Log, mut each: impl FnMut(MajorVersion, &Record<'_>)) {
    let (Ok(version), Ok(size)) = (
        MajorVersion::try_from(*major),
        SegmentSize::try_from(1 << 20),
    ) else {
        return;
    };
    let start = Lsn::new(u64::from(first_page(&(*major, bytes, text))) * PAGE as u64);
    let mut decoder = WalDecoder::searching(version, size, start);
    let mut chunk = decoder.feed(start, bytes);
    while let Ok(Next::Record(record)) = chunk.next() {
        each(version, &record);
    }
}

/// Contents of records, some in a row.
fn records(log: &Log) -> Vec<Vec<u8>> {
    let mut inputs: Vec<(usize, Vec<u8>)> = Vec::new();
    each_record(log, |_, record| {
        let Some(body) = record.bytes().get(RECORD_HEADER_SIZE..) else {
            return;
        };
        let Ok(len) = u16::try_from(body.len()) else {
            return;
        };
        if body.len() > PAGE / 2 {
            return;
        }
        match inputs.last() {
            Some((count, input)) if *count < RECORDS && input.len() + body.len() < PAGE - 2000 => {}
            _ => inputs.push((0, vec![choice(log.0)])),
        }
        if let Some((count, input)) = inputs.last_mut() {
            let transaction = record.transaction().get().to_le_bytes()[0];
            input.extend(len.to_le_bytes());
            let manager = record.resource_manager().get();
            input.extend([manager, record.header().info, transaction]);
            input.extend(body);
            *count += 1;
        }
    });
    inputs.into_iter().map(|(_, input)| input).collect()
}

/// Summaries of parts of a log, and of all of it, without what frames them.
fn summaries(log: &Log) -> Vec<Vec<u8>> {
    let mut inputs = Vec::new();
    for every in [50, 400, usize::MAX] {
        let mut builder: Option<SummaryBuilder> = None;
        let mut count = 0;
        each_record(log, |version, record| {
            let builder = builder.get_or_insert_with(|| {
                SummaryBuilder::new(version, TimelineId::FIRST, record.start())
            });
            count += 1;
            if builder.add(record).is_ok() && count % every == 0 {
                inputs.push(builder.cut().encode());
            }
        });
        inputs.extend(builder.map(|mut builder| builder.cut().encode()));
    }
    let head = MAGIC.len() + FORMAT_VERSION.to_le_bytes().len();
    let body = |stored: Vec<u8>| Some(stored.get(head..stored.len().checked_sub(4)?)?.to_vec());
    inputs.into_iter().filter_map(body).collect()
}

/// Some of a log's page images.
fn images(log: &Log) -> Vec<Vec<u8>> {
    let mut inputs = Vec::new();
    let mut count = 0;
    each_record(log, |_, record| {
        for image in record.blocks().filter_map(|block| block.image) {
            count += 1;
            if count % IMAGES != 0 {
                continue;
            }
            let mut input = vec![match image.compression {
                None => 0,
                Some(ImageCompression::Pglz) => 1,
                Some(ImageCompression::Lz4) => 2,
                Some(ImageCompression::Zstd) => 3,
            }];
            input.extend(image.hole_offset.to_le_bytes());
            input.extend(image.hole_length.to_le_bytes());
            input.extend(image.bytes);
            inputs.push(input);
        }
    });
    inputs
}
