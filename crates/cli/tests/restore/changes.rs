//! Differentials that read what the log says changed.

use std::fs;

use anyhow::{Context, Result, ensure};
use everpoint_pgformat::{ByteCount, wal::segment::SegmentSize};
use everpoint_testkit::{
    Cluster,
    compare::{assert_same, check_integrity, fingerprint},
    corrupt, mixed_data, on_every_version,
};

use crate::{
    everpoint::{Everpoint, NAME, nudge},
    versions::on_oldest_and_newest,
};

/// What changes files in every way the map has to know of.
const UPHEAVAL: [&str; 24] = [
    "CREATE TABLE parts (id int, note text) PARTITION BY RANGE (id);
     CREATE TABLE parts_low PARTITION OF parts FOR VALUES FROM (0) TO (5000);
     CREATE TABLE parts_high PARTITION OF parts FOR VALUES FROM (5000) TO (10000);
     INSERT INTO parts SELECT i, md5(i::text) FROM generate_series(0, 9999) i",
    "UPDATE kept SET note = 'changed' WHERE id % 97 = 0",
    "DELETE FROM kept WHERE id BETWEEN 15000 AND 20000",
    "VACUUM kept",
    "INSERT INTO kept SELECT i, 'late' FROM generate_series(30000, 30500) i",
    "DELETE FROM emptied",
    "VACUUM FULL emptied",
    "VACUUM FULL mixed.parent",
    "VACUUM FULL pg_class",
    "TRUNCATE truncated",
    "INSERT INTO truncated SELECT i, 'again' FROM generate_series(1, 700) i",
    "DROP TABLE dropped",
    "CREATE UNLOGGED TABLE volatile AS SELECT generate_series(1, 1000) AS id",
    "ALTER TABLE volatile SET LOGGED",
    "UPDATE flowers SET a = a + 1 WHERE id % 5 = 0",
    "SELECT lo_from_bytea(0, convert_to(repeat('large', 9000), 'UTF8'))",
    "SELECT nextval('counter') FROM generate_series(1, 100)",
    "SELECT pg_logical_emit_message(true, 'everpoint', 'within a transaction')",
    "SELECT pg_logical_emit_message(false, 'everpoint', repeat('outside of one', 2000))",
    "ALTER TABLE parts DETACH PARTITION parts_low",
    "BEGIN; CREATE TABLE never AS SELECT generate_series(1, 900) AS id; UPDATE kept SET note = 'no'; ROLLBACK",
    "REINDEX TABLE kept",
    "CLUSTER kept USING kept_pkey",
    "ALTER TABLE kept ADD COLUMN more text DEFAULT md5('x')",
];

async fn prepare(cluster: &Cluster) -> Result<()> {
    let client = cluster.connect("postgres").await?;
    mixed_data(&client, ByteCount::new(2 << 20)).await?;
    client
        .batch_execute(
            "CREATE EXTENSION IF NOT EXISTS pg_visibility;
             CREATE EXTENSION IF NOT EXISTS bloom;
             CREATE SEQUENCE counter;
             CREATE TABLE flowers (id int PRIMARY KEY, a int);
             INSERT INTO flowers SELECT i, i % 7 FROM generate_series(1, 3000) i;
             CREATE INDEX ON flowers USING bloom (a);
             CREATE TABLE kept (id int PRIMARY KEY, note text);
             CREATE TABLE emptied (id int, note text);
             CREATE TABLE truncated (id int, note text);
             CREATE TABLE dropped (id int);
             INSERT INTO kept SELECT i, md5(i::text) FROM generate_series(1, 20000) i;
             INSERT INTO emptied SELECT * FROM kept;
             INSERT INTO truncated SELECT * FROM kept;
             INSERT INTO dropped SELECT id FROM kept;",
        )
        .await?;
    for database in ["by_copy", "by_log", "gone"] {
        cluster
            .sql("postgres", &format!("CREATE DATABASE {database}"))
            .await?;
        cluster
            .sql(
                database,
                "CREATE TABLE old AS SELECT generate_series(1, 500) AS id",
            )
            .await?;
    }
    client.batch_execute("VACUUM").await?;
    Ok(())
}

