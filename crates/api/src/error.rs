//! Errors, by their published codes.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A published code and the HTTP status it goes with.
macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $status:literal,)*) => {
        /// The codes of refusals and failures.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code {
            $($(#[$doc])* $name,)*
        }

        impl Code {
            /// All there are.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// As it is sent.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }

            /// The code of this name.
            pub fn parse(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|code| code.as_str() == name)
            }

            /// The status of an answer that carries it.
            pub const fn status(self) -> u16 {
                match self {
                    $(Self::$name => $status,)*
                }
            }
        }
    };
}

codes! {
    /// The path names nothing there is.
    ResourceNotFound = 404,
    /// No such path at all.
    InvalidResourceType = 404,
    /// The subscription is another one.
    SubscriptionNotFound = 404,
    /// There is no such resource group.
    ResourceGroupNotFound = 404,
    /// There is no such operation.
    OperationIdNotFound = 404,
    /// There is no such role.
    RoleDefinitionDoesNotExist = 400,
    /// There is no such principal.
    PrincipalNotFound = 400,
    /// The same role is assigned there already.
    RoleAssignmentExists = 409,
    /// The same name is taken by another assignment.
    RoleAssignmentUpdateNotPermitted = 409,
    /// Nobody may be left without an owner.
    LastOwnerAssignment = 409,
    /// No valid token came with the request.
    AuthenticationFailed = 401,
    /// The principal may not do this here.
    AuthorizationFailed = 403,
    /// The path has no such method.
    MethodNotAllowed = 405,
    /// There is no `api-version`.
    MissingApiVersionParameter = 400,
    /// The `api-version` is none.
    InvalidApiVersionParameter = 400,
    /// The body is no JSON, or not of this kind.
    InvalidRequestContent = 400,
    /// The body is too large.
    RequestTooLarge = 413,
    /// Too many requests in too short a time.
    TooManyRequests = 429,
    /// A parameter is not what it may be.
    InvalidParameterValue = 400,
    /// The retention is out of its range.
    InvalidBackupRetentionPeriod = 400,
    /// A database of that name is there.
    ManagedDatabaseNameInUse = 400,
    /// The name is the server's own, or the service's.
    CannotUseReservedDatabaseName = 400,
    /// The name ends with white space.
    CannotUseTrailingWhitespacesInDatabaseName = 400,
    /// The point lies outside of what can be restored.
    PitrPointInTimeInvalid = 400,
    /// There is no point.
    MissingRestorePointInTime = 400,
    /// There is no source.
    MissingSourceDatabaseId = 400,
    /// The source's identifier is none.
    InvalidSourceDatabaseId = 400,
    /// The deleted database's identifier is none.
    InvalidRestorableDroppedDatabaseId = 400,
    /// There are two sources.
    RestorableDroppedDatabaseIdGivenForRestoreWithSourceDatabaseId = 400,
    /// There is no such source.
    RestoreSourceDatabaseNotFound = 404,
    /// No backup holds it.
    BackupSetNotFound = 404,
    /// There is no full backup.
    FullBackupNotFound = 404,
    /// Log is missing on the way.
    BrokenRestorePlanGapInLogBackups = 400,
    /// The full backup is damaged.
    FullBackupDamaged = 400,
    /// Pages in the backup are damaged.
    CorruptedPagesInBackupSet = 400,
    /// The target has no room.
    NoMoreSpaceInManagedInstance = 400,
    /// The operation failed; its own code is in the message.
    OperationFailed = 409,
    /// The operation was cancelled.
    OperationCancelled = 409,
    /// The service ended while the operation ran.
    OperationInterrupted = 500,
    /// The instance's server does not answer.
    InstanceNotReachable = 503,
    /// There is no such long-term backup.
    LTRBackupNotExists = 404,
    /// The long-term backup is held and stays.
    LongTermBackupHeld = 409,
    /// Another operation changes the database.
    ConflictingDatabaseOperation = 409,
    /// The operation cannot be cancelled, or not any more.
    CannotCancelOperation = 409,
    /// This build does not do that.
    ManagementServiceFeatureDisabled = 400,
    /// Something of the service failed.
    InternalServerError = 500,
    /// The service cannot answer now.
    ServiceUnavailable = 503,
}

/// An error as it is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// It.
    pub error: ErrorDetail,
}

/// What is told of an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ErrorDetail {
    /// Its code.
    pub code: String,
    /// What happened and what to do.
    pub message: String,
    /// What it is about.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub target: Option<String>,
    /// More of them.
    #[serde(default)]
    #[schema(no_recursion)]
    pub details: Vec<ErrorDetail>,
    /// More about it.
    #[serde(default)]
    pub additional_info: Vec<serde_json::Value>,
}

/// A refusal or failure with its code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", code.as_str())]
pub struct ApiError {
    /// Its code.
    pub code: Code,
    /// What happened and what to do.
    pub message: String,
    /// What it is about.
    pub target: Option<String>,
}

impl ApiError {
    /// An error that is about nothing in particular.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            target: None,
        }
    }

    /// The same, about `target`.
    #[must_use]
    pub fn about(mut self, target: impl Into<String>) -> Self {
        self.target = Some(target.into());
        self
    }

    /// As it is sent.
    pub fn body(&self) -> ErrorBody {
        ErrorBody {
            error: ErrorDetail {
                code: self.code.as_str().to_owned(),
                message: self.message.clone(),
                target: self.target.clone(),
                details: Vec::new(),
                additional_info: Vec::new(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_sent_in_the_published_shape() {
        let error = ApiError::new(Code::ResourceNotFound, "no such database").about("app");
        let text = serde_json::to_string(&error.body()).unwrap();
        let expected = r#"{"error":{"code":"ResourceNotFound","message":"no such database","target":"app","details":[],"additionalInfo":[]}}"#;
        assert_eq!(text, expected);
        assert!(
            Code::ALL
                .iter()
                .all(|code| (400..=599).contains(&code.status()))
        );
    }
}
