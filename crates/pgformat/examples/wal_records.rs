//! Prints the records in a directory of WAL segments, much as `pg_waldump` does.
//!
//! `wal_records [--page-crcs] <major version> <directory> <timeline> <start> [<end>]` prints a line for each record that
//! starts at or after `start` and ends at or before `end`: its position, resource manager, info bits,
//! transaction, length without and with page images, the record before, its blocks, and behind a `;` what
//! the end of a transaction or a restore point says. The last line says why it ended. With `--page-crcs`, each page image is unpacked and the CRC-32C of the page printed.

#[path = "shared/record_line.rs"]
mod record_line;

use std::{env, error::Error, fs, io::Write, path::Path};

use everpoint_pgformat::{
    Lsn, MajorVersion, TimelineId,
    ids::BLOCK_SIZE,
    wal::{
        crc32c,
        decoder::{Next, WalDecoder},
        page::{LONG_HEADER_SIZE, WalPageHeader},
        record::Record,
        segment::{SegmentName, SegmentSize},
    },
};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args: Vec<String> = env::args().skip(1).collect();
    let page_crcs = args.first().is_some_and(|arg| arg == "--page-crcs");
    args.drain(..usize::from(page_crcs));
    let [version, directory, timeline, start, end @ ..] = args.as_slice() else {
        return Err(
            "wal_records [--page-crcs] <major version> <directory> <timeline> <start> [<end>]"
                .into(),
        );
    };
    let version = MajorVersion::try_from(version.parse::<u16>()?)?;
    let directory = Path::new(directory);
    let timeline = TimelineId::new(timeline.parse()?).ok_or("timeline 0 does not exist")?;
    let start: Lsn = start.parse()?;
    let end = end.first().map_or(Ok(Lsn::MAX), |end| end.parse::<Lsn>())?;
    let size = segment_size(directory)?;

    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut decoder = WalDecoder::searching(version, size, start);
    let mut segment = size.segment_of(start);
    'segments: loop {
        let name = SegmentName::new(timeline, segment, size).to_string();
        let Ok(bytes) = fs::read(directory.join(&name)) else {
            writeln!(out, "end of files before {name}")?;
            break;
        };
        let mut chunk = decoder.feed(size.start_of(segment), &bytes);
        loop {
            match chunk.next() {
                Ok(Next::Record(record)) if record.end() > end => break 'segments,
                Ok(Next::Record(record)) => {
                    write!(out, "{}", record_line::line(&record, version)?)?;
                    if page_crcs {
                        write!(out, "{}", image_crcs(&record))?;
                    }
                    writeln!(out)?;
                }
                Ok(Next::NeedBytes) => break,
                Ok(Next::End(end)) => {
                    writeln!(out, "end of log at {}: {:?}", end.at, end.sign)?;
                    break 'segments;
                }
                Err(error) => {
                    writeln!(out, "{error}")?;
                    break 'segments;
                }
            }
        }
        segment += 1;
    }
    Ok(())
}

/// The segment size that the first segment of the directory states.
fn segment_size(directory: &Path) -> Result<SegmentSize, Box<dyn Error>> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if name.and_then(SegmentName::parse).is_some() {
            let bytes = fs::read(&path)?;
            let header = bytes.get(..LONG_HEADER_SIZE).and_then(WalPageHeader::parse);
            if let Some(long) = header.and_then(|header| header.long) {
                return Ok(SegmentSize::try_from(long.segment_size)?);
            }
        }
    }
    Err("no WAL segment in the directory".into())
}

fn image_crcs(record: &Record<'_>) -> String {
    let mut text = String::new();
    for block in record.blocks() {
        let mut page = [0; BLOCK_SIZE];
        text += &match block.image.map(|image| image.restore(&mut page)) {
            None => continue,
            Some(Ok(())) => format!(" page #{}: {:08X}", block.id, crc32c(&page)),
            Some(Err(error)) => format!(" page #{}: {error}", block.id),
        };
    }
    text
}
