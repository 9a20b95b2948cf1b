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
    catalog::DatabaseRow,
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
    let seen = rows
        .iter()
        .filter(|row| row.deleted_at.is_none() && visible(&scope.below(&row.name)))
        .map(|row| resource(service, &observed, row, now))
        .collect();
    super::page(service, caller, seen)
}

pub async fn get(service: &Service, caller: &Caller<'_>) -> Result<Answer, ApiError> {
    let (observed, row) = living(service, caller).await?;
    Ok(Answer::ok(&resource(
        service,
        &observed,
        &row,
        Timestamp::now(),
    )))
}

/// Databases are made, changed, restored and deleted by later builds.
pub async fn change(service: &Service, caller: &Caller<'_>) -> Result<Answer, ApiError> {
    instance::known(service, caller)?;
    let what = "creating, restoring, changing or deleting a database by the service";
    Err(super::not_in_this_build(what))
}

/// The databases of an instance, living and deleted.
pub async fn rows(service: &Service, observed: &Observed) -> Result<Vec<DatabaseRow>, ApiError> {
    let rows = service.catalog().databases(&observed.name).await;
    rows.map_err(|error| super::internal(&error))
}

/// The living database that the path names: PostgreSQL tells names of different case apart, so the exact
/// name counts before one of another case.
pub async fn living(
    service: &Service,
    caller: &Caller<'_>,
) -> Result<(std::sync::Arc<Observed>, DatabaseRow), ApiError> {
    let observed = instance::known(service, caller)?;
    let name = caller.parameters.get("database");
    let mut rows = rows(service, &observed).await?;
    rows.retain(|row| row.deleted_at.is_none() && row.name.eq_ignore_ascii_case(name));
    let place = rows.iter().position(|row| row.name == name).unwrap_or(0);
    if rows.is_empty() {
        return Err(super::not_found("database", name));
    }
    Ok((observed, rows.swap_remove(place)))
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
