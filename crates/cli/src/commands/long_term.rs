//! `everpoint long-term`.

use everpoint_engine::{
    long_term::{self, CopiedDatabase, CopyPlan, CopyRequest, LongTermError},
    progress::Progress,
};
use everpoint_instance::{InstanceLock, LockKind, connect_sql};
use everpoint_repository::{InstanceName, Repository, long_term::LongTermCopy};
use jiff::Timestamp;
use serde::Serialize;

use super::{backup::cancel_on_interrupt, known, processors};
use crate::{
    args::{
        Global,
        long_term::{CopyArgs, DeleteArgs, ListArgs, LongTermCommand, OneCopy},
    },
    exit::{Exit, Refusal},
    output,
    progress::Display,
};

pub async fn run(
    repository: &Repository,
    global: &Global,
    command: LongTermCommand,
) -> anyhow::Result<Exit> {
    match command {
        LongTermCommand::Copy(args) => copy(repository, global, args).await,
        LongTermCommand::List(args) => list(repository, global, &args).await,
        LongTermCommand::Hold(OneCopy { id }) => {
            let copy = long_term::hold(repository, id, Timestamp::now()).await?;
            show(global, &copy, "is held")
        }
        LongTermCommand::Release(OneCopy { id }) => {
            let copy = long_term::release(repository, id).await?;
            show(global, &copy, "is not held")
        }
        LongTermCommand::Delete(args) => delete(repository, global, &args).await,
    }
}

/// The lock that making and sweeping copies of an instance takes, so that each runs alone. None where the
/// caller knows that there is no server.
pub async fn lock(
    repository: &Repository,
    name: &InstanceName,
    without_server: bool,
) -> anyhow::Result<Option<InstanceLock>> {
    if without_server {
        return Ok(None);
    }
    let (_, connection) = known(repository, name).await?;
    let session = connect_sql(&connection, connection.database()).await.map_err(|error| {
        let text = format!(
            "the server must say that no long-term copy is being made, and cannot be asked: {error}. If it is gone for good, give --without-server"
        );
        Refusal(text)
    })?;
    let lock = InstanceLock::try_acquire(session, LockKind::LongTerm, name.as_str());
    Ok(Some(lock.await?))
}

async fn copy(repository: &Repository, global: &Global, args: CopyArgs) -> anyhow::Result<Exit> {
    let instance = args.source.instance;
    let lock = match args.dry_run {
        true => None,
        false => lock(repository, &instance, args.without_server).await?,
    };
    let request = CopyRequest {
        instance: instance.clone(),
        database: CopiedDatabase::Named(args.source.database),
        backup: args.backup,
        reasons: Vec::new(),
        expires_at: None,
        jobs: args
            .jobs
            .map_or_else(|| (processors() / 2).max(1), usize::from),
    };
    let mut plan = long_term::plan(repository, request).await?;
    plan.request.expires_at = args.keep.map(|keep| keep.after(plan.backup.stopped_at));
    if args.dry_run {
        let shown = Planned::new(&plan);
        output::one(global.output, &shown, || shown.text())?;
        return Ok(Exit::Success);
    }
    long_term::sweep(repository, &instance, lock.as_ref()).await?;
    let progress = Progress::default();
    let display = Display::new(&progress);
    let interrupt = tokio::spawn(cancel_on_interrupt(progress.clone()));
    let made = long_term::execute(repository, &plan, lock.as_ref(), &progress).await;
    interrupt.abort();
    drop(display);
    if let Some(lock) = lock {
        lock.give_up().await;
    }
    show(global, &made?, "is stored")
}

#[derive(Serialize)]
struct Planned {
    instance: String,
    database: String,
    oid: u32,
    backup: String,
    backup_time: String,
    expires_at: Option<Timestamp>,
    file_bytes: u64,
}

