//! PostgreSQL's bytes as values.
//!
//! This crate decodes and encodes what PostgreSQL writes: log sequence numbers, timelines, relation
//! paths, page headers and checksums, `pg_control`, `backup_label`, and write-ahead log, which it also
//! summarises. It does no I/O, knows no clock and no async runtime, and never panics on bytes from outside.
//!
//! Supported: PostgreSQL 15 to 18, little-endian builds with 8 kB blocks (see
//! [`control::ControlFile`], which refuses others by name).

#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic
    )
)]

pub mod backup_label;
pub mod bytes;
pub mod catalog;
pub mod control;
pub mod ids;
pub mod lsn;
pub mod page;
pub mod relation;
pub mod timeline;
pub mod timestamp;
pub mod version;
pub mod wal;
pub mod wal_summary;

pub use ids::{BlockNumber, ByteCount, Oid, ReplicationOriginId, SystemIdentifier, TransactionId};
pub use lsn::Lsn;
pub use timeline::TimelineId;
pub use timestamp::PgTimestamp;
pub use version::MajorVersion;
