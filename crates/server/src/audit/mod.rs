//! The audit log: who asked for what, what was decided and what was done, as lines chained by hashes.
//!
//! Each line is a JSON object and carries the hash of the line before it, so that a line that was changed,
//! left out, put in or moved shows. That lines were cut off at the end shows only by comparison with a
//! [`Head`] noted elsewhere; the service writes its head to its own log when it starts and stops.

mod chain;
mod file;

pub use chain::{Chain, ChainError, Entry, Head, Outcome, verify};
pub use file::{AuditFile, AuditFileError};
