//! `everpoint restore database` and `everpoint deleted`.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Instant,
};

use everpoint_engine::{
    database::{
        self, DatabasePlan, DatabaseRequest,
        choose::Wanted,
        deleted::{DeletedDatabase, deleted_of},
        journal::Journal,
        recovered::Recovered,
        server::ScratchServer,
        sweep::End,
        watch::{Event, Watch},
    },
    history,
    instance_record::InstanceRecord,
    long_term,
    progress::Progress,
    restore::{
        Stored,
        target::{Stop, Target, to_timestamp},
        writer::Owner,
    },
};
use everpoint_instance::process::PgBinaries;
use everpoint_pgformat::{ByteCount, TimelineId, wal::filter::FilterCounts};
use everpoint_repository::{CopyId, InstanceName, Repository, RepositoryError, store::Fetched};
use serde::Serialize;
use tokio::{
    process::Command,
    signal::unix::{SignalKind, signal},
    task::JoinHandle,
};

use super::{into, processors, restore};
use crate::{
    args::{
        Global, OneInstance, OutputFormat,
        database::{DatabaseTarget, Repair, RestoreDatabase},
    },
    exit::{Exit, Refusal},
    output,
    progress::Display,
};

/// Where scratch servers live when root restores.
const ROOTS_SCRATCH: &str = "/var/lib/everpoint/scratch";

/// Lists dropped databases.
pub async fn list_deleted(
    repository: &Repository,
    global: &Global,
    args: &OneInstance,
) -> anyhow::Result<Exit> {
    repository.description::<InstanceRecord>(&args.name).await?;
    let stored = Stored::read(repository, &args.name, None).await?;
    let rows = deleted_of(repository, &args.name, &stored).await?;
    for note in stored.sources.notes() {
        eprintln!("warning: {note}");
    }
    let time = |time: Option<jiff::Timestamp>| {
        time.map_or_else(
            || "-".to_owned(),
            |time| time.strftime("%Y-%m-%d %H:%M:%S%.3fZ").to_string(),
        )
    };
    let cells = |row: &DeletedDatabase| {
        vec![
            row.name.clone(),
            time(row.created),
            time(row.dropped),
            row.transaction
                .map_or_else(|| "failed".to_owned(), |id| id.to_string()),
            time(row.restorable_from),
            row.restorable_to
                .map_or_else(|| "-".to_owned(), |lsn| lsn.to_string()),
        ]
    };
    let header = [
        "DATABASE",
        "CREATED",
        "DROPPED",
        "BY",
        "RESTORABLE FROM",
        "UP TO LSN",
    ];
    let empty = "no dropped database is in the log that is stored";
    output::list(global.output, &rows, &header, cells, empty)?;
    Ok(Exit::Success)
}

/// Restores one database.
pub async fn restore(
    repository: &Repository,
    global: &Global,
    args: RestoreDatabase,
) -> anyhow::Result<Exit> {
    let begun = Instant::now();
    let (instance, wanted, copy) = wanted(repository, &args).await?;
    // A copy outlives what is known of its instance.
    let record = match repository.description::<InstanceRecord>(&instance).await {
        Ok((_, record)) => Some(record),
        Err(RepositoryError::UnknownInstance { .. }) if copy.is_some() => None,
        Err(error) => return Err(error.into()),
    };
    let source = match copy {
        Some(id) => repository.long_term(&instance, id),
        None => repository.clone(),
    };
    let mut request = DatabaseRequest {
        instance,
        wanted,
        target: target(&args.target),
        timeline: args.timeline.and_then(TimelineId::new),
        scratch: scratch_base(args.scratch.as_deref())?,
        owner: owner(&args.owner, record.as_ref())?,
        jobs: args.jobs.map_or_else(processors, usize::from),
    };
    if !args.purpose.dry_run {
        sweep(repository, &request.scratch).await?;
    }
    if let Some(event) = args.target.before {
        let before = history::before(repository, &request.instance, event).await?;
        request.target = Some(Target::Lsn(before.lsn));
        request.timeline = request.timeline.or(before.timeline);
    }
    let home = request.instance.clone();
    let plan = database::plan(&source, request).await?;
    print_plan(&source, global.output, &plan).await?;
    let destination = into::destination(repository, &home, &args).await?;
    if let Some(destination) = &destination {
        destination.check(&plan).await?;
    }
    if args.purpose.dry_run {
        return Ok(Exit::Success);
    }
    if let Some(destination) = &destination {
        return into::restore(&source, &plan, destination, begun).await;
    }
    let version = plan.chosen.resolved.backup.version;
    let binaries = PgBinaries::find(args.bin_directory.as_deref(), version)
        .await
        .map_err(|error| Refusal(format!("{error}. Nothing was restored")))?;
    let purpose = match &args.purpose.exec {
        Some(command) => Use::Exec(command),
        None => Use::Inspect,
    };
    in_scratch(&source, &plan, purpose, &binaries, begun).await
}

