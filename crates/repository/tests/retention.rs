//! What expiry may forget, by properties: whatever the backups, the log, its holes and a promotion, no
//! point inside the window is lost, and nothing older is kept than what the window needs.

#![expect(clippy::unwrap_used, reason = "a test ends where a value is missing")]

use std::collections::BTreeSet;

use everpoint_pgformat::{Lsn, TimelineId, timeline::TimelineHistory};
use everpoint_repository::{
    ObjectId,
    backup::{Backup, BackupKind},
    log::{LogIndex, LogStretch},
    retention::{ExpirePlan, plan},
};
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::json;

/// One unit of the world: so many bytes of log are written in each second.
const BYTES_A_SECOND: u64 = 1 << 18;
/// Four seconds of log.
const SEGMENT_BYTES: u32 = 1 << 20;

fn lsn(second: u64) -> Lsn {
    Lsn::new((second + 1) * BYTES_A_SECOND)
}

fn time(second: u64) -> Timestamp {
    Timestamp::from_second(i64::try_from(second).unwrap()).unwrap()
}

fn timeline(number: u32) -> TimelineId {
    TimelineId::new(number).unwrap()
}

/// A backup that began and ended at these seconds.
fn backup(number: usize, base: Option<&Backup>, on: u32, from: u64, to: u64) -> Backup {
    let kind = match base {
        None => json!("full"),
        Some(_) => json!("differential"),
    };
    let id = format!("20260101T000000Z-{}-{number:08x}", kind.as_str().unwrap());
    let mut value = json!({
        "id": id, "type": kind,
        "system_identifier": 7_300_000_000_000_000_001_u64,
        "version": 17, "server_version_num": 170_010, "timeline": on,
        "start_lsn": lsn(from), "stop_lsn": lsn(to),
        "started_at": time(from), "stopped_at": time(to),
        "segment_size": SEGMENT_BYTES, "blocks_per_segment": 131_072, "checksums": true,
        "control_file": "", "backup_label": "", "tablespaces": [], "databases": [],
        "directories": [], "packs": [], "sections": [],
        "totals": {
            "files": 0, "restored_bytes": 0, "read_bytes": 0, "stored_bytes": 0, "reused_bytes": 0
        },
        "damaged_pages": [], "written_by": "test",
    });
    if let Some(base) = base {
        value["base"] = json!(base.id);
    }
    serde_json::from_value(value).unwrap()
}

/// Recovery reads a segment from its first page on.
fn first_needed(backup: &Backup) -> Lsn {
    backup.segment_size.floor(backup.start_lsn)
}

#[derive(Clone, Debug)]
struct World {
    backups: Vec<Backup>,
    stretches: Vec<LogStretch>,
    histories: Vec<TimelineHistory>,
    /// The second at which all ends.
    end: u64,
    last_timeline: TimelineId,
}

impl World {
    fn index(&self) -> LogIndex {
        LogIndex::new(self.stretches.clone(), self.histories.clone())
    }

    fn without(&self, plan: &ExpirePlan) -> Self {
        let mut left = self.clone();
        left.backups.retain(|backup| plan.kept.contains(&backup.id));
        left.stretches
            .retain(|stretch| !plan.logs.contains(stretch));
        left
    }

    /// Whether a restore to a second can be made.
    fn restorable(&self, index: &LogIndex, second: u64) -> bool {
        let parts = index.history(self.last_timeline).parts();
        self.backups.iter().any(|backup| {
            let whole = backup
                .kind
                .base()
                .is_none_or(|base| self.backups.iter().any(|other| other.id == *base));
            let in_history = parts
                .iter()
                .any(|part| part.timeline == backup.timeline && backup.stop_lsn <= part.to);
            whole
                && in_history
                && backup.stop_lsn <= lsn(second)
                && index.complete_until(self.last_timeline, first_needed(backup)) >= lsn(second)
        })
    }
}

