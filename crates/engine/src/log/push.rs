//! Pushing write-ahead log: one file at a time, from a server's `archive_command`.
//!
//! The server calls again after any failure and may call again after success; the same file twice is
//! fine. A different file under the same name is an error that a person must look into, since two
//! servers then archive into one place.

use std::path::{Path, PathBuf};

use everpoint_pgformat::{
    Lsn, MajorVersion, SystemIdentifier, TimelineId,
    bytes::Reader,
    timeline::TimelineHistory,
    wal::segment::{SegmentName, SegmentSize},
};
use everpoint_repository::{
    InstanceName, Repository, RepositoryError,
    log::{LogIndex, TimelineDocument},
};

use super::{
    cut::{LogContext, LogCut},
    reader::LogReader,
};
use crate::{
    instance_record::InstanceRecord,
    summary::{self, FollowError, Follower, SummaryContext},
};

/// What became of a pushed file.
#[derive(Debug)]
pub enum Pushed {
    /// It was stored, and summarised unless that failed.
    Stored(Option<FollowError>),
    /// The repository holds the same already.
    Known,
    /// Files of this kind carry nothing that a restore needs.
    NotNeeded,
}

/// A file cannot be pushed.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not a file that a server archives.
    #[error(
        "`{name}` is no WAL segment, timeline history or backup history file. Use this as archive_command: everpoint wal push … %p"
    )]
    NotWal {
        /// Its name.
        name: String,
    },
    /// Its contents do not fit its name.
    #[error("`{name}` is damaged or of another cluster: {what}. It was not stored")]
    Wrong {
        /// Its name.
        name: String,
        /// What does not fit.
        what: String,
    },
    /// Something else is stored under its name.
    #[error(
        "the repository holds a different `{name}`. Two servers may be archiving to instance `{instance}`; nothing was overwritten"
    )]
    Different {
        /// Its name.
        name: String,
        /// The instance.
        instance: InstanceName,
    },
    /// The repository.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
}

/// Stores one file of `pg_wal`.
///
/// # Errors
/// See [`PushError`]; the server keeps the file and tries again.
pub async fn push(
    repository: &Repository,
    instance: &InstanceName,
    record: &InstanceRecord,
    path: &Path,
) -> Result<Pushed, PushError> {
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    let read = || {
        let source = std::fs::read(path);
        source.map_err(|source| PushError::Read {
            path: path.to_owned(),
            source,
        })
    };
    if let Some(timeline) = history_name(&name) {
        let text = String::from_utf8_lossy(&read()?).into_owned();
        return push_history(repository, instance, name, timeline, text).await;
    }
    // A promoted server archives the last segment of the old timeline as `.partial`; what of it counts
    // is in the new timeline's first segment. Backup history files are for people.
    if has_segment_prefix(&name) && (name.ends_with(".partial") || name.ends_with(".backup")) {
        return Ok(Pushed::NotNeeded);
    }
    let Some(segment) = SegmentName::parse(&name) else {
        return Err(PushError::NotWal { name });
    };
    let size = record.segment_size;
    let wrong = |what: String| PushError::Wrong {
        name: name.clone(),
        what,
    };
    let number = segment
        .number(size)
        .ok_or_else(|| wrong("no segment has that number".to_owned()))?;
    let start = size.start_of(number);
    let bytes = read()?;
    check_segment(
        &bytes,
        start,
        size,
        record.system_identifier,
        record.version,
    )
    .map_err(wrong)?;
    push_segment(repository, instance, record, segment, start, &bytes).await
}

