//! `everpoint restore table`.

use std::time::Instant;

use everpoint_engine::{
    database::{
        self, DatabasePlan, DatabaseRequest,
        journal::Reach,
        tables_into_server::{TablesIntoServer, TablesLanded},
    },
    history,
    instance_record::InstanceRecord,
    restore::target::Target,
    transplant::{MissingRoles, TablespaceUse, replicas::ReplicaPolicy, table::Place},
};
use everpoint_pgformat::TimelineId;
use everpoint_repository::Repository;
use serde::Serialize;

use super::{database as databases, into, processors};
use crate::{
    args::{
        Global, OutputFormat,
        table::{Asked, RestoreTable},
    },
    exit::{Exit, Refusal},
    output,
    progress::Display,
};

/// Restores tables.
pub async fn restore(
    repository: &Repository,
    global: &Global,
    args: RestoreTable,
) -> anyhow::Result<Exit> {
    let begun = Instant::now();
    let asked = args.asked().map_err(Refusal)?;
    let (_, record) = repository
        .description::<InstanceRecord>(&asked.instance)
        .await?;
    let mut request = DatabaseRequest {
        instance: asked.instance.clone(),
        wanted: asked.wanted.clone(),
        target: databases::target(&args.target),
        timeline: args.timeline.and_then(TimelineId::new),
        scratch: databases::scratch_base(args.scratch.as_deref())?,
        owner: databases::owner(&args.owner, Some(&record))?,
        jobs: args.jobs.map_or_else(processors, usize::from),
    };
    if !args.dry_run {
        databases::sweep(repository, &request.scratch).await?;
    }
    if let Some(event) = args.target.before {
        let before = history::before(repository, &request.instance, event).await?;
        request.target = Some(Target::Lsn(before.lsn));
        request.timeline = request.timeline.or(before.timeline);
    }
    let plan = database::plan(repository, request).await?;
    // A program gets one document: the result, which has the plan in it.
    if args.dry_run || global.output == OutputFormat::Table {
        databases::print_plan(repository, global.output, &plan).await?;
    }
    let destination = destination(repository, &args, asked).await?;
    destination.check(&plan).await?;
    if args.dry_run {
        return Ok(Exit::Success);
    }
    carry_out(repository, global, &plan, &destination, begun).await
}

async fn destination(
    repository: &Repository,
    args: &RestoreTable,
    asked: Asked,
) -> anyhow::Result<TablesIntoServer> {
    let instance = args.instance.as_ref().unwrap_or(&asked.instance);
    let (_, record) = repository.description::<InstanceRecord>(instance).await?;
    let (reach, target) = match &args.admin_connection {
        Some(connection) => (
            Reach::Connection(Box::new(connection.clone())),
            connection.clone(),
        ),
        None => (
            Reach::Instance(instance.clone()),
            record.connection.parse()?,
        ),
    };
    Ok(TablesIntoServer {
        reach,
        target,
        tables: asked.tables,
        place: Place {
            database: args.place.into.clone().unwrap_or(asked.database),
            new_name: args.place.new_name.clone(),
        },
        missing_roles: match args.create_roles {
            true => MissingRoles::Create,
            false => MissingRoles::Refuse,
        },
        tablespaces: match args.no_tablespaces {
            true => TablespaceUse::Default,
            false => TablespaceUse::AsItWas,
        },
        replicas: args.replicas.clone(),
        replica_policy: match args.wait_replicas {
            Some(limit) if limit.is_zero() => ReplicaPolicy::GoOn,
            Some(limit) => ReplicaPolicy::WaitAtMost(limit),
            None => ReplicaPolicy::Wait,
        },
        bin_directory: args.bin_directory.clone(),
    })
}

async fn carry_out(
    repository: &Repository,
    global: &Global,
    plan: &DatabasePlan,
    destination: &TablesIntoServer,
    begun: Instant,
) -> anyhow::Result<Exit> {
    let watch = databases::watch(repository, begun);
    let interrupt = databases::listen(watch.progress())?;
    let go_on = into::listen_for_going_on(&watch)?;
    let display = Display::new(watch.progress());
    let landed = destination.restore(repository, plan, None, &watch).await;
    drop(display);
    go_on.abort();
    interrupt.abort();
    let landed = landed?;
    let from = databases::shown(repository, global.output, plan).await?;
    let done = Done::of(from, &landed, begun);
    match global.output {
        OutputFormat::Json => output::one(global.output, &done, String::new)?,
        OutputFormat::Table => done.tell(),
    }
    landed.put_away(&watch).await?;
    Ok(Exit::Success)
}

/// What became of it.
#[derive(Serialize)]
struct Done {
    from: databases::Shown,
    database: String,
    tables: Vec<Renamed>,
    renamed: Vec<Renamed>,
    new_schemas: Vec<String>,
    new_roles: Vec<String>,
    notes: Vec<String>,
    not_taken: Vec<String>,
    rows: u64,
    replicas_behind: Vec<String>,
    seconds: f64,
}

/// A name, and what it is now.
#[derive(Serialize)]
struct Renamed {
    kind: String,
    was: String,
    name: String,
}

impl Done {
    fn of(from: databases::Shown, landed: &TablesLanded, begun: Instant) -> Self {
        let TablesLanded {
            plan: tables,
            moved,
            ..
        } = landed;
        let renamed = |placed: &everpoint_engine::transplant::table::Placed| Renamed {
            kind: placed.kind.to_string(),
            was: placed.from.to_string(),
            name: placed.to.to_string(),
        };
        let behind = moved.replicas.behind.iter();
        Self {
            from,
            database: tables.request.place.database.clone(),
            tables: tables.roots().map(renamed).collect(),
            renamed: tables.renamed().map(renamed).collect(),
            new_schemas: tables.new_schemas.clone(),
            new_roles: tables.new_roles.clone(),
            notes: tables.remarks.clone(),
            not_taken: moved.not_taken.clone(),
            rows: moved.rows,
            replicas_behind: behind.map(|(name, _)| name.clone()).collect(),
            seconds: begun.elapsed().as_secs_f64(),
        }
    }

    /// What was not said on the way.
    fn tell(&self) {
        for replica in &self.replicas_behind {
            eprintln!("replica `{replica}` does not have it yet");
        }
        for renamed in &self.renamed {
            eprintln!(
                "{} {} is called {}",
                renamed.kind, renamed.was, renamed.name
            );
        }
        for schema in &self.new_schemas {
            eprintln!("schema `{schema}` was made as it had been");
        }
        for table in &self.tables {
            eprintln!("{} is online in `{}`", table.name, self.database);
        }
        eprintln!("{} rows after {:.2} s", self.rows, self.seconds);
    }
}
