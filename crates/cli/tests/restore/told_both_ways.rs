//! What stored summaries tell is what the log tells, whichever summaries are missing, damaged or made without
//! the log before them.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use everpoint_engine::{
    database::{
        choose::{Wanted, choose},
        deleted::{deleted_of, latest_position},
        events::lives_between,
    },
    history::{self, HistoryRequest},
    restore::{Stored, target::Target},
    summary::{Source, Sources},
};
use everpoint_pgformat::TimelineId;
use everpoint_repository::{InstanceName, Repository, Store, keys::Secret, store::Missing};
use everpoint_testkit::{Cluster, Moment, StopMode};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    everpoint::{Everpoint, NAME, nudge},
    versions::on_oldest_and_newest,
};

/// Rows that a mass delete takes away: more than a large transaction must touch.
const ROWS: u32 = 12_000;

/// An instance's repository, asked as the commands ask it.
struct Asked {
    repository: Repository,
    instance: InstanceName,
    moments: Vec<Moment>,
}

/// Answers from one source, as text: each but for the notes.
#[derive(Debug, PartialEq, Eq)]
struct Answers(Vec<(String, String)>);

impl Asked {
    async fn new(everpoint: &Everpoint, moments: Vec<Moment>) -> Result<Self> {
        let place = everpoint.objects("");
        let store = Store::open(place.to_str().context("a path in UTF-8")?, Missing::Refuse)?;
        let key = fs::read(everpoint.place().join("key"))?;
        let repository = Repository::open(store, &Secret::KeyFile(key.into())).await?;
        Ok(Self {
            repository,
            instance: NAME.parse()?,
            moments,
        })
    }

    /// All answers, and how often something was amiss.
    async fn answers(&self, source: Source) -> Result<(Answers, Vec<String>)> {
        let (repository, instance) = (&self.repository, &self.instance);
        let mut answers = Vec::new();
        let mut notes = Vec::new();
        for timeline in [None, TimelineId::new(1)] {
            let mut stored = Stored::read(repository, instance, timeline).await?;
            stored.sources = Sources::new(source);
            let mut say = |what: String, answer: String| {
                answers.push((format!("{what} in {timeline:?}"), answer));
            };
            for since in [None, Some(self.moments[1].time)] {
                let request = HistoryRequest {
                    instance: instance.clone(),
                    timeline,
                    since,
                    until: None,
                    source,
                };
                let told = history::read(repository, &request).await?;
                say(
                    format!("events since {since:?}"),
                    format!("{:#?}", told.events),
                );
                say(
                    format!("lives since {since:?}"),
                    format!("{:#?}", told.databases),
                );
                notes.extend(told.troubles);
            }
            let deleted = deleted_of(repository, instance, &stored).await?;
            say("dropped databases".to_owned(), format!("{deleted:#?}"));
            for backup in &stored.backups {
                let until = stored
                    .index
                    .complete_until(stored.timeline, backup.start_lsn);
                if until < backup.stop_lsn || backup.timeline > stored.timeline {
                    continue;
                }
                let lives = lives_between(repository, instance, &stored, backup, until).await?;
                say(format!("lives since {}", backup.id), format!("{lives:#?}"));
            }
            let resolver = stored.resolver(repository, instance);
            let times = self.moments.iter().map(|moment| Target::Time(moment.time));
            let positions = self.moments.iter().map(|moment| Target::Lsn(moment.lsn));
            let others = [
                Target::Latest,
                Target::Lsn(latest_position(&stored)),
                Target::RestorePoint("a good moment".to_owned()),
                Target::RestorePoint("none".to_owned()),
            ];
            for target in times.chain(positions).chain(others) {
                let found = resolver.resolve(&target).await;
                say(format!("{target}"), format!("{found:#?}"));
            }
            for name in ["kept", "new_name", "again", "old_name", "copy"] {
                for moment in &self.moments {
                    let (wanted, target) =
                        (Wanted::Named(name.to_owned()), Target::Time(moment.time));
                    let found = choose(repository, instance, &stored, &wanted, Some(&target)).await;
                    say(format!("{name} at {moment}"), format!("{found:#?}"));
                }
            }
            notes.extend(stored.sources.notes());
        }
        Ok((Answers(answers), notes))
    }
}

