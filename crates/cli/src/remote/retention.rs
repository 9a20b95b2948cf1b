//! Short-term retention of living databases.

use super::{
    databases::{database_path, time},
    login::Session,
    long_term,
    operations::wait,
};
use crate::{
    args::{
        Global,
        database::DatabaseName,
        remote::{RetentionCommand, RetentionSet},
    },
    exit::Exit,
    output,
};
use everpoint_api::{
    Resource,
    retention::{NAME, ShortTermChangeProperties, ShortTermProperties, ShortTermUpdate},
};

pub async fn run(
    session: &Session,
    global: &Global,
    command: RetentionCommand,
) -> anyhow::Result<Exit> {
    match command {
        RetentionCommand::Show(args) => {
            let found = get(session, &args.name).await?;
            output::one(global.output, &found, || {
                format!("{} days", found.retention_days)
            })?;
        }
        RetentionCommand::Set(args) => set(session, &args).await?,
        RetentionCommand::LongTerm(command) => long_term::policy(session, global, command).await?,
    }
    Ok(Exit::Success)
}

fn path(session: &Session, name: &DatabaseName) -> String {
    let database = database_path(session, name);
    format!("{database}/backupShortTermRetentionPolicies/{NAME}")
}

async fn get(session: &Session, name: &DatabaseName) -> anyhow::Result<ShortTermProperties> {
    let found: Resource<ShortTermProperties> = session.client.get(&path(session, name)).await?;
    Ok(found.properties)
}

/// Says what is lost before it is.
async fn set(session: &Session, args: &RetentionSet) -> anyhow::Result<()> {
    let wish = ShortTermUpdate {
        properties: ShortTermProperties {
            retention_days: args.days.into(),
        },
    };
    let path = path(session, &args.name);
    let would: Resource<ShortTermChangeProperties> = session
        .client
        .try_put(&format!("{path}?dryRun=true"), &wish)
        .await?;
    let would = would.properties;
    match would.lost_from {
        Some(from) => eprintln!(
            "points from {} to {} cannot be restored any more",
            time(Some(from)),
            time(would.lost_to)
        ),
        None => eprintln!("no point is lost"),
    }
    for backup in &would.forgotten_backups {
        eprintln!("backup {backup} is deleted with the next expiry");
    }
    if would.forgotten_log_backups > 0 {
        let count = would.forgotten_log_backups;
        eprintln!("{count} log backups are deleted with the next expiry");
    }
    if args.dry_run {
        return Ok(());
    }
    let begun = session.client.put(&path, &wish).await?;
    wait(session, begun).await
}
