//! The stored form of what happened to databases and to files of relations.
//!
//! ```text
//! coverage u8: 0 whole, 1 partial
//! database events  start - start before, end - start, transaction, database, change u8, then
//!                  0 created by file copy: tablespace, source's tablespace, source
//!                  1 created by log: tablespace       2 moved: from, to           3 named: name
//!                  4 renamed: known u8, from, to      5 invalidated: name         6 revalidated
//!                  7 row deleted: known u8, name      8 files removed: tablespaces
//!                  9 assigned: child
//! coverage u8
//! relation events  start - start before, transaction, tablespace, database, relfilenode,
//!                  blocks left + 1, or 0 for a drop
//! ```

use crate::{
    BlockNumber, Lsn, Oid, TransactionId,
    relation::RelationId,
    wal::database::DatabaseDirectory,
    wal_summary::{
        database_events::{DatabaseChange, DatabaseEvent, DatabaseEvents, MAX_DATABASE_EVENTS},
        relation_events::{MAX_RELATION_EVENTS, RelationChange, RelationEvent, RelationEvents},
    },
};

use super::{
    SummaryFormatError,
    codec::{Input, Output},
};

/// The longest name of a database (`NAMEDATALEN`).
const MAX_NAME: usize = 64;

pub(super) fn encode_databases(events: &DatabaseEvents, start: Lsn, output: &mut Output) {
    output.coverage(events.coverage());
    output.count(events.events().len());
    let mut at = start;
    for event in events.events() {
        output.number(event.start.bytes_since(at));
        output.number(event.end.bytes_since(event.start));
        output.number(u64::from(event.transaction.get()));
        output.number(u64::from(event.database.get()));
        encode_change(&event.change, output);
        at = event.start;
    }
}

fn encode_change(change: &DatabaseChange, output: &mut Output) {
    let oid = |output: &mut Output, oid: Oid| output.number(u64::from(oid.get()));
    let optional = |output: &mut Output, name: Option<&Vec<u8>>| {
        output.byte(u8::from(name.is_some()));
        if let Some(name) = name {
            output.text(name);
        }
    };
    match change {
        DatabaseChange::CreatedByFileCopy { tablespace, source } => {
            output.byte(0);
            oid(output, *tablespace);
            oid(output, source.tablespace);
            oid(output, source.database);
        }
        DatabaseChange::CreatedByLog { tablespace } => {
            output.byte(1);
            oid(output, *tablespace);
        }
        DatabaseChange::Moved { from, to } => {
            output.byte(2);
            oid(output, *from);
            oid(output, *to);
        }
        DatabaseChange::Named { name } => {
            output.byte(3);
            output.text(name);
        }
        DatabaseChange::Renamed { from, to } => {
            output.byte(4);
            optional(output, from.as_ref());
            output.text(to);
        }
        DatabaseChange::Invalidated { name } => {
            output.byte(5);
            output.text(name);
        }
        DatabaseChange::Revalidated => output.byte(6),
        DatabaseChange::RowDeleted { name } => {
            output.byte(7);
            optional(output, name.as_ref());
        }
        DatabaseChange::FilesRemoved { tablespaces } => {
            output.byte(8);
            output.count(tablespaces.len());
            for tablespace in tablespaces {
                oid(output, *tablespace);
            }
        }
        DatabaseChange::Assigned { child } => {
            output.byte(9);
            output.number(u64::from(child.get()));
        }
    }
}

pub(super) fn decode_databases(
    input: &mut Input<'_>,
    start: Lsn,
) -> Result<DatabaseEvents, SummaryFormatError> {
    input.enter("database events");
    let mut events = DatabaseEvents::default();
    let coverage = input.coverage()?;
    let mut at = start;
    for _ in 0..input.count(MAX_DATABASE_EVENTS)? {
        at = input.lsn_behind(at)?;
        events.add(DatabaseEvent {
            start: at,
            end: input.lsn_behind(at)?,
            transaction: TransactionId::new(input.number()?),
            database: Oid::new(input.number()?),
            change: decode_change(input)?,
        });
    }
    events.set_coverage(coverage);
    Ok(events)
}

fn decode_change(input: &mut Input<'_>) -> Result<DatabaseChange, SummaryFormatError> {
    let oid = |input: &mut Input<'_>| input.number().map(Oid::new);
    let optional = |input: &mut Input<'_>| match input.byte()? {
        0 => Ok(None),
        1 => input.text(MAX_NAME).map(Some),
        _ => Err(input.malformed()),
    };
    Ok(match input.byte()? {
        0 => DatabaseChange::CreatedByFileCopy {
            tablespace: oid(input)?,
            source: DatabaseDirectory {
                tablespace: oid(input)?,
                database: oid(input)?,
            },
        },
        1 => DatabaseChange::CreatedByLog {
            tablespace: oid(input)?,
        },
        2 => DatabaseChange::Moved {
            from: oid(input)?,
            to: oid(input)?,
        },
        3 => DatabaseChange::Named {
            name: input.text(MAX_NAME)?,
        },
        4 => DatabaseChange::Renamed {
            from: optional(input)?,
            to: input.text(MAX_NAME)?,
        },
        5 => DatabaseChange::Invalidated {
            name: input.text(MAX_NAME)?,
        },
        6 => DatabaseChange::Revalidated,
        7 => DatabaseChange::RowDeleted {
            name: optional(input)?,
        },
        8 => {
            let count = input.count(usize::MAX)?;
            let tablespaces = (0..count).map(|_| oid(input)).collect::<Result<_, _>>()?;
            DatabaseChange::FilesRemoved { tablespaces }
        }
        9 => DatabaseChange::Assigned {
            child: TransactionId::new(input.number()?),
        },
        _ => return Err(input.malformed()),
    })
}

pub(super) fn encode_relations(events: &RelationEvents, start: Lsn, output: &mut Output) {
    output.coverage(events.coverage());
    output.count(events.events().len());
    let mut at = start;
    for event in events.events() {
        output.number(event.start.bytes_since(at));
        output.number(u64::from(event.transaction.get()));
        output.number(u64::from(event.relation.tablespace.get()));
        output.number(u64::from(event.relation.database.get()));
        output.number(u64::from(event.relation.relfilenode.get()));
        output.number(match event.change {
            RelationChange::Dropped => 0,
            RelationChange::Truncated(blocks) => u64::from(blocks.get()) + 1,
        });
        at = event.start;
    }
}

pub(super) fn decode_relations(
    input: &mut Input<'_>,
    start: Lsn,
) -> Result<RelationEvents, SummaryFormatError> {
    input.enter("relation events");
    let mut events = RelationEvents::default();
    let coverage = input.coverage()?;
    let mut at = start;
    for _ in 0..input.count(MAX_RELATION_EVENTS)? {
        at = input.lsn_behind(at)?;
        events.add(RelationEvent {
            start: at,
            transaction: TransactionId::new(input.number()?),
            relation: RelationId {
                tablespace: Oid::new(input.number()?),
                database: Oid::new(input.number()?),
                relfilenode: Oid::new(input.number()?),
            },
            change: match input.number::<u64>()?.checked_sub(1).map(u32::try_from) {
                None => RelationChange::Dropped,
                Some(Ok(blocks)) => RelationChange::Truncated(BlockNumber::new(blocks)),
                Some(Err(_)) => return Err(input.malformed()),
            },
        });
    }
    events.set_coverage(coverage);
    Ok(events)
}
