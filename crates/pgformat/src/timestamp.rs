//! PostgreSQL's timestamps (`TimestampTz`, `src/include/datatype/timestamp.h`).

use std::fmt;

use serde::{Deserialize, Serialize};

/// Seconds from the Unix epoch to PostgreSQL's, 2000-01-01 00:00:00 UTC.
const EPOCH_OFFSET_SECONDS: i64 = 946_684_800;
const MICROSECONDS: i64 = 1_000_000;

/// A point in time in microseconds since 2000-01-01 00:00:00 UTC.
///
/// Shown as that number of microseconds; formatting as a date is left to the caller.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct PgTimestamp(i64);

impl PgTimestamp {
    /// From microseconds since 2000-01-01 UTC, as WAL carries them.
    pub const fn from_raw(microseconds: i64) -> Self {
        Self(microseconds)
    }

    /// Microseconds since 2000-01-01 UTC.
    pub const fn raw(self) -> i64 {
        self.0
    }

    /// From microseconds since 1970-01-01 UTC, held within what an `i64` can say.
    pub const fn from_unix_microseconds(microseconds: i64) -> Self {
        Self(microseconds.saturating_sub(EPOCH_OFFSET_SECONDS * MICROSECONDS))
    }

    /// From seconds since 1970-01-01 UTC (`pg_time_t`), as checkpoints carry them.
    pub const fn from_unix_seconds(seconds: i64) -> Self {
        Self::from_unix_microseconds(seconds.saturating_mul(MICROSECONDS))
    }

    /// Microseconds since 1970-01-01 UTC, held within what an `i64` can say.
    pub const fn unix_microseconds(self) -> i64 {
        self.0.saturating_add(EPOCH_OFFSET_SECONDS * MICROSECONDS)
    }
}

impl fmt::Display for PgTimestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} microseconds since 2000-01-01 00:00:00 UTC", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_convert_between_the_two_epochs() {
        let start = PgTimestamp::from_raw(0);
        assert_eq!(start.unix_microseconds(), 946_684_800_000_000);
        assert_eq!(PgTimestamp::from_unix_seconds(946_684_801).raw(), 1_000_000);
        assert_eq!(
            PgTimestamp::from_unix_microseconds(start.unix_microseconds()),
            start
        );
    }

    #[test]
    fn impossible_timestamps_do_not_overflow() {
        assert_eq!(
            PgTimestamp::from_raw(i64::MAX).unix_microseconds(),
            i64::MAX
        );
        assert_eq!(PgTimestamp::from_unix_seconds(i64::MIN).raw(), i64::MIN);
    }
}
