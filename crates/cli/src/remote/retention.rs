//! Short-term retention of living databases.

use everpoint_api::{
    Resource,
    database::DatabaseProperties,
    retention::{NAME, ShortTermProperties, ShortTermUpdate},
};
use jiff::{SignedDuration, Timestamp};

use super::{
    databases::{database_path, time},
    login::Session,
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
    let days = i64::from(args.days);
    let database: Resource<DatabaseProperties> = session
        .client
        .get(&database_path(session, &args.name))
        .await?;
    let kept_from = Timestamp::now() - SignedDuration::from_hours(24 * days);
    match database.properties.earliest_restore_point {
        Some(earliest) if earliest.get() < kept_from => {
            let until = output::time(kept_from);
            eprintln!(
                "points from {} to {until} cannot be restored any more",
                time(Some(earliest))
            );
        }
        _ => eprintln!("no point is lost"),
    }
    if args.dry_run {
        return Ok(());
    }
    let wish = ShortTermUpdate {
        properties: ShortTermProperties {
            retention_days: days,
        },
    };
    let begun = session
        .client
        .put(&path(session, &args.name), &wish)
        .await?;
    wait(session, begun).await
}
