//! Databases brought back into a server where others work, and restores that are interrupted or killed there.

use std::time::Duration;

use anyhow::{Context, Result};
use everpoint_testkit::{
    Cluster, Target, Workload,
    compare::{DatabaseContent, assert_same_database, fingerprint_database},
    mixed_data,
};

use crate::{
    everpoint::{Everpoint, NAME, REFUSED, store},
    into_server::databases,
    versions::on_oldest_and_newest,
};

const HIDDEN: &str =
    "SELECT count(*) FROM pg_database WHERE datname LIKE 'everpoint\\_restoring\\_%'";

async fn content(cluster: &Cluster, database: &str) -> Result<DatabaseContent> {
    fingerprint_database(&cluster.connect(database).await?).await
}

/// Nothing hidden is on the server, and nothing in the scratch directory.
async fn assert_clean(everpoint: &Everpoint, cluster: &Cluster, when: &str) -> Result<()> {
    assert_eq!(cluster.value("postgres", HIDDEN).await?, "0", "{when}");
    everpoint.assert_scratch_empty(when)
}

async fn wait_until_filled(cluster: &Cluster) -> Result<()> {
    let begun = format!("SELECT ({HIDDEN}) > 0");
    cluster
        .wait_until_true(&begun, "the hidden database is there")
        .await
}

on_oldest_and_newest! {
    async fn databases_come_back_beside_others_at_work_whatever_dies(server: Server) -> Result<()> {
        let cluster = Cluster::builder(server.major()).start().await?;
        let everpoint = Everpoint::with(&cluster).await?;
        let sql = async |text: &str| cluster.sql("postgres", text).await;
        for name in ["shop", "gone", "one", "two"] {
            sql(&format!("CREATE DATABASE {name}")).await?;
        }
        mixed_data(&cluster.connect("shop").await?, 4_000_000.into()).await?;
        cluster.sql("gone", "CREATE TABLE content AS SELECT i AS id, md5(i::text) AS note FROM generate_series(1, 5000) i").await?;
        let mut others = Vec::new();
        for name in ["one", "two"] {
            let work = Workload::new(name).writers(1).pause(Duration::from_millis(20));
            others.push((name, work.start(&cluster).await?));
        }
        everpoint.full().await?;
        cluster.sql("shop", "CREATE TABLE late AS SELECT generate_series(1, 700) AS id").await?;
        cluster.sql("gone", "UPDATE content SET note = 'changed' WHERE id % 3 = 0").await?;
        let good = content(&cluster, "shop").await?;
        let lost = content(&cluster, "gone").await?;
        let at = cluster.moment().await?.time.to_string();
        cluster.sql("shop", "DROP TABLE late").await?;
        cluster.sql("shop", "CREATE TABLE later AS SELECT generate_series(1, 10) AS id").await?;
        sql("DROP DATABASE gone WITH (FORCE)").await?;
        store(&everpoint, &cluster).await?;

        // Just before a mistake that the log knows, and a drop undone.
        let log = everpoint.json(&["log", NAME, "--database", "shop", "--kind", "drop"]).await?;
        let event = log["events"].as_array().and_then(|events| events.last());
        let event = event.and_then(|event| event["id"].as_str()).context("the drop of a table")?;
        let done = everpoint.put_back(&["main/shop", "--before", event, "--to", "shop_before"]).await?;
        assert_eq!(done.code, Some(0), "{done:?}");
        assert_same_database(&good, &content(&cluster, "shop_before").await?);
        let done = everpoint.put_back(&["--deleted", "main/gone", "--to", "gone"]).await?;
        assert_eq!(done.code, Some(0), "{done:?}");
        assert_same_database(&lost, &content(&cluster, "gone").await?);
        assert_clean(&everpoint, &cluster, "done").await?;

        // Refused with the window.
        let refused = everpoint.put_back(&["main/shop", "--at", "2020-01-01T00:00:00Z", "--to", "early"]).await?;
        assert_eq!(refused.code, Some(REFUSED), "{refused:?}");
        assert!(refused.err.contains("earliest point that can be restored"), "{refused:?}");
        // To an instance of its own name, by a role that lacks the right.
        sql("CREATE ROLE weak LOGIN").await?;
        let weak = cluster.connection_string("postgres").replace("user=postgres", "user=weak");
        let arguments = ["main/shop", "--to", "weak", "--instance", NAME, "--admin-connection", &weak];
        let refused = everpoint.put_back(&arguments).await?;
        assert_eq!(refused.code, Some(REFUSED), "{refused:?}");
        assert!(refused.err.contains("superuser"), "{refused:?}");
        assert!(!refused.err.contains("Fetching"), "{refused:?}");

        let before = databases(&cluster).await?;
        let to = ["main/shop", "--at", &at, "--to", "shop_again"];
        // Interrupted.
        let mut moving = everpoint.begin_putting_back(&to)?;
        moving.until("Moving").await?;
        wait_until_filled(&cluster).await?;
        assert_eq!(moving.interrupt().await?, Some(1));
        assert_clean(&everpoint, &cluster, "interrupted").await?;
        // Killed before anything was made on the server, and in the middle of it.
        let mut fetching = everpoint.begin_putting_back(&to)?;
        fetching.until("Fetching").await?;
        fetching.kill().await?;
        let mut moving = everpoint.begin_putting_back(&to)?;
        moving.until("Moving").await?;
        wait_until_filled(&cluster).await?;
        moving.kill().await?;
        assert_eq!(everpoint.left_in_scratch()?.len(), 1, "the first one was cleaned up by the second");
        let repaired = everpoint.repair().await?;
        assert_eq!(repaired.code, Some(0), "{repaired:?}");
        assert!(repaired.err.contains("what it had made is gone"), "{repaired:?}");
        assert_clean(&everpoint, &cluster, "killed while moving").await?;
        assert_eq!(databases(&cluster).await?, before);
        // Killed when all but the name was there: a session is in the way of it.
        let mut registering =
            everpoint.begin_putting_back(&["main/shop", "--at", &at, "--to", "shop", "--replace"])?;
        registering.until("Moving").await?;
        let session = cluster.connect("shop").await?;
        registering.until_said("waiting for sessions to end").await?;
        registering.kill().await?;
        assert_eq!(cluster.value("postgres", HIDDEN).await?, "1");
        drop(session);
        let repaired = everpoint.repair().await?;
        assert_eq!(repaired.code, Some(0), "{repaired:?}");
        assert!(repaired.err.contains("`shop` is online"), "{repaired:?}");
        assert_clean(&everpoint, &cluster, "killed while registering").await?;
        assert_same_database(&good, &content(&cluster, "shop").await?);
        let kept = "SELECT datname FROM pg_database WHERE datname LIKE 'shop\\_before\\_restore\\_%'";
        let kept = cluster.value("postgres", kept).await?;
        assert_eq!(cluster.value(&kept, "SELECT count(*) FROM later").await?, "10");

        for (name, work) in others {
            let ledger = work.stop().await?;
            ledger.check(&cluster.connect(name).await?, Target::Latest).await?;
        }
        Ok(())
    }
}
