//! What Everpoint stores, and how.
//!
//! A repository is a set of objects, each written once under a name of its own and never rewritten.
//! [`store`] is the only edge to the outside; [`object`] is the sealed container every object but the
//! marker and the key slots uses; packs hold frames of data files, a manifest names them and is
//! written last. The byte layouts are specified in `docs/format/`.
//!
//! This crate knows no PostgreSQL server: it never opens a connection or a data directory.

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)
)]

pub mod aligned;
pub mod backup;
pub mod document;
pub mod frame;
pub mod ids;
pub mod keys;
pub mod layout;
pub mod local_upload;
pub mod log;
pub mod long_term;
pub mod manifest;
pub mod object;
mod plain;
pub mod policy_document;
pub mod repository;
pub mod retention;
pub mod store;
pub mod summary;
pub mod varint;

pub use ids::{BackupId, CopyId, InstanceName, ObjectId};
pub use repository::{Repository, RepositoryError};
pub use store::{Store, StoreError};
