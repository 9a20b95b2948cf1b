//! `everpoint wal receive`: through restarts, cuts, kills, lost log and promotions.

use std::path::PathBuf;

use anyhow::{Context, Result};
use everpoint_pgformat::{Lsn, wal::segment::SegmentSize};
use everpoint_testkit::{Cluster, Ledger, StopMode, Target, Workload, compare};
use jiff::Timestamp;
use rustix::process::Signal;
use serde_json::Value;

use crate::{
    on_15_and_18,
    support::{
        Everpoint, Finished, FlushedWatch, Halted, Proxy, Running, random_below, stored_until,
        until,
    },
};

const RECEIVE: [&str; 5] = ["wal", "receive", "main", "--interval", "1s"];
/// Log waits for an hour: it is stored only for another reason.
const RECEIVE_SELDOM: [&str; 5] = ["wal", "receive", "main", "--interval", "1h"];

fn log_of(everpoint: &Everpoint) -> PathBuf {
    everpoint.repository().join("instances/main/log")
}

async fn until_stored(everpoint: &Everpoint, lsn: Lsn) -> Result<()> {
    let log = log_of(everpoint);
    until(&format!("log up to {lsn} is stored"), async || {
        Ok(stored_until(&log) >= lsn)
    })
    .await
}

async fn end(mut receiver: Running) -> Result<()> {
    receiver.signal(Signal::TERM)?;
    receiver.wait().await?.expect(0);
    Ok(())
}

/// That there is one stretch in which every point can be restored, up to `lsn` at least, and no gap.
fn assert_whole(status: &Value, lsn: Lsn) -> Result<()> {
    assert_eq!(status["gaps"], serde_json::json!([]), "{status}");
    assert_eq!(status["backup_needed"], false, "{status}");
    assert_eq!(
        status["ranges"].as_array().map(Vec::len),
        Some(1),
        "{status}"
    );
    let latest: Lsn = status["ranges"][0]["latest_lsn"]
        .as_str()
        .context("an LSN")?
        .parse()?;
    assert!(latest >= lsn, "{lsn} is not in {status}");
    Ok(())
}

/// Writes some 20 MB of log that cannot be compressed.
async fn cluster_grows(cluster: &Cluster) -> Result<()> {
    let sql = "CREATE TABLE random (bytes bytea); ALTER TABLE random ALTER bytes SET STORAGE EXTERNAL; \
        INSERT INTO random SELECT string_agg(decode(md5(random()::text), 'hex'), '') \
            FROM generate_series(1, 1300000) i GROUP BY i % 100";
    cluster.sql("postgres", sql).await
}

async fn until_restorable(everpoint: &Everpoint, time: Timestamp) -> Result<()> {
    until("the moment can be restored", async || {
        Ok(latest(everpoint)?.is_some_and(|latest| latest >= time))
    })
    .await
}

/// Up to when everything can be restored, as far as that is known.
fn latest(everpoint: &Everpoint) -> Result<Option<Timestamp>> {
    let status = everpoint.status()?;
    let latest = status["ranges"][0]["latest"].as_str();
    Ok(latest.map(str::parse).transpose()?)
}

/// Restores to a target and returns the running server.
async fn restore(
    everpoint: &Everpoint,
    name: &str,
    target: &[&str],
    major: u16,
) -> Result<Cluster> {
    let to = everpoint.path(name);
    let to = to.to_str().context("a path")?;
    let arguments = ["restore", "instance", "main", "--to", to];
    everpoint.succeed(arguments.iter().chain(target))?;
    let restored = Cluster::adopt(to.as_ref(), major).await?;
    restored.wait_until_promoted().await?;
    Ok(restored)
}

