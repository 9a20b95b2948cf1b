//! The table of routes: every path there is, and what a request to it needs.

use super::path::Parameters;
use crate::access::Action;

/// A request's method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Method {
    Get,
    Put,
    Post,
    Patch,
    Delete,
}

impl Method {
    /// All there are.
    pub const ALL: [Self; 5] = [Self::Get, Self::Put, Self::Post, Self::Patch, Self::Delete];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Put => "PUT",
            Self::Post => "POST",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }

    /// By its name.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            // An answer's body is left out by the connection.
            "GET" | "HEAD" => Some(Self::Get),
            "PUT" => Some(Self::Put),
            "POST" => Some(Self::Post),
            "PATCH" => Some(Self::Patch),
            "DELETE" => Some(Self::Delete),
            _ => None,
        }
    }
}

/// What a request needs to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing.
    Nothing,
    /// A valid token; what it may not see is left out of the answer.
    Token,
    /// A right at the scope that the path names.
    Right(Action),
    /// A right at the scope that the path names or anywhere below; what it may not see is left out.
    RightBelow(Action),
}

/// What answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the table says it")]
pub enum Endpoint {
    Health,
    Ready,
    AuthorityCertificate,
    ApiDescription,
    CloudMetadata,
    Token,
    OpenIdConfiguration,
    KeySet,
    AdfsConfiguration,
    ManagedIdentityToken,
    DirectoryObjects,
    ServicePrincipals,
    Tenants,
    Subscriptions,
    Subscription,
    ResourceGroups,
    ResourceGroup,
    Instances,
    Instance,
    Databases,
    Database,
    DatabasePut,
    DatabasePatch,
    DatabaseDelete,
    DatabaseStatus,
    DatabaseResult,
    RestoreDetails,
    RecoverableDatabases,
    RecoverableDatabase,
    DroppedDatabases,
    DroppedDatabase,
    ShortTermPolicies,
    ShortTermPolicy,
    ShortTermPolicyPut,
    DroppedShortTermPolicies,
    DroppedShortTermPolicy,
    DroppedShortTermPolicyPut,
    LongTermPolicies,
    LongTermPolicy,
    LongTermPolicyPut,
    LongTermPolicyDelete,
    LongTermBackups,
    LongTermBackup,
    LongTermBackupDelete,
    LongTermBackupHold,
    LongTermBackupRelease,
    Operations,
    Operation,
    OperationCancel,
    AsyncStatus,
    RoleDefinitions,
    RoleDefinition,
    RoleAssignments,
    RoleAssignment,
    RoleAssignmentPut,
    RoleAssignmentDelete,
}

/// A route.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// Its method.
    pub method: Method,
    /// Its path; `{name}` stands for one segment.
    pub pattern: &'static str,
    /// What answers.
    pub endpoint: Endpoint,
    /// What it needs.
    pub need: Need,
}

macro_rules! group {
    ($rest:literal) => {
        concat!(
            "/subscriptions/{subscription}/resourceGroups/{group}",
            $rest
        )
    };
}
macro_rules! instance {
    ($rest:literal) => {
        concat!(
            "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Sql/managedInstances/{instance}",
            $rest
        )
    };
}
macro_rules! database {
    ($rest:literal) => {
        concat!(
            "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Sql/managedInstances/{instance}/databases/{database}",
            $rest
        )
    };
}
/// Long-term backups of one database. A path without a resource group names no resource that rights could be
/// given on but the subscription, so its names are other ones.
macro_rules! long_term {
    (group, $rest:literal) => {
        concat!(
            "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Sql/locations/{location}/longTermRetentionManagedInstances/{instance}/longTermRetentionDatabases/{database}/longTermRetentionManagedInstanceBackups",
            $rest
        )
    };
    (subscription, $rest:literal) => {
        concat!(
            "/subscriptions/{subscription}/providers/Microsoft.Sql/locations/{location}/longTermRetentionManagedInstances/{source}/longTermRetentionDatabases/{sourceDatabase}/longTermRetentionManagedInstanceBackups",
            $rest
        )
    };
}
macro_rules! dropped {
    ($rest:literal) => {
        concat!(
            "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Sql/managedInstances/{instance}/restorableDroppedDatabases/{dropped}",
            $rest
        )
    };
}

