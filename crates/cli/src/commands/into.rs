//! A recovered database's way into a running server: the part of `everpoint restore database --to`.

use std::{path::PathBuf, time::Instant};

use everpoint_engine::{
    database::{
        DatabasePlan,
        journal::{self, Reach},
        scratch::Scratch,
        server::ScratchServer,
    },
    instance_record::InstanceRecord,
    progress::Progress,
    transplant::{
        self, Control, Event, Existing, Method, MissingRoles, MoveRequest, OpenSessions,
        TablespaceUse,
        name::{DatabaseName, OperationId},
        replicas::ReplicaPolicy,
    },
};
use everpoint_instance::{ConnectionSpec, PgBinaries, ServerFacts, connect_sql};
use everpoint_pgformat::ByteCount;
use everpoint_repository::{InstanceName, Repository};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinHandle,
};

use crate::{
    args::database::{MoveMethod, RestoreDatabase},
    exit::{Exit, Refusal},
    progress::Display,
};

/// Where a recovered database goes, and how.
pub struct Destination {
    reach: Reach,
    target: ConnectionSpec,
    name: DatabaseName,
    existing: Existing,
    sessions: OpenSessions,
    missing_roles: MissingRoles,
    tablespaces: TablespaceUse,
    method: Method,
    replicas: Vec<String>,
    replica_policy: ReplicaPolicy,
    bin_directory: Option<PathBuf>,
}

/// The destination asked for; `None` when the database stays in its scratch server.
pub async fn destination(
    repository: &Repository,
    home: &InstanceName,
    args: &RestoreDatabase,
) -> anyhow::Result<Option<Destination>> {
    let Some(name) = args.purpose.to.clone() else {
        return Ok(None);
    };
    let into = &args.into;
    let instance = into.instance.as_ref().unwrap_or(home);
    let (_, record) = repository.description::<InstanceRecord>(instance).await?;
    let (reach, mut target) = match &into.admin_connection {
        Some(connection) => (
            Reach::Connection(Box::new(connection.clone())),
            connection.clone(),
        ),
        None => (
            Reach::Instance(instance.clone()),
            record.connection.parse()?,
        ),
    };
    // A database that we are connected to cannot be renamed.
    if target.database() == name.as_str() {
        target = target.with_database("postgres");
    }
    Ok(Some(Destination {
        reach,
        target,
        name,
        existing: match into.replace {
            true => Existing::Replace,
            false => Existing::Refuse,
        },
        sessions: match into.end_sessions {
            true => OpenSessions::End,
            false => OpenSessions::Refuse,
        },
        missing_roles: match into.create_roles {
            true => MissingRoles::Create,
            false => MissingRoles::Refuse,
        },
        tablespaces: match into.no_tablespaces {
            true => TablespaceUse::Default,
            false => TablespaceUse::AsItWas,
        },
        method: match into.method {
            MoveMethod::Copy => Method::Copy,
            MoveMethod::Files => Method::Files,
        },
        replicas: into.replicas.clone(),
        replica_policy: match into.wait_replicas {
            Some(limit) if limit.is_zero() => ReplicaPolicy::GoOn,
            Some(limit) => ReplicaPolicy::WaitAtMost(limit),
            None => ReplicaPolicy::Wait,
        },
        bin_directory: args.bin_directory.clone(),
    }))
}

impl Destination {
    /// Refuses what the target alone speaks against, before anything is fetched.
    pub async fn check(&self, plan: &DatabasePlan) -> anyhow::Result<()> {
        let Self {
            target,
            name,
            existing,
            sessions,
            ..
        } = self;
        let source = plan.chosen.resolved.backup.version;
        let size = ByteCount::new(plan.file_bytes());
        transplant::check_target(target, name, *existing, *sessions, source, size).await?;
        if self.method == Method::Files {
            let cluster = plan.chosen.resolved.backup.system_identifier;
            transplant::check_target_for_files(target, cluster).await?;
        }
        self.binaries().await.map(drop)
    }

    /// What a later start needs to know of it, should this one die.
    pub fn for_journal(&self) -> journal::Destination {
        journal::Destination {
            reach: self.reach.clone(),
            name: self.name.clone(),
            sessions: self.sessions,
        }
    }