async fn check_latest(everpoint: &Everpoint, cluster: &Cluster, ledger: &Ledger) -> Result<()> {
    let expected = compare::fingerprint(cluster).await?;
    let restored = restore(everpoint, "latest", &["--latest"], cluster.major()).await?;
    ledger
        .check(&restored.connect("postgres").await?, Target::Latest)
        .await?;
    compare::assert_same(&expected, &compare::fingerprint(&restored).await?);
    Ok(())
}

/// A server whose machine or network went without a word.
async fn a_server_that_answers_nothing_is_connected_to_anew() -> Result<()> {
    let everpoint = Everpoint::new()?;
    let cluster = Cluster::builder(18).start().await?;
    everpoint.add(&cluster)?;
    everpoint.back_up()?;
    let mut receiver = everpoint.start(RECEIVE)?;
    let streams = "SELECT count(*) = 1 FROM pg_stat_replication WHERE state = 'streaming'";
    until("it streams", async || {
        Ok(cluster.value("postgres", streams).await? == "t")
    })
    .await?;
    let halted = Halted::process(&cluster, "walsender").await?;
    receiver.wait_until_it_says("connection").await?;
    drop(halted);
    let moment = cluster.moment().await?;
    cluster
        .sql("postgres", "CREATE TABLE later (a int)")
        .await?;
    until_stored(&everpoint, moment.lsn).await?;
    end(receiver).await
}

#[test]
fn a_server_that_answers_nothing_is_connected_to_anew_on_18() -> Result<()> {
    everpoint_testkit::run(a_server_that_answers_nothing_is_connected_to_anew())
}

