//! Long-term copies: they outlive everything else of the instance, and what interrupts them leaves nothing.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use everpoint_pgformat::Lsn;
use everpoint_testkit::{
    Cluster, Target, Workload,
    compare::{assert_same_database, fingerprint_database},
    mixed_data,
};
use serde_json::Value;

use crate::{
    everpoint::{Everpoint, NAME, REFUSED},
    versions::on_oldest_and_newest,
};

impl Everpoint {
    async fn copies(&self) -> Result<Vec<Value>> {
        let listed = self.json(&["long-term", "list"]).await?;
        Ok(listed.as_array().cloned().unwrap_or_default())
    }

    /// What is in the folder of the instance's copies.
    fn copy_folders(&self) -> Result<Vec<PathBuf>> {
        let folder = self.objects("long-term").join(NAME);
        if !folder.exists() {
            return Ok(Vec::new());
        }
        let entries = fs::read_dir(folder)?.map(|entry| Ok(entry?.path()));
        entries.collect()
    }
}

fn id_of(copy: &Value) -> Result<String> {
    Ok(copy["id"].as_str().context("an identifier")?.to_owned())
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        match path.is_dir() {
            true => found.extend(files(&path)?),
            false => found.push(path),
        }
    }
    found.sort();
    Ok(found)
}

