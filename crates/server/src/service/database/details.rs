//! What a restore is made of, kept for as long as its operation is.

use std::{convert::Infallible, time::Duration};

use everpoint_api::{
    restore::{BackupSet, MAX_LOG_SETS, RestoreDetails},
    time::WireTime,
};
use everpoint_engine::database::{DatabasePlan, state::State};
use everpoint_repository::backup::{Backup, BackupKind};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    progress::{percent, state_of},
    work::Teller,
};
use crate::{
    catalog::{DatabaseOperation, DatabaseRequest, OperationId, OperationState, RestoreSource},
    service::Service,
};

/// How often it is looked whether a state began.
const LOOK: Duration = Duration::from_millis(200);

/// What is kept of a restore.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Kept {
    full: Option<Set>,
    differential: Option<Set>,
    /// The first of them, in their order.
    logs: Vec<Set>,
    /// How many there are.
    log_count: u64,
    file_bytes: u64,
    log_bytes: u64,
    fetching: Span,
    recovering: Span,
}

/// From when to when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Span {
    from: Option<Timestamp>,
    to: Option<Timestamp>,
}

/// A backup.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Set {
    name: String,
    bytes: u64,
    /// Of log: by how many bytes of it this one ends.
    until: u64,
}

impl Kept {
    /// What a plan is made of.
    pub(super) fn of(plan: &DatabasePlan) -> Self {
        let resolved = &plan.chosen.resolved;
        let set = |backup: &Backup| Set {
            name: backup.id.to_string(),
            bytes: backup.totals.stored_bytes,
            until: 0,
        };
        let (full, differential) = match resolved.backup.kind {
            BackupKind::Full => (Some(set(&resolved.backup)), None),
            BackupKind::Differential { .. } => (plan.base().map(set), Some(set(&resolved.backup))),
        };
        let begin = resolved
            .backup
            .segment_size
            .floor(resolved.backup.start_lsn);
        let pieces = plan.log_pieces();
        Self {
            full,
            differential,
            logs: pieces
                .iter()
                .take(MAX_LOG_SETS)
                .map(|piece| Set {
                    name: piece.stretch.id.to_string(),
                    bytes: piece.stretch.stored_bytes,
                    until: piece.to.bytes_since(begin),
                })
                .collect(),
            log_count: u64::try_from(pieces.len()).unwrap_or(u64::MAX),
            file_bytes: plan.file_bytes(),
            log_bytes: plan.log_bytes(),
            fetching: Span::default(),
            recovering: Span::default(),
        }
    }

    /// Notes when a state began. Returns whether that says anything new.
    pub(super) fn enter(&mut self, state: State, now: Timestamp) -> bool {
        let before = self.clone();
        let since = |place: &mut Option<Timestamp>| {
            place.get_or_insert(now);
        };
        if state >= State::Fetching {
            since(&mut self.fetching.from);
        }
        if state >= State::Recovering {
            since(&mut self.fetching.to);
            since(&mut self.recovering.from);
        }
        if state >= State::Moving {
            since(&mut self.recovering.to);
        }
        *self != before
    }
}

impl Service {
    pub(super) async fn keep_details(&self, id: OperationId, kept: &Kept) {
        let text = serde_json::to_string(kept).unwrap_or_default();
        if let Err(error) = self.catalog.set_details(id, &text).await {
            tracing::warn!(error = %crate::chain(&error), "the catalog failed");
        }
    }

