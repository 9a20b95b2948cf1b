//! Records in a row that become one.
//!
//! Recovery takes as long over a record that does nothing as over a small one that does something: it is read, checked
//! and counted. So what is taken out is put together, as far as pages allow: records that begin on one page, with
//! nothing between them that stays, become one record from the first one's start to the last one's end. Where the
//! last reaches into the next page, that page's header says how much of it is left, and still says the truth; that
//! is why a run ends with its page.
//!
//! The record behind a run is linked to the run's start. Positions that a recovery is told to stop at begin a
//! record still: see [`super::WalFilter::stopping_at`].

use crate::{Lsn, TransactionId, wal::record::RecordHeader};

use super::edit::{Edit, PAGE_SIZE};

/// The longest record that recovery reads (`XLogRecordMaxSize`, `src/include/access/xlogrecord.h`, 16 and later).
const MAX_RUN_BYTES: u64 = 1020 << 20;

/// Records that become one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    start: Lsn,
    previous: Lsn,
    transaction: TransactionId,
    total_len: u32,
}

impl Run {
    /// Begins with a record, whose link to the one before is to be `previous`.
    pub(super) fn new(start: Lsn, header: &RecordHeader, previous: Lsn) -> Self {
        Self {
            start,
            previous,
            transaction: header.transaction,
            total_len: header.total_len,
        }
    }

    /// Where it begins.
    pub(super) fn start(&self) -> Lsn {
        self.start
    }

    /// Takes the next record in, if it may.
    pub(super) fn take(&mut self, start: Lsn, header: &RecordHeader) -> bool {
        let same_page = start.get() / PAGE_SIZE == self.start.get() / PAGE_SIZE;
        let total = start.bytes_since(self.start) + u64::from(header.total_len);
        match u32::try_from(total) {
            Ok(total_len) if same_page && total <= MAX_RUN_BYTES => {
                self.total_len = total_len;
                self.transaction = later(self.transaction, header.transaction);
                true
            }
            _ => false,
        }
    }

    /// What is written over it; `None` for a single record of a length that no record has that does nothing.
    pub(super) fn edit(&self) -> Option<Edit> {
        Edit::does_nothing(self.start, self.total_len, self.transaction, self.previous)
    }
}

/// Recovery counts transactions by the numbers in records, and skips none when the last one stays
/// (`TransactionIdPrecedes`, `src/backend/access/transam/transam.c`).
fn later(one: TransactionId, other: TransactionId) -> TransactionId {
    const FIRST_NORMAL: u32 = 3;
    let (a, b) = (one.get(), other.get());
    let follows = match a < FIRST_NORMAL || b < FIRST_NORMAL {
        true => b > a,
        false => b.wrapping_sub(a).cast_signed() > 0,
    };
    if follows { other } else { one }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_later_transaction_is_told_across_the_end_of_their_numbers() {
        let later = |a, b| later(TransactionId::new(a), TransactionId::new(b)).get();
        assert_eq!(later(0, 700), 700);
        assert_eq!(later(700, 0), 700);
        assert_eq!(later(700, 701), 701);
        assert_eq!(later(701, 700), 701);
        assert_eq!(later(u32::MAX - 1, 4), 4);
        assert_eq!(later(4, u32::MAX - 1), 4);
    }
}