async fn push_segment(
    repository: &Repository,
    instance: &InstanceName,
    record: &InstanceRecord,
    segment: SegmentName,
    start: Lsn,
    bytes: &[u8],
) -> Result<Pushed, PushError> {
    let end = start.advance(bytes.len() as u64);
    let timeline = segment.timeline();
    let index = repository.log_index(instance).await?;
    // What is stored of it may have come as other pieces, by streaming: contents are compared.
    let own = LogIndex::new(
        index
            .stretches()
            .filter(|stretch| stretch.timeline == timeline)
            .cloned()
            .collect(),
        Vec::new(),
    );
    if let Ok(pieces) = own.pieces(timeline, start, end) {
        let mut reader = LogReader::new(repository.clone(), pieces)?;
        while let Some((at, stored)) = reader.next().await? {
            let from = usize::try_from(at.bytes_since(start)).unwrap_or(usize::MAX);
            if bytes.get(from..from + stored.len()) != Some(stored.as_slice()) {
                let (name, instance) = (segment.to_string(), instance.clone());
                return Err(PushError::Different { name, instance });
            }
        }
        return Ok(Pushed::Known);
    }
    let context = LogContext {
        repository: repository.clone(),
        instance: instance.clone(),
        system_identifier: record.system_identifier,
        segment_size: record.segment_size,
    };
    let mut cut = LogCut::new(context, timeline, start, None)?;
    cut.push(bytes)?;
    cut.store().await?;
    let summaries = SummaryContext::new(repository, instance, record);
    let summarised = summarise(summaries, &index, timeline, start, bytes).await;
    Ok(Pushed::Stored(summarised.err()))
}

/// Stores the summary of a segment, and of what was stored before it and has none.
async fn summarise(
    context: SummaryContext,
    index: &LogIndex,
    timeline: TimelineId,
    start: Lsn,
    bytes: &[u8],
) -> Result<(), FollowError> {
    // The first segment of a timeline begins with its parent's log.
    let begins = index.history(timeline).parts().last().map(|part| part.from);
    let at = begins.map_or(start, |begins| begins.max(start));
    let (mut follower, amiss) = Follower::resume(context.clone(), index, timeline, at).await;
    follower.feed(start, bytes)?;
    if let Some(summary) = follower.cut() {
        summary::store(&context, &summary).await?;
    }
    amiss.map_or(Ok(()), Err)
}

async fn push_history(
    repository: &Repository,
    instance: &InstanceName,
    name: String,
    timeline: TimelineId,
    text: String,
) -> Result<Pushed, PushError> {
    TimelineHistory::parse(timeline, &text).map_err(|error| PushError::Wrong {
        name: name.clone(),
        what: error.to_string(),
    })?;
    let document = TimelineDocument { timeline, text };
    let stored = repository.timeline_documents(instance).await?;
    match stored.iter().find(|stored| stored.timeline == timeline) {
        Some(same) if *same == document => Ok(Pushed::Known),
        Some(_) => Err(PushError::Different {
            name,
            instance: instance.clone(),
        }),
        None => {
            repository.write_timeline(instance, &document).await?;
            Ok(Pushed::Stored(None))
        }
    }
}

fn history_name(name: &str) -> Option<TimelineId> {
    let digits = name
        .strip_suffix(".history")
        .filter(|digits| digits.len() == 8)?;
    TimelineId::new(u32::from_str_radix(digits, 16).ok()?)
}

fn has_segment_prefix(name: &str) -> bool {
    name.get(..24)
        .is_some_and(|prefix| SegmentName::parse(prefix).is_some())
}

/// The long header of a segment's first page (`XLogLongPageHeaderData`, `src/include/access/xlog_internal.h`):
/// magic, info, timeline, page address, remaining length, system identifier, segment size, block size.
fn check_segment(
    bytes: &[u8],
    start: Lsn,
    size: SegmentSize,
    system_identifier: SystemIdentifier,
    version: MajorVersion,
) -> Result<(), String> {
    if bytes.len() as u64 != size.bytes() {
        return Err(format!(
            "it has {} bytes, a segment has {}",
            bytes.len(),
            size.bytes()
        ));
    }
    let magic = Reader::at(bytes, 0).and_then(|mut reader| reader.u16());
    if magic != Some(version.row().wal_page_magic) {
        return Err(format!("it was not written by PostgreSQL {version}"));
    }
    let field = |offset: usize| Reader::at(bytes, offset).and_then(|mut reader| reader.u64());
    if field(8) != Some(start.get()) {
        return Err(format!("its first page is not that of {start}"));
    }
    if field(24) != Some(system_identifier.get()) {
        return Err(format!(
            "the instance's system identifier is {system_identifier}"
        ));
    }
    Ok(())
}
