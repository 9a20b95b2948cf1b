//! Retention over months, by properties: whatever the schedule, the policies and their changes, promotions, lost
//! log, databases that come and go, and long-term copies.

#![expect(clippy::unwrap_used, reason = "a test ends where a value is missing")]

use std::collections::BTreeSet;

use everpoint_pgformat::{Lsn, TimelineId, timeline::TimelineHistory};
use everpoint_repository::{
    BackupId, ObjectId,
    backup::{Backup, BackupKind},
    log::{LogIndex, LogStretch},
    retention,
};
use everpoint_server::policy::{
    CopyStep, EarlierCopy, Full, LongTermPolicy, Period, RetentionDays, WeekOfYear,
    instance_retention, next_step,
};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde_json::json;

/// Log that is written in an hour.
const BYTES_AN_HOUR: u64 = 1 << 18;
/// Four hours of log.
const SEGMENT_BYTES: u32 = 1 << 20;
/// Hours of log in a log backup.
const PIECE: u64 = 6;

fn lsn(hour: u64) -> Lsn {
    Lsn::new((hour + 1) * BYTES_AN_HOUR)
}

/// Recovery reads a segment from its first page on.
fn first_needed(backup: &Backup) -> Lsn {
    backup.segment_size.floor(backup.start_lsn)
}

fn at(hour: u64) -> Timestamp {
    let hours = SignedDuration::from_hours(i64::try_from(hour).unwrap());
    Timestamp::from_second(1_767_225_600).unwrap() + hours
}

fn timeline(number: usize) -> TimelineId {
    TimelineId::new(u32::try_from(number).unwrap()).unwrap()
}

#[derive(Clone, Debug)]
enum Event {
    Full,
    Differential,
    Promote,
    LoseLog,
    Create,
    Drop(usize),
    Retain(usize, i64),
    LongTerm(usize, LongTermPolicy),
    Hold(usize),
    Release(usize),
}

fn policy() -> impl Strategy<Value = LongTermPolicy> {
    let period = |unit: char, most: u32| {
        (0..=most).prop_map(move |number| match number {
            0 => Period::NONE,
            _ => Period::parse(&format!("P{number}{unit}")).unwrap(),
        })
    };
    let week = (1_i64..=52).prop_map(|week| WeekOfYear::new(week).unwrap());
    (period('W', 6), period('M', 3), period('Y', 2), week).prop_map(
        |(weekly, monthly, yearly, week)| {
            LongTermPolicy::new(weekly, monthly, yearly, Some(week)).unwrap()
        },
    )
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => Just(Event::Full),
        8 => Just(Event::Differential),
        1 => Just(Event::Promote),
        1 => Just(Event::LoseLog),
        1 => Just(Event::Create),
        1 => (0..8_usize).prop_map(Event::Drop),
        3 => (0..8_usize, 0..36_i64).prop_map(|(which, days)| Event::Retain(which, days)),
        2 => (0..8_usize, policy()).prop_map(|(which, policy)| Event::LongTerm(which, policy)),
        1 => (0..8_usize).prop_map(Event::Hold),
        1 => (0..8_usize).prop_map(Event::Release),
    ]
}

#[derive(Clone, Debug)]
struct Database {
    created: u64,
    deleted: Option<u64>,
    retention: RetentionDays,
    long_term: LongTermPolicy,
    considered: Timestamp,
}

impl Database {
    fn new(now: u64) -> Self {
        Self {
            created: now,
            deleted: None,
            retention: RetentionDays::DEFAULT,
            long_term: LongTermPolicy::default(),
            considered: at(now),
        }
    }

    /// The hours in its window.
    fn window(&self, now: u64) -> std::ops::RangeInclusive<u64> {
        let back = u64::from(self.retention.get()) * 24;
        let from = now.saturating_sub(back).max(self.created);
        from..=self.deleted.unwrap_or(now)
    }
}

#[derive(Clone, Debug)]
struct Copy {
    database: usize,
    taken: Timestamp,
    kept: everpoint_server::policy::Kept,
    held: bool,
}

#[derive(Debug)]
struct World {
    now: u64,
    timeline: usize,
    histories: Vec<TimelineHistory>,
    history: String,
    backups: Vec<Backup>,
    stretches: Vec<LogStretch>,
    databases: Vec<Database>,
    copies: Vec<Copy>,
}

impl World {
    fn new() -> Self {
        Self {
            now: 0,
            timeline: 1,
            histories: Vec::new(),
            history: String::new(),
            backups: Vec::new(),
            stretches: Vec::new(),
            databases: vec![Database::new(0)],
            copies: Vec::new(),
        }
    }

