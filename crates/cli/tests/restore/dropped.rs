//! Dropped databases, brought back whole as of just before their drop.

use std::time::Duration;

use anyhow::{Context, Result};
use everpoint_pgformat::Lsn;
use everpoint_testkit::{
    Cluster,
    compare::{DatabaseContent, assert_same_database, fingerprint_database},
};
use jiff::Timestamp;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{
    everpoint::{Everpoint, NAME, REFUSED, nudge},
    versions::on_oldest_and_newest,
};

/// A database as it was when its drop began.
struct Lost {
    name: &'static str,
    content: DatabaseContent,
    before: Timestamp,
}

async fn fill(cluster: &Cluster, database: &str, first: u32) -> Result<()> {
    let table = format!(
        "CREATE TABLE content AS SELECT i AS id, md5(i::text) AS note FROM generate_series({first}, {first} + 999) i;
         CREATE INDEX ON content (id)"
    );
    cluster.sql(database, &table).await
}

async fn content(cluster: &Cluster, database: &str) -> Result<DatabaseContent> {
    fingerprint_database(&cluster.connect(database).await?).await
}

async fn drop_it(cluster: &Cluster, name: &'static str, how: &str) -> Result<Lost> {
    let content = content(cluster, name).await?;
    let before = cluster.moment().await?.time;
    // Connections that are gone may still be seen.
    let gone = format!("SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = '{name}'");
    if how.is_empty() {
        cluster
            .wait_until_true(&gone, "nobody is connected")
            .await?;
    }
    cluster
        .sql("postgres", &format!("DROP DATABASE {name} {how}"))
        .await?;
    Ok(Lost {
        name,
        content,
        before,
    })
}

/// A drop that fails half way: it waits for every process of the server, one of which is stopped.
async fn fail_to_drop(cluster: &Cluster, name: &'static str) -> Result<Lost> {
    let lost = content(cluster, name).await?;
    let before = cluster.moment().await?.time;
    let idle = cluster.connect("postgres").await?;
    let pid: i32 = idle.query_one("SELECT pg_backend_pid()", &[]).await?.get(0);
    let pid = Pid::from_raw(pid).context("a process")?;
    let gone = format!("SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = '{name}'");
    cluster
        .wait_until_true(&gone, "nobody is connected")
        .await?;
    kill_process(pid, Signal::STOP)?;
    let session = cluster.connect("postgres").await?;
    session
        .batch_execute("SET statement_timeout = '2s'")
        .await?;
    let dropped = session
        .batch_execute(&format!("DROP DATABASE {name}"))
        .await;
    kill_process(pid, Signal::CONT)?;
    assert!(dropped.is_err(), "the drop was to fail");
    let limit = format!("SELECT datconnlimit FROM pg_database WHERE datname = '{name}'");
    assert_eq!(cluster.value("postgres", &limit).await?, "-2");
    Ok(Lost {
        name,
        content: lost,
        before,
    })
}

