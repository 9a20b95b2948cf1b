//! What transactions did to tables and other relations, and to schemas, as rows of `pg_class` and
//! `pg_namespace` tell.

use crate::{Lsn, Oid, catalog::RelationDefinition};

/// The most changes kept of one transaction; what comes later is only counted.
pub const MAX_SCHEMA_CHANGES: usize = 256;

/// A relation or a schema was made, changed or dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaChange {
    /// Start of the record.
    pub start: Lsn,
    /// The database.
    pub database: Oid,
    /// What was changed, as it is afterwards; what was dropped, as it was.
    pub object: SchemaObject,
    /// What happened to it.
    pub action: SchemaAction,
}

/// What a change is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SchemaObject {
    /// A table, an index, a sequence, a view ...
    Relation {
        /// As its row says.
        definition: RelationDefinition,
        /// The name of its schema, when the log has shown it.
        namespace: Option<Vec<u8>>,
    },
    /// A schema.
    Namespace {
        /// Its OID.
        oid: Oid,
        /// Its name.
        name: Vec<u8>,
    },
}

/// What happened to a relation or a schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SchemaAction {
    /// It was made.
    Created,
    /// Something about it was changed.
    Altered,
    /// It got another name.
    Renamed {
        /// The name before.
        from: Vec<u8>,
    },
    /// It got a new file: an empty one by `TRUNCATE`, one with the same rows by what rewrites tables, which
    /// shows as another relation made and dropped again with it.
    NewFile {
        /// The file before.
        from: Oid,
    },
    /// It was dropped.
    Dropped,
}
