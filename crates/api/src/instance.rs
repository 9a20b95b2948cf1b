//! Managed instances.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The type of an instance.
pub const TYPE: &str = "Microsoft.Sql/managedInstances";

/// What an instance is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct InstanceProperties {
    /// `Succeeded`: there is no provisioning, an instance is there or is not.
    pub provisioning_state: String,
    /// `Ready`, or `Stopped` when its server cannot be reached.
    pub state: String,
    /// Where its server is reached.
    pub fully_qualified_domain_name: String,
    /// As whom.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub administrator_login: Option<String>,
    /// PostgreSQL's version, such as `18.6`; an addition of ours.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub server_version: Option<String>,
    /// The cluster's identifier; an addition of ours.
    pub system_identifier: String,
    /// `Local`: copies lie in one repository.
    pub requested_backup_storage_redundancy: String,
    /// The same.
    pub current_backup_storage_redundancy: String,
}
