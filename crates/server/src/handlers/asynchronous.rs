//! What goes on behind an answer: how it is announced, and what a client that waits for it reads.
//!
//! These places lie beside the instances, so that whoever may change one database can follow what he asked for.

use everpoint_api::{ApiError, Code, restore::Accepted, time::WireTime};

use super::{database, operation};
use crate::{
    access::{Action, Scope},
    catalog::{DatabaseOperation, OperationKind, OperationRow, OperationState},
    http::Answer,
    service::{Caller, Service},
};

const READ: Action = Action::new("Microsoft.Sql/managedInstances/databases/read");
const STATUS: &str = "managedDatabaseAzureAsyncOperation";
const RESULT: &str = "managedDatabaseOperationResults";

/// 202, and where to ask on.
pub fn accepted(service: &Service, caller: &Caller<'_>, row: &OperationRow) -> Answer {
    let body = Accepted {
        operation: row.kind.as_str().to_owned(),
        start_time: WireTime::new(row.started_at),
    };
    Answer::json(202, &body)
        .with("azure-asyncoperation", place(service, caller, STATUS, row))
        .with("location", place(service, caller, RESULT, row))
        .with("retry-after", "1")
}

fn place(service: &Service, caller: &Caller<'_>, kind: &str, row: &OperationRow) -> String {
    let config = service.config();
    let (base, location) = (config.base_url(), &config.location);
    let instance = row.instance.parse();
    let subscription = instance.map_or(service.subscription(), |instance| {
        service.group_of(&instance).subscription_id()
    });
    let version = caller.query("api-version").unwrap_or_default();
    format!(
        "{base}/subscriptions/{subscription}/providers/Microsoft.Sql/locations/{location}/{kind}/{}?api-version={version}",
        row.id
    )
}

/// How far it is.
pub async fn status(service: &Service, caller: &Caller<'_>) -> Result<Answer, ApiError> {
    let found = known(service, caller).await?;
    Ok(operation::status_of(&found.row))
}

/// 202 while it runs; then what it has made, or why it has not.
pub async fn result(service: &Service, caller: &Caller<'_>) -> Result<Answer, ApiError> {
    let found = known(service, caller).await?;
    let row = &found.row;
    match (row.state, &row.error) {
        (OperationState::Succeeded, _) if row.kind == OperationKind::Delete => {
            Ok(Answer::empty(204))
        }
        // Who asked may have lost the right since, and another database may have the name.
        (OperationState::Succeeded, _)
            if !service.visible(caller, READ)(&scope_of(service, &found)?) =>
        {
            Err(not_found(caller))
        }
        (OperationState::Succeeded, _) => {
            database::named(service, &row.instance, &found.name).await
        }
        (_, Some((code, text))) => Err(ApiError::new(
            // It will not succeed later: no answer to be asked for again.
            Code::parse(code).unwrap_or(Code::OperationFailed),
            format!("{code}: {text}"),
        )),
        _ => Ok(accepted(service, caller, row)),
    }
}

fn not_found(caller: &Caller<'_>) -> ApiError {
    let text = caller.parameters.get("operation");
    let message = format!("there is no operation `{text}`");
    ApiError::new(Code::OperationIdNotFound, message).about(text)
}

/// The database that an operation is about.
fn scope_of(service: &Service, found: &DatabaseOperation) -> Result<Scope, ApiError> {
    let instance = found.row.instance.parse();
    let instance = instance.map_err(|_| super::not_found("instance", &found.row.instance))?;
    Ok(service.instance_scope(&instance).below(&found.name))
}

/// The operation that the path names, if whoever asks has asked for it too, or may see its database.
async fn known(service: &Service, caller: &Caller<'_>) -> Result<DatabaseOperation, ApiError> {
    let not_found = || not_found(caller);
    let text = caller.parameters.get("operation");
    let id = uuid::Uuid::try_parse(text).map_err(|_| not_found())?;
    let found = service.catalog().database_operation(id).await;
    let found = found
        .map_err(|error| super::internal(&error))?
        .ok_or_else(not_found)?;
    let own = caller
        .principal
        .is_some_and(|principal| principal.to_string() == found.row.actor);
    let scope = scope_of(service, &found).map_err(|_| not_found())?;
    if scope.subscription_id() != caller.scope.subscription_id() {
        return Err(not_found());
    }
    match own || service.visible(caller, READ)(&scope) {
        true => Ok(found),
        false => Err(not_found()),
    }
}
