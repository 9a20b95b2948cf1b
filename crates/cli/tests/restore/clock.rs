//! A server whose clock is set back.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use everpoint_testkit::Cluster;
use jiff::{SignedDuration, Timestamp};

use crate::everpoint::{Everpoint, NAME, nudge};

/// More than what is passed over.
const STEP_SECONDS: i64 = 3;

async fn insert(cluster: &Cluster, row: &str) -> Result<Timestamp> {
    let sql = format!("INSERT INTO t VALUES ('{row}')");
    cluster.sql("postgres", &sql).await?;
    let moment = cluster.moment().await?.time;
    tokio::time::sleep(Duration::from_millis(20)).await;
    Ok(moment)
}

async fn rows(cluster: &Cluster) -> Result<String> {
    cluster
        .value(
            "postgres",
            "SELECT coalesce(string_agg(row, ' ' ORDER BY row), '') FROM t",
        )
        .await
}

#[tokio::test]
async fn a_clock_that_went_back_is_told_and_times_on_both_sides_can_be_restored() -> Result<()> {
    let cluster = Cluster::builder(18).with_clock().start().await?;
    let everpoint = Everpoint::with(&cluster).await?;
    cluster.sql("postgres", "CREATE TABLE t (row text)").await?;
    everpoint.full().await?;
    let receiver = everpoint.receive()?;
    // So that the time that comes twice lies behind the backup's.
    tokio::time::sleep(Duration::from_secs(STEP_SECONDS.unsigned_abs() + 1)).await;
    let early = insert(&cluster, "1 early").await?;
    let late = insert(&cluster, "2 late").await?;
    cluster.set_clock(-STEP_SECONDS)?;
    let again = insert(&cluster, "3 again").await?;
    ensure!(again < early, "{again} is not before {early}");
    // A time that may come once more cannot be restored yet.
    everpoint.wait_until_stored(nudge(&cluster).await?).await?;
    let refused = everpoint
        .refused_restore(&["--at", &late.to_string()])
        .await?;
    ensure!(refused.contains("later than what is stored"), "{refused}");
    tokio::time::sleep(Duration::from_secs(STEP_SECONDS.unsigned_abs() + 1)).await;
    everpoint.wait_until_stored(nudge(&cluster).await?).await?;

    let log = everpoint.json(&["log", NAME, "--kind", "clock"]).await?;
    let events = log["events"].as_array().context("events")?;
    ensure!(events.len() == 1, "one step: {log:#}");
    let words = events[0]["what"].as_str().context("what happened")?;
    ensure!(words.contains("clock"), "{words}");

    // As PostgreSQL has it, too: replay stops before the first transaction that ended later, wherever that is.
    let told = everpoint
        .run(&[
            "restore",
            "instance",
            NAME,
            "--to",
            "/nowhere/at/all",
            "--at",
            &late.to_string(),
            "--dry-run",
        ])
        .await?;
    ensure!(told.out.contains("clock went back"), "{told:?}");
    for (time, expected) in [(late, "1 early 2 late 3 again"), (again, "")] {
        let at = time.to_string();
        let restored = everpoint.restore(18, &["--at", &at]).await?;
        let found = rows(&restored).await?;
        ensure!(found == expected, "as of {at}: {found}");
    }
    // When the clock is right again, everything goes on.
    cluster.set_clock(0)?;
    let right = insert(&cluster, "4 right").await?;
    ensure!(right > late + SignedDuration::from_millis(1));
    everpoint.wait_until_stored(nudge(&cluster).await?).await?;
    receiver.stop().await?;
    let restored = everpoint.restore(18, &["--at", &right.to_string()]).await?;
    ensure!(rows(&restored).await? == "1 early 2 late 3 again 4 right");
    Ok(())
}
