//! The ledger: which transactions were begun, and what is known of their end.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use everpoint_pgformat::Lsn;
use jiff::Timestamp;

use crate::Moment;

/// Ids of one writer's rows.
const ROWS_PER_WRITER: i64 = 1_000_000_000;

/// The entry that a transaction writes: `workload.entry.id`. A writer's ids ascend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RowId(i64);

impl RowId {
    pub(super) fn new(writer: u32, sequence: u32) -> Self {
        Self(i64::from(writer) * ROWS_PER_WRITER + i64::from(sequence))
    }

    pub(super) fn from_stored(id: i64) -> Self {
        Self(id)
    }

    /// The number that is stored.
    pub fn get(self) -> i64 {
        self.0
    }

    /// Which writer wrote it.
    pub fn writer(self) -> u32 {
        u32::try_from(self.0 / ROWS_PER_WRITER).unwrap_or(u32::MAX)
    }
}

impl fmt::Display for RowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What the client knows of a transaction's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// COMMIT was acknowledged before this moment.
    Committed(Moment),
    /// COMMIT was sent and no answer came.
    InDoubt,
    /// It was rolled back.
    RolledBack,
}

/// A transaction in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// A moment after its last statement and before its COMMIT was sent.
    pub before: Moment,
    /// Its end.
    pub outcome: Outcome,
}

/// A state of a database, as one asks a restore for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Everything committed up to this time.
    Time(Timestamp),
    /// Every record that begins at or before this position.
    Lsn(Lsn),
    /// All that was ever acknowledged: the database itself, after a crash too.
    Latest,
}

/// Whether a row is there in a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expectation {
    /// It must be visible.
    Present,
    /// It must not be visible.
    Absent,
    /// The client cannot know: its commit was under way.
    Either,
}

impl Transaction {
    /// Whether its row is there in a state.
    pub fn expected(&self, target: Target) -> Expectation {
        let after = match self.outcome {
            Outcome::RolledBack => return Expectation::Absent,
            Outcome::InDoubt => None,
            Outcome::Committed(after) => Some(after),
        };
        // The commit's own time and record lie between the two moments.
        let (present, absent) = match target {
            Target::Time(time) => (
                after.is_some_and(|after| after.time <= time),
                self.before.time > time,
            ),
            Target::Lsn(lsn) => (
                after.is_some_and(|after| after.lsn <= lsn),
                self.before.lsn > lsn,
            ),
            Target::Latest => (after.is_some(), false),
        };
        match (present, absent) {
            (true, _) => Expectation::Present,
            (_, true) => Expectation::Absent,
            _ => Expectation::Either,
        }
    }
}

/// What a workload did.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    transactions: BTreeMap<RowId, Transaction>,
}

impl Ledger {
    /// Every transaction that came as far as its COMMIT or ROLLBACK, by the row it wrote.
    pub fn transactions(&self) -> &BTreeMap<RowId, Transaction> {
        &self.transactions
    }

    /// Transactions whose commit was acknowledged.
    pub fn committed(&self) -> usize {
        let transactions = self.transactions.values();
        transactions
            .filter(|transaction| matches!(transaction.outcome, Outcome::Committed(_)))
            .count()
    }

    /// The moments after each acknowledged commit, in the order of their times: targets to restore to.
    pub fn commit_moments(&self) -> Vec<Moment> {
        let transactions = self.transactions.values();
        let mut moments: Vec<Moment> = transactions
            .filter_map(|transaction| match transaction.outcome {
                Outcome::Committed(after) => Some(after),
                _ => None,
            })
            .collect();
        moments.sort_by_key(|moment| moment.time);
        moments
    }

    pub(super) fn next_writer(&self) -> u32 {
        let last = self.transactions.keys().next_back();
        last.map_or(0, |row| row.writer() + 1)
    }
}

/// The ledger that several writers write into.
#[derive(Clone, Debug)]
pub(super) struct SharedLedger(Arc<Mutex<(Ledger, usize)>>);

impl SharedLedger {
    pub(super) fn new(ledger: Ledger) -> Self {
        let committed = ledger.committed();
        Self(Arc::new(Mutex::new((ledger, committed))))
    }

    fn lock(&self) -> MutexGuard<'_, (Ledger, usize)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn record(&self, row: RowId, transaction: Transaction) {
        let mut shared = self.lock();
        if matches!(transaction.outcome, Outcome::Committed(_)) {
            shared.1 += 1;
        }
        shared.0.transactions.insert(row, transaction);
    }

    pub(super) fn acknowledged(&self) -> usize {
        self.lock().1
    }

    pub(super) fn snapshot(&self) -> Ledger {
        self.lock().0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(time: i64, lsn: u64) -> Moment {
        Moment {
            time: Timestamp::from_microsecond(time).unwrap(),
            lsn: Lsn::new(lsn),
        }
    }

    fn at(time: i64) -> Target {
        Target::Time(Timestamp::from_microsecond(time).unwrap())
    }

    #[test]
    fn row_is_certain_only_outside_its_commit() {
        let transaction = Transaction {
            before: moment(10, 100),
            outcome: Outcome::Committed(moment(20, 200)),
        };
        let expectations = [9, 10, 19, 20].map(|time| transaction.expected(at(time)));
        use Expectation::{Absent, Either, Present};
        assert_eq!(expectations, [Absent, Either, Either, Present]);
        let expectations =
            [99, 100, 199, 200].map(|lsn| transaction.expected(Target::Lsn(Lsn::new(lsn))));
        assert_eq!(expectations, [Absent, Either, Either, Present]);
        assert_eq!(transaction.expected(Target::Latest), Present);
    }

    #[test]
    fn commit_in_doubt_may_be_there_from_its_sending_on() {
        let transaction = Transaction {
            before: moment(10, 100),
            outcome: Outcome::InDoubt,
        };
        assert_eq!(transaction.expected(at(9)), Expectation::Absent);
        assert_eq!(transaction.expected(at(1000)), Expectation::Either);
        assert_eq!(transaction.expected(Target::Latest), Expectation::Either);
    }

    #[test]
    fn rolled_back_row_is_never_there() {
        let transaction = Transaction {
            before: moment(10, 100),
            outcome: Outcome::RolledBack,
        };
        assert_eq!(transaction.expected(Target::Latest), Expectation::Absent);
    }
}
