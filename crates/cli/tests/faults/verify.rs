//! `everpoint verify`: every kind of object, damaged on purpose.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    os::unix::fs::FileExt,
};

use anyhow::{Context, Result};
use everpoint_pgformat::{Lsn, TimelineId, wal::segment::SegmentSize};
use everpoint_repository::log::MarkDocument;
use everpoint_testkit::{Cluster, StopMode, corrupt};
use rustix::process::Signal;
use serde_json::Value;

use crate::{
    on_15_and_18,
    support::{Everpoint, Finished, random_below},
};

/// Bits flipped in one object of each kind, beside those at its ends.
const RANDOM_FLIPS: u64 = 6;

/// A repository with objects of every kind: two backups that share packs, log of two timelines, a gap.
async fn repository_of_every_kind(major: u16) -> Result<Everpoint> {
    let everpoint = Everpoint::new()?;
    let mut cluster = Cluster::builder(major)
        .wal_segment_size(SegmentSize::try_from(1 << 20)?)
        .setting("min_wal_size = 2MB")
        .setting("max_wal_size = 2MB")
        .start()
        .await?;
    cluster
        .sql("postgres", "CREATE TABLE t (a int, b text)")
        .await?;
    everpoint.add(&cluster)?;
    everpoint.back_up()?;
    let fill = "INSERT INTO t SELECT i, md5(i::text) FROM generate_series(1, 40000) i";
    cluster.sql("postgres", fill).await?;
    cluster
        .sql(
            "postgres",
            "SELECT pg_drop_replication_slot('everpoint_main')",
        )
        .await?;
    cluster
        .sql("postgres", "SELECT pg_switch_wal(); CHECKPOINT")
        .await?;
    cluster
        .sql("postgres", "SELECT pg_switch_wal(); CHECKPOINT")
        .await?;
    everpoint.back_up()?;
    cluster.stop(StopMode::Fast).await?;
    fs::write(cluster.data_directory().join("standby.signal"), "")?;
    cluster.start().await?;
    cluster.promote().await?;
    let mut receiver = everpoint.start(["wal", "receive", "main", "--interval", "1s"])?;
    receiver.wait_until_it_says("on timeline 2").await?;
    cluster.sql("postgres", "INSERT INTO t SELECT 1").await?;
    receiver.wait_until_it_says("stored").await?;
    receiver.signal(Signal::TERM)?;
    receiver.wait().await?.expect(0);
    Ok(everpoint)
}

/// The kind of an object by its name.
fn kind_of(object: &str) -> &'static str {
    let kinds = [
        ("everpoint.json", "marker"),
        ("keys/slots/", "key slot"),
        ("keys/data/", "data key"),
        ("instances/main/instance/", "description"),
        ("instances/main/backups/", "manifest"),
        ("instances/main/packs/", "pack"),
        ("instances/main/log/", "log backup"),
        ("instances/main/summaries/", "summary"),
        ("instances/main/timelines/", "timeline history"),
        ("instances/main/gaps/", "gap"),
        ("instances/main/marks/", "mark"),
    ];
    let found = kinds.iter().find(|(prefix, _)| object.starts_with(prefix));
    found
        .unwrap_or_else(|| panic!("`{object}` is of no known kind"))
        .1
}

fn by_kind(everpoint: &Everpoint) -> Result<BTreeMap<&'static str, Vec<String>>> {
    let mut kinds: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for object in everpoint.objects("")? {
        kinds.entry(kind_of(&object)).or_default().push(object);
    }
    Ok(kinds)
}

fn verify_json(everpoint: &Everpoint, depth: &[&str]) -> Result<Finished> {
    everpoint.run(["verify", "--output", "json"].iter().chain(depth))
}

fn list_of(damage: &Value, what: &str) -> Vec<String> {
    let texts = damage[what].as_array().into_iter().flatten();
    texts
        .map(|text| text.as_str().unwrap().to_owned())
        .collect()
}

/// What must be said of an object that was damaged at `place`.
fn check_report(object: &str, place: &str, verified: &Finished) -> Result<()> {
    let kind = kind_of(object);
    let context = format!("{kind} {object}, {place}: {verified:?}");
    if verified.code != 4 {
        // What nothing can be opened without is found by opening.
        assert!(
            ["marker", "key slot", "data key"].contains(&kind),
            "{context}"
        );
        assert!(verified.code != 0, "unnoticed: {context}");
        let name = if kind == "marker" {
            "everpoint.json"
        } else {
            object
        };
        assert!(verified.stderr.contains(name), "not named: {context}");
        return Ok(());
    }
    let report = verified.json()?;
    let damage = report["damage"].as_array().unwrap();
    let named = damage.iter().find(|damage| damage["object"] == object);
    let named = named.unwrap_or_else(|| panic!("not named: {context}"));
    if kind == "manifest" || kind == "pack" {
        let backups = list_of(named, "backups");
        assert!(!backups.is_empty(), "no backup named: {context}");
        if kind == "manifest" {
            assert!(object.contains(&backups[0]), "{context}");
        }
    }
    Ok(())
}

