//! Log backups: stretches of write-ahead log, at any LSN, and what is known about them from their names.

use std::collections::BTreeMap;

use everpoint_pgformat::{
    Lsn, SystemIdentifier, TimelineId, timeline::TimelineHistory, wal::segment::SegmentSize,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{ids::ObjectId, layout};

/// The metadata of a log backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogMetadata {
    /// The cluster.
    pub system_identifier: SystemIdentifier,
    /// The timeline.
    pub timeline: TimelineId,
    /// First position, inclusive.
    pub start: Lsn,
    /// Last position, exclusive.
    pub end: Lsn,
    /// The size of WAL segments.
    pub segment_size: SegmentSize,
    /// The server's clock when it sent the first bytes; absent when a file was pushed.
    pub first_sent_at: Option<Timestamp>,
    /// A moment of the server's clock: whatever was committed by then ends before `end`.
    pub complete_at: Option<Timestamp>,
    /// BLAKE3 of all the bytes, in hexadecimal: a segment pushed again is compared by it.
    pub hash: String,
}

impl LogMetadata {
    /// Whether it belongs to the log backup of that name.
    pub fn is_of(&self, stretch: &LogStretch) -> bool {
        self.timeline == stretch.timeline && self.start == stretch.start && self.end == stretch.end
    }
}

/// A timeline's history, as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimelineDocument {
    /// The timeline.
    pub timeline: TimelineId,
    /// The text of its history file.
    pub text: String,
}

/// That whatever was committed by some moment ends before a position, as stored: an idle server makes no log
/// backups, and points up to that moment can be restored all the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarkDocument {
    /// The timeline.
    pub timeline: TimelineId,
    /// The end of its log.
    pub lsn: Lsn,
    /// The moment, by the server's clock.
    pub complete_at: Timestamp,
}

/// Write-ahead log that is lost, as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GapDocument {
    /// The timeline.
    pub timeline: TimelineId,
    /// The first position that is lost.
    pub from: Lsn,
    /// The first position that is there again.
    pub to: Lsn,
    /// Why it was lost, for a person.
    pub reason: String,
    /// When that was noticed.
    pub noticed_at: Timestamp,
}

/// A log backup as its name tells it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogStretch {
    /// The timeline.
    pub timeline: TimelineId,
    /// First position, inclusive.
    pub start: Lsn,
    /// Last position, exclusive.
    pub end: Lsn,
    /// Its identifier.
    pub id: ObjectId,
    /// Its name.
    pub path: String,
    /// Bytes stored.
    pub stored_bytes: u64,
    /// When it was stored, by the store's clock.
    pub stored_at: Timestamp,
}

impl LogStretch {
    /// Reads a log backup's name; `None` when it is another object's.
    pub fn parse(info: &crate::store::ObjectInfo) -> Option<Self> {
        let (fields, id) = layout::parse_last(&info.path)?;
        let [start, end] = fields.try_into().ok()?;
        let folder = info.path.rsplit('/').nth(1)?;
        let timeline = TimelineId::new(u32::from_str_radix(folder, 16).ok()?)?;
        (start < end).then(|| Self {
            timeline,
            start: Lsn::new(start),
            end: Lsn::new(end),
            id,
            path: info.path.clone(),
            stored_bytes: info.size,
            stored_at: info.modified,
        })
    }
}

/// All log backups of an instance, and the histories of its timelines.
#[derive(Clone, Debug, Default)]
pub struct LogIndex {
    stretches: BTreeMap<TimelineId, Vec<LogStretch>>,
    histories: BTreeMap<TimelineId, TimelineHistory>,
}

/// A stretch of log that one log backup supplies to a restore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPiece {
    /// Where it is supplied from.
    pub stretch: LogStretch,
    /// First position taken, inclusive.
    pub from: Lsn,
    /// Last position taken, exclusive.
    pub to: Lsn,
}

impl LogIndex {
    /// From all log backups and histories, in any order.
    pub fn new(stretches: Vec<LogStretch>, histories: Vec<TimelineHistory>) -> Self {
        let mut index = Self::default();
        for stretch in stretches {
            index
                .stretches
                .entry(stretch.timeline)
                .or_default()
                .push(stretch);
        }
        for stretches in index.stretches.values_mut() {
            // Where several begin at one place the longest comes first.
            stretches.sort_by(|a, b| a.start.cmp(&b.start).then(b.end.cmp(&a.end)));
        }
        for history in histories {
            index.histories.insert(history.timeline(), history);
        }
        index
    }

    /// Leaves a log backup out, as one that cannot be read.
    pub fn leave_out(&mut self, stretch: &LogStretch) {
        if let Some(stretches) = self.stretches.get_mut(&stretch.timeline) {
            stretches.retain(|other| other.path != stretch.path);
        }
    }

    /// All log backups, by timeline and position.
    pub fn stretches(&self) -> impl Iterator<Item = &LogStretch> {
        self.stretches.values().flatten()
    }

