//! System catalogs: which there are, and the rows of `pg_class` and `pg_namespace`, which name relations.
//!
//! Only columns of fixed place are read (`src/include/catalog/pg_class.h`, `pg_namespace.h`):
//!
//! ```text
//! pg_class      0 oid | 4 relname, 64 bytes | 68 relnamespace | 88 relfilenode | 92 reltablespace
//!               114 relpersistence, 115 relkind; 118 and 119 from PostgreSQL 18 on
//! pg_namespace  0 oid | 4 nspname, 64 bytes
//! ```

mod names;
mod set;

pub use names::{NameError, RelationNames};
pub use set::CatalogSet;

use crate::{MajorVersion, Oid, bytes::Reader};

/// The OID of `pg_class`, and the relfilenode `initdb` gives it.
pub const CLASS_CATALOG: Oid = Oid::new(1259);
/// The OID of `pg_namespace`, and the relfilenode `initdb` gives it.
pub const NAMESPACE_CATALOG: Oid = Oid::new(2615);
/// OIDs below this are given by `initdb` (`FirstNormalObjectId`).
pub const FIRST_USER_OID: Oid = Oid::new(16_384);
/// The schema of TOAST tables and their indexes.
pub const TOAST_NAMESPACE: Oid = Oid::new(99);
/// The longest name, in bytes (`NAMEDATALEN`, with a zero at the end).
pub const MAX_NAME_BYTES: usize = 64;

const NAME_OFFSET: usize = 4;
const CLASS_NAMESPACE_OFFSET: usize = 68;
const CLASS_FILE_OFFSET: usize = 88;
const CLASS_TABLESPACE_OFFSET: usize = 92;

/// What a relation is (`relkind`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelationKind(u8);

impl RelationKind {
    /// An ordinary table.
    pub const TABLE: Self = Self(b'r');
    /// A partitioned table, which has no file.
    pub const PARTITIONED_TABLE: Self = Self(b'p');
    /// A materialized view.
    pub const MATERIALIZED_VIEW: Self = Self(b'm');
    /// An index.
    pub const INDEX: Self = Self(b'i');
    /// A sequence.
    pub const SEQUENCE: Self = Self(b'S');
    /// A TOAST table.
    pub const TOAST: Self = Self(b't');

    /// From `relkind`.
    pub const fn new(raw: u8) -> Self {
        Self(raw)
    }

    /// As in `relkind`.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// As a person calls it.
    pub fn noun(self) -> &'static str {
        match self.0 {
            b'r' | b'p' => "table",
            b'm' => "materialized view",
            b'i' | b'I' => "index",
            b'S' => "sequence",
            b'v' => "view",
            b'f' => "foreign table",
            b'c' => "type",
            b't' => "TOAST table",
            _ => "relation",
        }
    }

    /// Whether rows that users care about lie in it.
    pub fn holds_rows(self) -> bool {
        matches!(
            self,
            Self::TABLE | Self::PARTITIONED_TABLE | Self::MATERIALIZED_VIEW
        )
    }
}

/// A relation as `pg_class` describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelationDefinition {
    /// Its OID.
    pub oid: Oid,
    /// Its name, in the database's encoding.
    pub name: Vec<u8>,
    /// The OID of its schema.
    pub namespace: Oid,
    /// What it is.
    pub kind: RelationKind,
    /// Its file; 0 when it has none or the relation map knows it.
    pub relfilenode: Oid,
    /// Its tablespace; 0 for that of the database.
    pub tablespace: Oid,
}

/// A row of `pg_class`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelationRow<'a> {
    contents: &'a [u8],
    persistence: u8,
    kind: u8,
}

impl<'a> RelationRow<'a> {
    /// Reads a row's contents, behind its tuple header; `None` when they are too short.
    pub fn new(contents: &'a [u8], version: MajorVersion) -> Option<Self> {
        let mut reader = Reader::at(contents, version.row().class_persistence_offset)?;
        let (persistence, kind) = (reader.u8()?, reader.u8()?);
        Some(Self {
            contents,
            persistence,
            kind,
        })
    }

    /// The relation's OID.
    pub fn oid(&self) -> Oid {
        u32_at(self.contents, 0).into()
    }

    /// Its name, in the database's encoding.
    pub fn name(&self) -> &'a [u8] {
        name_at(self.contents, NAME_OFFSET)
    }

    /// Its file; 0 when it has none or the relation map knows it.
    pub fn relfilenode(&self) -> Oid {
        u32_at(self.contents, CLASS_FILE_OFFSET).into()
    }

    /// Whether it goes away with its session; the log has nothing of its contents.
    pub fn is_temporary(&self) -> bool {
        self.persistence == b't'
    }

    /// All of it that is read.
    pub fn definition(&self) -> RelationDefinition {
        RelationDefinition {
            oid: self.oid(),
            name: self.name().to_vec(),
            namespace: u32_at(self.contents, CLASS_NAMESPACE_OFFSET).into(),
            kind: RelationKind(self.kind),
            relfilenode: self.relfilenode(),
            tablespace: u32_at(self.contents, CLASS_TABLESPACE_OFFSET).into(),
        }
    }
}

/// A row of `pg_namespace`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamespaceRow<'a> {
    contents: &'a [u8],
}

impl<'a> NamespaceRow<'a> {
    /// Reads a row's contents, behind its tuple header; `None` when they are too short.
    pub fn new(contents: &'a [u8]) -> Option<Self> {
        (contents.len() >= NAME_OFFSET + MAX_NAME_BYTES).then_some(Self { contents })
    }

    /// The schema's OID.
    pub fn oid(&self) -> Oid {
        u32_at(self.contents, 0).into()
    }

    /// Its name, in the database's encoding.
    pub fn name(&self) -> &'a [u8] {
        name_at(self.contents, NAME_OFFSET)
    }
}

/// Whether a schema of this name holds temporary relations.
pub fn is_temporary_namespace(name: &[u8]) -> bool {
    name.starts_with(b"pg_temp_") || name.starts_with(b"pg_toast_temp_")
}

/// A column of type `name`.
pub(crate) fn name_at(contents: &[u8], offset: usize) -> &[u8] {
    let name = contents.get(offset..offset + MAX_NAME_BYTES);
    let name = name.unwrap_or_default().split(|byte| *byte == 0).next();
    name.unwrap_or_default()
}

/// A column of four bytes.
pub(crate) fn u32_at(contents: &[u8], offset: usize) -> u32 {
    Reader::at(contents, offset)
        .and_then(|mut reader| reader.u32())
        .unwrap_or_default()
}
