//! A scratch server beside its living source reaches out of its directory in no way.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use everpoint_testkit::{
    Cluster, Scratch,
    compare::{assert_same, check_integrity, fingerprint},
};

use crate::{
    everpoint::{Everpoint, store},
    remains::{processes_below, shared},
    versions::on_oldest_and_newest,
};

/// Every file below a directory with its contents.
fn files(directory: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
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

/// Symbolic links below a directory that lead out of it.
fn links_out(directory: &Path, root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_symlink() {
            if !path
                .canonicalize()
                .is_ok_and(|target| target.starts_with(root))
            {
                found.push(path);
            }
        } else if path.is_dir() {
            found.extend(links_out(&path, root)?);
        }
    }
    Ok(found)
}

/// The inodes of sockets that listen or talk over TCP, on all of the machine.
fn tcp_sockets() -> Result<BTreeSet<String>> {
    let mut inodes = BTreeSet::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = fs::read_to_string(table).unwrap_or_default();
        inodes.extend(
            text.lines()
                .skip(1)
                .filter_map(|line| Some(line.split_whitespace().nth(9)?.to_owned())),
        );
    }
    Ok(inodes)
}

/// The sockets that a process has open, by their inodes.
fn sockets_of(pid: u32) -> Result<BTreeSet<String>> {
    let mut inodes = BTreeSet::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let target = fs::read_link(entry?.path()).unwrap_or_default();
        let target = target.to_string_lossy().into_owned();
        let inode = target
            .strip_prefix("socket:[")
            .and_then(|rest| rest.strip_suffix(']'));
        inodes.extend(inode.map(str::to_owned));
    }
    Ok(inodes)
}

