//! `everpoint expire`.

use everpoint_engine::{expire, long_term as engine_long_term};
use everpoint_instance::{InstanceLock, LockKind, connect_sql};
use everpoint_repository::{
    InstanceName, Repository, long_term::LongTermCopy, policy_document::DatabasePolicy, retention,
};
use everpoint_server::policy::{RetentionDays, instance_retention};
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
    let mut days = retention_days(repository, args, now).await?;
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
    if !args.dry_run {
        // One may have been made longer while the locks were waited for.
        days = retention_days(repository, args, now).await?;
    }
    let window = SignedDuration::from_hours(i64::from(days) * 24);
    let window_start = now.checked_sub(window)?;
    let copies = repository.copies(&args.name).await?;
    let copies = everpoint_repository::long_term::expired(&copies.copies, now);
    let backups = repository.backups(&args.name).await?;
    let index = repository.log_index(&args.name).await?;
    let plan = retention::plan(&backups, &index, window_start, now);
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
        expire::execute(repository, &args.name, &plan, lock.as_ref()).await?;
        engine_long_term::sweep(repository, &args.name, copying.as_ref()).await?;
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

/// How many days are kept. A service keeps an instance's backups for its databases' policies, which nobody means to
/// shorten in passing.
async fn retention_days(
    repository: &Repository,
    args: &Expire,
    now: Timestamp,
) -> anyhow::Result<u16> {
    let wanted = longest_policy(repository, &args.name, now).await?;
    match (args.retention_days, wanted) {
        (Some(asked), Some((days, name)))
            if u16::from(days.get()) > asked && !args.against_policies =>
        {
            let text = format!(
                "the policy of database `{name}` keeps {days} days, and a service that has it expires by itself. Give --retention-days {days}, or --against-policies to delete what policies want"
            );
            Err(Refusal(text).into())
        }
        (Some(asked), _) => Ok(asked),
        (None, Some((days, _))) => Ok(days.get().into()),
        (None, None) => {
            let text = format!(
                "how long are backups of `{}` kept? No service's policies are stored that want any. Give --retention-days N",
                args.name
            );
            Err(Refusal(text).into())
        }
    }
}

/// The longest retention that the policies want which are stored, and whose it is.
async fn longest_policy(
    repository: &Repository,
    instance: &InstanceName,
    now: Timestamp,
) -> anyhow::Result<Option<(RetentionDays, String)>> {
    let Some((_, policies)) = repository.policies(instance).await? else {
        return Ok(None);
    };
    let days = |policy: &DatabasePolicy| {
        RetentionDays::of_deleted(policy.short_term_days.into(), RetentionDays::LONGEST)
    };
    let mut wanted: Option<(RetentionDays, String)> = None;
    for policy in &policies.databases {
        let days = days(policy)?;
        let wants = match policy.deleted_at {
            None => instance_retention([days], [], now),
            Some(deleted_at) => instance_retention([], [(days, deleted_at)], now),
        };
        let longer = wants.filter(|wants| wanted.as_ref().is_none_or(|(most, _)| wants > most));
        wanted = longer.map(|days| (days, policy.name.clone())).or(wanted);
    }
    Ok(wanted)
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
