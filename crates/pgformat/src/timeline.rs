//! Timelines and their history files.

use std::{fmt, num::NonZeroU32};

use serde::{Deserialize, Serialize};

use crate::Lsn;

/// A timeline: one line of history of a cluster. Promotion begins a new one. Never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TimelineId(NonZeroU32);

impl TimelineId {
    /// The first timeline of every cluster.
    pub const FIRST: Self = Self(NonZeroU32::MIN);

    /// `None` for 0, which is no timeline.
    pub const fn new(raw: u32) -> Option<Self> {
        match NonZeroU32::new(raw) {
            Some(id) => Some(Self(id)),
            None => None,
        }
    }

    /// The raw number.
    pub const fn get(self) -> u32 {
        self.0.get()
    }

    /// The name of its history file, such as `00000002.history`.
    pub fn history_file_name(self) -> String {
        format!("{:08X}.history", self.get())
    }
}

impl fmt::Display for TimelineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The history of a timeline: where it left each of its ancestors, oldest first.
///
/// The text form is a history file's (`src/backend/access/transam/timeline.c`): a line per ancestor
/// with its number, the LSN at which the next timeline begins, and a reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimelineHistory {
    timeline: TimelineId,
    ancestors: Vec<Ancestor>,
}

/// An ancestor of a timeline and where it was left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ancestor {
    /// The ancestor.
    pub timeline: TimelineId,
    /// The first position that belongs to the next timeline.
    pub left_at: Lsn,
}

/// The part of a timeline's history that lies on one timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryPart {
    /// The timeline it lies on.
    pub timeline: TimelineId,
    /// First position, inclusive.
    pub from: Lsn,
    /// Last position, exclusive; [`Lsn::MAX`] on the timeline itself.
    pub to: Lsn,
}

/// A history file cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("history file of timeline {timeline} is malformed at line {line}: {what}")]
pub struct TimelineHistoryError {
    timeline: TimelineId,
    line: usize,
    what: &'static str,
}

impl TimelineHistory {
    /// The history of a timeline without ancestors.
    pub fn root(timeline: TimelineId) -> Self {
        Self {
            timeline,
            ancestors: Vec::new(),
        }
    }

    /// Reads the history file of `timeline`.
    ///
    /// # Errors
    /// When a line has no timeline and LSN, or when timelines or positions do not increase.
    pub fn parse(timeline: TimelineId, text: &str) -> Result<Self, TimelineHistoryError> {
        let mut ancestors: Vec<Ancestor> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let error = |what| TimelineHistoryError {
                timeline,
                line: index + 1,
                what,
            };
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let mut fields = line.split_ascii_whitespace();
            let id = fields
                .next()
                .and_then(|field| field.parse().ok())
                .and_then(TimelineId::new)
                .ok_or_else(|| error("the first field is not a timeline"))?;
            let left_at: Lsn = fields
                .next()
                .and_then(|field| field.parse().ok())
                .ok_or_else(|| error("the second field is not an LSN"))?;
            if ancestors
                .last()
                .is_some_and(|last| last.timeline >= id || last.left_at > left_at)
            {
                return Err(error("timelines and positions must increase"));
            }
            if id >= timeline {
                return Err(error(
                    "an ancestor's number must be smaller than the timeline's own",
                ));
            }
            ancestors.push(Ancestor {
                timeline: id,
                left_at,
            });
        }
        Ok(Self {
            timeline,
            ancestors,
        })
    }

    /// The timeline whose history this is.
    pub fn timeline(&self) -> TimelineId {
        self.timeline
    }

    /// Its ancestors, oldest first.
    pub fn ancestors(&self) -> &[Ancestor] {
        &self.ancestors
    }

    /// The history as stretches on each timeline, oldest first; the last is the timeline itself.
    pub fn parts(&self) -> Vec<HistoryPart> {
        let mut from = Lsn::INVALID;
        let mut parts = Vec::with_capacity(self.ancestors.len() + 1);
        for ancestor in &self.ancestors {
            parts.push(HistoryPart {
                timeline: ancestor.timeline,
                from,
                to: ancestor.left_at,
            });
            from = ancestor.left_at;
        }
        parts.push(HistoryPart {
            timeline: self.timeline,
            from,
            to: Lsn::MAX,
        });
        parts
    }

    /// The timeline that position `at` lies on in this history.
    pub fn timeline_at(&self, at: Lsn) -> TimelineId {
        self.ancestors
            .iter()
            .find(|ancestor| at < ancestor.left_at)
            .map_or(self.timeline, |ancestor| ancestor.timeline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tli(raw: u32) -> TimelineId {
        TimelineId::new(raw).unwrap()
    }

    #[test]
    fn history_names_the_timeline_of_every_position() {
        let text =
            "1\t0/3000000\tno recovery target specified\n\n2\t0/5000100\tbefore 2026-01-01\n";
        let history = TimelineHistory::parse(tli(3), text).unwrap();
        assert_eq!(history.timeline_at("0/2FFFFFF".parse().unwrap()), tli(1));
        assert_eq!(history.timeline_at("0/3000000".parse().unwrap()), tli(2));
        assert_eq!(history.timeline_at("0/5000100".parse().unwrap()), tli(3));
        assert_eq!(history.parts().len(), 3);
    }

    #[test]
    fn malformed_history_is_refused_with_its_line() {
        for text in [
            "x 0/1 r",
            "1",
            "1 zz",
            "2 0/2\n1 0/3",
            "3 0/1",
            "1 0/5\n2 0/4",
        ] {
            assert!(TimelineHistory::parse(tli(3), text).is_err(), "{text}");
        }
    }
}
