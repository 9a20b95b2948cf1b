//! Filters a directory of WAL segments, as a restore of one database does.
//!
//! `wal_filter <major version> <directory> <timeline> <start> <new directory> [<database>…]` writes the
//! segments from the one that holds the record at `start` on into the new directory, with what concerns other
//! databases taken out, and prints how much that was.

use std::{collections::BTreeSet, env, error::Error, fs, path::Path};

use everpoint_pgformat::{
    Lsn, MajorVersion, Oid, TimelineId,
    wal::{
        decoder::WalDecoder,
        filter::{Databases, Piece, WalFilter},
        page::{LONG_HEADER_SIZE, WalPageHeader},
        segment::{SegmentName, SegmentSize},
    },
};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = env::args().skip(1).collect();
    let [version, directory, timeline, start, to, databases @ ..] = args.as_slice() else {
        return Err("wal_filter <major version> <directory> <timeline> <start> <new directory> [<database>…]".into());
    };
    let version = MajorVersion::try_from(version.parse::<u16>()?)?;
    let timeline = TimelineId::new(timeline.parse()?).ok_or("timeline 0 does not exist")?;
    let start: Lsn = start.parse()?;
    let (directory, to) = (Path::new(directory), Path::new(to));
    let kept: Result<BTreeSet<Oid>, _> = databases
        .iter()
        .map(|oid| oid.parse::<u32>().map(Oid::new))
        .collect();
    let size = segment_size(directory)?;
    let decoder = WalDecoder::searching(version, size, start);
    let mut filter = WalFilter::new(decoder, size, Databases::Only(kept?));
    let mut segment = size.segment_of(start);
    let write = |piece: Piece| {
        let name = SegmentName::new(timeline, size.segment_of(piece.start), size);
        fs::write(to.join(name.to_string()), piece.bytes)
    };
    loop {
        let name = SegmentName::new(timeline, segment, size).to_string();
        let Ok(bytes) = fs::read(directory.join(name)) else {
            break;
        };
        filter.push(Piece {
            start: size.start_of(segment),
            bytes,
        })?;
        while let Some(piece) = filter.pop() {
            write(piece)?;
        }
        segment += 1;
    }
    while let Some(piece) = filter.finish() {
        write(piece)?;
    }
    println!("{:?}", filter.counts());
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
