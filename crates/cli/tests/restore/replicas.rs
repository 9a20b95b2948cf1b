//! A server with two streaming replicas: a restored database is online when they have it, too.

use anyhow::Result;
use everpoint_testkit::{
    Cluster,
    compare::{assert_same_database, fingerprint_database},
};
use rustix::process::Signal;

use crate::{
    everpoint::{Everpoint, store},
    versions::on_oldest_and_newest,
};

/// A replica by this name.
async fn replica(cluster: &Cluster, name: &str) -> Result<Cluster> {
    let standby = cluster.make_standby().await?;
    let primary = cluster.connection_string("postgres").replace('\'', "''");
    let sql = format!("ALTER SYSTEM SET primary_conninfo = '{primary} application_name={name}'");
    standby.sql("postgres", &sql).await?;
    standby.sql("postgres", "SELECT pg_reload_conf()").await?;
    let there = format!(
        "SELECT count(*) = 1 FROM pg_stat_replication WHERE application_name = '{name}' AND replay_lsn IS NOT NULL"
    );
    cluster.wait_until_true(&there, "have the replica").await?;
    Ok(standby)
}

async fn count(cluster: &Cluster, database: &str) -> Result<String> {
    let query = format!("SELECT count(*) FROM pg_database WHERE datname = '{database}'");
    cluster.value("postgres", &query).await
}

on_oldest_and_newest! {
    async fn name_is_taken_when_replicas_have_the_database_or_the_operator_goes_on(server: Server) -> Result<()> {
        let cluster = Cluster::builder(server.major()).start().await?;
        let everpoint = Everpoint::with(&cluster).await?;
        cluster.sql("postgres", "CREATE ROLE clerk LOGIN").await?;
        cluster.sql("postgres", "CREATE DATABASE shop").await?;
        cluster.sql("shop", "CREATE TABLE t AS SELECT i AS id, md5(i::text) AS note FROM generate_series(1, 20000) i").await?;
        everpoint.full().await?;
        store(&everpoint, &cluster).await?;
        let expected = fingerprint_database(&cluster.connect("shop").await?).await?;
        let prompt = replica(&cluster, "prompt").await?;
        let lagging = replica(&cluster, "lagging").await?;

        // One does not replay: it is named with what it lacks, and nothing has the name meanwhile.
        lagging.sql("postgres", "SELECT pg_wal_replay_pause()").await?;
        let mut restoring = everpoint.begin_putting_back(&["main/shop", "--to", "back"])?;
        restoring.until("Seeding replicas").await?;
        let line = restoring.until_said("replica `lagging` has ").await?;
        let lacks: u64 = line.split_whitespace().find_map(|word| word.parse().ok()).unwrap_or_default();
        assert!(lacks > 500_000, "{line}");
        restoring.until_said("kill -USR1").await?;
        assert_eq!(count(&cluster, "back").await?, "0");
        // What there is of it has another name, and takes nobody in.
        let hidden = "SELECT datname FROM pg_database WHERE datname LIKE 'everpoint\\_restoring\\_%'";
        let hidden = cluster.value("postgres", hidden).await?;
        let refused = cluster.config(&hidden).user("clerk").connect(tokio_postgres::NoTls).await;
        assert!(refused.is_err());
        restoring.signal(Signal::USR1)?;
        let ended = restoring.hear().await?;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(ended.err.contains("replica `lagging` does not have it yet"), "{ended:?}");
        assert!(!ended.err.contains("replica `prompt` does not"), "{ended:?}");
        assert_same_database(&expected, &fingerprint_database(&cluster.connect("back").await?).await?);
        assert!(cluster.config("back").user("clerk").connect(tokio_postgres::NoTls).await.is_ok());
        assert_eq!(count(&lagging, "back").await?, "0");

        // Waited for only so long.
        let done = everpoint.put_back(&["main/shop", "--to", "soon", "--wait-replicas", "1s"]).await?;
        assert_eq!(done.code, Some(0), "{done:?}");
        assert!(done.err.contains("replica `lagging` does not have it yet"), "{done:?}");

        // One that comes later is waited for, as neither lags for ever; then each has it at once.
        lagging.sql("postgres", "ALTER SYSTEM SET recovery_min_apply_delay = '2s'").await?;
        lagging.sql("postgres", "SELECT pg_reload_conf()").await?;
        lagging.sql("postgres", "SELECT pg_wal_replay_resume()").await?;
        let done = everpoint.put_back(&["main/shop", "--to", "everywhere", "--replica", "prompt"]).await?;
        assert_eq!(done.code, Some(0), "{done:?}");
        assert!(done.err.contains("replica `lagging` has "), "{done:?}");
        assert!(!done.err.contains("does not have it yet"), "{done:?}");
        for standby in [&prompt, &lagging] {
            let found = fingerprint_database(&standby.connect("everywhere").await?).await?;
            assert_same_database(&expected, &found);
        }
        everpoint.assert_scratch_empty("restored")
    }
}
