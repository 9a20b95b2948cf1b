//! Takes the tables out of what is around them in the source: a partition out of its table, a child from its parent,
//! foreign keys that point to them. The source is thrown away afterwards, and nobody misses them there.

use super::name::TableName;
use crate::transplant::{error::MoveError, server::Session};

const WHAT: &str = "take the tables out of what is around them";

/// A table that was a partition of one that is not moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Detached {
    pub(super) oid: u32,
    pub(super) parent: TableName,
    /// `FOR VALUES …`, or `DEFAULT`.
    pub(super) bound: String,
}

/// What was found on the way.
#[derive(Clone, Debug, Default)]
pub(super) struct Loosened {
    pub(super) detached: Vec<Detached>,
    pub(super) remarks: Vec<String>,
}

const EVENT_TRIGGERS: &str = "SELECT format('ALTER EVENT TRIGGER %I DISABLE', evtname) FROM pg_event_trigger \
    WHERE evtenabled <> 'D'";
/// Of tables that are asked for, those that are partitions of tables that are not.
const PARTITIONS: &str = "SELECT c.oid, n.nspname::text, p.relname::text, pg_get_expr(c.relpartbound, c.oid), \
        format('ALTER TABLE %s DETACH PARTITION %s', p.oid::regclass, c.oid::regclass) \
    FROM pg_class c JOIN pg_inherits i ON i.inhrelid = c.oid JOIN pg_class p ON p.oid = i.inhparent \
    JOIN pg_namespace n ON n.oid = p.relnamespace \
    WHERE c.oid = ANY ($1) AND c.relispartition AND NOT EXISTS ( \
        SELECT FROM pg_partition_ancestors(c.oid) a (relid) WHERE a.relid = ANY ($1) AND a.relid <> c.oid)";
const TREE: &str = "WITH RECURSIVE tree (oid) AS ( \
        SELECT oid FROM unnest($1::oid[]) oid \
        UNION SELECT i.inhrelid FROM tree JOIN pg_inherits i ON i.inhparent = tree.oid \
            JOIN pg_class c ON c.oid = i.inhrelid WHERE c.relispartition)";
/// Keys of other tables to these, and to those that these are partitions of, which would not let them go.
const POINTING_IN: &str = "SELECT format('ALTER TABLE %s DROP CONSTRAINT %I', f.conrelid::regclass, f.conname), \
        CASE WHEN f.confrelid IN (SELECT oid FROM tree) THEN format('foreign key %I of %s pointed to %s, and is not made: %s', \
            f.conname, f.conrelid::regclass, f.confrelid::regclass, pg_get_constraintdef(f.oid)) END \
    FROM pg_constraint f WHERE f.contype = 'f' AND f.conparentid = 0 AND f.conrelid NOT IN (SELECT oid FROM tree) \
        AND (f.confrelid IN (SELECT oid FROM tree) OR f.confrelid IN ( \
            SELECT a.relid FROM unnest($1::oid[]) oid, pg_partition_ancestors(oid) a (relid)))";
const CHILDREN: &str = "SELECT format('ALTER TABLE %s NO INHERIT %s', i.inhrelid::regclass, i.inhparent::regclass), \
        format('%s inherited from %s, and comes as a table of its own', i.inhrelid::regclass, i.inhparent::regclass) \
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid \
    WHERE i.inhrelid IN (SELECT oid FROM tree) AND NOT c.relispartition AND c.relkind = 'r' \
        AND i.inhparent NOT IN (SELECT oid FROM tree)";

/// Loosens the tables of these numbers. The session's `search_path` is empty.
pub(super) async fn loosen(session: &Session, roots: &[u32]) -> Result<Loosened, MoveError> {
    // Those of the database would fire, and are not there to be.
    let mut statements: Vec<String> = session.column(WHAT, EVENT_TRIGGERS, &[]).await?;
    let mut remarks = Vec::new();
    for sql in [POINTING_IN, CHILDREN] {
        let sql = format!("{TREE} {sql}");
        let found: Vec<(String, Option<String>)> = session
            .all(WHAT, &sql, &[&roots], |row| {
                Ok((row.try_get(0)?, row.try_get(1)?))
            })
            .await?;
        for (statement, remark) in found {
            statements.push(statement);
            remarks.extend(remark);
        }
    }
    let partitions: Vec<(Detached, String)> = session
        .all(WHAT, PARTITIONS, &[&roots], |row| {
            let detached = Detached {
                oid: row.try_get(0)?,
                parent: TableName {
                    schema: row.try_get(1)?,
                    table: row.try_get(2)?,
                },
                bound: row.try_get(3)?,
            };
            Ok((detached, row.try_get(4)?))
        })
        .await?;
    let mut detached = Vec::new();
    for (partition, statement) in partitions {
        detached.push(partition);
        statements.push(statement);
    }
    if !statements.is_empty() {
        session.run(WHAT, &statements.join(";")).await?;
    }
    Ok(Loosened { detached, remarks })
}
