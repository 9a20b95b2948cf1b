//! Measures how fast log is decoded: `decode_speed <major version> <directory of segments> [<rounds>]`.
//!
//! Segments are read into memory first, so that only the decoder is measured, on one core.

use std::{env, error::Error, fs, path::PathBuf, time::Instant};

use everpoint_pgformat::{
    Lsn, MajorVersion,
    wal::{
        decoder::{Next, WalDecoder},
        page::WalPageHeader,
        segment::SegmentSize,
    },
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

    for _ in 0..rounds {
        let began = Instant::now();
        let (records, blocks, end) = decode(version, size, start, &log)?;
        let seconds = began.elapsed().as_secs_f64();
        let bytes = end.bytes_since(start) as f64;
        println!(
            "decode: {:.0} MB/s, {:.1} million records/s ({records} records, {blocks} blocks, {:.0} MB)",
            bytes / 1e6 / seconds,
            records as f64 / 1e6 / seconds,
            bytes / 1e6,
        );
    }
    Ok(())
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

fn decode(
    version: MajorVersion,
    size: SegmentSize,
    start: Lsn,
    log: &[u8],
) -> Result<(u64, u64, Lsn), Box<dyn Error>> {
    let mut decoder = WalDecoder::searching(version, size, start);
    let (mut records, mut blocks, mut end) = (0, 0, start);
    let mut at = start;
    for piece in log.chunks(CHUNK) {
        let mut chunk = decoder.feed(at, piece);
        loop {
            match chunk.next()? {
                Next::Record(record) => {
                    records += 1;
                    blocks += record.blocks().len() as u64;
                    end = record.end();
                }
                Next::NeedBytes => break,
                Next::End(_) => return Ok((records, blocks, end)),
            }
        }
        at = at.advance(piece.len() as u64);
    }
    Ok((records, blocks, end))
}
