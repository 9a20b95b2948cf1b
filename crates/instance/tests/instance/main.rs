//! Everpoint's view of a server, against real servers.

mod backup_mode;
mod facts;
mod replication;
mod spec;
