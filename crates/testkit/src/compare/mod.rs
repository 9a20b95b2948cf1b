//! Whether two clusters or databases hold the same, and whether one is sound.
//!
//! Contents are read through SQL, not files, so that they can be compared across versions and between a
//! database and its restored copy of another name.

mod content;
mod difference;
mod integrity;
mod read;

pub use content::{DatabaseContent, Fingerprint, Rows, SequenceState};
pub use difference::{assert_same, assert_same_database, database_differences, differences};
pub use integrity::{check_integrity, check_stopped};
pub use read::{creation_text, fingerprint, fingerprint_database, schema_text};
