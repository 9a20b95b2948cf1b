//! `everpoint restore`.

use std::{fmt, time::Instant};

use everpoint_engine::{
    history,
    instance_record::InstanceRecord,
    progress::Progress,
    restore::{
        self, Durability, LogDelivery, RestorePlan, RestoreRequest,
        selection::Selection,
        start::StartPlan,
        target::{Neighbour, Stop, Target, to_timestamp},
        writer::Owner,
    },
};
use everpoint_instance::process::PgBinaries;
use everpoint_pgformat::TimelineId;
use everpoint_repository::Repository;
use serde::Serialize;

use super::{backup::cancel_on_interrupt, processors};
use crate::{
    args::{Global, OutputFormat, RestoreInstance},
    exit::{Exit, Refusal},
    output,
    progress::Display,
};

pub async fn instance(
    repository: &Repository,
    global: &Global,
    args: RestoreInstance,
) -> anyhow::Result<Exit> {
    repository.description::<InstanceRecord>(&args.name).await?;
    let mut request = request(&args)?;
    if let Some(event) = args.target.before {
        let before = history::before(repository, &args.name, event).await?;
        request.target = Target::Lsn(before.lsn);
        request.timeline = request.timeline.or(before.timeline);
    }
    let plan = restore::plan(repository, request).await?;
    print_plan(global.output, &plan)?;
    if args.dry_run {
        return Ok(Exit::Success);
    }
    // Programs of the wrong version are refused before anything is written.
    let start = match args.start {
        false => None,
        true => Some(StartPlan {
            binaries: find_binaries(&args, &plan).await?,
            port: args.port,
            socket_directory: args.socket_directory.clone(),
        }),
    };
    let progress = Progress::default();
    let begun = Instant::now();
    let display = Display::new(&progress);
    let interrupt = tokio::spawn(cancel_on_interrupt(progress.clone()));
    let restored = restore::execute(repository, &plan, &progress).await;
    let files_s = begun.elapsed().as_secs_f64();
    let recovered = match (&restored, &start) {
        (Ok(()), Some(start)) => {
            Some(restore::start::start(repository, &plan, start, &progress).await)
        }
        _ => None,
    };
    interrupt.abort();
    drop(display);
    restored?;
    let place = plan.request.to.display();
    match recovered {
        None => {
            eprintln!("files and log restored in {files_s:.1} s");
            eprintln!("{place} is ready: start the server on it, and it recovers to the target");
        }
        Some(server) => {
            let server = server?;
            let total_s = begun.elapsed().as_secs_f64();
            eprintln!("files restored in {files_s:.1} s, recovered after {total_s:.1} s");
            eprintln!(
                "the server runs on {place} as process {}, its log is {}",
                server.pid(),
                server.log().display()
            );
        }
    }
    Ok(Exit::Success)
}

async fn find_binaries(args: &RestoreInstance, plan: &RestorePlan) -> anyhow::Result<PgBinaries> {
    let version = plan.resolved.backup.version;
    PgBinaries::find(args.bin_directory.as_deref(), version)
        .await
        .map_err(|error| Refusal(format!("{error}. Nothing was restored")).into())
}

fn request(args: &RestoreInstance) -> anyhow::Result<RestoreRequest> {
    let choice = &args.target;
    let target = match (&choice.at, &choice.lsn, &choice.restore_point) {
        (Some(time), _, _) => Target::Time(*time),
        (_, Some(lsn), _) => Target::Lsn(*lsn),
        (_, _, Some(name)) => Target::RestorePoint(name.clone()),
        _ => Target::Latest,
    };
    let to = std::path::absolute(&args.to)?;
    Ok(RestoreRequest {
        instance: args.name.clone(),
        to,
        selection: Selection::Cluster,
        target,
        timeline: args.timeline.and_then(TimelineId::new),
        tablespaces: args.tablespaces.clone(),
        jobs: args.jobs.map_or_else(processors, usize::from),
        owner: owner(&args.owner)?,
        log: if args.start {
            LogDelivery::Supplied
        } else {
            LogDelivery::InPlace
        },
        durability: Durability::Synced,
    })
}

/// Root restores for the user that PostgreSQL runs as; anybody else for himself.
pub fn owner(name: &str) -> anyhow::Result<Option<Owner>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let passwd = std::fs::read_to_string("/etc/passwd")?;
    let found = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let user = fields
            .next()
            .filter(|user| *user == name)
            .and(fields.nth(1))?;
        let group = fields.next()?;
        Some(Owner {
            user: user.parse().ok()?,
            group: group.parse().ok()?,
        })
    });
    match found {
        Some(owner) => Ok(Some(owner)),
        None => {
            let text = format!(
                "there is no user `{name}` on this machine to own the restored files. Name one with --owner"
            );
            Err(Refusal(text).into())
        }
    }
}

