//! What may be forgotten: a plan, made from values, that can be printed before it is carried out.

use std::collections::BTreeSet;

use everpoint_pgformat::{Lsn, TimelineId};
use jiff::Timestamp;

use crate::{
    backup::{Backup, BackupKind},
    ids::BackupId,
    log::{LogIndex, LogStretch},
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
    /// Log before this is not needed: summaries that end at or before it go, too.
    pub needed_from: Lsn,
}

/// Plans expiry: every point at or behind `window_start` that can be restored stays so.
///
/// The history of every timeline that reaches into the window is looked at by itself. Kept are, in each,
/// every backup that ended behind the window's start, the last full one before it and the last
/// differential on that one before it; whatever those need; and all log from the segment on in which the oldest kept
/// backup starts. A history without a full backup before the window's start keeps all of its backups.
pub fn plan(backups: &[Backup], index: &LogIndex, window_start: Timestamp) -> ExpirePlan {
    let mut sorted: Vec<&Backup> = backups.iter().collect();
    sorted.sort_by(|a, b| a.stopped_at.cmp(&b.stopped_at).then(a.id.cmp(&b.id)));
    let mut kept: BTreeSet<&BackupId> = BTreeSet::new();
    for timeline in living_timelines(&sorted, index, window_start) {
        let parts = index.history(timeline).parts();
        let on_it: Vec<&Backup> = sorted
            .iter()
            .copied()
            .filter(|backup| {
                parts
                    .iter()
                    .any(|part| part.timeline == backup.timeline && backup.stop_lsn <= part.to)
            })
            .collect();
        keep(&on_it, window_start, &mut kept);
    }
    for backup in &sorted {
        if backup.stopped_at > window_start {
            kept.insert(&backup.id);
        }
    }
    let bases: Vec<&BackupId> = sorted
        .iter()
        .filter(|backup| kept.contains(&backup.id))
        .filter_map(|backup| backup.kind.base())
        .collect();
    kept.extend(bases);
    // Recovery reads a segment from its first page on.
    let needed_from = sorted
        .iter()
        .filter(|backup| kept.contains(&backup.id))
        .map(|backup| backup.segment_size.floor(backup.start_lsn))
        .min()
        .unwrap_or(Lsn::INVALID);
    let (stay, go): (Vec<&Backup>, Vec<&Backup>) =
        sorted.iter().partition(|backup| kept.contains(&backup.id));
    let ids = |backups: Vec<&Backup>| backups.iter().map(|backup| backup.id.clone()).collect();
    ExpirePlan {
        backups: ids(go),
        kept: ids(stay),
        logs: index
            .stretches()
            .filter(|log| log.end <= needed_from)
            .cloned()
            .collect(),
        needed_from,
    }
}

/// Timelines on which something lies behind the window's start, and the latest.
fn living_timelines(
    backups: &[&Backup],
    index: &LogIndex,
    window_start: Timestamp,
) -> BTreeSet<TimelineId> {
    let with_log = index.stretches().filter(|log| log.stored_at > window_start);
    let with_backup = backups
        .iter()
        .filter(|backup| backup.stopped_at > window_start);
    let latest = index.timelines().last().copied();
    let latest = latest.max(backups.iter().map(|backup| backup.timeline).max());
    with_log
        .map(|log| log.timeline)
        .chain(with_backup.map(|backup| backup.timeline))
        .chain(latest)
        .collect()
}

/// What one history needs of its backups, which are sorted by their ends.
fn keep<'a>(backups: &[&'a Backup], window_start: Timestamp, kept: &mut BTreeSet<&'a BackupId>) {
    let before = |backup: &&&'a Backup| backup.stopped_at <= window_start;
    let is_full = |backup: &&&'a Backup| backup.kind == BackupKind::Full;
    let Some(anchor) = backups.iter().filter(before).rfind(is_full).copied() else {
        kept.extend(backups.iter().map(|backup| &backup.id));
        return;
    };
    kept.insert(&anchor.id);
    let on_anchor = |backup: &&&'a Backup| backup.kind.base() == Some(&anchor.id);
    kept.extend(
        backups
            .iter()
            .filter(before)
            .rfind(on_anchor)
            .map(|backup| &backup.id),
    );
    kept.extend(
        backups
            .iter()
            .filter(|backup| !before(backup))
            .map(|backup| &backup.id),
    );
}
