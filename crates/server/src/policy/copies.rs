//! Which full backup of a database is to be copied next.

use everpoint_repository::{BackupId, long_term::CopyReason};
use jiff::{SignedDuration, Timestamp};

use super::long_term::{EarlierCopy, Kept, LongTermPolicy};

/// A full backup that holds the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Full {
    /// Its identifier.
    pub id: BackupId,
    /// When it ended.
    pub ended: Timestamp,
}

/// What is to be done with the next full backup that was not considered yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyStep {
    /// Copy it.
    Copy {
        /// It.
        full: Full,
        /// What for.
        kept: Kept,
    },
    /// It was copied, and that was not noted.
    Copied {
        /// It.
        full: Full,
        /// What for.
        reasons: Vec<CopyReason>,
    },
    /// No copy of it is kept, or one would be past its time already.
    PassOver {
        /// It.
        full: Full,
    },
}

/// What is dated further ahead than this was dated by a clock that was wrong.
const AHEAD: SignedDuration = SignedDuration::from_hours(1);
/// How far back is looked where it is not known what was considered last.
const LOOK_BACK: SignedDuration = SignedDuration::from_hours(7 * 24);

/// The step for the earliest full backup that ended behind `considered`. A backup that was taken while the
/// service was away is found like any other, as long as it is there. One that is dated ahead is not considered: those
/// behind it would not be.
pub fn next_step(
    policy: &LongTermPolicy,
    fulls: &[Full],
    earlier: &[EarlierCopy],
    considered: Timestamp,
    now: Timestamp,
) -> Option<CopyStep> {
    let is_ahead = |time: Timestamp| time.duration_since(now) > AHEAD;
    let considered = match is_ahead(considered) {
        true => now - LOOK_BACK,
        false => considered,
    };
    let new = fulls
        .iter()
        .filter(|full| full.ended > considered && !is_ahead(full.ended));
    let full = new.min_by_key(|full| full.ended)?.clone();
    let is_copy = |copy: &&EarlierCopy| copy.taken == full.ended && !copy.reasons.is_empty();
    if let Some(copy) = earlier.iter().find(is_copy) {
        let reasons = copy.reasons.clone();
        return Some(CopyStep::Copied { full, reasons });
    }
    let kept = policy.keep(full.ended, earlier);
    Some(match kept.filter(|kept| kept.until > now) {
        Some(kept) => CopyStep::Copy { full, kept },
        None => CopyStep::PassOver { full },
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policy::{Period, WeekOfYear};

    fn at(hours: i64) -> Timestamp {
        Timestamp::from_second(1_767_225_600).unwrap() + SignedDuration::from_hours(hours)
    }

    fn full(hours: i64) -> Full {
        Full {
            id: BackupId::new(at(hours), "full", 1),
            ended: at(hours),
        }
    }

    fn weekly() -> LongTermPolicy {
        let weeks = Period::parse("P4W").unwrap();
        LongTermPolicy::new(weeks, Period::NONE, Period::NONE, None).unwrap()
    }

    #[test]
    fn backups_missed_by_a_service_that_was_away_are_copied_unless_their_time_is_over() {
        let fulls: Vec<Full> = (0..8).map(|week| full(week * 168)).collect();
        let now = at(7 * 168 + 10);
        let (mut considered, mut earlier, mut copied) = (at(-1), Vec::new(), Vec::new());
        while let Some(step) = next_step(&weekly(), &fulls, &earlier, considered, now) {
            considered = match step {
                CopyStep::Copy { full, kept } => {
                    copied.push(full.clone());
                    let (taken, reasons) = (full.ended, kept.reasons);
                    earlier.push(EarlierCopy { taken, reasons });
                    full.ended
                }
                CopyStep::PassOver { full } | CopyStep::Copied { full, .. } => full.ended,
            };
        }
        assert_eq!(copied, fulls[4..]);
    }

    #[test]
    fn a_backup_that_is_dated_ahead_does_not_keep_later_ones_from_being_copied() {
        let now = at(200);
        let year = 365 * 24;
        let fulls = [full(199), full(200 + year)];
        for considered in [at(198), at(200 + year)] {
            let step = next_step(&weekly(), &fulls, &[], considered, now);
            assert!(matches!(step, Some(CopyStep::Copy { full, .. }) if full == fulls[0]));
        }
        assert_eq!(next_step(&weekly(), &fulls, &[], at(199), now), None);
    }

    #[test]
    fn a_policy_does_not_reach_back_to_backups_from_before_it() {
        let fulls = [full(0), full(168)];
        let step = next_step(&weekly(), &fulls, &[], at(100), at(200));
        let is_second = matches!(step, Some(CopyStep::Copy { full, .. }) if full == fulls[1]);
        assert!(is_second);
        assert_eq!(next_step(&weekly(), &fulls, &[], at(168), at(200)), None);
    }

    #[test]
    fn a_backup_is_not_copied_again_when_only_the_note_of_its_copy_is_missing() {
        let reasons = vec![CopyReason::Weekly];
        let made = EarlierCopy {
            taken: at(0),
            reasons: reasons.clone(),
        };
        let full = full(0);
        let step = next_step(
            &weekly(),
            std::slice::from_ref(&full),
            &[made],
            at(-1),
            at(1),
        );
        assert_eq!(step, Some(CopyStep::Copied { full, reasons }));
    }

    fn policies() -> impl Strategy<Value = LongTermPolicy> {
        let period = |unit: char, most: u32| {
            (0..=most).prop_map(move |number| match number {
                0 => Period::NONE,
                _ => Period::parse(&format!("P{number}{unit}")).unwrap(),
            })
        };
        let week = (1_i64..=52).prop_map(|week| WeekOfYear::new(week).unwrap());
        (period('W', 12), period('M', 24), period('Y', 10), week).prop_map(
            |(weekly, monthly, yearly, week)| {
                LongTermPolicy::new(weekly, monthly, yearly, Some(week)).unwrap()
            },
        )
    }

    proptest! {
        /// Over years of fulls at random times, with policies that change.
        #[test]
        fn each_period_has_one_copy_and_it_is_kept_as_long_as_the_policy_of_its_time_said(
            pauses in prop::collection::vec(1_i64..400, 10..150),
            policies in prop::collection::vec(policies(), 1..4),
        ) {
            let (mut hour, mut considered) = (0, at(-1));
            let (mut earlier, mut kept_all) = (Vec::<EarlierCopy>::new(), Vec::new());
            for (number, pause) in pauses.iter().enumerate() {
                hour += pause;
                let policy = policies[number * policies.len() / pauses.len()];
                let step = next_step(&policy, &[full(hour)], &earlier, considered, at(hour));
                considered = at(hour);
                if let Some(CopyStep::Copy { full, kept }) = step {
                    let (taken, reasons) = (full.ended, kept.reasons.clone());
                    earlier.push(EarlierCopy { taken, reasons });
                    kept_all.push((full.ended, kept, policy));
                }
            }
            use everpoint_repository::long_term::CopyReason as R;
            let zoned = |time: Timestamp| time.to_zoned(jiff::tz::TimeZone::UTC).date();
            for reason in [R::Weekly, R::Monthly, R::Yearly] {
                let mut seen = std::collections::BTreeSet::new();
                for (taken, kept, policy) in &kept_all {
                    prop_assert!(!kept.reasons.is_empty());
                    let date = zoned(*taken);
                    let (period, key) = match reason {
                        R::Weekly => {
                            let week = date.iso_week_date();
                            (policy.weekly(), (week.year(), week.week()))
                        }
                        R::Monthly => (policy.monthly(), (date.year(), date.month())),
                        R::Yearly => {
                            let (period, week) = policy.yearly().unwrap_or_else(|| {
                                (Period::NONE, WeekOfYear::new(1).unwrap())
                            });
                            let from = week.first_day(date);
                            prop_assert!(!kept.reasons.contains(&R::Yearly) || from.is_some());
                            let from = from.unwrap_or(date).iso_week_date();
                            (period, (from.year(), from.week()))
                        }
                    };
                    if kept.reasons.contains(&reason) {
                        prop_assert!(seen.insert(key), "two copies for {:?} of {:?}", key, reason);
                        prop_assert!(kept.until >= period.after(*taken));
                    }
                }
            }
            for (taken, kept, policy) in &kept_all {
                let longest = [policy.weekly(), policy.monthly()]
                    .into_iter()
                    .chain(policy.yearly().map(|(period, _)| period))
                    .map(|period| period.after(*taken))
                    .max();
                prop_assert!(Some(kept.until) <= longest);
            }
        }

        #[test]
        fn every_week_that_has_a_full_backup_has_its_copy(
            pauses in prop::collection::vec(1_i64..120, 5..60),
        ) {
            let (mut hour, mut considered) = (0, at(-1));
            let mut earlier = Vec::<EarlierCopy>::new();
            let mut weeks = std::collections::BTreeSet::new();
            for pause in pauses {
                hour += pause;
                let date = at(hour).to_zoned(jiff::tz::TimeZone::UTC).date().iso_week_date();
                weeks.insert((date.year(), date.week()));
                if let Some(CopyStep::Copy { full, kept }) =
                    next_step(&weekly(), &[full(hour)], &earlier, considered, at(hour))
                {
                    let (taken, reasons) = (full.ended, kept.reasons);
                    earlier.push(EarlierCopy { taken, reasons });
                }
                considered = at(hour);
            }
            prop_assert_eq!(earlier.len(), weeks.len());
        }
    }
}
