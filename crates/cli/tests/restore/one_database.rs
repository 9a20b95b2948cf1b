//! One database of many, recovered alone in a caged scratch server.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result};
use everpoint_pgformat::{backup_label::BackupLabel, wal::segment::SegmentSize};
use everpoint_testkit::{
    Cluster, Scratch, Target, Workload, change_mixed_data,
    compare::{assert_same, assert_same_database, fingerprint, fingerprint_database},
    mixed_data, on_every_version,
};

use crate::{
    everpoint::{Everpoint, NAME, REFUSED, store},
    versions::on_oldest_and_newest,
};

/// Every file below a directory with its contents.
fn files(directory: &Path) -> Result<BTreeMap<std::path::PathBuf, Vec<u8>>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        match path.is_dir() {
            true => found.extend(files(&path)?),
            false => drop(found.insert(path.clone(), fs::read(&path)?)),
        }
    }
    Ok(found)
}

async fn oid(cluster: &Cluster, database: &str) -> Result<u32> {
    let query = format!("SELECT oid FROM pg_database WHERE datname = '{database}'");
    Ok(cluster.value("postgres", &query).await?.parse()?)
}

on_every_version! {
    async fn one_database_of_many_is_recovered_while_all_of_them_work(server: Server) -> Result<()> {
        let major = server.major();
        let mut builder = Cluster::builder(major)
            .tablespace("outside")
            .setting("wal_level = logical")
            .setting("wal_compression = pglz")
            .setting("max_prepared_transactions = 10")
            .setting("max_connections = 130");
        if major.is_multiple_of(2) {
            builder = builder.without_data_checksums();
        }
        let cluster = builder.start().await?;
        let everpoint = Everpoint::with(&cluster).await?;
        cluster.sql("postgres", "CREATE DATABASE shop").await?;
        let shop = cluster.connect("shop").await?;
        mixed_data(&shop, 4_000_000.into()).await?;
        shop.batch_execute("CREATE TABLE far TABLESPACE outside AS SELECT generate_series(1, 3000) AS id").await?;
        let mut others = Vec::new();
        for number in 0..20 {
            let name = format!("other_{number}");
            let tablespace = if number == 0 { " TABLESPACE outside" } else { "" };
            cluster.sql("postgres", &format!("CREATE DATABASE {name}{tablespace}")).await?;
            let work = Workload::new(&name).writers(1).pause(std::time::Duration::from_millis(20));
            others.push((name, work.start(&cluster).await?));
        }
        let ours = Workload::new("shop").writers(2).start(&cluster).await?;
        everpoint.full().await?;
        change_mixed_data(&shop).await?;
        ours.wait_for_commits(50).await?;
        everpoint.differential().await?;
        // Made after the backup, so that only the log knows it.
        let place = Scratch::new()?;
        let late = place.private_directory("late")?;
        cluster.sql("postgres", &format!("CREATE TABLESPACE late LOCATION '{}'", late.display())).await?;
        for name in ["shop", "other_1"] {
            cluster.sql(name, "CREATE TABLE later TABLESPACE late AS SELECT generate_series(1, 2000) AS id").await?;
        }
        for name in ["shop", "other_2"] {
            let prepare = format!(
                "BEGIN; CREATE TABLE never (id int); INSERT INTO never VALUES (1);
                 PREPARE TRANSACTION 'left in {name}'"
            );
            cluster.sql(name, &prepare).await?;
        }
        ours.wait_for_commits(50).await?;
        let ledger = ours.stop().await?;
        // Settings that get in the way of whoever connects to the database.
        for setting in [
            "ALTER DATABASE shop SET default_transaction_read_only = on",
            "ALTER DATABASE shop SET session_preload_libraries = 'nowhere'",
            "ALTER ROLE postgres IN DATABASE shop SET local_preload_libraries = 'nowhere'",
        ] {
            cluster.sql("postgres", setting).await?;
        }
        let expected = fingerprint_database(&shop).await?;
        let then = cluster.moment().await?;
        cluster.sql("postgres", "ALTER DATABASE shop RESET ALL").await?;
        cluster.sql("postgres", "ALTER ROLE postgres IN DATABASE shop RESET ALL").await?;
        shop.batch_execute("TRUNCATE far; DROP TABLE workload.line").await?;
        store(&everpoint, &cluster).await?;
        cluster.checkpoint().await?;
        let live_files = files(&late)?;

        let inspected = everpoint.inspect(&["main/shop", "--at", &then.time.to_string()]).await?;
        assert_same_database(&expected, &inspected.content().await?);
        let client = inspected.connect().await?;
        ledger.check(&client, Target::Time(then.time)).await?;
        // Only it is there.
        assert_eq!(inspected.directories()?, [oid(&cluster, "shop").await?].into());
        let value = async |query: &str| -> Result<String> {
            let row = client.query_one(query, &[]).await?;
            Ok(row.get::<_, Option<String>>(0).unwrap_or_default())
        };
        for (setting, wanted) in [
            ("listen_addresses", ""),
            ("archive_mode", "off"),
            ("shared_preload_libraries", ""),
            ("max_logical_replication_workers", "0"),
            ("autovacuum", "off"),
            ("default_transaction_read_only", "off"),
        ] {
            assert_eq!(value(&format!("SELECT current_setting('{setting}')")).await?, wanted, "{setting}");
        }
        let prepared = "SELECT string_agg(gid, ',') FROM pg_prepared_xacts WHERE database = current_database()";
        assert_eq!(value(prepared).await?, "");
        assert_eq!(value("SELECT to_regclass('public.never')::text").await?, "");
        let workers = "SELECT string_agg(backend_type, ',') FROM pg_stat_activity
             WHERE backend_type LIKE '%logical%' OR backend_type LIKE '%autovacuum%'";
        assert_eq!(value(workers).await?, "");
        client.batch_execute("CREATE EXTENSION amcheck").await?;
        let check = "SELECT count(bt_index_check(c.oid, true))::text FROM pg_class c JOIN pg_am a ON a.oid = c.relam
             WHERE a.amname = 'btree' AND c.relkind = 'i' AND c.relpersistence = 'p'";
        assert!(value(check).await?.parse::<u32>()? > 100);
        // Whatever is done in the scratch stays there: its tablespaces are its own.
        client.batch_execute("DROP TABLE later; TRUNCATE far; CHECKPOINT").await?;
        client.batch_execute("UPDATE workload.account SET filler = 'of the copy'; CHECKPOINT").await?;
        inspected.end().await?;
        cluster.checkpoint().await?;
        assert_eq!(files(&late)?.len(), live_files.len());
        assert_eq!(cluster.connect("shop").await?.query_one("SELECT count(*) FROM later", &[]).await?.get::<_, i64>(0), 2000);

        // As late as possible.
        let inspected = everpoint.inspect(&["main/shop"]).await?;
        assert_same_database(&fingerprint_database(&shop).await?, &inspected.content().await?);
        inspected.end().await?;
        for (name, work) in others {
            let ledger = work.stop().await?;
            ledger.check(&cluster.connect(&name).await?, Target::Latest).await?;
        }
        Ok(())
    }
}

