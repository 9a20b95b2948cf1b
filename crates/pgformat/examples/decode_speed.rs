//! Measures how fast log is decoded and summarised:
//! `decode_speed <major version> <directory of segments> [<rounds>]`.
//!
//! Segments are read into memory first, so that only decoding is measured, on one core. The first rate is per
//! second of that core's time, which others' work on the machine disturbs less; the second per second.

use std::{env, error::Error, fs, path::PathBuf, time::Instant};

use everpoint_pgformat::{
    Lsn, MajorVersion, TimelineId,
    wal::{
        decoder::{Next, WalDecoder},
        page::WalPageHeader,
        record::Record,
        segment::SegmentSize,
    },
    wal_summary::{SummaryBuilder, WalSummary},
};

/// Bytes given to the decoder at a time, as a receiver of streamed log would.
const CHUNK: usize = 128 << 10;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = env::args().skip(1).collect();
    let [version, directory, rounds @ ..] = args.as_slice() else {
        return Err("decode_speed <major version> <directory of segments> [<rounds>]".into());
    };
    let version = MajorVersion::try_from(version.parse::<u16>()?)?;
    let rounds = rounds.first().map_or(Ok(5), |rounds| rounds.parse())?;
    let (start, size, log) = load(directory)?;

    let log = Log {
        version,
        size,
        start,
        bytes: log,
    };
    for _ in 0..rounds {
        let (mut records, mut blocks) = (0_u64, 0);
        measure("decode", || {
            records = 0;
            log.decode(|record| {
                records += 1;
                blocks += record.blocks().len();
                Ok(())
            })
        })?;
        let mut builder = SummaryBuilder::new(version, TimelineId::FIRST, start);
        measure("decode and summarise", || {
            log.decode(|record| Ok(builder.add(record)?))
        })?;
        let summary = builder.cut();
        let began = Instant::now();
        let stored = summary.encode();
        let encoded = began.elapsed();
        let began = Instant::now();
        let read = WalSummary::decode(&stored)?;
        let decoded = began.elapsed();
        println!(
            "{records} records, {blocks} block references; {} forks, {} blocks, {} transactions; \
             stored in {} bytes, written in {encoded:?}, read in {decoded:?}, {}",
            summary.changes.forks().len(),
            summary.changes.block_count(),
            summary.times.transactions().len(),
            stored.len(),
            if read == summary {
                "equal"
            } else {
                "NOT EQUAL"
            },
        );
    }
    Ok(())
}

/// Runs `work`, which tells how many bytes it went through.
fn measure(
    what: &str,
    mut work: impl FnMut() -> Result<u64, Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    let (began, busy) = (Instant::now(), busy_seconds()?);
    let bytes = work()? as f64;
    let (seconds, busy) = (began.elapsed().as_secs_f64(), busy_seconds()? - busy);
    println!(
        "{what}: {:.0} MB per core-second, {:.0} MB/s, of {:.0} MB",
        bytes / 1e6 / busy,
        bytes / 1e6 / seconds,
        bytes / 1e6
    );
    Ok(())
}

/// The time this thread has run, as Linux counts it.
fn busy_seconds() -> Result<f64, Box<dyn Error>> {
    let text = fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds = text.split(' ').next().unwrap_or_default();
    Ok(nanoseconds.parse::<f64>()? / 1e9)
}

/// All segments of a directory in a row, and where they begin.
fn load(directory: &str) -> Result<(Lsn, SegmentSize, Vec<u8>), Box<dyn Error>> {
    let mut paths: Vec<PathBuf> = fs::read_dir(directory)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    paths.retain(|path| {
        path.file_name()
            .is_some_and(|name| name.len() == 24 && path.is_file())
    });
    paths.sort();
    let mut log = Vec::new();
    let mut first: Option<WalPageHeader> = None;
    for path in paths {
        let bytes = fs::read(path)?;
        let header = WalPageHeader::parse(&bytes).ok_or("a segment without a page")?;
        let expected = first.map(|first| first.address.advance(log.len() as u64));
        if expected.is_some_and(|expected| expected != header.address) {
            break;
        }
        first.get_or_insert(header);
        log.extend(bytes);
    }
    let first = first.ok_or("no segments")?;
    let long = first.long.ok_or("the first page has no long header")?;
    Ok((
        first.address,
        SegmentSize::try_from(long.segment_size)?,
        log,
    ))
}

struct Log {
    version: MajorVersion,
    size: SegmentSize,
    start: Lsn,
    bytes: Vec<u8>,
}

impl Log {
    /// Calls `each` with every record; tells how many bytes of log those take.
    fn decode(
        &self,
        mut each: impl FnMut(&Record<'_>) -> Result<(), Box<dyn Error>>,
    ) -> Result<u64, Box<dyn Error>> {
        let mut decoder = WalDecoder::searching(self.version, self.size, self.start);
        let mut at = self.start;
        'log: for piece in self.bytes.chunks(CHUNK) {
            let mut chunk = decoder.feed(at, piece);
            loop {
                match chunk.next()? {
                    Next::Record(record) => each(&record)?,
                    Next::NeedBytes => break,
                    Next::End(_) => break 'log,
                }
            }
            at = at.advance(piece.len() as u64);
        }
        let end = decoder.boundary().unwrap_or(self.start);
        Ok(end.bytes_since(self.start))
    }
}