on_oldest_and_newest! {
    async fn a_copy_is_restored_when_nothing_else_of_the_instance_is_left(server: Server) -> Result<()> {
        let cluster = Cluster::builder(server.major()).tablespace("outside").start().await?;
        let everpoint = Everpoint::with(&cluster).await?;
        for name in ["shop", "other"] {
            cluster.sql("postgres", &format!("CREATE DATABASE {name}")).await?;
        }
        let shop = cluster.connect("shop").await?;
        mixed_data(&shop, 4_000_000.into()).await?;
        shop.batch_execute("CREATE TABLE far TABLESPACE outside AS SELECT generate_series(1, 3000) AS id").await?;
        // Both are written to while the backup runs, so that the copy needs log, and only some of it.
        let ours = Workload::new("shop").writers(2).start(&cluster).await?;
        let others = Workload::new("other").writers(1).start(&cluster).await?;
        let full = everpoint.full().await?;
        ours.wait_for_commits(20).await?;
        let ledger = ours.stop().await?;
        others.stop().await?;
        let stop = full.stop_lsn.to_string();
        let inspected = everpoint.inspect(&["main/shop", "--lsn", &stop]).await?;
        let expected = inspected.content().await?;
        inspected.end().await?;

        let planned = everpoint.json(&["long-term", "copy", "main/shop", "--keep", "1y", "--dry-run"]).await?;
        assert!(planned["file_bytes"].as_u64() > Some(4_000_000), "{planned}");
        assert_eq!(everpoint.copies().await?.len(), 0);
        let copy = everpoint.json(&["long-term", "copy", "main/shop", "--keep", "1y"]).await?;
        let id = id_of(&copy)?;
        assert_eq!(everpoint.copies().await?, std::slice::from_ref(&copy));
        let listed = everpoint.json(&["long-term", "list", "main/other"]).await?;
        assert_eq!(listed, Value::Array(Vec::new()));
        let refused = everpoint.run(&["long-term", "copy", "main/nowhere"]).await?;
        assert_eq!(refused.code, Some(REFUSED), "{refused:?}");
        assert!(refused.err.contains("shop"), "{refused:?}");
        assert_eq!(everpoint.copy_folders()?.len(), 1, "what was refused left something");

        // The description of the instance is all that stays of it.
        cluster.sql("postgres", "DROP DATABASE shop WITH (FORCE)").await?;
        for folder in ["backups", "packs", "log", "summaries", "timelines", "marks", "gaps"] {
            let folder = everpoint.objects("instances").join(NAME).join(folder);
            if folder.exists() {
                fs::remove_dir_all(folder)?;
            }
        }
        let verified = everpoint.json(&["verify", NAME, "--full"]).await?;
        assert_eq!(verified["damage"], Value::Array(Vec::new()));
        assert!(verified["verified_bytes"].as_u64() > Some(4_000_000), "{verified}");
        let inspected = everpoint.inspect(&["--long-term", &id]).await?;
        assert_same_database(&expected, &inspected.content().await?);
        let client = inspected.connect().await?;
        // What begins at the stop position lies behind it.
        let last = Lsn::new(full.stop_lsn.get() - 1);
        ledger.check(&client, Target::Lsn(last)).await?;
        inspected.end().await?;
        let back = everpoint.put_back(&["--long-term", &id, "--to", "shop_again"]).await?;
        assert_eq!(back.code, Some(0), "{back:?}");
        let again = cluster.connect("shop_again").await?;
        assert_eq!(again.query_one("SELECT count(*) FROM far", &[]).await?.get::<_, i64>(0), 3000);
        drop(fingerprint_database(&again).await?);
        let early = everpoint.try_inspect(&["--long-term", &id, "--latest"]).await?;
        assert_eq!(early.code, Some(2), "a copy is of one moment: {early:?}");

        // A byte that is wrong is found, and where it is.
        let packs: Vec<PathBuf> = files(&everpoint.objects("long-term"))?
            .into_iter()
            .filter(|path| path.to_string_lossy().contains("/packs/"))
            .collect();
        let pack = packs.first().context("a pack")?;
        let mut bytes = fs::read(pack)?;
        let middle = bytes.len() / 3;
        bytes[middle] ^= 1;
        fs::write(pack, bytes)?;
        let verified = everpoint.run(&["--output", "json", "verify", "--full"]).await?;
        assert_eq!(verified.code, Some(4), "{verified:?}");
        let damaged = format!("long-term/{NAME}/{id}/instances/{NAME}/packs/");
        assert!(verified.out.contains(&damaged), "{verified:?}");
        Ok(())
    }

    async fn a_held_copy_stays_and_a_released_one_can_be_deleted(server: Server) -> Result<()> {
        let cluster = Cluster::builder(server.major()).start().await?;
        let everpoint = Everpoint::with(&cluster).await?;
        cluster.sql("postgres", "CREATE DATABASE shop").await?;
        everpoint.full().await?;
        let id = id_of(&everpoint.json(&["long-term", "copy", "main/shop"]).await?)?;
        everpoint.json(&["long-term", "hold", &id]).await?;
        let refused = everpoint.run(&["long-term", "delete", &id]).await?;
        assert_eq!(refused.code, Some(REFUSED), "{refused:?}");
        assert!(refused.err.contains("release"), "{refused:?}");
        let held = everpoint.copies().await?;
        assert!(held[0]["held_since"].is_string(), "{held:?}");
        everpoint.json(&["long-term", "release", &id]).await?;
        let kept = everpoint.json(&["long-term", "delete", &id, "--dry-run"]).await?;
        assert_eq!(kept["id"], id.as_str());
        assert_eq!(everpoint.copies().await?.len(), 1);
        everpoint.json(&["long-term", "delete", &id]).await?;
        assert_eq!(everpoint.copies().await?.len(), 0);
        assert!(everpoint.copy_folders()?.is_empty());
        let gone = everpoint.run(&["long-term", "hold", &id]).await?;
        assert_eq!(gone.code, Some(REFUSED), "{gone:?}");
        // One that has no time stays when the instance's backups expire.
        everpoint.json(&["long-term", "copy", "main/shop"]).await?;
        let expired = everpoint.json(&["expire", NAME, "--retention-days", "1"]).await?;
        assert_eq!(expired["deleted_copies"], Value::Array(Vec::new()));
        assert_eq!(everpoint.copies().await?.len(), 1);
        Ok(())
    }

    async fn what_a_killed_copy_left_is_none_and_goes_with_the_next(server: Server) -> Result<()> {
        let cluster = Cluster::builder(server.major()).start().await?;
        let everpoint = Everpoint::with(&cluster).await?;
        cluster.sql("postgres", "CREATE DATABASE shop").await?;
        mixed_data(&cluster.connect("shop").await?, 30_000_000.into()).await?;
        everpoint.full().await?;
        let copying = &["long-term", "copy", "main/shop", "--jobs", "1"];
        let mut child = everpoint.command(copying).spawn()?;
        while everpoint.copy_folders()?.is_empty() {
            assert!(child.try_wait()?.is_none(), "it ended before it wrote anything");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        child.kill().await?;
        assert_eq!(everpoint.copies().await?.len(), 0, "it was killed too late");
        let left = everpoint.copy_folders()?;
        assert_eq!(left.len(), 1);
        // The server notices that the session is gone.
        let holder = "SELECT count(*) = 0 FROM pg_locks WHERE locktype = 'advisory'";
        cluster.wait_until_true(holder, "the lock is free").await?;
        let copy = everpoint.json(copying).await?;
        let there = everpoint.copy_folders()?;
        assert_eq!(there.len(), 1, "{there:?}");
        assert!(there[0].ends_with(id_of(&copy)?));
        assert!(!left[0].exists());
        Ok(())
    }
}