#[derive(Clone, Debug)]
struct Step {
    pause: u64,
    length: u64,
    full: bool,
    /// On which full backup a differential builds: so many before the last.
    back: usize,
}

fn step(back: usize) -> impl Strategy<Value = Step> {
    let values = (1..40_u64, 1..8_u64, any::<bool>(), 0..=back);
    values.prop_map(|(pause, length, full, back)| Step {
        pause,
        length,
        full,
        back,
    })
}

/// A world of backups, log cut in pieces of which some are missing, and perhaps a promotion. Differentials
/// build upon the last full backup.
fn world() -> impl Strategy<Value = World> {
    world_with(0)
}

/// A world in which differentials build upon one of the last full backups, so many before the last at the
/// most.
fn world_with(back: usize) -> impl Strategy<Value = World> {
    let steps = prop::collection::vec(step(back), 1..14);
    let promotion = prop::option::of(0.1..0.9_f64);
    let holes = prop::collection::vec(0..60_usize, 0..3);
    (steps, promotion, 3..20_u64, holes).prop_map(|(steps, promotion, piece, holes)| {
        let total: u64 = steps
            .iter()
            .map(|step| step.pause + step.length)
            .sum::<u64>()
            + 10;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "small"
        )]
        #[expect(clippy::cast_precision_loss, reason = "small")]
        let switch = promotion.map(|part| (total as f64 * part) as u64);
        let on = |second: u64| match switch {
            Some(switch) if second >= switch => 2,
            _ => 1,
        };
        let mut backups: Vec<Backup> = Vec::new();
        let mut second = 0;
        for (number, step) in steps.iter().enumerate() {
            let (from, to) = (second + step.pause, second + step.pause + step.length);
            second = to;
            // A promotion ends a backup of a running server.
            if on(from) != on(to) {
                continue;
            }
            let is_full = |backup: &&Backup| backup.kind == BackupKind::Full;
            let base = backups.iter().rev().filter(is_full).nth(step.back);
            let base = base.filter(|_| !step.full).cloned();
            backups.push(backup(number, base.as_ref(), on(from), from, to));
        }
        let mut stretches = Vec::new();
        let mut from = 0;
        while from < total {
            let mut to = (from + piece).min(total);
            if let Some(switch) = switch.filter(|switch| from < *switch) {
                to = to.min(switch);
            }
            stretches.push(LogStretch {
                timeline: timeline(on(from)),
                start: lsn(from),
                end: lsn(to),
                id: ObjectId::random(),
                path: format!("{from}"),
                stored_bytes: 1,
                stored_at: time(to),
            });
            from = to;
        }
        for hole in holes {
            if hole < stretches.len() {
                stretches.remove(hole);
            }
        }
        let history = switch.map(|switch| {
            let text = format!("1\t{}\tpromoted\n", lsn(switch));
            TimelineHistory::parse(timeline(2), &text).unwrap()
        });
        World {
            backups,
            stretches,
            end: total,
            last_timeline: timeline(if history.is_some() { 2 } else { 1 }),
            histories: history.into_iter().collect(),
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn no_point_inside_the_window_is_lost(world in world(), part in 0.0..1.2_f64) {
        let window = window(&world, part);
        let index = world.index();
        let plan = plan(&world.backups, &index, time(window), time(world.end));
        let left = world.without(&plan);
        let left_index = left.index();
        for second in window..=world.end {
            if world.restorable(&index, second) {
                prop_assert!(
                    left.restorable(&left_index, second),
                    "second {second} with a window from {window}: {plan:?}"
                );
            }
        }
    }

    #[test]
    fn every_backup_stays_or_goes_and_none_without_its_base(world in world_with(2), part in 0.0..1.2_f64) {
        let window = window(&world, part);
        let plan = plan(&world.backups, &world.index(), time(window), time(world.end));
        let all: BTreeSet<_> = world.backups.iter().map(|backup| &backup.id).collect();
        let kept: BTreeSet<_> = plan.kept.iter().collect();
        let gone: BTreeSet<_> = plan.backups.iter().collect();
        prop_assert!(kept.is_disjoint(&gone));
        prop_assert_eq!(&kept | &gone, all);
        for backup in &world.backups {
            if kept.contains(&backup.id) {
                prop_assert!(backup.kind.base().is_none_or(|base| kept.contains(base)));
            } else {
                prop_assert!(backup.stopped_at <= time(window), "{} lies inside", backup.id);
            }
        }
    }

    #[test]
    fn nothing_older_is_kept_than_the_last_cycle_before_the_window(world in world(), part in 0.0..1.2_f64) {
        let window = window(&world, part);
        let index = world.index();
        let plan = plan(&world.backups, &index, time(window), time(world.end));
        let kept: Vec<&Backup> = world
            .backups
            .iter()
            .filter(|backup| plan.kept.contains(&backup.id))
            .collect();
        let is_full = |backup: &&Backup| backup.kind == BackupKind::Full;
        let before = |backup: &&Backup| backup.stopped_at <= time(window);
        // On one timeline all is simple: the last full backup from before the window, the last one on that,
        // and whatever differentials inside build upon.
        let anchor = world.backups.iter().filter(before).rfind(is_full);
        if let Some(anchor) = anchor.filter(|_| world.histories.is_empty()) {
            let bases: BTreeSet<_> = kept.iter().filter_map(|backup| backup.kind.base()).collect();
            let others = kept.iter().copied().filter(before).filter(|backup| {
                backup.id != anchor.id && !bases.contains(&backup.id)
            });
            let others: Vec<_> = others.collect();
            prop_assert!(others.len() <= 1, "{:?}", plan);
            prop_assert!(others.iter().all(|other| other.kind.base() == Some(&anchor.id)));
        }
        let first = kept.iter().map(|backup| first_needed(backup)).min();
        for stretch in world.stretches.iter().filter(|stretch| !plan.logs.contains(stretch)) {
            let needed = first.is_none_or(|first| stretch.end > first);
            prop_assert!(needed, "{:?} is of no more use: {:?}", stretch, plan);
        }
        for stretch in &plan.logs {
            prop_assert!(first.is_some_and(|first| stretch.end <= first));
        }
    }

    /// By a clock that was wrong for a while.
    #[test]
    fn a_backup_that_is_dated_ahead_is_no_younger_than_the_next_one(
        mut world in world(), part in 0.0..1.2_f64, which in any::<prop::sample::Index>(),
    ) {
        prop_assume!(!world.backups.is_empty());
        let window = window(&world, part);
        let now = time(world.end);
        let index = world.index();
        let which = which.index(world.backups.len());
        let next = world.backups.get(which + 1);
        let next = next.filter(|next| next.timeline == world.backups[which].timeline);
        let believed = next.map_or(now, |next| next.stopped_at);
        world.backups[which].stopped_at = believed;
        let expected = plan(&world.backups, &index, time(window), now);
        world.backups[which].stopped_at = now + jiff::SignedDuration::from_hours(10_000);
        let plan = plan(&world.backups, &index, time(window), now);
        prop_assert_eq!(&plan, &expected);
        let left = world.without(&plan);
        for second in window..=world.end {
            let lost = world.restorable(&index, second) && !left.restorable(&left.index(), second);
            prop_assert!(!lost, "second {second} with a window from {window}: {plan:?}");
        }
    }

    #[test]
    fn forgetting_twice_is_forgetting_once(world in world(), part in 0.0..1.2_f64) {
        let window = window(&world, part);
        let first = plan(&world.backups, &world.index(), time(window), time(world.end));
        let left = world.without(&first);
        let second = plan(&left.backups, &left.index(), time(window), time(world.end));
        prop_assert_eq!(second.kept, first.kept);
        prop_assert!(second.backups.is_empty() && second.logs.is_empty());
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "small"
)]
#[expect(clippy::cast_precision_loss, reason = "small")]
fn window(world: &World, part: f64) -> u64 {
    (world.end as f64 * part) as u64
}
