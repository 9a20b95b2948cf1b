//! From what an operation learns what happened: stored summaries, or the log itself.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use everpoint_pgformat::{Lsn, TimelineId, wal_summary::WalSummary};

use super::SummaryEvent;

/// What summaries made of log may take of memory, of which an operation remembers them: log that has none is
/// read once then, and not again for each question.
const MAX_REMEMBERED_BYTES: usize = 64 << 20;
/// The most notes that are kept.
const MAX_NOTES: usize = 32;

/// From what it is told what happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// From stored summaries; from the log where there are none, or they are in doubt.
    #[default]
    Summaries,
    /// From the log alone.
    Log,
}

/// What of a summary is asked for. Each includes the ones before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Facts {
    /// Which blocks changed: a summary may tell of more than is asked.
    Changes,
    /// When transactions ended.
    Times,
    /// What happened to databases.
    Databases,
    /// What transactions did to tables.
    Tables,
}

/// The sources of one operation, with what was amiss with them.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    source: Source,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    notes: Vec<String>,
    remembered: Vec<Remembered>,
    bytes: usize,
}

/// A summary that was made of log.
#[derive(Debug)]
struct Remembered {
    timeline: TimelineId,
    from: Lsn,
    to: Lsn,
    summary: Arc<WalSummary>,
}

impl Sources {
    /// Nothing read yet.
    pub fn new(source: Source) -> Self {
        Self {
            source,
            shared: Arc::default(),
        }
    }

    /// From what it is told.
    pub fn source(&self) -> Source {
        self.source
    }

    /// What was amiss with stored summaries, for a person.
    pub fn notes(&self) -> Vec<String> {
        self.shared().notes.clone()
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note(&self, event: &SummaryEvent) {
        let Some(note) = event.text().filter(|_| self.source == Source::Summaries) else {
            return;
        };
        let mut shared = self.shared();
        if shared.notes.len() < MAX_NOTES && !shared.notes.contains(&note) {
            shared.notes.push(note);
        }
    }

    /// Remembers what was made of log, read in the history of a timeline.
    pub(super) fn remember(
        &self,
        timeline: TimelineId,
        (from, to): (Lsn, Lsn),
        summary: &WalSummary,
    ) {
        let bytes = list_bytes(summary);
        let mut shared = self.shared();
        if shared.bytes.saturating_add(bytes) > MAX_REMEMBERED_BYTES {
            return;
        }
        shared.bytes += bytes;
        shared.remembered.push(Remembered {
            timeline,
            from,
            to,
            summary: Arc::new(summary.clone()),
        });
    }

    /// What was made of the log from a position on, and up to where.
    pub(super) fn remembered(
        &self,
        timeline: TimelineId,
        from: Lsn,
    ) -> Option<(Lsn, Arc<WalSummary>)> {
        let shared = self.shared();
        let known = shared.remembered.iter();
        known
            .filter(|known| known.timeline == timeline && known.from == from)
            .max_by_key(|known| known.to)
            .map(|known| (known.to, known.summary.clone()))
    }
}

/// About what a summary's lists take of memory.
fn list_bytes(summary: &WalSummary) -> usize {
    const EVENT_BYTES: usize = 160;
    const NOTABLE_BYTES: usize = 1024;
    const CHANGE_BYTES: usize = 256;
    let marks = size_of_val(summary.times.transactions())
        + size_of_val(summary.times.prepared())
        + summary.times.restore_points().len() * EVENT_BYTES;
    let changes = summary.transactions.ended().iter();
    let changes: usize = changes
        .map(|ended| NOTABLE_BYTES + ended.activity.schema.len() * CHANGE_BYTES)
        .sum();
    let events = summary.databases.events().len() * EVENT_BYTES;
    marks + events + size_of_val(summary.relations.events()) + changes
}
