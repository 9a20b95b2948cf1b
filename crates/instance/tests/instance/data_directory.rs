use std::{
    collections::BTreeMap,
    fs,
    os::unix::{fs::PermissionsExt, fs::symlink, net::UnixListener},
    path::Path,
};

use anyhow::Result;
use everpoint_instance::data_directory::{
    OddityKind, Running, control_file, is_running, running, scan, space,
};
use everpoint_pgformat::{MajorVersion, relation::DataPath};
use everpoint_testkit::{Cluster, Scratch, StopMode, on_every_version};

/// Files by path with their sizes, and directories with none.
type Tree = BTreeMap<String, Option<u64>>;

/// Everything below a directory, through the links of `pg_tblspc`.
fn walk(root: &Path, below: &str, tree: &mut Tree) -> Result<()> {
    for entry in fs::read_dir(root.join(below))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if below.is_empty() {
            name
        } else {
            format!("{below}/{name}")
        };
        let metadata = fs::metadata(entry.path())?;
        if metadata.is_dir() {
            tree.insert(path.clone(), None);
            walk(root, &path, tree)?;
        } else {
            tree.insert(path, Some(metadata.len()));
        }
    }
    Ok(())
}

fn scanned(root: &Path, version: MajorVersion) -> Result<Tree> {
    let listing = scan(root, version)?;
    let directories = listing.directories().filter(|d| !d.path.is_empty());
    let mut tree: Tree = directories.map(|d| (d.path.to_owned(), None)).collect();
    let paths: Vec<String> = listing.files().map(|file| file.path()).collect();
    assert!(paths.is_sorted(), "files are not sorted by path");
    for file in listing.files() {
        tree.insert(file.path(), Some(file.size.get()));
    }
    Ok(tree)
}

/// A cluster with everything that is listed in a way of its own.
async fn odd_cluster(major: u16) -> Result<Cluster> {
    let cluster = Cluster::builder(major)
        .tablespace("apart")
        .setting("autovacuum = off")
        .setting("allow_in_place_tablespaces = on")
        .start()
        .await?;
    cluster
        .sql("postgres", "CREATE TABLESPACE in_place LOCATION ''")
        .await?;
    cluster
        .sql("postgres", "CREATE DATABASE other TABLESPACE apart")
        .await?;
    cluster
        .sql(
            "postgres",
            "CREATE UNLOGGED TABLE lost AS SELECT generate_series(1, 5000) AS a; \
             CREATE UNLOGGED TABLE lost_apart (a int PRIMARY KEY) TABLESPACE apart; \
             CREATE TABLE kept AS SELECT generate_series(1, 5000) AS a; \
             CREATE TABLE kept_in_place (a int) TABLESPACE in_place;",
        )
        .await?;
    cluster
        .sql(
            "other",
            "CREATE TABLE inside AS SELECT generate_series(1, 100) AS a",
        )
        .await?;
    Ok(cluster)
}

