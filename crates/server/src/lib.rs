//! The service: takes backups by itself, keeps to policies, and answers the managed-instance API.
//!
//! The cores are plain functions from values to values: [`policy`] (how long things are kept),
//! [`scheduler`] (what is due), [`access`] (who may do what) and [`audit`] (a chain of what was decided and
//! done). They know no clock, no catalog and no network.

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)
)]

pub mod access;
pub mod audit;
pub mod catalog;
pub mod config;
pub mod handlers;
pub mod http;
pub mod identity;
pub mod policy;
pub mod scheduler;
pub mod service;

/// An error and what caused it, as one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(found) = cause {
        let more = found.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = found.source();
    }
    text
}