/// What is published has arrived in the subscribing database.
async fn wait_for_news(cluster: &Cluster, count: i64) -> Result<()> {
    let client = cluster.connect("shop").await?;
    loop {
        let row = client.query_one("SELECT count(*) FROM news", &[]).await?;
        if row.get::<_, i64>(0) == count {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn replicate_to_itself(cluster: &Cluster) -> Result<()> {
    cluster
        .sql(
            "publisher",
            "CREATE TABLE news (id int PRIMARY KEY); CREATE PUBLICATION news FOR TABLE news",
        )
        .await?;
    let slot = "SELECT pg_create_logical_replication_slot('news', 'pgoutput')";
    cluster.sql("publisher", slot).await?;
    cluster
        .sql("shop", "CREATE TABLE news (id int PRIMARY KEY)")
        .await?;
    let publisher = cluster.connection_string("publisher").replace('\'', "''");
    let subscription = format!(
        "CREATE SUBSCRIPTION news CONNECTION '{publisher}' PUBLICATION news WITH (create_slot = false, copy_data = false)"
    );
    cluster.sql("shop", &subscription).await?;
    cluster
        .sql("publisher", "INSERT INTO news VALUES (1)")
        .await?;
    wait_for_news(cluster, 1).await
}

on_oldest_and_newest! {
    async fn scratch_server_touches_nothing_but_its_own_directory(server: Server) -> Result<()> {
        let place = Scratch::new()?;
        let archived = place.private_directory("archive")?.join("by");
        let cluster = Cluster::builder(server.major())
            .on_loopback()
            .tablespace("outside")
            .setting("autovacuum = off")
            .setting("wal_level = logical")
            .setting("archive_mode = always")
            // Whoever archives leaves the directory it runs in.
            .setting(&format!("archive_command = 'pwd >> {}'", archived.display()))
            .setting("shared_preload_libraries = 'pg_stat_statements, pg_prewarm'")
            .setting("max_prepared_transactions = 5")
            .start()
            .await?;
        let everpoint = Everpoint::with(&cluster).await?;
        for database in ["shop", "publisher", "elsewhere TABLESPACE outside"] {
            cluster.sql("postgres", &format!("CREATE DATABASE {database}")).await?;
        }
        cluster.sql("shop", "CREATE TABLE far TABLESPACE outside AS SELECT generate_series(1, 3000) AS id").await?;
        cluster.sql("elsewhere", "CREATE TABLE content AS SELECT generate_series(1, 3000) AS id").await?;
        cluster.sql("shop", "SELECT pg_create_logical_replication_slot('idle', 'pgoutput')").await?;
        cluster.sql("postgres", "SELECT pg_create_physical_replication_slot('standby', true)").await?;
        replicate_to_itself(&cluster).await?;
        everpoint.full().await?;
        // Left to itself, replay makes links to where the living ones are.
        let late = place.private_directory("late")?;
        cluster.sql("postgres", &format!("CREATE TABLESPACE late LOCATION '{}'", late.display())).await?;
        cluster.sql("shop", "CREATE TABLE later TABLESPACE late AS SELECT generate_series(1, 2000) AS id").await?;
        cluster.sql("elsewhere", "CREATE TABLE later TABLESPACE late AS SELECT generate_series(1, 2000) AS id").await?;
        store(&everpoint, &cluster).await?;
        let expected = fingerprint(&cluster).await?;
        let before = shared(&cluster).await?;
        cluster.checkpoint().await?;
        let outside = cluster.tablespace_directory("outside");
        let live = (files(&outside)?, files(&late)?);
        assert!(!live.1.is_empty());

        let inspected = everpoint.inspect(&["main/shop"]).await?;
        let data = inspected.data()?;
        assert_eq!(links_out(&data, &data.canonicalize()?)?, Vec::<PathBuf>::new());
        let client = inspected.connect().await?;
        let value = async |query: &str| -> Result<String> {
            let row = client.query_one(query, &[]).await?;
            Ok(row.get::<_, Option<String>>(0).unwrap_or_default())
        };
        let pid: u32 = fs::read_to_string(data.join("postmaster.pid"))?.lines().next().context("a process")?.parse()?;
        let sockets = sockets_of(pid)?;
        assert!(!sockets.is_empty());
        assert!(sockets.is_disjoint(&tcp_sockets()?), "the scratch server is on the network");
        let living = sockets_of(cluster.pid().context("it runs")?)?;
        assert!(!living.is_disjoint(&tcp_sockets()?), "the living one is, or this tells nothing");
        // PostgreSQL's own processes, and none of those that reach out or come from extensions.
        let kinds = "SELECT string_agg(DISTINCT backend_type, ',') FROM pg_stat_activity
            WHERE backend_type NOT IN ('client backend', 'checkpointer', 'background writer', 'walwriter', 'io worker')";
        assert_eq!(value(kinds).await?, "");
        let living = processes_below(cluster.data_directory())?;
        let scratch = processes_below(&everpoint.scratch_base())?;
        assert!(!scratch.is_empty());
        for kind in ["archiver", "autoprewarm", "logical replication", "walsender"] {
            let are = |processes: &[String]| processes.iter().any(|process| process.contains(kind));
            assert!(are(&living), "the living one has {kind}: {living:?}");
            assert!(!are(&scratch), "{scratch:?}");
        }
        assert_eq!(value("SELECT string_agg(slot_name, ',') FROM pg_replication_slots").await?, "");
        assert_eq!(value("SELECT string_agg(subname || coalesce(pid::text, ''), ',') FROM pg_stat_subscription").await?, "news");
        assert_eq!(value("SELECT subenabled::text FROM pg_subscription").await?, "true");
        // The trap: dropping in the copy what would be links to the living files.
        for statement in ["DROP TABLE far, later", "SELECT pg_switch_wal()", "DROP DATABASE elsewhere", "CHECKPOINT", "DROP TABLESPACE late"] {
            client.batch_execute(statement).await.with_context(|| statement.to_owned())?;
        }
        drop(client);
        // Killed, it goes on; the next start ends and removes it.
        inspected.kill().await?;
        assert!(!processes_below(&everpoint.scratch_base())?.is_empty());
        let repaired = everpoint.repair().await?;
        assert_eq!(repaired.code, Some(0), "{repaired:?}");
        everpoint.assert_nothing_left(&cluster, &before, "killed").await?;
        cluster.checkpoint().await?;
        assert!((files(&outside)?, files(&late)?) == live, "living files were touched");
        assert_same(&expected, &fingerprint(&cluster).await?);

        // Moved, the subscription is not started either, and takes nothing from the living one.
        let done = everpoint.put_back(&["main/shop", "--to", "shop_back"]).await?;
        assert_eq!(done.code, Some(0), "{done:?}");
        cluster.sql("publisher", "INSERT INTO news VALUES (2)").await?;
        wait_for_news(&cluster, 2).await?;
        assert_eq!(cluster.value("shop_back", "SELECT count(*) FROM news").await?, "1");
        assert_eq!(cluster.value("shop_back", "SELECT subenabled FROM pg_subscription s JOIN pg_database d ON d.oid = subdbid
            WHERE datname = 'shop_back'").await?, "f");
        cluster.switch_wal().await?;
        cluster.wait_until_true("SELECT archived_count > 0 FROM pg_stat_archiver", "archive").await?;
        let by: BTreeSet<String> = fs::read_to_string(&archived)?.lines().map(str::to_owned).collect();
        assert_eq!(by, [cluster.data_directory().canonicalize()?.display().to_string()].into());
        check_integrity(&cluster).await
    }
}