    /// The timelines that log or a history is stored of, oldest first.
    pub fn timelines(&self) -> Vec<TimelineId> {
        let mut all: Vec<_> = self
            .stretches
            .keys()
            .chain(self.histories.keys())
            .copied()
            .collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// A timeline's history; one without a stored history has no ancestors.
    pub fn history(&self, timeline: TimelineId) -> TimelineHistory {
        self.histories
            .get(&timeline)
            .cloned()
            .unwrap_or_else(|| TimelineHistory::root(timeline))
    }

    /// The first position at or behind `from` that is not stored, in the history of `timeline`: log is
    /// complete from `from` up to there.
    pub fn complete_until(&self, timeline: TimelineId, from: Lsn) -> Lsn {
        let mut at = from;
        for part in self.history(timeline).parts() {
            if at >= part.to {
                continue;
            }
            if at < part.from {
                return at;
            }
            at = self.cover(timeline, part.timeline, at, part.to, None);
            if at < part.to {
                return at;
            }
        }
        at
    }

    /// The log backups that supply `from` (inclusive) to `to` (exclusive) in the history of `timeline`.
    ///
    /// # Errors
    /// The position from which on nothing is stored.
    pub fn pieces(&self, timeline: TimelineId, from: Lsn, to: Lsn) -> Result<Vec<LogPiece>, Lsn> {
        let mut pieces = Vec::new();
        let mut at = from;
        for part in self.history(timeline).parts() {
            let end = part.to.min(to);
            if at >= end || at < part.from {
                continue;
            }
            at = self.cover(timeline, part.timeline, at, end, Some(&mut pieces));
            if at < end {
                return Err(at);
            }
        }
        if at < to { Err(at) } else { Ok(pieces) }
    }

    /// Walks the stretches that hold one timeline's log from `from` towards `to` as far as they join.
    ///
    /// Where a promoted server archives whole segments, the first one of its timeline begins with its
    /// parent's log, and is the only one that holds the parent's last part.
    fn cover(
        &self,
        leaf: TimelineId,
        timeline: TimelineId,
        from: Lsn,
        to: Lsn,
        mut pieces: Option<&mut Vec<LogPiece>>,
    ) -> Lsn {
        let mut at = from;
        let later = self.history(leaf).parts();
        let later = later
            .iter()
            .map(|part| part.timeline)
            .filter(|other| *other >= timeline);
        for holder in later {
            for stretch in self.stretches.get(&holder).into_iter().flatten() {
                if at >= to || stretch.start > at {
                    break;
                }
                if stretch.end <= at {
                    continue;
                }
                let end = stretch.end.min(to);
                if let Some(pieces) = &mut pieces {
                    pieces.push(LogPiece {
                        stretch: stretch.clone(),
                        from: at,
                        to: end,
                    });
                }
                at = end;
            }
        }
        at
    }

    /// What is missing between stored stretches of each timeline: both ends, half open.
    pub fn holes(&self) -> Vec<(TimelineId, Lsn, Lsn)> {
        let mut holes = Vec::new();
        for (timeline, stretches) in &self.stretches {
            let mut end = None;
            for stretch in stretches {
                if let Some(end) = end
                    && stretch.start > end
                {
                    holes.push((*timeline, end, stretch.start));
                }
                end = Some(end.map_or(stretch.end, |end: Lsn| end.max(stretch.end)));
            }
        }
        holes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tli(raw: u32) -> TimelineId {
        TimelineId::new(raw).unwrap()
    }

    fn stretch(timeline: u32, start: u64, end: u64) -> LogStretch {
        LogStretch {
            timeline: tli(timeline),
            start: Lsn::new(start),
            end: Lsn::new(end),
            id: ObjectId::random(),
            path: String::new(),
            stored_bytes: 0,
            stored_at: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn overlapping_stretches_are_joined_and_a_hole_stops_them() {
        let all = vec![
            stretch(1, 0, 100),
            stretch(1, 50, 150),
            stretch(1, 50, 60),
            stretch(1, 160, 200),
        ];
        let index = LogIndex::new(all, vec![]);
        assert_eq!(index.complete_until(tli(1), Lsn::new(10)), Lsn::new(150));
        assert_eq!(
            index.pieces(tli(1), Lsn::new(10), Lsn::new(155)),
            Err(Lsn::new(150))
        );
        let pieces = index.pieces(tli(1), Lsn::new(10), Lsn::new(140)).unwrap();
        let taken: Vec<_> = pieces.iter().map(|p| (p.from.get(), p.to.get())).collect();
        assert_eq!(taken, [(10, 100), (100, 140)]);
        assert_eq!(index.holes(), [(tli(1), Lsn::new(150), Lsn::new(160))]);
    }

    #[test]
    fn a_childs_first_segment_supplies_the_end_of_its_parent() {
        let history = TimelineHistory::parse(tli(2), "1\t0/78\tpromoted\n").unwrap();
        let all = vec![
            stretch(1, 0, 100),
            stretch(2, 100, 200),
            stretch(2, 200, 300),
        ];
        let index = LogIndex::new(all, vec![history]);
        assert_eq!(index.complete_until(tli(2), Lsn::new(10)), Lsn::new(300));
        let pieces = index.pieces(tli(2), Lsn::new(10), Lsn::new(250)).unwrap();
        let taken: Vec<_> = pieces.iter().map(|p| (p.from.get(), p.to.get())).collect();
        assert_eq!(taken, [(10, 100), (100, 120), (120, 200), (200, 250)]);
    }

    #[test]
    fn log_follows_the_history_of_its_timeline() {
        let history = TimelineHistory::parse(tli(2), "1\t0/64\tpromoted\n").unwrap();
        let all = vec![stretch(1, 0, 180), stretch(2, 96, 300)];
        let index = LogIndex::new(all, vec![history]);
        assert_eq!(index.complete_until(tli(2), Lsn::new(10)), Lsn::new(300));
        assert_eq!(index.complete_until(tli(1), Lsn::new(10)), Lsn::new(180));
        let pieces = index.pieces(tli(2), Lsn::new(10), Lsn::new(250)).unwrap();
        let taken: Vec<_> = pieces
            .iter()
            .map(|p| (p.stretch.timeline.get(), p.from.get(), p.to.get()))
            .collect();
        assert_eq!(taken, [(1, 10, 100), (2, 100, 250)]);
    }
}
