//! Instances and databases, as the service shows them.

use everpoint_api::{
    Resource,
    client::segment,
    database::{DatabaseProperties, DroppedProperties},
    instance::InstanceProperties,
    time::WireTime,
};
use everpoint_repository::InstanceName;
use serde_json::json;

use super::{login::Session, operations::wait};
use crate::{
    args::{Global, database::DatabaseName, remote::DatabaseCommand},
    exit::Exit,
    output,
};

/// The path of an instance.
pub fn instance_path(session: &Session, name: &InstanceName) -> String {
    let mut all = session.instances.iter();
    match all.find(|found| found.name == name.as_str()) {
        Some(found) => found.id.clone(),
        // Whoever may see only databases does not see it.
        None => {
            let group = session.groups.first().map_or("", |group| &group.id);
            format!("{group}/providers/Microsoft.Sql/managedInstances/{name}")
        }
    }
}

/// The path of a living database.
pub fn database_path(session: &Session, name: &DatabaseName) -> String {
    let instance = instance_path(session, &name.instance);
    format!("{instance}/databases/{}", segment(&name.database))
}

/// What a time looks like in a table.
pub fn time(time: Option<WireTime>) -> String {
    time.map_or_else(
        || "-".to_owned(),
        |time| time.get().strftime("%Y-%m-%d %H:%M:%S%.3fZ").to_string(),
    )
}

pub async fn run(
    session: &Session,
    global: &Global,
    command: DatabaseCommand,
) -> anyhow::Result<Exit> {
    match command {
        DatabaseCommand::List(args) => list(session, global, &args.name).await,
        DatabaseCommand::Create(args) => {
            let body = json!({"properties": {"createMode": "Default"}});
            let begun = session
                .client
                .put(&database_path(session, &args.name), &body)
                .await?;
            wait(session, begun).await?;
            eprintln!("created `{}`", args.name.database);
            Ok(Exit::Success)
        }
        DatabaseCommand::Delete(args) => {
            let begun = session
                .client
                .delete(&database_path(session, &args.name))
                .await?;
            wait(session, begun).await?;
            eprintln!("deleted `{}`", args.name.database);
            Ok(Exit::Success)
        }
    }
}

pub async fn instances(session: &Session, global: &Global) -> anyhow::Result<Exit> {
    let rows = &session.instances;
    let cells = |row: &Resource<InstanceProperties>| {
        let properties = &row.properties;
        vec![
            row.name.clone(),
            properties.state.clone(),
            properties
                .server_version
                .clone()
                .unwrap_or_else(|| "-".to_owned()),
            properties.fully_qualified_domain_name.clone(),
        ]
    };
    let header = ["INSTANCE", "STATE", "VERSION", "SERVER"];
    output::list(
        global.output,
        rows,
        &header,
        cells,
        "no instance that you may see",
    )?;
    Ok(Exit::Success)
}

pub async fn list(session: &Session, global: &Global, name: &InstanceName) -> anyhow::Result<Exit> {
    let path = format!("{}/databases", instance_path(session, name));
    let rows: Vec<Resource<DatabaseProperties>> = session.client.list(&path).await?;
    let cells = |row: &Resource<DatabaseProperties>| {
        vec![
            row.name.clone(),
            row.properties.status.clone(),
            time(row.properties.earliest_restore_point),
            time(row.properties.latest_restore_point),
        ]
    };
    let header = ["DATABASE", "STATUS", "RESTORABLE FROM", "UP TO"];
    output::list(
        global.output,
        &rows,
        &header,
        cells,
        "no database that you may see",
    )?;
    Ok(Exit::Success)
}

pub async fn deleted(
    session: &Session,
    global: &Global,
    name: &InstanceName,
) -> anyhow::Result<Exit> {
    let rows = dropped(session, name).await?;
    let cells = |row: &Resource<DroppedProperties>| {
        let properties = &row.properties;
        vec![
            properties.database_name.clone(),
            time(Some(properties.creation_date)),
            time(Some(properties.deletion_date)),
            time(properties.earliest_restore_date),
        ]
    };
    let header = ["DATABASE", "CREATED", "DELETED", "RESTORABLE FROM"];
    output::list(
        global.output,
        &rows,
        &header,
        cells,
        "no deleted database can be restored",
    )?;
    Ok(Exit::Success)
}

/// The deleted databases of an instance.
pub async fn dropped(
    session: &Session,
    name: &InstanceName,
) -> anyhow::Result<Vec<Resource<DroppedProperties>>> {
    let path = format!(
        "{}/restorableDroppedDatabases",
        instance_path(session, name)
    );
    Ok(session.client.list(&path).await?)
}
