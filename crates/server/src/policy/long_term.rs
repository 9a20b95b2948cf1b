//! Long-term retention: which full backups are kept as copies of their own, and until when.
//!
//! The first full backup of each week is kept for the weekly period, the first of each month for the monthly
//! one, and the first from the chosen week of each year on for the yearly one. When none ended in that week, the first
//! of the three behind it serves: a year is not to be without its copy because of a bad week. Where one backup serves several
//! periods there is one copy, kept for the longest. A policy touches copies made under it, never earlier ones.
//! Weeks are those of ISO 8601; all is reckoned in UTC.

use everpoint_repository::long_term::CopyReason;
use jiff::{
    Timestamp, ToSpan,
    civil::{Date, ISOWeekDate, Weekday},
    tz::TimeZone,
};

use super::period::Period;

/// So many weeks, the chosen one included, have a full backup that serves as a year's copy.
const YEARLY_WEEKS: i64 = 4;

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

    /// The days on which a full backup may end to serve as the copy of a year: the first of them, if `date` is one.
    pub(super) fn first_day(self, date: Date) -> Option<Date> {
        // At most 52.
        let week = i8::try_from(self.0).unwrap_or(i8::MAX);
        let year = date.iso_week_date().year();
        // Those of the last weeks reach into the next year.
        let first_days = [year, year - 1].map(|year| {
            let monday = ISOWeekDate::new(year, week, Weekday::Monday).ok()?;
            let monday = monday.date();
            let end = monday.checked_add(YEARLY_WEEKS.weeks()).ok()?;
            (monday <= date && date < end).then_some(monday)
        });
        first_days.into_iter().flatten().next()
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
        let first = |reason: CopyReason, from: Date| {
            !earlier
                .iter()
                .filter(|copy| copy.taken < taken && copy.reasons.contains(&reason))
                .any(|copy| date_of(copy.taken) >= from)
        };
        let week = date.iso_week_date();
        let monday = ISOWeekDate::new(week.year(), week.week(), Weekday::Monday);
        let monday = monday.map_or(date, ISOWeekDate::date);
        let yearly = self.yearly.and_then(|(period, week)| {
            let from = week.first_day(date)?;
            Some((CopyReason::Yearly, period, from))
        });
        let periods = [
            Some((CopyReason::Weekly, self.weekly, monday)),
            Some((CopyReason::Monthly, self.monthly, date.first_of_month())),
            yearly,
        ];
        let mut kept: Option<Kept> = None;
        for (reason, period, from) in periods.into_iter().flatten() {
            if !period.is_none() && first(reason, from) {
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

    /// Else there would be no copy of the year, and nobody would know before it is asked for.
    #[test]
    fn a_year_whose_week_has_no_full_has_its_copy_of_the_next_one() {
        let policy = policy("PT0S", "PT0S", "P5Y", Some(52));
        let keeps = |text: &str, earlier: &[EarlierCopy]| policy.keep(at(text), earlier).is_some();
        // Week 52 of 2026 begins on December 21st.
        assert!(!keeps("2026-12-20T23:59:59Z", &[]));
        assert!(keeps("2026-12-21T00:00:00Z", &[]));
        assert!(keeps("2027-01-17T23:59:59Z", &[]));
        assert!(!keeps("2027-01-18T00:00:00Z", &[]));
        let late = EarlierCopy {
            taken: at("2027-01-03T01:00:00Z"),
            reasons: vec![CopyReason::Yearly],
        };
        assert!(!keeps("2027-01-10T01:00:00Z", std::slice::from_ref(&late)));
        assert!(
            keeps("2027-12-28T01:00:00Z", &[late]),
            "that is another year's"
        );
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
