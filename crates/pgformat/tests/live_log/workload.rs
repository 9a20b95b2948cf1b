//! What makes a server write records of every kind.

use std::fs;

use anyhow::{Context, Result};
use everpoint_pgformat::{
    ByteCount, Lsn,
    wal::segment::{SegmentName, SegmentSize},
};
use everpoint_testkit::{Cluster, ClusterBuilder, StopMode, change_mixed_data, mixed_data};

/// Settings under which every kind of record is written, and no log is removed.
pub const SETTINGS: [&str; 9] = [
    "wal_level = logical",
    "track_commit_timestamp = on",
    "max_prepared_transactions = 5",
    "allow_in_place_tablespaces = on",
    "autovacuum = off",
    "checkpoint_timeout = 1d",
    "max_wal_size = 2GB",
    "wal_keep_size = 2GB",
    "full_page_writes = on",
];

/// Statements that run one by one in one session, each outside of a transaction.
const STATEMENTS: &[&str] = &[
    // Indexes of an extension whose records are of no kind of their own.
    "CREATE EXTENSION bloom",
    "CREATE TABLE flowers (id int PRIMARY KEY, a int, b int)",
    "CREATE INDEX ON flowers USING bloom (a, b)",
    "INSERT INTO flowers SELECT i, i % 7, i % 11 FROM generate_series(1, 2000) i",
    "DELETE FROM flowers WHERE id % 3 = 0",
    "VACUUM flowers",
    // Indexes that grow, split, shrink and are cleaned.
    "INSERT INTO mixed.document (title, body, tags, span, at) SELECT 'more ' || i, '{}', ARRAY['tag' || i],
         int4range(i, i + 3), now() FROM generate_series(1, 3000) i",
    "DELETE FROM mixed.document WHERE title LIKE 'more %'",
    "SELECT gin_clean_pending_list('mixed.document_tags')",
    "SELECT brin_summarize_new_values('mixed.document_at')",
    "SELECT brin_desummarize_range('mixed.document_at', 0)",
    "VACUUM mixed.document",
    "REINDEX TABLE mixed.document",
    // Tables that are written anew, emptied, frozen, locked.
    "CREATE TABLE rewritten AS SELECT i AS id, md5(i::text) AS note FROM generate_series(1, 3000) i",
    "ALTER TABLE rewritten ADD PRIMARY KEY (id)",
    "VACUUM FULL rewritten",
    "CLUSTER rewritten USING rewritten_pkey",
    "VACUUM FULL pg_class",
    "VACUUM (FREEZE) rewritten",
    "DELETE FROM rewritten WHERE id > 100",
    "VACUUM rewritten",
    "BEGIN; SELECT FROM rewritten WHERE id = 1 FOR SHARE; SAVEPOINT a;
     UPDATE rewritten SET note = 'shared' WHERE id = 1; COMMIT",
    "UPDATE rewritten SET note = 'changed in place' WHERE id = 2",
    "TRUNCATE rewritten",
    // Transactions in parts, prepared ones, and such that are rolled back.
    "BEGIN; INSERT INTO rewritten VALUES (1); SAVEPOINT a; INSERT INTO rewritten VALUES (2); ROLLBACK TO a;
     SAVEPOINT b; INSERT INTO rewritten VALUES (3); COMMIT",
    "BEGIN; CREATE TABLE never (id int); INSERT INTO never VALUES (1); ROLLBACK",
    "BEGIN; INSERT INTO rewritten VALUES (4); CREATE TABLE promised (id int); DROP TABLE flowers;
     PREPARE TRANSACTION 'kept'",
    "BEGIN; INSERT INTO rewritten VALUES (5); SAVEPOINT a; CREATE TABLE refused (id int);
     PREPARE TRANSACTION 'not kept'",
    "COMMIT PREPARED 'kept'",
    "ROLLBACK PREPARED 'not kept'",
    "DO $$ BEGIN FOR i IN 1..70 LOOP
         BEGIN INSERT INTO rewritten VALUES (1000 + i); EXCEPTION WHEN OTHERS THEN NULL; END;
     END LOOP; END $$",
    // A page of transactions' ends is full after 32768 of them.
    "DO $$ BEGIN FOR i IN 1..34000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$",
    // Large objects.
    "SELECT lo_from_bytea(910, convert_to(repeat('large', 20000), 'UTF8'))",
    "SELECT lo_put(910, 12345, 'changed')",
    "SELECT lo_unlink(910)",
    // Unlogged tables.
    "CREATE UNLOGGED TABLE volatile (id int PRIMARY KEY)",
    "INSERT INTO volatile SELECT generate_series(1, 1000)",
    "ALTER TABLE volatile SET LOGGED",
    "ALTER TABLE volatile SET UNLOGGED",
    // Partitions.
    "CREATE TABLE parts (id int, note text) PARTITION BY RANGE (id)",
    "CREATE TABLE parts_low PARTITION OF parts FOR VALUES FROM (0) TO (500)",
    "CREATE TABLE parts_high (id int, note text)",
    "INSERT INTO parts_high SELECT i, 'high' FROM generate_series(500, 999) i",
    "ALTER TABLE parts ATTACH PARTITION parts_high FOR VALUES FROM (500) TO (1000)",
    "INSERT INTO parts SELECT i, 'low' FROM generate_series(0, 499) i",
    "UPDATE parts SET id = id + 500 WHERE id < 50",
    "ALTER TABLE parts DETACH PARTITION parts_low",
    "DROP TABLE parts",
    // Sequences.
    "CREATE SEQUENCE numbers",
    "SELECT count(nextval('numbers')) FROM generate_series(1, 100)",
    "SELECT setval('numbers', 7)",
    "ALTER SEQUENCE numbers RESTART",
    // Messages, restore points, where changes came from.
    "SELECT pg_logical_emit_message(true, 'everpoint', 'a message')",
    "SELECT pg_logical_emit_message(false, 'everpoint', repeat('long', 300000))",
    "SELECT pg_create_restore_point('before the mistake')",
    "SELECT pg_replication_origin_create('elsewhere')",
    "SELECT pg_replication_origin_session_setup('elsewhere')",
    "BEGIN; SELECT pg_replication_origin_xact_setup('1/23456', now()); INSERT INTO rewritten VALUES (9); COMMIT",
    "SELECT pg_replication_origin_session_reset()",
    "SELECT pg_replication_origin_advance('elsewhere', '1/34567')",
    "SELECT pg_replication_origin_drop('elsewhere')",
    // Databases and tablespaces, the catalog of databases in another file.
    "VACUUM FULL pg_database",
    "CREATE TABLESPACE aside LOCATION ''",
    "CREATE DATABASE by_copy STRATEGY file_copy",
    "CREATE DATABASE by_log STRATEGY wal_log",
    "ALTER DATABASE by_copy SET TABLESPACE aside",
    "ALTER DATABASE by_log RENAME TO renamed",
    "DROP DATABASE by_copy",
    "DROP DATABASE renamed",
    "DROP TABLESPACE aside",
    "SELECT pg_backup_start('a backup', true)",
    "SELECT pg_backup_stop()",
    "SELECT pg_switch_wal()",
];

