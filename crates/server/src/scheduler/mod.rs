//! What is due: a plain function of schedules, history and the time.
//!
//! Nothing is remembered between two calls and nothing waits in a queue: a service that was down for a day
//! asks once and hears what was missed, each backup once. Log backups are not scheduled here, for log is
//! received all the time; the interval at which it is stored is the receiver's.

mod due;
mod slot;

pub use due::{Due, Limits, Reason, due, next_look};
pub use slot::{Rhythm, Window, WindowError};

use std::time::Duration;

use everpoint_repository::InstanceName;
use jiff::{SignedDuration, Timestamp};

/// A differential larger than this share of its full backup makes the next one full, in percent.
pub const DIFFERENTIAL_SHARE_PERCENT: u64 = 75;
/// The pauses between attempts grow from the first to the second.
pub const RETRY_PAUSES: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3600));
/// What lies no further ahead than this may be a clock's small step, and is waited for.
pub const CLOCK_SLACK: SignedDuration = SignedDuration::from_hours(1);
/// How often differentials are taken, unless configured otherwise.
pub const DIFFERENTIAL_EVERY: Duration = Duration::from_secs(12 * 3600);

/// When an instance's backups are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// The instance.
    pub instance: InstanceName,
    /// Where in the week its full backup begins.
    pub full: Window,
    /// How often a differential is taken.
    pub differential: Rhythm,
}

/// What a schedule needs to know of an instance's past.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// The last full backup that can be restored.
    pub full: Option<Taken>,
    /// The last differential on it.
    pub differential: Option<Taken>,
    /// Log is missing behind the last backup: only a new full backup makes later points restorable.
    pub gap: Option<Timestamp>,
    /// Attempts that failed since the last success.
    pub failures: u32,
    /// When the last of them ended.
    pub failed_at: Option<Timestamp>,
    /// Whether a backup runs now.
    pub running: Running,
}

/// A finished backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// When it began.
    pub started_at: Timestamp,
    /// What it read that had changed, or all that a full one holds, in bytes.
    pub size_bytes: u64,
}

/// Whether an instance's backup runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Running {
    /// None does.
    #[default]
    No,
    /// One does.
    Yes,
}

/// What kind of backup is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Everything.
    Full,
    /// What changed since the last full backup.
    Differential,
}
