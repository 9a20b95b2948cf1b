//! `everpoint backup`: killed, interrupted, twice at once, beside damage, changes and a server that goes.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use anyhow::{Context, Result};
use everpoint_testkit::{Cluster, StopMode, Target, Workload, compare, corrupt};
use rustix::process::Signal;

use crate::{
    on_15_and_18,
    support::{Everpoint, Halted, end_lock, random_below, until, until_let_go},
};

/// Backups killed in each test of it.
const KILLED: u64 = 6;

on_15_and_18! {
    async fn a_database_that_is_made_while_a_backup_begins_is_in_it(server: Server) -> Result<()> {
        let everpoint = Everpoint::new()?;
        let cluster = Cluster::builder(server.major()).start().await?;
        everpoint.add(&cluster)?;
        // The backup's log begins with the checkpoint that it waits for.
        let stalled = Halted::process(&cluster, "checkpointer").await?;
        let backup = everpoint.start(["backup", "main"])?;
        let waits = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE '%pg_backup_start%' AND wait_event LIKE 'Checkpoint%')";
        cluster.wait_until_true(waits, "the backup waits for a checkpoint").await?;
        cluster.sql("postgres", "CREATE DATABASE made STRATEGY wal_log").await?;
        drop(stalled);
        backup.wait().await?.expect(0);
        let window = everpoint.json(["window", "main"])?;
        let databases = window["databases"].as_array().context("databases")?;
        let made = databases.iter().find(|database| database["name"] == "made");
        let made = made.with_context(|| format!("the database in {window}"))?;
        assert_ne!(made["ranges"].as_array().map(Vec::len), Some(0), "{window}");
        Ok(())
    }

    async fn a_killed_backup_is_not_seen_and_the_next_one_removes_what_it_left(server: Server) -> Result<()> {
        let everpoint = Everpoint::new()?;
        let cluster = Cluster::builder(server.major()).start().await?;
        everpoint.add(&cluster)?;
        let begun = Instant::now();
        everpoint.back_up()?;
        let whole = begun.elapsed();
        for _ in 0..KILLED {
            let sql = "CREATE TABLE IF NOT EXISTS t (a text);
                       INSERT INTO t SELECT md5(random()::text) FROM generate_series(1, 5000)";
            cluster.sql("postgres", sql).await?;
            let before = everpoint.backup_ids()?;
            // Nothing shared, so that there is much to write.
            let backup = everpoint.start(["backup", "main", "--independent", "--jobs", "1"])?;
            let after = whole * u32::try_from(random_below(1000))? / 1000;
            tokio::time::sleep(after).await;
            let finished = backup.kill()?;
            if finished.code == 0 {
                continue;
            }
            // What is seen is whole.
            let seen = everpoint.backup_ids()?;
            everpoint.verify()?;
            if seen.len() > before.len() {
                // Killed behind its last step: it is a backup like any other.
                continue;
            }
            assert_eq!(seen, before, "killed after {after:?}");
            until_let_go(&cluster).await?;
            everpoint.back_up()?;
            let ids = everpoint.backup_ids()?;
            assert_eq!(ids.len(), before.len() + 1);
            for folder in ["instances/main/packs", "instances/main/backups"] {
                for object in everpoint.objects(folder)? {
                    assert!(ids.iter().any(|id| object.contains(id.as_str())), "{object} was left");
                    assert!(!object.contains('#'), "{object} was left");
                }
            }
            everpoint.verify()?;
        }
        // One that surely had written packs.
        let mut backup = everpoint.start(["backup", "main", "--independent"])?;
        backup.wait_until_it_says("begins at").await?;
        let before = everpoint.backup_ids()?;
        until("there is a pack without a manifest", async || {
            let packs = everpoint.objects("instances/main/packs")?;
            Ok(packs.iter().any(|pack| !before.iter().any(|id| pack.contains(id.as_str()))))
        })
        .await?;
        if backup.kill()?.code != 0 {
            until_let_go(&cluster).await?;
            everpoint.succeed(["backup", "main"])?.says("removed what interrupted backups left");
        }
        everpoint.verify()
    }

    /// Without a receiver it receives the log itself.
    async fn a_backup_waits_for_a_slot_that_others_hold_no_longer_than_it_may(server: Server) -> Result<()> {
        let everpoint = Everpoint::new()?;
        let cluster = Cluster::builder(server.major()).tablespace("log").start().await?;
        everpoint.add(&cluster)?;
        everpoint.back_up()?;
        let directory = cluster.tablespace_directory("log");
        let mut holder = server.command("pg_receivewal")?;
        holder.arg("-d").arg(cluster.connection_string("postgres"));
        holder.args(["-S", "everpoint_main", "-D"]).arg(directory);
        let mut holder = holder.spawn()?;
        let held = "SELECT active FROM pg_replication_slots";
        until("the slot is held", async || Ok(cluster.value("postgres", held).await? == "t")).await?;
        let late = everpoint.run(["backup", "main", "--log-wait", "1s"])?.expect(1);
        late.says("within 1 s. Receiving it failed").says("everpoint_main");
        let mut cancelled = everpoint.start(["backup", "main"])?;
        let waits = "SELECT count(*) = 2 FROM pg_locks WHERE locktype = 'advisory'";
        until("it waits", async || Ok(cluster.value("postgres", waits).await? == "t")).await?;
        cancelled.signal(Signal::INT)?;
        cancelled.wait().await?.expect(1).says("interrupted");
        assert_eq!(everpoint.backup_ids()?.len(), 1);
        holder.kill().await?;
        everpoint.back_up()?;
        everpoint.verify()
    }

    async fn an_interrupted_backup_ends_and_leaves_nothing(server: Server) -> Result<()> {
        let everpoint = Everpoint::new()?;
        let cluster = Cluster::builder(server.major()).start().await?;
        everpoint.add(&cluster)?;
        for signal in [Signal::INT, Signal::TERM] {
            let mut backup = everpoint.start(["backup", "main", "--jobs", "1"])?;
            backup.wait_until_it_says("begins at").await?;
            backup.signal(Signal::STOP)?;
            backup.signal(signal)?;
            backup.signal(Signal::CONT)?;
            let ended = backup.wait().await?;
            assert_ne!(ended.code, 0, "{ended:?}");
            assert_eq!(everpoint.backup_ids()?, Vec::<String>::new());
            if signal == Signal::INT {
                ended.expect(1).says("interrupted");
                assert_eq!(everpoint.objects("instances/main/packs")?, Vec::<String>::new());
            }
        }
        // The server knows of no backup any more: it may stop and begin another.
        until_let_go(&cluster).await?;
        everpoint.back_up()?;
        everpoint.verify()
    }

    /// The second takes the first one's packs for remains.
    async fn a_backup_whose_lock_was_taken_away_is_not_finished(server: Server) -> Result<()> {
        let everpoint = Everpoint::new()?;
        let cluster = Cluster::builder(server.major()).start().await?;
        everpoint.add(&cluster)?;
        let mut first = everpoint.start(["backup", "main"])?;
        first.wait_until_it_says("begins at").await?;
        first.signal(Signal::STOP)?;
        end_lock(&cluster).await?;
        everpoint.back_up()?;
        first.signal(Signal::CONT)?;
        first.wait().await?.expect(1);
        assert_eq!(everpoint.backup_ids()?.len(), 1);
        everpoint.verify()?;
        everpoint.back_up()?;
        everpoint.verify()
    }

    async fn a_second_backup_is_refused_and_names_who_takes_the_first(server: Server) -> Result<()> {
        let everpoint = Everpoint::new()?;
        let cluster = Cluster::builder(server.major()).start().await?;
        everpoint.add(&cluster)?;
        let mut first = everpoint.start(["backup", "main"])?;
        first.wait_until_it_says("begins at").await?;
        first.signal(Signal::STOP)?;
        let locks = "SELECT pid FROM pg_locks WHERE locktype = 'advisory'";
        let holder = cluster.value("postgres", locks).await?;
        for refused in [
            everpoint.run(["backup", "main"])?,
            everpoint.run(["expire", "main", "--retention-days", "1"])?,
        ] {
            let refused = refused.expect(3);
            refused.says("runs already").says(&format!("server process {holder}"));
            refused.says("application everpoint");
        }
        first.signal(Signal::CONT)?;
        first.wait().await?.expect(0);
        assert_eq!(everpoint.backup_ids()?.len(), 1);
        everpoint.verify()
    }

    async fn pages_damaged_in_the_cluster_are_backed_up_and_named(server: Server) -> Result<()> {
        let everpoint = Everpoint::new()?;
        let mut cluster = Cluster::builder(server.major()).start().await?;
        let sql = "CREATE TABLE t AS SELECT i, md5(i::text) FROM generate_series(1, 5000) i";
        cluster.sql("postgres", sql).await?;
        everpoint.add(&cluster)?;
        let sound = everpoint.back_up()?;
        assert_eq!(sound["damaged_pages"], 0, "{sound}");
        let path = cluster.relation_path("postgres", "t").await?;
        cluster.stop(StopMode::Fast).await?;
        for block in [3, 7] {
            corrupt::flip_byte(&path, block * 8192 + 100 + random_below(8000))?;
        }
        cluster.start().await?;
        let relative = path.strip_prefix(cluster.data_directory())?.to_string_lossy().into_owned();
        for kind in [&["--independent"][..], &[], &["--type", "differential"]] {
            let arguments = ["backup", "main", "--output", "json"];
            let damaged = everpoint.run(arguments.iter().chain(kind))?.expect(4);
            damaged.says(&format!("{relative} block 3, 7"));
            assert_eq!(damaged.json()?["damaged_pages"], 2, "{damaged:?}");
        }
        let rows = everpoint.json(["backups", "main"])?;
        let listed: Vec<_> = rows.as_array().unwrap().iter().map(|row| row["damaged_pages"].clone()).collect();
        assert_eq!(listed, [0, 2, 2, 2], "{rows}");
        everpoint.succeed(["backups", "main"])?.says("2 pages");
        // The damage is the cluster's: the repository holds it faithfully.
        everpoint.verify()?;
        let to = everpoint.path("restored");
        let restore = ["restore", "instance", "main", "--latest", "--to"];
        everpoint.succeed(restore.iter().map(std::ffi::OsStr::new).chain([to.as_os_str()]))?;
        let original = fs::read(&path)?;
        assert_eq!(fs::read(to.join(&relative))?, original, "the table came back otherwise");
        Ok(())
    }

    async fn files_that_come_go_and_grow_meanwhile_do_no_harm(server: Server) -> Result<()> {
        let everpoint = Everpoint::new()?;
        let cluster = Cluster::builder(server.major()).start().await?;
        everpoint.add(&cluster)?;
        let workload = Workload::new("postgres").start(&cluster).await?;
        let stop = Arc::new(AtomicBool::new(false));
        let mut changers = Vec::new();
        for number in 0..2 {
            let client = cluster.connect("postgres").await?;
            let stop = Arc::clone(&stop);
            changers.push(tokio::spawn(async move {
                let mut rounds = 0;
                while !stop.load(Ordering::Relaxed) {
                    for statement in ddl(number) {
                        client.batch_execute(&statement).await?;
                    }
                    rounds += 1;
                }
                Ok::<u32, anyhow::Error>(rounds)
            }));
        }
        for kind in ["full", "full", "differential"] {
            everpoint.succeed(["backup", "main", "--type", kind, "--jobs", "1"])?;
        }
        stop.store(true, Ordering::Relaxed);
        let mut rounds = 0;
        for changer in changers {
            rounds += changer.await??;
        }
        assert!(rounds > 0);
        let ledger = workload.stop().await?;
        everpoint.verify()?;
        everpoint.back_up()?;
        let expected = compare::fingerprint(&cluster).await?;
        // From the differential, which stands between the second full backup and the last.
        let middle = everpoint.json(["backups", "main"])?[2]["stop_lsn"].clone();
        let to = everpoint.path("middle");
        let to = to.to_str().context("a path")?;
        let lsn = middle.as_str().context("an LSN")?;
        everpoint.succeed(["restore", "instance", "main", "--lsn", lsn, "--to", to])?;
        let restored = Cluster::adopt(to.as_ref(), server.major()).await?;
        restored.wait_until_promoted().await?;
        ledger.check(&restored.connect("postgres").await?, Target::Lsn(lsn.parse()?)).await?;
        // A database that was being dropped at that position is there as an invalid one.
        let invalid = "SELECT datname FROM pg_database WHERE datconnlimit = -2";
        for name in restored.rows("postgres", invalid).await?.concat() {
            assert_eq!(name, "changing");
            restored.sql("postgres", &format!("DROP DATABASE {name}")).await?;
        }
        compare::check_integrity(&restored).await?;
        drop(restored);
        let to = everpoint.path("latest");
        let to = to.to_str().context("a path")?;
        everpoint.succeed(["restore", "instance", "main", "--latest", "--to", to])?;
        let restored = Cluster::adopt(to.as_ref(), server.major()).await?;
        restored.wait_until_promoted().await?;
        compare::assert_same(&expected, &compare::fingerprint(&restored).await?);
        Ok(())
    }

    async fn a_server_that_stops_meanwhile_fails_the_backup_and_nothing_is_left(server: Server) -> Result<()> {
        let everpoint = Everpoint::new()?;
        let mut cluster = Cluster::builder(server.major()).start().await?;
        everpoint.add(&cluster)?;
        for mode in [StopMode::Fast, StopMode::Immediate] {
            let mut backup = everpoint.start(["backup", "main", "--jobs", "1"])?;
            backup.wait_until_it_says("begins at").await?;
            backup.signal(Signal::STOP)?;
            cluster.stop(mode).await?;
            backup.signal(Signal::CONT)?;
            let failed = backup.wait().await?.expect(1);
            assert!(failed.stderr.contains("error: "), "{failed:?}");
            assert_eq!(everpoint.backup_ids()?, Vec::<String>::new());
            assert_eq!(everpoint.objects("instances/main/packs")?, Vec::<String>::new());
            everpoint.run(["backup", "main"])?.expect(1).says("no server answers");
            cluster.start().await?;
        }
        everpoint.back_up()?;
        everpoint.verify()
    }
}

/// Makes, fills, rewrites, empties and drops files of every kind.
fn ddl(number: u32) -> Vec<String> {
    let table = format!("changing_{number}");
    let mut statements = vec![
        format!(
            "CREATE TABLE {table} AS SELECT i, md5(i::text) AS b FROM generate_series(1, 3000) i"
        ),
        format!("CREATE INDEX ON {table} (b)"),
        format!("VACUUM FULL {table}"),
        format!("TRUNCATE {table}"),
        format!("INSERT INTO {table} SELECT i, repeat('x', 3000) FROM generate_series(1, 1000) i"),
        format!("ALTER TABLE {table} SET UNLOGGED"),
        format!("ALTER TABLE {table} SET LOGGED"),
        format!("DROP TABLE {table}"),
    ];
    if number == 0 {
        for strategy in ["wal_log", "file_copy"] {
            statements.push(format!(
                "CREATE DATABASE changing TEMPLATE template0 STRATEGY {strategy}"
            ));
            statements.push("DROP DATABASE changing".to_owned());
        }
    }
    statements
}
