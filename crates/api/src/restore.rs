//! Restores: what is asked for, and what is told of one while and after it runs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::time::WireTime;

/// The type of a restore's details.
pub const DETAILS_TYPE: &str = "Microsoft.Sql/managedInstances/databases/restoreDetails";
/// The type of a database of which there are backups elsewhere.
pub const RECOVERABLE_TYPE: &str = "Microsoft.Sql/managedInstances/recoverableDatabases";

/// The body of a request that makes, restores or updates a database. What is not known is not looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DatabaseRequest {
    /// How it is to be made.
    pub properties: Option<DatabaseRequestProperties>,
    /// Names and values to put on it, instead of those it has.
    pub tags: Option<BTreeMap<String, String>>,
}

/// How a database is to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the published names say it")]
pub struct DatabaseRequestProperties {
    pub create_mode: Option<String>,
    pub collation: Option<String>,
    pub restore_point_in_time: Option<String>,
    pub source_database_id: Option<String>,
    pub restorable_dropped_database_id: Option<String>,
    pub recoverable_database_id: Option<String>,
    pub long_term_retention_backup_resource_id: Option<String>,
    pub cross_subscription_source_database_id: Option<String>,
    pub cross_subscription_restorable_dropped_database_id: Option<String>,
    pub cross_subscription_target_managed_instance_id: Option<String>,
}

/// What is told of a restore.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestoreDetails {
    /// What kind of a restore it is.
    #[serde(rename = "type")]
    pub kind: String,
    /// Where it stands.
    pub status: String,
    /// Why it does not go on, when it waits.
    pub block_reason: Option<String>,
    /// 0 to 100.
    pub percent_completed: u8,
    /// How much is restored.
    #[serde(rename = "currentRestoredSizeMB")]
    pub current_restored_size_mb: u64,
    /// How much there is to restore.
    #[serde(rename = "currentRestorePlanSizeMB")]
    pub current_restore_plan_size_mb: u64,
    /// Which backups are being restored now: `Full`, `Diff` or `Log`.
    pub current_backup_type: Option<String>,
    /// The backup that is being restored now.
    pub current_restoring_file_name: Option<String>,
    /// The backup that was restored last.
    pub last_restored_file_name: Option<String>,
    /// When that was.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_restored_file_time: Option<WireTime>,
    /// Backups that the restore is made of.
    pub number_of_files_detected: u64,
    /// Of these: not begun.
    pub number_of_files_queued: u64,
    /// Of these: left out.
    pub number_of_files_skipped: u64,
    /// Of these: being restored.
    pub number_of_files_restoring: u64,
    /// Of these: restored.
    pub number_of_files_restored: u64,
    /// Of these: not to be restored.
    pub number_of_files_unrestorable: u64,
    /// The full backup.
    pub full_backup_sets: Vec<BackupSet>,
    /// The differential on it.
    pub diff_backup_sets: Vec<BackupSet>,
    /// Log backups behind these, at most [`MAX_LOG_SETS`] of them.
    pub log_backup_sets: Vec<BackupSet>,
    /// Backups that are not to be restored.
    pub unrestorable_files: Vec<serde_json::Value>,
}

/// The most log backups that a restore's details list; the numbers count all.
pub const MAX_LOG_SETS: usize = 1000;

/// A backup that is restored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupSet {
    /// `Queued`, `Restoring`, `Restored`.
    pub status: String,
    /// Its name.
    pub first_stripe_name: String,
    /// Of how many parts it is.
    pub number_of_stripes: u32,
    /// How large it is.
    #[serde(rename = "backupSizeMB")]
    pub backup_size_mb: u64,
    /// When its restore began.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub restore_started_timestamp_utc: Option<WireTime>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub restore_finished_timestamp_utc: Option<WireTime>,
}

/// What is told of a database that can be restored elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecoverableProperties {
    /// Up to when it can be restored.
    pub last_available_backup_date: WireTime,
}

/// What a request is answered with that goes on behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Accepted {
    /// What is done.
    pub operation: String,
    /// Since when.
    pub start_time: WireTime,
}