on_every_version! {
    async fn listing_is_what_base_backup_sends(server: Server) -> Result<()> {
        let cluster = odd_cluster(server.major()).await?;
        let root = cluster.data_directory();
        // Temporary relations, in both their places, live as long as this session.
        let session = cluster.connect("postgres").await?;
        session
            .batch_execute(
                "CREATE TEMPORARY TABLE passing AS SELECT generate_series(1, 5000) AS a; \
                 CREATE TEMPORARY TABLE passing_apart (a int PRIMARY KEY) TABLESPACE apart;",
            )
            .await?;
        fs::create_dir_all(root.join("base/pgsql_tmp"))?;
        fs::write(root.join("base/pgsql_tmp/pgsql_tmp1.0"), "x")?;
        fs::create_dir_all(root.join("extension/deep.er/est"))?;
        fs::write(root.join("extension/deep.er/est/file"), "x")?;
        fs::write(root.join("extension/deep"), "x")?;
        fs::write(root.join("pg_stat_tmp/x"), "x")?;
        cluster.sql("postgres", "CHECKPOINT").await?;

        let scratch = Scratch::new()?;
        let copy = scratch.private_directory("copy")?;
        let apart = scratch.path().join("apart");
        let mut arguments = vec![
            format!("--pgdata={}", copy.display()),
            format!("--dbname={}", cluster.connection_string("postgres")),
            "--checkpoint=fast".to_owned(),
            "--wal-method=none".to_owned(),
            "--no-sync".to_owned(),
            "--no-manifest".to_owned(),
        ];
        let from = cluster.tablespace_directory("apart");
        arguments.push(format!("--tablespace-mapping={}={}", from.display(), apart.display()));
        server.run("pg_basebackup", arguments).await?;
        let mut sent = Tree::new();
        walk(&copy, "", &mut sent)?;
        sent.remove("backup_label");
        assert!(sent.keys().any(|path| path.ends_with("_init")), "no unlogged relation");

        let found = scanned(root, server.version())?;
        let difference: Vec<_> = sent
            .iter()
            .filter(|(path, size)| found.get(*path) != Some(size))
            .chain(found.iter().filter(|(path, size)| sent.get(*path) != Some(size)))
            .collect();
        assert!(difference.is_empty(), "{difference:#?}");
        drop(session);
        Ok(())
    }

    async fn tablespaces_are_named_with_their_places(server: Server) -> Result<()> {
        let cluster = odd_cluster(server.major()).await?;
        let listing = scan(cluster.data_directory(), server.version())?;
        let [apart, in_place] = listing.tablespaces() else {
            anyhow::bail!("{:?}", listing.tablespaces());
        };
        assert_eq!(apart.location, Some(cluster.tablespace_directory("apart")));
        assert_eq!(in_place.location, None);
        let relations = listing.files().filter(|file| {
            matches!(
                file.kind(server.version()),
                DataPath::Relation(file) if file.relation.tablespace == apart.oid
            )
        });
        assert!(relations.count() > 100, "a database's worth of relations");
        assert!(listing.oddities().is_empty(), "{:?}", listing.oddities());
        Ok(())
    }

    async fn what_does_not_belong_is_left_out_and_said(server: Server) -> Result<()> {
        let mut cluster = Cluster::builder(server.major()).start().await?;
        cluster.stop(StopMode::Fast).await?;
        let root = cluster.data_directory();
        let before = scanned(root, server.version())?;
        let _socket = UnixListener::bind(root.join("base/socket"))?;
        symlink("/etc/hostname", root.join("global/link"))?;
        symlink("/nowhere", root.join("pg_tblspc/99999"))?;
        assert_eq!(scanned(root, server.version())?, before);
        let listing = scan(root, server.version())?;
        let oddities: Vec<_> = listing
            .oddities()
            .iter()
            .map(|oddity| (oddity.path.as_str(), oddity.kind))
            .collect();
        assert_eq!(
            oddities,
            [
                ("base/socket", OddityKind::SpecialFile),
                ("global/link", OddityKind::SymbolicLink),
                ("pg_tblspc/99999", OddityKind::MissingTablespace),
            ]
        );
        Ok(())
    }

    async fn running_server_is_seen_until_it_stops(server: Server) -> Result<()> {
        let mut cluster = Cluster::builder(server.major()).start().await?;
        let root = cluster.data_directory().to_owned();
        let Running::Yes(file) = running(&root)? else { anyhow::bail!("not seen") };
        assert_eq!(file.pid.unsigned_abs(), cluster.pid().unwrap());
        assert!(control_file(&root)?.version == server.version());
        cluster.stop(StopMode::Fast).await?;
        assert!(!is_running(&root)?);
        assert!(space(&root)?.available.get() > 0);
        Ok(())
    }
}

#[test]
fn directories_without_a_right_or_not_there_are_named() {
    let version = MajorVersion::try_from(18).unwrap();
    let error = scan(Path::new("/nowhere/data"), version)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("/nowhere/data") && error.contains("SHOW data_directory"),
        "{error}"
    );
    let scratch = tempfile::tempdir().unwrap();
    let mode = fs::metadata(scratch.path()).unwrap().permissions().mode() & 0o7777;
    let listing = scan(scratch.path(), version).unwrap();
    let top = listing.directories().next().unwrap();
    assert_eq!((top.path, top.mode), ("", mode));
    assert!(control_file(scratch.path()).is_err());
}
