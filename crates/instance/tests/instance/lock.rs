use anyhow::Result;
use everpoint_instance::{InstanceLock, LockError, LockKind, connect_sql};
use everpoint_testkit::{Cluster, on_every_version};

use crate::spec::spec;

on_every_version! {
    async fn lock_excludes_others_whatever_their_database(server: Server) -> Result<()> {
        let cluster = Cluster::builder(server.major()).start().await?;
        cluster.sql("postgres", "CREATE DATABASE other").await?;
        let spec = spec(&cluster)?;
        let first = spec.with_application_name("first");
        let lock = InstanceLock::try_acquire(
            connect_sql(&first, "postgres").await?,
            LockKind::Receiver,
            "main",
        )
        .await?;
        lock.check().await?;
        for database in ["postgres", "other"] {
            let client = connect_sql(&spec, database).await?;
            let Err(LockError::Held { holder, .. }) =
                InstanceLock::try_acquire(client, LockKind::Receiver, "main").await
            else {
                panic!("two receivers");
            };
            assert_eq!(holder.application.as_deref(), Some("first"));
            assert_eq!(holder.database.as_deref(), Some("postgres"));
        }
        for (kind, instance) in [(LockKind::Writer, "main"), (LockKind::Receiver, "second")] {
            let client = connect_sql(&spec, "other").await?;
            InstanceLock::try_acquire(client, kind, instance).await?;
        }
        let client = lock.release().await?;
        let lock = InstanceLock::try_acquire(client, LockKind::Receiver, "main").await?;
        cluster
            .sql("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'first'")
            .await?;
        assert!(lock.check().await.is_err());
        let client = connect_sql(&spec, "other").await?;
        InstanceLock::try_acquire(client, LockKind::Receiver, "main").await?;
        Ok(())
    }
}
