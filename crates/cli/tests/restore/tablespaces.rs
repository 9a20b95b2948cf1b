//! Tablespaces, whose files lie outside the data directory, beside those of the live cluster.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::Result;
use everpoint_testkit::{
    Cluster, Scratch, StopMode,
    compare::{assert_same, check_integrity, fingerprint},
};

use crate::{
    everpoint::{Everpoint, nudge},
    versions::on_oldest_and_newest,
};

/// Every file below a directory with its contents.
fn files(directory: &Path) -> Result<BTreeMap<std::path::PathBuf, Vec<u8>>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.insert(path.clone(), fs::read(&path)?);
        }
    }
    Ok(found)
}

fn mapping(cluster: &Cluster, name: &str, to: &Path) -> String {
    let from = cluster.tablespace_directory(name);
    format!("{}={}", from.display(), to.display())
}

const TABLES: &str = "
    CREATE TABLE near TABLESPACE inside AS SELECT i AS id, md5(i::text) AS note FROM generate_series(1, 3000) i;
    CREATE TABLE far TABLESPACE outside AS SELECT * FROM near;
    CREATE INDEX far_id ON far (id) TABLESPACE inside";

on_oldest_and_newest! {
    async fn tablespaces_are_restored_elsewhere_and_live_ones_left_alone(server: Server) -> Result<()> {
        let major = server.major();
        let cluster = Cluster::builder(major)
            .tablespace("outside")
            .tablespace("empty")
            .setting("autovacuum = off")
            .start()
            .await?;
        let inside = "SET allow_in_place_tablespaces = on; CREATE TABLESPACE inside LOCATION ''";
        let client = cluster.connect("postgres").await?;
        for statement in inside.split("; ") {
            client.batch_execute(statement).await?;
        }
        let everpoint = Everpoint::with(&cluster).await?;
        cluster.sql("postgres", TABLES).await?;
        cluster.sql("postgres", "CREATE DATABASE elsewhere TABLESPACE outside").await?;
        everpoint.full().await?;
        cluster.sql("postgres", "UPDATE far SET note = 'changed' WHERE id % 10 = 0").await?;
        cluster.sql("elsewhere", "CREATE TABLE content AS SELECT generate_series(1, 500) AS id").await?;
        everpoint.differential().await?;
        cluster.sql("postgres", "INSERT INTO near SELECT 5000 + i, 'late' FROM generate_series(1, 500) i").await?;
        let end = nudge(&cluster).await?;
        let receiver = everpoint.receive()?;
        everpoint.wait_until_stored(end).await?;
        receiver.stop().await?;
        // Reading sets hint bits, which the checkpoint writes; from here on nothing changes.
        let expected = fingerprint(&cluster).await?;
        cluster.checkpoint().await?;
        let live = cluster.tablespace_directory("outside");
        let files_before = files(&live)?;

        let place = Scratch::new()?;
        let (outside, empty) = (place.path().join("outside"), place.path().join("empty"));
        let (to_outside, to_empty) = (mapping(&cluster, "outside", &outside), mapping(&cluster, "empty", &empty));
        let refusal = everpoint.refused_restore(&["--tablespace", &to_empty]).await?;
        assert!(refusal.contains(&format!("--tablespace {}=NEW", live.display())), "{refusal}");
        let onto_live = format!("{0}={0}", live.display());
        let refusal = everpoint.refused_restore(&["--tablespace", &to_empty, "--tablespace", &onto_live]).await?;
        assert!(refusal.contains("is not empty"), "{refusal}");
        let unknown = format!("/nowhere={}", outside.display());
        let refusal = everpoint.refused_restore(&["--tablespace", &unknown]).await?;
        assert!(refusal.contains(&live.display().to_string()), "names those there are: {refusal}");
        let relative = format!("{}=outside", live.display());
        let refusal = everpoint.refused_restore(&["--tablespace", &relative]).await?;
        assert!(refusal.contains("is not an absolute path"), "{refusal}");

        let both = ["--tablespace", &to_outside, "--tablespace", &to_empty];
        let restored = everpoint.restore(major, &both).await?;
        assert_same(&expected, &fingerprint(&restored).await?);
        check_integrity(&restored).await?;
        // The copy's own writing stays in the copy, and so does its end.
        restored.sql("postgres", "UPDATE far SET note = 'of the copy'; DROP TABLE near").await?;
        restored.sql("postgres", "DROP DATABASE elsewhere").await?;
        restored.checkpoint().await?;
        cluster.checkpoint().await?;
        assert!(files(&live)? == files_before, "the live tablespace was touched");
        assert_same(&expected, &fingerprint(&cluster).await?);
        check_integrity(&cluster).await
    }

    async fn tablespace_made_after_the_backup_is_kept_from_the_live_one(server: Server) -> Result<()> {
        let major = server.major();
        let cluster = Cluster::builder(major).setting("autovacuum = off").start().await?;
        let everpoint = Everpoint::with(&cluster).await?;
        everpoint.full().await?;
        let outside = Scratch::new()?;
        let location = outside.private_directory("late")?;
        let create = format!("CREATE TABLESPACE late LOCATION '{}'", location.display());
        cluster.sql("postgres", &create).await?;
        let table = "CREATE TABLE content TABLESPACE late AS SELECT generate_series(1, 3000) AS id";
        cluster.sql("postgres", table).await?;
        let then = nudge(&cluster).await?;
        cluster.sql("postgres", "UPDATE content SET id = id + 1").await?;
        let end = nudge(&cluster).await?;
        let receiver = everpoint.receive()?;
        everpoint.wait_until_stored(end).await?;
        receiver.stop().await?;
        let expected = fingerprint(&cluster).await?;
        cluster.checkpoint().await?;
        let files_before = files(&location)?;

        // Left alone, replay makes a link to the live tablespace and writes through it.
        let restored = everpoint.restore(major, &["--at", &then.time.to_string()]).await?;
        assert_eq!(restored.value("postgres", "SELECT sum(id) FROM content").await?, "4501500");
        check_integrity(&restored).await?;
        restored.sql("postgres", "UPDATE content SET id = 0").await?;
        restored.checkpoint().await?;
        let latest = everpoint.restore(major, &[]).await?;
        assert_same(&expected, &fingerprint(&latest).await?);
        latest.sql("postgres", "DROP TABLE content").await?;
        latest.sql("postgres", "DROP TABLESPACE late").await?;
        latest.checkpoint().await?;
        assert!(files(&location)? == files_before, "the live tablespace was touched");
        assert_same(&expected, &fingerprint(&cluster).await?);
        check_integrity(&cluster).await
    }

    async fn tablespaces_are_restored_to_their_old_places_when_those_are_free(server: Server) -> Result<()> {
        let major = server.major();
        let outside = Scratch::new()?;
        let location = outside.private_directory("place")?;
        let mut cluster = Cluster::builder(major).start().await?;
        let everpoint = Everpoint::with(&cluster).await?;
        everpoint.full().await?;
        let create = format!("CREATE TABLESPACE place LOCATION '{}'", location.display());
        cluster.sql("postgres", &create).await?;
        let table = "CREATE TABLE content TABLESPACE place AS SELECT generate_series(1, 3000) AS id";
        cluster.sql("postgres", table).await?;
        everpoint.differential().await?;
        let expected = fingerprint(&cluster).await?;
        cluster.stop(StopMode::Immediate).await?;
        fs::rename(&location, outside.path().join("aside"))?;
        let restored = everpoint.restore(major, &[]).await?;
        assert_same(&expected, &fingerprint(&restored).await?);
        check_integrity(&restored).await
    }
}
