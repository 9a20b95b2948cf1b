//! Differentials when summaries of log, or the log itself, are damaged, of another place, or not there.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use everpoint_pgformat::{Lsn, SystemIdentifier, TimelineId, wal_summary::SummaryBuilder};
use everpoint_repository::{InstanceName, Repository, Store, keys::Secret, store::Missing};
use everpoint_testkit::{
    Cluster, StopMode,
    compare::{assert_same, check_integrity, fingerprint},
    corrupt,
};
use zeroize::Zeroizing;

use crate::{
    everpoint::{Ended, Everpoint, NAME, Taken, nudge},
    versions::on_oldest_and_newest,
};

const CHECKED: [&str; 5] = ["backup", NAME, "--type", "differential", "--check-changes"];

/// The stored summaries of the first timeline, in the order of their log.
fn summaries(everpoint: &Everpoint) -> Result<Vec<PathBuf>> {
    files(&everpoint.objects(&format!("instances/{NAME}/summaries/00000001")))
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?.map(|entry| Ok(entry?.path()));
    let mut files = entries.collect::<Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}

fn name_of(path: &Path) -> Result<String> {
    let name = path.file_name().context("a name")?;
    Ok(name.to_string_lossy().into_owned())
}

/// A differential that compares everything with what the log says: nothing may differ.
async fn checked(everpoint: &Everpoint) -> Result<Ended> {
    let ended = everpoint.run(&CHECKED).await?;
    ensure!(ended.code == Some(0), "{ended:?}");
    ensure!(ended.out.contains("differential"), "{ended:?}");
    Ok(ended)
}

/// That a summary is told of as unusable and what it stands for is read from the log; and that it is made anew.
async fn is_named_and_made_anew(everpoint: &Everpoint, what: &str, name: &str) -> Result<()> {
    let ended = checked(everpoint).await.context(what.to_owned())?;
    let said = ended.err.contains(name) && ended.err.contains("Reading the log itself");
    ensure!(said, "{what}: {name} is not told of: {ended:?}");
    let made = everpoint.json(&["wal", "summarize", NAME]).await?;
    ensure!(
        made["deleted"] == 1 && made["skipped"] == 0,
        "{what}: {made}"
    );
    let ended = checked(everpoint).await?;
    ensure!(!ended.err.contains("warning"), "{what}: {ended:?}");
    Ok(())
}

/// A cluster with a full backup, five summaries' worth of changes behind it, and nobody receiving.
async fn changed_cluster(major: u16) -> Result<(Cluster, Everpoint)> {
    let cluster = Cluster::builder(major)
        .setting("autovacuum = off")
        .start()
        .await?;
    let everpoint = Everpoint::with(&cluster).await?;
    let table = "CREATE TABLE kept (id int PRIMARY KEY, note text);
        INSERT INTO kept SELECT i, md5(i::text) FROM generate_series(1, 20000) i";
    cluster.sql("postgres", table).await?;
    cluster.sql("postgres", "VACUUM (FREEZE) kept").await?;
    let receiver = everpoint.receive()?;
    everpoint.full().await?;
    for round in 0..5 {
        let update = format!("UPDATE kept SET note = 'round {round}' WHERE id % 500 = {round}");
        cluster.sql("postgres", &update).await?;
        everpoint.wait_until_stored(nudge(&cluster).await?).await?;
    }
    receiver.stop().await?;
    Ok((cluster, everpoint))
}

/// Stores a summary that can be read and is wrong: it begins a little behind where it should, and names no change.
async fn store_a_lie(everpoint: &Everpoint, cluster: &Cluster, start: Lsn, end: Lsn) -> Result<()> {
    let place = everpoint.objects("");
    let store = Store::open(place.to_str().context("a path")?, Missing::Refuse)?;
    let key = fs::read(place.with_file_name("key"))?;
    let repository = Repository::open(store, &Secret::KeyFile(Zeroizing::new(key))).await?;
    let identifier = "SELECT system_identifier FROM pg_control_system()";
    let identifier = cluster.value("postgres", identifier).await?.parse()?;
    let instance: InstanceName = NAME.parse()?;
    let version = cluster.server().version();
    let mut lie = SummaryBuilder::new(version, TimelineId::FIRST, start).cut();
    lie.end = end;
    let identifier = SystemIdentifier::new(identifier);
    repository
        .write_summary(&instance, identifier, &lie)
        .await?;
    Ok(())
}

