//! Deleted databases that can be had back.

use std::sync::Arc;

use everpoint_api::{
    ApiError, Resource,
    database::{DROPPED_TYPE, DroppedProperties},
    time::{WireTime, dropped_name, parse_dropped_name},
};
use jiff::Timestamp;

use super::{database, instance};
use crate::{
    access::segment,
    catalog::DatabaseRow,
    http::Answer,
    service::{Caller, Observed, Service},
};

pub async fn list(service: &Service, caller: &Caller<'_>) -> Result<Answer, ApiError> {
    let observed = instance::known(service, caller)?;
    let rows = database::rows(service, &observed).await?;
    let now = Timestamp::now();
    let seen = rows
        .iter()
        .filter_map(|row| resource(service, &observed, row, now));
    super::page(service, caller, seen.collect())
}

pub async fn get(service: &Service, caller: &Caller<'_>) -> Result<Answer, ApiError> {
    let (observed, row) = dropped(service, caller).await?;
    let name = caller.parameters.get("dropped");
    let found = resource(service, &observed, &row, Timestamp::now());
    found
        .map(|found| Answer::ok(&found))
        .ok_or_else(|| super::not_found("restorable dropped database", name))
}

/// The deleted database that the path names, while anything of it can be restored.
pub async fn dropped(
    service: &Service,
    caller: &Caller<'_>,
) -> Result<(Arc<Observed>, DatabaseRow), ApiError> {
    let observed = instance::known(service, caller)?;
    let asked = caller.parameters.get("dropped");
    match find(service, &observed, asked).await? {
        Some(row) => Ok((observed, row)),
        None => Err(super::not_found("restorable dropped database", asked)),
    }
}

/// The deleted database of this name, such as `app,133`, while anything of it can be restored.
pub async fn find(
    service: &Service,
    observed: &Observed,
    asked: &str,
) -> Result<Option<DatabaseRow>, ApiError> {
    let Some((name, deleted_at)) = parse_dropped_name(asked) else {
        return Ok(None);
    };
    let now = Timestamp::now();
    let rows = database::rows(service, observed).await?;
    let mut fitting: Vec<DatabaseRow> = rows
        .into_iter()
        .filter(|row| row.name.eq_ignore_ascii_case(name))
        .filter(|row| row.deleted_at.map(WireTime::new) == Some(deleted_at))
        .filter(|row| observed.restorable_from(row, now).is_some())
        .collect();
    Ok(match fitting.iter().position(|row| row.name == name) {
        Some(exact) => Some(fitting.swap_remove(exact)),
        None if fitting.len() == 1 => fitting.pop(),
        None => None,
    })
}

/// The path of a deleted database.
pub fn path(service: &Service, observed: &Observed, name: &str) -> String {
    let instance = service.instance_scope(&observed.name);
    format!("{instance}/restorableDroppedDatabases/{}", segment(name))
}

fn resource(
    service: &Service,
    observed: &Observed,
    row: &DatabaseRow,
    now: Timestamp,
) -> Option<Resource<DroppedProperties>> {
    let deletion_date = WireTime::new(row.deleted_at?);
    let earliest = observed.restorable_from(row, now)?;
    // From exactly what is printed, for clients make the name from it again.
    let name = dropped_name(&row.name, deletion_date);
    Some(Resource {
        id: path(service, observed, &name),
        name,
        kind: DROPPED_TYPE.to_owned(),
        location: Some(service.config().location.clone()),
        tags: None,
        properties: DroppedProperties {
            database_name: row.name.clone(),
            creation_date: WireTime::new(row.created_at),
            deletion_date,
            earliest_restore_date: Some(database::earliest(earliest)),
        },
    })
}
