//! Points in time, while a workload runs that knows what it committed.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use everpoint_pgformat::Lsn;
use everpoint_repository::ObjectId;
use everpoint_testkit::{
    Cluster, Moment, Target, Workload, compare::check_integrity, on_every_version,
};
use jiff::{SignedDuration, Timestamp};

use crate::everpoint::{Everpoint, NAME, REFUSED, nudge};

/// Sessions that commit at the same time.
const WRITERS: u32 = 8;

/// Random instants that a test restores to.
const INSTANTS: usize = 3;
/// The end of a transaction, as the server's log has it.
struct End {
    transaction: String,
    time: Timestamp,
}

/// The ends of transactions in the log's order, as `pg_waldump` shows them.
async fn ends(cluster: &Cluster, from: Lsn) -> Result<Vec<End>> {
    let mut command = cluster.server().command("pg_waldump")?;
    command
        .arg("-p")
        .arg(cluster.data_directory().join("pg_wal"));
    command.args(["-r", "Transaction", "-s", &from.to_string()]);
    // It ends with a complaint about the end of the log.
    let output = command.output().await?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let end = |line: &str| {
        let transaction = line.split_once("tx:")?.1.split(',').next()?.trim();
        let description = line.split_once("desc: ")?.1;
        let rest = ["COMMIT ", "ABORT "]
            .iter()
            .find_map(|kind| description.strip_prefix(kind))?;
        let time = rest.split_once(" UTC")?.0.replacen(' ', "T", 1);
        Some(End {
            transaction: transaction.to_owned(),
            time: format!("{time}Z").parse().ok()?,
        })
    };
    Ok(text.lines().filter_map(end).collect())
}

/// The rows of the workload, and the transactions that wrote them.
async fn rows(cluster: &Cluster) -> Result<BTreeMap<String, String>> {
    let rows = cluster
        .rows("postgres", "SELECT id, xmin FROM workload.entry")
        .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row[0].clone(), row[1].clone()))
        .collect())
}

/// That a restored cluster has the rows of exactly those transactions that committed before the first one, in the log's
/// order, that ended later than `time`.
async fn check_exactly(
    restored: &Cluster,
    all: &BTreeMap<String, String>,
    ends: &[End],
    time: Timestamp,
) -> Result<()> {
    let outside = ends.iter().skip_while(|end| end.time <= time);
    let outside: BTreeSet<&str> = outside.map(|end| &*end.transaction).collect();
    let inside = all
        .iter()
        .filter(|(_, transaction)| !outside.contains(&***transaction));
    let expected: BTreeSet<&String> = inside.map(|(row, _)| row).collect();
    let found = rows(restored).await?;
    let found: BTreeSet<&String> = found.keys().collect();
    let wrong: Vec<_> = expected.symmetric_difference(&found).collect();
    ensure!(
        wrong.is_empty(),
        "{} of {} rows: {wrong:?}",
        wrong.len(),
        all.len()
    );
    Ok(())
}

on_every_version! {
    async fn exactly_what_was_committed_by_the_target_is_there(server: Server) -> Result<()> {
        let major = server.major();
        let cluster = Cluster::builder(major)
            .setting("max_prepared_transactions = 2")
            .setting("wal_keep_size = 1GB")
            .start()
            .await?;
        let everpoint = Everpoint::with(&cluster).await?;
        let before = cluster.moment().await?;
        let receiver = everpoint.receive()?;
        let running = Workload::new("postgres").writers(WRITERS).start(&cluster).await?;
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
        let running = Workload::new("postgres").writers(WRITERS).resume(&cluster, ledger).await?;
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
        let (all, ends) = (rows(&cluster).await?, ends(&cluster, full.start_lsn).await?);
        let is_row = |end: &&End| all.values().any(|transaction| *transaction == end.transaction);
        let very_last = ends.iter().filter(is_row).map(|end| end.time).max().expect("commits");
        let mut times = vec![
            ("amid the workload", middle.time),
            ("at a random commit", possible[random].time),
            ("when the log was known to be complete", known),
            ("at the very last commit", very_last),
            ("a microsecond before it", very_last.checked_sub(SignedDuration::from_micros(1))?),
            ("after the last commit", quiet.time),
        ];
        // Instants that are no commit's own, anywhere between backup and last commit.
        let span = full.restorable_from.duration_until(very_last).as_micros();
        for _ in 0..INSTANTS {
            let random: [u8; 8] = *ObjectId::random().as_bytes().first_chunk().expect("16 bytes");
            let part = i128::from(u64::from_le_bytes(random)) % span;
            let part = SignedDuration::from_micros(i64::try_from(part)?);
            times.push(("at a random instant", full.restorable_from.checked_add(part)?));
        }
        for (what, time) in times {
            let restored = everpoint.restore(major, &["--at", &time.to_string()]).await?;
            let client = restored.connect("postgres").await?;
            let checked = ledger.check(&client, Target::Time(time)).await;
            checked.unwrap_or_else(|error| panic!("{what}, {time}: {error:#}"));
            check_exactly(&restored, &all, &ends, time)
                .await
                .with_context(|| format!("{what}, {time}"))?;
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
