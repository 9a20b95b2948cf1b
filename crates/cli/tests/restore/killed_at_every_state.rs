//! Restores into another server that die, or are cancelled, at each state that they tell of.

use anyhow::Result;
use everpoint_testkit::{
    Cluster,
    compare::{DatabaseContent, assert_same_database, fingerprint_database},
    mixed_data, run,
};

use crate::{
    everpoint::{Everpoint, store},
    remains::shared,
    versions::on_oldest_and_newest,
};

const STATES: [&str; 8] = [
    "Queued",
    "Fetching",
    "Recovering",
    "Moving",
    "Checking",
    "Seeding replicas",
    "Registering",
    "Online",
];
/// Into another server, which lacks the owner of things.
const TO: [&str; 6] = [
    "main/shop",
    "--to",
    "back",
    "--instance",
    "other",
    "--create-roles",
];

/// A repository with a database `shop`, and the server that it is restored into.
struct Scene {
    everpoint: Everpoint,
    target: Cluster,
    content: DatabaseContent,
    /// What the target has besides.
    before: Vec<Vec<String>>,
    _source: Cluster,
}

async fn scene(major: u16) -> Result<Scene> {
    let source = Cluster::builder(major).start().await?;
    let everpoint = Everpoint::with(&source).await?;
    source.sql("postgres", "CREATE ROLE keeper").await?;
    source
        .sql("postgres", "CREATE DATABASE shop OWNER keeper")
        .await?;
    mixed_data(&source.connect("shop").await?, 2_000_000.into()).await?;
    everpoint.full().await?;
    source
        .sql("shop", "CREATE TABLE late AS SELECT generate_series(1, 700) AS id; ALTER TABLE late OWNER TO keeper")
        .await?;
    store(&everpoint, &source).await?;
    let target = Cluster::builder(major).start().await?;
    let connection = target.connection_string("postgres");
    everpoint
        .json(&["instance", "add", "other", "--connection", &connection])
        .await?;
    Ok(Scene {
        content: fingerprint_database(&source.connect("shop").await?).await?,
        before: shared(&target).await?,
        everpoint,
        target,
        _source: source,
    })
}

impl Scene {
    async fn is_there(&self) -> Result<bool> {
        let query = "SELECT count(*) FROM pg_database WHERE datname = 'back'";
        Ok(self.target.value("postgres", query).await? == "1")
    }

    /// A restored database is whole, and goes.
    async fn take_away(&self) -> Result<()> {
        let found = fingerprint_database(&self.target.connect("back").await?).await?;
        assert_same_database(&self.content, &found);
        self.target
            .sql("postgres", "DROP DATABASE back WITH (FORCE)")
            .await?;
        self.target.sql("postgres", "DROP ROLE keeper").await
    }
}

on_oldest_and_newest! {
    async fn restore_killed_at_any_state_is_finished_or_undone_and_nothing_is_left(server: Server) -> Result<()> {
        let scene = scene(server.major()).await?;
        for state in STATES {
            let mut restoring = scene.everpoint.begin_putting_back(&TO)?;
            restoring.until(state).await?;
            restoring.kill().await?;
            assert_eq!(scene.everpoint.left_in_scratch()?.len(), 1, "killed when {state}");
            let repaired = scene.everpoint.repair().await?;
            assert_eq!(repaired.code, Some(0), "killed when {state}: {repaired:?}");
            let finished = scene.is_there().await?;
            match state {
                "Queued" | "Fetching" | "Recovering" | "Moving" => assert!(!finished, "{state}"),
                "Online" => assert!(finished, "{repaired:?}"),
                // The signal comes when the state may have ended.
                _ => assert_eq!(finished, repaired.err.contains("`back` is online"), "{state}: {repaired:?}"),
            }
            if finished {
                scene.take_away().await?;
            }
            let when = format!("killed when {state}");
            scene.everpoint.assert_nothing_left(&scene.target, &scene.before, &when).await?;
        }
        Ok(())
    }
}

#[test]
fn restore_cancelled_at_any_state_leaves_nothing() -> Result<()> {
    run(async {
        let scene = scene(16).await?;
        for state in STATES {
            let mut restoring = scene.everpoint.begin_putting_back(&TO)?;
            restoring.until(state).await?;
            let ended = restoring.interrupt_and_hear().await?;
            let finished = scene.is_there().await?;
            // With the name there is nothing left to cancel.
            assert_eq!(ended.code, Some(i32::from(!finished)), "{state}: {ended:?}");
            assert!(
                finished || ended.err.contains("cancelled"),
                "{state}: {ended:?}"
            );
            match state {
                "Queued" | "Fetching" | "Recovering" | "Moving" => {
                    assert!(!finished, "{state}: {ended:?}");
                }
                "Online" => assert!(finished, "{ended:?}"),
                // The signal comes when the state may have ended.
                _ => {}
            }
            if finished {
                scene.take_away().await?;
            }
            let when = format!("cancelled when {state}");
            scene
                .everpoint
                .assert_nothing_left(&scene.target, &scene.before, &when)
                .await?;
        }
        // While it waits for the place of a living database.
        scene.target.sql("postgres", "CREATE DATABASE back").await?;
        scene
            .target
            .sql("back", "CREATE TABLE living AS SELECT 1 AS a")
            .await?;
        let before = shared(&scene.target).await?;
        let arguments: Vec<&str> = TO.into_iter().chain(["--replace"]).collect();
        let mut restoring = scene.everpoint.begin_putting_back(&arguments)?;
        restoring.until("Moving").await?;
        let session = scene.target.connect("back").await?;
        restoring
            .until_said("waiting for sessions to end: client backend")
            .await?;
        let ended = restoring.interrupt_and_hear().await?;
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.err.contains("error: cancelled"), "{ended:?}");
        let row = session.query_one("SELECT a FROM living", &[]).await?;
        assert_eq!(row.get::<_, i32>(0), 1);
        scene
            .everpoint
            .assert_nothing_left(&scene.target, &before, "cancelled when waiting")
            .await
    })
}