/// Kinds of records that are in the log afterwards. One of each resource manager is among them.
pub const KINDS: &[&str] = &[
    "XLOG CHECKPOINT_ONLINE",
    "XLOG CHECKPOINT_SHUTDOWN",
    "XLOG SWITCH",
    "XLOG RESTORE_POINT",
    "XLOG BACKUP_END",
    "XLOG PARAMETER_CHANGE",
    "XLOG FPI",
    "XLOG FPI_FOR_HINT",
    "XLOG OVERWRITE_CONTRECORD",
    "Transaction COMMIT",
    "Transaction ABORT",
    "Transaction PREPARE",
    "Transaction COMMIT_PREPARED",
    "Transaction ABORT_PREPARED",
    "Transaction ASSIGNMENT",
    "Storage CREATE",
    "Storage TRUNCATE",
    "CLOG ZEROPAGE",
    "Database CREATE_FILE_COPY",
    "Database CREATE_WAL_LOG",
    "Database DROP",
    "Tablespace CREATE",
    "Tablespace DROP",
    "MultiXact CREATE_ID",
    "RelMap UPDATE",
    "Standby LOCK",
    "Standby RUNNING_XACTS",
    "Heap2 VISIBLE",
    "Heap2 MULTI_INSERT",
    "Heap2 NEW_CID",
    "Heap INSERT",
    "Heap DELETE",
    "Heap UPDATE",
    "Heap HOT_UPDATE",
    "Heap TRUNCATE",
    "Heap LOCK",
    "Heap INPLACE",
    "Btree INSERT_LEAF",
    "Btree NEWROOT",
    "Btree VACUUM",
    "Hash INSERT",
    "Gin INSERT",
    "Gist PAGE_UPDATE",
    "Sequence LOG",
    "SPGist ADD_LEAF",
    "BRIN CREATE_INDEX",
    "BRIN DESUMMARIZE",
    "CommitTs ZEROPAGE",
    "ReplicationOrigin SET",
    "ReplicationOrigin DROP",
    "Generic Generic",
    "LogicalMessage MESSAGE",
];