impl Planned {
    fn new(plan: &CopyPlan) -> Self {
        Self {
            instance: plan.request.instance.to_string(),
            database: plan.name.clone(),
            oid: plan.database.get(),
            backup: plan.backup.id.to_string(),
            backup_time: plan.backup.stopped_at.to_string(),
            expires_at: plan.request.expires_at,
            file_bytes: plan.file_bytes,
        }
    }

    fn text(&self) -> String {
        let until = match self.expires_at {
            Some(at) => output::time(at),
            None => "it is deleted".to_owned(),
        };
        format!(
            "would copy database `{}` of backup {}, {} as restored, until {until}",
            self.database,
            self.backup,
            output::bytes(self.file_bytes)
        )
    }
}

async fn list(repository: &Repository, global: &Global, args: &ListArgs) -> anyhow::Result<Exit> {
    let instances = match &args.whose {
        Some(whose) => vec![whose.instance.clone()],
        None => repository.instances_with_copies().await?,
    };
    let database = args
        .whose
        .as_ref()
        .and_then(|whose| whose.database.as_ref());
    let mut rows = Vec::new();
    let mut exit = Exit::Success;
    for instance in instances {
        let found = repository.copies(&instance).await?;
        for (id, error) in found.unreadable {
            exit = Exit::Damage;
            eprintln!("copy {id} of instance `{instance}` is damaged: {error}");
        }
        let wanted = |copy: &LongTermCopy| database.is_none_or(|name| copy.database == *name);
        rows.extend(found.copies.into_iter().filter(wanted));
    }
    let header = [
        "COPY",
        "INSTANCE",
        "DATABASE",
        "BACKUP TIME",
        "EXPIRES",
        "KEPT AS",
        "SIZE",
    ];
    let empty = "there are no long-term copies";
    output::list(global.output, &rows, &header, cells, empty)?;
    Ok(exit)
}

fn cells(copy: &LongTermCopy) -> Vec<String> {
    let expires = match (copy.held_since, copy.expires_at) {
        (Some(_), _) => "held".to_owned(),
        (None, Some(at)) => output::time(at),
        (None, None) => "never".to_owned(),
    };
    vec![
        copy.id.to_string(),
        copy.instance.to_string(),
        copy.database.clone(),
        output::time(copy.backup_time),
        expires,
        kept_as(copy),
        output::bytes(copy.stored_bytes),
    ]
}

fn kept_as(copy: &LongTermCopy) -> String {
    let names: Vec<&str> = copy.reasons.iter().map(|reason| reason.name()).collect();
    match names.is_empty() {
        true => "manual".to_owned(),
        false => names.join(", "),
    }
}

fn show(global: &Global, copy: &LongTermCopy, what: &str) -> anyhow::Result<Exit> {
    output::one(global.output, copy, || {
        let until = match (copy.held_since, copy.expires_at) {
            (Some(since), _) => {
                let since = output::time(since);
                format!("it stays until it is released (held since {since})")
            }
            (None, Some(at)) => format!("it stays until {}", output::time(at)),
            (None, None) => "it stays until it is deleted".to_owned(),
        };
        format!(
            "copy {} of `{}/{}`, as of {}, {what}; {until}",
            copy.id,
            copy.instance,
            copy.database,
            output::time(copy.backup_time)
        )
    })?;
    Ok(Exit::Success)
}

async fn delete(
    repository: &Repository,
    global: &Global,
    args: &DeleteArgs,
) -> anyhow::Result<Exit> {
    let copy = long_term::find(repository, args.id).await?;
    if let Some(since) = copy.held_since {
        return Err(LongTermError::Held { id: copy.id, since }.into());
    }
    if args.dry_run {
        return show(global, &copy, "would be deleted");
    }
    long_term::delete(repository, &copy.instance, copy.id).await?;
    output::one(global.output, &copy, || {
        format!(
            "copy {} of `{}/{}` is deleted",
            copy.id, copy.instance, copy.database
        )
    })?;
    Ok(Exit::Success)
}
