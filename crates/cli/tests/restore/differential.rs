//! Backups taken while files come, go, grow and shrink.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use anyhow::Result;
use everpoint_pgformat::ByteCount;
use everpoint_testkit::{
    Cluster, Target, Workload,
    compare::{assert_same, check_integrity, fingerprint},
    mixed_data,
};

use crate::{
    everpoint::{Everpoint, nudge},
    versions::on_oldest_and_newest,
};

/// One round of what makes files appear, grow, shrink, be replaced and vanish.
const ROUND: [&str; 9] = [
    "CREATE TABLE IF NOT EXISTS restless (id int PRIMARY KEY, note text)",
    "INSERT INTO restless SELECT i, repeat('x', 200) FROM generate_series(1, 4000) i",
    "CREATE TABLE passing AS SELECT generate_series(1, 3000) AS i",
    "DELETE FROM restless WHERE id > 100",
    "VACUUM restless",
    "DROP TABLE passing",
    "VACUUM FULL mixed.parent",
    "REINDEX TABLE mixed.document",
    "TRUNCATE restless",
];

on_oldest_and_newest! {
    async fn backups_taken_amid_upheaval_are_restored(server: Server) -> Result<()> {
        let major = server.major();
        // Small, so that pages are written all the time.
        let cluster = Cluster::builder(major).setting("shared_buffers = 1MB").start().await?;
        let everpoint = Everpoint::with(&cluster).await?;
        let client = cluster.connect("postgres").await?;
        mixed_data(&client, ByteCount::new(3 << 20)).await?;
        let done = Arc::new(AtomicBool::new(false));
        let told = done.clone();
        let upheaval = tokio::spawn(async move {
            let mut rounds = 0;
            while !told.load(Ordering::Relaxed) {
                for statement in ROUND {
                    client.batch_execute(statement).await?;
                }
                rounds += 1;
            }
            Ok::<u32, tokio_postgres::Error>(rounds)
        });
        let running = Workload::new("postgres").start(&cluster).await?;
        let receiver = everpoint.receive()?;
        everpoint.full().await?;
        everpoint.differential().await?;
        running.wait_for_commits(50).await?;
        let middle = cluster.moment().await?;
        everpoint.differential().await?;
        done.store(true, Ordering::Relaxed);
        assert!(upheaval.await?? > 0);
        let ledger = running.stop().await?;
        let expected = fingerprint(&cluster).await?;
        let end = nudge(&cluster).await?;
        everpoint.wait_until_stored(end).await?;
        receiver.stop().await?;

        let earlier = everpoint.restore(major, &["--at", &middle.time.to_string()]).await?;
        let there = earlier.connect("postgres").await?;
        ledger.check(&there, Target::Time(middle.time)).await?;
        check_integrity(&earlier).await?;
        let latest = everpoint.restore(major, &[]).await?;
        assert_same(&expected, &fingerprint(&latest).await?);
        check_integrity(&latest).await
    }
}
