//! Clusters whose history forks: a standby is promoted, or a restored copy goes on.

use std::fs;

use anyhow::Result;
use everpoint_testkit::{
    Cluster, StopMode, Target, Workload,
    compare::{assert_same, check_integrity, fingerprint},
};

use crate::{
    everpoint::{Everpoint, NAME, nudge},
    versions::on_oldest_and_newest,
};

on_oldest_and_newest! {
    async fn promoted_standby_is_followed_and_restored_to_both_sides_of_the_switch(
        server: Server
    ) -> Result<()> {
        let major = server.major();
        let mut primary = Cluster::builder(major).start().await?;
        let everpoint = Everpoint::with(&primary).await?;
        let standby = primary.make_standby().await?;
        let receiver = everpoint.receive()?;
        let running = Workload::new("postgres").start(&primary).await?;
        running.wait_for_commits(30).await?;
        everpoint.full().await?;
        running.wait_for_commits(60).await?;
        let before = primary.moment().await?;
        running.wait_for_commits(30).await?;
        let ledger = running.stop().await?;
        let switch = nudge(&primary).await?;
        everpoint.wait_until_stored(switch).await?;
        receiver.stop().await?;
        standby.wait_for_replay(primary.current_lsn().await?).await?;
        primary.stop(StopMode::Immediate).await?;
        standby.promote().await?;

        everpoint.add(&standby).await?;
        let receiver = everpoint.receive()?;
        let running = Workload::new("postgres").resume(&standby, ledger).await?;
        running.wait_for_commits(60).await?;
        let after = standby.moment().await?;
        running.wait_for_commits(30).await?;
        everpoint.wait_until_stored(after).await?;
        // Over the switch, what changed is told by summaries of both timelines.
        let checked = everpoint.run(&["backup", NAME, "--type", "differential", "--check-changes"]).await?;
        assert_eq!(checked.code, Some(0), "{checked:?}");
        for amiss in ["warning", "taking a full backup"] {
            assert!(!checked.err.contains(amiss), "{checked:?}");
        }
        let differential = everpoint.differential().await?;
        running.wait_for_commits(30).await?;
        let late = standby.moment().await?;
        let ledger = running.stop().await?;
        let end = nudge(&standby).await?;
        everpoint.wait_until_stored(end).await?;
        receiver.stop().await?;
        let summarised = everpoint.json(&["wal", "summarize", NAME]).await?;
        assert_eq!((&summarised["made"], &summarised["deleted"]), (&0.into(), &0.into()), "{summarised}");
        for timeline in ["00000001", "00000002"] {
            let folder = everpoint.objects(&format!("instances/{NAME}/summaries/{timeline}"));
            assert!(fs::read_dir(folder)?.count() > 0, "{timeline}");
        }

        assert!(after.time < differential.restorable_from && differential.restorable_from < late.time);
        for moment in [before, switch, after, late] {
            let restored = everpoint.restore(major, &["--at", &moment.time.to_string()]).await?;
            let client = restored.connect("postgres").await?;
            let checked = ledger.check(&client, Target::Time(moment.time)).await;
            checked.unwrap_or_else(|error| panic!("{moment}: {error:#}"));
        }
        let lsn = everpoint.restore(major, &["--lsn", &after.lsn.to_string()]).await?;
        ledger.check(&lsn.connect("postgres").await?, Target::Lsn(after.lsn)).await?;
        let first = ["--timeline", "1", "--at", &before.time.to_string()];
        let restored = everpoint.restore(major, &first).await?;
        let client = restored.connect("postgres").await?;
        ledger.check(&client, Target::Time(before.time)).await?;
        let latest = everpoint.restore(major, &[]).await?;
        assert_same(&fingerprint(&standby).await?, &fingerprint(&latest).await?);
        check_integrity(&latest).await?;

        let refusal = everpoint.refused_restore(&["--timeline", "9"]).await?;
        assert!(refusal.contains("1, 2"), "names those there are: {refusal}");
        let abandoned = ["--timeline", "1", "--at", &late.time.to_string()];
        let refusal = everpoint.refused_restore(&abandoned).await?;
        assert!(refusal.contains("later than what is stored"), "{refusal}");
        Ok(())
    }

    async fn restored_copy_that_takes_its_origins_place_is_backed_up_on_its_own_timeline(
        server: Server
    ) -> Result<()> {
        let major = server.major();
        let mut origin = Cluster::builder(major).start().await?;
        let everpoint = Everpoint::with(&origin).await?;
        let table = "CREATE TABLE content AS SELECT i AS id, 'kept' AS note FROM generate_series(1, 5000) i";
        origin.sql("postgres", table).await?;
        everpoint.full().await?;
        origin.sql("postgres", "UPDATE content SET note = 'kept, too' WHERE id % 3 = 0").await?;
        let fork = nudge(&origin).await?;
        let at_fork = fingerprint(&origin).await?;
        origin.sql("postgres", "UPDATE content SET note = 'regretted'").await?;
        everpoint.differential().await?;
        let regretted = fingerprint(&origin).await?;
        let end = nudge(&origin).await?;
        let receiver = everpoint.receive()?;
        everpoint.wait_until_stored(end).await?;
        receiver.stop().await?;
        origin.stop(StopMode::Fast).await?;

        let copy = everpoint.restore(major, &["--at", &fork.time.to_string()]).await?;
        assert_same(&at_fork, &fingerprint(&copy).await?);
        everpoint.add(&copy).await?;
        copy.sql("postgres", "INSERT INTO content SELECT i, 'new life' FROM generate_series(1, 500) i").await?;
        copy.sql("postgres", "UPDATE content SET note = note || '!' WHERE id % 5 = 0").await?;
        // Upon the full backup, which both histories share, not the differential of the other.
        let differential = everpoint.differential().await?;
        let expected = fingerprint(&copy).await?;
        let again = everpoint.restore(major, &[]).await?;
        assert_same(&expected, &fingerprint(&again).await?);
        check_integrity(&again).await?;
        let stop = differential.stop_lsn.to_string();
        let again = everpoint.restore(major, &["--lsn", &stop]).await?;
        assert_same(&expected, &fingerprint(&again).await?);
        let old = everpoint.restore(major, &["--timeline", "1"]).await?;
        assert_same(&regretted, &fingerprint(&old).await?);
        let old = everpoint.restore(major, &["--at", &fork.time.to_string()]).await?;
        assert_same(&at_fork, &fingerprint(&old).await?);
        check_integrity(&old).await
    }
}
