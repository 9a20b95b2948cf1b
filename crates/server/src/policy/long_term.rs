//! Long-term retention: which full backups are kept as copies of their own, and until when.
//!
//! The first full backup of each week is kept for the weekly period, the first of each month for the monthly
//! one, and the first of the chosen week of each year for the yearly one. A policy touches copies made under
//! it, never earlier ones. Weeks are those of ISO 8601; all is reckoned in UTC.

use jiff::{Timestamp, civil::Date, tz::TimeZone};

use super::period::Period;

/// A week of the year: 1 to 52.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WeekOfYear(u8);

impl WeekOfYear {
    /// From its number.
    ///
    /// # Errors
    /// When it is not 1 to 52.
    pub fn new(number: i64) -> Result<Self, LongTermPolicyError> {
        match u8::try_from(number) {
            Ok(week @ 1..=52) => Ok(Self(week)),
            _ => Err(LongTermPolicyError::WeekOfYear { number }),
        }
    }

    /// Its number.
    pub const fn get(self) -> u8 {
        self.0
    }
}

/// The policy cannot be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LongTermPolicyError {
    /// There is no such week in every year.
    #[error("the week of the year is 1 to 52, not {number}")]
    WeekOfYear {
        /// As asked for.
        number: i64,
    },
    /// Yearly copies of which week?
    #[error("yearly retention needs a week of the year, 1 to 52")]
    YearlyWithoutWeek,
}

/// How long weekly, monthly and yearly copies of a database are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LongTermPolicy {
    weekly: Period,
    monthly: Period,
    yearly: Option<(Period, WeekOfYear)>,
}

impl LongTermPolicy {
    /// A policy. A yearly period of none needs no week.
    ///
    /// # Errors
    /// When there is a yearly period and no week.
    pub fn new(
        weekly: Period,
        monthly: Period,
        yearly: Period,
        week: Option<WeekOfYear>,
    ) -> Result<Self, LongTermPolicyError> {
        let yearly = match (yearly.is_none(), week) {
            (true, _) => None,
            (false, Some(week)) => Some((yearly, week)),
            (false, None) => return Err(LongTermPolicyError::YearlyWithoutWeek),
        };
        Ok(Self {
            weekly,
            monthly,
            yearly,
        })
    }

    /// Whether no copy is kept.
    pub fn is_off(&self) -> bool {
        self.weekly.is_none() && self.monthly.is_none() && self.yearly.is_none()
    }

    /// Until when a full backup that ended at `taken` is kept as a copy, where `earlier` are the ends of
    /// full backups that copies were made of before. None: no copy of it is kept.
    pub fn keep_until(&self, taken: Timestamp, earlier: &[Timestamp]) -> Option<Timestamp> {
        let date = date_of(taken);
        let first_of = |same: &dyn Fn(Date) -> bool| {
            !earlier
                .iter()
                .filter(|other| **other < taken)
                .any(|other| same(date_of(*other)))
        };
        let week = |date: Date| (date.iso_week_date().year(), date.iso_week_date().week());
        let month = |date: Date| (date.year(), date.month());
        let first_of_week = first_of(&|other| week(other) == week(date));
        let first_of_month = first_of(&|other| month(other) == month(date));
        let weekly = (first_of_week && !self.weekly.is_none()).then_some(self.weekly);
        let monthly = (first_of_month && !self.monthly.is_none()).then_some(self.monthly);
        let yearly = self
            .yearly
            .filter(|(_, chosen)| {
                first_of_week && i16::from(date.iso_week_date().week()) == i16::from(chosen.get())
            })
            .map(|(period, _)| period);
        [weekly, monthly, yearly]
            .into_iter()
            .flatten()
            .map(|period| period.after(taken))
            .max()
    }
}

fn date_of(time: Timestamp) -> Date {
    time.to_zoned(TimeZone::UTC).date()
}

/// Whether a copy may be deleted at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LegalHold {
    /// It goes when its time is over.
    Released,
    /// It stays whatever its time says, until released.
    Held,
}

/// When a copy may go: never while it is held.
pub fn expires_at(keep_until: Timestamp, hold: LegalHold) -> Option<Timestamp> {
    match hold {
        LegalHold::Released => Some(keep_until),
        LegalHold::Held => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn policy(weekly: &str, monthly: &str, yearly: &str, week: Option<i64>) -> LongTermPolicy {
        let period = |text| Period::parse(text).unwrap();
        let week = week.map(|week| WeekOfYear::new(week).unwrap());
        LongTermPolicy::new(period(weekly), period(monthly), period(yearly), week).unwrap()
    }

    /// Sundays of a year, as weekly full backups end, and until when the policy keeps each.
    fn a_year(policy: &LongTermPolicy) -> Vec<(Timestamp, Timestamp)> {
        let mut fulls: Vec<Timestamp> = Vec::new();
        let mut kept = Vec::new();
        for week in 0..52 {
            let taken = at("2026-01-04T01:00:00Z") + jiff::SignedDuration::from_hours(week * 168);
            if let Some(until) = policy.keep_until(taken, &fulls) {
                kept.push((taken, until));
            }
            fulls.push(taken);
        }
        kept
    }

    #[test]
    fn a_monthly_policy_keeps_the_first_full_of_every_month() {
        let kept = a_year(&policy("PT0S", "P1Y", "PT0S", None));
        assert_eq!(kept.len(), 12);
        assert_eq!(
            kept[1],
            (at("2026-02-01T01:00:00Z"), at("2027-02-01T01:00:00Z"))
        );
    }

    #[test]
    fn a_yearly_policy_keeps_the_full_of_its_week() {
        let kept = a_year(&policy("PT0S", "PT0S", "P5Y", Some(20)));
        assert_eq!(
            kept,
            [(at("2026-05-17T01:00:00Z"), at("2031-05-17T01:00:00Z"))]
        );
    }

    #[test]
    fn a_full_that_is_several_copies_in_one_is_kept_for_the_longest_period() {
        let kept = a_year(&policy("P2W", "P3M", "P10Y", Some(1)));
        assert_eq!(kept.len(), 52);
        assert_eq!(kept[0].1, at("2036-01-04T01:00:00Z"));
        assert_eq!(kept[1].1, at("2026-01-25T01:00:00Z"));
    }

    #[test]
    fn a_second_full_in_a_week_is_no_weekly_copy() {
        let policy = policy("P2W", "PT0S", "PT0S", None);
        let monday = at("2026-06-01T01:00:00Z");
        assert!(policy.keep_until(monday, &[]).is_some());
        let sunday = at("2026-06-07T01:00:00Z");
        assert_eq!(policy.keep_until(sunday, &[monday]), None);
    }

    #[test]
    fn a_yearly_period_needs_its_week() {
        let year = Period::parse("P1Y").unwrap();
        let refused = LongTermPolicy::new(Period::NONE, Period::NONE, year, None);
        assert_eq!(refused, Err(LongTermPolicyError::YearlyWithoutWeek));
        assert!(WeekOfYear::new(0).is_err() && WeekOfYear::new(53).is_err());
    }

    #[test]
    fn a_held_copy_never_expires() {
        let until = at("2026-06-07T01:00:00Z");
        assert_eq!(expires_at(until, LegalHold::Held), None);
        assert_eq!(expires_at(until, LegalHold::Released), Some(until));
    }
}
