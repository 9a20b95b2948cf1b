//! Databases of an instance, living and deleted.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::time::WireTime;

/// The type of a database.
pub const TYPE: &str = "Microsoft.Sql/managedInstances/databases";
/// The type of a deleted database.
pub const DROPPED_TYPE: &str = "Microsoft.Sql/managedInstances/restorableDroppedDatabases";

/// What a database is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseProperties {
    /// Its collation.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub collation: Option<String>,
    /// `Online`, `Offline`, `Inaccessible`, and while things happen to it `Creating`, `Restoring`, `Updating`.
    pub status: String,
    /// When it was made.
    pub creation_date: WireTime,
    /// The earliest moment it can be restored to.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub earliest_restore_point: Option<WireTime>,
    /// The latest moment it can be restored to; an addition of ours.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub latest_restore_point: Option<WireTime>,
}

/// What a deleted database is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DroppedProperties {
    /// Its name while it lived.
    pub database_name: String,
    /// When it was made.
    pub creation_date: WireTime,
    /// When it was deleted, or found to be gone.
    pub deletion_date: WireTime,
    /// The earliest moment it can be restored to.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub earliest_restore_date: Option<WireTime>,
}
