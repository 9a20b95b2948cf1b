//! Transactions worth telling of: those that changed what a database is, removed files of relations, or
//! touched unusually many blocks. Among them is the mistake that someone wants undone.

use crate::{
    Lsn, PgTimestamp, TransactionId,
    wal::{
        record::Record,
        transaction::{EndKind, TransactionEnd},
    },
};

use super::{Coverage, activity::Activity, hash::QuickMap, schema_changes::SchemaChange};

/// From this many block references on a transaction is large.
pub const LARGE_TRANSACTION_BLOCKS: u64 = 10_000;
/// The most transactions kept; the smallest without changes of schema give way.
pub const MAX_NOTABLE_TRANSACTIONS: usize = 1 << 14;
/// The most transactions followed at a time; when there are more, the smallest are forgotten.
pub const MAX_OPEN_TRANSACTIONS: usize = 1 << 14;

/// The most changes of schemas kept of all transactions worth telling of, and of all that are followed; what
/// comes later is only counted.
pub const MAX_KEPT_CHANGES: usize = 1 << 16;

/// A transaction worth telling of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotableTransaction {
    /// The transaction, the top-level one.
    pub transaction: TransactionId,
    /// How it ended.
    pub kind: EndKind,
    /// When, by the server's clock.
    pub time: PgTimestamp,
    /// Start of the record of its end.
    pub ended: Lsn,
    /// What it did.
    pub activity: Activity,
}

impl NotableTransaction {
    /// Whether it touched unusually many blocks.
    pub fn is_large(&self) -> bool {
        self.activity.blocks >= LARGE_TRANSACTION_BLOCKS
    }
}

/// The transactions of a stretch of log that are worth telling of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NotableTransactions {
    ended: Vec<NotableTransaction>,
    /// Changes of schemas among them.
    changes: usize,
    coverage: Coverage,
    unfinished: Vec<(TransactionId, Activity)>,
}

impl NotableTransactions {
    /// Those that ended, in the order of their ends.
    pub fn ended(&self) -> &[NotableTransaction] {
        &self.ended
    }

    /// Whether all of them are here.
    pub fn coverage(&self) -> Coverage {
        self.coverage
    }

    /// What transactions had done that were under way at the end, children by themselves, in ascending order.
    pub fn unfinished(&self) -> &[(TransactionId, Activity)] {
        &self.unfinished
    }

    /// Changes of schemas that are listed of them.
    pub fn listed_changes(&self) -> usize {
        self.changes
    }

    pub(super) fn add(&mut self, mut notable: NotableTransaction) {
        let room = MAX_KEPT_CHANGES.saturating_sub(self.changes);
        if notable.activity.keep_changes(room) > 0 {
            self.coverage = Coverage::Partial;
        }
        self.changes += notable.activity.schema.len();
        self.ended.push(notable);
        if self.ended.len() <= MAX_NOTABLE_TRANSACTIONS {
            return;
        }
        self.coverage = Coverage::Partial;
        let smallest = (0..)
            .zip(&self.ended)
            .filter(|(_, kept)| !kept.activity.is_ddl())
            .min_by_key(|(_, kept)| kept.activity.blocks);
        let removed = match smallest.map(|(index, _)| index) {
            Some(index) => Some(self.ended.remove(index)),
            None => self.ended.pop(),
        };
        self.changes -= removed.map_or(0, |removed| removed.activity.schema.len());
    }

    pub(super) fn absorb(&mut self, later: Self) {
        self.coverage = self.coverage.and(later.coverage);
        for notable in later.ended {
            self.add(notable);
        }
        self.unfinished = later.unfinished;
    }

    /// Leaves out transactions whose ends do not lie in a stretch.
    pub(super) fn keep_between(&mut self, from: Lsn, to: Lsn) {
        self.ended.retain(|ended| (from..to).contains(&ended.ended));
        let kept = self.ended.iter();
        self.changes = kept.map(|ended| ended.activity.schema.len()).sum();
    }

    pub(super) fn set_coverage(&mut self, coverage: Coverage) {
        self.coverage = coverage;
    }

