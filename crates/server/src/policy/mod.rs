//! How long backups are kept: short-term retention of every database, long-term retention of copies.
//!
//! Values and rules alone; nothing here knows a clock, a catalog or a repository.

mod copies;
mod long_term;
mod period;
mod short_term;

pub use copies::{CopyStep, Full, next_step};
pub use long_term::{EarlierCopy, Kept, LongTermPolicy, LongTermPolicyError, WeekOfYear};
pub use period::{Period, PeriodError};
pub use short_term::{
    RetentionDays, ShortTermChange, ShortTermError, Shortening, instance_retention,
};
