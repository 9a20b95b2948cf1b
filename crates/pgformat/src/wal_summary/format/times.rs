//! The time index's stored form.
//!
//! ```text
//! coverage u8: 0 whole, 1 partial
//! transactions    time - time before (signed), start - start before, start - record before, end - start,
//!                 transaction - transaction before (signed), kind u8
//! prepared        time (signed), start - start before, end - start, transaction
//! restore points  time (signed), start - start before, end - start, name
//! ```
//!
//! What is reckoned from the item before is reckoned from the summary's start and from 0 at first.

use crate::{
    Lsn, PgTimestamp, TransactionId,
    wal::transaction::EndKind,
    wal_summary::time_index::{
        MAX_PREPARED_MARKS, MAX_RESTORE_POINTS, MAX_TRANSACTION_MARKS, PreparedMark,
        RestorePointMark, TimeIndex, TransactionMark,
    },
};

use super::{
    SummaryFormatError,
    codec::{Input, Output},
};

/// The longest name of a restore point.
const MAX_NAME: usize = 64;

pub(super) fn encode(index: &TimeIndex, start: Lsn, output: &mut Output) {
    output.coverage(index.coverage());
    output.count(index.transactions().len());
    let (mut time, mut at, mut transaction) = (0_i64, start, 0_i64);
    for mark in index.transactions() {
        output.signed(mark.time.raw().wrapping_sub(time));
        output.number(mark.start.bytes_since(at));
        output.number(mark.start.bytes_since(mark.before));
        output.number(mark.end.bytes_since(mark.start));
        let id = i64::from(mark.transaction.get());
        output.signed(id - transaction);
        output.byte(kind_number(mark.kind));
        (time, at, transaction) = (mark.time.raw(), mark.start, id);
    }
    output.count(index.prepared().len());
    let mut at = start;
    for mark in index.prepared() {
        output.signed(mark.time.raw());
        output.number(mark.start.bytes_since(at));
        output.number(mark.end.bytes_since(mark.start));
        output.number(u64::from(mark.transaction.get()));
        at = mark.start;
    }
    output.count(index.restore_points().len());
    let mut at = start;
    for point in index.restore_points() {
        output.signed(point.time.raw());
        output.number(point.start.bytes_since(at));
        output.number(point.end.bytes_since(point.start));
        output.text(&point.name);
        at = point.start;
    }
}

pub(super) fn decode(input: &mut Input<'_>, start: Lsn) -> Result<TimeIndex, SummaryFormatError> {
    input.enter("time index");
    let mut index = TimeIndex::default();
    let coverage = input.coverage()?;
    let (mut time, mut at, mut transaction) = (0_i64, start, 0_i64);
    for _ in 0..input.count(MAX_TRANSACTION_MARKS)? {
        time = time.wrapping_add(input.signed()?);
        at = input.lsn_behind(at)?;
        let before = input.lsn_in_front(at)?;
        let end = input.lsn_behind(at)?;
        let id = transaction.checked_add(input.signed()?);
        let id = id.and_then(|id| u32::try_from(id).ok());
        let id = id.ok_or_else(|| input.malformed())?;
        transaction = i64::from(id);
        index.add_transaction(TransactionMark {
            time: PgTimestamp::from_raw(time),
            before,
            start: at,
            end,
            transaction: TransactionId::new(id),
            kind: end_kind(input.byte()?).ok_or_else(|| input.malformed())?,
        });
    }
    let mut at = start;
    for _ in 0..input.count(MAX_PREPARED_MARKS)? {
        let time = PgTimestamp::from_raw(input.signed()?);
        at = input.lsn_behind(at)?;
        index.add_prepared(PreparedMark {
            time,
            start: at,
            end: input.lsn_behind(at)?,
            transaction: TransactionId::new(input.number()?),
        });
    }
    let mut at = start;
    for _ in 0..input.count(MAX_RESTORE_POINTS)? {
        let time = PgTimestamp::from_raw(input.signed()?);
        at = input.lsn_behind(at)?;
        index.add_restore_point(RestorePointMark {
            time,
            start: at,
            end: input.lsn_behind(at)?,
            name: input.text(MAX_NAME)?,
        });
    }
    index.set_coverage(coverage);
    Ok(index)
}

pub(super) fn kind_number(kind: EndKind) -> u8 {
    match kind {
        EndKind::Commit => 0,
        EndKind::Abort => 1,
        EndKind::CommitPrepared => 2,
        EndKind::AbortPrepared => 3,
    }
}

pub(super) fn end_kind(number: u8) -> Option<EndKind> {
    Some(match number {
        0 => EndKind::Commit,
        1 => EndKind::Abort,
        2 => EndKind::CommitPrepared,
        3 => EndKind::AbortPrepared,
        _ => return None,
    })
}
