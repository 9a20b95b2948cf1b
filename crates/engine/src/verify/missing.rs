//! Log that is missing, from what the names of log backups say.

use std::collections::BTreeMap;

use everpoint_pgformat::{Lsn, TimelineId};
use everpoint_repository::{
    BackupId,
    backup::Backup,
    log::{GapDocument, LogIndex},
};

/// A stretch of log that should be stored and is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Missing {
    /// The timeline on which it begins.
    pub timeline: TimelineId,
    /// First position, inclusive.
    pub from: Lsn,
    /// Last position, exclusive.
    pub to: Lsn,
    /// Backups that are not consistent without it.
    pub backups: Vec<BackupId>,
}

/// What is missing in each history behind the first log that is stored, and what each backup needs from
/// its start to its end. What was recorded as a gap is known and does not count, unless a backup needs it.
/// That the last log was deleted cannot be seen: nothing says that there ever was more.
pub(super) fn missing_log(
    index: &LogIndex,
    gaps: &[GapDocument],
    backups: &[Backup],
) -> Vec<Missing> {
    let mut found: BTreeMap<(TimelineId, Lsn), Lsn> = BTreeMap::new();
    for timeline in index.timelines() {
        for (from, to) in holes(index, timeline) {
            if let Some((from, to)) = unrecorded(gaps, from, to) {
                found.insert((index.history(timeline).timeline_at(from), from), to);
            }
        }
    }
    let stretch = |((timeline, from), to)| Missing {
        timeline,
        from,
        to,
        backups: Vec::new(),
    };
    let mut missing: Vec<Missing> = found.into_iter().map(stretch).collect();
    for backup in backups {
        let from = index.complete_until(backup.timeline, backup.start_lsn);
        if from >= backup.stop_lsn {
            continue;
        }
        let known = missing
            .iter_mut()
            .find(|missing| missing.from <= from && from < missing.to);
        match known {
            Some(missing) => missing.backups.push(backup.id.clone()),
            None => missing.push(Missing {
                timeline: backup.timeline,
                from,
                to: backup.stop_lsn,
                backups: vec![backup.id.clone()],
            }),
        }
    }
    missing
}

/// Where log is missing between what is stored in a timeline's history.
fn holes(index: &LogIndex, timeline: TimelineId) -> Vec<(Lsn, Lsn)> {
    let parts = index.history(timeline).parts();
    let mut starts: Vec<Lsn> = index
        .stretches()
        .filter(|stretch| {
            parts
                .iter()
                .any(|part| part.timeline == stretch.timeline && stretch.start < part.to)
        })
        .map(|stretch| stretch.start)
        .collect();
    starts.sort_unstable();
    let mut holes = Vec::new();
    let Some(mut at) = starts.first().copied() else {
        return holes;
    };
    for start in starts {
        if start > at {
            at = index.complete_until(timeline, at);
        }
        if start > at {
            holes.push((at, start));
            at = start;
        }
    }
    holes
}

/// What of `from` (inclusive) to `to` (exclusive) recorded gaps at its ends do not cover.
fn unrecorded(gaps: &[GapDocument], mut from: Lsn, mut to: Lsn) -> Option<(Lsn, Lsn)> {
    while let Some(gap) = gaps.iter().find(|gap| gap.from <= from && from < gap.to) {
        from = gap.to;
    }
    while let Some(gap) = gaps.iter().find(|gap| gap.from < to && to <= gap.to) {
        to = gap.from;
    }
    (from < to).then_some((from, to))
}

#[cfg(test)]
mod tests {
    use everpoint_pgformat::timeline::TimelineHistory;
    use everpoint_repository::{ObjectId, log::LogStretch};
    use jiff::Timestamp;

    use super::*;

    fn timeline(number: u32) -> TimelineId {
        TimelineId::new(number).unwrap()
    }

    fn stretch(number: u32, start: u64, end: u64) -> LogStretch {
        LogStretch {
            timeline: timeline(number),
            start: Lsn::new(start),
            end: Lsn::new(end),
            id: ObjectId::random(),
            path: String::new(),
            stored_bytes: 0,
            stored_at: Timestamp::UNIX_EPOCH,
        }
    }

    fn gap(from: u64, to: u64) -> GapDocument {
        GapDocument {
            timeline: timeline(1),
            from: Lsn::new(from),
            to: Lsn::new(to),
            reason: String::new(),
            noticed_at: Timestamp::UNIX_EPOCH,
        }
    }

    fn found(index: &LogIndex, gaps: &[GapDocument]) -> Vec<(u32, u64, u64)> {
        let missing = missing_log(index, gaps, &[]);
        let place = |missing: Missing| {
            let (from, to) = (missing.from.get(), missing.to.get());
            (missing.timeline.get(), from, to)
        };
        missing.into_iter().map(place).collect()
    }

    #[test]
    fn a_hole_is_found_unless_it_was_recorded() {
        let all = [(10, 20), (20, 30), (40, 50), (45, 60), (70, 80)];
        let all = all.map(|(start, end)| stretch(1, start, end)).to_vec();
        let index = LogIndex::new(all, vec![]);
        assert_eq!(found(&index, &[]), [(1, 30, 40), (1, 60, 70)]);
        assert_eq!(found(&index, &[gap(30, 40)]), [(1, 60, 70)]);
        assert_eq!(
            found(&index, &[gap(30, 36), gap(64, 70)]),
            [(1, 36, 40), (1, 60, 64)]
        );
        assert_eq!(found(&index, &[gap(30, 35), gap(35, 40), gap(0, 100)]), []);
    }

    #[test]
    fn a_hole_before_a_switch_of_timelines_is_found() {
        let history = || TimelineHistory::parse(timeline(2), "1\t0/64\tpromoted\n").unwrap();
        let whole = vec![stretch(1, 0, 120), stretch(2, 100, 200)];
        let index = LogIndex::new(whole, vec![history()]);
        assert_eq!(found(&index, &[]), []);
        let cut = vec![stretch(1, 0, 90), stretch(2, 100, 200)];
        let index = LogIndex::new(cut, vec![history()]);
        assert_eq!(found(&index, &[]), [(1, 90, 100)]);
    }
}
