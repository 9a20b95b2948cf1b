//! Everpoint's operations: backup, log backup, restore, verify, expire.
//!
//! Each operation has a plan, which is a value that can be printed, and an execution, which does what
//! the plan says and reports through [`progress`] and events. Nothing here talks to a person.

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)
)]

pub mod backup;
pub mod backup_files;
pub mod database;
pub mod expire;
pub mod hex;
pub mod history;
pub mod instance_record;
pub mod log;
pub mod long_term;
pub mod progress;
pub mod restore;
pub mod room;
pub mod summary;
pub mod transplant;
pub mod verify;
pub mod window;
mod work_queue;
