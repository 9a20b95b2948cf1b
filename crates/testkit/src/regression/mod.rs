//! A stand-in for the database of PostgreSQL's own regression tests: something of every kind that a database can
//! hold, of each kind in its odd forms, as far as the server's version knows it.
//!
//! It comes in two parts, so that a backup can be taken between them and log carries the second: [`begin`] makes
//! types, functions and tables with rows of every type, [`complete`] all that is built upon them: indexes of all
//! access methods, triggers, rules, views, rights, policies, foreign servers, publications, subscriptions, large
//! objects, comments, settings.
//!
//! Restored copies have the same definitions and rows but for what PostgreSQL itself or a move leaves behind:
//! unlogged tables come empty, sequences may be ahead.

use anyhow::{Context, Result};

use crate::{
    Cluster,
    compare::{DatabaseContent, Rows, fingerprint_database},
};

/// What a version adds: the first one that has it.
const SINCE: [(u16, &str); 3] = [
    (16, include_str!("since_16.sql")),
    (17, include_str!("since_17.sql")),
    (18, include_str!("since_18.sql")),
];
/// What is partitioned by hashes of an enum's numbers.
const HASHED: &str = "kinds.hashed";
/// Subscriptions of the database, whose slots lie nowhere: it cannot be dropped while it has them.
const SUBSCRIPTIONS: &str = "SELECT subname FROM pg_subscription WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())";

/// Makes the database, with roles `kind_…` if they are not there, and its first part.
///
/// # Errors
/// When the server refuses.
pub async fn begin(cluster: &Cluster, database: &str) -> Result<()> {
    cluster.sql("postgres", include_str!("roles.sql")).await?;
    cluster
        .sql("postgres", &format!("CREATE DATABASE {database}"))
        .await?;
    run(cluster, database, "types", include_str!("types.sql")).await?;
    let definitions = include_str!("definitions.sql");
    run(cluster, database, "definitions", definitions).await?;
    run(cluster, database, "tables", include_str!("tables.sql")).await
}

/// Makes the second part, and what belongs to the database and lies outside of it. The server's `wal_level` may be any.
///
/// # Errors
/// When the server refuses, as it does where the first part is not there.
pub async fn complete(cluster: &Cluster, database: &str) -> Result<()> {
    run(cluster, database, "indexes", include_str!("indexes.sql")).await?;
    let behaviour = include_str!("behaviour.sql");
    run(cluster, database, "behaviour", behaviour).await?;
    run(cluster, database, "access", include_str!("access.sql")).await?;
    for (version, sql) in SINCE {
        if cluster.major() >= version {
            run(cluster, database, &format!("what {version} has"), sql).await?;
        }
    }
    let properties = format!(
        "SET everpoint.database = '{database}'; {}",
        include_str!("properties.sql")
    );
    run(cluster, "postgres", "properties", &properties).await
}

/// What the database holds. Partitions that rows were put into by a hash of numbers that are others in every database
/// are taken together.
///
/// # Errors
/// When something cannot be read.
pub async fn content(cluster: &Cluster, database: &str) -> Result<DatabaseContent> {
    let mut content = fingerprint_database(&cluster.connect(database).await?).await?;
    content.tables.retain(|name, _| !name.starts_with(HASHED));
    let hashed =
        format!("SELECT count(*), sum(hashtextextended(h::text, 0)::numeric) FROM {HASHED} h");
    let hashed = cluster.rows(database, &hashed).await?.concat();
    if let [count, checksum] = &hashed[..] {
        let rows = Rows {
            count: count.parse()?,
            checksum: checksum.clone(),
        };
        content.tables.insert(HASHED.to_owned(), rows);
    }
    Ok(content)
}

/// Drops a database that [`complete`] was made in, or that is a copy of one.
///
/// # Errors
/// When the server refuses.
pub async fn remove(cluster: &Cluster, database: &str) -> Result<()> {
    for name in cluster.rows(database, SUBSCRIPTIONS).await?.concat() {
        let sql = format!("ALTER SUBSCRIPTION {name} SET (slot_name = NONE)");
        cluster.sql(database, &sql).await?;
        cluster
            .sql(database, &format!("DROP SUBSCRIPTION {name}"))
            .await?;
    }
    cluster
        .sql(
            "postgres",
            &format!("DROP DATABASE {database} WITH (FORCE)"),
        )
        .await
}

async fn run(cluster: &Cluster, database: &str, what: &str, sql: &str) -> Result<()> {
    cluster
        .sql(database, sql)
        .await
        .with_context(|| format!("could not make {what}"))
}