on_oldest_and_newest! {
    async fn killed_restore_is_cleaned_up_by_the_next_one(server: Server) -> Result<()> {
        let cluster = Cluster::builder(server.major()).start().await?;
        let everpoint = Everpoint::with(&cluster).await?;
        cluster.sql("postgres", "CREATE DATABASE shop").await?;
        mixed_data(&cluster.connect("shop").await?, 4_000_000.into()).await?;
        everpoint.full().await?;
        cluster.sql("shop", "CREATE TABLE later AS SELECT generate_series(1, 1000) AS id").await?;
        store(&everpoint, &cluster).await?;
        let before = fingerprint(&cluster).await?;
        for state in ["Fetching", "Recovering"] {
            let mut inspecting = everpoint.begin_inspecting(&["main/shop"])?;
            inspecting.until(state).await?;
            inspecting.kill().await?;
            assert_eq!(everpoint.left_in_scratch()?.len(), 1, "{state}");
            let mut inspecting = everpoint.begin_inspecting(&["main/shop"])?;
            inspecting.until(state).await?;
            assert_eq!(everpoint.left_in_scratch()?.len(), 1, "{state}: the dead one is gone");
            // It may have come up just then.
            let code = inspecting.interrupt().await?;
            assert!(matches!(code, Some(0 | 1)), "{state}: {code:?}");
            assert!(everpoint.left_in_scratch()?.is_empty(), "{state}");
        }
        // The server outlives the command, and is ended by the next.
        let inspected = everpoint.inspect(&["main/shop"]).await?;
        let orphan = inspected.connect().await?;
        let data = inspected.data()?;
        inspected.kill().await?;
        orphan.simple_query("SELECT 1").await?;
        let living = everpoint.inspect(&["main/shop"]).await?;
        assert!(!data.exists());
        assert!(orphan.simple_query("SELECT 1").await.is_err());
        // A living one is let alone.
        let content = living.content().await?;
        let refused = everpoint.try_inspect(&["main/nowhere"]).await?;
        assert_eq!(refused.code, Some(REFUSED), "{refused:?}");
        assert!(refused.err.contains("shop"), "{refused:?}");
        assert_same_database(&content, &living.content().await?);
        living.end().await?;
        assert_same(&before, &fingerprint(&cluster).await?);
        Ok(())
    }
}

