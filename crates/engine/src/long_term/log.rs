//! The log that makes a copy consistent: from the backup's start to its stop position.
//!
//! Records that concern only other databases do nothing in it, and are put together; what stays stays in its place.

use std::collections::BTreeSet;

use everpoint_pgformat::{Lsn, Oid, wal::filter::Databases};
use everpoint_repository::{InstanceName, Repository, backup::Backup, log::LogIndex};

use super::LongTermError;
use crate::{
    log::{
        cut::{LogContext, LogCut},
        reader::SegmentReader,
        receive::DEFAULT_CUT_BYTES,
    },
    progress::Progress,
    restore::replayable_log::ReplayableLog,
};

/// Whose log is copied.
pub(super) struct LogSource<'a> {
    /// The instance.
    pub instance: &'a InstanceName,
    /// The backup.
    pub backup: &'a Backup,
    /// Its log.
    pub index: &'a LogIndex,
    /// The databases whose changes stay in it.
    pub databases: &'a BTreeSet<Oid>,
}

/// Copies timelines' histories and the log; returns the bytes that were stored.
pub(super) async fn copy(
    repository: &Repository,
    inside: &Repository,
    source: LogSource<'_>,
    progress: &Progress,
) -> Result<u64, LongTermError> {
    let LogSource {
        instance,
        backup,
        index,
        databases,
    } = source;
    for history in repository.timeline_documents(instance).await? {
        if history.timeline <= backup.timeline {
            inside.write_timeline(instance, &history).await?;
        }
    }
    let (timeline, size) = (backup.timeline, backup.segment_size);
    let (start, stop) = (backup.start_lsn, backup.stop_lsn);
    // Recovery reads a segment from its first page on, so that is taken along where it is stored.
    let floor = size.floor(start);
    let mut at = match index.complete_until(timeline, floor) >= stop {
        true => floor,
        false => start,
    };
    let reader = SegmentReader::plan(repository, index, timeline, backup, stop)?;
    let only = Databases::Only(databases.clone());
    let mut log = ReplayableLog::new(reader, backup, only, Some(stop));
    let context = LogContext {
        repository: inside.clone(),
        instance: instance.clone(),
        system_identifier: backup.system_identifier,
        segment_size: size,
    };
    let mut cut = LogCut::new(context.clone(), timeline, at, None)?;
    let mut stored_bytes = 0;
    while let Some(part) = log.next().await? {
        if progress.is_cancelled() {
            return Err(LongTermError::Cancelled);
        }
        let end = part.start.advance(part.bytes.len() as u64).min(stop);
        if at >= end {
            continue;
        }
        let offset = |at: Lsn| usize::try_from(at.bytes_since(part.start)).unwrap_or(usize::MAX);
        cut.push(part.bytes.get(offset(at)..offset(end)).unwrap_or_default())?;
        at = end;
        if cut.len() >= DEFAULT_CUT_BYTES {
            let full =
                std::mem::replace(&mut cut, LogCut::new(context.clone(), timeline, at, None)?);
            stored_bytes += full.store().await?.stored_bytes;
        }
    }
    if !cut.is_empty() {
        at = cut.end();
        stored_bytes += cut.store().await?.stored_bytes;
    }
    match at >= stop {
        true => Ok(stored_bytes),
        false => Err(LongTermError::LogEndsEarly {
            backup: backup.id.clone(),
            end: at,
        }),
    }
}