on_15_and_18! {
    async fn a_flipped_bit_anywhere_is_noticed_and_the_object_named(server: Server) -> Result<()> {
        let everpoint = repository_of_every_kind(server.major()).await?;
        everpoint.verify()?;
        everpoint.succeed(["verify", "main"])?;
        let kinds = by_kind(&everpoint)?;
        // A mark is there only if a receiver had nothing to do for a while.
        assert_eq!(kinds.keys().filter(|kind| **kind != "mark").count(), 10, "{kinds:?}");
        let before = everpoint.contents()?;
        for (kind, objects) in &kinds {
            // Of what all others hang on, each one; of the rest any.
            let all = ["key slot", "timeline history", "gap"].contains(kind);
            let first = usize::try_from(random_below(objects.len() as u64))?;
            let chosen = if all { &objects[..] } else { &objects[first..=first] };
            for object in chosen {
                let path = everpoint.repository().join(object);
                let length = fs::metadata(&path)?.len();
                let inside = (0..RANDOM_FLIPS).map(|_| random_below(length));
                // The header, the index and the trailer are small; a random place hits them seldom.
                let ends = [9, 30, 50, length - 40, length - 20, length - 1];
                for position in inside.chain(ends) {
                    let bit = random_below(8);
                    flip_bit(&path, position, bit)?;
                    let place = format!("byte {position} of {length}, bit {bit}");
                    check_report(object, &place, &verify_json(&everpoint, &["--full"])?)?;
                    flip_bit(&path, position, bit)?;
                }
            }
        }
        assert_eq!(everpoint.contents()?, before);
        everpoint.verify()
    }

    async fn a_damaged_pack_is_reported_with_the_backups_and_files_in_it(server: Server) -> Result<()> {
        let everpoint = Everpoint::new()?;
        let cluster = Cluster::builder(server.major()).start().await?;
        everpoint.add(&cluster)?;
        everpoint.back_up()?;
        everpoint.back_up()?;
        let ids = everpoint.backup_ids()?;
        let of_first = format!("instances/main/packs/{}", ids[0]);
        let pack = everpoint.objects(&of_first)?.remove(0);
        let path = everpoint.repository().join(&pack);
        // The second backup found nearly everything unchanged, so the middle serves both.
        corrupt::flip_byte(&path, fs::metadata(&path)?.len() / 2)?;
        let verified = verify_json(&everpoint, &["--full"])?.expect(4);
        let report = verified.json()?;
        let damage = report["damage"].as_array().unwrap();
        assert_eq!(damage.len(), 1, "{report}");
        assert_eq!(damage[0]["object"], pack);
        let files = list_of(&damage[0], "files");
        assert!(!files.is_empty(), "{report}");
        for file in files {
            assert!(cluster.data_directory().join(&file).exists(), "{file}");
        }
        assert_eq!(list_of(&damage[0], "backups"), ids, "{report}");
        Ok(())
    }

    async fn removed_and_cut_packs_and_logs_are_found_without_reading_everything(server: Server) -> Result<()> {
        let everpoint = repository_of_every_kind(server.major()).await?;
        let kinds = by_kind(&everpoint)?;
        for kind in ["pack", "log backup", "manifest", "timeline history", "gap", "description"] {
            let objects = &kinds[kind];
            for object in objects {
                let path = everpoint.repository().join(object);
                let bytes = fs::read(&path)?;
                let cut = random_below(bytes.len() as u64);
                corrupt::truncate(&path, cut)?;
                check_report(object, &format!("cut to {cut}"), &verify_json(&everpoint, &[])?)?;
                fs::write(&path, bytes)?;
            }
        }
        everpoint.verify()?;
        for object in &kinds["pack"] {
            let path = everpoint.repository().join(object);
            let bytes = fs::read(&path)?;
            fs::remove_file(&path)?;
            check_report(object, "removed", &verify_json(&everpoint, &[])?)?;
            fs::write(&path, bytes)?;
        }
        // The last log backup of all is not missed: nothing says that there ever was more.
        let (last, others) = kinds["log backup"].split_last().context("log backups")?;
        for object in others {
            let path = everpoint.repository().join(object);
            let bytes = fs::read(&path)?;
            fs::remove_file(&path)?;
            let verified = verify_json(&everpoint, &[])?.expect(4);
            let report = verified.json()?;
            let damage = report["damage"].as_array().unwrap();
            let folder = object.rsplit_once('/').context("a folder")?.0;
            let is_missing = |damage: &&Value| {
                damage["object"] == folder && damage["what"].to_string().contains("is missing")
            };
            assert_eq!(damage.iter().filter(is_missing).count(), 1, "{object}: {report}");
            fs::write(&path, bytes)?;
        }
        assert!(last.contains("/log/00000002/"), "{last}");
        everpoint.verify()?;
        // A damaged one takes nothing but itself from what can be restored, and that is said.
        let mark = MarkDocument {
            timeline: TimelineId::FIRST,
            lsn: Lsn::new(1),
            complete_at: jiff::Timestamp::UNIX_EPOCH,
        };
        everpoint.open().await?.write_mark(&"main".parse()?, &mark).await?;
        let whole = everpoint.status()?;
        let mark = everpoint.objects("instances/main/marks")?.remove(0);
        let mark = everpoint.repository().join(mark);
        corrupt::truncate(&mark, fs::metadata(&mark)?.len() / 2)?;
        assert_eq!(everpoint.status()?, whole, "nothing hangs on a mark");
        let path = everpoint.repository().join(last);
        corrupt::truncate(&path, fs::metadata(&path)?.len() / 2)?;
        let status = everpoint.status()?;
        let until = |status: &Value| status["ranges"].as_array()?.last()?["latest_lsn"].as_str().map(str::to_owned);
        assert!(until(&status).is_some() && until(&status) != until(&whole), "{status}");
        let found = (&status["damaged_log"][0], &status["backup_needed"]);
        assert_eq!(found, (&Value::from(last.as_str()), &Value::from(true)));
        everpoint.succeed(["status"])?.says("DAMAGED     log backup");
        Ok(())
    }
}

fn flip_bit(path: &std::path::Path, position: u64, bit: u64) -> Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, position)?;
    file.write_all_at(&[byte[0] ^ (1 << bit)], position)?;
    Ok(())
}
