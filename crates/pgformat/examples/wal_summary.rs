//! Prints the summary of log in a directory of segments.
//!
//! `wal_summary <major version> <directory> <timeline> <start> [<end>] [<relfilenode of pg_database>]`
//! summarises the records that start at or after `start` and end at or before `end`, and prints what
//! changed and what happened to databases and relations, a line each.

use std::{env, error::Error, fs, path::Path};

use everpoint_pgformat::{
    Lsn, MajorVersion, Oid, TimelineId,
    wal::{
        decoder::{Next, WalDecoder},
        page::{LONG_HEADER_SIZE, WalPageHeader},
        segment::{SegmentName, SegmentSize},
    },
    wal_summary::{DATABASE_CATALOG, SummaryBuilder, WalSummary, carried::Carried},
};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = env::args().skip(1).collect();
    let [version, directory, timeline, start, rest @ ..] = args.as_slice() else {
        return Err(
            "wal_summary <major version> <directory> <timeline> <start> [<end>] [<pg_database>]"
                .into(),
        );
    };
    let version = MajorVersion::try_from(version.parse::<u16>()?)?;
    let directory = Path::new(directory);
    let timeline = TimelineId::new(timeline.parse()?).ok_or("timeline 0 does not exist")?;
    let start: Lsn = start.parse()?;
    let end = rest
        .first()
        .map_or(Ok(Lsn::MAX), |end| end.parse::<Lsn>())?;
    let catalog = rest.get(1).map(|catalog| catalog.parse().map(Oid::new));
    let catalog = catalog.transpose()?.unwrap_or(DATABASE_CATALOG);
    let size = segment_size(directory)?;

    let mut decoder = WalDecoder::searching(version, size, start);
    let mut builder = SummaryBuilder::with_carried(version, timeline, start, Carried::new(catalog));
    let mut segment = size.segment_of(start);
    'segments: loop {
        let name = SegmentName::new(timeline, segment, size).to_string();
        let Ok(bytes) = fs::read(directory.join(&name)) else {
            break;
        };
        let mut chunk = decoder.feed(size.start_of(segment), &bytes);
        loop {
            match chunk.next()? {
                Next::Record(record) if record.end() > end => break 'segments,
                Next::Record(record) => builder.add(&record)?,
                Next::NeedBytes => break,
                Next::End(_) => break 'segments,
            }
        }
        segment += 1;
    }
    print(&builder.cut());
    Ok(())
}

/// The segment size that a segment of the directory states.
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

fn print(summary: &WalSummary) {
    println!(
        "{} to {}: {} records, {} transactions",
        summary.start,
        summary.end,
        summary.records,
        summary.times.transactions().len()
    );
    if let Some(why) = summary.changes.everything() {
        println!("everything changed: {why:?}");
    }
    for directory in summary.changes.directories() {
        println!("directory {}/{}", directory.tablespace, directory.database);
    }
    let mut forks: Vec<_> = summary.changes.forks().collect();
    forks.sort_by_key(|(id, _)| *id);
    for (id, changes) in forks {
        let relation = id.relation;
        let limit = changes
            .limit()
            .map_or_else(|| "none".to_owned(), |limit| limit.to_string());
        let runs: Vec<String> = changes
            .blocks()
            .runs()
            .map(|run| format!("{}+{}", run.start, run.count))
            .collect();
        println!(
            "fork {}/{}/{} {:?} limit {limit} blocks {}",
            relation.tablespace,
            relation.database,
            relation.relfilenode,
            id.fork,
            runs.join(",")
        );
    }
    for event in summary.databases.events() {
        println!(
            "database {} at {} by {}: {:?}",
            event.database, event.start, event.transaction, event.change
        );
    }
    for dropped in summary.databases.dropped() {
        let name = dropped.name.as_deref().map(String::from_utf8_lossy);
        println!(
            "dropped {} ({}) by {}: undo {} ({:?}), removed {:?}",
            dropped.database,
            name.as_deref().unwrap_or("?"),
            dropped.transaction,
            dropped.undo,
            dropped.begun_by,
            dropped.removed
        );
    }
    for point in summary.times.restore_points() {
        let name = String::from_utf8_lossy(&point.name);
        println!("restore point {name} at {}", point.start);
    }
    for ended in summary.transactions.ended() {
        println!("transaction {ended:?}");
    }
    println!("step back {:?}", summary.times.largest_step_back());
    println!("relation events {}", summary.relations.events().len());
}
