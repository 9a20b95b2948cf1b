//! A cluster copied by this crate's own means, and scratch servers on the copy.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Result;
use everpoint_instance::{
    BackupMode, CheckpointMode, PgBinaries, StartOptions, connect_sql,
    data_directory::{is_running, scan},
    process::{
        Account, BinariesError, CageError, Milestone, ProcessError, RecoverySignal, StopMode,
        stop_running,
    },
    start_for_recovery,
};
use everpoint_pgformat::{Lsn, MajorVersion};
use everpoint_testkit::{Cluster, Scratch, Server, on_every_version};

use crate::spec::spec;

const PATIENCE: Duration = Duration::from_secs(120);

/// A copy of a running cluster, ready to be recovered.
struct Copied {
    scratch: Scratch,
    root: PathBuf,
    stop_lsn: Lsn,
    pg_wal: PathBuf,
}

impl Copied {
    async fn of(cluster: &Cluster, server: &Server) -> Result<Self> {
        let client = connect_sql(&spec(cluster)?, "postgres").await?;
        let backup = BackupMode::start(client, "copy", CheckpointMode::Fast).await?;
        let from = cluster.data_directory();
        let scratch = Scratch::new()?;
        let root = scratch.private_directory("copy")?;
        let owner = fs::metadata(&root)?;
        let own = |path: &Path| chown(path, Some(owner.uid()), Some(owner.gid()));
        let listing = scan(from, server.version())?;
        for directory in listing
            .directories()
            .filter(|directory| !directory.path.is_empty())
        {
            let path = root.join(directory.path);
            fs::DirBuilder::new().mode(directory.mode).create(&path)?;
            own(&path)?;
        }
        for file in listing.files() {
            let path = root.join(file.path());
            fs::copy(from.join(file.path()), &path)?;
            own(&path)?;
        }
        let stop = backup.stop().await?;
        let label = root.join("backup_label");
        fs::write(&label, &stop.label_text)?;
        own(&label)?;
        Ok(Self {
            scratch,
            root,
            stop_lsn: stop.stop_lsn,
            pg_wal: from.join("pg_wal"),
        })
    }

    /// A cage that takes its WAL straight from the living cluster.
    fn options(&self) -> StartOptions {
        StartOptions::caged(self.scratch.path().join("cage"))
            .recovery_signal(RecoverySignal::Recovery)
            .setting(
                "restore_command",
                format!("cp {}/%f %p", self.pg_wal.display()),
            )
            .setting("recovery_target_lsn", self.stop_lsn.to_string())
            .setting("recovery_target_action", "promote")
    }
}

async fn binaries(server: &Server) -> Result<PgBinaries> {
    Ok(PgBinaries::find(Some(server.bin()), server.version()).await?)
}

