//! A workload's ledger agrees with the servers it wrote to, and with no other state.

use anyhow::{Context, Result};
use everpoint_testkit::{
    Cluster, Scratch, StopMode, Target, Workload, on_every_version, workload::Outcome,
};

on_every_version! {
    async fn ledger_agrees_with_the_database_it_describes(server: Server) -> Result<()> {
        let cluster = Cluster::builder(server.major()).start().await?;
        let running = Workload::new("postgres").start(&cluster).await?;
        running.wait_for_commits(200).await?;
        let ledger = running.stop().await?;
        let client = cluster.connect("postgres").await?;
        let checked = ledger.check(&client, Target::Latest).await?;
        assert!(checked.present >= 200);
        assert!(checked.absent > 0, "some transactions are rolled back");
        assert_eq!(checked.either, 0);
        Ok(())
    }

    async fn ledger_notices_missing_surplus_and_torn_rows(server: Server) -> Result<()> {
        let cluster = Cluster::builder(server.major()).start().await?;
        let running = Workload::new("postgres").start(&cluster).await?;
        running.wait_for_commits(60).await?;
        let ledger = running.stop().await?;
        let client = cluster.connect("postgres").await?;
        let damages = [
            ("DELETE FROM workload.line WHERE entry = 5; DELETE FROM workload.entry WHERE id = 5", "row 5 is missing"),
            ("INSERT INTO workload.entry VALUES (77777777777, 1, 1, '')", "not in the ledger"),
            ("UPDATE workload.account SET balance = balance + 1 WHERE id = 3", "1 accounts"),
            ("UPDATE workload.entry SET note = 'x' WHERE id = 6", "1 entries with another note"),
            ("DELETE FROM workload.line WHERE entry = 6 AND number = 2", "1 entries without"),
        ];
        for (damage, complaint) in damages {
            client.batch_execute(&format!("BEGIN; {damage}")).await?;
            let error = ledger.check(&client, Target::Latest).await.expect_err(damage);
            assert!(format!("{error:#}").contains(complaint), "{error:#}");
            client.batch_execute("ROLLBACK").await?;
        }
        ledger.check(&client, Target::Latest).await?;
        Ok(())
    }

    async fn acknowledged_commits_survive_a_crash_under_load(server: Server) -> Result<()> {
        let mut cluster = Cluster::builder(server.major()).start().await?;
        let running = Workload::new("postgres").writers(4).start(&cluster).await?;
        running.wait_for_commits(100).await?;
        cluster.stop(StopMode::Immediate).await?;
        let ledger = running.stop().await?;
        cluster.start().await?;
        let client = cluster.connect("postgres").await?;
        assert!(ledger.check(&client, Target::Latest).await?.present >= 100);
        let resumed = Workload::new("postgres").resume(&cluster, ledger).await?;
        resumed.wait_for_commits(50).await?;
        let ledger = resumed.stop().await?;
        assert!(ledger.check(&client, Target::Latest).await?.present >= 150);
        Ok(())
    }

    async fn recovery_to_a_time_or_an_lsn_is_a_state_the_ledger_allows(server: Server) -> Result<()> {
        let archive = Scratch::new()?;
        let path = archive.path().display().to_string();
        let cluster = Cluster::builder(server.major())
            .setting("archive_mode = on")
            .setting(&format!("archive_command = 'cp %p {path}/%f'"))
            .start()
            .await?;
        let running = Workload::new("postgres").start(&cluster).await?;
        let places = [Scratch::new()?, Scratch::new()?];
        let copies = places.each_ref().map(|place| place.path().join("copy"));
        for copy in &copies {
            let arguments = [
                format!("--pgdata={}", copy.display()),
                format!("--dbname={}", cluster.connection_string("postgres")),
                "--checkpoint=fast".to_owned(),
            ];
            server.run("pg_basebackup", arguments).await?;
        }
        running.wait_for_commits(100).await?;
        let middle = cluster.moment().await?;
        running.wait_for_commits(100).await?;
        let ledger = running.stop().await?;
        let end = cluster.switch_wal().await?;
        let archived = format!(
            "SELECT last_archived_wal >= pg_walfile_name('{end}') FROM pg_stat_archiver"
        );
        cluster.wait_until_true(&archived, "archive its WAL").await?;

        let settings = [
            (Target::Time(middle.time), format!("recovery_target_time = '{}'", middle.setting())),
            (Target::Lsn(middle.lsn), format!("recovery_target_lsn = '{}'", middle.lsn)),
        ];
        for (copy, (target, setting)) in copies.iter().zip(settings) {
            let mut restored = Cluster::adopt_stopped(copy, server.major())?;
            restored.configure(&setting)?;
            restored.configure(&format!("restore_command = 'cp {path}/%f %p'"))?;
            restored.configure("recovery_target_action = promote")?;
            restored.configure("archive_mode = off")?;
            std::fs::write(copy.join("recovery.signal"), "")?;
            restored.start().await?;
            restored.wait_until_promoted().await?;
            let client = restored.connect("postgres").await?;
            let checked = ledger.check(&client, target).await?;
            assert!(checked.present >= 100 && checked.absent >= 100, "{checked:?}");
            let error = ledger.check(&client, Target::Latest).await;
            error.expect_err("the restored state is an earlier one");
        }
        Ok(())
    }
}

#[tokio::test]
async fn moments_of_a_commit_enclose_it() -> Result<()> {
    let cluster = Cluster::builder(18)
        .setting("track_commit_timestamp = on")
        .start()
        .await?;
    let running = Workload::new("postgres").start(&cluster).await?;
    running.wait_for_commits(50).await?;
    let ledger = running.stop().await?;
    let query = "SELECT id, (extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1000000)::bigint
                 FROM workload.entry";
    let rows = cluster.rows("postgres", query).await?;
    assert_eq!(rows.len(), ledger.committed());
    for row in rows {
        let time: i64 = row[1].parse()?;
        let transaction = ledger
            .transactions()
            .iter()
            .find(|(id, _)| id.to_string() == row[0])
            .context("a row of the ledger")?
            .1;
        let Outcome::Committed(after) = transaction.outcome else {
            panic!("visible, so committed");
        };
        assert!(transaction.before.time.as_microsecond() <= time);
        assert!(time <= after.time.as_microsecond());
    }
    Ok(())
}
