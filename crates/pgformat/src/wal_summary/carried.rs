//! What a builder knows at the end of a summary and the next one builds on.
//!
//! Transactions under way are handed on beside it, see [`super::transactions`]. Rows of catalogs are not: they
//! are many, and the log from [`Carried::redo`] on shows again all that are changed behind the end.

use crate::{Lsn, Oid, TransactionId, relation::RelationId};

use super::catalog_rows::DATABASE_CATALOG;

/// The most catalogs that are followed into new files.
pub const MAX_MOVED_CATALOGS: usize = 1 << 12;
/// The most changes of databases' names whose top-level transactions are still looked for.
pub const MAX_UNASSIGNED: usize = 64;

/// What is known at the end of a summary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carried {
    /// The file of `pg_database`.
    pub database_catalog: Oid,
    /// Where the last checkpoint that is known began: the log from here on shows each page whole before it is
    /// changed.
    pub redo: Option<Lsn>,
    /// Databases' catalogs that were rewritten into other files than `initdb` gave them, in ascending order.
    pub moved: Vec<MovedCatalog>,
    /// Transactions that changed a database's name, and may turn out to be children of others. In ascending
    /// order.
    pub unassigned: Vec<TransactionId>,
}

/// A catalog that lies in another file than `initdb` gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MovedCatalog {
    /// The file.
    pub file: RelationId,
    /// The catalog.
    pub catalog: Oid,
}

impl Carried {
    /// Nothing but the file of `pg_database` is known.
    pub fn new(database_catalog: Oid) -> Self {
        Self {
            database_catalog,
            redo: None,
            moved: Vec::new(),
            unassigned: Vec::new(),
        }
    }
}

impl Default for Carried {
    fn default() -> Self {
        Self::new(DATABASE_CATALOG)
    }
}
