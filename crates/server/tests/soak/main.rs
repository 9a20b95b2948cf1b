//! Weeks of backups in minutes: the scheduler and the retention are asked by a clock of the test's own, all they
//! ask for is done on a real server under load, and what is restored at random is compared with what was
//! committed.
//!
//! `EVERPOINT_SOAK_DAYS` says how many simulated days; `make soak` runs four weeks.

#![expect(clippy::unwrap_used, reason = "a test ends where a value is missing")]

mod clock;
mod restoring;
mod taking;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use everpoint_repository::backup::BackupKind;
use everpoint_testkit::{Cluster, RunningWorkload, Server, Workload};
use jiff::{SignedDuration, Timestamp};

use crate::{clock::Clock, restoring::Restoring, taking::Taking};

/// A simulated step. Each lasts as long as its work does.
const STEP: SignedDuration = SignedDuration::from_hours(6);
/// What every database keeps.
const RETENTION: SignedDuration = SignedDuration::from_hours(7 * 24);
/// Full backups are a week apart, so an object may be kept so much longer than somebody wants it.
const CYCLE: SignedDuration = SignedDuration::from_hours(7 * 24);
const DATABASES: [&str; 2] = ["shop", "office"];

fn days() -> u32 {
    let asked = std::env::var("EVERPOINT_SOAK_DAYS").ok();
    asked.and_then(|text| text.parse().ok()).unwrap_or(9)
}

#[test]
fn weeks_of_scheduled_backups_keep_every_point_of_the_retention_and_little_more() -> Result<()> {
    everpoint_testkit::run(async {
        let cluster = Cluster::builder(Server::find(18)?.major()).start().await?;
        let mut loads = Vec::new();
        for database in DATABASES {
            cluster
                .sql("postgres", &format!("CREATE DATABASE {database}"))
                .await?;
            let load = Workload::new(database)
                .writers(2)
                .pause(Duration::from_millis(15));
            loads.push(load.start(&cluster).await?);
        }
        let taking = Taking::begin(&cluster).await?;
        let restoring = Restoring::new(&cluster).await?;
        let mut clock = Clock::new("2026-03-04T05:06:07Z".parse()?);
        let steps = i64::from(days()) * 24 / STEP.as_hours();
        let (mut fulls, mut differentials, mut restores) = (0, 0, 0);
        for step in 0..steps {
            for load in &loads {
                load.wait_for_commits(5).await?;
            }
            let now = clock.step(STEP);
            match taking.take_what_is_due(&clock, now).await? {
                Some(BackupKind::Full) => fulls += 1,
                Some(BackupKind::Differential { .. }) => differentials += 1,
                None => {}
            }
            println!("{now}: {fulls} full, {differentials} differential");
            let window_start = clock.real(now - RETENTION);
            taking.expire(window_start).await?;
            check_window(&taking, &clock, now).await?;
            if step % 5 == 4 {
                restore_somewhere(&cluster, &taking, &restoring, &loads, window_start).await?;
                restores += 1;
            }
        }
        // A drop is undone at the end, as anybody's would be.
        let load = loads.pop().context("two loads")?;
        let ledger = load.stop().await?;
        cluster
            .sql("postgres", "DROP DATABASE office WITH (FORCE)")
            .await?;
        taking.wait_for_log(Timestamp::now()).await?;
        restoring
            .undo_drop(taking.repository(), "office", &ledger)
            .await?;

        let weeks = i64::from(days()) / 7;
        ensure!(
            (weeks..=weeks + 2).contains(&fulls),
            "{fulls} full backups in {weeks} weeks"
        );
        let halves = i64::from(days()) * 2;
        let least = halves - fulls * 2 - 2;
        ensure!(
            (least..=halves).contains(&differentials),
            "{differentials} differentials of {halves}"
        );
        println!(
            "{fulls} full, {differentials} differential, {restores} restores in {} days",
            days()
        );
        taking.end().await
    })
}

/// Every point of the retention can be restored, once there is one that old; and what is kept is not older than
/// the retention and one cycle.
async fn check_window(taking: &Taking, clock: &Clock, now: Timestamp) -> Result<()> {
    let window = taking.window().await?;
    let range = match &window.ranges[..] {
        [] => return Ok(()),
        [range] => range,
        more => anyhow::bail!("a gap at {now}: {more:?}"),
    };
    let first = clock.simulated(taking.first_backup().await?);
    let wanted = (now - RETENTION).max(first);
    let earliest = clock.simulated(range.earliest);
    ensure!(
        earliest <= wanted + STEP,
        "{now}: earliest {earliest}, wanted {wanted}"
    );
    for backup in taking.backups().await? {
        let taken = clock.simulated(backup.started_at);
        // A differential's rhythm and a step may lie between.
        let slack = STEP * 3;
        ensure!(
            taken >= now - RETENTION - CYCLE - slack,
            "{now}: {} of {taken} is still kept",
            backup.id
        );
    }
    Ok(())
}

/// One of the databases, as of a random moment of its window.
async fn restore_somewhere(
    cluster: &Cluster,
    taking: &Taking,
    restoring: &Restoring,
    loads: &[RunningWorkload],
    window_start: Timestamp,
) -> Result<()> {
    let now = Timestamp::now();
    taking.wait_for_log(now).await?;
    let window = taking.window().await?;
    let range = window.ranges.first().context("nothing can be restored")?;
    let (from, to) = (range.earliest.max(window_start), now);
    let length = u64::try_from(to.duration_since(from).as_micros()).unwrap_or(1);
    let random = everpoint_repository::ObjectId::random();
    let number = u64::from_le_bytes(*random.as_bytes().first_chunk::<8>().unwrap());
    let place = i64::try_from(number % length.max(1))?;
    let time = from + SignedDuration::from_micros(place);
    let which = usize::from(number % 7 < 3);
    let (database, load) = (DATABASES[which], &loads[which]);
    restoring
        .check(taking.repository(), database, time, &load.ledger())
        .await
        .with_context(|| format!("`{database}` as of {time}, window {from} to {to}"))?;
    // The living ones were not disturbed.
    load.wait_for_commits(1).await?;
    ensure!(cluster.value("postgres", "SELECT 1").await? == "1");
    Ok(())
}