on_15_and_18! {
    async fn no_log_is_lost_over_restarts_cuts_and_kills(server: Server) -> Result<()> {
        let everpoint = Everpoint::new()?;
        let mut cluster = Cluster::builder(server.major()).on_loopback().start().await?;
        let proxy = Proxy::to(cluster.port()).await?;
        let through = format!("host=127.0.0.1 port={} user=postgres dbname=postgres sslmode=disable", proxy.port());
        everpoint.add_by(&through)?;
        let watch = FlushedWatch::begin(&cluster, log_of(&everpoint)).await?;
        let mut receiver = everpoint.start(RECEIVE)?;
        receiver.wait_until_it_says("streaming from").await?;
        let mut workload = Workload::new("postgres").start(&cluster).await?;
        workload.wait_for_commits(50).await?;
        everpoint.back_up()?;
        for round in 0..6 {
            let commits = 100 + usize::try_from(random_below(300))?;
            workload.wait_for_commits(commits).await?;
            match round % 3 {
                0 => proxy.cut(),
                1 => {
                    receiver.kill()?;
                    workload.wait_for_commits(200).await?;
                    receiver = everpoint.start(RECEIVE)?;
                }
                _ => {
                    let mode = if round == 2 { StopMode::Fast } else { StopMode::Immediate };
                    cluster.stop(mode).await?;
                    cluster.start().await?;
                    let ledger = workload.stop().await?;
                    workload = Workload::new("postgres").resume(&cluster, ledger).await?;
                }
            }
        }
        proxy.cut();
        workload.wait_for_commits(100).await?;
        let ledger = workload.stop().await?;
        let lsn: Lsn = cluster.value("postgres", "SELECT pg_current_wal_flush_lsn()").await?.parse()?;
        until_stored(&everpoint, lsn).await?;
        watch.end().await?;
        assert!(receiver.is_alive(), "{}", receiver.printed()?);
        end(receiver).await?;
        assert_whole(&everpoint.status()?, lsn)?;
        everpoint.verify()?;
        check_latest(&everpoint, &cluster, &ledger).await
    }

    /// A stream tells the time while it lags as well as when it does not.
    async fn log_that_has_not_come_yet_is_not_said_to_be_complete(server: Server) -> Result<()> {
        let everpoint = Everpoint::new()?;
        let cluster = Cluster::builder(server.major()).start().await?;
        everpoint.add(&cluster)?;
        everpoint.back_up()?;
        cluster.sql("postgres", "CREATE TABLE filler AS SELECT g, repeat(md5(g::text), 30) FROM generate_series(1, 200000) g").await?;
        cluster.sql("postgres", "CREATE TABLE lost AS SELECT 1 AS one").await?;
        let behind = cluster.moment().await?;
        let before = stored_until(&log_of(&everpoint));
        let receiver = everpoint.start(["wal", "receive", "main", "--interval", "1s", "--cut-mib", "1"])?;
        let log = log_of(&everpoint);
        until("some of the log is stored", async || Ok(stored_until(&log) > before.advance(32 << 20))).await?;
        receiver.kill()?;
        assert!(stored_until(&log) < behind.lsn, "all of it was stored");
        let said = latest(&everpoint)?;
        assert!(said.is_none_or(|latest| latest < behind.time), "{behind}: {said:?}");
        let to = everpoint.path("too-early");
        let at = behind.time.to_string();
        let refused = everpoint.run(["restore", "instance", "main", "--to", to.to_str().context("a path")?, "--at", &at])?;
        refused.expect(3);

        let mut receiver = everpoint.start(RECEIVE)?;
        until_restorable(&everpoint, behind.time).await?;
        assert!(receiver.is_alive(), "{}", receiver.printed()?);
        end(receiver).await?;
        let restored = restore(&everpoint, "then", &["--at", &at], server.major()).await?;
        assert_eq!(restored.value("postgres", "SELECT one FROM lost").await?, "1");
        Ok(())
    }

    /// What is inserted and no commit may stay in the server's memory until it logs its running transactions.
    async fn an_open_transaction_does_not_hold_up_what_can_be_restored(server: Server) -> Result<()> {
        let everpoint = Everpoint::new()?;
        let cluster = Cluster::builder(server.major()).start().await?;
        everpoint.add(&cluster)?;
        everpoint.back_up()?;
        let receiver = everpoint.start(RECEIVE)?;
        cluster.sql("postgres", "CREATE TABLE t (a int)").await?;
        let open = cluster.connect("postgres").await?;
        open.batch_execute("BEGIN; INSERT INTO t VALUES (1)").await?;
        let moment = cluster.moment().await?;
        until_restorable(&everpoint, moment.time).await?;
        end(receiver).await
    }

    /// A commit that does not wait for the disk is acknowledged before it is sent, however long the disk takes.
    async fn log_is_not_complete_up_to_a_commit_that_is_not_on_the_disk(server: Server) -> Result<()> {
        let everpoint = Everpoint::new()?;
        let cluster = Cluster::builder(server.major()).start().await?;
        everpoint.add(&cluster)?;
        everpoint.back_up()?;
        cluster.sql("postgres", "CREATE TABLE t (a int); CHECKPOINT").await?;
        let receiver = everpoint.start(RECEIVE)?;
        let halted = Halted::process(&cluster, "walwriter").await?;
        cluster.sql("postgres", "SET synchronous_commit = off; INSERT INTO t VALUES (1)").await?;
        let moment = cluster.moment().await?;
        for _ in 0..4 {
            cluster.sql("postgres", "SELECT pg_notify('everpoint', 'cut')").await?;
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        }
        let said = latest(&everpoint)?;
        if said.is_none_or(|latest| latest >= moment.time) {
            assert!(stored_until(&log_of(&everpoint)) >= moment.lsn, "{said:?}, and {moment:?} is not stored");
        }
        drop(halted);
        until_restorable(&everpoint, moment.time).await?;
        assert!(stored_until(&log_of(&everpoint)) >= moment.lsn);
        end(receiver).await
    }

    /// Whoever takes the server's address answers of its own log.
    async fn another_servers_answers_are_not_believed(server: Server) -> Result<()> {
        let everpoint = Everpoint::new()?;
        let primary = Cluster::builder(server.major()).start().await?;
        let standby = primary.make_standby().await?;
        let address = everpoint.path("address");
        std::os::unix::fs::symlink(primary.socket_dir(), &address)?;
        let there = primary.socket_dir().display().to_string();
        let through = primary.connection_string("postgres").replace(&there, &address.display().to_string());
        everpoint.add_by(&through)?;
        everpoint.back_up()?;
        let receiver = everpoint.start(RECEIVE)?;
        standby.sql("postgres", "ALTER SYSTEM SET primary_conninfo = ''").await?;
        standby.sql("postgres", "ALTER SYSTEM SET log_statement = 'all'").await?;
        standby.sql("postgres", "SELECT pg_reload_conf()").await?;
        until("the standby follows no more", async || {
            Ok(standby.value("postgres", "SELECT count(*) FROM pg_stat_wal_receiver").await? == "0")
        }).await?;
        cluster_grows(&primary).await?;
        let moment = primary.moment().await?;
        until_restorable(&everpoint, moment.time).await?;

        // It has less log than what was received.
        standby.promote().await?;
        std::fs::remove_file(&address)?;
        std::os::unix::fs::symlink(standby.socket_dir(), &address)?;
        let ended = "SELECT count(pg_terminate_backend(pid)) > 0 FROM pg_stat_activity \
            WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
        assert_eq!(primary.value("postgres", ended).await?, "t");
        standby.sql("postgres", "CREATE TABLE elsewhere (a int)").await?;
        let lost = standby.moment().await?;
        assert!(lost.lsn < moment.lsn, "{lost} is not behind {moment}");
        until("the other one has been asked often", async || {
            standby.sql("postgres", "SELECT pg_notify('everpoint', 'cut')").await?;
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
            Ok(standby.log()?.matches("pg_last_xact_replay_timestamp").count() > 4)
        }).await?;
        let said = latest(&everpoint)?;
        assert!(said.is_none_or(|latest| latest < lost.time), "{lost}: {said:?}");
        end(receiver).await
    }

    /// What is behind a log backup that could not be stored is not stored, either: receiving would go on behind both.
    async fn a_log_backup_that_cannot_be_stored_leaves_no_hole(server: Server) -> Result<()> {
        let everpoint = Everpoint::new()?;
        let cluster = Cluster::builder(server.major()).start().await?;
        everpoint.add(&cluster)?;
        everpoint.back_up()?;
        cluster_grows(&cluster).await?;
        let call = everpoint.command(["wal", "receive", "main", "--interval", "1s", "--cut-mib", "16"]);
        let mut limited = std::process::Command::new("sh");
        // In half KiB: the first 16 MiB are too much, and what follows is not.
        limited.args(["-c", "trap '' XFSZ; ulimit -f 16384; exec \"$@\"", "sh"]);
        limited.arg(call.get_program()).args(call.get_args());
        limited.envs(call.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let failed = Finished::of(limited)?.expect(1);
        failed.says("File too large");
        let moment = cluster.moment().await?;
        let receiver = everpoint.start(RECEIVE)?;
        until_stored(&everpoint, moment.lsn).await?;
        end(receiver).await?;
        assert_whole(&everpoint.status()?, moment.lsn)
    }

    /// Its sessions beside the stream may end without it.
    async fn a_receiver_that_lost_its_sessions_is_heard_again(server: Server) -> Result<()> {
        let everpoint = Everpoint::new()?;
        let cluster = Cluster::builder(server.major()).start().await?;
        everpoint.add(&cluster)?;
        everpoint.back_up()?;
        let receiver = everpoint.start(["wal", "receive", "main", "--interval", "1h"])?;
        let stored = async || {
            let moment = cluster.moment().await?;
            until("a log backup that was asked for", async || {
                cluster.sql("postgres", "SELECT pg_notify('everpoint', 'cut')").await?;
                let done = stored_until(&log_of(&everpoint)) >= moment.lsn;
                Ok(done && latest(&everpoint)?.is_some_and(|latest| latest >= moment.time))
            }).await
        };
        stored().await?;
        let stream = "SELECT string_agg(pid::text, ',') FROM pg_stat_replication";
        let before = cluster.value("postgres", stream).await?;
        let ended = "SELECT count(pg_terminate_backend(pid)) >= 2 FROM pg_stat_activity \
            WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
        assert_eq!(cluster.value("postgres", ended).await?, "t", "one listens, one asks");
        stored().await?;
        assert_eq!(cluster.value("postgres", stream).await?, before, "the stream broke");
        end(receiver).await
    }

    async fn a_second_receiver_is_refused_and_names_the_first(server: Server) -> Result<()> {
        let everpoint = Everpoint::new()?;
        let cluster = Cluster::builder(server.major()).start().await?;
        everpoint.add(&cluster)?;
        let mut first = everpoint.start(RECEIVE)?;
        first.wait_until_it_says("streaming from").await?;
        let pid = "SELECT pid FROM pg_locks WHERE locktype = 'advisory'";
        let pid = cluster.value("postgres", pid).await?;
        let second = everpoint.run(RECEIVE)?.expect(3);
        second.says("runs already").says(&format!("server process {pid}"));
        assert!(first.is_alive());
        end(first).await?;
        // Gone, it stands in nobody's way.
        let mut third = everpoint.start(RECEIVE)?;
        third.wait_until_it_says("streaming from").await?;
        end(third).await
    }

    async fn what_was_received_is_stored_when_it_is_told_to_end(server: Server) -> Result<()> {
        let everpoint = Everpoint::new()?;
        let cluster = Cluster::builder(server.major()).start().await?;
        everpoint.add(&cluster)?;
        everpoint.back_up()?;
        let mut receiver = everpoint.start(RECEIVE_SELDOM)?;
        receiver.wait_until_it_says("streaming from").await?;
        let workload = Workload::new("postgres").start(&cluster).await?;
        workload.wait_for_commits(50).await?;
        let ledger = workload.stop().await?;
        let lsn: Lsn = cluster.value("postgres", "SELECT pg_current_wal_flush_lsn()").await?.parse()?;
        // What was sent may be on its way; the receiver tells the server what it has.
        let written = format!("SELECT coalesce(max(write_lsn) >= '{lsn}', false) FROM pg_stat_replication");
        cluster.wait_until_true(&written, "have it received").await?;
        assert!(stored_until(&log_of(&everpoint)) < lsn, "it was stored before it was due");
        end(receiver).await?;
        assert!(stored_until(&log_of(&everpoint)) >= lsn);
        assert_whole(&everpoint.status()?, lsn)?;
        everpoint.verify()?;
        check_latest(&everpoint, &cluster, &ledger).await
    }

    async fn a_servers_fast_shutdown_is_not_held_up_and_its_last_log_is_stored(server: Server) -> Result<()> {
        let everpoint = Everpoint::new()?;
        // Without a time-out only the receiver's answer lets the server go.
        let mut cluster = Cluster::builder(server.major()).setting("wal_sender_timeout = 0").start().await?;
        everpoint.add(&cluster)?;
        let mut receiver = everpoint.start(RECEIVE_SELDOM)?;
        receiver.wait_until_it_says("streaming from").await?;
        let workload = Workload::new("postgres").start(&cluster).await?;
        workload.wait_for_commits(50).await?;
        everpoint.back_up()?;
        workload.wait_for_commits(200).await?;
        cluster.stop(StopMode::Fast).await?;
        let ledger = workload.stop().await?;
        let control = cluster.server().run("pg_controldata", [cluster.data_directory()]).await?;
        let shutdown = control.lines().find_map(|line| line.strip_prefix("Latest checkpoint location:"));
        let shutdown: Lsn = shutdown.context("a checkpoint")?.trim().parse()?;
        until_stored(&everpoint, shutdown).await?;
        assert!(receiver.is_alive(), "{}", receiver.printed()?);
        let restored = restore(&everpoint, "stopped", &["--latest"], server.major()).await?;
        ledger.check(&restored.connect("postgres").await?, Target::Latest).await?;
        cluster.start().await?;
        let lsn = cluster.switch_wal().await?;
        receiver.signal(Signal::TERM)?;
        receiver.wait().await?.expect(0);
        everpoint.back_up()?;
        assert_whole(&everpoint.status()?, lsn)
    }

    async fn log_lost_with_a_dropped_slot_is_recorded_and_a_backup_asked_for(server: Server) -> Result<()> {
        let cluster = small_logs(server.major()).start().await?;
        let lose = async |cluster: &Cluster| {
            cluster.sql("postgres", "SELECT pg_drop_replication_slot('everpoint_main')").await?;
            for _ in 0..3 {
                cluster.sql("postgres", "INSERT INTO t SELECT generate_series(1, 10000)").await?;
                cluster.sql("postgres", "SELECT pg_switch_wal()").await?;
                cluster.checkpoint().await?;
            }
            Ok(())
        };
        lost_log_is_a_gap(cluster, lose).await
    }

    async fn log_lost_by_a_slot_that_kept_too_much_is_recorded_and_a_backup_asked_for(server: Server) -> Result<()> {
        let cluster = small_logs(server.major()).setting("max_slot_wal_keep_size = 2MB").start().await?;
        let lose = async |cluster: &Cluster| {
            let lost = "SELECT wal_status = 'lost' FROM pg_replication_slots";
            until("the slot is lost", async || {
                cluster.sql("postgres", "INSERT INTO t SELECT generate_series(1, 10000)").await?;
                cluster.sql("postgres", "SELECT pg_switch_wal()").await?;
                cluster.checkpoint().await?;
                Ok(cluster.value("postgres", lost).await? == "t")
            })
            .await
        };
        lost_log_is_a_gap(cluster, lose).await
    }

    async fn log_goes_on_over_the_promotion_of_the_standby_it_comes_from(server: Server) -> Result<()> {
        let everpoint = Everpoint::new()?;
        let mut primary = Cluster::builder(server.major()).start().await?;
        let workload = Workload::new("postgres").start(&primary).await?;
        let standby = primary.make_standby().await?;
        everpoint.add(&standby)?;
        let mut receiver = everpoint.start(RECEIVE)?;
        receiver.wait_until_it_says("on timeline 1").await?;
        workload.wait_for_commits(100).await?;
        // A standby writes no log of its own: what the backup waits for comes from the primary.
        everpoint.back_up()?;
        workload.wait_for_commits(200).await?;
        primary.stop(StopMode::Fast).await?;
        let ledger = workload.stop().await?;
        standby.promote().await?;
        receiver.wait_until_it_says("on timeline 2").await?;
        let workload = Workload::new("postgres").resume(&standby, ledger).await?;
        workload.wait_for_commits(200).await?;
        let ledger = workload.stop().await?;
        let lsn: Lsn = standby.value("postgres", "SELECT pg_current_wal_flush_lsn()").await?.parse()?;
        until_stored(&everpoint, lsn).await?;
        assert!(receiver.is_alive(), "{}", receiver.printed()?);
        assert_whole(&everpoint.status()?, lsn)?;
        end(receiver).await?;
        everpoint.verify()?;
        check_latest(&everpoint, &standby, &ledger).await
    }
}

/// Little log is kept, so that it is soon gone.
fn small_logs(major: u16) -> everpoint_testkit::ClusterBuilder {
    Cluster::builder(major)
        .wal_segment_size(SegmentSize::try_from(1 << 20).unwrap())
        .setting("min_wal_size = 2MB")
        .setting("max_wal_size = 2MB")
        .setting("wal_keep_size = 0")
}

async fn lost_log_is_a_gap(
    cluster: Cluster,
    lose: impl AsyncFn(&Cluster) -> Result<()>,
) -> Result<()> {
    let everpoint = Everpoint::new()?;
    cluster.sql("postgres", "CREATE TABLE t (a int)").await?;
    everpoint.add(&cluster)?;
    let mut receiver = everpoint.start(RECEIVE)?;
    receiver.wait_until_it_says("streaming from").await?;
    everpoint.back_up()?;
    cluster.sql("postgres", "INSERT INTO t VALUES (-1)").await?;
    until_stored(&everpoint, cluster.current_lsn().await?).await?;
    end(receiver).await?;
    let before = everpoint.status()?;
    let last: Lsn = before["ranges"][0]["latest_lsn"]
        .as_str()
        .context("an LSN")?
        .parse()?;
    lose(&cluster).await?;
    let inside = cluster.moment().await?;

    // The same whether a receiver or its successor finds it, and recorded once.
    for _ in 0..2 {
        let mut receiver = everpoint.start(RECEIVE)?;
        receiver.wait_until_it_says("streaming from").await?;
        end(receiver).await?;
    }
    let mut receiver = everpoint.start(RECEIVE)?;
    receiver.wait_until_it_says("streaming from").await?;
    cluster.sql("postgres", "INSERT INTO t VALUES (-2)").await?;
    let after = cluster.current_lsn().await?;
    until_stored(&everpoint, after).await?;
    let status = everpoint.status()?;
    assert_eq!(status["gaps"].as_array().map(Vec::len), Some(1), "{status}");
    let gap = &status["gaps"][0];
    let position = |name: &str| gap[name].as_str().unwrap().parse::<Lsn>();
    let (from, to) = (position("from")?, position("to")?);
    assert_eq!(from, last, "{status}");
    assert!(to > from && to <= after, "{status}");
    assert_eq!(status["backup_needed"], true, "{status}");
    everpoint
        .succeed(["status"])?
        .says("GAP")
        .says("TAKE A BACKUP: everpoint backup main");

    // A gap is known: it is no damage.
    everpoint.verify()?;
    let to_nowhere = everpoint.path("nowhere");
    let to_nowhere = to_nowhere.to_str().context("a path")?;
    let middle = Lsn::new((from.get() + to.get()) / 2).to_string();
    let refused = everpoint
        .run([
            "restore", "instance", "main", "--lsn", &middle, "--to", to_nowhere,
        ])?
        .expect(3);
    refused.says(&last.to_string());
    let time = inside.time.to_string();
    everpoint
        .run([
            "restore", "instance", "main", "--at", &time, "--to", to_nowhere,
        ])?
        .expect(3);
    assert!(!everpoint.path("nowhere").exists());

    let backup = everpoint.back_up()?;
    cluster.sql("postgres", "INSERT INTO t VALUES (-3)").await?;
    let lsn = cluster.current_lsn().await?;
    until_stored(&everpoint, lsn).await?;
    end(receiver).await?;
    let status = everpoint.status()?;
    assert_eq!(status["backup_needed"], false, "{status}");
    assert_eq!(
        status["ranges"].as_array().map(Vec::len),
        Some(2),
        "{status}"
    );
    // Now both nearest points are known.
    let refused = everpoint
        .run([
            "restore", "instance", "main", "--lsn", &middle, "--to", to_nowhere,
        ])?
        .expect(3);
    refused
        .says(&last.to_string())
        .says(backup["stop_lsn"].as_str().context("an LSN")?);
    let rows = "SELECT count(*) FROM t WHERE a < 0";
    let restored = restore(&everpoint, "behind", &["--latest"], cluster.major()).await?;
    assert_eq!(restored.value("postgres", rows).await?, "3");
    let restored = restore(
        &everpoint,
        "before",
        &["--lsn", &last.to_string()],
        cluster.major(),
    )
    .await?;
    assert_eq!(restored.value("postgres", rows).await?, "1");
    everpoint.verify()
}
