//! Periods of long-term retention, as ISO 8601 durations: `P12W`, `P6M`, `P1Y`, `PT0S` for none.

use std::fmt;

use jiff::{Span, Timestamp, tz::TimeZone};

/// The longest period: 10 years, in days.
const LONGEST_DAYS: u32 = 3653;
/// The longest text that is looked at.
const MAX_TEXT: usize = 32;

/// How long a copy is kept, in whole calendar units. Zero means that no copy is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Period {
    years: u16,
    months: u16,
    weeks: u16,
    days: u16,
}

/// The text is no period, or one that is not allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeriodError {
    /// Not such a duration.
    #[error(
        "`{text}` is no period. Write whole years, months, weeks or days as ISO 8601 has it: P12W, P6M, P1Y, or PT0S for none"
    )]
    Malformed {
        /// As given; its beginning, where it is long.
        text: String,
    },
    /// Neither none nor within 1 week and 10 years.
    #[error("`{period}` is not within 1 week and 10 years")]
    OutOfRange {
        /// As given.
        period: Period,
    },
}

impl Period {
    /// Nothing is kept.
    pub const NONE: Self = Self {
        years: 0,
        months: 0,
        weeks: 0,
        days: 0,
    };

    /// Reads an ISO 8601 duration of date units.
    ///
    /// # Errors
    /// When the text is no such duration, or is neither zero nor within 7 days and 10 years.
    pub fn parse(text: &str) -> Result<Self, PeriodError> {
        let malformed = || PeriodError::Malformed {
            text: text.chars().take(MAX_TEXT).collect(),
        };
        if text.len() > MAX_TEXT {
            return Err(malformed());
        }
        let rest = text.strip_prefix('P').ok_or_else(malformed)?;
        let (date, time) = rest.split_once('T').unwrap_or((rest, "0S"));
        if !is_zero_time(time) || (date.is_empty() && !rest.contains('T')) {
            return Err(malformed());
        }
        let period = Self::parse_date(date).ok_or_else(malformed)?;
        match period.least_and_most_days() {
            (0, 0) => Ok(Self::NONE),
            (least, most) if least >= 7 && most <= LONGEST_DAYS => Ok(period),
            _ => Err(PeriodError::OutOfRange { period }),
        }
    }

    /// Units in their order, each at most once.
    fn parse_date(mut rest: &str) -> Option<Self> {
        let mut period = Self::NONE;
        for (unit, field) in [
            ('Y', &mut period.years),
            ('M', &mut period.months),
            ('W', &mut period.weeks),
            ('D', &mut period.days),
        ] {
            if let Some((number, behind)) = rest.split_once(unit) {
                if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
                    return None;
                }
                *field = number.parse().ok()?;
                rest = behind;
            }
        }
        rest.is_empty().then_some(period)
    }

    /// Whether nothing is kept.
    pub fn is_none(&self) -> bool {
        *self == Self::NONE
    }

    /// The shortest and the longest it can last, in days.
    fn least_and_most_days(&self) -> (u32, u32) {
        let (years, months) = (u32::from(self.years), u32::from(self.months));
        let days = u32::from(self.weeks) * 7 + u32::from(self.days);
        let all_months = years * 12 + months;
        // 4 years hold one day more, and a month 28 to 31.
        let (whole_years, rest) = (all_months / 12, all_months % 12);
        let least = whole_years * 365 + rest * 28 + days;
        let most = whole_years * 365 + whole_years.div_ceil(4) + rest * 31 + days;
        (least, most)
    }

    /// The moment that lies so long after `from`, by the UTC calendar.
    pub fn after(&self, from: Timestamp) -> Timestamp {
        let span = Span::new()
            .years(i64::from(self.years).min(10))
            .months(i64::from(self.months).min(120))
            .weeks(i64::from(self.weeks).min(600))
            .days(i64::from(self.days).min(4000));
        from.to_zoned(TimeZone::UTC)
            .checked_add(span)
            .map_or(Timestamp::MAX, |zoned| zoned.timestamp())
    }
}

fn is_zero_time(text: &str) -> bool {
    ["H", "M", "S"].iter().any(|unit| {
        text.strip_suffix(unit)
            .is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte == b'0'))
    })
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_none() {
            return f.write_str("PT0S");
        }
        f.write_str("P")?;
        for (number, unit) in [
            (self.years, 'Y'),
            (self.months, 'M'),
            (self.weeks, 'W'),
            (self.days, 'D'),
        ] {
            if number > 0 {
                write!(f, "{number}{unit}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn periods_of_all_units_are_read() {
        for text in [
            "P1W", "P12W", "P6M", "P10Y", "P1Y6M", "P520W", "P120M", "P3650D", "P7D",
        ] {
            assert_eq!(Period::parse(text).unwrap().to_string(), text);
        }
        for none in ["PT0S", "P0D", "P0W", "P0Y", "P0DT0H"] {
            assert!(Period::parse(none).unwrap().is_none(), "{none}");
        }
    }

    #[test]
    fn what_is_no_period_or_too_long_or_too_short_is_refused() {
        for text in [
            "", "P", "PT", "1W", "P1", "P1H", "PT1S", "P-1W", "P1.5W", "P1W1W", "P1D1Y", "p1w",
            "P+1W", "P１W",
        ] {
            assert!(
                matches!(Period::parse(text), Err(PeriodError::Malformed { .. })),
                "{text}"
            );
        }
        for text in ["P1D", "P6D", "P11Y", "P10Y1M", "P523W", "P65535Y", "P121M"] {
            assert!(
                matches!(Period::parse(text), Err(PeriodError::OutOfRange { .. })),
                "{text}"
            );
        }
    }

    #[test]
    fn a_month_ends_on_the_months_last_day() {
        let from: Timestamp = "2026-01-31T10:00:00Z".parse().unwrap();
        let month = Period::parse("P1M").unwrap();
        assert_eq!(month.after(from), "2026-02-28T10:00:00Z".parse().unwrap());
    }

    proptest! {
        #[test]
        fn no_text_panics_and_what_is_read_is_printed_readably(text in "P?[0-9YMWDTS]{0,12}") {
            if let Ok(period) = Period::parse(&text) {
                prop_assert_eq!(Period::parse(&period.to_string()).unwrap(), period);
                let now: Timestamp = "2026-01-31T10:00:00Z".parse().unwrap();
                let after = period.after(now);
                prop_assert!(after >= now);
                prop_assert!(after <= "2036-02-01T10:00:00Z".parse().unwrap());
            }
        }
    }
}
