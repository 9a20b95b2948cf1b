use anyhow::Result;
use everpoint_instance::{
    ServerFacts, connect_sql,
    facts::{ServerRole, TablespaceLocation, WalLevel},
};
use everpoint_pgformat::{
    TimelineId,
    control::{Checksums, ControlFile},
};
use everpoint_testkit::{Cluster, on_every_version};

use crate::spec::spec;

on_every_version! {
    async fn server_says_what_its_control_file_says(server: Server) -> Result<()> {
        let cluster = Cluster::builder(server.major())
            .tablespace("apart")
            .setting("max_slot_wal_keep_size = 64MB")
            .start()
            .await?;
        cluster.sql("postgres", "CREATE DATABASE sales TABLESPACE apart").await?;
        let client = connect_sql(&spec(&cluster)?, "postgres").await?;
        let facts = ServerFacts::read(&client).await?;
        let control = std::fs::read(cluster.data_directory().join("global/pg_control"))?;
        let control = ControlFile::parse(&control)?;
        assert_eq!(facts.system_identifier, control.system_identifier);
        assert_eq!(facts.major, server.version());
        assert_eq!(facts.segment_size, control.segment_size);
        assert_eq!(facts.checksums, Checksums::On);
        assert_eq!(facts.timeline, TimelineId::FIRST);
        assert_eq!(facts.wal_level, WalLevel::Replica);
        assert_eq!(facts.role, ServerRole::Primary);
        assert_eq!(facts.data_directory, cluster.data_directory().to_string_lossy());
        assert_eq!(facts.max_slot_wal_keep_size_mb, Some(64));
        assert_eq!(facts.connected_as, "postgres");
        let apart = facts.tablespaces.iter().find(|t| t.name == "apart").unwrap();
        let directory = cluster.tablespace_directory("apart");
        assert_eq!(
            apart.location,
            TablespaceLocation::Directory(directory.to_string_lossy().into_owned())
        );
        assert_eq!(facts.database("sales").unwrap().tablespace, apart.oid);
        assert!(!facts.database("template0").unwrap().allows_connections);
        Ok(())
    }

    async fn standby_says_that_it_is_one_and_promotion_shows_as_a_new_timeline(server: Server) -> Result<()> {
        let cluster = Cluster::builder(server.major()).start().await?;
        let standby = cluster.make_standby().await?;
        let client = connect_sql(&spec(&standby)?, "postgres").await?;
        let facts = ServerFacts::read(&client).await?;
        assert_eq!(facts.role, ServerRole::Standby);
        assert_eq!(facts.timeline, TimelineId::FIRST);
        standby.promote().await?;
        let facts = ServerFacts::read(&client).await?;
        assert_eq!(facts.role, ServerRole::Primary);
        assert_eq!(facts.timeline.get(), 2);
        Ok(())
    }
}
