//! Transactions that touched unusually many blocks: candidates for the mistake someone wants undone.

use crate::{
    Lsn, Oid, TransactionId,
    wal::transaction::{EndKind, TransactionEnd},
};

use super::hash::QuickMap;

/// From this many block references on a transaction is large.
pub const LARGE_TRANSACTION_BLOCKS: u64 = 10_000;
/// The most large transactions kept; the smallest give way.
pub const MAX_LARGE_TRANSACTIONS: usize = 1024;
/// The most transactions counted at a time; when there are more, the smallest are forgotten.
const MAX_OPEN_TRANSACTIONS: usize = 1 << 16;

/// A transaction that touched unusually many blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LargeTransaction {
    /// The transaction.
    pub transaction: TransactionId,
    /// How it ended.
    pub kind: EndKind,
    /// The database it was in, when its end says so.
    pub database: Option<Oid>,
    /// Start of its first record that was seen.
    pub first: Lsn,
    /// Start of the record of its end.
    pub ended: Lsn,
    /// Block references in its records, its children's included. A block counts each time.
    pub blocks: u64,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    first: Lsn,
    blocks: u64,
}

/// Counts the blocks of running transactions.
#[derive(Debug, Default)]
pub(super) struct OpenTransactions {
    open: QuickMap<TransactionId, Open>,
}

impl OpenTransactions {
    #[inline]
    pub(super) fn count(&mut self, transaction: TransactionId, at: Lsn, blocks: usize) {
        let blocks = u64::try_from(blocks).unwrap_or(u64::MAX);
        if let Some(open) = self.open.get_mut(&transaction) {
            open.blocks += blocks;
        } else {
            if self.open.len() >= MAX_OPEN_TRANSACTIONS {
                self.forget_smallest();
            }
            self.open.insert(transaction, Open { first: at, blocks });
        }
    }

    /// Ends a transaction; tells if it was large.
    pub(super) fn end(&mut self, end: &TransactionEnd<'_>, at: Lsn) -> Option<LargeTransaction> {
        let mut total = self.open.remove(&end.transaction);
        for child in end.children.iter() {
            if let Some(open) = self.open.remove(&child) {
                let sum = total.get_or_insert(Open { blocks: 0, ..open });
                sum.first = sum.first.min(open.first);
                sum.blocks += open.blocks;
            }
        }
        let total = total.filter(|total| total.blocks >= LARGE_TRANSACTION_BLOCKS)?;
        Some(LargeTransaction {
            transaction: end.transaction,
            kind: end.kind,
            database: end.database,
            first: total.first,
            ended: at,
            blocks: total.blocks,
        })
    }

    /// Keeps the half with the most blocks. What is lost is small, or ended long ago without a record.
    fn forget_smallest(&mut self) {
        let mut blocks: Vec<u64> = self.open.values().map(|open| open.blocks).collect();
        let middle = blocks.len() / 2;
        let (_, median, _) = blocks.select_nth_unstable(middle);
        let median = *median;
        self.open.retain(|_, open| open.blocks > median);
    }
}

/// Adds a transaction, in place of the smallest when there are too many.
pub(super) fn keep_largest(kept: &mut Vec<LargeTransaction>, large: LargeTransaction) {
    kept.push(large);
    if kept.len() > MAX_LARGE_TRANSACTIONS
        && let Some((index, _)) = kept.iter().enumerate().min_by_key(|(_, kept)| kept.blocks)
    {
        kept.remove(index);
    }
}
