//! Summaries of log whose receiver is killed while it makes them, and of log that a server archives.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use everpoint_pgformat::Lsn;
use everpoint_testkit::{Cluster, compare};
use rustix::process::Signal;
use serde_json::Value;

use crate::{
    on_15_and_18,
    support::{Everpoint, random_below, stored_until, until},
};

/// Log is stored a MiB at a time, each with a summary behind it.
const RECEIVE: [&str; 7] = [
    "wal",
    "receive",
    "main",
    "--interval",
    "1s",
    "--cut-mib",
    "1",
];
const CHECKED: [&str; 5] = [
    "backup",
    "main",
    "--type",
    "differential",
    "--check-changes",
];
/// Kills, and the longest that a receiver lives before, behind its start.
const KILLS: u32 = 12;
const LONGEST_LIFE_MS: u64 = 150;

/// Writes some hundred MiB of log, of every size of record, until it is told to stop.
async fn write_log(cluster: &Cluster, rounds: u32) -> Result<()> {
    for round in 0..rounds {
        let sql = format!(
            "INSERT INTO t SELECT i, repeat(md5(i::text), 1 + i % 40) FROM generate_series(1, 2000) i;
             UPDATE t SET note = 'round {round}' WHERE id % 97 = {round};
             SELECT pg_logical_emit_message(false, 'everpoint', repeat('x', 3000000));
             DELETE FROM t WHERE id % 11 = {round} % 11"
        );
        cluster.sql("postgres", &sql).await?;
    }
    Ok(())
}

/// That a differential reads what changed, and reading everything finds nothing else.
fn check_changes(everpoint: &Everpoint) -> Result<()> {
    let checked = everpoint.run(CHECKED)?.expect(0);
    ensure!(!checked.stderr.contains("warning"), "{checked:?}");
    ensure!(
        !checked.stderr.contains("taking a full backup"),
        "{checked:?}"
    );
    Ok(())
}

/// That there is a sound summary of all stored log: making them makes none.
fn check_summaries(everpoint: &Everpoint) -> Result<Value> {
    let made = everpoint.json(["wal", "summarize", "main"])?;
    for what in ["made", "deleted", "skipped"] {
        ensure!(made[what] == 0, "{made}");
    }
    Ok(made)
}

on_15_and_18! {
    async fn summaries_are_whole_after_receivers_were_killed(server: Server) -> Result<()> {
        let everpoint = Everpoint::new()?;
        let cluster = Cluster::builder(server.major()).setting("max_wal_size = 4GB").start().await?;
        cluster.sql("postgres", "CREATE TABLE t (id int, note text)").await?;
        everpoint.add(&cluster)?;
        everpoint.back_up()?;
        let log = everpoint.repository().join("instances/main/log");
        for kill in 0..KILLS {
            let before = everpoint.objects("instances/main/summaries")?.len();
            let mut receiver = everpoint.start(RECEIVE)?;
            receiver.wait_until_it_says("streaming from").await?;
            let life = Duration::from_millis(random_below(LONGEST_LIFE_MS));
            let writing = write_log(&cluster, 3);
            let killing = async {
                // What is stored may be the log alone, the summary being made.
                until("it has stored something", async || {
                    Ok(everpoint.objects("instances/main/summaries")?.len() > before)
                })
                .await?;
                tokio::time::sleep(life).await;
                receiver.kill().map(drop)
            };
            let (written, killed) = tokio::join!(writing, killing);
            written.and(killed).with_context(|| format!("kill {kill} after {life:?}"))?;
        }
        let mut receiver = everpoint.start(RECEIVE)?;
        receiver.wait_until_it_says("streaming from").await?;
        write_log(&cluster, 1).await?;
        let end: Lsn = cluster.value("postgres", "SELECT pg_current_wal_flush_lsn()").await?.parse()?;
        until("all log is stored", async || Ok(stored_until(&log) >= end)).await?;
        receiver.signal(Signal::TERM)?;
        let ended = receiver.wait().await?.expect(0);
        ensure!(!ended.stderr.contains("without a summary"), "{ended:?}");
        everpoint.verify()?;
        check_summaries(&everpoint)?;
        check_changes(&everpoint)?;
        everpoint.succeed(["backup", "main", "--type", "differential"])?;
        let expected = compare::fingerprint(&cluster).await?;
        let to = everpoint.path("restored");
        let to = to.to_str().context("a path")?;
        everpoint.succeed(["restore", "instance", "main", "--latest", "--to", to])?;
        let restored = Cluster::adopt(to.as_ref(), server.major()).await?;
        restored.wait_until_promoted().await?;
        compare::assert_same(&expected, &compare::fingerprint(&restored).await?);
        compare::check_integrity(&restored).await
    }
}
