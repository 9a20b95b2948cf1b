//! Wire types and a client of the managed-instance API: what is sent and taken over HTTP, in the shape of Azure Resource
//! Manager's `Microsoft.Sql/managedInstances` as its published specifications have it.
//!
//! Nothing here is a domain type, and nothing but [`client`] does I/O. Names are camelCase; what a resource is lies under
//! `properties`. Instants are [`jiff::Timestamp`]s, printed in UTC with milliseconds.

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)
)]

pub mod client;
pub mod database;
pub mod directory;
pub mod discovery;
pub mod error;
pub mod instance;
pub mod list;
pub mod operation;
pub mod restore;
pub mod retention;
pub mod role;
pub mod time;

pub use error::{ApiError, Code};
pub use list::{List, Resource};
