//! Operations.

use everpoint_api::{
    ApiError, Code, Resource,
    error::ErrorDetail,
    operation::{AsyncStatus, OperationEvent, OperationProgress, OperationProperties, TYPE},
    time::WireTime,
};
use jiff::{SignedDuration, Timestamp};

use super::instance;
use crate::{
    catalog::{EventRow, OperationRow, OperationState},
    http::Answer,
    service::{Caller, Service, percent, steps},
};

pub async fn list(service: &Service, caller: &Caller<'_>) -> Result<Answer, ApiError> {
    let observed = instance::known(service, caller)?;
    let rows = service.catalog().operations(&observed.name).await;
    let rows = rows.map_err(|error| super::internal(&error))?;
    let names = service.catalog().operation_names(&observed.name).await;
    let names = names.map_err(|error| super::internal(&error))?;
    let seen = rows
        .iter()
        .map(|row| {
            let name = names.get(&row.id).map(String::as_str);
            resource(service, caller, row, name, &[])
        })
        .collect();
    super::page(service, caller, seen)
}

pub async fn get(service: &Service, caller: &Caller<'_>) -> Result<Answer, ApiError> {
    let (row, events) = known(service, caller).await?;
    let about = service.catalog().database_operation(row.id).await;
    let about = about.map_err(|error| super::internal(&error))?;
    let name = about.as_ref().map(|about| about.name.as_str());
    Ok(Answer::ok(&resource(service, caller, &row, name, &events)))
}

pub async fn cancel(service: &Service, caller: &Caller<'_>) -> Result<Answer, ApiError> {
    let (row, _) = known(service, caller).await?;
    service
        .cancel_asked(&row, super::database_write::actor(caller)?)
        .await?;
    Ok(Answer::empty(200))
}

pub async fn status(service: &Service, caller: &Caller<'_>) -> Result<Answer, ApiError> {
    let (row, _) = known(service, caller).await?;
    Ok(status_of(&row))
}

/// What a client that waits for an operation reads.
pub fn status_of(row: &OperationRow) -> Answer {
    let error = row.error.as_ref().map(|(code, message)| ErrorDetail {
        code: code.clone(),
        message: message.clone(),
        target: None,
        details: Vec::new(),
        additional_info: Vec::new(),
    });
    let status = match row.state {
        OperationState::Pending | OperationState::InProgress | OperationState::CancelInProgress => {
            "InProgress"
        }
        OperationState::Succeeded => "Succeeded",
        OperationState::Failed => "Failed",
        OperationState::Cancelled => "Canceled",
    };
    let body = AsyncStatus {
        name: row.id.to_string(),
        status: status.to_owned(),
        start_time: WireTime::new(row.started_at),
        end_time: row.ended_at.map(WireTime::new),
        percent_complete: percent(row),
        error,
    };
    let answer = Answer::ok(&body);
    match row.ended_at {
        None => answer.with("retry-after", "1"),
        Some(_) => answer,
    }
}

async fn known(
    service: &Service,
    caller: &Caller<'_>,
) -> Result<(OperationRow, Vec<EventRow>), ApiError> {
    let observed = instance::known(service, caller)?;
    let text = caller.parameters.get("operation");
    let not_found = || {
        let message = format!("there is no operation `{text}`");
        ApiError::new(Code::OperationIdNotFound, message).about(text)
    };
    let id = uuid::Uuid::try_parse(text).map_err(|_| not_found())?;
    let found = service.catalog().operation(id).await;
    found
        .map_err(|error| super::internal(&error))?
        .filter(|(row, _)| row.instance == observed.name.as_str())
        .ok_or_else(not_found)
}

/// As long as the rest takes at the rate so far: of what runs here by its pace, else by its bytes.
fn estimate(service: &Service, row: &OperationRow, now: Timestamp) -> Option<Timestamp> {
    if row.ended_at.is_some() || row.state == OperationState::Pending {
        return None;
    }
    if let Some(pace) = service.pace(row.id) {
        return now.checked_add(pace.rest(percent(row))?).ok();
    }
    if row.done_bytes == 0 || row.total_bytes <= row.done_bytes {
        return None;
    }
    let seconds = u128::try_from(now.duration_since(row.started_at).as_secs()).ok()?;
    let rest = u128::from(row.total_bytes - row.done_bytes);
    let rest_s = seconds * rest / u128::from(row.done_bytes);
    now.checked_add(SignedDuration::from_secs(i64::try_from(rest_s).ok()?))
        .ok()
}

fn resource(
    service: &Service,
    caller: &Caller<'_>,
    row: &OperationRow,
    database: Option<&str>,
    events: &[EventRow],
) -> Resource<OperationProperties> {
    let (code, text) = row.error.clone().unzip();
    let id = row.id.to_string();
    Resource {
        id: format!("{}/operations/{id}", caller.scope),
        name: id,
        kind: TYPE.to_owned(),
        location: None,
        tags: None,
        properties: OperationProperties {
            managed_instance_name: row.instance.clone(),
            operation: row.kind.as_str().to_owned(),
            operation_friendly_name: row.kind.friendly().to_owned(),
            percent_complete: percent(row),
            start_time: WireTime::new(row.started_at),
            estimated_completion_time: estimate(service, row, Timestamp::now()).map(WireTime::new),
            state: row.state.as_str().to_owned(),
            error_code: code,
            error_description: text,
            is_cancellable: service.may_cancel(row),
            operation_steps: steps(row),
            managed_database_name: database.map(str::to_owned),
            actor: row.actor.clone(),
            progress: OperationProgress {
                phase: row.phase.clone(),
                done_bytes: row.done_bytes,
                total_bytes: row.total_bytes,
                stored_bytes: row.stored_bytes,
                bytes_per_second: service
                    .pace(row.id)
                    .and_then(|pace| pace.bytes_per_second()),
            },
            events: events
                .iter()
                .map(|event| OperationEvent {
                    time: WireTime::new(event.time),
                    message: event.message.clone(),
                })
                .collect(),
        },
    }
}
