//! Points in time, while a workload runs that knows what it committed.

use anyhow::Result;
use everpoint_testkit::{Cluster, Moment, Target, Workload, compare::check_integrity};
use jiff::{SignedDuration, Timestamp};

use crate::{
    everpoint::{Everpoint, NAME, REFUSED, nudge},
    versions::on_oldest_and_newest,
};

on_oldest_and_newest! {
    async fn exactly_what_was_committed_by_the_target_is_there(server: Server) -> Result<()> {
        let major = server.major();
        let cluster = Cluster::builder(major)
            .setting("max_prepared_transactions = 2")
            .start()
            .await?;
        let everpoint = Everpoint::with(&cluster).await?;
        let before = cluster.moment().await?;
        let receiver = everpoint.receive()?;
        let running = Workload::new("postgres").writers(8).start(&cluster).await?;
        running.wait_for_commits(50).await?;
        let full = everpoint.full().await?;
        running.wait_for_commits(100).await?;
        let middle = cluster.moment().await?;
        running.wait_for_commits(50).await?;
        let point = "SELECT pg_create_restore_point('before the upgrade')";
        // No commit may lie between the restore point and the moment that stands for it.
        let ledger = running.stop().await?;
        cluster.sql("postgres", point).await?;
        let at_point = cluster.moment().await?;
        let running = Workload::new("postgres").writers(8).resume(&cluster, ledger).await?;
        running.wait_for_commits(50).await?;
        everpoint.wait_until_stored(at_point).await?;
        let known = everpoint.latest().await?;
        everpoint.differential().await?;
        running.wait_for_commits(50).await?;
        let ledger = running.stop().await?;
        let prepare = "BEGIN; CREATE TABLE promised (); PREPARE TRANSACTION 'promise'";
        cluster.sql("postgres", prepare).await?;
        let quiet = nudge(&cluster).await?;
        everpoint.wait_until_stored(quiet).await?;
        receiver.stop().await?;

        let commits = ledger.commit_moments();
        let after_full = |moment: &&Moment| moment.time > full.restorable_from;
        let possible: Vec<&Moment> = commits.iter().filter(after_full).collect();
        let random = usize::try_from(Timestamp::now().subsec_nanosecond())? % possible.len();
        let last = commits.last().expect("commits").time;
        // An instant that is no commit's own, anywhere between backup and last commit.
        let span = full.restorable_from.duration_until(last).as_micros();
        let part = i128::from(Timestamp::now().subsec_nanosecond() / 1000) * span / 1_000_000;
        let instant = full
            .restorable_from
            .checked_add(SignedDuration::from_micros(i64::try_from(part)?))?;
        let times = [
            ("amid the workload", middle.time),
            ("at a random commit", possible[random].time),
            ("at a random instant", instant),
            ("when the log was known to be complete", known),
            ("at the very last commit", last),
            ("after the last commit", quiet.time),
        ];
        for (what, time) in times {
            let restored = everpoint.restore(major, &["--at", &time.to_string()]).await?;
            let client = restored.connect("postgres").await?;
            let checked = ledger.check(&client, Target::Time(time)).await;
            checked.unwrap_or_else(|error| panic!("{what}, {time}: {error:#}"));
            let prepared = "SELECT count(*) FROM pg_prepared_xacts";
            let expected = if time == quiet.time { "1" } else { "0" };
            assert_eq!(restored.value("postgres", prepared).await?, expected, "{what}");
        }
        let lsn = everpoint.restore(major, &["--lsn", &middle.lsn.to_string()]).await?;
        ledger.check(&lsn.connect("postgres").await?, Target::Lsn(middle.lsn)).await?;
        let point = everpoint.restore(major, &["--restore-point", "before the upgrade"]).await?;
        ledger.check(&point.connect("postgres").await?, Target::Lsn(at_point.lsn)).await?;
        let latest = everpoint.restore(major, &["--latest"]).await?;
        ledger.check(&latest.connect("postgres").await?, Target::Latest).await?;
        latest.sql("postgres", "COMMIT PREPARED 'promise'").await?;
        check_integrity(&latest).await?;

        let far = last.checked_add(SignedDuration::from_hours(1))?.to_string();
        let refusal = everpoint.refused_restore(&["--at", &far]).await?;
        let until = everpoint.latest().await?.to_string();
        assert!(refusal.contains("later than what is stored"), "{refusal}");
        assert!(refusal.contains(&until), "{until} is not in: {refusal}");
        let refusal = everpoint.refused_restore(&["--lsn", "FF/0"]).await?;
        assert!(refusal.contains("later than what is stored"), "{refusal}");
        let refusals = [
            everpoint.refused_restore(&["--at", &before.time.to_string()]).await?,
            everpoint.refused_restore(&["--lsn", &before.lsn.to_string()]).await?,
        ];
        for refusal in refusals {
            let earliest = full.restorable_from.to_string();
            assert!(refusal.contains("before the earliest point"), "{refusal}");
            assert!(refusal.contains(&earliest), "{earliest} is not in: {refusal}");
        }
        let refusal = everpoint.refused_restore(&["--restore-point", "of no one"]).await?;
        assert!(refusal.contains("`of no one`"), "{refusal}");
        assert!(refusal.contains("before the upgrade"), "names those there are: {refusal}");
        Ok(())
    }
}

#[tokio::test]
async fn times_without_a_zone_and_contradictory_targets_are_wrong_usage() -> Result<()> {
    let everpoint = Everpoint::new().await?;
    let place = everpoint_testkit::Scratch::new()?;
    let to = place.path().join("data");
    for (target, complaint) in [
        (
            ["--at", "2026-11-22 21:30:00", "", ""],
            "it has no time zone",
        ),
        (["--at", "tomorrow", "", ""], "write it with its zone"),
        (["--latest", "--lsn", "0/1", ""], "cannot be used with"),
        (["--timeline", "0", "", ""], "0 is not in"),
        (["--tablespace", "/somewhere", "", ""], "OLD=NEW"),
    ] {
        let target: Vec<&str> = target.into_iter().filter(|word| !word.is_empty()).collect();
        let ended = everpoint.try_restore(&to, &target).await?;
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.err.contains(complaint), "{ended:?}");
        assert!(!to.exists());
    }
    // Correct, but there is no such instance.
    let ended = everpoint.try_restore(&to, &[]).await?;
    assert_eq!(ended.code, Some(REFUSED), "{ended:?}");
    assert!(ended.err.contains(NAME), "{ended:?}");
    Ok(())
}
