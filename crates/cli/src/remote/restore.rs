//! `everpoint restore database` by the service.

use everpoint_api::{Resource, database::DroppedProperties};
use serde_json::{Value, json};

use super::{
    databases::{database_path, dropped, instance_path, time},
    login::Session,
    long_term,
    operations::wait,
};
use crate::{
    args::database::{DatabaseName, DeletedName, MoveMethod, RestoreDatabase},
    exit::{Exit, Refusal},
};

pub async fn database(session: &Session, args: &RestoreDatabase) -> anyhow::Result<Exit> {
    refuse_what_it_cannot(args)?;
    let Some(new_name) = &args.purpose.to else {
        return Err(Refusal("under which name? Give --to NEWNAME".to_owned()).into());
    };
    let mut properties = json!({"createMode": "PointInTimeRestore"});
    let home = match (&args.source, &args.deleted) {
        _ if let Some(id) = args.long_term => {
            let copy = long_term::find(session, id).await?;
            properties = json!({
                "createMode": "RestoreLongTermRetentionBackup",
                "longTermRetentionBackupResourceId": copy.id,
            });
            &copy.properties.managed_instance_name.parse()?
        }
        (Some(source), _) => {
            properties["sourceDatabaseId"] = database_path(session, source).into();
            properties["restorePointInTime"] = point(args)?;
            &source.instance
        }
        (None, Some(deleted)) => {
            let found = the_deleted(session, deleted).await?;
            properties["restorableDroppedDatabaseId"] = found.id.into();
            if args.target.at.is_some() {
                properties["restorePointInTime"] = point(args)?;
            }
            &deleted.name.instance
        }
        (None, None) => {
            return Err(Refusal(
                "which database? Give INSTANCE/DATABASE, --deleted or --long-term".to_owned(),
            )
            .into());
        }
    };
    let name = DatabaseName {
        instance: args.into.instance.as_ref().unwrap_or(home).clone(),
        database: new_name.as_str().to_owned(),
    };
    let begun = session
        .client
        .put(
            &database_path(session, &name),
            &json!({"properties": properties}),
        )
        .await?;
    wait(session, begun).await?;
    println!("`{}` is online in {}", name.database, name.instance);
    Ok(Exit::Success)
}

fn refuse_what_it_cannot(args: &RestoreDatabase) -> anyhow::Result<()> {
    let (into, target, purpose) = (&args.into, &args.target, &args.purpose);
    let asked = [
        ("--inspect", purpose.inspect),
        ("--exec", purpose.exec.is_some()),
        ("--method files", into.method == MoveMethod::Files),
        ("--dry-run", purpose.dry_run),
        ("--lsn", target.lsn.is_some()),
        ("--before", target.before.is_some()),
        ("--restore-point", target.restore_point.is_some()),
        ("--latest", target.latest),
        ("--timeline", args.timeline.is_some()),
        ("--admin-connection", into.admin_connection.is_some()),
        ("--replace", into.replace),
        ("--create-roles", into.create_roles),
        ("--no-tablespaces", into.no_tablespaces),
        ("--replica", !into.replicas.is_empty()),
        ("--wait-replicas", into.wait_replicas.is_some()),
    ];
    match asked.iter().find(|(_, given)| *given) {
        None => Ok(()),
        Some((option, _)) => {
            let text = format!(
                "the service does not know {option}: restore with --at TIME, or without --server"
            );
            Err(Refusal(text).into())
        }
    }
}

/// The moment, to the microsecond.
fn point(args: &RestoreDatabase) -> anyhow::Result<Value> {
    match args.target.at {
        Some(time) => Ok(format!("{time:.6}").into()),
        None => Err(Refusal("as of when? Give --at TIME".to_owned()).into()),
    }
}

/// The one that is meant; several of one name are listed.
async fn the_deleted(
    session: &Session,
    wanted: &DeletedName,
) -> anyhow::Result<Resource<DroppedProperties>> {
    let name = &wanted.name;
    let mut found = dropped(session, &name.instance).await?;
    found.retain(|row| {
        let at = row.properties.deletion_date.get();
        let meant = wanted
            .dropped
            .as_ref()
            .is_none_or(|span| span.from <= at && at < span.to);
        row.properties.database_name == name.database && meant
    });
    match (found.pop(), found.is_empty()) {
        (Some(one), true) => Ok(one),
        (None, _) => {
            let text = format!(
                "no deleted database `{}` can be restored in {}. `everpoint deleted {}` lists them",
                name.database,
                instance_path(session, &name.instance),
                name.instance
            );
            Err(Refusal(text).into())
        }
        (Some(last), false) => {
            found.push(last);
            let times: Vec<_> = found
                .iter()
                .map(|row| time(Some(row.properties.deletion_date)))
                .collect();
            let text = format!(
                "several databases `{}` were deleted: say which with @TIME, one of {}",
                name.database,
                times.join(", ")
            );
            Err(Refusal(text).into())
        }
    }
}