    fn pass(&mut self, hours: u64) {
        let end = self.now + hours;
        while self.now < end {
            let to = (self.now + PIECE).min(end);
            self.stretches.push(LogStretch {
                timeline: timeline(self.timeline),
                start: lsn(self.now),
                end: lsn(to),
                id: ObjectId::random(),
                path: format!("{}", self.now),
                stored_bytes: 1,
                stored_at: at(to),
            });
            self.now = to;
        }
    }

    fn back_up(&mut self, full: bool) {
        let from = self.now;
        self.pass(1);
        let history = self.index().history(timeline(self.timeline)).parts();
        let bases = self.backups.iter().rev();
        let base = bases
            .filter(|backup| backup.kind == BackupKind::Full)
            .find(|backup| {
                history
                    .iter()
                    .any(|part| part.timeline == backup.timeline && backup.stop_lsn <= part.to)
            })
            .map(|base| base.id.clone())
            .filter(|_| !full);
        let kind = if base.is_some() {
            "differential"
        } else {
            "full"
        };
        let id = BackupId::new(at(from), kind, u32::try_from(from).unwrap());
        let mut value = json!({
            "id": id, "type": kind,
            "system_identifier": 7_300_000_000_000_000_001_u64,
            "version": 17, "server_version_num": 170_010, "timeline": self.timeline,
            "start_lsn": lsn(from), "stop_lsn": lsn(self.now),
            "started_at": at(from), "stopped_at": at(self.now),
            "segment_size": SEGMENT_BYTES, "blocks_per_segment": 131_072, "checksums": true,
            "control_file": "", "backup_label": "", "tablespaces": [], "databases": [],
            "directories": [], "packs": [], "sections": [],
            "totals": { "files": 0, "restored_bytes": 0, "read_bytes": 0, "stored_bytes": 0, "reused_bytes": 0 },
            "damaged_pages": [], "written_by": "test",
        });
        if let Some(base) = base {
            value["base"] = json!(base);
        }
        self.backups.push(serde_json::from_value(value).unwrap());
    }

    fn happen(&mut self, event: Event) {
        let (now, count) = (self.now, self.databases.len());
        match event {
            Event::Full => self.back_up(true),
            Event::Differential => self.back_up(false),
            Event::Promote => {
                self.history
                    .push_str(&format!("{}\t{}\tpromoted\n", self.timeline, lsn(now)));
                self.timeline += 1;
                let history = TimelineHistory::parse(timeline(self.timeline), &self.history);
                self.histories.push(history.unwrap());
            }
            Event::LoseLog => {
                self.stretches.pop();
            }
            Event::Create => self.databases.push(Database::new(now)),
            Event::Drop(which) => {
                let deleted = &mut self.databases[which % count].deleted;
                deleted.get_or_insert(now);
            }
            Event::Retain(which, days) => {
                let database = &mut self.databases[which % count];
                let wanted = match database.deleted {
                    None => RetentionDays::of_living(days),
                    Some(_) => RetentionDays::of_deleted(days, database.retention),
                };
                database.retention = wanted.unwrap_or(database.retention);
            }
            Event::LongTerm(which, policy) => {
                let database = &mut self.databases[which % count];
                if database.long_term.is_off() {
                    database.considered = at(now);
                }
                database.long_term = policy;
            }
            Event::Hold(which) | Event::Release(which) => {
                let count = self.copies.len().max(1);
                if let Some(copy) = self.copies.get_mut(which % count) {
                    copy.held = matches!(event, Event::Hold(_));
                }
            }
        }
    }

    fn index(&self) -> LogIndex {
        LogIndex::new(self.stretches.clone(), self.histories.clone())
    }

    /// From where to where each backup can be restored to, in the last timeline's history.
    fn reaches(&self) -> Vec<(Lsn, Lsn)> {
        let (index, last) = (self.index(), timeline(self.timeline));
        let parts = index.history(last).parts();
        let usable = self.backups.iter().filter(|backup| {
            let base = backup.kind.base();
            let whole = base.is_none_or(|base| self.backups.iter().any(|other| other.id == *base));
            let in_history = parts
                .iter()
                .any(|part| part.timeline == backup.timeline && backup.stop_lsn <= part.to);
            whole && in_history
        });
        usable
            .map(|backup| {
                (
                    backup.stop_lsn,
                    index.complete_until(last, first_needed(backup)),
                )
            })
            .collect()
    }

