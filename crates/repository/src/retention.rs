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
///
/// A backup that is dated behind `now`, since a clock was wrong, counts as old as the next one on its timeline: else it
/// would stay, with all log behind it, until the time came that it is dated at.
pub fn plan(
    backups: &[Backup],
    index: &LogIndex,
    window_start: Timestamp,
    now: Timestamp,
) -> ExpirePlan {
    let sorted = dated(backups, now);
    let mut kept: BTreeSet<&BackupId> = BTreeSet::new();
    for timeline in living_timelines(&sorted, index, window_start) {
        let parts = index.history(timeline).parts();
        let mut on_it: Vec<Dated<'_>> = sorted
            .iter()
            .copied()
            .filter(|Dated { backup, .. }| {
                parts
                    .iter()
                    .any(|part| part.timeline == backup.timeline && backup.stop_lsn <= part.to)
            })
            .collect();
        on_it.sort_by_key(|dated| position(dated.backup));
        keep(&on_it, window_start, &mut kept);
    }
    for Dated { backup, ended } in &sorted {
        if *ended > window_start {
            kept.insert(&backup.id);
        }
    }
    let sorted: Vec<&Backup> = sorted.iter().map(|dated| dated.backup).collect();
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

/// A backup, and when it ended as far as that is believed.
#[derive(Clone, Copy)]
struct Dated<'a> {
    backup: &'a Backup,
    ended: Timestamp,
}

/// The backups by their ends.
fn dated(backups: &[Backup], now: Timestamp) -> Vec<Dated<'_>> {
    let mut by_position: Vec<&Backup> = backups.iter().collect();
    by_position.sort_by_key(|backup| position(backup));
    let mut next: Option<Dated<'_>> = None;
    let mut all = Vec::with_capacity(backups.len());
    for backup in by_position.into_iter().rev() {
        let later = next.filter(|next| next.backup.timeline == backup.timeline);
        let ended = match backup.stopped_at > now {
            false => backup.stopped_at,
            // No earlier than it can have been, so nothing goes too soon.
            true => later.map_or(now, |next| next.ended),
        };
        let dated = Dated { backup, ended };
        next = Some(dated);
        all.push(dated);
    }
    all.sort_by(|a, b| {
        let order = a.ended.cmp(&b.ended);
        let order = order.then(a.backup.stop_lsn.cmp(&b.backup.stop_lsn));
        order.then(a.backup.id.cmp(&b.backup.id))
    });
    all
}

/// Timelines on which something lies behind the window's start, and the latest.
fn living_timelines(
    backups: &[Dated<'_>],
    index: &LogIndex,
    window_start: Timestamp,
) -> BTreeSet<TimelineId> {
    let with_log = index.stretches().filter(|log| log.stored_at > window_start);
    let with_backup = backups.iter().filter(|dated| dated.ended > window_start);
    let latest = index.timelines().last().copied();
    let latest = latest.max(backups.iter().map(|dated| dated.backup.timeline).max());
    with_log
        .map(|log| log.timeline)
        .chain(with_backup.map(|dated| dated.backup.timeline))
        .chain(latest)
        .collect()
}

/// The order of a history's backups, whatever the clock said.
fn position(backup: &Backup) -> (TimelineId, Lsn) {
    (backup.timeline, backup.stop_lsn)
}

/// What one history needs of its backups, which are sorted by position.
fn keep<'a>(backups: &[Dated<'a>], window_start: Timestamp, kept: &mut BTreeSet<&'a BackupId>) {
    let (before, inside): (Vec<_>, Vec<_>) = backups
        .iter()
        .partition(|dated| dated.ended <= window_start);
    let is_full = |dated: &&Dated<'a>| dated.backup.kind == BackupKind::Full;
    let Some(anchor) = before.iter().copied().rfind(is_full) else {
        kept.extend(backups.iter().map(|dated| &dated.backup.id));
        return;
    };
    kept.insert(&anchor.backup.id);
    let on_anchor = |dated: &&Dated<'a>| dated.backup.kind.base() == Some(&anchor.backup.id);
    let differential = before.iter().copied().rfind(on_anchor);
    kept.extend(differential.map(|dated| &dated.backup.id));
    kept.extend(inside.iter().map(|dated| &dated.backup.id));
}