const fn route(method: Method, pattern: &'static str, endpoint: Endpoint, need: Need) -> Route {
    Route {
        method,
        pattern,
        endpoint,
        need,
    }
}

const fn right(action: &'static str) -> Need {
    Need::Right(Action::new(action))
}

const fn below(action: &'static str) -> Need {
    Need::RightBelow(Action::new(action))
}

use Endpoint as E;
use Method::{Delete, Get, Patch, Post, Put};

const READ_ASSIGNMENTS: &str = "Microsoft.Authorization/roleAssignments/read";
const WRITE_ASSIGNMENTS: &str = "Microsoft.Authorization/roleAssignments/write";
const DELETE_ASSIGNMENTS: &str = "Microsoft.Authorization/roleAssignments/delete";
const READ_DEFINITIONS: &str = "Microsoft.Authorization/roleDefinitions/read";
const READ_INSTANCES: &str = "Microsoft.Sql/managedInstances/read";
const READ_DATABASES: &str = "Microsoft.Sql/managedInstances/databases/read";
const WRITE_DATABASES: &str = "Microsoft.Sql/managedInstances/databases/write";
const DELETE_DATABASES: &str = "Microsoft.Sql/managedInstances/databases/delete";
const READ_STATUS: &str = "Microsoft.Sql/locations/managedDatabaseAzureAsyncOperation/read";
const READ_RESULT: &str = "Microsoft.Sql/locations/managedDatabaseOperationResults/read";
const READ_DETAILS: &str = "Microsoft.Sql/managedInstances/databases/restoreDetails/read";
const READ_RECOVERABLE: &str = "Microsoft.Sql/managedInstances/recoverableDatabases/read";
const READ_DROPPED: &str = "Microsoft.Sql/managedInstances/restorableDroppedDatabases/read";
const READ_SHORT: &str =
    "Microsoft.Sql/managedInstances/databases/backupShortTermRetentionPolicies/read";
const WRITE_SHORT: &str =
    "Microsoft.Sql/managedInstances/databases/backupShortTermRetentionPolicies/write";
const READ_DROPPED_SHORT: &str = "Microsoft.Sql/managedInstances/restorableDroppedDatabases/backupShortTermRetentionPolicies/read";
const WRITE_DROPPED_SHORT: &str = "Microsoft.Sql/managedInstances/restorableDroppedDatabases/backupShortTermRetentionPolicies/write";
const READ_LONG: &str =
    "Microsoft.Sql/managedInstances/databases/backupLongTermRetentionPolicies/read";
const WRITE_LONG: &str =
    "Microsoft.Sql/managedInstances/databases/backupLongTermRetentionPolicies/write";
const DELETE_LONG: &str =
    "Microsoft.Sql/managedInstances/databases/backupLongTermRetentionPolicies/delete";
const READ_LONG_BACKUPS: &str = "Microsoft.Sql/locations/longTermRetentionManagedInstances/longTermRetentionDatabases/longTermRetentionManagedInstanceBackups/read";
const DELETE_LONG_BACKUPS: &str = "Microsoft.Sql/locations/longTermRetentionManagedInstances/longTermRetentionDatabases/longTermRetentionManagedInstanceBackups/delete";
const HOLD_LONG_BACKUPS: &str = "Microsoft.Sql/locations/longTermRetentionManagedInstances/longTermRetentionDatabases/longTermRetentionManagedInstanceBackups/setLegalHoldImmutability/action";
const RELEASE_LONG_BACKUPS: &str = "Microsoft.Sql/locations/longTermRetentionManagedInstances/longTermRetentionDatabases/longTermRetentionManagedInstanceBackups/removeLegalHoldImmutability/action";
const READ_OPERATIONS: &str = "Microsoft.Sql/managedInstances/operations/read";
const CANCEL_OPERATIONS: &str = "Microsoft.Sql/managedInstances/operations/cancel/action";

