//! Clusters that are set up in other ways than most.

use anyhow::Result;
use everpoint_pgformat::{ByteCount, wal::segment::SegmentSize};
use everpoint_testkit::{
    Cluster, ClusterBuilder, StopMode, Target, Workload, change_mixed_data,
    compare::{assert_same, check_integrity, check_stopped, fingerprint},
    mixed_data,
};

use crate::{
    everpoint::{Everpoint, nudge},
    versions::on_oldest_and_newest,
};

/// A full backup, changes and a differential under a workload, and a restore to a moment and to the end.
async fn go_round(builder: ClusterBuilder) -> Result<()> {
    let cluster = builder.start().await?;
    let everpoint = Everpoint::with(&cluster).await?;
    let client = cluster.connect("postgres").await?;
    mixed_data(&client, ByteCount::new(2 << 20)).await?;
    let running = Workload::new("postgres").start(&cluster).await?;
    let receiver = everpoint.receive()?;
    everpoint.full().await?;
    change_mixed_data(&client).await?;
    running.wait_for_commits(50).await?;
    everpoint.differential().await?;
    running.wait_for_commits(50).await?;
    let middle = cluster.moment().await?;
    running.wait_for_commits(50).await?;
    let ledger = running.stop().await?;
    let end = nudge(&cluster).await?;
    everpoint.wait_until_stored(end).await?;
    receiver.stop().await?;

    let at = middle.time.to_string();
    let restored = everpoint.restore(cluster.major(), &["--at", &at]).await?;
    let there = restored.connect("postgres").await?;
    ledger.check(&there, Target::Time(middle.time)).await?;
    let latest = everpoint.restore(cluster.major(), &[]).await?;
    assert_same(&fingerprint(&cluster).await?, &fingerprint(&latest).await?);
    check_integrity(&latest).await
}

#[tokio::test]
async fn cluster_with_log_segments_of_one_mebibyte_is_restored() -> Result<()> {
    go_round(Cluster::builder(15).wal_segment_size(SegmentSize::try_from(1 << 20)?)).await
}

#[tokio::test]
async fn cluster_with_log_segments_of_64_mebibytes_is_restored() -> Result<()> {
    go_round(Cluster::builder(18).wal_segment_size(SegmentSize::try_from(64 << 20)?)).await
}

#[tokio::test]
async fn cluster_with_logical_log_is_restored() -> Result<()> {
    let builder = Cluster::builder(18).setting("wal_level = logical");
    go_round(builder.setting("track_commit_timestamp = on")).await
}

#[tokio::test]
async fn cluster_with_compressed_page_images_is_restored() -> Result<()> {
    go_round(Cluster::builder(15).setting("wal_compression = pglz")).await
}

on_oldest_and_newest! {
    async fn cluster_without_checksums_is_restored(server: Server) -> Result<()> {
        go_round(Cluster::builder(server.major()).without_data_checksums()).await
    }

    async fn pages_found_all_visible_are_so_after_a_differential_without_checksums(
        server: Server
    ) -> Result<()> {
        let cluster = Cluster::builder(server.major())
            .without_data_checksums()
            .setting("autovacuum = off")
            .start()
            .await?;
        let everpoint = Everpoint::with(&cluster).await?;
        let table = "CREATE TABLE seen (id int PRIMARY KEY, note int) WITH (fillfactor = 50);
                     INSERT INTO seen SELECT i, 0 FROM generate_series(1, 5000) i";
        cluster.sql("postgres", table).await?;
        everpoint.full().await?;
        // Marks pages without log that would raise their LSN.
        cluster.sql("postgres", "VACUUM seen").await?;
        everpoint.differential().await?;

        let restored = everpoint.restore(server.major(), &[]).await?;
        check_integrity(&restored).await?;
        // Pages that do not know they are marked all-visible stay marked when a row goes.
        restored.sql("postgres", "DELETE FROM seen WHERE id % 2 = 0").await?;
        let count = "SET enable_seqscan = off; SET enable_bitmapscan = off; SELECT count(*) FROM seen";
        assert_eq!(restored.value("postgres", count).await?, "2500");
        check_integrity(&restored).await
    }

    async fn differential_after_checksums_were_enabled_has_them_on_every_page(server: Server) -> Result<()> {
        let mut cluster = Cluster::builder(server.major()).without_data_checksums().start().await?;
        let everpoint = Everpoint::with(&cluster).await?;
        let client = cluster.connect("postgres").await?;
        mixed_data(&client, ByteCount::new(2 << 20)).await?;
        drop(client);
        everpoint.full().await?;
        cluster.stop(StopMode::Fast).await?;
        let data = format!("--pgdata={}", cluster.data_directory().display());
        server.run("pg_checksums", ["--enable", &data]).await?;
        cluster.start().await?;
        cluster.sql("postgres", "UPDATE mixed.child SET note = 'new'").await?;
        everpoint.backup("differential").await?;
        let expected = fingerprint(&cluster).await?;

        let mut restored = everpoint.restore(server.major(), &[]).await?;
        assert_same(&expected, &fingerprint(&restored).await?);
        check_integrity(&restored).await?;
        restored.cluster.stop(StopMode::Fast).await?;
        check_stopped(&restored).await
    }
}