    /// Keeps noting when states begin. Does not end.
    pub(super) async fn keep_noting(
        &self,
        id: OperationId,
        kept: &mut Kept,
        teller: &Teller,
    ) -> Infallible {
        loop {
            if let Some(state) = teller.state()
                && kept.enter(state, Timestamp::now())
            {
                self.keep_details(id, kept).await;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

const MIB: u64 = 1 << 20;

/// Whole MiB, and at least one of what is not empty.
fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(MIB)
}

/// What is told of a restore.
pub fn details(operation: &DatabaseOperation, kept: Option<&str>) -> RestoreDetails {
    let kept: Kept = kept
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default();
    let row = &operation.row;
    let state = match row.state {
        OperationState::Succeeded => State::Online,
        _ => state_of(&row.phase).unwrap_or(State::Queued),
    };
    let done = |span: &Span| span.to.is_some() || row.state == OperationState::Succeeded;
    let files_done = match (state, done(&kept.fetching)) {
        (_, true) => kept.file_bytes,
        (State::Fetching, false) => row.done_bytes.min(kept.file_bytes),
        _ => 0,
    };
    let logs_done = match (state, done(&kept.recovering)) {
        (_, true) => kept.log_bytes,
        (State::Recovering, false) => row.done_bytes.min(kept.log_bytes),
        _ => 0,
    };
    let backups = |set: &Option<Set>| -> Vec<BackupSet> {
        let status = status(&kept.fetching, done(&kept.fetching));
        set.iter()
            .map(|set| described(set, status, &kept.fetching))
            .collect()
    };
    let (full_backup_sets, diff_backup_sets) = (backups(&kept.full), backups(&kept.differential));
    let mut log_backup_sets = Vec::with_capacity(kept.logs.len());
    let mut from = 0;
    for set in &kept.logs {
        let status = match kept.recovering.from {
            _ if done(&kept.recovering) || set.until <= logs_done && logs_done > 0 => "Restored",
            Some(_) if from <= logs_done => "Restoring",
            _ => "Queued",
        };
        from = set.until;
        log_backup_sets.push(described(set, status, &kept.recovering));
    }
    let all = || {
        full_backup_sets
            .iter()
            .chain(&diff_backup_sets)
            .chain(&log_backup_sets)
    };
    let number = |wanted: &str| -> u64 {
        u64::try_from(all().filter(|set| set.status == wanted).count()).unwrap_or(u64::MAX)
    };
    let base = |set: &Option<Set>| u64::from(set.is_some());
    let detected = base(&kept.full) + base(&kept.differential) + kept.log_count;
    // Those that are not listed come last.
    let unlisted = kept
        .log_count
        .saturating_sub(u64::try_from(kept.logs.len()).unwrap_or(0));
    let restored = number("Restored") + if done(&kept.recovering) { unlisted } else { 0 };
    let restoring = number("Restoring");
    let named = |wanted: &str| -> Vec<String> {
        all()
            .filter(|set| set.status == wanted)
            .map(|set| set.first_stripe_name.clone())
            .collect()
    };
    RestoreDetails {
        kind: kind_of(operation).to_owned(),
        status: match row.state {
            OperationState::Pending => "Queued".to_owned(),
            OperationState::InProgress => state.to_string(),
            OperationState::CancelInProgress => "Cancelling".to_owned(),
            OperationState::Succeeded => "Completed".to_owned(),
            other => other.as_str().to_owned(),
        },
        block_reason: match (row.state, &row.error) {
            (OperationState::Pending, _) => {
                Some("waits for its turn: as many restores run as may at once".to_owned())
            }
            (_, Some((code, text))) => Some(format!("{code}: {text}")),
            _ => None,
        },
        percent_completed: percent(row),
        current_restored_size_mb: mib(files_done + logs_done),
        current_restore_plan_size_mb: mib(kept.file_bytes + kept.log_bytes),
        current_backup_type: match state {
            State::Fetching if kept.differential.is_some() => Some("Diff".to_owned()),
            State::Fetching => Some("Full".to_owned()),
            State::Recovering => Some("Log".to_owned()),
            _ => None,
        },
        current_restoring_file_name: named("Restoring").into_iter().next(),
        last_restored_file_name: named("Restored").pop(),
        last_restored_file_time: kept.recovering.to.or(kept.fetching.to).map(WireTime::new),
        number_of_files_detected: detected,
        number_of_files_queued: detected.saturating_sub(restored + restoring),
        number_of_files_skipped: 0,
        number_of_files_restoring: restoring,
        number_of_files_restored: restored,
        number_of_files_unrestorable: 0,
        full_backup_sets,
        diff_backup_sets,
        log_backup_sets,
        unrestorable_files: Vec::new(),
    }
}

fn status(span: &Span, done: bool) -> &'static str {
    match span.from {
        _ if done => "Restored",
        Some(_) => "Restoring",
        None => "Queued",
    }
}

fn described(set: &Set, status: &str, span: &Span) -> BackupSet {
    let begun = span.from.filter(|_| status != "Queued");
    let ended = span.to.filter(|_| status == "Restored");
    BackupSet {
        status: status.to_owned(),
        first_stripe_name: set.name.clone(),
        number_of_stripes: 1,
        backup_size_mb: mib(set.bytes),
        restore_started_timestamp_utc: begun.map(WireTime::new),
        restore_finished_timestamp_utc: ended.map(WireTime::new),
    }
}

/// As the request named it.
fn kind_of(operation: &DatabaseOperation) -> &'static str {
    match &operation.request {
        DatabaseRequest::Restore(request) => match (&request.source, request.point) {
            (RestoreSource::LongTerm { .. }, _) => "RestoreLongTermRetentionBackup",
            (RestoreSource::Living { .. }, None) => "Recovery",
            _ => "PointInTimeRestore",
        },
        _ => "Default",
    }
}

#[cfg(test)]
mod tests {
    use everpoint_repository::InstanceName;
    use uuid::Uuid;

