//! `everpoint expire`: what goes, what stays, and what an interruption leaves.

use std::{fs, process::Command, time::Instant};

use anyhow::{Context, Result, ensure};
use everpoint_engine::{backup::SweepError, expire};
use everpoint_instance::{ConnectionSpec, InstanceLock, LockKind, connect_sql};
use everpoint_pgformat::Oid;
use everpoint_repository::{
    policy_document::{DatabasePolicy, PolicyDocument},
    retention,
};
use everpoint_testkit::{Cluster, StopMode};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::{
    on_15_and_18,
    support::{Everpoint, Halted, end_lock, random_below, stored_until, until, until_let_go},
};

const EXPIRE: [&str; 4] = ["expire", "main", "--retention-days", "7"];
/// Expiries killed in the test of it.
const KILLED: u32 = 8;
/// Objects that an interrupted backup left before.
const REMAINS: u32 = 1500;

/// Backups of a table that grew by ten rows before each.
struct Aged {
    everpoint: Everpoint,
    cluster: Cluster,
    /// From the oldest to the newest: identifiers and positions.
    backups: Vec<(String, String)>,
}

/// Three full backups and two differentials: two of more than two weeks ago, two of ten days, one of now.
async fn aged_backups(major: u16) -> Result<Aged> {
    let everpoint = Everpoint::new()?;
    let cluster = Cluster::builder(major).start().await?;
    cluster.sql("postgres", "CREATE TABLE t (a int)").await?;
    everpoint.add(&cluster)?;
    let mut backups = Vec::new();
    for (kind, days) in [
        ("full", 20),
        ("differential", 19),
        ("full", 10),
        ("differential", 9),
        ("full", 0),
    ] {
        cluster
            .sql("postgres", "INSERT INTO t SELECT generate_series(1, 10)")
            .await?;
        let row = everpoint.json(["backup", "main", "--type", kind])?;
        let text = |name: &str| row[name].as_str().unwrap().to_owned();
        assert_eq!(text("type"), kind);
        everpoint.age(&text("id"), days).await?;
        backups.push((text("id"), text("stop_lsn")));
    }
    everpoint.verify()?;
    Ok(Aged {
        everpoint,
        cluster,
        backups,
    })
}

impl Aged {
    fn ids(&self, chosen: &[usize]) -> Vec<&str> {
        chosen
            .iter()
            .map(|index| self.backups[*index].0.as_str())
            .collect()
    }

    /// Restores to the end of a backup, and expects the rows there were.
    async fn restore(&self, index: usize) -> Result<()> {
        let to = self.everpoint.path(&format!("restored-{index}"));
        let to = to.to_str().context("a path")?;
        let lsn = &self.backups[index].1;
        let restored = self
            .everpoint
            .json(["restore", "instance", "main", "--lsn", lsn, "--to", to])?;
        assert_eq!(restored["backup"], self.backups[index].0.as_str());
        let restored = Cluster::adopt(to.as_ref(), self.cluster.major()).await?;
        restored.wait_until_promoted().await?;
        let rows = restored.value("postgres", "SELECT count(*) FROM t").await?;
        assert_eq!(rows, ((index + 1) * 10).to_string());
        Ok(())
    }
}

fn without(mut value: Value, names: &[&str]) -> Value {
    for name in names {
        value.as_object_mut().unwrap().remove(*name);
    }
    value
}

