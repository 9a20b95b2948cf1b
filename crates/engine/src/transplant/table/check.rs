//! Whether the tables arrived whole. Rows were counted as they came; here catalogs are compared.

use std::collections::BTreeMap;

use crate::transplant::{error::MoveError, server::Session};

/// Numbers of things of the hidden schemas, as every version counts them: without constraints that one version records
/// and another does not (NOT NULL, copies for partitions).
const COUNTS: &str = "WITH relations AS (SELECT c.oid, relkind, relpersistence FROM pg_class c \
        JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname::text = ANY ($1)) \
    SELECT 'relations of kind ' || relkind::text, count(*) FROM relations r \
        WHERE relkind NOT IN ('i', 'I') GROUP BY relkind \
    UNION ALL SELECT 'valid indexes', count(*) FROM pg_index \
        WHERE indrelid IN (SELECT oid FROM relations) AND indisvalid \
    UNION ALL SELECT 'columns', count(*) FROM pg_attribute WHERE attnum > 0 AND NOT attisdropped \
        AND attrelid IN (SELECT oid FROM relations WHERE relkind IN ('r', 'p', 'f')) \
    UNION ALL SELECT 'defaults', count(*) FROM pg_attrdef WHERE adrelid IN (SELECT oid FROM relations) \
    UNION ALL SELECT 'constraints of type ' || contype::text, count(*) FROM pg_constraint \
        WHERE contype IN ('c', 'f', 'p', 'u', 'x') AND conparentid = 0 \
            AND conrelid IN (SELECT oid FROM relations) GROUP BY contype \
    UNION ALL SELECT 'triggers', count(*) FROM pg_trigger \
        WHERE NOT tgisinternal AND tgrelid IN (SELECT oid FROM relations) \
    UNION ALL SELECT 'rules', count(*) FROM pg_rewrite WHERE ev_class IN (SELECT oid FROM relations) \
    UNION ALL SELECT 'policies', count(*) FROM pg_policy WHERE polrelid IN (SELECT oid FROM relations) \
    UNION ALL SELECT 'statistics objects', count(*) FROM pg_statistic_ext \
        WHERE stxrelid IN (SELECT oid FROM relations)";
/// Who may do what, with tables, sequences and columns: what is granted on, right, to whom.
const RIGHTS: &str = "SELECT format('%I.%I', n.nspname, c.relname), x.column_name, g.privilege_type, \
        coalesce((SELECT quote_ident(rolname) FROM pg_roles WHERE oid = g.grantee), 'PUBLIC'), c.relkind::text \
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, \
    LATERAL (SELECT NULL::text, c.relacl UNION ALL \
        SELECT quote_ident(attname), attacl FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0) x (column_name, acl), \
    LATERAL aclexplode(x.acl) g \
    WHERE n.nspname::text = ANY ($1) AND g.grantee <> c.relowner";

/// Compares what the catalogs list of the hidden schemas.
pub(super) async fn compare(
    source: &Session,
    target: &Session,
    hidden: &[String],
) -> Result<(), MoveError> {
    let (expected, found) = tokio::try_join!(counts(source, hidden), counts(target, hidden))?;
    for what in expected.keys().chain(found.keys()) {
        let count = |counts: &BTreeMap<String, i64>| counts.get(what).copied().unwrap_or(0);
        let (expected, found) = (count(&expected), count(&found));
        if expected != found {
            return Err(MoveError::Differs {
                what: what.clone(),
                expected: expected.to_string(),
                found: found.to_string(),
            });
        }
    }
    Ok(())
}

async fn counts(session: &Session, hidden: &[String]) -> Result<BTreeMap<String, i64>, MoveError> {
    let rows = session
        .all("count what the catalogs list", COUNTS, &[&hidden], |row| {
            Ok((row.try_get(0)?, row.try_get(1)?))
        })
        .await?;
    Ok(rows.into_iter().collect())
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Right {
    on: String,
    column: Option<String>,
    privilege: String,
    grantee: String,
    relkind: String,
}

/// Takes rights away that default privileges of the target gave, and the source does not: who reads a table may not
/// depend on who restores it.
pub(super) async fn revoke_surplus(
    source: &Session,
    target: &Session,
    hidden: &[String],
) -> Result<(), MoveError> {
    let (expected, found) = tokio::try_join!(rights(source, hidden), rights(target, hidden))?;
    let statements: Vec<String> = found
        .iter()
        .filter(|right| !expected.contains(right))
        .map(|right| {
            let kind = if right.relkind == "S" {
                "SEQUENCE "
            } else {
                ""
            };
            let columns = right
                .column
                .as_ref()
                .map_or_else(String::new, |column| format!(" ({column})"));
            format!(
                "REVOKE {}{columns} ON {kind}{} FROM {} CASCADE",
                right.privilege, right.on, right.grantee
            )
        })
        .collect();
    match statements.is_empty() {
        true => Ok(()),
        false => {
            target
                .run("give rights as they were", &statements.join(";"))
                .await
        }
    }
}

async fn rights(session: &Session, hidden: &[String]) -> Result<Vec<Right>, MoveError> {
    session
        .all("list rights", RIGHTS, &[&hidden], |row| {
            Ok(Right {
                on: row.try_get(0)?,
                column: row.try_get(1)?,
                privilege: row.try_get(2)?,
                grantee: row.try_get(3)?,
                relkind: row.try_get(4)?,
            })
        })
        .await
}
