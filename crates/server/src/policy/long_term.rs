//! Long-term retention: which full backups are kept as copies of their own, and until when.
//!
//! The first full backup of each week is kept for the weekly period, the first of each month for the monthly
//! one, and the first of the chosen week of each year for the yearly one. Where one backup serves several
//! periods there is one copy, kept for the longest. A policy touches copies made under it, never earlier ones.
//! Weeks are those of ISO 8601; all is reckoned in UTC.

use everpoint_repository::long_term::CopyReason;
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

    fn number(self) -> i8 {
        // At most 52.
        i8::try_from(self.0).unwrap_or(i8::MAX)
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

    /// How long weekly copies are kept.
    pub const fn weekly(&self) -> Period {
        self.weekly
    }

    /// How long monthly copies are kept.
    pub const fn monthly(&self) -> Period {
        self.monthly
    }

    /// How long yearly copies are kept, and of which week they are.
    pub const fn yearly(&self) -> Option<(Period, WeekOfYear)> {
        self.yearly
    }

    /// For which periods a full backup that ended at `taken` is kept as a copy, and until when, where `earlier`
    /// are the copies made of full backups before. None: no copy of it is kept.
    pub fn keep(&self, taken: Timestamp, earlier: &[EarlierCopy]) -> Option<Kept> {
        let date = date_of(taken);
        let first = |reason: CopyReason| {
            !earlier
                .iter()
                .filter(|copy| copy.taken < taken && copy.reasons.contains(&reason))
                .any(|copy| same_period(reason, date_of(copy.taken), date))
        };
        let periods = [
            Some((CopyReason::Weekly, self.weekly)),
            Some((CopyReason::Monthly, self.monthly)),
            self.yearly
                .filter(|(_, week)| date.iso_week_date().week() == week.number())
                .map(|(period, _)| (CopyReason::Yearly, period)),
        ];
        let mut kept: Option<Kept> = None;
        for (reason, period) in periods.into_iter().flatten() {
            if !period.is_none() && first(reason) {
                let until = period.after(taken);
                let kept = kept.get_or_insert_with(|| Kept {
                    reasons: Vec::new(),
                    until,
                });
                kept.reasons.push(reason);
                kept.until = kept.until.max(until);
            }
        }
        kept
    }
}

/// A copy that was made before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EarlierCopy {
    /// When the backup ended that it was made of.
    pub taken: Timestamp,
    /// The periods it stands for. A copy that somebody asked for stands for none.
    pub reasons: Vec<CopyReason>,
}

/// What a copy is kept for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The periods it stands for; never none.
    pub reasons: Vec<CopyReason>,
    /// Until when: the end of the longest of them.
    pub until: Timestamp,
}

/// Whether two days lie in the same week, month or year of weeks.
fn same_period(reason: CopyReason, one: Date, other: Date) -> bool {
    let (one_week, other_week) = (one.iso_week_date(), other.iso_week_date());
    match reason {
        CopyReason::Weekly => {
            (one_week.year(), one_week.week()) == (other_week.year(), other_week.week())
        }
        CopyReason::Monthly => (one.year(), one.month()) == (other.year(), other.month()),
        CopyReason::Yearly => one_week.year() == other_week.year(),
    }
}

fn date_of(time: Timestamp) -> Date {
    time.to_zoned(TimeZone::UTC).date()
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

    /// Sundays of a year, as weekly full backups end, and what the policy keeps each for.
    fn a_year(policy: &LongTermPolicy) -> Vec<(Timestamp, Kept)> {
        let mut earlier: Vec<EarlierCopy> = Vec::new();
        let mut all = Vec::new();
        for week in 0..52 {
            let taken = at("2026-01-04T01:00:00Z") + jiff::SignedDuration::from_hours(week * 168);
            if let Some(kept) = policy.keep(taken, &earlier) {
                let reasons = kept.reasons.clone();
                earlier.push(EarlierCopy { taken, reasons });
                all.push((taken, kept));
            }
        }
        all
    }

    #[test]
    fn a_monthly_policy_keeps_the_first_full_of_every_month() {
        let kept = a_year(&policy("PT0S", "P1Y", "PT0S", None));
        assert_eq!(kept.len(), 12);
        assert_eq!(kept[1].0, at("2026-02-01T01:00:00Z"));
        assert_eq!(kept[1].1.until, at("2027-02-01T01:00:00Z"));
    }

    #[test]
    fn a_yearly_policy_keeps_the_full_of_its_week() {
        let kept = a_year(&policy("PT0S", "PT0S", "P5Y", Some(20)));
        let only = Kept {
            reasons: vec![CopyReason::Yearly],
            until: at("2031-05-17T01:00:00Z"),
        };
        assert_eq!(kept, [(at("2026-05-17T01:00:00Z"), only)]);
    }

    #[test]
    fn a_full_that_is_several_copies_in_one_is_kept_for_the_longest_period() {
        let kept = a_year(&policy("P2W", "P3M", "P10Y", Some(1)));
        assert_eq!(kept.len(), 52);
        let all = [CopyReason::Weekly, CopyReason::Monthly, CopyReason::Yearly];
        assert_eq!(kept[0].1.reasons, all);
        assert_eq!(kept[0].1.until, at("2036-01-04T01:00:00Z"));
        assert_eq!(kept[1].1.reasons, [CopyReason::Weekly]);
        assert_eq!(kept[1].1.until, at("2026-01-25T01:00:00Z"));
    }

    #[test]
    fn a_second_full_in_a_week_is_no_weekly_copy() {
        let policy = policy("P2W", "PT0S", "PT0S", None);
        let monday = at("2026-06-01T01:00:00Z");
        assert!(policy.keep(monday, &[]).is_some());
        let sunday = at("2026-06-07T01:00:00Z");
        let weekly = |reasons| EarlierCopy {
            taken: monday,
            reasons,
        };
        assert_eq!(
            policy.keep(sunday, &[weekly(vec![CopyReason::Weekly])]),
            None
        );
        // Neither a copy that somebody asked for nor one for another period is the week's.
        for reasons in [vec![], vec![CopyReason::Monthly]] {
            assert!(policy.keep(sunday, &[weekly(reasons)]).is_some());
        }
    }

    #[test]
    fn a_yearly_period_needs_its_week() {
        let year = Period::parse("P1Y").unwrap();
        let refused = LongTermPolicy::new(Period::NONE, Period::NONE, year, None);
        assert_eq!(refused, Err(LongTermPolicyError::YearlyWithoutWeek));
        assert!(WeekOfYear::new(0).is_err() && WeekOfYear::new(53).is_err());
    }
}
