//! Everpoint's view of a server, against real servers.

#![expect(clippy::unwrap_used, reason = "a test ends where a value is missing")]

mod backup_mode;
mod data_directory;
mod facts;
mod replication;
mod spec;