/// A cluster that the workload can run on.
pub fn cluster(major: u16) -> ClusterBuilder {
    let mut builder = Cluster::builder(major);
    if major >= 17 {
        builder = builder.setting("summarize_wal = on");
    }
    SETTINGS
        .iter()
        .fold(builder, |builder, line| builder.setting(line))
}

/// Runs all of it in the cluster's first database.
pub async fn run(cluster: &mut Cluster) -> Result<()> {
    let client = cluster.connect("postgres").await?;
    mixed_data(&client, ByteCount::new(2 << 20)).await?;
    client.batch_execute("CHECKPOINT").await?;
    change_mixed_data(&client).await?;
    for statement in STATEMENTS {
        client.batch_execute(statement).await.context(*statement)?;
    }
    drop(client);
    cluster.configure("max_connections = 50")?;
    cluster.restart().await
}

/// The ways of compressing page images that the server was built with.
pub async fn compressions(cluster: &Cluster) -> Result<Vec<String>> {
    let ways = "SELECT unnest(enumvals) FROM pg_settings WHERE name = 'wal_compression'";
    let ways = cluster.rows("postgres", ways).await?.concat();
    Ok(ways
        .into_iter()
        .filter(|way| way != "on" && way != "off")
        .collect())
}

/// Drops a database `squeezed_<way>` and a table of that name while page images are compressed by one of the ways,
/// each right behind a checkpoint: so the log holds the rows of the catalogs in images alone.
pub async fn drop_with_compressed_images(cluster: &Cluster, way: &str) -> Result<()> {
    let name = format!("squeezed_{way}");
    let client = cluster.connect("postgres").await?;
    for statement in [
        format!("SET wal_compression = {way}"),
        format!("CREATE DATABASE {name}"),
        format!("CREATE TABLE {name} AS SELECT 1 AS id"),
        "CHECKPOINT".to_owned(),
        format!("DROP TABLE {name}"),
        format!("DROP DATABASE {name}"),
    ] {
        client.batch_execute(&statement).await.context(statement)?;
    }
    Ok(())
}

/// Crashes the server while a record of several segments is not on disk to its end, and starts it again: it
/// puts another record into the place of the continuation. Returns where the lost record begins.
pub async fn lose_a_continuation(cluster: &mut Cluster) -> Result<Lsn> {
    cluster.sql("postgres", "CHECKPOINT").await?;
    let lost = cluster.current_lsn().await?;
    let size = cluster.value(
        "postgres",
        "SELECT setting FROM pg_settings WHERE name = 'wal_segment_size'",
    );
    let size = size.await?.parse::<u64>()?;
    let message = format!(
        "SELECT pg_logical_emit_message(true, 'everpoint', repeat('x', {}))",
        size * 5 / 2
    );
    cluster.sql("postgres", &message).await?;
    cluster.stop(StopMode::Immediate).await?;
    let size = SegmentSize::try_from(u32::try_from(size)?)?;
    for entry in fs::read_dir(cluster.data_directory().join("pg_wal"))? {
        let path = entry?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(SegmentName::parse);
        if name.and_then(|name| name.number(size)) > Some(size.segment_of(lost)) {
            fs::remove_file(path)?;
        }
    }
    cluster.start().await?;
    Ok(lost)
}
