//! Recurring moments: a window in the week, a rhythm in the day, each with a place of the instance's own.

use std::time::Duration;

use everpoint_repository::InstanceName;
use jiff::{Timestamp, civil::Weekday};

const MINUTE_S: i64 = 60;
const DAY_S: i64 = 24 * 60 * MINUTE_S;
const WEEK_S: i64 = 7 * DAY_S;
/// 1970-01-01 was a Thursday: the first Monday lies so long behind the epoch.
const FIRST_MONDAY_S: i64 = 4 * DAY_S;

/// A window of every week in UTC, and the instance's second in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Seconds from Monday 00:00 to the instance's moment.
    offset_s: i64,
}

/// The window cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// It has no such beginning.
    #[error("a window begins at 0 to 1439 minutes of its day, not {minute}")]
    Minute {
        /// As given.
        minute: u16,
    },
    /// It is too short or too long.
    #[error("a window lasts 1 minute to 7 days, not {length_s} s")]
    Length {
        /// As given.
        length_s: u64,
    },
    /// It is too short or too long.
    #[error("a differential is taken every 1 minute to 7 days, not every {every_s} s")]
    Rhythm {
        /// As given.
        every_s: u64,
    },
}

impl Window {
    /// A window that begins on `weekday` at `minute` of the day and lasts `length`. Each instance has its
    /// moment in it, drawn from its name, so that a host's instances do not begin at once and the moment is
    /// the same every week.
    ///
    /// # Errors
    /// When the minute is not one of a day, or the length is not within 1 minute and 7 days.
    pub fn new(
        weekday: Weekday,
        minute: u16,
        length: Duration,
        instance: &InstanceName,
    ) -> Result<Self, WindowError> {
        if minute >= 1440 {
            return Err(WindowError::Minute { minute });
        }
        let length_s = seconds_within_a_week(length).ok_or(WindowError::Length {
            length_s: length.as_secs(),
        })?;
        let day = i64::from(weekday.to_monday_zero_offset());
        let begin = day * DAY_S + i64::from(minute) * MINUTE_S;
        Ok(Self {
            offset_s: begin + place(instance, "full", length_s),
        })
    }

    /// The last of its moments at or before `now`.
    pub fn latest(&self, now: Timestamp) -> Timestamp {
        latest(FIRST_MONDAY_S + self.offset_s, WEEK_S, now)
    }

    /// The first of its moments behind `now`.
    pub fn next(&self, now: Timestamp) -> Timestamp {
        next(self.latest(now), WEEK_S)
    }
}

/// Moments at equal distances, shifted by the instance's own share of the distance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rhythm {
    every_s: i64,
    offset_s: i64,
}

impl Rhythm {
    /// Moments at a distance of `every`.
    ///
    /// # Errors
    /// When that is not within 1 minute and 7 days.
    pub fn new(every: Duration, instance: &InstanceName) -> Result<Self, WindowError> {
        let every_s = seconds_within_a_week(every).ok_or(WindowError::Rhythm {
            every_s: every.as_secs(),
        })?;
        Ok(Self {
            every_s,
            offset_s: place(instance, "differential", every_s),
        })
    }

    /// The last of its moments at or before `now`.
    pub fn latest(&self, now: Timestamp) -> Timestamp {
        latest(self.offset_s, self.every_s, now)
    }

    /// The first of its moments behind `now`.
    pub fn next(&self, now: Timestamp) -> Timestamp {
        next(self.latest(now), self.every_s)
    }
}

fn seconds_within_a_week(length: Duration) -> Option<i64> {
    let seconds = i64::try_from(length.as_secs()).ok()?;
    (MINUTE_S..=WEEK_S).contains(&seconds).then_some(seconds)
}

/// A number below `below` that follows from the instance's name alone.
fn place(instance: &InstanceName, purpose: &str, below: i64) -> i64 {
    let hash = blake3::hash(format!("{purpose}/{instance}").as_bytes());
    let mut bytes = [0; 8];
    for (to, from) in bytes.iter_mut().zip(hash.as_bytes()) {
        *to = *from;
    }
    let number = i64::from_le_bytes(bytes) & i64::MAX;
    number.checked_rem(below).unwrap_or(0)
}

fn latest(first_s: i64, every_s: i64, now: Timestamp) -> Timestamp {
    let behind = (now.as_second() - first_s)
        .checked_rem_euclid(every_s)
        .unwrap_or(0);
    Timestamp::from_second(now.as_second() - behind).unwrap_or(Timestamp::MIN)
}

fn next(latest: Timestamp, every_s: i64) -> Timestamp {
    Timestamp::from_second(latest.as_second() + every_s).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> InstanceName {
        text.parse().unwrap()
    }

    #[test]
    fn a_window_of_one_minute_begins_on_its_day() {
        let minute = Duration::from_secs(60);
        let window = Window::new(Weekday::Saturday, 90, minute, &name("a")).unwrap();
        let now: Timestamp = "2026-11-24T00:00:00Z".parse().unwrap();
        let latest = window.latest(now).to_string();
        assert!(latest.starts_with("2026-11-21T01:30:"), "{latest}");
    }

    #[test]
    fn impossible_windows_are_refused() {
        let (hour, week) = (Duration::from_secs(3600), Duration::from_secs(7 * 86_400));
        assert!(Window::new(Weekday::Monday, 1440, hour, &name("a")).is_err());
        assert!(Window::new(Weekday::Monday, 0, Duration::ZERO, &name("a")).is_err());
        assert!(Window::new(Weekday::Monday, 0, week + hour, &name("a")).is_err());
        assert!(Rhythm::new(Duration::from_secs(1), &name("a")).is_err());
    }

    proptest! {
        #[test]
        fn moments_enclose_now_and_are_a_distance_apart(second in 0_i64..4_000_000_000, every in 60_u64..604_800, who in "[a-z]{1,9}") {
            let now = Timestamp::from_second(second).unwrap();
            let rhythm = Rhythm::new(Duration::from_secs(every), &name(&who)).unwrap();
            let (latest, next) = (rhythm.latest(now), rhythm.next(now));
            prop_assert!(latest <= now && now < next);
            prop_assert_eq!(next.as_second() - latest.as_second(), i64::try_from(every).unwrap());
            prop_assert_eq!(rhythm.latest(next), next);
            let window = Window::new(Weekday::Sunday, 0, Duration::from_secs(every), &name(&who)).unwrap();
            prop_assert!(window.latest(now) <= now && now < window.next(now));
        }
    }
}
