//! Living databases.

use everpoint_api::{
    ApiError, Resource,
    database::{DatabaseProperties, TYPE},
    time::WireTime,
};
use jiff::Timestamp;

use super::instance;
use crate::{
    access::Action,
    catalog::{DatabaseOperation, DatabaseRow, OperationKind},
    http::Answer,
    service::{Caller, Observed, Service},
};

const READ: Action = Action::new("Microsoft.Sql/managedInstances/databases/read");

pub async fn list(service: &Service, caller: &Caller<'_>) -> Result<Answer, ApiError> {
    let observed = instance::known(service, caller)?;
    let rows = rows(service, &observed).await?;
    let visible = service.visible(caller, READ);
    let scope = service.instance_scope(&observed.name);
    let now = Timestamp::now();
    let making = all_making(service, &observed).await?;
    let seen = rows
        .iter()
        .filter(|row| row.deleted_at.is_none() && visible(&scope.below(&row.name)))
        .filter(|row| !making.iter().any(|making| making.name == row.name))
        .map(|row| resource(service, &observed, row, now))
        .chain(
            making
                .iter()
                .filter(|making| visible(&scope.below(&making.name)))
                .map(|making| unfinished(service, &observed, making)),
        )
        .collect();
    super::page(service, caller, seen)
}

pub async fn get(service: &Service, caller: &Caller<'_>) -> Result<Answer, ApiError> {
    let observed = instance::known(service, caller)?;
    let name = caller.parameters.get("database");
    if let Some(making) = making(service, &observed, name).await? {
        return Ok(Answer::ok(&unfinished(service, &observed, &making)));
    }
    let (observed, row) = living(service, caller).await?;
    Ok(answer(service, &observed, &row))
}

/// A database as an answer.
pub fn answer(service: &Service, observed: &Observed, row: &DatabaseRow) -> Answer {
    Answer::ok(&resource(service, observed, row, Timestamp::now()))
}

/// The living database of a name as an answer; nothing when it has gone.
pub async fn named(service: &Service, instance: &str, name: &str) -> Result<Answer, ApiError> {
    let not_found = || super::not_found("database", name);
    let instance = instance.parse().map_err(|_| not_found())?;
    let observed = service.instance(&instance).ok_or_else(not_found)?;
    let row = find(service, &observed, name)
        .await?
        .ok_or_else(not_found)?;
    Ok(answer(service, &observed, &row))
}

/// The operation that makes a database of this name at the moment, or is to.
pub async fn making(
    service: &Service,
    observed: &Observed,
    name: &str,
) -> Result<Option<DatabaseOperation>, ApiError> {
    let mut all = all_making(service, observed).await?;
    all.retain(|making| making.name.eq_ignore_ascii_case(name));
    Ok(match all.iter().position(|making| making.name == name) {
        Some(exact) => Some(all.swap_remove(exact)),
        None if all.len() == 1 => all.pop(),
        None => None,
    })
}

async fn all_making(
    service: &Service,
    observed: &Observed,
) -> Result<Vec<DatabaseOperation>, ApiError> {
    let open = service.catalog().open_operations_of(&observed.name).await;
    let mut open = open.map_err(|error| super::internal(&error))?;
    open.retain(|found| found.row.kind != OperationKind::Delete);
    Ok(open)
}

/// A database that is being made. It has no restore points yet, and nobody can connect to it.
fn unfinished(
    service: &Service,
    observed: &Observed,
    making: &DatabaseOperation,
) -> Resource<DatabaseProperties> {
    let instance = service.instance_scope(&observed.name);
    Resource {
        id: instance.below(&making.name).to_string(),
        name: making.name.clone(),
        kind: TYPE.to_owned(),
        location: Some(service.config().location.clone()),
        tags: Some(making.tags.get().clone()),
        properties: DatabaseProperties {
            collation: None,
            status: match making.row.kind {
                OperationKind::Create => "Creating".to_owned(),
                _ => "Restoring".to_owned(),
            },
            creation_date: WireTime::new(making.row.started_at),
            earliest_restore_point: None,
            latest_restore_point: None,
        },
    }
}

/// The databases of an instance, living and deleted.
pub async fn rows(service: &Service, observed: &Observed) -> Result<Vec<DatabaseRow>, ApiError> {
    let rows = service.catalog().databases(&observed.name).await;
    rows.map_err(|error| super::internal(&error))
}

/// The living database that the path names.
pub async fn living(
    service: &Service,
    caller: &Caller<'_>,
) -> Result<(std::sync::Arc<Observed>, DatabaseRow), ApiError> {
    let observed = instance::known(service, caller)?;
    let name = caller.parameters.get("database");
    match find(service, &observed, name).await? {
        Some(row) => Ok((observed, row)),
        None => match making(service, &observed, name).await? {
            Some(making) => Err(super::database_write::conflict(&making)),
            None => Err(super::not_found("database", name)),
        },
    }
}

/// The living database of this name. PostgreSQL tells names of different case apart, so the exact name counts before one
/// of another case, and of several of those none.
pub async fn find(
    service: &Service,
    observed: &Observed,
    name: &str,
) -> Result<Option<DatabaseRow>, ApiError> {
    let rows = service
        .catalog()
        .databases_named(&observed.name, name)
        .await;
    let mut rows = rows.map_err(|error| super::internal(&error))?;
    rows.retain(|row| row.deleted_at.is_none());
    Ok(match rows.iter().position(|row| row.name == name) {
        Some(exact) => Some(rows.swap_remove(exact)),
        None if rows.len() == 1 => rows.pop(),
        None => None,
    })
}

fn resource(
    service: &Service,
    observed: &Observed,
    row: &DatabaseRow,
    now: Timestamp,
) -> Resource<DatabaseProperties> {
    let points = observed.points(row, now);
    Resource {
        id: service
            .instance_scope(&observed.name)
            .below(&row.name)
            .to_string(),
        name: row.name.clone(),
        kind: TYPE.to_owned(),
        location: Some(service.config().location.clone()),
        tags: Some(row.tags.get().clone()),
        properties: DatabaseProperties {
            collation: Some(row.collation.clone()),
            status: match observed.server {
                Ok(_) => "Online".to_owned(),
                Err(_) => "Inaccessible".to_owned(),
            },
            creation_date: WireTime::new(row.created_at),
            earliest_restore_point: points.map(|points| earliest(points.earliest)),
            latest_restore_point: points.map(|points| WireTime::new(points.latest)),
        },
    }
}

/// To the next millisecond, for before it nothing can be restored.
pub fn earliest(time: Timestamp) -> WireTime {
    let cut = WireTime::new(time);
    match cut.get() < time {
        true => WireTime::new(cut.get() + jiff::SignedDuration::from_millis(1)),
        false => cut,
    }
}