on_every_version! {
    async fn copy_recovers_in_a_cage_beside_its_living_source(server: Server) -> Result<()> {
        let cluster = Cluster::builder(server.major()).setting("wal_keep_size = 1GB").start().await?;
        // What the source has for itself must not reach the scratch.
        cluster.sql("postgres", "ALTER SYSTEM SET primary_conninfo = 'host=/nowhere'").await?;
        cluster.sql("postgres", "ALTER SYSTEM SET shared_buffers = '7TB'").await?;
        cluster.sql("postgres", "CREATE TABLE t AS SELECT generate_series(1, 1000) AS a").await?;
        let copied = Copied::of(&cluster, &server).await?;
        cluster.sql("postgres", "DROP TABLE t").await?;
        let binaries = binaries(&server).await?;
        let options = copied.options();
        let mut scratch = start_for_recovery(&binaries, &copied.root, &options).await?;
        scratch.wait_until(Milestone::Promoted, Some(PATIENCE)).await?;
        assert!(is_running(&copied.root)?);
        let client = connect_sql(&scratch.connection("postgres").unwrap(), "postgres").await?;
        let row = client.query_one("SELECT count(*) FROM public.t", &[]).await?;
        assert_eq!(row.get::<_, i64>(0), 1000);
        let again = start_for_recovery(&binaries, &copied.root, &options).await;
        assert!(matches!(again, Err(ProcessError::AlreadyRunning { .. })));
        let status = scratch.stop(StopMode::Fast, PATIENCE).await?;
        assert!(status.success(), "{status}");
        assert!(!is_running(&copied.root)?);
        Ok(())
    }

    async fn failed_recovery_is_reported_with_the_end_of_its_log(server: Server) -> Result<()> {
        let cluster = Cluster::builder(server.major()).start().await?;
        let copied = Copied::of(&cluster, &server).await?;
        let options = copied.options().setting("recovery_target_lsn", "FF/0");
        let mut scratch = start_for_recovery(&binaries(&server).await?, &copied.root, &options).await?;
        let error = scratch.wait_until(Milestone::Promoted, Some(PATIENCE)).await.unwrap_err();
        let ProcessError::Exited { log_tail, .. } = &error else { panic!("{error}") };
        assert!(log_tail.contains("recovery ended before configured recovery target was reached"), "{error}");
        Ok(())
    }

    async fn recovery_that_shuts_down_at_its_target_ends_in_good_order(server: Server) -> Result<()> {
        let cluster = Cluster::builder(server.major()).setting("wal_keep_size = 1GB").start().await?;
        let copied = Copied::of(&cluster, &server).await?;
        let options = copied
            .options()
            .setting("recovery_target_action", "shutdown")
            .setting("hot_standby", "on");
        let binaries = binaries(&server).await?;
        let mut scratch = start_for_recovery(&binaries, &copied.root, &options).await?;
        scratch.wait_until(Milestone::Exited, Some(PATIENCE)).await?;
        // It may go on, and be promoted by hand.
        let options = options.setting("recovery_target_action", "pause");
        let mut scratch = start_for_recovery(&binaries, &copied.root, &options).await?;
        scratch.wait_until(Milestone::Ready, Some(PATIENCE)).await?;
        scratch.promote()?;
        scratch.wait_until(Milestone::Promoted, Some(PATIENCE)).await?;
        assert!(stop_running(&copied.root, StopMode::Fast, PATIENCE).await?);
        assert!(!stop_running(&copied.root, StopMode::Fast, PATIENCE).await?);
        Ok(())
    }

    async fn dropped_scratch_server_is_gone(server: Server) -> Result<()> {
        let cluster = Cluster::builder(server.major()).setting("wal_keep_size = 1GB").start().await?;
        let copied = Copied::of(&cluster, &server).await?;
        let mut scratch =
            start_for_recovery(&binaries(&server).await?, &copied.root, &copied.options()).await?;
        scratch.wait_until(Milestone::Ready, Some(PATIENCE)).await?;
        drop(scratch);
        let started = std::time::Instant::now();
        while is_running(&copied.root)? {
            assert!(started.elapsed() < PATIENCE, "still there");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    async fn cage_refuses_links_that_lead_out(server: Server) -> Result<()> {
        let cluster = Cluster::builder(server.major()).start().await?;
        let copied = Copied::of(&cluster, &server).await?;
        let link = copied.root.join("pg_tblspc/16400");
        symlink(cluster.data_directory(), &link)?;
        let binaries = binaries(&server).await?;
        let refused = start_for_recovery(&binaries, &copied.root, &copied.options()).await;
        let Err(ProcessError::Cage(CageError::LinkOutside { link: named, .. })) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(named, link);
        fs::remove_file(&link)?;
        let long = copied.scratch.path().join("x".repeat(100));
        let refused = start_for_recovery(&binaries, &copied.root, &StartOptions::caged(long)).await;
        assert!(matches!(refused, Err(ProcessError::Cage(CageError::SocketPath { .. }))));
        Ok(())
    }

    async fn programs_of_another_version_are_refused(server: Server) -> Result<()> {
        let found = PgBinaries::find(Some(server.bin()), server.version()).await?;
        assert_eq!(found.version(), server.version());
        found.tool("pg_dump")?;
        assert!(matches!(found.tool("pg_nothing"), Err(BinariesError::NoTool { .. })));
        // A directory with nothing but a link to the server, as some installations have one on PATH.
        let links = tempfile::tempdir()?;
        std::os::unix::fs::symlink(server.bin().join("postgres"), links.path().join("postgres"))?;
        let linked = PgBinaries::find(Some(links.path()), server.version()).await?;
        assert_eq!(linked.tool("pg_dump")?, found.tool("pg_dump")?);
        let other = if server.major() == 15 { 16 } else { 15 };
        let wanted = MajorVersion::try_from(other)?;
        let refused = PgBinaries::find(Some(server.bin()), wanted).await;
        assert!(matches!(refused, Err(BinariesError::OtherVersion { .. })));
        let cluster = Cluster::builder(other).start().await?;
        let options = StartOptions::as_configured();
        let refused = start_for_recovery(&found, cluster.data_directory(), &options).await;
        assert!(matches!(refused, Err(ProcessError::OtherVersion { .. })));
        Ok(())
    }
}

#[tokio::test]
async fn directories_without_programs_are_named() {
    let scratch = tempfile::tempdir().unwrap();
    let wanted = MajorVersion::try_from(17).unwrap();
    let error = PgBinaries::find(Some(scratch.path()), wanted)
        .await
        .unwrap_err();
    assert!(
        matches!(error, BinariesError::NotRunnable { .. }),
        "{error}"
    );
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o700)).unwrap();
    if fs::metadata(scratch.path()).unwrap().uid() == 0 {
        let error = Account::owner_of(scratch.path()).unwrap_err().to_string();
        assert!(error.contains("chown -R postgres"), "{error}");
    } else {
        assert_eq!(Account::owner_of(scratch.path()).unwrap(), Account::Own);
    }
}
