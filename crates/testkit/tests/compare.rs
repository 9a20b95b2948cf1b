//! Comparison finds every change, and integrity checks find damage.

use anyhow::Result;
use everpoint_pgformat::ByteCount;
use everpoint_testkit::{
    Cluster, StopMode, change_mixed_data,
    compare::{
        assert_same, check_integrity, check_stopped, database_differences, differences,
        fingerprint, fingerprint_database, schema_text,
    },
    corrupt, many_databases, mixed_data, on_every_version,
};

const SMALL: ByteCount = ByteCount::new(4 << 20);

on_every_version! {
    async fn fingerprint_of_unchanged_content_stays_the_same(server: Server) -> Result<()> {
        let mut cluster = Cluster::builder(server.major()).start().await?;
        many_databases(&cluster, 2).await?;
        let client = cluster.connect("many_1").await?;
        mixed_data(&client, SMALL).await?;
        let before = fingerprint(&cluster).await?;
        let schema = schema_text(&cluster, "many_1").await?;
        assert!(schema.contains("CREATE MATERIALIZED VIEW mixed.summary"));
        // Rows move, sequences lose what was logged in advance, the unlogged table is emptied.
        client.batch_execute("VACUUM FULL mixed.document").await?;
        drop(client);
        cluster.stop(StopMode::Immediate).await?;
        cluster.start().await?;
        assert_eq!(cluster.value("many_1", "SELECT count(*) FROM mixed.unlogged").await?, "0");
        assert_same(&before, &fingerprint(&cluster).await?);
        assert_eq!(schema, schema_text(&cluster, "many_1").await?);
        Ok(())
    }

    async fn fingerprint_notices_any_change(server: Server) -> Result<()> {
        let cluster = Cluster::builder(server.major()).start().await?;
        let client = cluster.connect("postgres").await?;
        mixed_data(&client, SMALL).await?;
        let changes = [
            ("UPDATE mixed.document SET share = share + 1e-9 WHERE id = 4", "mixed.document: expected"),
            ("UPDATE mixed.blob SET loose = set_byte(loose, 4000, 255 - get_byte(loose, 4000)) WHERE id = 4", "mixed.blob: expected"),
            ("DELETE FROM mixed.child WHERE id = 200", "mixed.child: expected 100 rows"),
            ("INSERT INTO mixed.no_columns DEFAULT VALUES", "mixed.no_columns: expected 3 rows"),
            ("UPDATE mixed.event SET id = id + 1000000 WHERE id = 1", "mixed.event_other: expected"),
            ("CREATE TABLE mixed.surplus ()", "mixed.surplus should not be there"),
            ("DROP TABLE mixed.small_1", "mixed.small_1 is missing"),
            ("SELECT setval('mixed.counter', 1)", "mixed.counter: expected 1380, found 1"),
            ("SELECT nextval('mixed.untouched')", "mixed.untouched: expected not begun, found 1"),
            ("SELECT lo_put(min(oid), 9999, 'x') FROM pg_largeobject_metadata", "large objects: expected"),
            ("SELECT lo_unlink(max(oid)) FROM pg_largeobject_metadata", "large objects: expected"),
        ];
        for (change, told) in changes {
            let before = fingerprint_database(&client).await?;
            client.batch_execute(change).await?;
            let found = database_differences(&before, &fingerprint_database(&client).await?);
            assert!(found.len() == 1 && found[0].contains(told), "{change}: {found:?}");
        }
        Ok(())
    }

    async fn fingerprint_notices_roles_and_missing_databases(server: Server) -> Result<()> {
        let cluster = Cluster::builder(server.major()).start().await?;
        many_databases(&cluster, 1).await?;
        let before = fingerprint(&cluster).await?;
        cluster.sql("postgres", "CREATE ROLE clerk").await?;
        cluster.sql("postgres", "DROP DATABASE many_0").await?;
        let found = differences(&before, &fingerprint(&cluster).await?);
        for told in ["shared: roles: expected", "shared: databases: expected", "database many_0 is missing"] {
            assert!(found.iter().any(|line| line.contains(told)), "{told}: {found:?}");
        }
        Ok(())
    }

    async fn mixed_content_is_sound_before_and_after_changes(server: Server) -> Result<()> {
        let mut cluster = Cluster::builder(server.major()).start().await?;
        let size = "SELECT pg_database_size('postgres')";
        let empty: u64 = cluster.value("postgres", size).await?.parse()?;
        let client = cluster.connect("postgres").await?;
        mixed_data(&client, ByteCount::new(16 << 20)).await?;
        let full: u64 = cluster.value("postgres", size).await?.parse()?;
        assert!((12 << 20..20 << 20).contains(&(full - empty)), "{} bytes", full - empty);
        check_integrity(&cluster).await?;
        let before = fingerprint_database(&client).await?;
        change_mixed_data(&client).await?;
        assert_ne!(before, fingerprint_database(&client).await?);
        check_integrity(&cluster).await?;
        drop(client);
        cluster.stop(StopMode::Fast).await?;
        check_stopped(&cluster).await
    }

    async fn check_finds_a_flipped_byte_by_the_page_checksum(server: Server) -> Result<()> {
        let mut cluster = damageable(server.major(), Checksums::On).await?;
        let path = cluster.relation_path("postgres", "t").await?;
        cluster.stop(StopMode::Fast).await?;
        check_stopped(&cluster).await?;
        corrupt::flip_byte(&path, 3 * 8192 + 5000)?;
        let error = check_stopped(&cluster).await.expect_err("offline");
        assert!(format!("{error:#}").contains("checksum verification failed"), "{error:#}");
        cluster.start().await?;
        let error = check_integrity(&cluster).await.expect_err("online");
        assert!(format!("{error:#}").contains("checksum error"), "{error:#}");
        Ok(())
    }

    async fn check_finds_damage_where_there_are_no_checksums(server: Server) -> Result<()> {
        let mut cluster = damageable(server.major(), Checksums::Off).await?;
        check_integrity(&cluster).await?;
        let path = cluster.relation_path("postgres", "t").await?;
        cluster.stop(StopMode::Fast).await?;
        // A table that is a page short is whole in itself, but not to its index.
        corrupt::truncate(&path, 4 * 8192)?;
        cluster.start().await?;
        let error = check_integrity(&cluster).await.expect_err("rows are missing");
        assert!(format!("{error:#}").contains("rows by index"), "{error:#}");
        Ok(())
    }

    async fn check_finds_an_index_from_another_time(server: Server) -> Result<()> {
        let mut cluster = damageable(server.major(), Checksums::On).await?;
        let index = cluster.relation_path("postgres", "t_id").await?;
        cluster.stop(StopMode::Fast).await?;
        let old = std::fs::read(&index)?;
        cluster.start().await?;
        cluster.sql("postgres", "INSERT INTO t VALUES (1001, 'new')").await?;
        cluster.stop(StopMode::Fast).await?;
        std::fs::write(&index, old)?;
        cluster.start().await?;
        let error = check_integrity(&cluster).await.expect_err("a row is not indexed");
        assert!(format!("{error:#}").contains("pg_amcheck"), "{error:#}");
        Ok(())
    }

    async fn check_finds_a_visibility_map_from_another_time(server: Server) -> Result<()> {
        let mut cluster = damageable(server.major(), Checksums::On).await?;
        let mut map = cluster.relation_path("postgres", "t").await?.into_os_string();
        map.push("_vm");
        cluster.stop(StopMode::Fast).await?;
        let old = std::fs::read(&map)?;
        cluster.start().await?;
        cluster.sql("postgres", "DELETE FROM t WHERE id % 10 = 0; CHECKPOINT").await?;
        check_integrity(&cluster).await?;
        cluster.stop(StopMode::Fast).await?;
        std::fs::write(&map, old)?;
        cluster.start().await?;
        let error = check_integrity(&cluster).await.expect_err("the map lies");
        assert!(format!("{error:#}").contains("pg_visibility"), "{error:#}");
        Ok(())
    }
}

enum Checksums {
    On,
    Off,
}

/// A cluster with an indexed table `t` of several pages, all of them written and marked all-visible.
async fn damageable(major: u16, checksums: Checksums) -> Result<Cluster> {
    let builder = Cluster::builder(major);
    let builder = match checksums {
        Checksums::On => builder,
        Checksums::Off => builder.without_data_checksums(),
    };
    let cluster = builder.setting("autovacuum = off").start().await?;
    let table =
        "CREATE TABLE t AS SELECT i AS id, md5(i::text) AS note FROM generate_series(1, 1000) i;
                 CREATE INDEX t_id ON t (id)";
    cluster.sql("postgres", table).await?;
    cluster.sql("postgres", "VACUUM t").await?;
    cluster.checkpoint().await?;
    Ok(cluster)
}