/// All routes. `Microsoft.Authorization` may stand behind every scope, so it stands here four times.
pub const ROUTES: &[Route] = &[
    route(Get, "/healthz", E::Health, Need::Nothing),
    route(Get, "/readyz", E::Ready, Need::Nothing),
    route(Get, "/ca.pem", E::AuthorityCertificate, Need::Nothing),
    route(Get, "/openapi.json", E::ApiDescription, Need::Nothing),
    route(Get, "/metadata/endpoints", E::CloudMetadata, Need::Nothing),
    route(Post, "/{tenant}/oauth2/v2.0/token", E::Token, Need::Nothing),
    route(
        Get,
        "/{tenant}/v2.0/.well-known/openid-configuration",
        E::OpenIdConfiguration,
        Need::Nothing,
    ),
    route(
        Get,
        "/{tenant}/discovery/v2.0/keys",
        E::KeySet,
        Need::Nothing,
    ),
    route(
        Get,
        "/adfs/.well-known/openid-configuration",
        E::AdfsConfiguration,
        Need::Nothing,
    ),
    route(Post, "/adfs/oauth2/token", E::Token, Need::Nothing),
    route(Get, "/adfs/discovery/keys", E::KeySet, Need::Nothing),
    route(Get, "/msi/token", E::ManagedIdentityToken, Need::Nothing),
    route(
        Post,
        "/v1.0/directoryObjects/getByIds",
        E::DirectoryObjects,
        Need::Token,
    ),
    route(
        Get,
        "/v1.0/servicePrincipals",
        E::ServicePrincipals,
        Need::Token,
    ),
    route(Get, "/tenants", E::Tenants, Need::Token),
    route(Get, "/subscriptions", E::Subscriptions, Need::Token),
    route(
        Get,
        "/subscriptions/{subscription}",
        E::Subscription,
        below("Microsoft.Resources/subscriptions/read"),
    ),
    route(
        Get,
        "/subscriptions/{subscription}/resourceGroups",
        E::ResourceGroups,
        below("Microsoft.Resources/subscriptions/resourceGroups/read"),
    ),
    route(
        Get,
        group!(""),
        E::ResourceGroup,
        below("Microsoft.Resources/subscriptions/resourceGroups/read"),
    ),
    route(
        Get,
        "/subscriptions/{subscription}/providers/Microsoft.Sql/managedInstances",
        E::Instances,
        below(READ_INSTANCES),
    ),
    route(
        Get,
        group!("/providers/Microsoft.Sql/managedInstances"),
        E::Instances,
        below(READ_INSTANCES),
    ),
    route(Get, instance!(""), E::Instance, right(READ_INSTANCES)),
    route(
        Get,
        instance!("/databases"),
        E::Databases,
        below(READ_DATABASES),
    ),
    route(Get, database!(""), E::Database, right(READ_DATABASES)),
    route(Put, database!(""), E::DatabasePut, right(WRITE_DATABASES)),
    route(
        Patch,
        database!(""),
        E::DatabasePatch,
        right(WRITE_DATABASES),
    ),
    route(
        Delete,
        database!(""),
        E::DatabaseDelete,
        right(DELETE_DATABASES),
    ),
    route(
        Get,
        "/subscriptions/{subscription}/providers/Microsoft.Sql/locations/{location}/managedDatabaseAzureAsyncOperation/{operation}",
        E::DatabaseStatus,
        below(READ_STATUS),
    ),
    route(
        Get,
        "/subscriptions/{subscription}/providers/Microsoft.Sql/locations/{location}/managedDatabaseOperationResults/{operation}",
        E::DatabaseResult,
        below(READ_RESULT),
    ),
    route(
        Get,
        database!("/restoreDetails/{details}"),
        E::RestoreDetails,
        right(READ_DETAILS),
    ),
    route(
        Get,
        instance!("/recoverableDatabases"),
        E::RecoverableDatabases,
        below(READ_RECOVERABLE),
    ),
    route(
        Get,
        instance!("/recoverableDatabases/{database}"),
        E::RecoverableDatabase,
        right(READ_RECOVERABLE),
    ),
    route(
        Get,
        instance!("/restorableDroppedDatabases"),
        E::DroppedDatabases,
        right(READ_DROPPED),
    ),
    route(Get, dropped!(""), E::DroppedDatabase, right(READ_DROPPED)),
    route(
        Get,
        database!("/backupShortTermRetentionPolicies"),
        E::ShortTermPolicies,
        right(READ_SHORT),
    ),
    route(
        Get,
        database!("/backupShortTermRetentionPolicies/{policy}"),
        E::ShortTermPolicy,
        right(READ_SHORT),
    ),
    route(
        Put,
        database!("/backupShortTermRetentionPolicies/{policy}"),
        E::ShortTermPolicyPut,
        right(WRITE_SHORT),
    ),
    route(
        Patch,
        database!("/backupShortTermRetentionPolicies/{policy}"),
        E::ShortTermPolicyPut,
        right(WRITE_SHORT),
    ),
    route(
        Get,
        dropped!("/backupShortTermRetentionPolicies"),
        E::DroppedShortTermPolicies,
        right(READ_DROPPED_SHORT),
    ),
    route(
        Get,
        dropped!("/backupShortTermRetentionPolicies/{policy}"),
        E::DroppedShortTermPolicy,
        right(READ_DROPPED_SHORT),
    ),
    route(
        Put,
        dropped!("/backupShortTermRetentionPolicies/{policy}"),
        E::DroppedShortTermPolicyPut,
        right(WRITE_DROPPED_SHORT),
    ),
    route(
        Patch,
        dropped!("/backupShortTermRetentionPolicies/{policy}"),
        E::DroppedShortTermPolicyPut,
        right(WRITE_DROPPED_SHORT),
    ),
    route(
        Get,
        database!("/backupLongTermRetentionPolicies"),
        E::LongTermPolicies,
        right(READ_LONG),
    ),
    route(
        Get,
        database!("/backupLongTermRetentionPolicies/{policy}"),
        E::LongTermPolicy,
        right(READ_LONG),
    ),
    route(
        Put,
        database!("/backupLongTermRetentionPolicies/{policy}"),
        E::LongTermPolicyPut,
        right(WRITE_LONG),
    ),
    route(
        Delete,
        database!("/backupLongTermRetentionPolicies/{policy}"),
        E::LongTermPolicyDelete,
        right(DELETE_LONG),
    ),
    route(
        Get,
        "/subscriptions/{subscription}/providers/Microsoft.Sql/locations/{location}/longTermRetentionManagedInstanceBackups",
        E::LongTermBackups,
        below(READ_LONG_BACKUPS),
    ),
    route(
        Get,
        group!(
            "/providers/Microsoft.Sql/locations/{location}/longTermRetentionManagedInstanceBackups"
        ),
        E::LongTermBackups,
        below(READ_LONG_BACKUPS),
    ),
    route(
        Get,
        "/subscriptions/{subscription}/providers/Microsoft.Sql/locations/{location}/longTermRetentionManagedInstances/{source}/longTermRetentionManagedInstanceBackups",
        E::LongTermBackups,
        below(READ_LONG_BACKUPS),
    ),
    route(
        Get,
        group!(
            "/providers/Microsoft.Sql/locations/{location}/longTermRetentionManagedInstances/{instance}/longTermRetentionManagedInstanceBackups"
        ),
        E::LongTermBackups,
        below(READ_LONG_BACKUPS),
    ),
    route(
        Get,
        long_term!(subscription, ""),
        E::LongTermBackups,
        below(READ_LONG_BACKUPS),
    ),
    route(
        Get,
        long_term!(group, ""),
        E::LongTermBackups,
        below(READ_LONG_BACKUPS),
    ),
    route(
        Get,
        long_term!(subscription, "/{backup}"),
        E::LongTermBackup,
        below(READ_LONG_BACKUPS),
    ),
    route(
        Get,
        long_term!(group, "/{backup}"),
        E::LongTermBackup,
        right(READ_LONG_BACKUPS),
    ),
    route(
        Delete,
        long_term!(subscription, "/{backup}"),
        E::LongTermBackupDelete,
        right(DELETE_LONG_BACKUPS),
    ),
    route(
        Delete,
        long_term!(group, "/{backup}"),
        E::LongTermBackupDelete,
        right(DELETE_LONG_BACKUPS),
    ),
    route(
        Post,
        long_term!(subscription, "/{backup}/setLegalHoldImmutability"),
        E::LongTermBackupHold,
        right(HOLD_LONG_BACKUPS),
    ),
    route(
        Post,
        long_term!(group, "/{backup}/setLegalHoldImmutability"),
        E::LongTermBackupHold,
        right(HOLD_LONG_BACKUPS),
    ),
    route(
        Post,
        long_term!(subscription, "/{backup}/removeLegalHoldImmutability"),
        E::LongTermBackupRelease,
        right(RELEASE_LONG_BACKUPS),
    ),
    route(
        Post,
        long_term!(group, "/{backup}/removeLegalHoldImmutability"),
        E::LongTermBackupRelease,
        right(RELEASE_LONG_BACKUPS),
    ),
    route(
        Get,
        instance!("/operations"),
        E::Operations,
        right(READ_OPERATIONS),
    ),
    route(
        Get,
        instance!("/operations/{operation}"),
        E::Operation,
        right(READ_OPERATIONS),
    ),
    route(
        Post,
        instance!("/operations/{operation}/cancel"),
        E::OperationCancel,
        right(CANCEL_OPERATIONS),
    ),
    route(
        Get,
        instance!("/operationStatuses/{operation}"),
        E::AsyncStatus,
        right(READ_OPERATIONS),
    ),
    route(
        Get,
        "/subscriptions/{subscription}/providers/Microsoft.Authorization/roleDefinitions",
        E::RoleDefinitions,
        below(READ_DEFINITIONS),
    ),
    route(
        Get,
        group!("/providers/Microsoft.Authorization/roleDefinitions"),
        E::RoleDefinitions,
        below(READ_DEFINITIONS),
    ),
    route(
        Get,
        instance!("/providers/Microsoft.Authorization/roleDefinitions"),
        E::RoleDefinitions,
        below(READ_DEFINITIONS),
    ),
    route(
        Get,
        database!("/providers/Microsoft.Authorization/roleDefinitions"),
        E::RoleDefinitions,
        below(READ_DEFINITIONS),
    ),
    route(
        Get,
        "/subscriptions/{subscription}/providers/Microsoft.Authorization/roleDefinitions/{role}",
        E::RoleDefinition,
        below(READ_DEFINITIONS),
    ),
    route(
        Get,
        "/subscriptions/{subscription}/providers/Microsoft.Authorization/roleAssignments",
        E::RoleAssignments,
        below(READ_ASSIGNMENTS),
    ),
    route(
        Get,
        group!("/providers/Microsoft.Authorization/roleAssignments"),
        E::RoleAssignments,
        below(READ_ASSIGNMENTS),
    ),
    route(
        Get,
        instance!("/providers/Microsoft.Authorization/roleAssignments"),
        E::RoleAssignments,
        below(READ_ASSIGNMENTS),
    ),
    route(
        Get,
        database!("/providers/Microsoft.Authorization/roleAssignments"),
        E::RoleAssignments,
        below(READ_ASSIGNMENTS),
    ),
    route(
        Get,
        "/subscriptions/{subscription}/providers/Microsoft.Authorization/roleAssignments/{assignment}",
        E::RoleAssignment,
        right(READ_ASSIGNMENTS),
    ),
    route(
        Put,
        "/subscriptions/{subscription}/providers/Microsoft.Authorization/roleAssignments/{assignment}",
        E::RoleAssignmentPut,
        right(WRITE_ASSIGNMENTS),
    ),
    route(
        Delete,
        "/subscriptions/{subscription}/providers/Microsoft.Authorization/roleAssignments/{assignment}",
        E::RoleAssignmentDelete,
        right(DELETE_ASSIGNMENTS),
    ),
    route(
        Get,
        group!("/providers/Microsoft.Authorization/roleAssignments/{assignment}"),
        E::RoleAssignment,
        right(READ_ASSIGNMENTS),
    ),
    route(
        Put,
        group!("/providers/Microsoft.Authorization/roleAssignments/{assignment}"),
        E::RoleAssignmentPut,
        right(WRITE_ASSIGNMENTS),
    ),
    route(
        Delete,
        group!("/providers/Microsoft.Authorization/roleAssignments/{assignment}"),
        E::RoleAssignmentDelete,
        right(DELETE_ASSIGNMENTS),
    ),
    route(
        Get,
        instance!("/providers/Microsoft.Authorization/roleAssignments/{assignment}"),
        E::RoleAssignment,
        right(READ_ASSIGNMENTS),
    ),
    route(
        Put,
        instance!("/providers/Microsoft.Authorization/roleAssignments/{assignment}"),
        E::RoleAssignmentPut,
        right(WRITE_ASSIGNMENTS),
    ),
    route(
        Delete,
        instance!("/providers/Microsoft.Authorization/roleAssignments/{assignment}"),
        E::RoleAssignmentDelete,
        right(DELETE_ASSIGNMENTS),
    ),
    route(
        Get,
        database!("/providers/Microsoft.Authorization/roleAssignments/{assignment}"),
        E::RoleAssignment,
        right(READ_ASSIGNMENTS),
    ),
    route(
        Put,
        database!("/providers/Microsoft.Authorization/roleAssignments/{assignment}"),
        E::RoleAssignmentPut,
        right(WRITE_ASSIGNMENTS),
    ),
    route(
        Delete,
        database!("/providers/Microsoft.Authorization/roleAssignments/{assignment}"),
        E::RoleAssignmentDelete,
        right(DELETE_ASSIGNMENTS),
    ),
];

