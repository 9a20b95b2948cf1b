//! Everpoint's view of a server, against real servers.

#![expect(clippy::unwrap_used, reason = "a test ends where a value is missing")]

mod backup_mode;
mod check;
mod data_directory;
mod facts;
mod lock;
mod login;
mod process;
mod replication;
mod spec;
