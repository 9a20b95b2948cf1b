//! The stored form of transactions worth telling of.
//!
//! ```text
//! coverage u8: 0 whole, 1 partial
//! ended       end - end before, transaction, kind u8, time (signed), activity
//! unfinished  transaction, activity
//! activity    first, log bytes, blocks, other blocks, other changes, catalogs (a bit each), temporary u8
//!             touched   tablespace, database, relfilenode, blocks, inserted, updated, deleted
//!             changes   start - first, database, object u8, then
//!                       0 relation: OID, name, schema's OID, schema's name known u8 and name, relkind u8,
//!                         relfilenode, tablespace      1 schema: OID, name
//!                       action u8: 0 created, 1 altered, 2 renamed: from, 3 new file: from, 4 dropped
//! ```

use crate::{
    Lsn, Oid, PgTimestamp, TransactionId,
    catalog::{CatalogSet, MAX_NAME_BYTES, RelationDefinition, RelationKind},
    relation::RelationId,
    wal_summary::{
        activity::{Activity, MAX_TOUCHED_RELATIONS, RowCounts, TouchedRelation},
        schema_changes::{MAX_SCHEMA_CHANGES, SchemaAction, SchemaChange, SchemaObject},
        transactions::{
            MAX_NOTABLE_TRANSACTIONS, MAX_OPEN_TRANSACTIONS, NotableTransaction,
            NotableTransactions,
        },
    },
};

use super::{
    SummaryFormatError,
    codec::{Input, Output},
    times::{end_kind, kind_number},
};

pub(super) fn encode(transactions: &NotableTransactions, start: Lsn, output: &mut Output) {
    output.coverage(transactions.coverage());
    output.count(transactions.ended().len());
    let mut at = start;
    for ended in transactions.ended() {
        output.number(ended.ended.bytes_since(at));
        output.number(u64::from(ended.transaction.get()));
        output.byte(kind_number(ended.kind));
        output.signed(ended.time.raw());
        encode_activity(&ended.activity, output);
        at = ended.ended;
    }
    output.count(transactions.unfinished().len());
    for (transaction, activity) in transactions.unfinished() {
        output.number(u64::from(transaction.get()));
        encode_activity(activity, output);
    }
}

pub(super) fn decode(
    input: &mut Input<'_>,
    start: Lsn,
) -> Result<NotableTransactions, SummaryFormatError> {
    input.enter("transactions");
    let mut transactions = NotableTransactions::default();
    let coverage = input.coverage()?;
    let mut at = start;
    for _ in 0..input.count(MAX_NOTABLE_TRANSACTIONS)? {
        at = input.lsn_behind(at)?;
        transactions.add(NotableTransaction {
            ended: at,
            transaction: TransactionId::new(input.number()?),
            kind: end_kind(input.byte()?).ok_or_else(|| input.malformed())?,
            time: PgTimestamp::from_raw(input.signed()?),
            activity: decode_activity(input)?,
        });
    }
    transactions.set_coverage(coverage);
    let mut unfinished: Vec<(TransactionId, Activity)> = Vec::new();
    for _ in 0..input.count(MAX_OPEN_TRANSACTIONS)? {
        let transaction = TransactionId::new(input.number()?);
        if unfinished
            .last()
            .is_some_and(|(last, _)| *last >= transaction)
        {
            return Err(input.malformed());
        }
        unfinished.push((transaction, decode_activity(input)?));
    }
    transactions.set_unfinished(unfinished);
    Ok(transactions)
}

