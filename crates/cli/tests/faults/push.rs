//! `everpoint wal push`, by a server's `archive_command` and by hand.

use std::{
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use everpoint_testkit::{Account, Cluster, StopMode, Target, Workload, compare};

use crate::{
    on_15_and_18,
    support::{Everpoint, Finished, until},
};

/// Adds a cluster that pushes its log, and has it begin.
pub async fn add_pushing(everpoint: &Everpoint, cluster: &Cluster) -> Result<()> {
    let connection = cluster.connection_string("postgres");
    let add = ["instance", "add", "main", "--wal", "push", "--connection"];
    everpoint.succeed(add.iter().chain([&connection.as_str()]))?;
    let call = format!(
        "{} --repository {} --key-file {} wal push main %p",
        everpoint.path("everpoint").display(),
        everpoint.repository().display(),
        everpoint.key_file().display()
    );
    let sql = format!("ALTER SYSTEM SET archive_command = '{call}'");
    cluster.sql("postgres", &sql).await?;
    cluster.sql("postgres", "SELECT pg_reload_conf()").await
}

fn archiving(major: u16) -> everpoint_testkit::ClusterBuilder {
    Cluster::builder(major).setting("archive_mode = on")
}

/// The files of `pg_wal` that the server has archived, by the marks it keeps of them.
fn archived(cluster: &Cluster) -> Result<Vec<PathBuf>> {
    let wal = cluster.data_directory().join("pg_wal");
    let mut files = Vec::new();
    for mark in fs::read_dir(wal.join("archive_status"))? {
        let mark = mark?.file_name().to_string_lossy().into_owned();
        if let Some(name) = mark.strip_suffix(".done") {
            files.push(wal.join(name));
        }
    }
    files.sort();
    Ok(files)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to)?;
    Account::for_servers()?.own(to)
}

fn push(everpoint: &Everpoint, path: &Path) -> Result<Finished> {
    everpoint.run([Path::new("wal"), Path::new("push"), Path::new("main"), path])
}

