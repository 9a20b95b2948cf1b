//! Databases that can be restored on another instance should theirs be lost: all that have backups.

use everpoint_api::{
    ApiError, Resource,
    restore::{RECOVERABLE_TYPE, RecoverableProperties},
    time::WireTime,
};
use jiff::Timestamp;

use super::{database, instance};
use crate::{
    access::{Action, segment},
    catalog::DatabaseRow,
    http::Answer,
    service::{Caller, Observed, Service},
};

const READ: Action = Action::new("Microsoft.Sql/managedInstances/recoverableDatabases/read");

pub async fn list(service: &Service, caller: &Caller<'_>) -> Result<Answer, ApiError> {
    let observed = instance::known(service, caller)?;
    let rows = database::rows(service, &observed).await?;
    let visible = service.visible(caller, READ);
    let scope = service.instance_scope(&observed.name);
    let seen = rows
        .iter()
        .filter(|row| visible(&scope.below(&row.name)))
        .filter_map(|row| resource(service, &observed, row));
    super::page(service, caller, seen.collect())
}

pub async fn get(service: &Service, caller: &Caller<'_>) -> Result<Answer, ApiError> {
    let observed = instance::known(service, caller)?;
    let name = caller.parameters.get("database");
    let row = database::find(service, &observed, name).await?;
    row.and_then(|row| resource(service, &observed, &row))
        .map(|found| Answer::ok(&found))
        .ok_or_else(|| super::not_found("recoverable database", name))
}

fn resource(
    service: &Service,
    observed: &Observed,
    row: &DatabaseRow,
) -> Option<Resource<RecoverableProperties>> {
    if row.deleted_at.is_some() {
        return None;
    }
    let now = Timestamp::now();
    let earliest = observed.restorable_from(row, now)?;
    let points = observed.points(row, now);
    let instance = service.instance_scope(&observed.name);
    Some(Resource {
        id: format!("{instance}/recoverableDatabases/{}", segment(&row.name)),
        name: row.name.clone(),
        kind: RECOVERABLE_TYPE.to_owned(),
        location: Some(service.config().location.clone()),
        tags: None,
        properties: RecoverableProperties {
            last_available_backup_date: WireTime::new(
                points.map_or(earliest, |points| points.latest),
            ),
        },
    })
}
