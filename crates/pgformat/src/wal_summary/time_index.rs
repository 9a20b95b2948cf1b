//! When transactions ended, in the order of the log: what turns a time into a position to recover to.
//!
//! PostgreSQL stops at a time before the first commit or abort, in the order of the log, that carries a later
//! one (`recoveryStopsBefore` in `src/backend/access/transam/xlogrecovery.c`). Times are not in order: they
//! are taken before the record gets its place.

use crate::{Lsn, PgTimestamp, TransactionId, wal::transaction::EndKind};

use super::Coverage;

/// The most transaction ends an index holds; what comes later is left out, and [`TimeIndex::coverage`]
/// says so.
pub const MAX_TRANSACTION_MARKS: usize = 1 << 21;
/// The most preparations an index holds.
pub const MAX_PREPARED_MARKS: usize = 1 << 20;
/// The most restore points an index holds.
pub const MAX_RESTORE_POINTS: usize = 1 << 16;

/// The end of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactionMark {
    /// Its time.
    pub time: PgTimestamp,
    /// Start of the record before it: the last that is replayed when this one is not.
    pub before: Lsn,
    /// Start of its record.
    pub start: Lsn,
    /// End of its record.
    pub end: Lsn,
    /// The transaction.
    pub transaction: TransactionId,
    /// How it ended.
    pub kind: EndKind,
}

/// A transaction was prepared for a commit in two phases. A recovery up to its record has it prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PreparedMark {
    /// Its time.
    pub time: PgTimestamp,
    /// Start of its record.
    pub start: Lsn,
    /// End of its record.
    pub end: Lsn,
    /// The transaction.
    pub transaction: TransactionId,
}

/// A named restore point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestorePointMark {
    /// Its time.
    pub time: PgTimestamp,
    /// Start of its record.
    pub start: Lsn,
    /// End of its record.
    pub end: Lsn,
    /// Its name, in the server's encoding.
    pub name: Vec<u8>,
}

/// The clock went back between two transaction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepBack {
    /// Start of the record with the earlier time.
    pub at: Lsn,
    /// The latest time before.
    pub from: PgTimestamp,
    /// The time after.
    pub to: PgTimestamp,
}

impl StepBack {
    /// By how many microseconds.
    pub fn microseconds(&self) -> i64 {
        self.from.raw().saturating_sub(self.to.raw())
    }
}

/// The ends and preparations of transactions and the restore points of a stretch of log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TimeIndex {
    transactions: Vec<TransactionMark>,
    prepared: Vec<PreparedMark>,
    restore_points: Vec<RestorePointMark>,
    latest: Option<PgTimestamp>,
    largest_step_back: Option<StepBack>,
    coverage: Coverage,
}

impl TimeIndex {
    /// Of ends and preparations of transactions, each in the order of the log.
    pub fn new(
        transactions: impl IntoIterator<Item = TransactionMark>,
        prepared: impl IntoIterator<Item = PreparedMark>,
    ) -> Self {
        let mut index = Self::default();
        for mark in transactions {
            index.add_transaction(mark);
        }
        for mark in prepared {
            index.add_prepared(mark);
        }
        index
    }

    /// The ends of transactions, in the order of the log.
    pub fn transactions(&self) -> &[TransactionMark] {
        &self.transactions
    }

    /// The preparations of transactions, in the order of the log. They do not stop PostgreSQL at a time.
    pub fn prepared(&self) -> &[PreparedMark] {
        &self.prepared
    }

    /// The restore points, in the order of the log.
    pub fn restore_points(&self) -> &[RestorePointMark] {
        &self.restore_points
    }

    /// Whether all ends, preparations and restore points of the log are here.
    pub fn coverage(&self) -> Coverage {
        self.coverage
    }

    /// The latest time of a transaction's end.
    pub fn latest(&self) -> Option<PgTimestamp> {
        self.latest
    }

    /// The largest of the clock's steps back. A few milliseconds are usual.
    pub fn largest_step_back(&self) -> Option<StepBack> {
        self.largest_step_back
    }