/// What a request asks for and there is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Such a path.
    Path,
    /// That method on it.
    Method,
}

/// The route of a request, and what its path names.
///
/// # Errors
/// When there is none.
pub fn find(
    method: Option<Method>,
    segments: &[String],
) -> Result<(&'static Route, Parameters), Missing> {
    let mut missing = Missing::Path;
    for route in ROUTES {
        if let Some(parameters) = Parameters::of(route.pattern, segments) {
            if Some(route.method) == method {
                return Ok((route, parameters));
            }
            missing = Missing::Method;
        }
    }
    Err(missing)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_routes_are_the_same_and_no_write_goes_without_a_right() {
        let mut seen = HashSet::new();
        for route in ROUTES {
            assert!(
                seen.insert((route.method, route.pattern)),
                "{}",
                route.pattern
            );
            let reads =
                route.method == Get || matches!(route.endpoint, E::Token | E::DirectoryObjects);
            let guarded = matches!(route.need, Need::Right(_));
            assert!(reads || guarded, "{:?} {}", route.method, route.pattern);
            let below_a_subscription = route.pattern.starts_with("/subscriptions/");
            let needs_some = matches!(route.need, Need::Right(_) | Need::RightBelow(_));
            assert!(!below_a_subscription || needs_some, "{}", route.pattern);
        }
    }
}
