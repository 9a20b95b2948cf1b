//! What happened to databases in stored log.

use std::collections::HashSet;

use everpoint_pgformat::{
    Lsn, TransactionId,
    wal_summary::{WalSummary, database_events::DatabaseEvents, time_index::TransactionMark},
};
use everpoint_repository::{InstanceName, Repository, backup::Backup};

use super::life::{Ends, Life, lives};
use crate::{
    restore::Stored,
    summary::{Asked, Begin, Chronicle, Facts, SummaryReadError},
};

/// The lives of databases from a backup's start up to a position.
///
/// # Errors
/// When neither summaries nor log tell them.
pub async fn lives_between(
    repository: &Repository,
    instance: &InstanceName,
    stored: &Stored,
    backup: &Backup,
    until: Lsn,
) -> Result<Vec<Life>, SummaryReadError> {
    let asked = Asked {
        repository,
        instance,
        backup,
        index: &stored.index,
        timeline: stored.timeline,
        from: backup.start_lsn,
        begin: Begin::AtRecord,
        until,
        facts: Facts::Databases,
        sources: &stored.sources,
    };
    let mut chronicle = Chronicle::new(&asked).await?;
    let mut collector = Collector::default();
    while let Some(summary) = chronicle.next().await? {
        collector.add(summary);
    }
    let ends = Ends::new(collector.ends);
    Ok(lives(&backup.databases, &collector.events, &ends))
}

/// Keeps of summaries what is about databases.
#[derive(Default)]
struct Collector {
    events: DatabaseEvents,
    ends: Vec<TransactionMark>,
}

impl Collector {
    fn add(&mut self, summary: WalSummary) {
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