on_15_and_18! {
    async fn a_server_that_archives_with_it_is_backed_up_and_restored_over_a_promotion(server: Server) -> Result<()> {
        let everpoint = Everpoint::of_server_user()?;
        let mut cluster = archiving(server.major()).start().await?;
        add_pushing(&everpoint, &cluster).await?;
        let workload = Workload::new("postgres").start(&cluster).await?;
        workload.wait_for_commits(50).await?;
        everpoint.back_up()?;
        workload.wait_for_commits(100).await?;
        cluster.switch_wal().await?;
        workload.wait_for_commits(100).await?;
        cluster.stop(StopMode::Fast).await?;
        let ledger = workload.stop().await?;
        // The old timeline ends in the middle of a segment, which is archived as `.partial`.
        fs::write(cluster.data_directory().join("standby.signal"), "")?;
        cluster.start().await?;
        cluster.promote().await?;
        let workload = Workload::new("postgres").resume(&cluster, ledger).await?;
        workload.wait_for_commits(100).await?;
        let ledger = workload.stop().await?;
        let end = cluster.switch_wal().await?;
        until("everything is archived", async || {
            let status = everpoint.status()?;
            let latest = status["ranges"][0]["latest_lsn"].as_str().context("a range")?;
            Ok(latest.parse::<everpoint_pgformat::Lsn>()? >= end)
        })
        .await?;
        let failures = cluster.value("postgres", "SELECT failed_count FROM pg_stat_archiver").await?;
        assert_eq!(failures, "0", "{}", cluster.log()?);
        let status = everpoint.status()?;
        assert_eq!(status["ranges"].as_array().map(Vec::len), Some(1), "{status}");
        assert_eq!(status["ranges"][0]["timeline"], 2, "{status}");
        // Up to the end of the last transaction that is stored, and that can be had.
        let latest = status["ranges"][0]["latest"].as_str().context("a latest point")?;
        let last = everpoint.json(["restore", "instance", "main", "--to", "/nowhere/new", "--at", latest, "--dry-run"])?;
        assert_eq!(last["last_inside"]["time"], latest, "{last}");
        assert_eq!(everpoint.objects("instances/main/timelines")?.len(), 1);
        everpoint.verify()?;
        // Each segment was summarised when it was pushed, on both sides of the promotion.
        let summarised = everpoint.json(["wal", "summarize", "main"])?;
        assert_eq!((&summarised["made"], &summarised["deleted"]), (&0.into(), &0.into()), "{summarised}");
        for timeline in ["00000001", "00000002"] {
            assert_ne!(everpoint.objects(&format!("instances/main/summaries/{timeline}"))?.len(), 0, "{timeline}");
        }
        let checked = everpoint.run(["backup", "main", "--type", "differential", "--check-changes"])?.expect(0);
        assert!(checked.stdout.contains("differential"), "{checked:?}");
        for amiss in ["warning", "taking a full backup"] {
            assert!(!checked.stderr.contains(amiss), "{checked:?}");
        }
        everpoint.succeed(["backup", "main", "--type", "differential"])?;
        let expected = compare::fingerprint(&cluster).await?;
        let to = everpoint.path("restored");
        let to = to.to_str().context("a path")?;
        everpoint.succeed(["restore", "instance", "main", "--latest", "--to", to])?;
        let restored = Cluster::adopt(to.as_ref(), server.major()).await?;
        restored.wait_until_promoted().await?;
        ledger.check(&restored.connect("postgres").await?, Target::Latest).await?;
        compare::assert_same(&expected, &compare::fingerprint(&restored).await?);
        Ok(())
    }

    async fn a_file_is_stored_once_and_never_replaced_by_another(server: Server) -> Result<()> {
        let everpoint = Everpoint::of_server_user()?;
        let cluster = archiving(server.major()).start().await?;
        add_pushing(&everpoint, &cluster).await?;
        everpoint.back_up()?;
        cluster.sql("postgres", "CREATE TABLE t AS SELECT generate_series(1, 1000) a").await?;
        let ended = cluster.switch_wal().await?;
        let name = cluster.value("postgres", &format!("SELECT pg_walfile_name('{ended}')")).await?;
        let segment = cluster.data_directory().join("pg_wal").join(name);
        until("the segment is archived", async || Ok(archived(&cluster)?.contains(&segment))).await?;
        let before = everpoint.contents()?;

        // The server may call again although it was done.
        push(&everpoint, &segment)?.expect(0);
        push(&everpoint, &segment)?.expect(0);
        assert_eq!(everpoint.contents()?, before);

        let name = segment.file_name().context("a name")?;
        let changed = everpoint.path("elsewhere");
        fs::create_dir(&changed)?;
        let changed = changed.join(name);
        for position in [5_000, 16_000_000] {
            copy(&segment, &changed)?;
            let file = fs::OpenOptions::new().write(true).open(&changed)?;
            file.write_all_at(b"another", position)?;
            let different = push(&everpoint, &changed)?;
            assert_ne!(different.code, 0);
            different.says("different").says(&name.to_string_lossy());
        }
        // Half of it, as from a disk that was full.
        copy(&segment, &changed)?;
        fs::OpenOptions::new().write(true).open(&changed)?.set_len(8 << 20)?;
        assert_ne!(push(&everpoint, &changed)?.code, 0);
        // Right contents under a wrong name.
        let other = changed.with_file_name("0000000100000000000000F0");
        copy(&segment, &other)?;
        let wrong = push(&everpoint, &other)?;
        assert_ne!(wrong.code, 0);
        wrong.says("was not stored");
        assert_ne!(push(&everpoint, &changed.with_file_name("0000000100000000000000F1"))?.code, 0);
        assert_eq!(everpoint.contents()?, before);

        let foreign = archiving(server.major()).setting("archive_command = 'true'").start().await?;
        foreign.switch_wal().await?;
        until("the other cluster has archived", async || Ok(!archived(&foreign)?.is_empty())).await?;
        let foreign = archived(&foreign)?.remove(0);
        let wrong = push(&everpoint, &foreign)?;
        assert_ne!(wrong.code, 0);
        wrong.says("was not stored").says("system identifier");
        assert_eq!(everpoint.contents()?, before);
        everpoint.verify()
    }

    async fn histories_are_stored_and_files_that_no_restore_needs_are_accepted(server: Server) -> Result<()> {
        let everpoint = Everpoint::of_server_user()?;
        let cluster = archiving(server.major()).start().await?;
        add_pushing(&everpoint, &cluster).await?;
        let folder = everpoint.path("files");
        fs::create_dir(&folder)?;
        let give = |name: &str, text: &str| -> Result<Finished> {
            fs::write(folder.join(name), text)?;
            push(&everpoint, &folder.join(name))
        };
        let text = "1\t0/3000148\tno recovery target specified\n";
        give("00000002.history", text)?.expect(0);
        let histories = everpoint.objects("instances/main/timelines")?;
        assert_eq!(histories.len(), 1);
        give("00000002.history", text)?.expect(0);
        assert_eq!(everpoint.objects("instances/main/timelines")?, histories);
        let other = give("00000002.history", "1\t0/4000148\tno recovery target specified\n")?;
        assert_ne!(other.code, 0);
        other.says("different");
        assert_ne!(give("00000003.history", "no history")?.code, 0);
        assert_eq!(everpoint.objects("instances/main/timelines")?, histories);

        let before = everpoint.contents()?;
        for name in [
            "000000010000000000000003.partial",
            "000000010000000000000003.00000028.backup",
        ] {
            give(name, "whatever")?.expect(0).says("not needed");
        }
        for name in ["postgresql.conf", "000000010000000000000003.tmp", "00000001000000000000000"] {
            let refused = give(name, "whatever")?;
            assert_ne!(refused.code, 0, "{name}");
            refused.says("archive_command");
        }
        assert_eq!(everpoint.contents()?, before);
        everpoint.verify()
    }

    async fn a_receiver_is_refused_for_an_instance_that_pushes(server: Server) -> Result<()> {
        let everpoint = Everpoint::of_server_user()?;
        let cluster = archiving(server.major()).start().await?;
        add_pushing(&everpoint, &cluster).await?;
        everpoint.run(["wal", "receive", "main"])?.expect(3).says("archive_command");
        // Log that does not come is not waited for endlessly.
        cluster.sql("postgres", "ALTER SYSTEM SET archive_command = 'false'").await?;
        cluster.sql("postgres", "SELECT pg_reload_conf()").await?;
        let failed = everpoint.run(["backup", "main", "--log-wait", "1s"])?.expect(1);
        failed.says("archive_command");
        assert_eq!(everpoint.backup_ids()?, Vec::<String>::new());
        assert_eq!(everpoint.objects("instances/main/packs")?, Vec::<String>::new());
        Ok(())
    }
}
