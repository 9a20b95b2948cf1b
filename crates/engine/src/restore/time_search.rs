//! The search for a time in summaries of log. Pure.

use everpoint_pgformat::{
    Lsn, PgTimestamp,
    timeline::TimelineHistory,
    wal_summary::{
        WalSummary,
        database_events::DatabaseEvents,
        time_index::{PreparedMark, StepBack, TransactionMark},
    },
};

use super::target::{Neighbour, to_timestamp};
use crate::history::{clock::ClockWatch, digest::shown, event::EventId};

/// What is to be known of the way to a time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Steps back of the server's clock of more than a second, between the backup and the target.
    pub clock_steps: Vec<StepBack>,
    /// Databases whose drop was begun between the backup and the target: they are not there, or half dropped.
    pub dropped: Vec<DroppedBefore>,
}

/// A database that was dropped before the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DroppedBefore {
    /// Its name, when the log shows it.
    pub name: Option<String>,
    /// Its drop, before which a restore can go.
    pub event: EventId,
}

impl Surroundings {
    /// Leaves out what lies at or behind a position.
    pub fn keep_before(&mut self, end: Lsn) {
        self.clock_steps.retain(|step| step.at < end);
        self.dropped.retain(|dropped| dropped.event.lsn < end);
    }
}

/// The ends of transactions around a time, as summaries go by in the order of the log.
#[derive(Debug)]
pub struct TimeSearch {
    wanted: PgTimestamp,
    inside: Option<TransactionMark>,
    outside: Option<TransactionMark>,
    /// The last preparation that is not later than the time.
    prepared: Option<PreparedMark>,
    clock: ClockWatch,
    clock_steps: Vec<StepBack>,
    databases: DatabaseEvents,
}

impl TimeSearch {
    /// For the first end of a transaction that is later than this.
    pub fn new(wanted: PgTimestamp) -> Self {
        Self {
            wanted,
            inside: None,
            outside: None,
            prepared: None,
            clock: ClockWatch::default(),
            clock_steps: Vec::new(),
            databases: DatabaseEvents::default(),
        }
    }

    /// Adds the next summary.
    pub fn add(&mut self, summary: &WalSummary) {
        self.databases.absorb(summary.databases.clone());
        for mark in summary.times.transactions() {
            if self.is_over() {
                break;
            }
            self.clock_steps.extend(self.clock.see(mark));
            match mark.time > self.wanted {
                true => self.outside = Some(*mark),
                false => self.inside = Some(*mark),
            }
        }
        let wanted = self.wanted;
        let end = self.outside.map_or(Lsn::MAX, |outside| outside.start);
        let prepared = summary.times.prepared().iter();
        self.prepared = prepared
            .take_while(|mark| mark.start < end)
            .filter(|mark| mark.time <= wanted)
            .last()
            .copied()
            .or(self.prepared);
    }

    /// Whether the first end outside was found.
    pub fn is_over(&self) -> bool {
        self.outside.is_some()
    }

    /// The last end inside.
    pub fn inside(&self) -> Option<Neighbour> {
        self.inside.as_ref().map(neighbour)
    }

    /// The last end or preparation of a transaction that is inside, by its record's start and end: what follows
    /// it is not visible.
    pub fn last_record(&self) -> Option<(Lsn, Lsn)> {
        let inside = self.inside.map(|mark| (mark.start, mark.end));
        let prepared = self.prepared.map(|mark| (mark.start, mark.end));
        inside.max(prepared)
    }

    /// The first end outside.
    pub fn outside(&self) -> Option<Neighbour> {
        self.outside.as_ref().map(neighbour)
    }

    /// What was seen besides.
    pub fn surroundings(&self, history: TimelineHistory) -> Surroundings {
        let dropped = self.databases.dropped().into_iter();
        Surroundings {
            clock_steps: self.clock_steps.clone(),
            dropped: dropped
                .map(|drop| DroppedBefore {
                    name: drop.name.as_deref().map(shown),
                    event: EventId {
                        timeline: history.timeline_at(drop.undo),
                        lsn: drop.undo,
                    },
                })
                .collect(),
        }
    }
}

