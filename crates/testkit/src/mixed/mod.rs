//! Content of every kind that a backup has to cope with, made up in SQL.
//!
//! All types of index, TOAST (compressed and not), partitions, inheritance, large objects, unlogged and
//! temporary tables, sequences, many small tables, odd names, dropped and late columns, dead rows and
//! all-visible pages. The same size gives the same content.

use anyhow::{Context, Result};
use everpoint_pgformat::ByteCount;
use tokio_postgres::Client;

use crate::Cluster;

/// What a row of `mixed.document` takes with all that comes with it: indexes, other tables, large objects.
const BYTES_PER_ROW: u64 = 3_400;
/// Even the smallest content has so many rows, so that every kind is there.
const FEWEST_ROWS: u64 = 100;

/// Makes a schema `mixed` of about `size` in the connection's database, at least 2 MiB. A temporary table is left
/// behind that lives as long as the connection.
///
/// # Errors
/// When the server refuses, as it does if the schema is there already.
pub async fn mixed_data(client: &Client, size: ByteCount) -> Result<()> {
    let rows = (size.get() / BYTES_PER_ROW).max(FEWEST_ROWS);
    client
        .batch_execute(&format!("SET everpoint.rows = {rows}"))
        .await?;
    for (what, sql) in [
        ("tables", include_str!("tables.sql")),
        ("rows", include_str!("rows.sql")),
        ("indexes", include_str!("indexes.sql")),
        ("objects", include_str!("objects.sql")),
    ] {
        client
            .batch_execute(sql)
            .await
            .with_context(|| format!("could not make mixed {what}"))?;
    }
    // Cannot run within a transaction, and so not within a string of statements.
    client
        .batch_execute("VACUUM mixed.document")
        .await
        .context("could not vacuum")
}

/// Changes about a tenth of what [`mixed_data`] made: rows inserted, updated, deleted, a table truncated, one
/// dropped and one made anew, a sequence moved, large objects rewritten.
///
/// # Errors
/// When the server refuses, as it does if the content is not there.
pub async fn change_mixed_data(client: &Client) -> Result<()> {
    client
        .batch_execute(include_str!("changes.sql"))
        .await
        .context("could not change the mixed content")
}

/// Makes databases `many_0`, `many_1` and so on, each with a table of its own.
///
/// # Errors
/// When the server refuses.
pub async fn many_databases(cluster: &Cluster, count: u32) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for number in 0..count {
        let name = format!("many_{number}");
        cluster
            .sql("postgres", &format!("CREATE DATABASE {name}"))
            .await?;
        let table = format!(
            "CREATE TABLE content AS SELECT i AS id, md5((i + {number})::text) AS note
             FROM generate_series(1, 200) i"
        );
        cluster.sql(&name, &table).await?;
        names.push(name);
    }
    Ok(names)
}
