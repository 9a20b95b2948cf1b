//! What happened is told by name from the repository alone, and leads back to just before it.

use anyhow::{Context, Result, ensure};
use everpoint_testkit::Cluster;
use serde_json::Value;

use crate::{
    everpoint::{Everpoint, NAME, REFUSED, nudge},
    versions::on_oldest_and_newest,
};

/// Rows that a mass delete takes away: more than a large transaction must touch.
const ROWS: u32 = 15_000;

/// The events of a kind whose text has these words.
fn events_of<'a>(log: &'a Value, kind: &str, what: &str) -> Result<Vec<&'a Value>> {
    let events = log["events"].as_array().context("events")?;
    let is_meant = |event: &&Value| {
        event["kind"] == kind
            && event["what"]
                .as_str()
                .is_some_and(|text| text.contains(what))
    };
    Ok(events.iter().filter(is_meant).collect())
}

/// The only one of them.
fn only<'a>(log: &'a Value, kind: &str, what: &str) -> Result<&'a Value> {
    let found = events_of(log, kind, what)?;
    ensure!(
        found.len() == 1,
        "{} of {kind} `{what}` in {log:#}",
        found.len()
    );
    Ok(found[0])
}

fn id(event: &Value) -> &str {
    event["id"].as_str().expect("an id")
}

/// What a query finds in what is restored to just before an event.
async fn restored_count(
    everpoint: &Everpoint,
    major: u16,
    event: &str,
    query: (&str, &str),
) -> Result<String> {
    let restored = everpoint.restore(major, &["--before", event]).await?;
    restored.value(query.0, query.1).await
}

async fn prepare(cluster: &Cluster) -> Result<()> {
    for name in ["shop", "doomed", "old_name"] {
        cluster
            .sql("postgres", &format!("CREATE DATABASE {name}"))
            .await?;
    }
    let tables = format!(
        "CREATE SCHEMA app;
         CREATE TABLE app.orders (id serial PRIMARY KEY, note text);
         INSERT INTO app.orders (note) SELECT md5(i::text) FROM generate_series(1, 500) i;
         CREATE TABLE app.lines (id int PRIMARY KEY, note text);
         INSERT INTO app.lines SELECT i, 'x' FROM generate_series(1, 700) i;
         CREATE TABLE app.customers (id int PRIMARY KEY, note text);
         INSERT INTO app.customers SELECT i, 'x' FROM generate_series(1, 300) i;
         CREATE TABLE app.big (id int);
         INSERT INTO app.big SELECT generate_series(1, {ROWS})"
    );
    cluster.sql("shop", &tables).await?;
    cluster
        .sql(
            "doomed",
            "CREATE TABLE t AS SELECT generate_series(1, 42) i",
        )
        .await
}

/// The mistakes, and what is none.
async fn make_mistakes(cluster: &Cluster) -> Result<()> {
    for statement in [
        "CREATE DATABASE later",
        "ALTER DATABASE old_name RENAME TO new_name",
    ] {
        cluster.sql("postgres", statement).await?;
    }
    for statement in [
        "TRUNCATE app.lines",
        "VACUUM FULL app.customers",
        "CREATE TEMP TABLE scratchpad AS SELECT 1 AS i",
        "ANALYZE",
        "ALTER TABLE app.customers ADD COLUMN born date",
        "CREATE FUNCTION app.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "DO $$ BEGIN
             BEGIN DROP TABLE app.customers; RAISE EXCEPTION 'no'; EXCEPTION WHEN OTHERS THEN NULL; END;
             CREATE TABLE app.made (i int);
         END $$",
        "ALTER TABLE app.made RENAME TO renamed",
        "BEGIN; DROP TABLE app.customers; ROLLBACK",
        "DROP TABLE app.orders",
        "DELETE FROM app.big WHERE id > 100",
    ] {
        cluster.sql("shop", statement).await?;
    }
    cluster
        .sql(
            "postgres",
            "SELECT pg_create_restore_point('a good moment')",
        )
        .await?;
    cluster.sql("postgres", "DROP DATABASE doomed").await
}

