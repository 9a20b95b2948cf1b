use std::{collections::BTreeMap, time::Duration};

use jiff::civil::Weekday;
use proptest::prelude::*;

use super::*;
use crate::scheduler::{DIFFERENTIAL_EVERY, Rhythm, Taken, Window};

const ONE: Limits = Limits { backups_at_once: 1 };

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn hours(hours: i64) -> SignedDuration {
    SignedDuration::from_hours(hours)
}

fn schedule(name: &str) -> Schedule {
    let instance: InstanceName = name.parse().unwrap();
    let night = Duration::from_secs(6 * 3600);
    Schedule {
        full: Window::new(Weekday::Sunday, 0, night, &instance).unwrap(),
        differential: Rhythm::new(DIFFERENTIAL_EVERY, &instance).unwrap(),
        instance,
    }
}

fn taken(started_at: Timestamp, size_bytes: u64) -> Option<Taken> {
    Some(Taken {
        started_at,
        size_bytes,
    })
}

fn one(schedule: &Schedule, history: &History, now: Timestamp) -> Option<(Kind, Reason)> {
    due([(schedule, history)], ONE, now)
        .first()
        .map(|due| (due.kind, due.reason))
}

#[test]
fn a_new_instance_is_backed_up_at_once_whatever_the_window() {
    let schedule = schedule("a");
    let found = one(&schedule, &History::default(), at("2026-11-25T12:00:00Z"));
    assert_eq!(found, Some((Kind::Full, Reason::First)));
}

#[test]
fn a_gap_asks_for_a_full_backup_until_one_began_behind_it() {
    let (schedule, now) = (schedule("a"), at("2026-11-25T12:00:00Z"));
    let mut history = History {
        full: taken(now - hours(1), 100),
        gap: Some(now - hours(1)),
        ..History::default()
    };
    assert_eq!(
        one(&schedule, &history, now),
        Some((Kind::Full, Reason::Gap))
    );
    history.full = taken(now - hours(1) + SignedDuration::from_secs(1), 100);
    assert_ne!(
        one(&schedule, &history, now),
        Some((Kind::Full, Reason::Gap))
    );
}

#[test]
fn a_differential_over_three_quarters_of_its_full_turns_the_next_into_a_full_one() {
    let schedule = schedule("a");
    let full = at("2026-11-23T00:00:00Z");
    let now = schedule.differential.next(full + hours(30));
    let history = |size| History {
        full: taken(full, 1000),
        differential: taken(full + hours(12), size),
        ..History::default()
    };
    let rhythm = Some((Kind::Differential, Reason::Rhythm));
    assert_eq!(one(&schedule, &history(750), now), rhythm);
    let large = Some((Kind::Full, Reason::LargeDifferential));
    assert_eq!(one(&schedule, &history(751), now), large);
}

#[test]
fn after_downtime_the_missed_backups_are_caught_up_by_one() {
    let schedule = schedule("a");
    let before = at("2026-11-01T00:00:00Z");
    let now = at("2026-11-25T12:00:00Z");
    let mut history = History {
        full: taken(before, 1000),
        ..History::default()
    };
    assert_eq!(
        one(&schedule, &history, now),
        Some((Kind::Full, Reason::Weekly))
    );
    history.full = taken(now, 1000);
    assert_eq!(one(&schedule, &history, now), None);
}

#[test]
fn what_is_dated_ahead_of_a_clock_that_was_set_back_is_not_waited_for() {
    let (schedule, now) = (schedule("a"), at("2026-11-25T12:00:00Z"));
    let year = hours(24 * 365);
    let mut history = History {
        full: taken(now + year, 100),
        failures: 3,
        failed_at: Some(now + year),
        ..History::default()
    };
    let found = one(&schedule, &history, now);
    assert_eq!(found, Some((Kind::Full, Reason::DatedAhead)));
    history.full = taken(now - hours(13), 100);
    history.differential = taken(now + year, 10);
    let found = one(&schedule, &history, now);
    assert_eq!(found, Some((Kind::Differential, Reason::Rhythm)));
    // A small step is waited for.
    history.full = taken(now + hours(1), 100);
    history.differential = None;
    assert_eq!(one(&schedule, &history, now), None);
}

#[test]
fn failures_are_tried_again_after_pauses_that_grow_to_an_hour() {
    let schedule = schedule("a");
    let failed = at("2026-11-25T12:00:00Z");
    for (failures, pause_s) in [
        (1, 60),
        (2, 120),
        (5, 960),
        (7, 3600),
        (4_000_000_000, 3600),
    ] {
        let history = History {
            failures,
            failed_at: Some(failed),
            ..History::default()
        };
        let again = failed + SignedDuration::from_secs(pause_s);
        let early = again - SignedDuration::from_secs(1);
        assert_eq!(one(&schedule, &history, early), None, "{failures}");
        assert!(one(&schedule, &history, again).is_some(), "{failures}");
        assert_eq!(next_look([(&schedule, &history)], early), Some(again));
    }
}

#[test]
fn an_unprotected_instance_goes_before_those_that_wait_longer() {
    let now = at("2026-11-25T12:00:00Z");
    let (old, new) = (schedule("a"), schedule("z"));
    let waiting = History {
        full: taken(at("2026-01-01T00:00:00Z"), 1),
        ..History::default()
    };
    let fresh = History::default();
    let found = due([(&old, &waiting), (&new, &fresh)], ONE, now);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].instance, new.instance);
    // One that has failed often keeps no other waiting.
    let failing = History {
        failures: 3,
        ..History::default()
    };
    let found = due([(&old, &waiting), (&new, &failing)], ONE, now);
    assert_eq!(found[0].instance, old.instance);
    let third = schedule("m");
    let found = due([(&third, &fresh), (&new, &failing)], ONE, now);
    assert_eq!(found[0].instance, third.instance);
}

