//! What can be restored: from when to when, and where not.

use everpoint_pgformat::{Lsn, TimelineId};
use everpoint_repository::{
    BackupId, InstanceName, Repository, RepositoryError,
    backup::Backup,
    log::{GapDocument, LogIndex, LogMetadata, LogStretch},
    object::{ObjectError, ObjectKind, SealedObject},
};
use jiff::Timestamp;
use serde::Serialize;

use crate::{
    restore::target::to_timestamp,
    summary::{Asked, Begin, Chronicle, Facts, Sources, SummaryReadError},
};

/// In so many of the last log backups the end of a transaction is looked for.
const LAST_PIECES: usize = 256;

/// What of an instance can be restored.
#[derive(Clone, Debug, Serialize)]
pub struct Window {
    /// The instance.
    pub instance: InstanceName,
    /// Finished backups.
    pub backups: usize,
    /// Backups whose manifests are damaged.
    pub damaged: Vec<everpoint_repository::BackupId>,
    /// Log backups at the end of what is stored that are damaged. Others are read by `verify` and restores alone.
    pub damaged_log: Vec<String>,
    /// Stretches in which every point can be restored, oldest first. More than one where log is missing.
    pub ranges: Vec<Range>,
    /// Gaps that were recorded when they arose.
    pub gaps: Vec<GapDocument>,
    /// Behind the last backup log is missing: points from there on need a new one.
    pub backup_needed: bool,
}

/// A stretch in which every point can be restored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Range {
    /// The timeline in whose history it lies.
    pub timeline: TimelineId,
    /// The earliest point: the end of a backup.
    pub earliest: Timestamp,
    /// Its position.
    pub earliest_lsn: Lsn,
    /// The latest point, where it is known; by the server's clock.
    pub latest: Option<Timestamp>,
    /// Its position: log is complete up to here.
    pub latest_lsn: Lsn,
}

/// Finds out what can be restored.
///
/// # Errors
/// When the repository cannot be read.
pub async fn window(
    repository: &Repository,
    instance: &InstanceName,
) -> Result<Window, RepositoryError> {
    let found = repository.readable_backups(instance).await?;
    let backups = found.backups;
    let mut index = repository.log_index(instance).await?;
    let gaps = repository.gaps(instance).await?;
    let timeline = index
        .timelines()
        .last()
        .copied()
        .unwrap_or(TimelineId::FIRST);
    let stored_until = index
        .stretches()
        .filter(|stretch| stretch.timeline == timeline)
        .map(|stretch| stretch.end)
        .max();
    let mut damaged_log = Vec::new();
    let ranges = loop {
        match ranges(repository, instance, &backups, &index, timeline).await? {
            Ok(ranges) => break ranges,
            // What lies behind it cannot be reached, unless other objects hold the same log.
            Err(damaged) => {
                index.leave_out(&damaged);
                damaged_log.push(damaged.path);
            }
        }
    };
    let backup_needed = match (ranges.last(), stored_until) {
        (Some(range), Some(until)) => until > range.latest_lsn,
        (None, _) => true,
        (Some(_), None) => false,
    };
    let instance = instance.clone();
    Ok(Window {
        damaged: found.unreadable.into_iter().map(|(id, _)| id).collect(),
        damaged_log,
        instance,
        backups: backups.len(),
        ranges,
        gaps,
        backup_needed,
    })
}

/// The stretches in which every point can be restored; or the log backup at the end of one that is damaged.
async fn ranges(
    repository: &Repository,
    instance: &InstanceName,
    backups: &[Backup],
    index: &LogIndex,
    timeline: TimelineId,
) -> Result<Result<Vec<Range>, LogStretch>, RepositoryError> {
    let mut ranges: Vec<Range> = Vec::new();
    for backup in usable(backups, index, timeline) {
        let latest_lsn = index.complete_until(timeline, backup.start_lsn);
        if ranges
            .last()
            .is_some_and(|range| range.latest_lsn >= latest_lsn)
        {
            continue;
        }
        let latest = match last_stretch(index, timeline, backup, latest_lsn) {
            None => None,
            Some(last) => match complete_at_end_of(repository, instance, &last).await {
                Ok(Some(latest)) => Some(latest),
                // Of what a server pushed it is not known up to when there is no more than what it holds.
                Ok(None) => {
                    let sources = Sources::default();
                    let ends = last_end(repository, instance, index, timeline, backup, &sources);
                    let latest = ends.await?;
                    latest.filter(|latest| *latest >= backup.stopped_at)
                }
                Err(error) if error.is_damage() => return Ok(Err(last)),
                Err(error) => return Err(error),
            },
        };
        ranges.push(Range {
            timeline,
            earliest: backup.stopped_at,
            earliest_lsn: backup.stop_lsn,
            latest,
            latest_lsn,
        });
    }
    Ok(Ok(ranges))
}