on_oldest_and_newest! {
    async fn mistakes_are_found_by_name_and_lead_back_to_just_before_them(server: Server) -> Result<()> {
        let major = server.major();
        let mut builder = Cluster::builder(major);
        if major == 15 {
            // Then the log shows no rows of catalogs that are older, and a backup has to name the tables.
            // Only that a database was renamed cannot be told.
            builder = builder.setting("full_page_writes = off");
        }
        let cluster = builder.start().await?;
        prepare(&cluster).await?;
        // The slot keeps log from the last checkpoint on; what was made before shall not be in it.
        cluster.sql("postgres", "CHECKPOINT").await?;
        let everpoint = Everpoint::with(&cluster).await?;
        let full = everpoint.full().await?;
        let receiver = everpoint.receive()?;
        make_mistakes(&cluster).await?;
        let last = nudge(&cluster).await?;
        everpoint.wait_until_stored(last).await?;
        receiver.stop().await?;

        let log = everpoint.json(&["log", NAME]).await?;
        let dropped = only(&log, "drop", "dropped table app.orders")?;
        let truncated = only(&log, "truncate", "truncated table app.lines")?;
        let deleted = format!("deleted {},{} rows of app.big", (ROWS - 100) / 1000, (ROWS - 100) % 1000);
        let deleted = only(&log, "bulk", &deleted)?;
        let database = only(&log, "drop", "dropped database doomed")?;
        let created = only(&log, "create", "created database later")?;
        if major != 15 {
            only(&log, "rename", "renamed database old_name to new_name")?;
        }
        only(&log, "create", "created table app.made")?;
        only(&log, "rename", "renamed table made to app.renamed")?;
        only(&log, "ddl", "definitions: function")?;
        // Rewritten, and then it got a column.
        let changes = if major == 15 { 1 } else { 2 };
        let changed = events_of(&log, "ddl", "changed table app.customers")?;
        assert_eq!(changed.len(), changes, "{log:#}");
        only(&log, "restore-point", "a good moment")?;
        for event in [dropped, truncated, deleted] {
            assert_eq!(event["database"]["name"], "shop", "{event:#}");
            assert!(event["transaction"].as_u64().is_some_and(|id| id > 0), "{event:#}");
            let time: jiff::Timestamp = event["time"].as_str().context("a time")?.parse()?;
            assert!(time > full.restorable_from && time < last.time, "{event:#}");
        }
        let all = log["events"].as_array().context("events")?;
        let words = |word: &str| all.iter().filter(|event| {
            event["what"].as_str().is_some_and(|what| what.contains(word))
        }).count();
        // Neither temporary tables nor what was rolled back nor statistics are told, and a rewritten table is
        // neither dropped nor emptied.
        assert_eq!(words("scratchpad"), 0, "{log:#}");
        let is_loss = |event: &&Value| event["kind"] == "drop" || event["kind"] == "truncate";
        assert_eq!(all.iter().filter(is_loss).count(), 3, "{log:#}");

        let filtered = everpoint.json(&["log", NAME, "--kind", "drop,bulk", "--database", "shop"]).await?;
        let filtered = filtered["events"].as_array().context("events")?;
        assert_eq!(filtered.iter().map(id).collect::<Vec<_>>(), [id(dropped), id(deleted)]);
        let since = dropped["time"].as_str().context("a time")?;
        let later = everpoint.json(&["log", NAME, "--since", since, "--limit", "2"]).await?;
        assert_eq!(later["events"].as_array().map(Vec::len), Some(2), "{later:#}");
        let unknown = everpoint.run(&["log", NAME, "--database", "nowhere"]).await?;
        assert_eq!(unknown.code, Some(REFUSED), "{unknown:?}");
        let text = everpoint.run(&["log", NAME]).await?.out;
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
        assert!(text.contains(id(dropped)) && text.contains("--before"), "{text}");

        let count = "SELECT count(*) FROM";
        for (event, database, table, rows) in [
            (truncated, "shop", "app.lines", 700),
            (dropped, "shop", "app.orders", 500),
            (deleted, "shop", "app.big", ROWS),
            (database, "doomed", "t", 42),
        ] {
            let query = format!("{count} {table}");
            let found = restored_count(&everpoint, major, id(event), (database, &query)).await?;
            assert_eq!(found, rows.to_string(), "{event:#}");
        }
        // What is printed says the same.
        let before = everpoint.json(&["log", NAME, "--before", id(dropped)]).await?;
        let lsn = before["lsn"].as_str().context("an LSN")?;
        assert!(before["restore"].as_str().is_some_and(|text| text.ends_with(lsn)), "{before:#}");
        assert_eq!(before["first_outside"]["transaction"], dropped["transaction"], "{before:#}");
        let outside = everpoint.run(&["log", NAME, "--before", "1-0/28"]).await?;
        assert_eq!(outside.code, Some(REFUSED), "{outside:?}");
        let text = everpoint.run(&["log", NAME, "--before", id(dropped)]).await?.out;
        assert!(text.contains("dropped table app.orders"), "{text}");

        let window = everpoint.json(&["window", NAME]).await?;
        let databases = window["databases"].as_array().context("databases")?;
        let of = |name: &str| databases.iter().find(|database| database["name"] == name);
        let doomed = of("doomed").context("the dropped database")?;
        assert_eq!(doomed["dropped"]["event"], id(database), "{doomed:#}");
        assert_eq!(doomed["ranges"][0]["latest_lsn"], database["lsn"], "{doomed:#}");
        assert_eq!(doomed["dropped"]["can_be_undone"], true, "{doomed:#}");
        let later = of("later").context("the new database")?;
        assert_eq!(later["ranges"][0]["earliest"], created["time"], "{later:#}");
        if major != 15 {
            let renamed = of("new_name").context("the renamed database")?;
            assert_eq!(renamed["earlier_names"][0], "old_name", "{renamed:#}");
            let full_start = full.restorable_from.to_string();
            assert_eq!(renamed["ranges"][0]["earliest"], full_start.as_str(), "{renamed:#}");
            assert_eq!(of("old_name"), None, "{window:#}");
        }
        let text = everpoint.run(&["window", NAME]).await?.out;
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
        Ok(())
    }
}