async fn upheaval(cluster: &Cluster) -> Result<()> {
    let client = cluster.connect("postgres").await?;
    everpoint_testkit::change_mixed_data(&client).await?;
    for statement in UPHEAVAL {
        client.batch_execute(statement).await.context(statement)?;
    }
    client
        .batch_execute(
            "BEGIN; UPDATE kept SET note = 'prepared' WHERE id < 100; PREPARE TRANSACTION 'one'",
        )
        .await?;
    client.batch_execute("CHECKPOINT").await?;
    client.batch_execute("COMMIT PREPARED 'one'").await?;
    // Still undecided when the backup is taken.
    client
        .batch_execute("BEGIN; CREATE TABLE promised AS SELECT 1 AS id; PREPARE TRANSACTION 'two'")
        .await?;
    cluster.sql("postgres", "DROP DATABASE gone").await?;
    for (database, strategy) in [("by_copy", "file_copy"), ("by_log", "wal_log")] {
        cluster
            .sql("postgres", &format!("DROP DATABASE {database}"))
            .await?;
        let create = format!("CREATE DATABASE {database} STRATEGY {strategy}");
        cluster.sql("postgres", &create).await?;
        cluster
            .sql(
                database,
                "CREATE TABLE new AS SELECT generate_series(1, 900) AS id",
            )
            .await?;
    }
    Ok(())
}

on_every_version! {
    async fn a_differential_restores_what_a_full_backup_and_its_log_restore(server: Server) -> Result<()> {
        let major = server.major();
        let cluster = Cluster::builder(major)
            .setting("max_prepared_transactions = 5")
            .setting(&format!("wal_compression = {}", if major < 17 { "pglz" } else { "lz4" }))
            .wal_segment_size(SegmentSize::try_from(if major == 16 { 1 << 20 } else { 16 << 20 })?)
            .start()
            .await?;
        let everpoint = Everpoint::with(&cluster).await?;
        prepare(&cluster).await?;
        let receiver = everpoint.receive()?;
        everpoint.full().await?;
        let compared = everpoint.json(&["backup", NAME, "--type", "differential", "--check-changes"]).await?;
        upheaval(&cluster).await?;
        let compared_again =
            everpoint.json(&["backup", NAME, "--type", "differential", "--check-changes"]).await?;
        assert_eq!([&compared["type"], &compared_again["type"]], ["differential"; 2]);
        let ended = everpoint.run(&["--output", "json", "backup", NAME, "--type", "differential"]).await?;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(!ended.err.contains("warning"), "{}", ended.err);
        let last: serde_json::Value = serde_json::from_str(&ended.out)?;
        let read = |row: &serde_json::Value| row["read_bytes"].as_u64().unwrap_or_default();
        assert!(read(&last) * 3 < read(&compared) * 2, "{last} {compared}");
        let expected = fingerprint(&cluster).await?;
        let end = nudge(&cluster).await?;
        everpoint.wait_until_stored(end).await?;
        receiver.stop().await?;
        let target = ["--lsn", &end.lsn.to_string()];
        let quick = everpoint.restore(major, &target).await?;
        assert_same(&expected, &fingerprint(&quick).await?);
        // Without the differentials the log is replayed from the full backup on.
        for entry in fs::read_dir(everpoint.objects(&format!("instances/{NAME}/backups")))? {
            let path = entry?.path();
            if path.to_string_lossy().contains("differential") {
                fs::remove_dir_all(path)?;
            }
        }
        let replayed = everpoint.restore(major, &target).await?;
        // Replay leaves sequences ahead.
        assert_same(&fingerprint(&quick).await?, &fingerprint(&replayed).await?);
        for restored in [&quick, &replayed] {
            restored.sql("postgres", "COMMIT PREPARED 'two'").await?;
            assert_eq!(restored.value("postgres", "SELECT id FROM promised").await?, "1");
            check_integrity(restored).await?;
        }
        Ok(())
    }
}

/// Rows of a table that are found by its index alone, wherever the visibility map allows it.
async fn index_only_count(cluster: &Cluster, table: &str) -> Result<String> {
    let client = cluster.connect("postgres").await?;
    client
        .batch_execute("SET enable_seqscan = off; SET enable_bitmapscan = off")
        .await?;
    let query = format!("SELECT count(*)::text FROM {table} WHERE id > 0");
    let plan = client.query(&format!("EXPLAIN {query}"), &[]).await?;
    let plan: Vec<String> = plan.iter().map(|row| row.get(0)).collect();
    ensure!(plan.concat().contains("Index Only Scan"), "{plan:?}");
    Ok(client.query_one(&query, &[]).await?.get(0))
}

