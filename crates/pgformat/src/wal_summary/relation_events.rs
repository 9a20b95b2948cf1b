//! Files of relations that went away or got shorter: where a dropped or truncated table can still be had.

use crate::{BlockNumber, Lsn, TransactionId, relation::RelationId};

use super::Coverage;

/// The most events kept; what comes later is left out, and [`RelationEvents::coverage`] says so.
pub const MAX_RELATION_EVENTS: usize = 1 << 20;

/// A relation's file went away or got shorter. What comes from a transaction's end is committed, or was
/// made and undone by the same transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelationEvent {
    /// Start of the record. Recovery up to here, exclusive, has the file as it was.
    pub start: Lsn,
    /// The transaction.
    pub transaction: TransactionId,
    /// The relation.
    pub relation: RelationId,
    /// What happened.
    pub change: RelationChange,
}

/// What happened to a relation's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelationChange {
    /// A commit removed it: of a dropped, truncated or rewritten relation.
    Dropped,
    /// It was cut to this many blocks, by `VACUUM` or by `TRUNCATE` in the transaction that made it.
    Truncated(BlockNumber),
}

/// Events of a stretch of log, in the order of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RelationEvents {
    events: Vec<RelationEvent>,
    coverage: Coverage,
}

impl RelationEvents {
    /// The events, in the order of the log.
    pub fn events(&self) -> &[RelationEvent] {
        &self.events
    }

    /// Whether all events of the log are here.
    pub fn coverage(&self) -> Coverage {
        self.coverage
    }

    pub(super) fn add(&mut self, event: RelationEvent) {
        if self.events.len() < MAX_RELATION_EVENTS {
            self.events.push(event);
        } else {
            self.coverage = Coverage::Partial;
        }
    }

    pub(super) fn absorb(&mut self, later: Self) {
        self.coverage = self.coverage.and(later.coverage);
        for event in later.events {
            self.add(event);
        }
    }

    /// Leaves out what is not told by records that begin in a stretch.
    pub(super) fn keep_between(&mut self, from: Lsn, to: Lsn) {
        self.events
            .retain(|event| (from..to).contains(&event.start));
    }

    pub(super) fn set_coverage(&mut self, coverage: Coverage) {
        self.coverage = coverage;
    }
}