/// What a recovered database is for that goes nowhere.
enum Use<'a> {
    Inspect,
    Exec(&'a str),
}

/// Recovers in a scratch server, which is gone in the end, whatever happens.
async fn in_scratch(
    repository: &Repository,
    plan: &DatabasePlan,
    purpose: Use<'_>,
    binaries: &PgBinaries,
    begun: Instant,
) -> anyhow::Result<Exit> {
    let watch = watch(repository, begun);
    let interrupt = listen(watch.progress())?;
    let journal = Journal::new(plan, None);
    let display = Display::new(watch.progress());
    let recovered = Recovered::bring(repository, plan, journal, binaries, &watch).await;
    drop(display);
    let recovered = recovered?;
    let used = match purpose {
        Use::Inspect => {
            eprintln!("look at it with the line below; interrupt this command to remove it");
            println!("{}", recovered.server.connection().to_text().as_str());
            watch.progress().cancelled().await;
            Ok(Exit::Success)
        }
        Use::Exec(command) => exec(command, &recovered.server, watch.progress()).await,
    };
    interrupt.abort();
    let put_away = recovered.put_away(&watch).await;
    let exit = used?;
    put_away?;
    Ok(exit)
}

/// Finishes or undoes what restores left that were killed.
pub async fn repair(repository: &Repository, args: &Repair) -> anyhow::Result<Exit> {
    let kept = sweep(repository, &scratch_base(args.scratch.as_deref())?).await?;
    Ok(match kept {
        0 => Exit::Success,
        _ => Exit::Failed,
    })
}

/// Says what was found. Returns how many restores could not be brought to an end.
pub(super) async fn sweep(repository: &Repository, base: &Path) -> anyhow::Result<usize> {
    let mut kept = 0;
    for swept in database::sweep(repository, base, |_| None).await? {
        let what = match &swept.journal {
            Some(journal) => format!(
                "a restore of `{}/{}` that was killed while {}",
                journal.instance, journal.name, journal.state
            ),
            None => "a restore that was killed".to_owned(),
        };
        match &swept.end {
            End::Removed => eprintln!("cleaned up after {what}"),
            End::Undone => eprintln!("cleaned up after {what}: what it had made is gone"),
            End::Finished(name) => eprintln!("finished {what}: `{name}` is online"),
            End::Kept(error) => {
                kept += 1;
                let path = swept.path.display();
                eprintln!(
                    "{what} cannot be brought to an end: {error}\n{LATER}; its journal is in {path}"
                );
            }
        }
        if let Some(error) = &swept.left {
            eprintln!("{} cannot be removed: {error}", swept.path.display());
        }
    }
    Ok(kept)
}

/// What is said when something is left.
const LATER: &str = "`everpoint restore repair`, or the next restore of a database, tries again";

/// What was fetched, by kind.
fn fetched_text(fetched: Fetched) -> String {
    let bytes = |bytes: ByteCount| output::bytes(bytes.get());
    format!(
        "{} fetched (files {}, log {}, summaries {}, manifests and else {})",
        bytes(fetched.total()),
        bytes(fetched.packs),
        bytes(fetched.log),
        bytes(fetched.summaries),
        bytes(fetched.others)
    )
}

