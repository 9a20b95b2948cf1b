//! Whether a cluster is sound, by PostgreSQL's own tools.

use anyhow::{Context, Result, bail};

use crate::Cluster;

/// Where the extensions are put while a cluster is checked.
const SCHEMA: &str = "everpoint_check";
/// Faults that an error names of each kind.
const NAMED_FAULTS: usize = 20;

/// Checks a running cluster that takes writes, and is otherwise idle:
///
/// - `pg_amcheck` reads every table and B-tree of every database, and looks up every row in its indexes;
///   on 18, GIN indexes too;
/// - of every table with a B-tree as many rows are counted by the index as without, which finds what
///   `pg_amcheck` does not: a table that lost its last pages, whole in itself;
/// - `pg_visibility` finds pages marked all-visible or all-frozen that are not;
/// - the server reads every file for a base backup that goes nowhere, which verifies page checksums.
///
/// # Errors
/// When a fault is found, with what was found in all of these; or a check cannot be made.
pub async fn check_integrity(cluster: &Cluster) -> Result<()> {
    let mut faults = Vec::new();
    let databases = cluster.databases().await?;
    for database in &databases {
        let sql = format!(
            "SET client_min_messages = error;
             DROP SCHEMA IF EXISTS {SCHEMA} CASCADE;
             CREATE SCHEMA {SCHEMA};
             CREATE EXTENSION IF NOT EXISTS amcheck SCHEMA {SCHEMA};
             CREATE EXTENSION IF NOT EXISTS pg_visibility SCHEMA {SCHEMA}"
        );
        cluster.sql(database, &sql).await?;
    }
    faults.extend(amcheck(cluster).await?);
    for database in &databases {
        faults.extend(counts(cluster, database).await?);
        faults.extend(visibility(cluster, database).await?);
        if cluster.major() >= 18 {
            faults.extend(gin(cluster, database).await?);
        }
        let sql = format!("SET client_min_messages = error; DROP SCHEMA {SCHEMA} CASCADE");
        cluster.sql(database, &sql).await?;
    }
    faults.extend(page_checksums(cluster).await?);
    if !faults.is_empty() {
        bail!("the cluster is damaged:\n{}", faults.join("\n"));
    }
    Ok(())
}

/// Checks the page checksums of a stopped cluster, those of unlogged tables too, with `pg_checksums`.
///
/// # Errors
/// When a checksum is wrong, the cluster has none, or it was not shut down in good order.
pub async fn check_stopped(cluster: &Cluster) -> Result<()> {
    let data = format!("--pgdata={}", cluster.data_directory().display());
    let check = "--check".to_owned();
    let printed = cluster.server().run("pg_checksums", [check, data]).await;
    printed.map(drop).context("the cluster is damaged")
}

async fn amcheck(cluster: &Cluster) -> Result<Option<String>> {
    let arguments = [
        "--all".to_owned(),
        "--heapallindexed".to_owned(),
        "--parent-check".to_owned(),
        "--rootdescend".to_owned(),
        format!("--host={}", cluster.socket_dir().display()),
        format!("--port={}", cluster.port()),
        "--username=postgres".to_owned(),
    ];
    let mut command = cluster.server().command("pg_amcheck")?;
    let output = command.args(arguments).output().await?;
    let printed = [output.stdout, output.stderr].concat();
    let printed = String::from_utf8_lossy(&printed).into_owned();
    match output.status.code() {
        Some(0) => Ok(None),
        // What `pg_amcheck` ends with when it has found something.
        Some(2) => Ok(Some(format!("pg_amcheck: {}", printed.trim_end()))),
        _ => bail!("pg_amcheck could not check: {printed}"),
    }
}

