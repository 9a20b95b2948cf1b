//! Rows of `pg_database`, as far as the log has shown them. Layout of a row:
//! `src/include/catalog/pg_database.h`, the same in PostgreSQL 15 to 18 as far as it is read here.

use crate::{
    Oid,
    catalog::{name_at, u32_at},
    relation::{Fork, GLOBAL_TABLESPACE, RelationId},
    wal::{heap::HeapRecord, record::Record, relation_map::RelationMap},
};

use super::row_store::{RowChange, RowStore};

/// The OID of `pg_database`, and the relfilenode `initdb` gives it.
pub const DATABASE_CATALOG: Oid = Oid::new(1262);

/// What remembered rows may take of memory, in bytes.
const MAX_ROW_BYTES: usize = 4 << 20;
/// New files of shared relations that may turn out to be `pg_database`'s.
const MAX_CANDIDATES: usize = 8;

const NAME_OFFSET: usize = 4;
const CONNECTION_LIMIT_OFFSET: usize = 80;
/// Bytes of the columns that are always there (`FormData_pg_database`).
const FIXED_SIZE: usize = 96;
/// `DATCONNLIMIT_INVALID_DB`: the database is being dropped.
const INVALID: i32 = -2;

/// A row of `pg_database`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DatabaseRow<'a> {
    contents: &'a [u8],
}

impl<'a> DatabaseRow<'a> {
    fn new(contents: &'a [u8]) -> Option<Self> {
        (contents.len() >= FIXED_SIZE).then_some(Self { contents })
    }

    pub(super) fn database(&self) -> Oid {
        self.u32_at(0).into()
    }

    pub(super) fn name(&self) -> &'a [u8] {
        name_at(self.contents, NAME_OFFSET)
    }

    /// Whether the row says that the database is being dropped.
    pub(super) fn is_invalid(&self) -> bool {
        self.u32_at(CONNECTION_LIMIT_OFFSET) == u32::from_le_bytes(INVALID.to_le_bytes())
    }

    fn u32_at(&self, offset: usize) -> u32 {
        u32_at(self.contents, offset)
    }
}

/// The rows seen.
#[derive(Debug)]
pub(super) struct CatalogRows {
    relfilenode: Oid,
    /// Files made since, in case `pg_database` moves into one.
    candidates: Vec<Oid>,
    rows: RowStore,
}

impl CatalogRows {
    /// Nothing seen yet; `pg_database` lies in this file of `global/`.
    pub(super) fn new(relfilenode: Oid) -> Self {
        Self {
            relfilenode,
            candidates: Vec::new(),
            rows: RowStore::new(MAX_ROW_BYTES),
        }
    }

    /// The file of `pg_database`.
    pub(super) fn relfilenode(&self) -> Oid {
        self.relfilenode
    }

    /// Whether a block is worth [`CatalogRows::observe`].
    #[inline]
    pub(super) fn concerns(&self, relation: RelationId) -> bool {
        relation.tablespace == GLOBAL_TABLESPACE
            && (relation.relfilenode == self.relfilenode
                || self.candidates.contains(&relation.relfilenode))
    }

    /// Takes note of a new file.
    pub(super) fn file_created(&mut self, relation: RelationId, fork: Fork) {
        if relation.tablespace == GLOBAL_TABLESPACE
            && fork == Fork::Main
            && !self.concerns(relation)
        {
            if self.candidates.len() >= MAX_CANDIDATES {
                let oldest = self.candidates.remove(0);
                self.rows.retain(|relation| relation.relfilenode != oldest);
            }
            self.candidates.push(relation.relfilenode);
        }
    }

    /// Takes note of the shared catalogs' new map.
    pub(super) fn map_changed(&mut self, map: &RelationMap<'_>) {
        if let Some(relfilenode) = map.relfilenode(DATABASE_CATALOG) {
            self.catalog_is(relfilenode);
        }
    }

    fn catalog_is(&mut self, relfilenode: Oid) {
        if relfilenode != self.relfilenode {
            self.relfilenode = relfilenode;
            self.candidates.clear();
            self.rows
                .retain(|relation| relation.relfilenode == relfilenode);
        }
    }

    /// Learns the catalog's file from an overwrite: of all shared catalogs only rows of `pg_database` are
    /// overwritten where they lie.
    pub(super) fn overwritten(&mut self, record: &Record<'_>) {
        if let Some(block) = record.block(0)
            && block.relation.tablespace == GLOBAL_TABLESPACE
        {
            self.catalog_is(block.relation.relfilenode);
        }
    }

    /// Whether a change of a row could not be read, since this was last asked.
    pub(super) fn take_missed(&mut self) -> bool {
        self.rows.take_missed()
    }

    /// Takes note of the page images of a record that concerns the catalog.
    pub(super) fn see_images(&mut self, record: &Record<'_>) {
        let (relfilenode, candidates) = (self.relfilenode, &self.candidates);
        self.rows.see_images(record, |relation| {
            relation.tablespace == GLOBAL_TABLESPACE
                && (relation.relfilenode == relfilenode
                    || candidates.contains(&relation.relfilenode))
        });
    }

    /// Takes note of a heap record about `pg_database`, whose images were seen; tells what happened.
    pub(super) fn observe(
        &mut self,
        record: &Record<'_>,
        change: HeapRecord<'_>,
    ) -> Option<RowChange<DatabaseRow<'_>>> {
        let block = record
            .block(0)
            .filter(|block| block.relation.relfilenode == self.relfilenode)?;
        self.rows
            .observe(record, &block, change)?
            .read(DatabaseRow::new)
    }
}
