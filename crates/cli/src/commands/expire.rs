//! `everpoint expire`.

use everpoint_engine::{expire, long_term as engine_long_term};
use everpoint_instance::{InstanceLock, LockKind, connect_sql};
use everpoint_repository::{Repository, long_term::LongTermCopy, retention};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::{known, long_term};
use crate::{
    args::{Expire, Global},
    exit::{Exit, Refusal},
    output,
};

#[derive(Serialize)]
struct Shown {
    window_start: String,
    dry_run: bool,
    deleted_backups: Vec<String>,
    kept_backups: Vec<String>,
    deleted_log_backups: usize,
    deleted_log_bytes: u64,
    deleted_copies: Vec<ShownCopy>,
}

#[derive(Serialize)]
struct ShownCopy {
    id: String,
    database: String,
    backup_time: String,
}

impl ShownCopy {
    fn new(copy: &LongTermCopy) -> Self {
        Self {
            id: copy.id.to_string(),
            database: copy.database.clone(),
            backup_time: output::time(copy.backup_time),
        }
    }
}

pub async fn run(repository: &Repository, global: &Global, args: &Expire) -> anyhow::Result<Exit> {
    let (_, connection) = known(repository, &args.name).await?;
    let now = Timestamp::now();
    let window = SignedDuration::from_hours(i64::from(args.retention_days) * 24);
    let window_start = now.checked_sub(window)?;
    // Held until the end, so that no backup begins on what is being deleted.
    let lock = match args.without_server || args.dry_run {
        true => None,
        false => {
            let session = connect_sql(&connection, connection.database()).await.map_err(|error| {
                let text = format!(
                    "the server must say that no backup is running, and cannot be asked: {error}. If it is gone for good, give --without-server"
                );
                Refusal(text)
            })?;
            Some(InstanceLock::try_acquire(session, LockKind::Writer, args.name.as_str()).await?)
        }
    };
    // A copy reads a backup that would be deleted below it.
    let copying = match args.without_server || args.dry_run {
        true => None,
        false => long_term::lock(repository, &args.name, args.without_server).await?,
    };
    let copies = repository.copies(&args.name).await?;
    let copies = everpoint_repository::long_term::expired(&copies.copies, now);
    let backups = repository.backups(&args.name).await?;
    let index = repository.log_index(&args.name).await?;
    let plan = retention::plan(&backups, &index, window_start);
    let ids =
        |ids: &[everpoint_repository::BackupId]| ids.iter().map(ToString::to_string).collect();
    let shown = Shown {
        window_start: window_start.to_string(),
        dry_run: args.dry_run,
        deleted_backups: ids(&plan.backups),
        kept_backups: ids(&plan.kept),
        deleted_log_backups: plan.logs.len(),
        deleted_copies: copies.iter().map(|copy| ShownCopy::new(copy)).collect(),
        deleted_log_bytes: plan.logs.iter().map(|log| log.stored_bytes).sum(),
    };
    if !args.dry_run {
        expire::execute(repository, &args.name, &plan).await?;
        engine_long_term::sweep(repository, &args.name).await?;
        for copy in &copies {
            engine_long_term::delete(repository, &args.name, copy.id).await?;
        }
    }
    for lock in [copying, lock].into_iter().flatten() {
        lock.give_up().await;
    }
    output::one(global.output, &shown, || text(&shown, window_start))?;
    Ok(Exit::Success)
}

fn text(shown: &Shown, window_start: Timestamp) -> String {
    let verb = if shown.dry_run {
        "would delete"
    } else {
        "deleted"
    };
    let mut text = format!(
        "every point from {} on stays restorable\n",
        output::time(window_start)
    );
    for id in &shown.deleted_backups {
        text.push_str(&format!("{verb} backup {id}\n"));
    }
    for id in &shown.kept_backups {
        text.push_str(&format!("keep backup {id}\n"));
    }
    for copy in &shown.deleted_copies {
        text.push_str(&format!(
            "{verb} long-term copy {} of `{}` of {}\n",
            copy.id, copy.database, copy.backup_time
        ));
    }
    let bytes = output::bytes(shown.deleted_log_bytes);
    text.push_str(&format!(
        "{verb} {} log backups ({bytes})\n",
        shown.deleted_log_backups
    ));
    text
}