/// Tells a person what happens.
pub(super) fn watch(repository: &Repository, begun: Instant) -> Watch {
    let store = repository.store().clone();
    Watch::new(Progress::default(), move |event| {
        let seconds = begun.elapsed().as_secs_f64();
        match event {
            Event::State(state) => eprintln!("{seconds:7.2} s  {state}"),
            Event::LeftoverRemoved(database) => {
                eprintln!("removed `{database}`, which an interrupted restore left on the server");
            }
            Event::Recovered {
                filter,
                rolled_back,
            } => {
                let (fetched, others) = (fetched_text(store.fetched()), others(filter));
                eprintln!("{seconds:7.2} s  Recovered; {fetched}, {others}");
                for gid in rolled_back {
                    eprintln!(
                        "rolled back transaction `{gid}`, which was prepared and not committed"
                    );
                }
                if filter.unsure > 0 {
                    let unsure = filter.unsure;
                    eprintln!("{unsure} records were replayed without knowing whose they are");
                }
            }
            Event::Remark(remark) => eprintln!("note: {remark}"),
            Event::Move(event) => into::say(&event),
            Event::Kept(path) => eprintln!("{LATER}; its journal is in {}", path.display()),
            _ => {}
        }
    })
}

fn others(filter: FilterCounts) -> String {
    let (records, others) = (filter.records, filter.neutralised);
    format!("{others} of {records} log records were other databases'")
}

/// Runs a command of the shell against the scratch server.
async fn exec(command: &str, server: &ScratchServer, progress: &Progress) -> anyhow::Result<Exit> {
    let connection = server.connection();
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(command).kill_on_drop(true);
    for (name, value) in server.environment() {
        shell.env(name, value);
    }
    let status = tokio::select! {
        status = shell.status() => status?,
        () = progress.cancelled() => return Ok(Exit::Failed),
    };
    if status.success() {
        return Ok(Exit::Success);
    }
    let database = connection.database();
    eprintln!("error: the command ended with {status}; it was run on database `{database}`");
    Ok(Exit::Failed)
}

/// Listens for an interrupt from now on: one that nobody listens for would leave the scratch server behind.
pub(super) fn listen(progress: &Progress) -> anyhow::Result<JoinHandle<()>> {
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut terminated = signal(SignalKind::terminate())?;
    let progress = progress.clone();
    Ok(tokio::spawn(async move {
        tokio::select! {
            _ = interrupted.recv() => {}
            _ = terminated.recv() => {}
        }
        eprintln!("interrupted; ending");
        progress.cancel();
    }))
}

/// The instance, the database, and the long-term copy that it is in, if it is in one.
async fn wanted(
    repository: &Repository,
    args: &RestoreDatabase,
) -> anyhow::Result<(InstanceName, Wanted, Option<CopyId>)> {
    if let Some(source) = &args.source {
        let wanted = Wanted::Named(source.database.clone());
        return Ok((source.instance.clone(), wanted, None));
    }
    if let Some(id) = args.long_term {
        let copy = long_term::find(repository, id).await?;
        return Ok((copy.instance, Wanted::Named(copy.database), Some(id)));
    }
    let Some(deleted) = &args.deleted else {
        return Err(Refusal(
            "which database? Give INSTANCE/DATABASE, --deleted or --long-term".to_owned(),
        )
        .into());
    };
    let wanted = Wanted::Deleted {
        name: deleted.name.database.clone(),
        dropped: deleted.dropped,
    };
    Ok((deleted.name.instance.clone(), wanted, None))
}

pub(super) fn target(choice: &DatabaseTarget) -> Option<Target> {
    match (&choice.at, &choice.lsn, &choice.restore_point) {
        (Some(time), _, _) => Some(Target::Time(*time)),
        (_, Some(lsn), _) => Some(Target::Lsn(*lsn)),
        (_, _, Some(name)) => Some(Target::RestorePoint(name.clone())),
        _ => choice.latest.then_some(Target::Latest),
    }
}

