//! Reading contents.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use tokio_postgres::Client;

use super::content::{DatabaseContent, Fingerprint, Rows, SequenceState};
use crate::Cluster;

/// What a cluster holds, in all databases that take connections.
///
/// # Errors
/// When something cannot be read.
pub async fn fingerprint(cluster: &Cluster) -> Result<Fingerprint> {
    let mut fingerprint = Fingerprint::default();
    for database in cluster.databases().await? {
        let client = cluster.connect(&database).await?;
        let content = fingerprint_database(&client)
            .await
            .with_context(|| format!("in database {database}"))?;
        fingerprint.databases.insert(database, content);
    }
    fingerprint.shared = shared(&cluster.connect("postgres").await?).await?;
    Ok(fingerprint)
}

/// What the database of a connection holds, in one snapshot.
///
/// # Errors
/// When something cannot be read.
pub async fn fingerprint_database(client: &Client) -> Result<DatabaseContent> {
    // Rows are compared as text, so all that shapes the text is set. What is said of partitions is that the
    // parent itself is empty.
    client
        .batch_execute(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
             SET LOCAL timezone = 'UTC'; SET LOCAL datestyle = 'ISO'; SET LOCAL intervalstyle = 'postgres';
             SET LOCAL extra_float_digits = 1; SET LOCAL bytea_output = 'hex';
             SET LOCAL search_path = ''; SET LOCAL row_security = off; SET LOCAL statement_timeout = 0",
        )
        .await?;
    let mut content = DatabaseContent::default();
    for name in tables(client).await? {
        let rows = rows(client, &format!("SELECT t::text FROM ONLY {name} t"))
            .await
            .with_context(|| format!("could not read {name}"))?;
        content.tables.insert(name, rows);
    }
    content.sequences = sequences(client).await?;
    let large_objects = "SELECT concat_ws(',', loid, pageno, data) FROM pg_catalog.pg_largeobject
         UNION ALL SELECT concat_ws(',', oid, lomowner::pg_catalog.regrole, lomacl)
         FROM pg_catalog.pg_largeobject_metadata";
    content.large_objects = rows(client, large_objects).await?;
    client.batch_execute("COMMIT").await?;
    Ok(content)
}

/// A database's definitions as `pg_dump` of the cluster's version writes them, without what differs from run to
/// run.
///
/// # Errors
/// When `pg_dump` fails.
pub async fn schema_text(cluster: &Cluster, database: &str) -> Result<String> {
    definitions(cluster, database, &[]).await
}

/// As [`schema_text`], with what makes the database itself: locale, owner, rights, settings, comment.
///
/// # Errors
/// When `pg_dump` fails.
pub async fn creation_text(cluster: &Cluster, database: &str) -> Result<String> {
    definitions(cluster, database, &["--create"]).await
}

async fn definitions(cluster: &Cluster, database: &str, more: &[&str]) -> Result<String> {
    let connection = format!("--dbname={}", cluster.connection_string(database));
    let mut arguments = vec!["--schema-only".to_owned(), connection];
    arguments.extend(more.iter().map(|&argument| argument.to_owned()));
    let text = cluster.server().run("pg_dump", arguments).await?;
    let kept = text.lines().filter(|line| {
        // `\restrict` carries a random key.
        !(line.is_empty() || line.starts_with("--") || line.contains("restrict "))
    });
    Ok(kept.collect::<Vec<_>>().join("\n"))
}

async fn tables(client: &Client) -> Result<Vec<String>> {
    let query = "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname)
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind IN ('r', 'm') AND c.relpersistence = 'p' AND c.relispopulated
           AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')";
    let rows = client.query(query, &[]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

async fn sequences(client: &Client) -> Result<BTreeMap<String, SequenceState>> {
    let query = "SELECT pg_catalog.format('%I.%I', schemaname, sequencename), last_value, increment_by
         FROM pg_catalog.pg_sequences s
         WHERE (SELECT relpersistence FROM pg_catalog.pg_class c
                WHERE c.oid = pg_catalog.format('%I.%I', schemaname, sequencename)::pg_catalog.regclass) = 'p'";
    let rows = client.query(query, &[]).await?;
    let sequences = rows.iter().map(|row| {
        let state = SequenceState {
            last: row.get(1),
            increment: row.get(2),
        };
        (row.get(0), state)
    });
    Ok(sequences.collect())
}

/// What all databases share. Databases and roles are named, since their numbers may differ between copies.
async fn shared(client: &Client) -> Result<BTreeMap<String, Rows>> {
    let queries = [
        (
            "roles",
            "SELECT concat_ws(',', rolname, rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin,
                rolreplication, rolbypassrls, rolconnlimit, rolpassword, rolvaliduntil) FROM pg_authid",
        ),
        (
            "memberships",
            "SELECT concat_ws(',', roleid::regrole, member::regrole, admin_option) FROM pg_auth_members",
        ),
        (
            "tablespaces",
            "SELECT concat_ws(',', spcname, spcowner::regrole, spcacl, spcoptions) FROM pg_tablespace",
        ),
        (
            "databases",
            "SELECT concat_ws(',', datname, datdba::regrole, encoding, datcollate, datctype, datistemplate,
                datallowconn, datconnlimit, datacl,
                (SELECT spcname FROM pg_tablespace t WHERE t.oid = dattablespace)) FROM pg_database",
        ),
        (
            "settings",
            "SELECT concat_ws(',', (SELECT datname FROM pg_database d WHERE d.oid = setdatabase),
                (SELECT rolname FROM pg_authid a WHERE a.oid = setrole), setconfig) FROM pg_db_role_setting",
        ),
    ];
    let mut shared = BTreeMap::new();
    for (what, query) in queries {
        let rows = rows(client, query).await;
        shared.insert(
            what.to_owned(),
            rows.with_context(|| format!("could not read {what}"))?,
        );
    }
    Ok(shared)
}

/// Boils down a query that gives each row as one text.
async fn rows(client: &Client, query: &str) -> Result<Rows> {
    let boiled = format!(
        "SELECT count(*), coalesce(sum(pg_catalog.hashtextextended(text, 0)::numeric), 0)::text
         FROM ({query}) AS each_row (text)"
    );
    let row = client.query_one(&boiled, &[]).await?;
    let count: i64 = row.get(0);
    Ok(Rows {
        count: u64::try_from(count)?,
        checksum: row.get(1),
    })
}
