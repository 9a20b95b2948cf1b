use std::{fs, process::Command};

use anyhow::Result;
use everpoint_instance::{
    BackupMode, CheckReport, CheckpointMode, InstanceLock, LockKind, ReplicationClient,
    ServerFacts, WalMode, check,
    check::{CheckName, Outcome},
    connect_sql, grant_script,
    notifications::{Notifications, notify},
    replication::{SlotLifetime, SlotName, StreamStart},
    wal_control,
};
use everpoint_testkit::{Cluster, Scratch, on_every_version};

use crate::spec::spec;

fn slot() -> SlotName {
    "everpoint".parse().unwrap()
}

fn failed(report: &CheckReport) -> Vec<CheckName> {
    report.failed().map(|check| check.name).collect()
}

fn mend(report: &CheckReport, name: CheckName) -> &str {
    match report.outcome(name) {
        Some(Outcome::Failed { mend, .. } | Outcome::Warning { mend, .. }) => mend,
        other => panic!("{name}: {other:?}"),
    }
}

on_every_version! {
    async fn least_privilege_role_lacks_nothing(server: Server) -> Result<()> {
        let cluster = Cluster::builder(server.major()).tablespace("apart").start().await?;
        let script = grant_script("back\"up $everpoint$ '\\", "postgres");
        cluster.sql("postgres", &script).await?;
        cluster.sql("postgres", &script).await?;
        // Even where nobody may do by default what everybody may.
        cluster
            .sql(
                "postgres",
                "REVOKE CONNECT ON DATABASE postgres FROM PUBLIC; \
                 REVOKE EXECUTE ON FUNCTION pg_control_system(), pg_control_checkpoint(), \
                    pg_control_recovery(), pg_notify(text, text) FROM PUBLIC",
            )
            .await?;
        let spec = spec(&cluster)?.with_user("back\"up $everpoint$ '\\");
        let mode = WalMode::Slot(slot());
        let report = check(&spec, Some(cluster.data_directory()), &mode).await;
        assert!(report.is_ok(), "{report}");
        assert_eq!(report.checks().len(), 17, "{report}");

        let client = connect_sql(&spec, spec.database()).await?;
        ServerFacts::read(&client).await?;
        wal_control::create_restore_point(&client, "p").await?;
        wal_control::switch_wal(&client).await?;
        let mut notifications = Notifications::listen(&spec).await?;
        notify(&client, "cut").await?;
        notifications.next().await?;
        let lock = InstanceLock::try_acquire(client, LockKind::Writer, "main").await?;
        let client = connect_sql(&spec, spec.database()).await?;
        BackupMode::start(client, "b", CheckpointMode::Fast).await?.stop().await?;
        let mut replication = ReplicationClient::connect(&spec).await?;
        let position = replication.create_slot(&slot(), SlotLifetime::Persistent).await?;
        let start = StreamStart {
            slot: Some(slot()),
            from: position.restart_lsn.unwrap(),
            timeline: position.timeline.unwrap(),
        };
        let mut stream = replication.start(&start).await?;
        stream.next().await?;
        let report = check(&spec, Some(cluster.data_directory()), &mode).await;
        assert!(report.is_ok(), "{report}");
        lock.check().await?;
        Ok(())
    }

    async fn missing_rights_are_named_with_the_sql_that_grants_them(server: Server) -> Result<()> {
        let cluster = Cluster::builder(server.major()).start().await?;
        cluster.sql("postgres", "CREATE ROLE poor LOGIN").await?;
        let spec = spec(&cluster)?.with_user("poor");
        let report = check(&spec, None, &WalMode::NoSlot).await;
        assert_eq!(failed(&report), [CheckName::Facts]);
        let grant = mend(&report, CheckName::Facts);
        let (_, grant) = grant.split_once("GRANT").unwrap();
        cluster.sql("postgres", &format!("GRANT {grant}")).await?;
        let report = check(&spec, None, &WalMode::NoSlot).await;
        assert_eq!(failed(&report), [CheckName::Replication, CheckName::BackupFunctions]);
        for name in failed(&report) {
            let (_, sql) = mend(&report, name).split_once(": ").unwrap();
            cluster.sql("postgres", sql).await?;
        }
        let report = check(&spec, None, &WalMode::NoSlot).await;
        assert!(report.is_ok(), "{report}");
        Ok(())
    }

    async fn settings_that_forbid_backups_are_found(server: Server) -> Result<()> {
        let cluster = Cluster::builder(server.major())
            .setting("wal_level = minimal")
            .setting("max_wal_senders = 0")
            .setting("max_replication_slots = 0")
            .without_data_checksums()
            .start()
            .await?;
        let report = check(&spec(&cluster)?, None, &WalMode::Slot(slot())).await;
        assert_eq!(
            failed(&report),
            [
                CheckName::Replication,
                CheckName::WalLevel,
                CheckName::ReplicationSlot,
                CheckName::WalSenders,
            ],
            "{report}"
        );
        assert!(mend(&report, CheckName::WalLevel).contains("ALTER SYSTEM SET wal_level"));
        assert!(mend(&report, CheckName::Checksums).contains("pg_checksums --enable"));
        assert!(mend(&report, CheckName::SlotLimit).contains("max_slot_wal_keep_size"));
        Ok(())
    }

    async fn data_directory_of_another_server_is_found_out(server: Server) -> Result<()> {
        let cluster = Cluster::builder(server.major()).on_loopback().start().await?;
        let spec = spec(&cluster)?;
        let other = Cluster::builder(server.major()).start().await?;
        // These have the same system identifier.
        let standby = cluster.make_standby().await?;
        let scratch = Scratch::new()?;
        let copy = scratch.path().join("copy");
        let status = Command::new("cp").arg("-a").args([cluster.data_directory(), &copy]).status()?;
        assert!(status.success());
        for root in [other.data_directory(), standby.data_directory()] {
            let report = check(&spec, Some(root), &WalMode::NoSlot).await;
            assert_eq!(failed(&report), [CheckName::SameDirectory], "{report}");
        }
        let file = fs::read_to_string(copy.join("postmaster.pid"))?;
        let started = file.lines().nth(2).unwrap().to_owned();
        fs::write(copy.join("postmaster.pid"), file.replace(&started, "1000000000"))?;
        let report = check(&spec, Some(&copy), &WalMode::NoSlot).await;
        assert_eq!(failed(&report), [CheckName::SameDirectory], "{report}");
        fs::remove_file(copy.join("postmaster.pid"))?;
        let report = check(&spec, Some(&copy), &WalMode::NoSlot).await;
        assert_eq!(failed(&report), [CheckName::SameDirectory], "{report}");
        let report = check(&spec, Some(scratch.path()), &WalMode::NoSlot).await;
        assert_eq!(failed(&report), [CheckName::DataDirectory], "{report}");
        Ok(())
    }
}

#[tokio::test]
async fn server_that_is_not_there_is_said_to_be_unreachable() {
    let spec = "host=/nowhere user=x".parse().unwrap();
    let report = check(&spec, None, &WalMode::NoSlot).await;
    assert_eq!(failed(&report), [CheckName::Reachable]);
    assert!(
        report.to_string().contains("/nowhere/.s.PGSQL.5432"),
        "{report}"
    );
}
