//! The stored form of what could not be read and of what is handed on to the next summary.
//!
//! ```text
//! unread      known u8, then position - start, if known: in pg_database; likewise in pg_class and pg_namespace
//! handed on   relfilenode of pg_database, known u8 and redo u64 of the last checkpoint
//!             moved catalogs     tablespace, database, relfilenode, catalog; in ascending order
//!             unassigned         transactions in ascending order
//! ```

use crate::{
    Lsn, Oid, TransactionId,
    relation::RelationId,
    wal_summary::{
        Unread, WalSummary,
        carried::{Carried, MAX_MOVED_CATALOGS, MAX_UNASSIGNED, MovedCatalog},
    },
};

use super::{
    SummaryFormatError,
    codec::{Input, Output},
};

pub(super) fn encode(summary: &WalSummary, output: &mut Output) {
    for unread in [summary.unread.databases, summary.unread.relations] {
        output.byte(u8::from(unread.is_some()));
        if let Some(at) = unread {
            output.number(at.bytes_since(summary.start));
        }
    }
    let carried = &summary.carried;
    output.number(u64::from(carried.database_catalog.get()));
    output.byte(u8::from(carried.redo.is_some()));
    if let Some(redo) = carried.redo {
        output.bytes(&redo.get().to_le_bytes());
    }
    output.count(carried.moved.len());
    for moved in &carried.moved {
        output.number(u64::from(moved.file.tablespace.get()));
        output.number(u64::from(moved.file.database.get()));
        output.number(u64::from(moved.file.relfilenode.get()));
        output.number(u64::from(moved.catalog.get()));
    }
    output.count(carried.unassigned.len());
    for transaction in &carried.unassigned {
        output.number(u64::from(transaction.get()));
    }
}

pub(super) fn decode_unread(
    input: &mut Input<'_>,
    start: Lsn,
) -> Result<Unread, SummaryFormatError> {
    let position = |input: &mut Input<'_>| match input.flag()? {
        true => input.lsn_behind(start).map(Some),
        false => Ok(None),
    };
    Ok(Unread {
        databases: position(input)?,
        relations: position(input)?,
    })
}

pub(super) fn decode(input: &mut Input<'_>) -> Result<Carried, SummaryFormatError> {
    let mut carried = Carried::new(Oid::new(input.number()?));
    if input.flag()? {
        carried.redo = Some(Lsn::new(u64::from_le_bytes(input.array()?)));
    }
    for _ in 0..input.count(MAX_MOVED_CATALOGS)? {
        let moved = MovedCatalog {
            file: RelationId {
                tablespace: Oid::new(input.number()?),
                database: Oid::new(input.number()?),
                relfilenode: Oid::new(input.number()?),
            },
            catalog: Oid::new(input.number()?),
        };
        let before = carried.moved.last();
        if before.is_some_and(|before| before.file >= moved.file) {
            return Err(input.malformed());
        }
        carried.moved.push(moved);
    }
    for _ in 0..input.count(MAX_UNASSIGNED)? {
        let transaction = TransactionId::new(input.number()?);
        let before = carried.unassigned.last();
        if before.is_some_and(|before| *before >= transaction) {
            return Err(input.malformed());
        }
        carried.unassigned.push(transaction);
    }
    Ok(carried)
}