/// A simulation: backups take `minutes`, and the service asks every `step_minutes` and looks at nothing else.
struct Simulation {
    schedules: Vec<Schedule>,
    histories: Vec<History>,
    ends: Vec<Option<(Timestamp, Timestamp, Kind)>>,
    limits: Limits,
    begun: BTreeMap<(Kind, Reason), usize>,
    most_at_once: usize,
}

impl Simulation {
    fn new(count: usize, limits: Limits) -> Self {
        Self {
            schedules: (0..count).map(|n| schedule(&format!("i{n}"))).collect(),
            histories: vec![History::default(); count],
            ends: vec![None; count],
            limits,
            begun: BTreeMap::new(),
            most_at_once: 0,
        }
    }

    fn step(&mut self, now: Timestamp, lasting: SignedDuration) {
        for (history, end) in self.histories.iter_mut().zip(&mut self.ends) {
            if let Some((ended, started, kind)) = *end
                && ended <= now
            {
                match kind {
                    Kind::Full => history.full = taken(started, 1000),
                    Kind::Differential => history.differential = taken(started, 100),
                }
                history.running = Running::No;
                *end = None;
            }
        }
        let found = due(self.schedules.iter().zip(&self.histories), self.limits, now);
        for item in found {
            let index: usize = item.instance.as_str()[1..].parse().unwrap();
            assert_eq!(self.histories[index].running, Running::No);
            self.histories[index].running = Running::Yes;
            self.ends[index] = Some((now + lasting, now, item.kind));
            *self.begun.entry((item.kind, item.reason)).or_default() += 1;
        }
        let running = self.ends.iter().flatten().count();
        self.most_at_once = self.most_at_once.max(running);
    }
}

#[test]
fn ten_thousand_instances_keep_their_rhythm_over_three_weeks_within_the_limit() {
    let limits = Limits {
        backups_at_once: 600,
    };
    let mut simulation = Simulation::new(10_000, limits);
    let begin = at("2026-11-02T07:00:00Z");
    let step = SignedDuration::from_mins(20);
    // The first backups of so many take 17 rounds of 600.
    let settled = begin + hours(12);
    let mut now = begin;
    while now < begin + hours(24 * 21) {
        simulation.step(now, step);
        if now > settled {
            for (schedule, history) in simulation.schedules.iter().zip(&simulation.histories) {
                let full = history.full.unwrap().started_at;
                let last = history
                    .differential
                    .map_or(full, |last| last.started_at.max(full));
                let name = &schedule.instance;
                // A week, and what the limit and the steps cost.
                assert!(
                    now.duration_since(full) <= hours(7 * 24 + 3),
                    "{name} {now}"
                );
                assert!(now.duration_since(last) <= hours(12 + 3), "{name} {now}");
            }
        }
        now += step;
    }
    assert!(simulation.most_at_once <= 600);
    let begun = |kind, reason| *simulation.begun.get(&(kind, reason)).unwrap_or(&0);
    assert_eq!(begun(Kind::Full, Reason::First), 10_000);
    assert_eq!(begun(Kind::Full, Reason::Weekly), 30_000);
    let differentials = begun(Kind::Differential, Reason::Rhythm);
    assert!(
        (360_000..=420_000).contains(&differentials),
        "{differentials}"
    );
}

#[test]
fn weekly_fulls_are_spread_over_their_window() {
    let mut per_hour = BTreeMap::<i64, usize>::new();
    let now = at("2026-11-25T12:00:00Z");
    for number in 0..6000 {
        let moment = schedule(&format!("host-{number}")).full.latest(now);
        *per_hour.entry(moment.as_second() / 3600).or_default() += 1;
    }
    assert_eq!(per_hour.len(), 6, "the window lasts six hours");
    assert!(
        per_hour.values().all(|count| (850..1150).contains(count)),
        "{per_hour:?}"
    );
}

proptest! {
    #[test]
    fn never_more_than_the_limit_and_never_the_same_instance_twice(
        count in 0_usize..40, running in 0_usize..40, limit in 0_usize..20, age_hours in 0_i64..400
    ) {
        let now = at("2026-11-25T12:00:00Z");
        let schedules: Vec<_> = (0..count).map(|n| schedule(&format!("i{n}"))).collect();
        let histories: Vec<_> = (0..count).map(|n| History {
            full: (n % 3 > 0).then(|| taken(now - hours(age_hours), 10)).flatten(),
            running: if n < running { Running::Yes } else { Running::No },
            ..History::default()
        }).collect();
        let found = due(schedules.iter().zip(&histories), Limits { backups_at_once: limit }, now);
        let runs = running.min(count);
        prop_assert!(found.len() + runs <= limit.max(runs));
        let names: std::collections::BTreeSet<_> = found.iter().map(|due| &due.instance).collect();
        prop_assert_eq!(names.len(), found.len());
        for item in &found {
            let index: usize = item.instance.as_str()[1..].parse().unwrap();
            prop_assert_eq!(histories[index].running, Running::No);
        }
    }
}
