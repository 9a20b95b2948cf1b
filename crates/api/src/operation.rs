//! Operations.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{error::ErrorDetail, time::WireTime};

/// The type of an instance's operation.
pub const TYPE: &str = "Microsoft.Sql/managedInstances/operations";

/// What an operation is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OperationProperties {
    /// The instance.
    pub managed_instance_name: String,
    /// What is done, as a name.
    pub operation: String,
    /// What is done, for a person.
    pub operation_friendly_name: String,
    /// 0 to 100.
    pub percent_complete: u8,
    /// When it began.
    pub start_time: WireTime,
    /// When it will probably end.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub estimated_completion_time: Option<WireTime>,
    /// `Pending`, `InProgress`, `Succeeded`, `Failed`, `CancelInProgress` or `Cancelled`.
    pub state: String,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error_code: Option<String>,
    /// The same for a person, with what to do.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error_description: Option<String>,
    /// Whether it can be cancelled now.
    pub is_cancellable: bool,
    /// Its steps, where it has several.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub operation_steps: Option<OperationSteps>,
    /// The database that it is about, of those that are about one; an addition of ours.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub managed_database_name: Option<String>,
    /// Who asked for it: a principal's id, or what of the service did it by itself; an addition of ours.
    #[serde(default)]
    pub actor: String,
    /// What is being done and how far it is; an addition of ours.
    pub progress: OperationProgress,
    /// What happened, oldest first; an addition of ours. Only of a single operation, not in lists.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub events: Vec<OperationEvent>,
}

/// How far an operation is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OperationProgress {
    /// What is being done.
    pub phase: String,
    /// Bytes of the phase that are done.
    pub done_bytes: u64,
    /// All bytes of the phase; 0 while unknown.
    pub total_bytes: u64,
    /// Bytes added to the repository.
    pub stored_bytes: u64,
    /// Bytes a second in this phase, while it runs.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub bytes_per_second: Option<u64>,
}

/// The steps of an operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OperationSteps {
    /// How many there are.
    pub total_steps: String,
    /// Which is done now, from 1 on.
    pub current_step: u32,
    /// All of them.
    pub steps_list: Vec<OperationStep>,
}

/// A step of an operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OperationStep {
    /// From 1 on.
    pub order: u32,
    /// What is done.
    pub name: String,
    /// `NotStarted`, `InProgress`, `Completed`, `Failed` or `Canceled`.
    pub status: String,
}

/// Something that happened in an operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OperationEvent {
    /// When.
    pub time: WireTime,
    /// What.
    pub message: String,
}

/// What a client that waits for an operation reads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AsyncStatus {
    /// The operation.
    pub name: String,
    /// `InProgress`, `Succeeded`, `Failed` or `Canceled`.
    pub status: String,
    /// When it began.
    pub start_time: WireTime,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub end_time: Option<WireTime>,
    /// 0 to 100.
    pub percent_complete: u8,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<ErrorDetail>,
}