async fn counts(cluster: &Cluster, database: &str) -> Result<Vec<String>> {
    let query = "SELECT c.oid::regclass FROM pg_class c
         WHERE c.relkind IN ('r', 'm', 't') AND c.relpersistence <> 't' AND EXISTS (
             SELECT FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_am a ON a.oid = x.relam
             WHERE i.indrelid = c.oid AND a.amname = 'btree' AND i.indisvalid AND i.indpred IS NULL)";
    let by_index = "SET enable_seqscan = off; SET enable_bitmapscan = off";
    let by_table =
        "RESET enable_seqscan; SET enable_indexscan = off; SET enable_indexonlyscan = off";
    let client = cluster.connect(database).await?;
    let mut counted: Vec<Vec<String>> = Vec::new();
    let tables = cluster.rows(database, query).await?.concat();
    for settings in [by_index, by_table] {
        client.batch_execute(settings).await?;
        let mut counts = Vec::new();
        for table in &tables {
            let count = format!("SELECT count(*) FROM ONLY {table}");
            counts.push(match client.query_one(&count, &[]).await {
                Ok(row) => row.get::<_, i64>(0).to_string(),
                Err(error) => format!("{:#}", anyhow::Error::from(error)),
            });
        }
        counted.push(counts);
    }
    let counts = counted[0].iter().zip(&counted[1]);
    let wrong = tables
        .iter()
        .zip(counts)
        .filter(|(_, (index, heap))| index != heap);
    let faults = wrong.map(|(table, (index, heap))| {
        format!("counts: {database}: {table} has rows by index: {index}; without: {heap}")
    });
    Ok(faults.collect())
}

async fn visibility(cluster: &Cluster, database: &str) -> Result<Vec<String>> {
    // Rows of system catalogs become visible to all as autovacuum's and our own snapshots go; the check takes
    // that into account by itself.
    let schema = extension_schema(cluster, database, "pg_visibility").await?;
    let query = format!(
        "SELECT c.oid::regclass, found.kind, found.tid
         FROM pg_class c, LATERAL (
             SELECT 'all-visible' AS kind, t_ctid AS tid FROM {schema}.pg_check_visible(c.oid)
             UNION ALL SELECT 'all-frozen', t_ctid FROM {schema}.pg_check_frozen(c.oid)) found
         WHERE c.relkind IN ('r', 'm', 't') AND c.relpersistence <> 't'
         LIMIT {NAMED_FAULTS}"
    );
    let rows = match cluster.rows(database, &query).await {
        Ok(rows) => rows,
        // A page that cannot be read is a fault as well.
        Err(error) => return Ok(vec![format!("pg_visibility: {error:#}")]),
    };
    let faults = rows.iter().map(|row| {
        let row = row.join(" ");
        format!("pg_visibility: {database}: a page marked so holds a row that is not: {row}")
    });
    Ok(faults.collect())
}

async fn gin(cluster: &Cluster, database: &str) -> Result<Option<String>> {
    let schema = extension_schema(cluster, database, "amcheck").await?;
    let query = format!(
        "SELECT {schema}.gin_index_check(c.oid) FROM pg_class c JOIN pg_am a ON a.oid = c.relam
         WHERE a.amname = 'gin' AND c.relkind = 'i' AND c.relpersistence <> 't'"
    );
    let checked = cluster.rows(database, &query).await;
    Ok(checked.err().map(|error| format!("gin: {error:#}")))
}

/// Where an extension is that may have been there before.
async fn extension_schema(cluster: &Cluster, database: &str, name: &str) -> Result<String> {
    let query =
        format!("SELECT extnamespace::regnamespace FROM pg_extension WHERE extname = '{name}'");
    cluster.value(database, &query).await
}

async fn page_checksums(cluster: &Cluster) -> Result<Option<String>> {
    if cluster.value("postgres", "SHOW data_checksums").await? != "on" {
        return Ok(None);
    }
    let arguments = [
        "--target=blackhole".to_owned(),
        "--wal-method=none".to_owned(),
        "--checkpoint=fast".to_owned(),
        format!("--dbname={}", cluster.connection_string("postgres")),
    ];
    let backup = cluster.server().run("pg_basebackup", arguments).await;
    Ok(backup.err().map(|error| format!("checksums: {error:#}")))
}
