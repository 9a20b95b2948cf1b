//! What each endpoint answers. Who may ask was decided before.

mod asynchronous;
mod database;
mod database_write;
mod directory;
mod discovery;
mod dropped;
mod instance;
mod long_term;
mod managed_identity;
mod operation;
mod recoverable;
mod restore;
mod retention;
mod role;
mod sign_in;
mod token;

use std::error::Error;

use everpoint_api::{ApiError, Code, List};
use serde::Serialize;
use url::form_urlencoded::Serializer;

use crate::{
    http::{Answer, Endpoint},
    service::{Caller, Service},
};

/// Answers a request that may be answered.
///
/// # Errors
/// With the code that is sent.
pub async fn answer(
    service: &Service,
    endpoint: Endpoint,
    caller: &Caller<'_>,
) -> Result<Answer, ApiError> {
    match endpoint {
        Endpoint::Health => Ok(Answer::plain(200, "text/plain", "ok\n")),
        Endpoint::Ready => Ok(discovery::ready(service).await),
        Endpoint::AuthorityCertificate => discovery::authority(service),
        Endpoint::ApiDescription => Ok(Answer::ok(&crate::http::openapi::document())),
        Endpoint::CloudMetadata => Ok(discovery::cloud(service, caller)),
        Endpoint::Token => Ok(token::token(service, caller).await),
        Endpoint::ManagedIdentityToken => Ok(managed_identity::token(service, caller).await),
        Endpoint::AdfsConfiguration => Ok(token::adfs(service)),
        Endpoint::DirectoryObjects => directory::by_ids(service, caller),
        Endpoint::ServicePrincipals => directory::service_principals(service, caller),
        Endpoint::OpenIdConfiguration => token::openid(service, caller),
        Endpoint::KeySet => token::key_set(service, caller),
        Endpoint::Tenants => Ok(discovery::tenants(service)),
        Endpoint::Subscriptions => Ok(discovery::subscriptions(service, caller)),
        Endpoint::Subscription => Ok(discovery::subscription(service, caller)),
        Endpoint::ResourceGroups => Ok(discovery::groups(service, caller)),
        Endpoint::ResourceGroup => Ok(discovery::group(service, caller)),
        Endpoint::Instances => instance::list(service, caller),
        Endpoint::Instance => instance::get(service, caller),
        Endpoint::Databases => database::list(service, caller).await,
        Endpoint::Database => database::get(service, caller).await,
        Endpoint::DatabasePut => database_write::put(service, caller).await,
        Endpoint::DatabasePatch => database_write::patch(service, caller).await,
        Endpoint::DatabaseDelete => database_write::delete(service, caller).await,
        Endpoint::DatabaseStatus => asynchronous::status(service, caller).await,
        Endpoint::DatabaseResult => asynchronous::result(service, caller).await,
        Endpoint::RestoreDetails => restore::get_details(service, caller).await,
        Endpoint::RecoverableDatabases => recoverable::list(service, caller).await,
        Endpoint::RecoverableDatabase => recoverable::get(service, caller).await,
        Endpoint::DroppedDatabases => dropped::list(service, caller).await,
        Endpoint::DroppedDatabase => dropped::get(service, caller).await,
        Endpoint::ShortTermPolicies => retention::short_list(service, caller).await,
        Endpoint::ShortTermPolicy => retention::short_get(service, caller).await,
        Endpoint::ShortTermPolicyPut => retention::short_put(service, caller).await,
        Endpoint::DroppedShortTermPolicies => retention::dropped_list(service, caller).await,
        Endpoint::DroppedShortTermPolicy => retention::dropped_get(service, caller).await,
        Endpoint::DroppedShortTermPolicyPut => retention::dropped_put(service, caller).await,
        Endpoint::LongTermPolicies => long_term::policies(service, caller).await,
        Endpoint::LongTermPolicy => long_term::get_policy(service, caller).await,
        Endpoint::LongTermPolicyPut => long_term::put_policy(service, caller).await,
        Endpoint::LongTermPolicyDelete => long_term::delete_policy(service, caller).await,
        Endpoint::LongTermBackups => long_term::backups(service, caller).await,
        Endpoint::LongTermBackup => long_term::get_backup(service, caller).await,
        Endpoint::LongTermBackupHold => long_term::hold_backup(service, caller).await,
        Endpoint::LongTermBackupRelease => long_term::release_backup(service, caller).await,
        Endpoint::LongTermBackupDelete => long_term::delete_backup(service, caller).await,
        Endpoint::Operations => operation::list(service, caller).await,
        Endpoint::Operation => operation::get(service, caller).await,
        Endpoint::OperationCancel => operation::cancel(service, caller).await,
        Endpoint::AsyncStatus => operation::status(service, caller).await,
        Endpoint::RoleDefinitions => role::definitions(caller),
        Endpoint::RoleDefinition => role::definition(caller),
        Endpoint::RoleAssignments => role::assignments(service, caller),
        Endpoint::RoleAssignment => role::assignment(service, caller),
        Endpoint::RoleAssignmentPut => role::put(service, caller).await,
        Endpoint::RoleAssignmentDelete => role::delete(service, caller).await,
    }
}

/// Something of the service failed: the log has it whole, the client learns where to look.
pub fn internal(error: &dyn Error) -> ApiError {
    let reference = uuid::Uuid::new_v4();
    tracing::error!(%reference, error = %crate::chain(error), "a request failed");
    let text = format!("the service failed. Its log says why, at reference {reference}");
    ApiError::new(Code::InternalServerError, text)
}

pub(crate) fn not_found(what: &str, name: &str) -> ApiError {
    ApiError::new(
        Code::ResourceNotFound,
        format!("there is no {what} `{name}`"),
    )
    .about(name)
}

/// The page of a list that the query asks for.
fn page<T: Serialize>(
    service: &Service,
    caller: &Caller<'_>,
    all: Vec<T>,
) -> Result<Answer, ApiError> {
    let skip = match caller.query("$skip") {
        None => 0,
        Some(text) => text.parse().map_err(|_| {
            let message = format!("`{text}` is no number of items to skip");
            ApiError::new(Code::InvalidParameterValue, message).about("$skip")
        })?,
    };
    let link = |next| link(service, caller, &[("$skip", next)]);
    Ok(Answer::ok(&List::page(all, skip, link)))
}

/// The same request once more, with other numbers in its query.
fn link(service: &Service, caller: &Caller<'_>, numbers: &[(&str, usize)]) -> String {
    let mut query = Serializer::new(String::new());
    let is_replaced = |name: &str| {
        let mut replaced = numbers.iter().map(|(other, _)| other);
        replaced.any(|other| other.eq_ignore_ascii_case(name))
    };
    for (name, value) in caller.query.iter().filter(|(name, _)| !is_replaced(name)) {
        query.append_pair(name, value);
    }
    for (name, number) in numbers {
        query.append_pair(name, &number.to_string());
    }
    let base = service.config().base_url();
    format!("{base}{}?{}", caller.path, query.finish())
}