on_15_and_18! {
    async fn what_is_announced_goes_and_what_stays_can_be_restored(server: Server) -> Result<()> {
        let aged = aged_backups(server.major()).await?;
        let everpoint = &aged.everpoint;
        let before = everpoint.contents()?;
        let announced = everpoint.json(EXPIRE.iter().chain(&["--dry-run"]))?;
        assert_eq!(everpoint.contents()?, before, "a dry run changed something");
        assert_eq!(announced["deleted_backups"], json!(aged.ids(&[0, 1])));
        assert_eq!(announced["kept_backups"], json!(aged.ids(&[2, 3, 4])));
        assert!(announced["deleted_log_backups"].as_u64() > Some(0), "{announced}");
        let table = everpoint.succeed(EXPIRE.iter().chain(&["--dry-run"]))?.stdout;

        // Nothing can be said to be older than ten years, so nothing goes.
        let all = ["expire", "main", "--retention-days", "3650"];
        let kept = everpoint.json(all)?;
        assert_eq!(kept["deleted_backups"], json!([]));
        assert_eq!(everpoint.contents()?, before);

        let done = everpoint.json(EXPIRE)?;
        let passing = ["dry_run", "window_start"];
        assert_eq!(without(done, &passing), without(announced, &passing));
        assert!(table.contains(&format!("would delete backup {}", aged.backups[0].0)), "{table}");
        assert_eq!(everpoint.backup_ids()?, aged.ids(&[2, 3, 4]));
        everpoint.verify()?;
        // The second full backup refers to packs of the first, which is forgotten.
        let of_first = format!("instances/main/packs/{}", aged.backups[0].0);
        assert!(!everpoint.objects(&of_first)?.is_empty(), "nothing was shared");
        for index in [2, 3, 4] {
            aged.restore(index).await?;
        }
        let gone = ["restore", "instance", "main", "--to", "/nowhere", "--lsn", &aged.backups[0].1];
        everpoint.run(gone)?.expect(3).says(&aged.backups[2].1);

        // Again, there is nothing more to do; and then backups go on.
        let after = everpoint.contents()?;
        let again = everpoint.json(EXPIRE)?;
        assert_eq!(again["deleted_backups"], json!([]));
        assert_eq!(again["deleted_log_backups"], 0);
        assert_eq!(everpoint.contents()?, after);
        everpoint.json(["backup", "main", "--type", "differential"])?;
        everpoint.verify()
    }

    async fn a_killed_expiry_leaves_only_what_the_next_one_removes(server: Server) -> Result<()> {
        let aged = aged_backups(server.major()).await?;
        let everpoint = &aged.everpoint;
        // What an interrupted backup left is removed last and takes long, so that kills fall in between.
        let remains = everpoint.repository().join("instances/main/packs/20990101T000000Z-full-00000000");
        fs::create_dir(&remains)?;
        for number in 0..REMAINS {
            fs::write(remains.join(format!("{number:032x}")), "")?;
        }
        let copy = everpoint.path("copy");
        copy_directory(&everpoint.repository(), &copy)?;
        let begun = Instant::now();
        everpoint.json(EXPIRE)?;
        let whole = begun.elapsed();
        let names = |objects: Vec<(String, u64)>| objects.into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        let expected = names(everpoint.contents()?);
        for _ in 0..KILLED {
            fs::remove_dir_all(everpoint.repository())?;
            copy_directory(&copy, &everpoint.repository())?;
            let running = everpoint.start(EXPIRE)?;
            let after = whole * u32::try_from(random_below(1000))? / 1000;
            tokio::time::sleep(after).await;
            running.kill()?;
            // Everything that is still listed is whole.
            everpoint.verify()?;
            for id in aged.ids(&[2, 3, 4]) {
                assert!(everpoint.backup_ids()?.iter().any(|kept| kept == id), "killed after {after:?}");
            }
            until_let_go(&aged.cluster).await?;
            everpoint.json(EXPIRE)?;
            assert_eq!(names(everpoint.contents()?), expected, "killed after {after:?}");
            everpoint.verify()?;
        }
        aged.restore(3).await
    }

    /// Recovery reads the segment in which a backup starts from its first page on, which may be in an older log backup.
    async fn the_segment_in_which_the_oldest_backup_starts_stays_whole(server: Server) -> Result<()> {
        let everpoint = Everpoint::new()?;
        let cluster = Cluster::builder(server.major()).start().await?;
        everpoint.add(&cluster)?;
        let first = everpoint.back_up()?;
        let receiver = everpoint.start(["wal", "receive", "main", "--interval", "1h"])?;
        cluster.sql("postgres", "CREATE TABLE t (a int); CHECKPOINT").await?;
        // A checkpoint that is late: the backup begins behind log of the segment that it switched to.
        let late = Halted::process(&cluster, "checkpointer").await?;
        let second = everpoint.start(["backup", "main", "--type", "full", "--output", "json"])?;
        let begins = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_backup_start%' \
            AND state = 'active' AND pid <> pg_backend_pid()";
        until("the backup begins", async || Ok(cluster.value("postgres", begins).await? == "1")).await?;
        cluster.sql("postgres", "INSERT INTO t SELECT generate_series(1, 1000)").await?;
        let cut = cluster.moment().await?.lsn;
        let log = everpoint.repository().join("instances/main/log");
        until("it is cut", async || {
            cluster.sql("postgres", "SELECT pg_notify('everpoint', 'cut')").await?;
            Ok(stored_until(&log) >= cut)
        }).await?;
        cluster.sql("postgres", "INSERT INTO t SELECT generate_series(1, 1000)").await?;
        drop(late);
        second.wait().await?.expect(0);
        receiver.kill()?;
        let ids = everpoint.backup_ids()?;
        let id = ids.iter().find(|id| Some(id.as_str()) != first["id"].as_str()).context("a second backup")?;
        let name = "main".parse()?;
        let repository = everpoint.open().await?;
        let backups = repository.backups(&name).await?;
        let backup = backups.iter().find(|backup| backup.id.as_str() == id).context("it")?;
        let (start, stop) = (backup.start_lsn, backup.stop_lsn.to_string());
        assert!(start > cut, "{start} is not behind {cut}");
        everpoint.age(first["id"].as_str().context("an id")?, 20).await?;
        everpoint.age(id, 10).await?;
        let gone = everpoint.json(EXPIRE)?;
        assert_eq!(gone["deleted_backups"].as_array().map(Vec::len), Some(1), "{gone}");
        let restore = async |to: &str| -> Result<()> {
            let to = everpoint.path(to);
            let path = to.to_str().context("a path")?;
            everpoint.json(["restore", "instance", "main", "--lsn", &stop, "--to", path])?;
            let restored = Cluster::adopt(&to, server.major()).await?;
            restored.wait_until_promoted().await?;
            assert_eq!(restored.value("postgres", "SELECT count(*) FROM t").await?, "2000");
            Ok(())
        };
        restore("whole").await?;
        // An earlier everpoint forgot it.
        let index = repository.log_index(&name).await?;
        let before: Vec<_> = index.stretches().filter(|log| log.end <= start).collect();
        assert!(!before.is_empty(), "nothing of its segment is in an older log backup");
        for log in before {
            repository.store().delete(&log.path).await?;
        }
        restore("forgotten").await
    }

    /// Whoever has the lock next may write what would be taken for remains.
    async fn expiry_that_lost_its_lock_deletes_nothing(server: Server) -> Result<()> {
        let aged = aged_backups(server.major()).await?;
        let repository = aged.everpoint.open().await?;
        let name = "main".parse()?;
        let start = Timestamp::now() - SignedDuration::from_hours(7 * 24);
        let index = repository.log_index(&name).await?;
        let plan = retention::plan(&repository.backups(&name).await?, &index, start, Timestamp::now());
        assert_eq!(plan.backups.len(), 2);
        let spec: ConnectionSpec = aged.cluster.connection_string("postgres").parse()?;
        let session = connect_sql(&spec, "postgres").await?;
        let lock = InstanceLock::try_acquire(session, LockKind::Writer, "main").await?;
        end_lock(&aged.cluster).await?;
        let before = aged.everpoint.contents()?;
        let refused = expire::execute(&repository, &name, &plan, Some(&lock)).await;
        assert!(matches!(refused, Err(SweepError::Lock(_))), "{refused:?}");
        assert_eq!(aged.everpoint.contents()?, before);
        Ok(())
    }

    async fn what_policies_want_is_deleted_only_when_told_so(server: Server) -> Result<()> {
        let aged = aged_backups(server.major()).await?;
        let everpoint = &aged.everpoint;
        let now = Timestamp::now();
        let policy = |name: &str, days, deleted_days_ago: Option<i64>| DatabasePolicy {
            oid: Oid::new(16384),
            name: name.to_owned(),
            collation: "C".to_owned(),
            created_at: now,
            deleted_at: deleted_days_ago.map(|days| now - SignedDuration::from_hours(24 * days)),
            short_term_days: days,
            tags: Default::default(),
            long_term: None,
        };
        everpoint.run(["expire", "main", "--dry-run"])?.expect(3).says("Give --retention-days N");
        let databases = vec![
            policy("small", 3, None),
            policy("shop", 14, None),
            policy("gone", 35, Some(36)),
        ];
        let policies = PolicyDocument { written_at: now, databases };
        everpoint.open().await?.write_policies(&"main".parse()?, &policies).await?;
        let before = everpoint.contents()?;
        let by_policies = everpoint.json(["expire", "main", "--dry-run"])?;
        let refused = everpoint.run(EXPIRE)?.expect(3);
        refused.says("`shop` keeps 14 days").says("--against-policies");
        assert_eq!(everpoint.contents()?, before);
        let kept = everpoint.json(["expire", "main", "--retention-days", "14", "--dry-run"])?;
        assert_eq!(kept["kept_backups"], json!(aged.ids(&[0, 1, 2, 3, 4])));
        assert_eq!(by_policies["kept_backups"], kept["kept_backups"]);
        everpoint.json(EXPIRE.iter().chain(&["--against-policies"]))?;
        assert_eq!(everpoint.backup_ids()?, aged.ids(&[2, 3, 4]));
        everpoint.verify()
    }

    async fn a_server_that_is_gone_is_not_asked_only_when_told_so(server: Server) -> Result<()> {
        let mut aged = aged_backups(server.major()).await?;
        aged.cluster.stop(StopMode::Immediate).await?;
        let everpoint = &aged.everpoint;
        let before = everpoint.contents()?;
        everpoint.run(EXPIRE)?.expect(3).says("--without-server");
        assert_eq!(everpoint.contents()?, before);
        everpoint.json(EXPIRE.iter().chain(&["--dry-run"]))?;
        everpoint.json(EXPIRE.iter().chain(&["--without-server"]))?;
        assert_eq!(everpoint.backup_ids()?, aged.ids(&[2, 3, 4]));
        everpoint.verify()
    }
}

fn copy_directory(from: &std::path::Path, to: &std::path::Path) -> Result<()> {
    ensure!(
        Command::new("cp")
            .arg("-a")
            .arg(from)
            .arg(to)
            .status()?
            .success()
    );
    Ok(())
}