pub(super) fn scratch_base(wanted: Option<&Path>) -> anyhow::Result<PathBuf> {
    let base = match (wanted, std::env::var_os("HOME")) {
        (Some(base), _) => base.to_owned(),
        (None, _) if rustix::process::geteuid().is_root() => PathBuf::from(ROOTS_SCRATCH),
        (None, Some(home)) => Path::new(&home).join(".cache/everpoint/scratch"),
        (None, None) => {
            let text = "where shall the scratch server live? Give --scratch DIRECTORY";
            return Err(Refusal(text.to_owned()).into());
        }
    };
    Ok(std::path::absolute(base)?)
}

/// Root has the scratch server run as the user whose the instance's data directory is.
pub(super) fn owner(owner: &str, record: Option<&InstanceRecord>) -> anyhow::Result<Option<Owner>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    match record.map(|record| std::fs::metadata(&record.data_directory)) {
        Some(Ok(found)) if found.uid() != 0 => Ok(Some(Owner {
            user: found.uid(),
            group: found.gid(),
        })),
        _ => restore::owner(owner),
    }
}

/// A plan, as it is shown.
#[derive(Serialize)]
pub(super) struct Shown {
    database: String,
    oid: u32,
    backup: String,
    base: Option<String>,
    timeline: u32,
    stop_after: Option<String>,
    log_until: String,
    before_drop: Option<String>,
    copied_from: Vec<u32>,
    file_bytes: u64,
    log_bytes: u64,
    /// Told where programs read it, as it takes reading a manifest once more.
    stored_bytes: Option<u64>,
    stored_log_bytes: u64,
}

/// Shows what is fetched and replayed.
pub(super) async fn shown(
    repository: &Repository,
    format: OutputFormat,
    plan: &DatabasePlan,
) -> anyhow::Result<Shown> {
    let chosen = &plan.chosen;
    let resolved = &chosen.resolved;
    let others = chosen.needed.iter().filter(|oid| **oid != chosen.database);
    Ok(Shown {
        database: chosen.name.clone(),
        oid: chosen.database.get(),
        backup: resolved.backup.id.to_string(),
        base: plan.base().map(|base| base.id.to_string()),
        timeline: resolved.timeline.get(),
        stop_after: match resolved.stop {
            Stop::After(lsn) => Some(lsn.to_string()),
            Stop::AtConsistency => None,
        },
        log_until: resolved.log_until.to_string(),
        before_drop: chosen
            .undone_drop
            .as_ref()
            .map(|drop| drop.undo.to_string()),
        copied_from: others.map(|oid| oid.get()).collect(),
        file_bytes: plan.file_bytes(),
        log_bytes: plan.log_bytes(),
        stored_bytes: match format {
            OutputFormat::Json => Some(plan.stored_bytes(repository).await?),
            OutputFormat::Table => None,
        },
        stored_log_bytes: plan.stored_log_bytes(),
    })
}

pub(super) async fn print_plan(
    repository: &Repository,
    format: OutputFormat,
    plan: &DatabasePlan,
) -> anyhow::Result<()> {
    let chosen = &plan.chosen;
    let shown = shown(repository, format, plan).await?;
    if let (Some(drop), OutputFormat::Table) = (&chosen.undone_drop, format) {
        let time = drop
            .time
            .map_or_else(String::new, |time| format!(" at {}", to_timestamp(time)));
        eprintln!(
            "database `{}` was dropped{time}: it is restored as of just before",
            chosen.name
        );
    }
    for note in plan.notes() {
        eprintln!("warning: {note}");
    }
    output::one(format, &shown, || text(&shown))
}

fn text(shown: &Shown) -> String {
    let mut text = format!(
        "database `{}`, OID {}\n  backup {}",
        shown.database, shown.oid, shown.backup
    );
    if let Some(base) = &shown.base {
        text.push_str(&format!("\n  on     {base}"));
    }
    let stop = match &shown.stop_after {
        Some(lsn) => format!("behind the record at {lsn}"),
        None => "as soon as the backup is consistent".to_owned(),
    };
    text.push_str(&format!(
        "\n  files  {}\n  log    {} on timeline {}, replay ends {stop}",
        output::bytes(shown.file_bytes),
        output::bytes(shown.log_bytes),
        shown.timeline
    ));
    text
}
