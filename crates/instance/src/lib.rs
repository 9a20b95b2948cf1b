//! A running or startable PostgreSQL: sessions, replication protocol, backup mode, data directory, process.
//!
//! Everything that Everpoint asks of a server goes through here. Nothing here knows of a repository.

#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic
    )
)]

pub mod backup_mode;
pub mod check;
pub mod connect;
pub mod data_directory;
pub mod facts;
pub mod grant;
pub mod lock;
pub mod notifications;
pub mod prepared;
pub mod process;
pub mod replication;
pub mod wal_control;

pub use backup_mode::{BackupMode, BackupModeError, BackupStart, BackupStop, CheckpointMode};
pub use check::{CheckReport, WalMode, check};
pub use connect::{ConnectError, ConnectionSpec, QueryError, SqlClient, connect_sql};
pub use facts::{FactsError, ServerFacts};
pub use grant::grant_script;
pub use lock::{InstanceLock, LockError, LockKind};
pub use process::{PgBinaries, ServerProcess, StartOptions, start_for_recovery};
pub use replication::{ReplicationClient, ReplicationError, StreamEvent, WalStream};