/// When the last transaction ended of which stored log tells, as far as it is found in the last log backups.
async fn last_end(
    repository: &Repository,
    instance: &InstanceName,
    index: &LogIndex,
    timeline: TimelineId,
    backup: &Backup,
    sources: &Sources,
) -> Result<Option<Timestamp>, RepositoryError> {
    let until = index.complete_until(timeline, backup.start_lsn);
    let pieces = index
        .pieces(timeline, backup.start_lsn, until)
        .unwrap_or_default();
    for piece in pieces.iter().rev().take(LAST_PIECES) {
        let asked = Asked {
            repository,
            instance,
            backup,
            index,
            timeline,
            from: piece.from,
            begin: match piece.from == backup.start_lsn {
                true => Begin::AtRecord,
                false => Begin::Search,
            },
            until: piece.to,
            facts: Facts::Times,
            sources,
        };
        match latest_in(&asked).await {
            Ok(None) => {}
            Ok(Some(latest)) => return Ok(Some(latest)),
            Err(SummaryReadError::Repository(error)) if !error.is_damage() => return Err(error),
            // Who wants to restore to some point is told what is wrong there.
            Err(_) => return Ok(None),
        }
    }
    Ok(None)
}

async fn latest_in(asked: &Asked<'_>) -> Result<Option<Timestamp>, SummaryReadError> {
    let mut chronicle = Chronicle::new(asked).await?;
    let mut latest = None;
    while let Some(summary) = chronicle.next().await? {
        latest = latest.max(summary.times.latest());
    }
    Ok(latest.map(to_timestamp))
}

/// The log backup that ends at `until`.
fn last_stretch(
    index: &LogIndex,
    timeline: TimelineId,
    backup: &Backup,
    until: Lsn,
) -> Option<LogStretch> {
    let pieces = index.pieces(timeline, backup.start_lsn, until).ok()?;
    let last = pieces.into_iter().next_back()?;
    (last.stretch.end == until).then_some(last.stretch)
}

/// The backups in a timeline's history that log makes consistent, by position.
pub fn usable<'a>(
    backups: &'a [Backup],
    index: &LogIndex,
    timeline: TimelineId,
) -> Vec<&'a Backup> {
    let parts = index.history(timeline).parts();
    let mut usable: Vec<&Backup> = backups
        .iter()
        .filter(|backup| {
            let on = parts.iter().find(|part| part.timeline == backup.timeline);
            on.is_some_and(|part| backup.start_lsn >= part.from && backup.stop_lsn <= part.to)
        })
        .filter(|backup| index.complete_until(timeline, backup.start_lsn) >= backup.stop_lsn)
        // Without its base a differential is of no use.
        .filter(|backup| {
            let is_base = |base: &BackupId| backups.iter().any(|other| other.id == *base);
            backup.kind.base().is_none_or(is_base)
        })
        .collect();
    usable.sort_by_key(|backup| backup.stop_lsn);
    usable
}

/// Up to when the log that ends at `until` is known to be complete, by the server's clock.
///
/// # Errors
/// When the last log backup cannot be read.
pub async fn complete_at(
    repository: &Repository,
    instance: &InstanceName,
    index: &LogIndex,
    timeline: TimelineId,
    backup: &Backup,
    until: Lsn,
) -> Result<Option<Timestamp>, RepositoryError> {
    match last_stretch(index, timeline, backup, until) {
        None => Ok(None),
        Some(last) => complete_at_end_of(repository, instance, &last).await,
    }
}

/// The same of the log that a timeline has up to `end`, wherever it begins.
///
/// # Errors
/// When the last log backup cannot be read.
pub async fn complete_at_end(
    repository: &Repository,
    instance: &InstanceName,
    index: &LogIndex,
    timeline: TimelineId,
    end: Lsn,
) -> Result<Option<Timestamp>, RepositoryError> {
    let mut stretches = index.stretches();
    let last = stretches.find(|stretch| stretch.timeline == timeline && stretch.end == end);
    match last {
        None => Ok(None),
        Some(last) => complete_at_end_of(repository, instance, last).await,
    }
}

async fn complete_at_end_of(
    repository: &Repository,
    instance: &InstanceName,
    stretch: &LogStretch,
) -> Result<Option<Timestamp>, RepositoryError> {
    let marked = repository.marked_complete_at(instance, stretch.timeline, stretch.end);
    let marked = match marked.await {
        // Without it less is known, and nothing wrong.
        Err(error) if error.is_damage() => None,
        marked => marked?,
    };
    let (store, keys) = (repository.store(), repository.keys());
    let object =
        SealedObject::open(store, keys, &stretch.path, ObjectKind::Log, stretch.id).await?;
    let metadata: LogMetadata = serde_json::from_slice(object.metadata()).map_err(|_| {
        let what = "its metadata is not a log backup's, or is a newer everpoint's";
        ObjectError::Damaged {
            path: stretch.path.clone(),
            what,
        }
    })?;
    Ok(metadata.complete_at.max(marked))
}