impl Answers {
    fn assert_same(&self, other: &Self, what: &str) {
        assert_eq!(self.0.len(), other.0.len());
        for ((question, ours), (_, theirs)) in self.0.iter().zip(&other.0) {
            if ours != theirs {
                let differs = ours.lines().zip(theirs.lines()).find(|(a, b)| a != b);
                panic!("{what}: {question}: {differs:?}\n{ours}\n----\n{theirs}");
            }
        }
    }
}

/// The stored summaries of the instance.
fn summaries(everpoint: &Everpoint) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![everpoint.objects("")];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            let is_summary = path
                .components()
                .any(|part| part.as_os_str() == "summaries");
            match path.is_dir() {
                true => open.push(path),
                false if is_summary => found.push(path),
                false => {}
            }
        }
    }
    found.sort();
    Ok(found)
}

/// A drop that fails half way: it waits for every process of the server, one of which is stopped.
async fn fail_to_drop(cluster: &Cluster, name: &str) -> Result<()> {
    let idle = cluster.connect("postgres").await?;
    let pid: i32 = idle.query_one("SELECT pg_backend_pid()", &[]).await?.get(0);
    let pid = Pid::from_raw(pid).context("a process")?;
    kill_process(pid, Signal::STOP)?;
    let session = cluster.connect("postgres").await?;
    session
        .batch_execute("SET statement_timeout = '2s'")
        .await?;
    let dropped = session
        .batch_execute(&format!("DROP DATABASE {name}"))
        .await;
    kill_process(pid, Signal::CONT)?;
    ensure!(dropped.is_err(), "the drop was to fail");
    Ok(())
}

async fn each(cluster: &Cluster, database: &str, statements: &[&str]) -> Result<()> {
    for statement in statements {
        let done = cluster.sql(database, statement).await;
        done.with_context(|| (*statement).to_owned())?;
    }
    Ok(())
}

async fn prepare(cluster: &Cluster) -> Result<()> {
    let names = [
        "kept", "old_name", "again", "doomed", "halfway", "moved", "nested",
    ];
    for name in names {
        cluster
            .sql("postgres", &format!("CREATE DATABASE {name}"))
            .await?;
    }
    let tables = format!(
        "CREATE SCHEMA app;
         CREATE TABLE app.orders (id serial PRIMARY KEY, note text);
         CREATE TABLE app.lines AS SELECT generate_series(1, 700) AS id;
         CREATE TABLE app.big AS SELECT generate_series(1, {ROWS}) AS id"
    );
    cluster.sql("kept", &tables).await
}

/// What happens to databases and tables while log is received; `round` tells it from others.
async fn act(cluster: &Cluster, round: u32) -> Result<()> {
    let copy = format!("CREATE DATABASE copy_{round} TEMPLATE again STRATEGY file_copy");
    let table = format!("CREATE TABLE app.made_{round} (i int)");
    let renamed = format!("ALTER TABLE app.made_{round} RENAME TO renamed_{round}");
    let dropped = format!("DROP TABLE app.renamed_{round}");
    let prepared = format!(
        "BEGIN; CREATE TABLE app.prepared_{round} (i int); PREPARE TRANSACTION 'prepared {round}'"
    );
    let committed = format!("COMMIT PREPARED 'prepared {round}'");
    each(cluster, "postgres", &["CREATE DATABASE early", &copy]).await?;
    each(
        cluster,
        "kept",
        &[
            &table,
            "TRUNCATE app.lines",
            &renamed,
            &prepared,
            "VACUUM FULL app.lines",
            &committed,
            "DO $$ BEGIN
                 BEGIN DROP TABLE app.lines; RAISE EXCEPTION 'no'; EXCEPTION WHEN OTHERS THEN NULL; END;
             END $$",
            &dropped,
            "UPDATE app.big SET id = id + 1",
            "CREATE TEMP TABLE scratchpad AS SELECT 1 AS i",
        ],
    )
    .await?;
    each(
        cluster,
        "postgres",
        &[
            "DROP DATABASE early WITH (FORCE)",
            "DROP DATABASE again",
            "CREATE DATABASE again",
        ],
    )
    .await
}

async fn stored(everpoint: &Everpoint, cluster: &Cluster) -> Result<Moment> {
    let moment = nudge(cluster).await?;
    everpoint.wait_until_stored(moment).await?;
    Ok(moment)
}