on_oldest_and_newest! {
    async fn dropped_databases_come_back_whole_whichever_way_they_went(server: Server) -> Result<()> {
        let cluster = Cluster::builder(server.major()).start().await?;
        let everpoint = Everpoint::with(&cluster).await?;
        let sql = async |text: &str| cluster.sql("postgres", text).await;
        for (number, name) in (1..).zip(["plain", "forced", "early", "halfway"]) {
            sql(&format!("CREATE DATABASE {name}")).await?;
            fill(&cluster, name, number * 10_000).await?;
        }
        everpoint.full().await?;
        let mut lost = Vec::new();
        for name in ["plain", "forced", "early", "halfway"] {
            cluster.sql(name, "UPDATE content SET note = 'changed' WHERE id % 3 = 0").await?;
        }
        lost.push(drop_it(&cluster, "plain", "").await?);
        // With sessions that are ended for it.
        let _session = cluster.connect("forced").await?;
        lost.push(drop_it(&cluster, "forced", "WITH (FORCE)").await?);
        // One name, three databases; each made after the backup.
        for number in 5..8 {
            sql("CREATE DATABASE again STRATEGY wal_log").await?;
            fill(&cluster, "again", number * 10_000).await?;
            lost.push(drop_it(&cluster, "again", "").await?);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // Renamed before it went, and made of copied files, whose contents no log holds; what it was made of
        // was such a copy itself, and is gone as well.
        sql("CREATE DATABASE model STRATEGY file_copy").await?;
        fill(&cluster, "model", 90_000).await?;
        sql("CREATE DATABASE copy TEMPLATE model STRATEGY file_copy").await?;
        cluster.sql("copy", "DELETE FROM content WHERE id % 7 = 0").await?;
        sql("ALTER DATABASE copy RENAME TO renamed").await?;
        lost.push(drop_it(&cluster, "model", "").await?);
        lost.push(drop_it(&cluster, "renamed", "").await?);
        let between = cluster.moment().await?;
        everpoint.differential().await?;
        lost.push(fail_to_drop(&cluster, "halfway").await?);
        // In the log of a later backup.
        cluster.sql("early", "DELETE FROM content WHERE id % 2 = 0").await?;
        lost.push(drop_it(&cluster, "early", "").await?);
        sql("CREATE DATABASE kept").await?;
        let end = nudge(&cluster).await?;
        let receiver = everpoint.receive()?;
        everpoint.wait_until_stored(end).await?;
        receiver.stop().await?;

        let listed = everpoint.json(&["deleted", NAME]).await?;
        let listed = listed.as_array().context("a list")?;
        let names: Vec<&str> = listed.iter().filter_map(|row| row["name"].as_str()).collect();
        let expected: Vec<&str> = lost.iter().map(|lost| lost.name).collect();
        assert_eq!(names, expected, "{listed:#?}");
        for (row, lost) in listed.iter().zip(&lost) {
            let time = |name: &str| row[name].as_str().and_then(|time| time.parse::<Timestamp>().ok());
            let dropped = time("dropped").with_context(|| format!("{row}"))?;
            assert!(dropped > lost.before, "{row}");
            assert_eq!(row["failed"].as_bool(), Some(lost.name == "halfway"), "{row}");
            assert!(time("restorable_from").is_some(), "{row}");
            let after_backup = ["again", "model", "renamed"].contains(&lost.name);
            assert_eq!(time("created").is_some(), after_backup, "{row}");
            let which = match lost.name {
                "again" => format!("{NAME}/again@{dropped}"),
                name => format!("{NAME}/{name}"),
            };
            let inspected = everpoint.inspect(&["--deleted", &which]).await?;
            assert_same_database(&lost.content, &inspected.content().await?);
            inspected.end().await?;
        }

        // A time within its life, and one that is not.
        let renamed = lost.iter().find(|lost| lost.name == "renamed").context("it was dropped")?;
        let at = renamed.before.to_string();
        let inspected = everpoint.inspect(&["--deleted", "main/renamed", "--at", &at]).await?;
        assert_same_database(&renamed.content, &inspected.content().await?);
        inspected.end().await?;
        let late = between.time.to_string();
        let refused = everpoint.try_inspect(&["--deleted", "main/renamed", "--at", &late]).await?;
        assert_eq!(refused.code, Some(REFUSED), "{refused:?}");
        assert!(refused.err.contains("outside the life"), "{refused:?}");
        // By its name at a time, dropped since; or dropped before, which is said.
        let plain = &lost[0];
        for at in [plain.before.to_string(), late] {
            let inspected = everpoint.inspect(&["main/plain", "--at", &at]).await?;
            assert_same_database(&plain.content, &inspected.content().await?);
            inspected.end().await?;
        }
        let dry = ["restore", "database", "main/plain", "--dry-run"];
        let plan = everpoint.json(&dry).await?;
        let undo: Lsn = plan["before_drop"].as_str().context("it was dropped")?.parse()?;
        assert_eq!(Value::from(undo.to_string()), listed[0]["restorable_to"]);

        for (which, part) in [
            ("main/again", "several databases"),
            ("main/kept", "no dropped database"),
            ("main/again@2020-01-01T00:00:00Z", "no dropped database"),
        ] {
            let refused = everpoint.try_inspect(&["--deleted", which]).await?;
            assert_eq!(refused.code, Some(REFUSED), "{refused:?}");
            assert!(refused.err.contains(part), "{refused:?}");
        }
        Ok(())
    }

    async fn dropped_databases_come_back_into_the_server_with_their_tablespaces(server: Server) -> Result<()> {
        let cluster = Cluster::builder(server.major()).tablespace("near").tablespace("far").start().await?;
        let everpoint = Everpoint::with(&cluster).await?;
        let sql = async |text: &str| cluster.sql("postgres", text).await;
        for (number, (name, how)) in (1..).zip([("spread", "TABLESPACE near"), ("moved", ""), ("halfway", "TABLESPACE far"), ("kept", "TABLESPACE near")]) {
            sql(&format!("CREATE DATABASE {name} {how}")).await?;
            fill(&cluster, name, number * 10_000).await?;
        }
        cluster.sql("spread", "CREATE TABLE afar TABLESPACE far AS SELECT generate_series(1, 3000) AS id; CREATE INDEX ON afar (id)").await?;
        everpoint.full().await?;
        // Made after the backup of copied files, and moved, which drops its copy in the old place.
        sql("CREATE DATABASE copied TEMPLATE spread STRATEGY file_copy").await?;
        sql("ALTER DATABASE moved SET TABLESPACE far").await?;
        cluster.sql("moved", "DELETE FROM content WHERE id % 5 = 0").await?;
        cluster.sql("copied", "UPDATE afar SET id = -id WHERE id % 4 = 0").await?;
        let mut lost = Vec::new();
        for name in ["spread", "moved", "copied"] {
            lost.push(drop_it(&cluster, name, "").await?);
        }
        lost.push(fail_to_drop(&cluster, "halfway").await?);
        let kept = content(&cluster, "kept").await?;
        let end = nudge(&cluster).await?;
        let receiver = everpoint.receive()?;
        everpoint.wait_until_stored(end).await?;
        receiver.stop().await?;
        let wanted = [("spread", "near", "far"), ("moved", "far", "pg_default"), ("copied", "near", "far"), ("halfway", "far", "pg_default")];
        for (lost, (name, own, tables)) in lost.iter().zip(wanted) {
            let which = format!("main/{name}");
            let mut arguments = vec!["--deleted", &which, "--to", name];
            // What could not be dropped whole is still listed by its name.
            if name == "halfway" {
                arguments.push("--replace");
            }
            let done = everpoint.put_back(&arguments).await?;
            assert_eq!(done.code, Some(0), "{name}: {done:?}");
            assert_same_database(&lost.content, &content(&cluster, name).await?);
            let place = format!("SELECT spcname FROM pg_database d JOIN pg_tablespace t ON t.oid = dattablespace WHERE datname = '{name}'");
            assert_eq!(cluster.value("postgres", &place).await?, own, "{name}");
            if tables == "far" {
                let place = "SELECT tablespace FROM pg_tables WHERE tablename = 'afar'";
                assert_eq!(cluster.value(name, place).await?, "far", "{name}");
            }
        }
        assert_same_database(&kept, &content(&cluster, "kept").await?);
        everpoint.assert_scratch_empty("restored")
    }

    async fn a_database_that_took_no_connections_any_more_comes_back_and_takes_them(server: Server) -> Result<()> {
        let cluster = Cluster::builder(server.major()).start().await?;
        let everpoint = Everpoint::with(&cluster).await?;
        cluster.sql("postgres", "CREATE DATABASE shop").await?;
        fill(&cluster, "shop", 10_000).await?;
        everpoint.full().await?;
        cluster.sql("shop", "DELETE FROM content WHERE id % 3 = 0").await?;
        let lost = content(&cluster, "shop").await?;
        // As administrators keep sessions out before they drop.
        cluster.sql("postgres", "ALTER DATABASE shop ALLOW_CONNECTIONS false").await?;
        cluster.sql("postgres", "DROP DATABASE shop WITH (FORCE)").await?;
        let end = nudge(&cluster).await?;
        let receiver = everpoint.receive()?;
        everpoint.wait_until_stored(end).await?;
        receiver.stop().await?;
        let done = everpoint.put_back(&["--deleted", "main/shop", "--to", "shop"]).await?;
        assert_eq!(done.code, Some(0), "{done:?}");
        assert!(done.err.contains("took no connections (ALLOW_CONNECTIONS false)"), "{done:?}");
        assert_same_database(&lost, &content(&cluster, "shop").await?);
        everpoint.assert_scratch_empty("restored")
    }
}
