//! Retention policies.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::time::WireTime;

/// The type of a living database's short-term policy.
pub const SHORT_TERM_TYPE: &str =
    "Microsoft.Sql/managedInstances/databases/backupShortTermRetentionPolicies";
/// The type of a deleted database's short-term policy.
pub const DROPPED_SHORT_TERM_TYPE: &str =
    "Microsoft.Sql/managedInstances/restorableDroppedDatabases/backupShortTermRetentionPolicies";
/// The type of a long-term policy.
pub const LONG_TERM_TYPE: &str =
    "Microsoft.Sql/managedInstances/databases/backupLongTermRetentionPolicies";
/// The only name such a policy has.
pub const NAME: &str = "default";

/// Short-term retention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ShortTermProperties {
    /// Days.
    pub retention_days: i64,
}

/// A wish for short-term retention.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ShortTermUpdate {
    /// It.
    pub properties: ShortTermProperties,
}

/// What a change of short-term retention would do. Azure's API has no such answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ShortTermChangeProperties {
    /// Days after the change.
    pub retention_days: i64,
    /// Days as they are.
    pub current_retention_days: i64,
    /// Nothing was changed.
    pub dry_run: bool,
    /// The first moment that could not be restored any more; none when none is lost.
    pub lost_from: Option<WireTime>,
    /// The first moment behind those.
    pub lost_to: Option<WireTime>,
    /// Backups of the instance that the next expiry would forget.
    pub forgotten_backups: Vec<String>,
    /// How many log backups it would forget.
    pub forgotten_log_backups: usize,
}

/// A wish for long-term retention. What is left out is not kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LongTermUpdate {
    /// It.
    pub properties: LongTermWish,
}

/// See [`LongTermProperties`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "they are those of the policy")]
pub struct LongTermWish {
    pub weekly_retention: Option<String>,
    pub monthly_retention: Option<String>,
    pub yearly_retention: Option<String>,
    pub week_of_year: Option<i64>,
}

/// The type of a long-term backup.
pub const LONG_TERM_BACKUP_TYPE: &str = "Microsoft.Sql/locations/longTermRetentionManagedInstances/longTermRetentionDatabases/longTermRetentionManagedInstanceBackups";

/// A long-term backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LongTermBackupProperties {
    /// The instance it was made of.
    pub managed_instance_name: String,
    /// The database.
    pub database_name: String,
    /// When the database was found to be gone, where that is known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub database_deletion_time: Option<WireTime>,
    /// The moment whose state it holds.
    pub backup_time: WireTime,
    /// When it goes; none when it stays until somebody deletes it, or while it is held.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub backup_expiration_time: Option<WireTime>,
    /// Where it is kept.
    pub backup_storage_redundancy: String,
    /// Whether nobody can delete it at the moment.
    pub is_backup_immutable: bool,
    /// `Enabled` while it is held.
    pub legal_hold_immutability: String,
}

/// Long-term retention.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LongTermProperties {
    /// How long weekly copies are kept, as an ISO 8601 duration.
    pub weekly_retention: String,
    /// How long monthly copies are kept.
    pub monthly_retention: String,
    /// How long yearly copies are kept.
    pub yearly_retention: String,
    /// The week of the yearly copy, 1 to 52; 0 for none.
    pub week_of_year: i64,
}