on_every_version! {
    // Until some minor release of 18, changes of rows clear bits of the visibility map without their records naming
    // its block: nothing but copying that map whole brings it into a differential.
    async fn rows_deleted_from_frozen_pages_are_not_visible_in_a_restored_differential(
        server: Server
    ) -> Result<()> {
        let cluster = Cluster::builder(server.major()).setting("autovacuum = off").start().await?;
        let everpoint = Everpoint::with(&cluster).await?;
        let table = "CREATE EXTENSION pg_visibility;
            CREATE TABLE seen (id int PRIMARY KEY, note text);
            INSERT INTO seen SELECT i, md5(i::text) FROM generate_series(1, 30000) i";
        cluster.sql("postgres", table).await?;
        cluster.sql("postgres", "VACUUM (FREEZE, ANALYZE) seen").await?;
        let marked = "SELECT all_visible > 200 AND all_visible = all_frozen FROM pg_visibility_map_summary('seen')";
        assert_eq!(cluster.value("postgres", marked).await?, "t");
        everpoint.full().await?;
        cluster.sql("postgres", "DELETE FROM seen WHERE id % 40 = 0").await?;
        cluster.sql("postgres", "UPDATE seen SET note = 'changed' WHERE id % 90 = 1").await?;
        cluster.sql("postgres", "INSERT INTO seen SELECT i, 'late' FROM generate_series(30001, 30100) i").await?;
        let checked = everpoint.json(&["backup", NAME, "--type", "differential", "--check-changes"]).await?;
        assert_eq!(checked["type"], "differential");
        everpoint.differential().await?;

        let restored = everpoint.restore(server.major(), &[]).await?;
        for check in ["pg_check_visible", "pg_check_frozen"] {
            let wrong = format!("SELECT count(*) FROM {check}('seen')");
            assert_eq!(restored.value("postgres", &wrong).await?, "0", "{check}");
        }
        let rows = 30_000 - 30_000 / 40 + 100;
        assert_eq!(index_only_count(&restored, "seen").await?, rows.to_string());
        assert_eq!(index_only_count(&cluster, "seen").await?, rows.to_string());
        Ok(())
    }
}

on_oldest_and_newest! {
    async fn a_damaged_summary_is_named_not_used_and_made_anew(server: Server) -> Result<()> {
        let cluster = Cluster::builder(server.major()).start().await?;
        let everpoint = Everpoint::with(&cluster).await?;
        prepare(&cluster).await?;
        let receiver = everpoint.receive()?;
        everpoint.full().await?;
        cluster.sql("postgres", "UPDATE kept SET note = 'changed' WHERE id % 50 = 0").await?;
        everpoint.wait_until_stored(nudge(&cluster).await?).await?;
        receiver.stop().await?;
        let folder = everpoint.objects(&format!("instances/{NAME}/summaries/00000001"));
        let mut stored: Vec<_> = fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
        stored.sort();
        let last = stored.last().context("no summary is stored")?.clone();
        corrupt::flip_byte(&last, 100)?;

        let name = last.file_name().context("a name")?.to_string_lossy().into_owned();
        let verified = everpoint.run(&["verify", NAME]).await?;
        assert_eq!(verified.code, Some(4), "{verified:?}");
        assert!(verified.out.contains(&name) && verified.out.contains("wal summarize"), "{verified:?}");
        let ended = everpoint.run(&["backup", NAME, "--type", "differential", "--check-changes"]).await?;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(ended.err.contains(&name), "{ended:?}");

        let made = everpoint.json(&["wal", "summarize", NAME]).await?;
        assert_eq!(made["deleted"], 1, "{made}");
        assert_eq!(everpoint.run(&["verify", NAME]).await?.code, Some(0));
        let again = everpoint.json(&["wal", "summarize", NAME]).await?;
        assert_eq!(again["made"], 0, "{again}");
        let all = everpoint.json(&["wal", "summarize", NAME, "--rebuild"]).await?;
        assert!(all["deleted"].as_u64() > Some(0), "{all}");
        let ended = everpoint.run(&["backup", NAME, "--type", "differential", "--check-changes"]).await?;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(!ended.err.contains("warning"), "{ended:?}");
        Ok(())
    }
}
