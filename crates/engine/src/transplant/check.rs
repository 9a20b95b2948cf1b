//! Whether everything arrived. Rows were counted as they came; here catalogs are compared.

use std::collections::BTreeMap;

use super::{error::MoveError, server::Session};

/// Numbers of things of users, as every version counts them: without what extensions bring, and without constraints
/// that one version records and another does not (NOT NULL, copies for partitions).
const COUNTS: &str = "WITH brought AS ( \
        SELECT classid, objid FROM pg_depend WHERE deptype = 'e'), \
    own AS (SELECT oid FROM pg_namespace \
        WHERE nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') AND nspname NOT LIKE 'pg_temp_%' \
            AND nspname NOT LIKE 'pg_toast_temp_%'), \
    relations AS (SELECT oid, relkind FROM pg_class c WHERE relnamespace IN (SELECT oid FROM own) \
        AND relpersistence <> 't' \
        AND NOT EXISTS (SELECT FROM brought WHERE classid = 'pg_class'::regclass AND objid = c.oid)) \
    SELECT 'relations of kind ' || relkind::text, count(*) FROM relations r \
        WHERE relkind NOT IN ('i', 'I') GROUP BY relkind \
    UNION ALL SELECT 'valid indexes', count(*) FROM pg_index \
        WHERE indrelid IN (SELECT oid FROM relations) AND indisvalid \
    UNION ALL SELECT 'schemas', count(*) FROM own n \
        WHERE NOT EXISTS (SELECT FROM brought WHERE classid = 'pg_namespace'::regclass AND objid = n.oid) \
    UNION ALL SELECT 'functions', count(*) FROM pg_proc p WHERE pronamespace IN (SELECT oid FROM own) \
        AND NOT EXISTS (SELECT FROM brought WHERE classid = 'pg_proc'::regclass AND objid = p.oid) \
    UNION ALL SELECT 'constraints of type ' || contype::text, count(*) FROM pg_constraint \
        WHERE contype IN ('c', 'f', 'p', 'u', 'x') AND conparentid = 0 \
            AND conrelid IN (SELECT oid FROM relations) GROUP BY contype \
    UNION ALL SELECT 'triggers', count(*) FROM pg_trigger \
        WHERE NOT tgisinternal AND tgrelid IN (SELECT oid FROM relations) \
    UNION ALL SELECT 'rules', count(*) FROM pg_rewrite WHERE ev_class IN (SELECT oid FROM relations) \
    UNION ALL SELECT 'policies', count(*) FROM pg_policy \
    UNION ALL SELECT 'types', count(*) FROM pg_type t WHERE typnamespace IN (SELECT oid FROM own) \
        AND typtype IN ('d', 'e', 'r') \
        AND NOT EXISTS (SELECT FROM brought WHERE classid = 'pg_type'::regclass AND objid = t.oid) \
    UNION ALL SELECT 'statistics objects', count(*) FROM pg_statistic_ext \
    UNION ALL SELECT 'publications', count(*) FROM pg_publication \
    UNION ALL SELECT 'event triggers', count(*) FROM pg_event_trigger e \
        WHERE NOT EXISTS (SELECT FROM brought WHERE classid = 'pg_event_trigger'::regclass AND objid = e.oid) \
    UNION ALL SELECT 'extensions', count(*) FROM pg_extension \
    UNION ALL SELECT 'large objects', count(*) FROM pg_largeobject_metadata";

/// Compares what the catalogs list.
pub(super) async fn compare(source: &Session, target: &Session) -> Result<(), MoveError> {
    let (expected, found) = tokio::try_join!(counts(source), counts(target))?;
    differ(&expected, &found)
}

/// Compares what was counted.
pub(super) fn differ(
    expected: &BTreeMap<String, i64>,
    found: &BTreeMap<String, i64>,
) -> Result<(), MoveError> {
    for (what, expected) in expected {
        let found = found.get(what).copied().unwrap_or(0);
        if *expected != found {
            return Err(MoveError::Differs {
                what: what.clone(),
                expected: expected.to_string(),
                found: found.to_string(),
            });
        }
    }
    Ok(())
}

/// Counts what the catalogs list.
pub(super) async fn counts(session: &Session) -> Result<BTreeMap<String, i64>, MoveError> {
    let rows = session
        .all("count what the catalogs list", COUNTS, &[], |row| {
            Ok((row.try_get(0)?, row.try_get(1)?))
        })
        .await?;
    Ok(rows.into_iter().collect())
}
