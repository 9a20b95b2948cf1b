//! Times as they are sent: UTC with milliseconds; and the file times in names.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{KnownFormat, ObjectBuilder, RefOr, Schema, SchemaFormat, Type},
};

/// Seconds from 1601-01-01, where file times begin, to 1970-01-01.
const FILETIME_EPOCH_S: i64 = 11_644_473_600;
/// File times count 100 nanoseconds.
const TICKS_PER_S: i64 = 10_000_000;

/// A moment to the millisecond, such as `2026-11-24T03:00:00.123Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WireTime(Timestamp);

impl WireTime {
    /// The moment, with what lies below a millisecond cut off, so that what is printed is what is meant.
    pub fn new(time: Timestamp) -> Self {
        let below = time.subsec_nanosecond().rem_euclid(1_000_000);
        let cut = time.checked_sub(SignedDuration::from_nanos(below.into()));
        Self(cut.unwrap_or(time))
    }

    /// The moment.
    pub fn get(self) -> Timestamp {
        self.0
    }

    /// As a file time: 100 nanoseconds since 1601. The names of deleted databases and of long-term backups end
    /// with it. None for moments before 1601.
    pub fn file_time(self) -> Option<u64> {
        let seconds = self.0.as_second().checked_add(FILETIME_EPOCH_S)?;
        let ticks = seconds.checked_mul(TICKS_PER_S)?;
        let ticks = ticks.checked_add(i64::from(self.0.subsec_nanosecond()) / 100)?;
        u64::try_from(ticks).ok()
    }

    /// From a file time.
    pub fn from_file_time(ticks: u64) -> Option<Self> {
        let ticks = i64::try_from(ticks).ok()?;
        let second = ticks / TICKS_PER_S - FILETIME_EPOCH_S;
        let nanosecond = i32::try_from(ticks % TICKS_PER_S * 100).ok()?;
        Timestamp::new(second, nanosecond).ok().map(Self::new)
    }
}

impl std::fmt::Display for WireTime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.3}", self.0)
    }
}

impl PartialSchema for WireTime {
    fn schema() -> RefOr<Schema> {
        let text = ObjectBuilder::new().schema_type(Type::String);
        let format = SchemaFormat::KnownFormat(KnownFormat::DateTime);
        text.format(Some(format)).into()
    }
}

impl ToSchema for WireTime {}

impl Serialize for WireTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for WireTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Timestamp::deserialize(deserializer).map(Self::new)
    }
}

/// The name of a deleted database: `{name},{filetime}`.
pub fn dropped_name(database: &str, deleted_at: WireTime) -> String {
    format!("{database},{}", deleted_at.file_time().unwrap_or(0))
}

/// The name of a long-term backup: `{guid};{filetime}`.
pub fn long_term_name(id: &str, backup_time: WireTime) -> String {
    format!("{id};{}", backup_time.file_time().unwrap_or(0))
}

/// Takes a long-term backup's name apart: its identifier and its moment.
pub fn parse_long_term_name(name: &str) -> Option<(&str, WireTime)> {
    let (id, ticks) = name.split_once(';')?;
    let all_digits = !ticks.is_empty() && ticks.bytes().all(|byte| byte.is_ascii_digit());
    let ticks = all_digits.then(|| ticks.parse().ok()).flatten()?;
    Some((id, WireTime::from_file_time(ticks)?))
}

/// Takes a deleted database's name apart. A comma in the database's own name is no matter: the last one counts.
pub fn parse_dropped_name(name: &str) -> Option<(&str, WireTime)> {
    let (database, ticks) = name.rsplit_once(',')?;
    let all_digits = !ticks.is_empty() && ticks.bytes().all(|byte| byte.is_ascii_digit());
    let ticks = all_digits.then(|| ticks.parse().ok()).flatten()?;
    Some((database, WireTime::from_file_time(ticks)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn file_times_are_those_of_the_specification() {
        let time = WireTime::new("2019-05-15T21:50:56.163Z".parse().unwrap());
        // From the published sample of restorable dropped databases.
        assert_eq!(
            WireTime::from_file_time(132_024_306_561_630_000),
            Some(time)
        );
        assert_eq!(dropped_name("my,db", time), "my,db,132024306561630000");
        assert_eq!(
            parse_dropped_name("my,db,132024306561630000"),
            Some(("my,db", time))
        );
        for refused in [
            "",
            "a",
            "a,",
            "a,x",
            "a,-1",
            "a,99999999999999999999",
            "a,+1",
        ] {
            assert_eq!(parse_dropped_name(refused), None, "{refused}");
        }
    }

    #[test]
    fn names_of_long_term_backups_hold_an_identifier_and_a_moment() {
        let id = "3f0c8a52-0f6e-4d6a-9f55-0123456789ab";
        let time = WireTime::new("2019-05-15T21:50:56.163Z".parse().unwrap());
        let name = long_term_name(id, time);
        assert_eq!(name, format!("{id};132024306561630000"));
        assert_eq!(parse_long_term_name(&name), Some((id, time)));
        for refused in [
            "",
            id,
            &format!("{id};"),
            &format!("{id};x"),
            &format!("{id};1;2"),
        ] {
            assert_eq!(parse_long_term_name(refused), None, "{refused}");
        }
    }

    #[test]
    fn moments_are_taken_with_three_and_with_six_digits_and_with_an_offset() {
        for text in [
            "\"2026-11-24T03:00:00.123Z\"",
            "\"2026-11-24T03:00:00.123456Z\"",
            "\"2026-11-24T04:00:00.123+01:00\"",
        ] {
            let time: WireTime = serde_json::from_str(text).unwrap();
            assert_eq!(time.to_string(), "2026-11-24T03:00:00.123Z");
        }
        assert!(serde_json::from_str::<WireTime>("\"2026-11-24T03:00:00\"").is_err());
    }

    proptest! {
        #[test]
        fn names_carry_exactly_the_moment_that_is_printed(milliseconds in 0_i64..4_000_000_000_000, below in 0_i32..1_000_000) {
            let time = Timestamp::from_millisecond(milliseconds).unwrap();
            let time = Timestamp::new(time.as_second(), time.subsec_nanosecond() + below).unwrap();
            let wire = WireTime::new(time);
            let name = dropped_name("x", wire);
            let (_, back) = parse_dropped_name(&name).unwrap();
            prop_assert_eq!(back, wire);
            prop_assert_eq!(back.to_string().parse::<Timestamp>().unwrap(), wire.get());
        }
    }
}
