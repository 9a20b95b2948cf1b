//! Whether the clock may be believed. One that jumps ahead makes everything look old, and what is forgotten then is gone
//! when it is put right.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};

/// How much further than what passed a clock may go between two looks.
const STEP: SignedDuration = SignedDuration::from_hours(1);
/// How long a clock that was set forward is not believed: as long as somebody may need to notice.
const DISTRUST: Duration = Duration::from_secs(24 * 3600);

/// How old what was stored last may be when it is met. Either nothing was backed up since, or the clock is wrong.
const AGE_AT_FIRST: SignedDuration = SignedDuration::from_hours(24);

/// Watches the clock.
#[derive(Debug, Default)]
pub(super) struct Clock(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: Option<(Instant, Timestamp)>,
    /// When it was set forward, and by how much, as far as it was not put back since.
    forward: Option<(Instant, SignedDuration)>,
    /// When something that is stored was met first, and the latest of all that was.
    met: Option<(Instant, Timestamp, Timestamp)>,
}

impl Clock {
    /// Looks at it, which is to be done every minute or so. False for a day after it was set forward: what its time
    /// makes look old may not be forgotten meanwhile.
    pub(super) fn is_believed(&self) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.look(Instant::now(), Timestamp::now())
    }

    /// Compares it with the latest time that is stored of an instance that is met. When the latest of all instances is
    /// more than a day old, it is not believed for a day; one that is not backed up any more is of no matter.
    pub(super) fn meet(&self, latest: Timestamp) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ahead) = state.meet(Instant::now(), Timestamp::now(), latest) {
            tracing::warn!(
                "the clock is {ahead:#} ahead of the latest that is stored of the instances met so far. In case it is wrong, nothing is forgotten for a day"
            );
        }
    }

    /// Compares it with a time that should be about now, such as another machine's. One that is ahead is not believed for
    /// a day.
    pub(super) fn compare(&self, with: Timestamp, whose: &str, most: SignedDuration) {
        let ahead = Timestamp::now().duration_since(with);
        if ahead <= most {
            return;
        }
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = state.forward.replace((Instant::now(), SignedDuration::MAX));
        if before.is_none() {
            tracing::error!(
                "the clock is {ahead:#} ahead of {whose}. In case it is wrong, nothing is forgotten for a day"
            );
        }
    }
}

impl State {
    fn meet(
        &mut self,
        instant: Instant,
        time: Timestamp,
        latest: Timestamp,
    ) -> Option<SignedDuration> {
        let (_, first, known) = self.met.get_or_insert((instant, time, latest));
        *known = latest.max(*known);
        let ahead = first.duration_since(*known);
        (ahead > AGE_AT_FIRST).then_some(ahead)
    }

    fn look(&mut self, instant: Instant, time: Timestamp) -> bool {
        if let Some((then, before)) = self.last.replace((instant, time)) {
            let passed = SignedDuration::try_from(instant.duration_since(then));
            let step = time.duration_since(before) - passed.unwrap_or(SignedDuration::MAX);
            if step > STEP {
                tracing::error!(
                    "the clock was set forward by {step:#}. In case it is wrong, nothing is forgotten for a day"
                );
                let before = self.forward.map_or(SignedDuration::ZERO, |(_, by)| by);
                self.forward = Some((instant, before.saturating_add(step)));
            } else if let Some((_, by)) = &mut self.forward
                && step < -STEP
            {
                *by = by.saturating_add(step);
            }
        }
        self.forward = self
            .forward
            .filter(|(forward, by)| *by > STEP && instant.duration_since(*forward) < DISTRUST);
        let is_old = self.met.is_some_and(|(met, time, latest)| {
            time.duration_since(latest) > AGE_AT_FIRST && instant.duration_since(met) < DISTRUST
        });
        self.forward.is_none() && !is_old
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn of_the_instances_that_are_met_the_one_that_was_stored_last_counts() {
        let (start, time) = (Instant::now(), Timestamp::UNIX_EPOCH);
        let ago = |hours: i64| time - SignedDuration::from_hours(hours);
        let mut state = State::default();
        assert!(state.look(start, time));
        assert!(state.meet(start, time, ago(24 * 90)).is_some());
        assert!(!state.look(start, time), "nothing newer was met");
        let next = start + MINUTE;
        assert_eq!(state.meet(next, time, ago(2)), None);
        assert!(state.look(next, time), "one is not backed up any more");
        let mut state = State::default();
        assert!(state.meet(start, time, ago(25)).is_some());
        assert!(!state.look(start, time));
        assert!(state.look(start + DISTRUST, time + SignedDuration::from_hours(24)));
    }

    #[test]
    fn a_clock_that_was_set_forward_is_believed_when_it_is_put_right_or_a_day_has_passed() {
        let (start, time) = (Instant::now(), Timestamp::UNIX_EPOCH);
        let year = SignedDuration::from_hours(24 * 365);
        let minutes = |number: i64| time + SignedDuration::from_mins(number);
        let after = |number: u32| start + MINUTE * number;
        let mut state = State::default();
        assert!(state.look(start, time));
        assert!(state.look(after(1), minutes(2)), "a small step is none");
        assert!(!state.look(after(2), minutes(2) + year));
        assert!(!state.look(after(3), minutes(3) + year));
        let hours = SignedDuration::from_hours(2);
        assert!(
            !state.look(after(3), minutes(3) + year - hours),
            "only a part"
        );
        assert!(state.look(after(4), minutes(4)), "it was put right");
        assert!(!state.look(after(5), minutes(5) + year));
        assert!(!state.look(after(24 * 60 + 4), minutes(24 * 60 + 4) + year));
        assert!(state.look(after(24 * 60 + 5), minutes(24 * 60 + 5) + year));
    }
}
