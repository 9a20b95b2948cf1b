//! A target with standbys.

use std::time::Duration;

use anyhow::Result;
use everpoint_engine::transplant::{Event, MoveState, execute, plan, replicas::ReplicaPolicy};
use everpoint_testkit::{Cluster, compare::fingerprint_database, run};

use crate::support::{Said, request};

#[test]
fn online_waits_for_a_replica_that_lags_until_the_operator_goes_on() -> Result<()> {
    run(async {
        let source = Cluster::builder(18).start().await?;
        source.sql("postgres", "CREATE DATABASE shop").await?;
        source
            .sql(
                "shop",
                "CREATE TABLE t AS SELECT i AS a FROM generate_series(1, 20000) i",
            )
            .await?;
        let target = Cluster::builder(18).start().await?;
        let prompt = target.make_standby().await?;
        let lagging = target.make_standby().await?;
        for (standby, name) in [(&prompt, "prompt"), (&lagging, "lagging")] {
            let conninfo = target.connection_string("postgres");
            let conninfo = conninfo.replace('\'', "''");
            let sql =
                format!("ALTER SYSTEM SET primary_conninfo = '{conninfo} application_name={name}'");
            standby.sql("postgres", &sql).await?;
            standby.sql("postgres", "SELECT pg_reload_conf()").await?;
        }
        let names = "SELECT count(*) = 2 FROM pg_stat_replication
            WHERE application_name IN ('prompt', 'lagging') AND replay_lsn IS NOT NULL";
        target.wait_until_true(names, "have both replicas").await?;
        target
            .sql(
                "postgres",
                "SELECT pg_create_physical_replication_slot('orphan', true)",
            )
            .await?;
        lagging
            .sql("postgres", "SELECT pg_wal_replay_pause()")
            .await?;

        let work = tempfile::tempdir()?;
        let mut wanted = request(&source, &target, "back", work.path()).await?;
        wanted.replicas = vec!["prompt".to_owned(), "lagging".to_owned()];
        let made = plan(wanted).await?;
        assert!(
            made.remarks
                .iter()
                .any(|remark| remark.contains("`orphan`")),
            "{made}"
        );
        let said = Said::default();
        let control = said.control(|_, _| {});
        let moving = {
            let control = control.clone();
            tokio::spawn(async move { execute(&made, &control).await })
        };
        // Named with its lag, and waited for.
        for _ in 0..600 {
            if said
                .events()
                .iter()
                .any(|event| matches!(event, Event::ReplicasBehind(_)))
            {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        let events = said.events();
        let behind = events.iter().find_map(|event| match event {
            Event::ReplicasBehind(behind) => Some(behind.clone()),
            _ => None,
        });
        let behind = behind.expect("no replica was named");
        assert!(
            behind
                .iter()
                .any(|(name, bytes)| name == "lagging" && bytes.is_some_and(|b| b > 500_000)),
            "{behind:?}"
        );
        assert_eq!(
            events
                .last()
                .map(|e| matches!(e, Event::State(MoveState::Online))),
            Some(false)
        );
        let taken = "SELECT count(*) FROM pg_database WHERE datname = 'back'";
        assert_eq!(target.value("postgres", taken).await?, "0");
        control.go_on_without_replicas();
        let moved = moving.await??;
        assert_eq!(moved.replicas.replayed, ["prompt"]);
        assert!(
            moved
                .replicas
                .behind
                .iter()
                .any(|(name, _)| name == "lagging")
        );

        lagging
            .sql("postgres", "SELECT pg_wal_replay_resume()")
            .await?;
        let mut again = request(&source, &target, "again", work.path()).await?;
        again.replica_policy = ReplicaPolicy::WaitAtMost(Duration::from_secs(60));
        let moved = execute(&plan(again).await?, &Said::default().control(|_, _| {})).await?;
        let mut replayed = moved.replicas.replayed.clone();
        replayed.sort();
        assert_eq!(replayed, ["lagging", "prompt"]);
        // Online means online there: without any wait.
        let expected = fingerprint_database(&source.connect("shop").await?).await?;
        for replica in [&prompt, &lagging] {
            let found = fingerprint_database(&replica.connect("again").await?).await?;
            assert_eq!(found, expected);
        }
        Ok(())
    })
}