fn encode_activity(activity: &Activity, output: &mut Output) {
    output.number(activity.first.get());
    output.number(activity.log_bytes);
    output.number(activity.blocks);
    output.number(activity.other_blocks);
    output.number(activity.other_changes);
    output.number(activity.catalogs.bits());
    output.byte(u8::from(activity.temporary));
    output.count(activity.touched.len());
    for touched in &activity.touched {
        oid(output, touched.relation.tablespace);
        oid(output, touched.relation.database);
        oid(output, touched.relation.relfilenode);
        output.number(touched.blocks);
        output.number(touched.rows.inserted);
        output.number(touched.rows.updated);
        output.number(touched.rows.deleted);
    }
    output.count(activity.schema.len());
    for change in &activity.schema {
        output.number(change.start.bytes_since(activity.first));
        oid(output, change.database);
        encode_object(&change.object, output);
        match &change.action {
            SchemaAction::Created => output.byte(0),
            SchemaAction::Altered => output.byte(1),
            SchemaAction::Renamed { from } => {
                output.byte(2);
                output.text(from);
            }
            SchemaAction::NewFile { from } => {
                output.byte(3);
                oid(output, *from);
            }
            SchemaAction::Dropped => output.byte(4),
        }
    }
}

fn oid(output: &mut Output, oid: Oid) {
    output.number(u64::from(oid.get()));
}

fn encode_object(object: &SchemaObject, output: &mut Output) {
    match object {
        SchemaObject::Relation {
            definition,
            namespace,
        } => {
            output.byte(0);
            oid(output, definition.oid);
            output.text(&definition.name);
            oid(output, definition.namespace);
            output.byte(u8::from(namespace.is_some()));
            if let Some(namespace) = namespace {
                output.text(namespace);
            }
            output.byte(definition.kind.get());
            oid(output, definition.relfilenode);
            oid(output, definition.tablespace);
        }
        SchemaObject::Namespace { oid: number, name } => {
            output.byte(1);
            oid(output, *number);
            output.text(name);
        }
    }
}

fn decode_activity(input: &mut Input<'_>) -> Result<Activity, SummaryFormatError> {
    let first = Lsn::new(input.number()?);
    let mut activity = Activity {
        first,
        log_bytes: input.number()?,
        blocks: input.number()?,
        other_blocks: input.number()?,
        other_changes: input.number()?,
        catalogs: CatalogSet::from_bits(input.number()?).ok_or_else(|| input.malformed())?,
        temporary: input.flag()?,
        ..Activity::default()
    };
    for _ in 0..input.count(MAX_TOUCHED_RELATIONS)? {
        activity.touched.push(TouchedRelation {
            relation: RelationId {
                tablespace: Oid::new(input.number()?),
                database: Oid::new(input.number()?),
                relfilenode: Oid::new(input.number()?),
            },
            blocks: input.number()?,
            rows: RowCounts {
                inserted: input.number()?,
                updated: input.number()?,
                deleted: input.number()?,
            },
        });
    }
    for _ in 0..input.count(MAX_SCHEMA_CHANGES)? {
        activity.schema.push(SchemaChange {
            start: input.lsn_behind(first)?,
            database: Oid::new(input.number()?),
            object: decode_object(input)?,
            action: match input.byte()? {
                0 => SchemaAction::Created,
                1 => SchemaAction::Altered,
                2 => SchemaAction::Renamed {
                    from: input.text(MAX_NAME_BYTES)?,
                },
                3 => SchemaAction::NewFile {
                    from: Oid::new(input.number()?),
                },
                4 => SchemaAction::Dropped,
                _ => return Err(input.malformed()),
            },
        });
    }
    Ok(activity)
}

fn decode_object(input: &mut Input<'_>) -> Result<SchemaObject, SummaryFormatError> {
    Ok(match input.byte()? {
        0 => {
            let oid = Oid::new(input.number()?);
            let name = input.text(MAX_NAME_BYTES)?;
            let namespace_oid = Oid::new(input.number()?);
            let namespace = match input.flag()? {
                true => Some(input.text(MAX_NAME_BYTES)?),
                false => None,
            };
            SchemaObject::Relation {
                definition: RelationDefinition {
                    oid,
                    name,
                    namespace: namespace_oid,
                    kind: RelationKind::new(input.byte()?),
                    relfilenode: Oid::new(input.number()?),
                    tablespace: Oid::new(input.number()?),
                },
                namespace,
            }
        }
        1 => SchemaObject::Namespace {
            oid: Oid::new(input.number()?),
            name: input.text(MAX_NAME_BYTES)?,
        },
        _ => return Err(input.malformed()),
    })
}
