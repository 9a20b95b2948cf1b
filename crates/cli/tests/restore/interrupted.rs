//! Restores that are killed and run again, and those that must not begin.

use std::{fs, net::TcpListener, path::Path, process::Stdio, time::Duration};

use anyhow::{Context, Result, ensure};
use everpoint_pgformat::{ByteCount, wal::segment::SegmentSize};
use everpoint_testkit::{
    Cluster, Scratch, Server, StopMode, Workload, change_mixed_data,
    compare::{assert_same, check_integrity, fingerprint},
    mixed_data,
};
use jiff::Timestamp;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;

use crate::{
    everpoint::{Everpoint, REFUSED, nudge},
    versions::on_oldest_and_newest,
};

const MARKER: &str = "everpoint.restore.json";

/// A number below `limit`, another one each time.
fn random(limit: u64) -> u64 {
    let now = Timestamp::now().subsec_nanosecond();
    u64::from(now.unsigned_abs() / 1000) % limit
}

/// The server that runs on a data directory, if one does.
fn server_pid(data: &Path) -> Option<Pid> {
    let text = fs::read_to_string(data.join("postmaster.pid")).ok()?;
    let pid = Pid::from_raw(text.lines().next()?.parse().ok()?)?;
    rustix::process::test_kill_process(pid).ok().map(|()| pid)
}

/// Whether the server on a data directory has ended its recovery. The control file alone does not tell: as it
/// is laid down it is that of the origin, which was in production.
async fn is_in_production(server: &Server, data: &Path) -> bool {
    if data.join("recovery.signal").exists() {
        return false;
    }
    let control = server.run("pg_controldata", [data.as_os_str()]).await;
    control.is_ok_and(|control| control.contains("in production"))
}