    /// The first transaction end, in the order of the log from `from` on, that is later than `time`: the one
    /// before which PostgreSQL stops.
    pub fn first_later_than(&self, time: PgTimestamp, from: Lsn) -> Option<&TransactionMark> {
        let first = self.transactions.partition_point(|mark| mark.start < from);
        self.transactions
            .get(first..)?
            .iter()
            .find(|mark| mark.time > time)
    }

    /// How a transaction ended whose record at `from` is known: transactions' numbers come round again.
    pub fn end_of(&self, transaction: TransactionId, from: Lsn) -> Option<&TransactionMark> {
        let first = self.transactions.partition_point(|mark| mark.start < from);
        self.transactions
            .get(first..)?
            .iter()
            .find(|mark| mark.transaction == transaction)
    }

    /// Appends the end of a transaction.
    pub(super) fn add_transaction(&mut self, mark: TransactionMark) {
        if let Some(latest) = self.latest {
            let step = StepBack {
                at: mark.start,
                from: latest,
                to: mark.time,
            };
            let largest = self.largest_step_back.map_or(0, |step| step.microseconds());
            if step.microseconds() > largest {
                self.largest_step_back = Some(step);
            }
        }
        self.latest = self.latest.max(Some(mark.time));
        if self.transactions.len() < MAX_TRANSACTION_MARKS {
            self.transactions.push(mark);
        } else {
            self.coverage = Coverage::Partial;
        }
    }

    /// Appends a preparation.
    pub(super) fn add_prepared(&mut self, mark: PreparedMark) {
        if self.prepared.len() < MAX_PREPARED_MARKS {
            self.prepared.push(mark);
        } else {
            self.coverage = Coverage::Partial;
        }
    }

    /// Appends a restore point.
    pub(super) fn add_restore_point(&mut self, mark: RestorePointMark) {
        if self.restore_points.len() < MAX_RESTORE_POINTS {
            self.restore_points.push(mark);
        } else {
            self.coverage = Coverage::Partial;
        }
    }

    /// Appends the index of the log that follows.
    pub(super) fn absorb(&mut self, later: Self) {
        self.coverage = self.coverage.and(later.coverage);
        for mark in later.transactions {
            self.add_transaction(mark);
        }
        for mark in later.prepared {
            self.add_prepared(mark);
        }
        for mark in later.restore_points {
            self.add_restore_point(mark);
        }
    }

    /// Leaves out what is not told by records in a stretch.
    pub(super) fn keep_between(&mut self, from: Lsn, to: Lsn) {
        let whole = std::mem::take(self);
        self.coverage = whole.coverage;
        let inside = |start: Lsn, end: Lsn| start >= from && end <= to;
        for mark in whole.transactions {
            if inside(mark.start, mark.end) {
                self.add_transaction(mark);
            }
        }
        self.prepared = whole.prepared;
        self.prepared.retain(|mark| inside(mark.start, mark.end));
        self.restore_points = whole.restore_points;
        self.restore_points
            .retain(|mark| inside(mark.start, mark.end));
    }

    pub(super) fn set_coverage(&mut self, coverage: Coverage) {
        self.coverage = coverage;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(start: u64, time: i64) -> TransactionMark {
        TransactionMark {
            time: PgTimestamp::from_raw(time),
            before: Lsn::new(start - 8),
            start: Lsn::new(start),
            end: Lsn::new(start + 8),
            transaction: TransactionId::new(1),
            kind: EndKind::Commit,
        }
    }

    #[test]
    fn first_later_end_is_found_in_the_order_of_the_log_although_times_are_not() {
        let mut index = TimeIndex::default();
        for (start, time) in [(100, 10), (200, 30), (300, 20), (400, 40)] {
            index.add_transaction(mark(start, time));
        }
        let found = |time, from| {
            index
                .first_later_than(PgTimestamp::from_raw(time), Lsn::new(from))
                .map(|mark| mark.start.get())
        };
        assert_eq!(found(9, 0), Some(100));
        assert_eq!(found(10, 0), Some(200));
        assert_eq!(found(20, 0), Some(200));
        assert_eq!(found(20, 250), Some(400));
        assert_eq!(found(40, 0), None);
        let step = index.largest_step_back().unwrap();
        assert_eq!((step.at.get(), step.microseconds()), (300, 10));
        assert_eq!(index.latest(), Some(PgTimestamp::from_raw(40)));
    }
}
