//! Clusters start, stop, fail and follow as real ones do.

use anyhow::Result;
use everpoint_pgformat::wal::segment::SegmentSize;
use everpoint_testkit::{Cluster, Scratch, Server, StopMode, on_every_version};

on_every_version! {
    async fn cluster_has_the_version_and_the_properties_asked_for(server: Server) -> Result<()> {
        let cluster = Cluster::builder(server.major())
            .wal_segment_size(SegmentSize::try_from(1 << 20)?)
            .setting("wal_level = logical")
            .tablespace("fast")
            .start()
            .await?;
        let show = |name: &'static str| cluster.value("postgres", name);
        assert_eq!(show("SHOW server_version_num").await?[..2], server.major().to_string());
        assert_eq!(show("SHOW data_checksums").await?, "on");
        assert_eq!(show("SHOW wal_segment_size").await?, "1MB");
        assert_eq!(show("SHOW wal_level").await?, "logical");
        assert_eq!(show("SHOW listen_addresses").await?, "");
        cluster.sql("postgres", "CREATE TABLE t (a int) TABLESPACE fast").await?;
        assert!(cluster.tablespace_directory("fast").read_dir()?.next().is_some());
        Ok(())
    }

    async fn two_clusters_of_one_template_are_two(server: Server) -> Result<()> {
        let identifier = "SELECT system_identifier FROM pg_control_system()";
        let (one, two) = tokio::try_join!(
            Cluster::builder(server.major()).start(),
            Cluster::builder(server.major()).start(),
        )?;
        assert_ne!(one.value("postgres", identifier).await?, two.value("postgres", identifier).await?);
        Ok(())
    }

    async fn cluster_without_checksums_has_none(server: Server) -> Result<()> {
        let cluster = Cluster::builder(server.major()).without_data_checksums().start().await?;
        assert_eq!(cluster.value("postgres", "SHOW data_checksums").await?, "off");
        Ok(())
    }

    async fn committed_rows_outlive_a_crash_and_uncommitted_ones_do_not(server: Server) -> Result<()> {
        let mut cluster = Cluster::builder(server.major()).start().await?;
        cluster.sql("postgres", "CREATE TABLE t (a int); INSERT INTO t VALUES (1)").await?;
        let open = cluster.connect("postgres").await?;
        open.batch_execute("BEGIN; INSERT INTO t VALUES (2)").await?;
        cluster.stop(StopMode::Immediate).await?;
        assert!(!cluster.is_running());
        cluster.start().await?;
        assert_eq!(cluster.rows("postgres", "SELECT a FROM t").await?, [["1"]]);
        assert!(cluster.log()?.contains("automatic recovery in progress"));
        Ok(())
    }

    async fn standby_follows_and_can_be_promoted(server: Server) -> Result<()> {
        let cluster = Cluster::builder(server.major()).tablespace("far").start().await?;
        cluster.sql("postgres", "CREATE TABLE t (a int) TABLESPACE far").await?;
        let standby = cluster.make_standby().await?;
        cluster.sql("postgres", "INSERT INTO t SELECT generate_series(1, 1000)").await?;
        standby.wait_for_replay(cluster.current_lsn().await?).await?;
        assert_eq!(standby.value("postgres", "SELECT count(*) FROM t").await?, "1000");
        assert!(standby.sql("postgres", "INSERT INTO t VALUES (0)").await.is_err());
        standby.promote().await?;
        standby.sql("postgres", "INSERT INTO t VALUES (0)").await?;
        assert_eq!(cluster.value("postgres", "SELECT count(*) FROM t").await?, "1000");
        Ok(())
    }

    async fn adopted_directory_is_recovered_and_kept(server: Server) -> Result<()> {
        let cluster = Cluster::builder(server.major()).start().await?;
        cluster.sql("postgres", "CREATE TABLE t AS SELECT generate_series(1, 10) AS a").await?;
        let place = Scratch::new()?;
        let copy = place.path().join("copy");
        let arguments = [
            format!("--pgdata={}", copy.display()),
            format!("--dbname={}", cluster.connection_string("postgres")),
            "--checkpoint=fast".to_owned(),
        ];
        server.run("pg_basebackup", arguments).await?;
        let adopted = Cluster::adopt(&copy, server.major()).await?;
        adopted.wait_until_promoted().await?;
        assert_eq!(adopted.value("postgres", "SELECT sum(a) FROM t").await?, "55");
        drop(adopted);
        assert!(copy.join("PG_VERSION").exists());
        Ok(())
    }

    async fn server_that_cannot_start_says_why(server: Server) -> Result<()> {
        let mut cluster = Cluster::builder(server.major()).start().await?;
        cluster.stop(StopMode::Fast).await?;
        cluster.configure("wal_level = sideways")?;
        let error = cluster.start().await.expect_err("nonsense is refused");
        assert!(format!("{error:#}").contains("sideways"), "{error:#}");
        Ok(())
    }
}

#[tokio::test]
async fn cluster_on_loopback_is_reached_by_tcp() -> Result<()> {
    let cluster = Cluster::builder(15).on_loopback().start().await?;
    let address = format!(
        "host=127.0.0.1 port={} user=postgres dbname=postgres",
        cluster.port()
    );
    let (client, connection) = tokio_postgres::connect(&address, tokio_postgres::NoTls).await?;
    tokio::spawn(connection);
    let row = client.query_one("SELECT inet_server_port()", &[]).await?;
    assert_eq!(row.get::<_, i32>(0), i32::from(cluster.port()));
    Ok(())
}

#[tokio::test]
async fn dropped_cluster_leaves_neither_process_nor_files() -> Result<()> {
    let cluster = Cluster::builder(17).start().await?;
    let data = cluster.data_directory().to_owned();
    let pid = cluster.pid().expect("it runs");
    drop(cluster);
    assert!(!data.exists());
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    Ok(())
}

#[test]
fn server_of_an_unknown_version_is_refused() {
    let error = Server::find(9).expect_err("9 is too old");
    assert!(error.to_string().contains("not supported"), "{error}");
}