    fn make_copies(&mut self) {
        let full = |backup: &&Backup| backup.kind == BackupKind::Full;
        let fulls: Vec<Full> = self
            .backups
            .iter()
            .filter(full)
            .map(|backup| Full {
                id: backup.id.clone(),
                ended: backup.stopped_at,
            })
            .collect();
        for (number, database) in self.databases.iter_mut().enumerate() {
            while database.deleted.is_none() {
                let own = self.copies.iter().filter(|copy| copy.database == number);
                let earlier: Vec<EarlierCopy> = own
                    .map(|copy| EarlierCopy {
                        taken: copy.taken,
                        reasons: copy.kept.reasons.clone(),
                    })
                    .collect();
                let (policy, considered) = (&database.long_term, database.considered);
                match next_step(policy, &fulls, &earlier, considered, at(self.now)) {
                    None => break,
                    Some(CopyStep::PassOver { full } | CopyStep::Copied { full, .. }) => {
                        database.considered = full.ended;
                    }
                    Some(CopyStep::Copy { full, kept }) => {
                        database.considered = full.ended;
                        self.copies.push(Copy {
                            database: number,
                            taken: full.ended,
                            kept,
                            held: false,
                        });
                    }
                }
            }
        }
    }

    /// What the databases want kept: days before now.
    fn wanted(&self) -> Option<RetentionDays> {
        let living = self.databases.iter().filter(|one| one.deleted.is_none());
        let deleted = self
            .databases
            .iter()
            .filter_map(|one| Some((one.retention, at(one.deleted?))));
        instance_retention(living.map(|one| one.retention), deleted, at(self.now))
    }

    /// Expires, and checks all that is promised.
    fn expire(&mut self) -> Result<(), TestCaseError> {
        let Some(wanted) = self.wanted() else {
            return Ok(());
        };
        let start = wanted.window_start(at(self.now));
        let (before, living) = (self.reaches(), self.living_histories(start));
        let plan = retention::plan(&self.backups, &self.index(), start, at(self.now));
        self.backups.retain(|backup| plan.kept.contains(&backup.id));
        self.stretches
            .retain(|stretch| !plan.logs.contains(stretch));
        let after = self.reaches();
        let reached = |reaches: &[(Lsn, Lsn)], hour: u64| {
            let hour = lsn(hour);
            reaches
                .iter()
                .any(|(from, to)| *from <= hour && hour <= *to)
        };
        for database in &self.databases {
            for hour in database.window(self.now) {
                prop_assert!(
                    reached(&after, hour) || !reached(&before, hour),
                    "hour {hour} of a database is lost at {}: {database:?} {plan:?}",
                    self.now
                );
            }
        }
        self.check_nothing_is_kept_too_long(start, living)
    }

    /// How many histories reach into the window: a timeline that was left is of use while something on it
    /// lies inside.
    fn living_histories(&self, start: Timestamp) -> usize {
        let log = self.stretches.iter().filter(|log| log.stored_at > start);
        let backups = self.backups.iter().filter(|one| one.stopped_at > start);
        let all: BTreeSet<TimelineId> = log
            .map(|log| log.timeline)
            .chain(backups.map(|backup| backup.timeline))
            .chain([timeline(self.timeline)])
            .collect();
        all.len()
    }

    /// From before the window each history keeps one full backup, and one differential on it.
    fn check_nothing_is_kept_too_long(
        &self,
        start: Timestamp,
        living: usize,
    ) -> Result<(), TestCaseError> {
        let inside = self.backups.iter().filter(|one| one.stopped_at > start);
        let bases: BTreeSet<&BackupId> = inside.filter_map(|one| one.kind.base()).collect();
        let old = self.backups.iter().filter(|one| one.stopped_at <= start);
        let (fulls, others): (Vec<&Backup>, Vec<&Backup>) =
            old.partition(|backup| backup.kind == BackupKind::Full);
        let anchors = fulls.iter().filter(|full| !bases.contains(&full.id));
        prop_assert!(anchors.count() <= living, "{living} histories: {fulls:?}");
        prop_assert!(others.len() <= living, "{living} histories: {others:?}");
        if let Some(first) = self.backups.iter().map(first_needed).min() {
            for stretch in &self.stretches {
                prop_assert!(stretch.end > first, "{stretch:?} is of no more use");
            }
        }
        Ok(())
    }

    /// Copies go when their time is over, not before, and never while they are held.
    fn expire_copies(&mut self) -> Vec<Copy> {
        let now = at(self.now);
        let gone = |copy: &mut Copy| !copy.held && copy.kept.until <= now;
        self.copies.extract_if(.., gone).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn no_point_of_any_databases_window_is_lost_and_nothing_stays_longer_than_a_cycle(
        steps in prop::collection::vec((1..60_u64, event()), 1..120),
    ) {
        let mut world = World::new();
        for (pause, event) in steps {
            world.pass(pause);
            world.happen(event);
            world.make_copies();
            let copies = world.copies.len();
            world.expire()?;
            prop_assert_eq!(world.copies.len(), copies, "expiry of backups takes no copies");
            for gone in world.expire_copies() {
                prop_assert!(!gone.held && gone.kept.until <= at(world.now));
            }
        }
    }
}