/// The summary that was made of the log that an earlier one told of.
fn anew(everpoint: &Everpoint, earlier: &Path) -> Result<PathBuf> {
    let start = stretch(earlier)?.0;
    for path in summaries(everpoint)? {
        if stretch(&path)?.0 == start {
            return Ok(path);
        }
    }
    bail!("there is none from {start} on")
}

/// Where the log of a summary begins and ends, by its name.
fn stretch(path: &Path) -> Result<(Lsn, Lsn)> {
    let name = name_of(path)?;
    let mut fields = name
        .split('-')
        .map(|field| u64::from_str_radix(field, 16).map(Lsn::new));
    let mut field = || fields.next().context("a position");
    Ok((field()??, field()??))
}

on_oldest_and_newest! {
    async fn no_summary_is_trusted_that_is_damaged_or_not_what_its_name_says(server: Server) -> Result<()> {
        let (cluster, everpoint) = changed_cluster(server.major()).await?;
        let stored = summaries(&everpoint)?;
        ensure!(stored.len() >= 5, "{stored:?}");
        let [.., second, third, fourth, _] = &stored[..] else {
            unreachable!("there are five");
        };
        // One byte anywhere: of its head, its contents, what describes it, its end.
        let (length, whole) = (fs::metadata(third)?.len(), fs::read(third)?);
        for at in [0, 9, 40, 100, length / 2, length - 30, length - 1] {
            corrupt::flip_byte(third, at)?;
            let ended = checked(&everpoint).await.with_context(|| format!("byte {at}"))?;
            let name = name_of(third)?;
            ensure!(ended.err.contains(&name), "byte {at} of {length}: {ended:?}");
            let verified = everpoint.run(&["verify", NAME]).await?;
            ensure!(verified.code == Some(4) && verified.out.contains(&name), "byte {at}: {verified:?}");
            fs::write(third, &whole)?;
        }
        corrupt::truncate(third, length / 2)?;
        is_named_and_made_anew(&everpoint, "cut off", &name_of(third)?).await?;
        // Another's contents under its name.
        let others = fs::read(fourth)?;
        fs::write(second, others)?;
        is_named_and_made_anew(&everpoint, "another's contents", &name_of(second)?).await?;
        // Another, whole, that claims to tell of this log.
        let (second, third) = (&anew(&everpoint, second)?, &anew(&everpoint, third)?);
        let (stretch, id) = (name_of(second)?, name_of(third)?);
        let stretch = stretch.rsplit_once('-').context("a name")?.0.to_owned();
        let id = id.rsplit_once('-').context("a name")?.1.to_owned();
        let claimed = second.with_file_name(format!("{stretch}-{id}"));
        fs::copy(third, &claimed)?;
        fs::remove_file(second)?;
        is_named_and_made_anew(&everpoint, "another under its name", &name_of(&claimed)?).await?;
        // None at all.
        fs::remove_file(anew(&everpoint, second)?)?;
        let ended = checked(&everpoint).await?;
        ensure!(ended.err.contains("no summary of the log from"), "{ended:?}");
        let made = everpoint.json(&["wal", "summarize", NAME]).await?;
        ensure!(made["made"] == 1 && made["deleted"] == 0, "{made}");
        // One that can be read, begins inside a record, and is silent about what changed.
        let middle = anew(&everpoint, second)?;
        let (start, end) = self::stretch(&middle)?;
        fs::remove_file(middle)?;
        let stored = summaries(&everpoint)?;
        // Behind the header of a page the first record begins, and none is as short as this.
        let header = if start.get() % 8192 == 0 { 40 } else { 0 };
        store_a_lie(&everpoint, &cluster, start.advance(header + 8), end).await?;
        let lie = summaries(&everpoint)?.into_iter().find(|path| !stored.contains(path)).context("the lie")?;
        is_named_and_made_anew(&everpoint, "a lie", &name_of(&lie)?).await?;

        let expected = fingerprint(&cluster).await?;
        let restored = everpoint.restore(server.major(), &[]).await?;
        assert_same(&expected, &fingerprint(&restored).await?);
        check_integrity(&restored).await
    }

    async fn without_summaries_and_log_pages_are_compared_and_that_is_said(server: Server) -> Result<()> {
        let (cluster, everpoint) = changed_cluster(server.major()).await?;
        fs::remove_dir_all(everpoint.objects(&format!("instances/{NAME}/summaries")))?;
        let log = files(&everpoint.objects(&format!("instances/{NAME}/log/00000001")))?;
        fs::remove_file(&log[log.len() - 3])?;
        let plain = ["backup", NAME, "--type", "differential"];
        let ended = everpoint.run(&plain).await?;
        ensure!(ended.code == Some(0) && ended.out.contains("differential"), "{ended:?}");
        ensure!(ended.err.contains("warning: which blocks changed is not known"), "{ended:?}");
        // Asked to compare with the log, it does not say that all is well.
        let compared = everpoint.run(&CHECKED).await?;
        ensure!(compared.code == Some(4), "{compared:?}");
        ensure!(compared.err.contains("which blocks changed is not known"), "{compared:?}");
        let expected = fingerprint(&cluster).await?;
        let restored = everpoint.restore(server.major(), &[]).await?;
        assert_same(&expected, &fingerprint(&restored).await?);
        check_integrity(&restored).await
    }

    async fn log_that_was_minimal_for_a_while_leads_to_a_full_backup(server: Server) -> Result<()> {
        let mut cluster = Cluster::builder(server.major()).setting("wal_keep_size = 1GB").start().await?;
        let everpoint = Everpoint::with(&cluster).await?;
        everpoint.full().await?;
        // The log tells it whether it lies in pg_wal still or was received.
        for (number, receive) in [(1, false), (2, true)] {
            cluster.sql("postgres", "SELECT pg_drop_replication_slot('everpoint_main')").await?;
            cluster.configure("wal_level = minimal\nmax_wal_senders = 0")?;
            cluster.restart().await?;
            let load = format!(
                "BEGIN; CREATE TABLE loaded_{number} (id int PRIMARY KEY);
                 INSERT INTO loaded_{number} SELECT generate_series(1, 20000); COMMIT"
            );
            cluster.sql("postgres", &load).await?;
            cluster.configure("wal_level = replica\nmax_wal_senders = 10")?;
            cluster.restart().await?;
            if receive {
                let receiver = everpoint.receive()?;
                everpoint.wait_until_stored(nudge(&cluster).await?).await?;
                receiver.stop().await?;
                ensure!(summaries(&everpoint)?.len() > 1);
            }
            let ended = everpoint.run(&["--output", "json", "backup", NAME, "--type", "differential"]).await?;
            ensure!(ended.code == Some(0), "{ended:?}");
            let taken: serde_json::Value = serde_json::from_str(&ended.out)?;
            ensure!(taken["type"] == "full", "{ended:?}");
            ensure!(ended.err.contains("taking a full backup: the server ran with wal_level = minimal"), "{ended:?}");
            // What comes behind builds on that one.
            cluster.sql("postgres", &format!("DELETE FROM loaded_{number} WHERE id % 7 = 0")).await?;
            let next: Taken = everpoint.differential().await?;
            ensure!(next.kind == "differential");
        }
        let expected = fingerprint(&cluster).await?;
        let restored = everpoint.restore(server.major(), &[]).await?;
        assert_same(&expected, &fingerprint(&restored).await?);
        check_integrity(&restored).await?;
        cluster.stop(StopMode::Fast).await
    }
}
