//! Whole clusters with content of every kind.

use std::net::TcpListener;

use anyhow::{Context, Result};
use everpoint_pgformat::ByteCount;
use everpoint_testkit::{
    Cluster, Scratch, StopMode, change_mixed_data,
    compare::{
        assert_same, assert_same_database, check_integrity, check_stopped, fingerprint,
        fingerprint_database,
    },
    many_databases, mixed_data, on_every_version,
};
use rustix::process::{Pid, Signal, kill_process};
use tokio_postgres::NoTls;

use crate::everpoint::Everpoint;

/// What leaves files behind that look unlike those of the full backup.
const UPHEAVAL: &str = "
    CREATE TABLE many_0_gone_soon AS SELECT generate_series(1, 2000) AS i;
    DROP TABLE many_0_gone_soon;
    DROP TABLE mixed.small_7;
    CREATE TABLE mixed.small_7 (id int PRIMARY KEY, other text);
    INSERT INTO mixed.small_7 SELECT i, 'anew' FROM generate_series(1, 50) i;
    TRUNCATE mixed.parent;
    REINDEX TABLE mixed.document;
    UPDATE mixed.unlogged SET note = 'changed';
    CREATE TEMPORARY TABLE passing AS SELECT generate_series(1, 2000) AS i;
    SELECT setval('mixed.untouched', 4711);
    DO $$
    BEGIN
        FOR number IN 1..60 LOOP
            EXECUTE format('CREATE TABLE mixed.late_%s AS SELECT %s AS id', number, number);
        END LOOP;
    END
    $$";

on_every_version! {
    async fn restored_cluster_equals_its_origin(server: Server) -> Result<()> {
        let mut cluster = Cluster::builder(server.major()).start().await?;
        let everpoint = Everpoint::with(&cluster).await?;
        // Keeps its temporary tables until the end.
        let client = cluster.connect("postgres").await?;
        mixed_data(&client, ByteCount::new(3 << 20)).await?;
        many_databases(&cluster, 1).await?;
        let first = fingerprint(&cluster).await?;
        let full = everpoint.full().await?;
        let again = everpoint.full().await?;
        assert!(
            again.stored_bytes < full.stored_bytes / 10,
            "nothing changed, yet {again:?} follows {full:?}"
        );

        change_mixed_data(&client).await?;
        client.batch_execute(UPHEAVAL).await?;
        client.batch_execute("VACUUM FULL mixed.blob").await?;
        client.batch_execute("VACUUM mixed.document, mixed.event").await?;
        let second = fingerprint(&cluster).await?;
        let differential = everpoint.differential().await?;
        assert!(differential.stored_bytes < full.stored_bytes, "{differential:?}");
        cluster.sql("many_0", "INSERT INTO content VALUES (-1, 'only in the log')").await?;
        cluster.sql("many_0", "DELETE FROM content WHERE id = -1").await?;
        cluster.stop(StopMode::Fast).await?;

        let mut restored = everpoint.restore(server.major(), &[]).await?;
        assert_same(&second, &fingerprint(&restored).await?);
        let unlogged = "SELECT count(*) FROM mixed.unlogged";
        assert_eq!(restored.value("postgres", unlogged).await?, "0");
        restored.sql("postgres", "INSERT INTO mixed.unlogged VALUES (1, 'usable')").await?;
        check_integrity(&restored).await?;
        restored.cluster.stop(StopMode::Fast).await?;
        check_stopped(&restored).await?;

        let stop = full.stop_lsn.to_string();
        let earlier = everpoint.restore(server.major(), &["--lsn", &stop]).await?;
        assert_same(&first, &fingerprint(&earlier).await?);
        Ok(())
    }

    async fn started_server_is_promoted_and_equals_its_origin(server: Server) -> Result<()> {
        let cluster = Cluster::builder(server.major()).start().await?;
        let everpoint = Everpoint::with(&cluster).await?;
        let client = cluster.connect("postgres").await?;
        mixed_data(&client, ByteCount::new(2 << 20)).await?;
        everpoint.full().await?;
        change_mixed_data(&client).await?;
        everpoint.differential().await?;
        let expected = fingerprint_database(&client).await?;

        let place = Scratch::new()?;
        let to = place.path().join("data");
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let (bin, socket) = (server.bin(), place.path());
        let arguments = [
            "--start",
            "--bin-directory",
            bin.to_str().context("a path")?,
            "--port",
            &port.to_string(),
            "--socket-directory",
            socket.to_str().context("a path")?,
        ];
        everpoint.restore_into(&to, &arguments).await?;

        let mut config = tokio_postgres::Config::new();
        config.host_path(socket).port(port).user("postgres").dbname("postgres");
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        let row = client.query_one("SELECT pg_is_in_recovery()", &[]).await?;
        assert!(!row.get::<_, bool>(0), "it has been promoted");
        assert_same_database(&expected, &fingerprint_database(&client).await?);
        drop(client);

        let file = std::fs::read_to_string(to.join("postmaster.pid"))?;
        let pid = file.lines().next().and_then(|line| line.parse().ok());
        let pid = pid.and_then(Pid::from_raw).context("a process number")?;
        kill_process(pid, Signal::INT)?;
        while to.join("postmaster.pid").exists() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        assert!(!to.join("everpoint.restore.json").exists(), "it is finished");
        let mut restored = Cluster::adopt(&to, server.major()).await?;
        check_integrity(&restored).await?;
        restored.stop(StopMode::Fast).await?;
        check_stopped(&restored).await
    }
}