#[derive(Serialize)]
struct Shown {
    backup: String,
    base: Option<String>,
    timeline: u32,
    stop_after: Option<String>,
    log_until: String,
    last_inside: Option<ShownNeighbour>,
    first_outside: Option<ShownNeighbour>,
    clock_steps: Vec<ShownStep>,
    dropped_databases: Vec<ShownDropped>,
    file_bytes: u64,
    log_bytes: u64,
    resumed: bool,
    notes: Vec<String>,
}

#[derive(Serialize)]
struct ShownStep {
    lsn: String,
    from: String,
    to: String,
}

#[derive(Serialize)]
struct ShownDropped {
    database: Option<String>,
    event: String,
}

/// The end of a transaction next to a target.
#[derive(Serialize)]
pub struct ShownNeighbour {
    transaction: u32,
    time: String,
    lsn: String,
}

impl fmt::Display for ShownNeighbour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (transaction, time, lsn) = (self.transaction, &self.time, &self.lsn);
        write!(f, "transaction {transaction}, {time}, LSN {lsn}")
    }
}

impl From<Neighbour> for ShownNeighbour {
    fn from(neighbour: Neighbour) -> Self {
        Self {
            transaction: neighbour.transaction.get(),
            time: neighbour.time.to_string(),
            lsn: neighbour.lsn.to_string(),
        }
    }
}

fn print_plan(format: OutputFormat, plan: &RestorePlan) -> anyhow::Result<()> {
    let resolved = &plan.resolved;
    let shown = Shown {
        backup: resolved.backup.id.to_string(),
        base: plan.base.as_ref().map(|base| base.id.to_string()),
        timeline: resolved.timeline.get(),
        stop_after: match resolved.stop {
            Stop::After(lsn) => Some(lsn.to_string()),
            Stop::AtConsistency => None,
        },
        log_until: resolved.log_until.to_string(),
        last_inside: resolved.last_inside.map(Into::into),
        first_outside: resolved.first_outside.map(Into::into),
        clock_steps: resolved
            .surroundings
            .clock_steps
            .iter()
            .map(|step| ShownStep {
                lsn: step.at.to_string(),
                from: to_timestamp(step.from).to_string(),
                to: to_timestamp(step.to).to_string(),
            })
            .collect(),
        dropped_databases: resolved
            .surroundings
            .dropped
            .iter()
            .map(|dropped| ShownDropped {
                database: dropped.name.clone(),
                event: dropped.event.to_string(),
            })
            .collect(),
        file_bytes: plan.file_bytes.get(),
        log_bytes: plan.log_bytes.get(),
        resumed: plan.resumed,
        notes: plan.notes.clone(),
    };
    output::one(format, &shown, || text(plan, &shown))
}

fn text(plan: &RestorePlan, shown: &Shown) -> String {
    let mut text = format!("to {}\n  backup {}", plan.request.target, shown.backup);
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
    for (name, neighbour) in [
        ("last inside  ", &shown.last_inside),
        ("first outside", &shown.first_outside),
    ] {
        if let Some(found) = neighbour {
            text.push_str(&format!("\n  {name}  {found}"));
        }
    }
    text.push_str(&surroundings(plan, shown));
    for note in &plan.notes {
        text.push_str(&format!("\n  NOTE  {note}"));
    }
    if plan.resumed {
        text.push_str("\n  going on with a restore that was interrupted");
    }
    text
}

/// What a person who chose a time must be told besides.
fn surroundings(plan: &RestorePlan, shown: &Shown) -> String {
    let mut text = String::new();
    for step in &shown.clock_steps {
        text.push_str(&format!(
            "\n  NOTE  the server's clock went back at LSN {}: from {} to {}. Times between the two \
             came twice",
            step.lsn, step.from, step.to
        ));
    }
    for dropped in &shown.dropped_databases {
        let name = dropped.database.as_deref().unwrap_or("of unknown name");
        let command = format!(
            "everpoint restore instance {} --to DIRECTORY --before {}",
            plan.request.instance, dropped.event
        );
        text.push_str(&format!(
            "\n  NOTE  the drop of database {name} began before that; to have it whole:\n        {command}"
        ));
    }
    text
}
