//! What happened, and when: told from stored log and backups alone.
//!
//! [`read`] lists what happened to databases and tables ([`event`]); [`before`] turns an event into the
//! position just before it, which a restore can be given.

mod before;
mod catalogs;
pub mod clock;
pub mod databases;
pub mod digest;
pub mod event;
mod known;
pub mod lives;
mod relations;
mod text;

use everpoint_pgformat::{Lsn, TimelineId, timeline::TimelineHistory};
use everpoint_repository::{
    InstanceName, Repository, RepositoryError,
    backup::Backup,
    log::{GapDocument, LogIndex},
};
use jiff::Timestamp;

pub use before::{Before, Neighbours, before};

use self::{
    catalogs::BackupCatalogs,
    digest::Digest,
    event::{Change, Event, EventId, EventKind},
    lives::DatabaseLives,
};
use crate::summary::{Asked, Begin, Chronicle, Facts, Source, Sources, SummaryReadError};

/// What is to be told.
#[derive(Clone, Debug)]
pub struct HistoryRequest {
    /// The instance.
    pub instance: InstanceName,
    /// The timeline in whose history; the latest when absent.
    pub timeline: Option<TimelineId>,
    /// From when on; all that is stored when absent.
    pub since: Option<Timestamp>,
    /// Up to when.
    pub until: Option<Timestamp>,
    /// From what it is told.
    pub source: Source,
}

/// What happened.
#[derive(Clone, Debug)]
pub struct History {
    /// The instance.
    pub instance: InstanceName,
    /// The timeline in whose history.
    pub timeline: TimelineId,
    /// What happened, in the order of the log.
    pub events: Vec<Event>,
    /// What became of databases, over all log that was read.
    pub databases: DatabaseLives,
    /// The stretches of log that were read.
    pub read: Vec<(Lsn, Lsn)>,
    /// Why something may be missing, for a person.
    pub troubles: Vec<String>,
}

/// What happened cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// There is no log.
    #[error(
        "no log is stored of instance `{instance}`, so nothing is known of what happened. everpoint wal \
         receive {instance} stores it"
    )]
    NoLog {
        /// The instance.
        instance: InstanceName,
    },
    /// No such timeline.
    #[error("nothing is stored of timeline {timeline}. Stored are: {known}")]
    UnknownTimeline {
        /// As asked for.
        timeline: TimelineId,
        /// Those there are.
        known: String,
    },
    /// No such event.
    #[error(
        "no transaction ended at {event}, and nothing else happened there. everpoint log {instance} lists \
         what happened"
    )]
    UnknownEvent {
        /// As asked for.
        event: EventId,
        /// The instance.
        instance: InstanceName,
    },
    /// Nothing to begin the restore with.
    #[error(
        "the moment before {event} cannot be restored: the earliest backup that is stored ended later, at \
         {earliest}"
    )]
    NoBackupBefore {
        /// As asked for.
        event: EventId,
        /// When the earliest backup ended.
        earliest: String,
    },
    /// The log between the backup and the event is not all there.
    #[error(
        "the moment before {event} cannot be restored: log from {missing} on is missing, and no backup was \
         taken between there and the event"
    )]
    LogMissing {
        /// As asked for.
        event: EventId,
        /// The first position that is missing.
        missing: Lsn,
    },
    /// Neither summaries nor log tell it.
    #[error(transparent)]
    Summaries(#[from] SummaryReadError),
    /// The repository.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
}

/// What of an instance the repository holds, read once.
struct Stored {
    backups: Vec<Backup>,
    index: LogIndex,
    timeline: TimelineId,
    history: TimelineHistory,
    sources: Sources,
}

impl Stored {
    async fn read(
        repository: &Repository,
        instance: &InstanceName,
        timeline: Option<TimelineId>,
        source: Source,
    ) -> Result<Self, HistoryError> {
        let mut backups = repository.readable_backups(instance).await?.backups;
        let index = repository.log_index(instance).await?;
        let known = index.timelines();
        let timeline = match timeline {
            Some(timeline) if !known.contains(&timeline) => {
                let known: Vec<String> = known.iter().map(ToString::to_string).collect();
                let known = known.join(", ");
                return Err(HistoryError::UnknownTimeline { timeline, known });
            }
            Some(timeline) => timeline,
            None => known.last().copied().ok_or_else(|| HistoryError::NoLog {
                instance: instance.clone(),
            })?,
        };
        let history = index.history(timeline);
        let parts = history.parts();
        backups.retain(|backup| {
            let on = parts.iter().find(|part| part.timeline == backup.timeline);
            on.is_some_and(|part| backup.start_lsn >= part.from && backup.stop_lsn <= part.to)
        });
        backups.sort_by_key(|backup| backup.stop_lsn);
        Ok(Self {
            backups,
            index,
            timeline,
            history,
            sources: Sources::new(source),
        })
    }

    /// The stretches of the history that are stored without a hole, from a position on.
    fn stretches(&self, from: Lsn) -> Vec<(Lsn, Lsn)> {
        let parts = self.history.parts();
        let mut starts: Vec<Lsn> = self
            .index
            .stretches()
            .filter(|stretch| {
                let on = parts.iter().find(|part| part.timeline == stretch.timeline);
                on.is_some_and(|part| stretch.end > part.from && stretch.start < part.to)
            })
            .map(|stretch| stretch.start)
            .collect();
        starts.sort_unstable();
        starts.insert(0, from);
        let mut stretches: Vec<(Lsn, Lsn)> = Vec::new();
        for start in starts {
            let at = stretches.last().map_or(from, |(_, until)| *until);
            if start < at {
                continue;
            }
            let until = self.index.complete_until(self.timeline, start);
            if until > start {
                match stretches.last_mut() {
                    Some(last) if last.1 == start => last.1 = until,
                    _ => stretches.push((start, until)),
                }
            }
        }
        stretches
    }