/// Recovery reads the checkpoint's record before it goes back to where replay begins. A server that writes much while
/// it checkpoints puts more log between the two than is supplied ahead.
#[tokio::test]
async fn much_log_within_the_checkpoint_of_a_backup_does_not_stop_recovery() -> Result<()> {
    let cluster = Cluster::builder(18)
        .wal_segment_size(SegmentSize::try_from(1 << 20)?)
        .setting("checkpoint_timeout = 30s")
        .setting("checkpoint_completion_target = 0.2")
        .setting("max_wal_size = 1GB")
        .setting("shared_buffers = 128MB")
        .start()
        .await?;
    let everpoint = Everpoint::with(&cluster).await?;
    cluster.sql("postgres", "CREATE DATABASE shop").await?;
    let table = "CREATE TABLE t AS SELECT i AS id, repeat('x', 900) AS filler FROM generate_series(1, 40000) i";
    cluster.sql("shop", table).await?;
    let backup = everpoint
        .command(&["backup", NAME, "--type", "full", "--spread-checkpoint"])
        .kill_on_drop(true)
        .spawn()?;
    let running = "SELECT count(*) > 0 FROM pg_stat_activity WHERE query LIKE '%pg_backup_start%' AND state = 'active' AND pid <> pg_backend_pid()";
    cluster.wait_until_true(running, "a backup begins").await?;
    for _ in 0..24 {
        let message = "SELECT pg_logical_emit_message(false, 'filler', repeat('x', 1000000))";
        cluster.sql("shop", message).await?;
    }
    let ended = backup.wait_with_output().await?;
    assert!(ended.status.success(), "{ended:?}");
    let expected = fingerprint_database(&cluster.connect("shop").await?).await?;
    store(&everpoint, &cluster).await?;

    // As the backup's label has it.
    let place = Scratch::new()?;
    let to = place.path().join("restored");
    everpoint.restore_into(&to, &[]).await?;
    let label = BackupLabel::parse(&fs::read_to_string(to.join("backup_label"))?)?;
    let between = label.checkpoint.bytes_since(label.start) >> 20;
    assert!(
        between > 10,
        "{between} segments between redo and checkpoint"
    );
    let limit = std::time::Duration::from_secs(120);
    let inspected = tokio::time::timeout(limit, everpoint.inspect(&["main/shop"])).await??;
    assert_same_database(&expected, &inspected.content().await?);
    inspected.end().await
}

/// What replay adds to a database is not known beforehand, and a live server may be on the same disk.
#[tokio::test]
async fn a_restore_ends_before_the_disk_of_its_scratch_directory_is_full() -> Result<()> {
    let cluster = Cluster::builder(18)
        .wal_segment_size(SegmentSize::try_from(1 << 20)?)
        .start()
        .await?;
    let everpoint = Everpoint::with(&cluster).await?;
    cluster.sql("postgres", "CREATE DATABASE shop").await?;
    everpoint.full().await?;
    let table = "CREATE TABLE t AS SELECT i AS id, repeat('x', 900) AS filler FROM generate_series(1, 180000) i";
    cluster.sql("shop", table).await?;
    store(&everpoint, &cluster).await?;
    let base = everpoint.scratch_base();
    fs::create_dir(&base)?;
    let arguments = everpoint.inspect_arguments(&["main/shop"])?;
    let with_disk = |megabytes| everpoint.run_with_disk(&base, megabytes, &arguments);

    let small = with_disk(100).await?;
    assert_eq!(small.code, Some(REFUSED), "{small:?}");
    assert!(small.err.contains("has room for"), "{small:?}");
    let grown = with_disk(170).await?;
    assert_eq!(grown.code, Some(1), "{grown:?}");
    assert!(grown.err.contains("Recovering"), "{grown:?}");
    assert!(grown.err.contains("the scratch directory has"), "{grown:?}");
    let left = base.to_str().context("a path in UTF-8")?;
    assert!(!grown.out.contains(left), "{grown:?}");
    Ok(())
}