on_oldest_and_newest! {
    async fn summaries_and_log_tell_the_same(server: Server) -> Result<()> {
        let major = server.major();
        let mut primary = Cluster::builder(major)
            .setting("max_prepared_transactions = 10")
            .tablespace("elsewhere")
            .start()
            .await?;
        let everpoint = Everpoint::with(&primary).await?;
        let standby = primary.make_standby().await?;
        prepare(&primary).await?;
        let receiver = everpoint.receive()?;
        everpoint.full().await?;
        let mut moments = vec![stored(&everpoint, &primary).await?];
        act(&primary, 1).await?;
        each(&primary, "postgres", &[
            "ALTER DATABASE old_name RENAME TO new_name",
            "ALTER DATABASE moved SET TABLESPACE elsewhere",
            "SELECT pg_create_restore_point('a good moment')",
        ]).await?;
        // A receiver that begins anew knows no rows that the log showed before; and there is a rename in a
        // subtransaction of a transaction that goes on over it.
        let session = primary.connect("postgres").await?;
        session.batch_execute("BEGIN; SAVEPOINT s; ALTER DATABASE nested RENAME TO nested_too; RELEASE s").await?;
        moments.push(stored(&everpoint, &primary).await?);
        receiver.stop().await?;
        let receiver = everpoint.receive()?;
        session.batch_execute("COMMIT").await?;
        each(&primary, "postgres", &[
            "ALTER DATABASE new_name RENAME TO last_name",
            "ALTER DATABASE kept CONNECTION LIMIT 50",
        ]).await?;
        act(&primary, 2).await?;
        moments.push(stored(&everpoint, &primary).await?);
        everpoint.differential().await?;
        primary.sql("postgres", "DROP DATABASE last_name").await?;
        fail_to_drop(&primary, "halfway").await?;
        primary.sql("kept", "BEGIN; INSERT INTO app.lines VALUES (1); PREPARE TRANSACTION 'left open'").await?;
        moments.push(stored(&everpoint, &primary).await?);
        receiver.stop().await?;
        standby.wait_for_replay(primary.current_lsn().await?).await?;
        drop(session);
        primary.stop(StopMode::Immediate).await?;
        standby.promote().await?;
        everpoint.add(&standby).await?;
        let receiver = everpoint.receive()?;
        standby.sql("kept", "COMMIT PREPARED 'left open'").await?;
        act(&standby, 3).await?;
        moments.push(stored(&everpoint, &standby).await?);
        // A long pause without anything that ends.
        tokio::time::sleep(Duration::from_secs(2)).await;
        standby.sql("postgres", "DROP DATABASE doomed").await?;
        moments.push(stored(&everpoint, &standby).await?);
        receiver.stop().await?;

        let asked = Asked::new(&everpoint, moments).await?;
        let (from_log, notes) = asked.answers(Source::Log).await?;
        ensure!(notes.is_empty(), "{notes:?}");
        let (answers, notes) = asked.answers(Source::Summaries).await?;
        answers.assert_same(&from_log, "with all summaries");
        let incomplete = notes.iter().filter(|note| note.contains("made without the log before"));
        ensure!(incomplete.count() > 0, "a receiver that begins anew does not know all: {notes:?}");
        ensure!(notes.iter().all(|note| !note.contains("no summary")), "{notes:?}");

        let all = summaries(&everpoint)?;
        ensure!(all.len() > 8, "{all:?}");
        // Of every third summary the contents are damaged, every third is gone; then all are.
        for (path, number) in all.iter().zip(0_usize..) {
            match number % 3 {
                0 => {
                    let mut bytes = fs::read(path)?;
                    let middle = bytes.len() / 3;
                    bytes[middle] ^= 1;
                    fs::write(path, bytes)?;
                }
                1 => fs::remove_file(path)?,
                _ => {}
            }
        }
        let (answers, notes) = asked.answers(Source::Summaries).await?;
        answers.assert_same(&from_log, "with damaged and missing summaries");
        ensure!(notes.iter().any(|note| note.contains("is not used")), "{notes:?}");
        ensure!(notes.iter().any(|note| note.contains("no summary of the log")), "{notes:?}");
        for path in summaries(&everpoint)? {
            fs::remove_file(path)?;
        }
        let (answers, notes) = asked.answers(Source::Summaries).await?;
        answers.assert_same(&from_log, "without summaries");
        ensure!(notes.iter().any(|note| note.contains("no summary of the log")), "{notes:?}");
        Ok(())
    }
}