/// Stops the server on a data directory, if one runs there, and waits until it is gone.
async fn stop_server(data: &Path) -> Result<()> {
    if let Some(pid) = server_pid(data) {
        kill_process(pid, Signal::INT)?;
    }
    while server_pid(data).is_some() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// A call whose words nobody reads.
fn quiet(everpoint: &Everpoint, arguments: &[String]) -> Command {
    let mut command = everpoint.command(arguments);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Begins a restore and kills it with SIGKILL after so long. Whether it was still at work.
async fn kill_restore(
    everpoint: &Everpoint,
    arguments: &[String],
    after: Duration,
) -> Result<bool> {
    let mut child = quiet(everpoint, arguments).spawn()?;
    tokio::time::sleep(after).await;
    let running = child.try_wait()?.is_none();
    child.kill().await?;
    Ok(running)
}

on_oldest_and_newest! {
    async fn killed_restore_goes_on_and_is_equal(server: Server) -> Result<()> {
        let major = server.major();
        let mut cluster = Cluster::builder(major).tablespace("outside").start().await?;
        let everpoint = Everpoint::with(&cluster).await?;
        let client = cluster.connect("postgres").await?;
        mixed_data(&client, ByteCount::new(8 << 20)).await?;
        client.batch_execute("CREATE TABLE far TABLESPACE outside AS SELECT * FROM mixed.event").await?;
        everpoint.full().await?;
        change_mixed_data(&client).await?;
        everpoint.differential().await?;
        drop(client);
        let running = Workload::new("postgres").start(&cluster).await?;
        running.wait_for_commits(200).await?;
        running.stop().await?;
        let end = nudge(&cluster).await?;
        let receiver = everpoint.receive()?;
        everpoint.wait_until_stored(end).await?;
        receiver.stop().await?;
        let expected = fingerprint(&cluster).await?;
        cluster.stop(StopMode::Fast).await?;
        // The copy takes the tablespace's old place.
        let location = cluster.tablespace_directory("outside");
        fs::rename(&location, location.with_extension("aside"))?;

        let place = Scratch::new()?;
        let to = place.path().join("data");
        let arguments = everpoint.restore_arguments(&to, &[])?;
        let mut interrupted = 0;
        for attempt in 0..6 {
            let after = Duration::from_millis(20 + 80 * attempt + random(60));
            if !kill_restore(&everpoint, &arguments, after).await? {
                break;
            }
            interrupted += u64::from(to.join(MARKER).exists());
        }
        ensure!(interrupted > 0, "no restore was interrupted");
        // What the interrupted restore left is not all it might: a part that is wrong, and one too much.
        if to.join(MARKER).exists() {
            if let Some(file) = fs::read_dir(to.join("base/1")).ok().and_then(|mut files| files.next()) {
                fs::write(file?.path(), b"cut")?;
            }
            if to.join("base/5").exists() {
                fs::write(to.join("base/5/999999"), b"stranger")?;
            }
            everpoint.restore_into(&to, &[]).await?;
        }
        let mut restored = Cluster::adopt(&to, major).await?;
        restored.wait_until_promoted().await?;
        assert_same(&expected, &fingerprint(&restored).await?);
        check_integrity(&restored).await?;
        restored.stop(StopMode::Fast).await
    }

    async fn restore_killed_while_its_server_recovers_goes_on_and_is_equal(server: Server) -> Result<()> {
        let major = server.major();
        // Small segments, so that little log lies ready at a time, and little memory, so that recovery
        // changes files early.
        let size = SegmentSize::try_from(1 << 20)?;
        let cluster = Cluster::builder(major)
            .wal_segment_size(size)
            .setting("shared_buffers = 1MB")
            .start()
            .await?;
        let everpoint = Everpoint::with(&cluster).await?;
        everpoint.full().await?;
        let client = cluster.connect("postgres").await?;
        mixed_data(&client, ByteCount::new(8 << 20)).await?;
        change_mixed_data(&client).await?;
        cluster.sql("postgres", "CREATE DATABASE late STRATEGY file_copy").await?;
        cluster.sql("postgres", "CREATE TABLE noise AS SELECT i, md5(i::text) FROM generate_series(1, 500000) i").await?;
        cluster.sql("postgres", "DROP TABLE noise").await?;
        drop(client);
        let end = nudge(&cluster).await?;
        let receiver = everpoint.receive()?;
        everpoint.wait_until_stored(end).await?;
        receiver.stop().await?;
        let expected = fingerprint(&cluster).await?;

        let place = Scratch::new()?;
        let to = place.path().join("data");
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port().to_string();
        let bin = server.bin().to_str().context("a path")?;
        let socket = place.path().to_str().context("a path")?;
        let start = ["--start", "--bin-directory", bin, "--port", &port, "--socket-directory", socket];
        let arguments = everpoint.restore_arguments(&to, &start)?;
        let mut killed_recoveries = 0;
        for _ in 0..4 {
            let mut child = quiet(&everpoint, &arguments).spawn()?;
            while server_pid(&to).is_none() && child.try_wait()?.is_none() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            // Until recovery begins, the control file says what it said when the backup was taken.
            while server_pid(&to).is_some() && is_in_production(&server, &to).await && child.try_wait()?.is_none() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            tokio::time::sleep(Duration::from_millis(random(150))).await;
            if child.try_wait()?.is_some() {
                break;
            }
            child.kill().await?;
            // The server finds nobody who supplies log, and ends by itself; unless it had all of it.
            while server_pid(&to).is_some() && !is_in_production(&server, &to).await {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            if is_in_production(&server, &to).await {
                break;
            }
            ensure!(to.join(MARKER).exists(), "the restore is not marked as unfinished");
            killed_recoveries += 1;
        }
        ensure!(killed_recoveries > 0, "no recovery was killed");
        stop_server(&to).await?;
        if !is_in_production(&server, &to).await && to.join(MARKER).exists() {
            let ended = everpoint.run(&arguments).await?;
            ensure!(ended.code == Some(0), "{ended:?}");
            ensure!(!to.join(MARKER).exists(), "it is finished");
            stop_server(&to).await?;
        }
        let mut restored = Cluster::adopt(&to, major).await?;
        restored.wait_until_promoted().await?;
        assert_same(&expected, &fingerprint(&restored).await?);
        check_integrity(&restored).await?;
        restored.stop(StopMode::Fast).await
    }

    async fn copy_that_promoted_itself_after_its_restore_was_killed_is_not_overwritten(server: Server) -> Result<()> {
        let major = server.major();
        let cluster = Cluster::builder(major).start().await?;
        let everpoint = Everpoint::with(&cluster).await?;
        everpoint.full().await?;
        let place = Scratch::new()?;
        let to = place.path().join("data");
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port().to_string();
        let bin = server.bin().to_str().context("a path")?;
        let socket = place.path().to_str().context("a path")?;
        let start = ["--start", "--bin-directory", bin, "--port", &port, "--socket-directory", socket];
        let arguments = everpoint.restore_arguments(&to, &start)?;
        let mut child = quiet(&everpoint, &arguments).spawn()?;
        while !to.join("everpoint.wal/end").exists() && child.try_wait()?.is_none() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // From here on the server needs nobody: it may promote itself while the restore does nothing.
        let restore = child.id().and_then(|id| Pid::from_raw(id.cast_signed())).context("it ended")?;
        kill_process(restore, Signal::STOP)?;
        while !is_in_production(&server, &to).await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        child.kill().await?;
        ensure!(to.join(MARKER).exists(), "the restore had ended");
        stop_server(&to).await?;

        let control = fs::read(to.join("global/pg_control"))?;
        let ended = everpoint.run(&arguments).await?;
        ensure!(ended.code == Some(REFUSED), "{ended:?}");
        ensure!(ended.err.contains("has ended its recovery by itself"), "{ended:?}");
        ensure!(fs::read(to.join("global/pg_control"))? == control, "it was touched");
        // What the message says: without the marker it is a cluster like any other.
        fs::remove_file(to.join(MARKER))?;
        let mut kept = Cluster::adopt(&to, major).await?;
        assert_same(&fingerprint(&cluster).await?, &fingerprint(&kept).await?);
        kept.stop(StopMode::Fast).await
    }
}

#[tokio::test]
async fn restores_that_would_do_harm_or_cannot_succeed_are_refused() -> Result<()> {
    let cluster = Cluster::builder(18).start().await?;
    let everpoint = Everpoint::with(&cluster).await?;
    let refusal = everpoint.refused_restore(&[]).await?;
    assert!(refusal.contains("has no finished backup"), "{refusal}");
    let full = everpoint.full().await?;
    cluster.sql("postgres", "CREATE TABLE later ()").await?;
    everpoint.full().await?;

    let place = Scratch::new()?;
    let full_directory = place.path().join("full");
    fs::create_dir(&full_directory)?;
    fs::write(full_directory.join("precious"), "")?;
    let refused = async |to: &Path, target: &[&str], complaint: &str| -> Result<()> {
        let ended = everpoint.try_restore(to, target).await?;
        ensure!(ended.code == Some(REFUSED), "{complaint}: {ended:?}");
        ensure!(ended.err.contains(complaint), "{complaint}: {ended:?}");
        Ok(())
    };
    refused(&full_directory, &[], "is not empty (it holds `precious`)").await?;
    assert_eq!(fs::read_dir(&full_directory)?.count(), 1);
    let live = cluster.data_directory();
    refused(live, &[], "a server is running on").await?;

    let fresh = place.path().join("fresh");
    let other = Server::find(15)?;
    let start = [
        "--start",
        "--bin-directory",
        other.bin().to_str().context("a path")?,
    ];
    refused(&fresh, &start, "Nothing was restored").await?;
    let start = [
        "--start",
        "--bin-directory",
        place.path().to_str().context("a path")?,
    ];
    refused(&fresh, &start, "Nothing was restored").await?;
    let zones = ["--lsn", &full.start_lsn.to_string()];
    refused(&fresh, &zones, "before the earliest point").await?;
    assert!(!fresh.exists());

    // An unfinished restore of something else: its marker and what came with it stay.
    let unfinished = place.path().join("unfinished");
    let arguments = everpoint.restore_arguments(&unfinished, &["--latest"])?;
    let mut child = quiet(&everpoint, &arguments).spawn()?;
    while !unfinished.join("PG_VERSION").exists() && child.try_wait()?.is_none() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    child.kill().await?;
    ensure!(unfinished.join(MARKER).exists(), "it was killed too late");
    let earlier = full.stop_lsn.to_string();
    refused(
        &unfinished,
        &["--lsn", &earlier],
        "holds an unfinished restore",
    )
    .await?;
    everpoint.restore_into(&unfinished, &["--latest"]).await?;
    let mut restored = Cluster::adopt(&unfinished, 18).await?;
    restored.wait_until_promoted().await?;
    check_integrity(&restored).await?;
    restored.stop(StopMode::Fast).await
}

#[tokio::test]
async fn restore_onto_a_file_system_without_room_is_refused() -> Result<()> {
    let cluster = Cluster::builder(18).start().await?;
    let everpoint = Everpoint::with(&cluster).await?;
    everpoint.full().await?;
    let place = Scratch::new()?;
    let to = place.path().join("data");
    fs::create_dir(&to)?;
    let arguments = everpoint.restore_arguments(&to, &[])?;
    let ended = everpoint.run_with_disk(&to, 8, &arguments).await?;
    assert_eq!(ended.code, Some(REFUSED), "{ended:?}");
    assert!(ended.err.contains("has room for"), "{ended:?}");
    Ok(())
}
