//! Retention policies.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

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