    /// What happened in a stretch; `None` when no backup tells what cluster it is of.
    async fn chronicle<'a>(
        &'a self,
        repository: &'a Repository,
        instance: &'a InstanceName,
        (from, until): (Lsn, Lsn),
        facts: Facts,
    ) -> Result<Option<Chronicle<'a>>, HistoryError> {
        let describing = self
            .backups
            .iter()
            .rfind(|backup| backup.start_lsn <= from)
            .or(self.backups.first());
        let Some(backup) = describing else {
            return Ok(None);
        };
        let is_start = self.backups.iter().any(|backup| backup.start_lsn == from);
        let asked = Asked {
            repository,
            instance,
            backup,
            index: &self.index,
            timeline: self.timeline,
            from,
            begin: match is_start {
                true => Begin::AtRecord,
                false => Begin::Search,
            },
            until,
            facts,
            sources: &self.sources,
        };
        Ok(Some(Chronicle::new(&asked).await?))
    }
}

/// Tells what happened.
///
/// # Errors
/// See [`HistoryError`].
pub async fn read(
    repository: &Repository,
    request: &HistoryRequest,
) -> Result<History, HistoryError> {
    let instance = &request.instance;
    let stored = Stored::read(repository, instance, request.timeline, request.source).await?;
    let gaps = repository.gaps(instance).await?;
    let mut troubles = Vec::new();
    // The last backup before the time asked for knows the databases of that time.
    let since = request.since;
    let first = stored
        .backups
        .iter()
        .rfind(|backup| since.is_some_and(|since| backup.stopped_at <= since))
        .or(stored.backups.first());
    let from = first.map_or(Lsn::INVALID, |backup| backup.start_lsn);
    if first.is_none() {
        troubles.push(format!(
            "no finished backup is stored; take one: everpoint backup {instance}"
        ));
    }
    let lives = first.map(DatabaseLives::of_backup).unwrap_or_default();
    let mut digest = Digest::new(stored.history.clone(), lives);
    let stretches = stored.stretches(from);
    for stretch in &stretches {
        let chronicle = stored.chronicle(repository, instance, *stretch, Facts::Tables);
        let Some(mut chronicle) = chronicle.await? else {
            break;
        };
        while let Some(summary) = chronicle.next().await? {
            digest.add(&summary);
        }
    }
    troubles.extend(stored.sources.notes());
    let digested = digest.finish();
    if digested.is_partial {
        troubles
            .push("there is more than can be listed; ask for less with --since and --until".into());
    }
    let mut events = digested.events;
    events.extend(promotions(&stored, from));
    events.extend(lost(&stored, &stretches, &gaps));
    events.sort_by_key(|event| event.id.lsn);
    fill_times(&mut events);
    let is_wanted = |event: &Event| {
        let Some(time) = event.time else { return true };
        request.since.is_none_or(|since| time >= since)
            && request.until.is_none_or(|until| time <= until)
    };
    events.retain(is_wanted);
    let mut catalogs = BackupCatalogs::new(repository, instance, &stored.backups);
    for event in &mut events {
        catalogs.name(event).await;
    }
    troubles.append(&mut catalogs.troubles);
    Ok(History {
        instance: instance.clone(),
        timeline: stored.timeline,
        events,
        databases: digested.lives,
        read: stretches,
        troubles,
    })
}

/// The switches to the timelines of the history.
fn promotions(stored: &Stored, from: Lsn) -> Vec<Event> {
    let parts = stored.history.parts();
    let pairs = parts.iter().zip(parts.iter().skip(1));
    pairs
        .filter(|(_, next)| next.from >= from)
        .map(|(before, next)| {
            let change = Change::Promoted {
                from: before.timeline,
            };
            bare(EventKind::Timeline, next.timeline, next.from, change)
        })
        .collect()
}

/// What is missing between the stretches that are stored.
fn lost(stored: &Stored, stretches: &[(Lsn, Lsn)], gaps: &[GapDocument]) -> Vec<Event> {
    let pairs = stretches.iter().zip(stretches.iter().skip(1));
    pairs
        .map(|((_, lost_from), (to, _))| {
            let recorded = gaps
                .iter()
                .find(|gap| gap.from <= *to && gap.to >= *lost_from);
            let change = Change::Lost {
                to: *to,
                reason: recorded.map(|gap| gap.reason.clone()),
            };
            let timeline = stored.history.timeline_at(*lost_from);
            bare(EventKind::Gap, timeline, *lost_from, change)
        })
        .collect()
}

fn bare(kind: EventKind, timeline: TimelineId, lsn: Lsn, change: Change) -> Event {
    Event {
        id: EventId { timeline, lsn },
        kind,
        time: None,
        transaction: None,
        database: None,
        change,
        size: None,
    }
}

/// Events that carry no time get that of the event before them.
fn fill_times(events: &mut [Event]) {
    let mut before = None;
    for event in events {
        event.time = event.time.or(before);
        before = event.time;
    }
}