    pub(super) fn set_unfinished(&mut self, unfinished: Vec<(TransactionId, Activity)>) {
        self.unfinished = unfinished;
    }
}

/// What running transactions have done so far.
#[derive(Debug, Default)]
pub(super) struct OpenTransactions {
    open: QuickMap<TransactionId, Activity>,
    /// Changes of schemas among them.
    changes: usize,
}

impl OpenTransactions {
    /// Goes on from what was under way.
    pub(super) fn going_on(unfinished: &[(TransactionId, Activity)]) -> Self {
        let mut open = Self {
            open: unfinished.iter().cloned().collect(),
            changes: 0,
        };
        open.count_changes();
        open
    }

    /// What a transaction has done, to add to.
    #[inline]
    pub(super) fn of(&mut self, transaction: TransactionId, at: Lsn) -> &mut Activity {
        if self.open.len() >= MAX_OPEN_TRANSACTIONS && !self.open.contains_key(&transaction) {
            self.forget_smallest();
        }
        self.open
            .entry(transaction)
            .or_insert_with(|| Activity::new(at))
    }

    /// Adds what a transaction did to a relation or a schema.
    pub(super) fn add_change(&mut self, transaction: TransactionId, change: SchemaChange) {
        let has_room = self.changes < MAX_KEPT_CHANGES;
        let activity = self.of(transaction, change.start);
        let listed = activity.schema.len();
        match has_room {
            true => activity.add_change(change),
            false => activity.other_changes += 1,
        }
        self.changes += activity.schema.len() - listed;
    }

    fn remove(&mut self, transaction: TransactionId) -> Option<Activity> {
        let removed = self.open.remove(&transaction)?;
        self.changes -= removed.schema.len();
        Some(removed)
    }

    fn count_changes(&mut self) {
        self.changes = self.open.values().map(|open| open.schema.len()).sum();
    }

    /// Ends a transaction; tells if it is worth telling of.
    pub(super) fn end(
        &mut self,
        end: &TransactionEnd<'_>,
        record: &Record<'_>,
    ) -> Option<NotableTransaction> {
        let mut total = self.remove(end.transaction);
        for child in end.children.iter() {
            match (self.remove(child), &mut total) {
                (Some(activity), Some(total)) => total.add(activity),
                (Some(activity), None) => total = Some(activity),
                (None, _) => {}
            }
        }
        let removes_files = end.kind.is_commit() && end.dropped_relations.iter().len() > 0;
        if total.is_none() && removes_files {
            total = Some(Activity::new(record.start()));
        }
        let notable = NotableTransaction {
            transaction: end.transaction,
            kind: end.kind,
            time: end.time,
            ended: record.start(),
            activity: total?,
        };
        let is_ddl = end.kind.is_commit() && notable.activity.is_ddl();
        (removes_files || is_ddl || notable.is_large()).then_some(notable)
    }

    /// What is under way, in ascending order.
    pub(super) fn unfinished(&self) -> Vec<(TransactionId, Activity)> {
        let open = self.open.iter();
        let mut all: Vec<_> = open.map(|(id, activity)| (*id, activity.clone())).collect();
        all.sort_unstable_by_key(|(transaction, _)| *transaction);
        all
    }

    /// Forgets those that began before a transaction, which is the oldest one running.
    pub(super) fn forget_before(&mut self, oldest: TransactionId) {
        self.open
            .retain(|transaction, _| !transaction.is_before(oldest));
        self.count_changes();
    }

    /// Keeps the half with the most blocks, and those that changed schemas. What is lost is small, or ended
    /// long ago without a record.
    fn forget_smallest(&mut self) {
        let mut blocks: Vec<u64> = self.open.values().map(|open| open.blocks).collect();
        let middle = blocks.len() / 2;
        let (_, median, _) = blocks.select_nth_unstable(middle);
        let median = *median;
        self.open
            .retain(|_, open| open.blocks > median || !open.schema.is_empty());
        if self.open.len() >= MAX_OPEN_TRANSACTIONS {
            self.open.clear();
        }
        self.count_changes();
    }
}
