//! Short-term retention: how many days back a database can be restored to any moment.

use std::fmt;

use jiff::{SignedDuration, Timestamp};

/// Days of short-term retention: 1 to 35 of a living database, 0 to 35 of a deleted one, where 0 means that
/// its backups are purged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RetentionDays(u8);

/// The number of days cannot be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShortTermError {
    /// Not a retention a living database may have.
    #[error("a database's retention is 1 to 35 days, not {days}")]
    OutOfRange {
        /// As asked for.
        days: i64,
    },
    /// Not a retention this deleted database may have.
    #[error(
        "a deleted database's retention can only be shortened: 0 to {current} days, not {days}. 0 purges its backups"
    )]
    Lengthened {
        /// As asked for.
        days: i64,
        /// What holds now.
        current: RetentionDays,
    },
}

impl RetentionDays {
    /// What a new database gets.
    pub const DEFAULT: Self = Self(7);
    /// The longest.
    pub const LONGEST: Self = Self(35);

    /// Of a living database.
    ///
    /// # Errors
    /// When it is not 1 to 35.
    pub fn of_living(days: i64) -> Result<Self, ShortTermError> {
        match u8::try_from(days) {
            Ok(number @ 1..=35) => Ok(Self(number)),
            _ => Err(ShortTermError::OutOfRange { days }),
        }
    }

    /// Of a deleted database that has `current` now.
    ///
    /// # Errors
    /// When it is negative or longer than `current`.
    pub fn of_deleted(days: i64, current: Self) -> Result<Self, ShortTermError> {
        match u8::try_from(days) {
            Ok(number) if number <= current.0 => Ok(Self(number)),
            _ => Err(ShortTermError::Lengthened { days, current }),
        }
    }

    /// The number of days.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// Whether nothing is kept any more.
    pub const fn is_purge(self) -> bool {
        self.0 == 0
    }

    /// The earliest moment that is still kept at `now`.
    pub fn window_start(self, now: Timestamp) -> Timestamp {
        let days = SignedDuration::from_hours(i64::from(self.0) * 24);
        now.checked_sub(days).unwrap_or(Timestamp::MIN)
    }
}

impl fmt::Display for RetentionDays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A change of retention, and what it costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShortTermChange {
    /// What held before.
    pub from: RetentionDays,
    /// What holds from now on.
    pub to: RetentionDays,
}

/// Moments that a shorter retention gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortening {
    /// The first moment that is lost.
    pub from: Timestamp,
    /// The first moment that stays.
    pub to: Timestamp,
}

impl ShortTermChange {
    /// What could be restored at `now` and cannot be after the change, where `earliest` is the earliest point
    /// there is. Lengthening gives up nothing, and brings back nothing.
    pub fn loses(&self, earliest: Timestamp, now: Timestamp) -> Option<Shortening> {
        let from = self.from.window_start(now).max(earliest);
        let to = self.to.window_start(now);
        (from < to).then_some(Shortening { from, to })
    }
}

/// How far back an instance's backups must reach, so that each database's window is kept: a full backup
/// holds all of them. None when no database wants anything kept.
///
/// `living` are the retentions of living databases, `deleted` those of deleted ones with the moment each was
/// deleted: a moment counts from now, so a deleted database wants nothing once its deletion is longer ago.
pub fn instance_retention(
    living: impl IntoIterator<Item = RetentionDays>,
    deleted: impl IntoIterator<Item = (RetentionDays, Timestamp)>,
    now: Timestamp,
) -> Option<RetentionDays> {
    let still_wanted = deleted
        .into_iter()
        .filter(|(days, deleted_at)| !days.is_purge() && *deleted_at >= days.window_start(now))
        .map(|(days, _)| days);
    living.into_iter().chain(still_wanted).max()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn days(number: i64) -> RetentionDays {
        RetentionDays::of_living(number).unwrap()
    }

    #[test]
    fn a_living_database_keeps_1_to_35_days() {
        for refused in [i64::MIN, -1, 0, 36, 256, 257, i64::MAX] {
            let error = RetentionDays::of_living(refused).unwrap_err();
            assert_eq!(error, ShortTermError::OutOfRange { days: refused });
        }
        assert_eq!(days(1).get(), 1);
        assert_eq!(days(35), RetentionDays::LONGEST);
    }

    #[test]
    fn shortening_says_which_moments_are_lost() {
        let now = at("2026-06-30T00:00:00Z");
        let change = ShortTermChange {
            from: days(14),
            to: days(3),
        };
        let lost = change.loses(at("2026-06-20T00:00:00Z"), now).unwrap();
        assert_eq!(lost.from, at("2026-06-20T00:00:00Z"));
        assert_eq!(lost.to, at("2026-06-27T00:00:00Z"));
        assert_eq!(change.loses(at("2026-06-28T00:00:00Z"), now), None);
    }

    #[test]
    fn a_deleted_database_holds_the_instances_backups_only_as_long_as_its_own_retention() {
        let now = at("2026-06-30T00:00:00Z");
        let gone = (days(30), at("2026-06-10T00:00:00Z"));
        let long_gone = (days(5), at("2026-06-10T00:00:00Z"));
        assert_eq!(instance_retention([days(7)], [gone], now), Some(days(30)));
        assert_eq!(
            instance_retention([days(7)], [long_gone], now),
            Some(days(7))
        );
        assert_eq!(instance_retention([], [long_gone], now), None);
        // Its last moment is kept as long as it lies in the window.
        let just_inside = (days(20), at("2026-06-10T00:00:00Z"));
        let wanted = instance_retention([days(7)], [just_inside], now);
        assert_eq!(wanted, Some(days(20)));
        let purged = RetentionDays::of_deleted(0, days(30)).unwrap();
        assert_eq!(instance_retention([], [(purged, now)], now), None);
    }

    proptest! {
        #[test]
        fn a_deleted_databases_retention_is_never_lengthened(current in 1_i64..=35, wanted in -50_i64..100) {
            let current = days(current);
            match RetentionDays::of_deleted(wanted, current) {
                Ok(taken) => prop_assert!(taken <= current && i64::from(taken.get()) == wanted),
                Err(_) => prop_assert!(wanted < 0 || wanted > i64::from(current.get())),
            }
        }

        #[test]
        fn lengthening_loses_nothing(from in 1_i64..=35, more in 0_i64..35, age_hours in 0_i64..2000) {
            let change = ShortTermChange { from: days(from), to: days((from + more).min(35)) };
            let now = at("2026-06-30T00:00:00Z");
            let earliest = now.checked_sub(SignedDuration::from_hours(age_hours)).unwrap();
            prop_assert_eq!(change.loses(earliest, now), None);
        }
    }
}
