//! What may be forgotten: a plan, made from values, that can be printed before it is carried out.

use std::collections::BTreeSet;

use everpoint_pgformat::Lsn;
use jiff::Timestamp;

use crate::{
    backup::{Backup, BackupKind},
    ids::BackupId,
    log::LogStretch,
};

/// What expiry deletes and keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExpirePlan {
    /// Backups to forget, oldest first.
    pub backups: Vec<BackupId>,
    /// Backups that stay, oldest first.
    pub kept: Vec<BackupId>,
    /// Log backups to forget.
    pub logs: Vec<LogStretch>,
}

/// Plans expiry: a point at or behind `window_start` must stay restorable.
///
/// Kept are every backup that ended behind the window's start, the last full one that ended before it
/// and the last differential on that one which did, whatever those need, and all log from the start of
/// the oldest kept full backup on. Without a full backup that ended before the window's start nothing
/// is deleted.
pub fn plan(backups: &[Backup], logs: &[LogStretch], window_start: Timestamp) -> ExpirePlan {
    let mut sorted: Vec<&Backup> = backups.iter().collect();
    sorted.sort_by(|a, b| a.stopped_at.cmp(&b.stopped_at).then(a.id.cmp(&b.id)));
    let before = |backup: &&&Backup| backup.stopped_at <= window_start;
    let anchor = sorted
        .iter()
        .filter(before)
        .rfind(|backup| backup.kind == BackupKind::Full)
        .copied();
    let mut kept: BTreeSet<&BackupId> = BTreeSet::new();
    match anchor {
        None => kept.extend(sorted.iter().map(|backup| &backup.id)),
        Some(anchor) => {
            kept.insert(&anchor.id);
            let on_anchor = |backup: &&&Backup| backup.kind.base() == Some(&anchor.id);
            let last = sorted.iter().filter(before).rfind(on_anchor);
            kept.extend(last.map(|backup| &backup.id));
            for backup in sorted
                .iter()
                .filter(|backup| backup.stopped_at > window_start)
            {
                kept.insert(&backup.id);
                kept.extend(backup.kind.base());
            }
        }
    }
    let needed_from = sorted
        .iter()
        .filter(|backup| kept.contains(&backup.id))
        .map(|backup| backup.start_lsn)
        .min()
        .unwrap_or(Lsn::INVALID);
    let (stay, go): (Vec<&Backup>, Vec<&Backup>) =
        sorted.iter().partition(|backup| kept.contains(&backup.id));
    ExpirePlan {
        backups: go.iter().map(|backup| backup.id.clone()).collect(),
        kept: stay.iter().map(|backup| backup.id.clone()).collect(),
        logs: logs
            .iter()
            .filter(|log| log.end <= needed_from)
            .cloned()
            .collect(),
    }
}