/// A transaction's end as a neighbour of a target.
pub fn neighbour(mark: &TransactionMark) -> Neighbour {
    Neighbour {
        transaction: mark.transaction,
        time: to_timestamp(mark.time),
        lsn: mark.start,
    }
}

#[cfg(test)]
mod tests {
    use everpoint_pgformat::{
        MajorVersion, TimelineId, TransactionId,
        wal::transaction::EndKind,
        wal_summary::{SummaryBuilder, time_index::TimeIndex},
    };

    use super::*;

    const SECOND: i64 = 1_000_000;

    fn end((lsn, seconds): (u64, i64)) -> TransactionMark {
        TransactionMark {
            time: PgTimestamp::from_raw(seconds * SECOND),
            before: Lsn::new(lsn - 10),
            start: Lsn::new(lsn),
            end: Lsn::new(lsn + 8),
            transaction: TransactionId::new(700),
            kind: EndKind::Commit,
        }
    }

    fn preparation((lsn, seconds): (u64, i64)) -> PreparedMark {
        PreparedMark {
            time: PgTimestamp::from_raw(seconds * SECOND),
            start: Lsn::new(lsn),
            end: Lsn::new(lsn + 8),
            transaction: TransactionId::new(701),
        }
    }

    /// Positions and seconds.
    type Marks<'a> = &'a [(u64, i64)];

    /// Searches summaries, each of ends and preparations.
    fn search(seconds: i64, summaries: &[(Marks<'_>, Marks<'_>)]) -> TimeSearch {
        let mut search = TimeSearch::new(PgTimestamp::from_raw(seconds * SECOND));
        let version = MajorVersion::try_from(18).unwrap();
        for (ends, prepared) in summaries {
            let builder = SummaryBuilder::new(version, TimelineId::FIRST, Lsn::new(1));
            let mut summary = builder.summary().clone();
            let ends = ends.iter().copied().map(end);
            summary.times = TimeIndex::new(ends, prepared.iter().copied().map(preparation));
            search.add(&summary);
        }
        search
    }

    fn lsns(search: &TimeSearch) -> (Option<u64>, Option<u64>, Option<u64>) {
        let of = |neighbour: Option<Neighbour>| neighbour.map(|found| found.lsn.get());
        let last = search.last_record().map(|(start, _)| start.get());
        (of(search.inside()), last, of(search.outside()))
    }

    #[test]
    fn replay_ends_behind_the_last_end_or_preparation_before_the_first_later_end() {
        let first: (Marks<'_>, Marks<'_>) = (&[(100, 10), (200, 20)], &[(150, 15), (250, 25)]);
        // One that is later than the time, and one behind the first end outside.
        let second: (Marks<'_>, Marks<'_>) = (&[(400, 40), (500, 30)], &[(300, 35), (450, 28)]);
        let both = [first, second];
        assert_eq!(lsns(&search(5, &both)), (None, None, Some(100)));
        assert_eq!(lsns(&search(12, &both)), (Some(100), Some(100), Some(200)));
        assert_eq!(lsns(&search(15, &both)), (Some(100), Some(150), Some(200)));
        assert_eq!(lsns(&search(22, &both)), (Some(200), Some(200), Some(400)));
        assert_eq!(lsns(&search(30, &both)), (Some(200), Some(250), Some(400)));
        assert_eq!(lsns(&search(40, &both)), (Some(500), Some(500), None));
    }

    #[test]
    fn steps_back_of_the_clock_are_told_up_to_where_replay_ends() {
        let steps = |seconds, keep: u64| {
            let ends: Marks<'_> = &[(100, 100), (200, 98), (300, 99), (400, 50), (500, 200)];
            let search = search(seconds, &[(ends, &[])]);
            let mut found = search.surroundings(TimelineHistory::root(TimelineId::FIRST));
            found.keep_before(Lsn::new(keep));
            let steps = found.clock_steps.iter();
            steps.map(|step| step.at.get()).collect::<Vec<_>>()
        };
        assert_eq!(steps(150, 500), [200, 400]);
        assert_eq!(steps(150, 300), [200]);
        // The first end is later already.
        assert_eq!(steps(99, 500), [0_u64; 0]);
    }
}