    /// Removes what moves that died have left there whose journals are lost.
    pub async fn clear(&self) -> anyhow::Result<()> {
        for leftover in transplant::leftovers(&self.target).await? {
            transplant::remove_leftover(&self.target, &leftover).await?;
            let database = leftover.database;
            eprintln!("removed `{database}`, which an interrupted restore left on the server");
        }
        Ok(())
    }

    /// `pg_dump` and `pg_restore` of the target's version, which read every older one.
    async fn binaries(&self) -> anyhow::Result<PgBinaries> {
        let session = connect_sql(&self.target, self.target.database()).await?;
        let version = ServerFacts::read(&session).await?.major;
        // The directory that is named may hold the source's version, and another one be installed too.
        if let Ok(found) = PgBinaries::find(self.bin_directory.as_deref(), version).await {
            return Ok(found);
        }
        PgBinaries::find(None, version)
            .await
            .map_err(|error| Refusal(error.to_string()).into())
    }

    /// Moves the database there.
    pub async fn fill(
        &self,
        source: &ScratchServer,
        scratch: &Scratch,
        jobs: usize,
        progress: &Progress,
        begun: Instant,
    ) -> anyhow::Result<Exit> {
        let work_directory = scratch.make_move_directory()?;
        let request = MoveRequest {
            operation: OperationId::new(),
            source: source.connection().clone(),
            source_database: source.name().to_owned(),
            target: self.target.clone(),
            new_name: self.name.clone(),
            existing: self.existing,
            sessions: self.sessions,
            missing_roles: self.missing_roles,
            tablespaces: self.tablespaces,
            method: self.method,
            replicas: self.replicas.clone(),
            replica_policy: self.replica_policy,
            binaries: self.binaries().await?,
            jobs,
            work_directory,
        };
        let plan = transplant::plan(request).await?;
        for remark in &plan.remarks {
            eprintln!("note: {remark}");
        }
        let control = Control::new(progress.clone(), move |event| say(&event, begun));
        let go_on = listen_for_going_on(&control)?;
        let display = Display::new(progress);
        let moved = transplant::execute(&plan, &control).await;
        drop(display);
        go_on.abort();
        let moved = moved?;
        for (replica, _) in &moved.replicas.behind {
            eprintln!("replica `{replica}` does not have it yet");
        }
        if let Some(kept) = &moved.kept {
            eprintln!("the former `{}` is kept as `{kept}`", moved.name);
        }
        let seconds = begun.elapsed().as_secs_f64();
        eprintln!("`{}` is online after {seconds:.2} s", moved.name);
        Ok(Exit::Success)
    }
}

/// The operator may choose not to wait for replicas any longer.
fn listen_for_going_on(control: &Control) -> anyhow::Result<JoinHandle<()>> {
    let mut signalled = signal(SignalKind::user_defined1())?;
    let control = control.clone();
    Ok(tokio::spawn(async move {
        if signalled.recv().await.is_some() {
            eprintln!("going on without replicas");
            control.go_on_without_replicas();
        }
    }))
}

fn say(event: &Event, begun: Instant) {
    let list = |names: &[String]| names.join("; ");
    match event {
        Event::State(state) => {
            let mut name = state.to_string();
            if let Some(first) = name.get_mut(..1) {
                first.make_ascii_uppercase();
            }
            eprintln!("{:7.2} s  {name}", begun.elapsed().as_secs_f64());
        }
        Event::ReplicasBehind(replicas) => {
            for (name, behind) in replicas {
                match behind {
                    Some(bytes) => eprintln!("replica `{name}` has {bytes} bytes to replay"),
                    None => eprintln!("replica `{name}` is not connected"),
                }
            }
            let process = std::process::id();
            eprintln!("to go on without waiting for replicas: kill -USR1 {process}");
        }
        Event::OpenSessions(sessions) => {
            eprintln!("waiting for sessions to end: {}", list(sessions))
        }
        Event::SessionsEnded(sessions) => eprintln!("ended sessions: {}", list(sessions)),
        Event::NotTaken(what) => eprintln!("the server did not take {what}"),
        _ => {}
    }
}
