use anyhow::Result;
use everpoint_instance::{
    BackupMode, BackupModeError, CheckpointMode, connect_sql,
    facts::ServerRole,
    notifications::{Notifications, notify},
    wal_control,
};
use everpoint_testkit::{Cluster, on_every_version};

use crate::spec::spec;

on_every_version! {
    async fn backup_of_a_primary_gives_its_label_and_tablespaces(server: Server) -> Result<()> {
        let cluster = Cluster::builder(server.major()).tablespace("apart").start().await?;
        let spec = spec(&cluster)?;
        let client = connect_sql(&spec, "postgres").await?;
        let backup = BackupMode::start(client, "nightly", CheckpointMode::Fast).await?;
        let start = backup.start_point();
        assert_eq!(start.role, ServerRole::Primary);
        backup.check().await?;
        let stop = backup.stop().await?;
        assert_eq!(stop.label.start, start.lsn);
        assert_eq!(stop.label.timeline, start.timeline);
        assert!(stop.stop_lsn > start.lsn);
        assert!(stop.label_text.contains("LABEL: nightly"));
        assert_eq!(stop.tablespaces.len(), 1);
        Ok(())
    }

    async fn promotion_of_a_standby_spoils_its_backup(server: Server) -> Result<()> {
        let cluster = Cluster::builder(server.major()).start().await?;
        let standby = cluster.make_standby().await?;
        let spec = spec(&standby)?;
        let backup = BackupMode::start(
            connect_sql(&spec, "postgres").await?,
            "first",
            CheckpointMode::Fast,
        )
        .await?;
        let start = backup.start_point();
        assert_eq!(start.role, ServerRole::Standby);
        let stop = backup.stop().await?;
        assert_eq!((stop.label.start, stop.label.timeline), (start.lsn, start.timeline));
        let backup = BackupMode::start(
            connect_sql(&spec, "postgres").await?,
            "second",
            CheckpointMode::Fast,
        )
        .await?;
        standby.promote().await?;
        assert!(matches!(backup.check().await, Err(BackupModeError::Promoted(_))));
        assert!(matches!(backup.stop().await, Err(BackupModeError::Promoted(_))));
        Ok(())
    }

    async fn dropped_start_leaves_no_statement_behind(server: Server) -> Result<()> {
        let cluster = Cluster::builder(server.major())
            .setting("checkpoint_timeout = 1h")
            .setting("checkpoint_completion_target = 0.9")
            .start()
            .await?;
        // Enough dirty pages that a spread checkpoint takes long.
        cluster.sql("postgres", "CREATE TABLE t AS SELECT generate_series(1, 300000)").await?;
        let client = connect_sql(&spec(&cluster)?, "postgres").await?;
        let start = BackupMode::start(client, "spread", CheckpointMode::Spread);
        let started = tokio::time::timeout(std::time::Duration::from_millis(500), start).await;
        assert!(started.is_err());
        let query = "SELECT count(*) = 0 FROM pg_stat_activity \
            WHERE application_name = 'everpoint' AND backend_type = 'client backend'";
        cluster.wait_until_true(query, "end the cancelled statement").await
    }

    async fn receiver_is_called_and_wal_positions_advance(server: Server) -> Result<()> {
        let cluster = Cluster::builder(server.major()).start().await?;
        let spec = spec(&cluster)?;
        let mut notifications = Notifications::listen(&spec).await?;
        let client = connect_sql(&spec, spec.database()).await?;
        notify(&client, "cut").await?;
        assert_eq!(notifications.next().await?.payload, "cut");
        let before = wal_control::current_wal_insert_lsn(&client).await?;
        let point = wal_control::create_restore_point(&client, "before the change").await?;
        assert!(point > before);
        let switched = wal_control::switch_wal(&client).await?;
        assert!(switched >= point);
        assert!(wal_control::current_wal_flush_lsn(&client).await? >= switched);
        assert_eq!(wal_control::last_replayed_lsn(&client).await?, None);
        Ok(())
    }
}
