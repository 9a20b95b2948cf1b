//! What happened to databases in stored log.

use std::collections::HashSet;

use everpoint_pgformat::{
    Lsn, TimelineId, TransactionId,
    wal_summary::{
        SummaryBuilder, SummaryError, database_events::DatabaseEvents, time_index::TransactionMark,
    },
};
use everpoint_repository::{Repository, backup::Backup};

use super::life::{Ends, Life, lives};
use crate::restore::{
    Stored,
    target::{Begin, LogScan, TargetError},
};

/// Stored log cannot be searched for what happened to databases.
#[derive(Debug, thiserror::Error)]
pub enum EventsError {
    /// It cannot be read.
    #[error(transparent)]
    Log(#[from] TargetError),
    /// A record in it makes no sense.
    #[error("the stored log cannot be searched")]
    Summary(#[from] SummaryError),
}

/// The lives of databases from a backup's start up to a position.
///
/// # Errors
/// See [`EventsError`].
pub async fn lives_between(
    repository: &Repository,
    stored: &Stored,
    backup: &Backup,
    until: Lsn,
) -> Result<Vec<Life>, EventsError> {
    let scan = LogScan {
        repository,
        index: &stored.index,
        timeline: stored.timeline,
        version: backup.version,
        segment_size: backup.segment_size,
    };
    let mut collector = Collector::new(backup, stored.timeline);
    let mut failed = None;
    scan.run(backup.start_lsn, until, Begin::AtRecord, |record| {
        if record.end() > until {
            return Ok(false);
        }
        if let Err(error) = collector.builder.add(record) {
            failed = Some(error);
            return Ok(false);
        }
        if collector.builder.is_full() {
            collector.cut();
        }
        Ok(true)
    })
    .await?;
    if let Some(error) = failed {
        return Err(error.into());
    }
    collector.cut();
    let ends = Ends::new(collector.ends);
    Ok(lives(&backup.databases, &collector.events, &ends))
}

/// Keeps of summaries what is about databases.
struct Collector {
    builder: SummaryBuilder,
    events: DatabaseEvents,
    ends: Vec<TransactionMark>,
}

impl Collector {
    fn new(backup: &Backup, timeline: TimelineId) -> Self {
        Self {
            builder: SummaryBuilder::new(backup.version, timeline, backup.start_lsn),
            events: DatabaseEvents::default(),
            ends: Vec::new(),
        }
    }

    fn cut(&mut self) {
        let summary = self.builder.cut();
        self.events.absorb(summary.databases);
        let concerned: HashSet<TransactionId> = self
            .events
            .events()
            .iter()
            .map(|event| event.transaction)
            .collect();
        let ends = summary.times.transactions();
        let mut marks: HashSet<Lsn> = HashSet::new();
        for event in self.events.events() {
            // The end behind each event tells its time where it has none of its own.
            let next = ends.partition_point(|end| end.start < event.start);
            marks.extend(ends.get(next).map(|end| end.start));
        }
        let wanted = |end: &&TransactionMark| {
            concerned.contains(&end.transaction) || marks.contains(&end.start)
        };
        self.ends.extend(ends.iter().filter(wanted));
    }
}
