//! A recovered database's way into a running server: the part of `everpoint restore database --to`.

use std::time::Instant;

use everpoint_engine::{
    database::{DatabasePlan, into_server::IntoServer, journal::Reach, watch::Watch},
    instance_record::InstanceRecord,
    transplant::{
        Event, Existing, Method, MissingRoles, OpenSessions, TablespaceUse, replicas::ReplicaPolicy,
    },
};
use everpoint_repository::{InstanceName, Repository};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinHandle,
};

use super::database;
use crate::{
    args::database::{MoveMethod, RestoreDatabase},
    exit::Exit,
    progress::Display,
};

/// The destination asked for; `None` when the database stays in its scratch server.
pub async fn destination(
    repository: &Repository,
    home: &InstanceName,
    args: &RestoreDatabase,
) -> anyhow::Result<Option<IntoServer>> {
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
    Ok(Some(IntoServer {
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

/// Restores the database there.
pub async fn restore(
    repository: &Repository,
    plan: &DatabasePlan,
    destination: &IntoServer,
    begun: Instant,
) -> anyhow::Result<Exit> {
    let watch = database::watch(repository, begun);
    let interrupt = database::listen(watch.progress())?;
    let go_on = listen_for_going_on(&watch)?;
    let display = Display::new(watch.progress());
    let landed = destination.restore(repository, plan, None, &watch).await;
    drop(display);
    go_on.abort();
    interrupt.abort();
    let landed = landed?;
    let moved = &landed.moved;
    for (replica, _) in &moved.replicas.behind {
        eprintln!("replica `{replica}` does not have it yet");
    }
    if let Some(kept) = &moved.kept {
        eprintln!("the former `{}` is kept as `{kept}`", moved.name);
    }
    let seconds = begun.elapsed().as_secs_f64();
    eprintln!("`{}` is online after {seconds:.2} s", moved.name);
    landed.put_away(&watch).await?;
    Ok(Exit::Success)
}

/// The operator may choose not to wait for replicas any longer.
pub(super) fn listen_for_going_on(watch: &Watch) -> anyhow::Result<JoinHandle<()>> {
    let mut signalled = signal(SignalKind::user_defined1())?;
    let watch = watch.clone();
    Ok(tokio::spawn(async move {
        if signalled.recv().await.is_some() {
            eprintln!("going on without replicas");
            watch.go_on_without_replicas();
        }
    }))
}

/// Tells a person what happens in a move.
pub(super) fn say(event: &Event) {
    let list = |names: &[String]| names.join("; ");
    match event {
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
        Event::Left(database) => {
            eprintln!("`{database}` could not be dropped; `everpoint restore repair` does it")
        }
        Event::NotTaken(what) => eprintln!("the server did not take {what}"),
        _ => {}
    }
}