    use super::*;
    use crate::catalog::{
        DatabaseRequest, OperationKind, OperationRow, RestoreRequest, RestoreSource, Tags,
    };

    fn operation(state: OperationState, phase: &str, done: u64) -> DatabaseOperation {
        DatabaseOperation {
            row: OperationRow {
                id: Uuid::nil(),
                kind: OperationKind::Restore,
                instance: "one".to_owned(),
                actor: String::new(),
                state,
                phase: phase.to_owned(),
                total_bytes: 0,
                done_bytes: done,
                stored_bytes: 0,
                started_at: Timestamp::UNIX_EPOCH,
                ended_at: None,
                error: None,
            },
            name: "app".to_owned(),
            request: DatabaseRequest::Restore(RestoreRequest {
                instance: "one".parse::<InstanceName>().unwrap(),
                source: RestoreSource::Living {
                    oid: Some(5),
                    name: "app".to_owned(),
                },
                point: None,
            }),
            tags: Tags::default(),
            attempts: 1,
            server: String::new(),
            made: None,
            holds: true,
        }
    }

    fn kept(state: State) -> String {
        let set = |name: &str, until| Set {
            name: name.to_owned(),
            bytes: 5 * MIB,
            until,
        };
        let mut kept = Kept {
            full: Some(set("full", 0)),
            differential: Some(set("diff", 0)),
            logs: vec![set("a", 10 * MIB), set("b", 20 * MIB), set("c", 30 * MIB)],
            log_count: 3,
            file_bytes: 100 * MIB,
            log_bytes: 30 * MIB,
            ..Kept::default()
        };
        for began in [
            State::Fetching,
            State::Recovering,
            State::Moving,
            State::Online,
        ] {
            if began <= state {
                kept.enter(began, Timestamp::UNIX_EPOCH);
            }
        }
        serde_json::to_string(&kept).unwrap()
    }

    fn numbers(details: &RestoreDetails) -> (u64, u64, u64, u64) {
        (
            details.number_of_files_detected,
            details.number_of_files_queued,
            details.number_of_files_restoring,
            details.number_of_files_restored,
        )
    }

    #[test]
    fn the_details_follow_the_restore_from_the_queue_to_its_end() {
        let queued = details(&operation(OperationState::Pending, "queued", 0), None);
        assert_eq!(
            (queued.status.as_str(), numbers(&queued)),
            ("Queued", (0, 0, 0, 0))
        );
        assert!(queued.block_reason.is_some());
        let running = OperationState::InProgress;
        let text = kept(State::Fetching);
        let fetching = details(&operation(running, "Fetching", 40 * MIB), Some(&text));
        assert_eq!(numbers(&fetching), (5, 3, 2, 0));
        assert_eq!(fetching.current_restored_size_mb, 40);
        assert_eq!(fetching.current_restore_plan_size_mb, 130);
        assert_eq!(fetching.current_backup_type.as_deref(), Some("Diff"));
        let text = kept(State::Recovering);
        let replaying = details(&operation(running, "Recovering", 12 * MIB), Some(&text));
        assert_eq!(numbers(&replaying), (5, 1, 1, 3));
        assert_eq!(replaying.current_restoring_file_name.as_deref(), Some("b"));
        assert_eq!(replaying.current_restored_size_mb, 112);
        let text = kept(State::Online);
        let done = details(
            &operation(OperationState::Succeeded, "Online", 0),
            Some(&text),
        );
        assert_eq!(
            (done.status.as_str(), numbers(&done)),
            ("Completed", (5, 0, 0, 5))
        );
        assert_eq!(done.percent_completed, 100);
        assert!(
            done.log_backup_sets
                .iter()
                .all(|set| set.restore_finished_timestamp_utc.is_some())
        );
    }
}
