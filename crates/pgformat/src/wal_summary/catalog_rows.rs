//! Rows of `pg_database`, as far as the log has shown them.
//!
//! A record about a row seldom carries the row's whole contents: an update leaves out what the old and the
//! new version share. So rows are kept as images, inserts and updates show them, and looked up when a later
//! record builds on them. Layout of a row: `src/include/catalog/pg_database.h`, the same in PostgreSQL 15
//! to 18 as far as it is read here.

use std::collections::HashMap;

use crate::{
    BlockNumber, Oid,
    bytes::Reader,
    ids::BLOCK_SIZE,
    page::{self, LinePointer},
    relation::{Fork, GLOBAL_TABLESPACE, RelationId},
    wal::{
        block::BlockReference,
        heap::{HeapRecord, Update},
        record::Record,
        relation_map::RelationMap,
    },
};

/// The OID of `pg_database`, and the relfilenode `initdb` gives it.
pub const DATABASE_CATALOG: Oid = Oid::new(1262);

/// What remembered rows may take of memory, in bytes; beyond that all are forgotten.
const MAX_ROW_BYTES: usize = 4 << 20;
/// What a row is reckoned to take besides its contents.
const ROW_OVERHEAD: usize = 64;
/// New files of shared relations that may turn out to be `pg_database`'s.
const MAX_CANDIDATES: usize = 8;

const TUPLE_HEADER_SIZE: usize = 23;
const NAME_OFFSET: usize = 4;
const NAME_SIZE: usize = 64;
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
        let name = self
            .contents
            .get(NAME_OFFSET..NAME_OFFSET + NAME_SIZE)
            .unwrap_or_default();
        name.split(|byte| *byte == 0).next().unwrap_or_default()
    }

    /// Whether the row says that the database is being dropped.
    pub(super) fn is_invalid(&self) -> bool {
        self.u32_at(CONNECTION_LIMIT_OFFSET) == u32::from_le_bytes(INVALID.to_le_bytes())
    }

    fn u32_at(&self, offset: usize) -> u32 {
        Reader::at(self.contents, offset)
            .and_then(|mut reader| reader.u32())
            .unwrap_or_default()
    }
}

/// What happened to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RowChange<'a> {
    Inserted(DatabaseRow<'a>),
    /// The old row is missing when the log has not shown it, and so is the new one when it builds on it.
    Updated {
        old: Option<DatabaseRow<'a>>,
        new: Option<DatabaseRow<'a>>,
    },
    Overwritten(DatabaseRow<'a>),
    Deleted(Option<DatabaseRow<'a>>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Place {
    relfilenode: Oid,
    block: BlockNumber,
    row: LinePointer,
}

/// The rows seen.
#[derive(Debug)]
pub(super) struct CatalogRows {
    relfilenode: Oid,
    /// Files made since, in case `pg_database` moves into one.
    candidates: Vec<Oid>,
    rows: HashMap<Place, Box<[u8]>>,
    bytes: usize,
    /// The last row an update replaced, lent out with what happened to it.
    replaced: Option<Box<[u8]>>,
}

impl CatalogRows {
    /// Nothing seen yet; `pg_database` lies in this file of `global/`.
    pub(super) fn new(relfilenode: Oid) -> Self {
        Self {
            relfilenode,
            candidates: Vec::new(),
            rows: HashMap::new(),
            bytes: 0,
            replaced: None,
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
                self.forget(|place| place.relfilenode == oldest);
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
            self.forget(|place| place.relfilenode != relfilenode);
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

    /// Takes note of the page images of a record that concerns the catalog.
    pub(super) fn see_images(&mut self, record: &Record<'_>) {
        for block in record.blocks() {
            if block.fork != Fork::Main || !self.concerns(block.relation) {
                continue;
            }
            let mut page = [0; BLOCK_SIZE];
            if let Some(image) = block.image
                && image.restore(&mut page).is_ok()
            {
                for (row, contents) in page::rows(&page) {
                    self.remember(place(&block, row), contents);
                }
            }
        }
    }

    /// Takes note of a heap record about `pg_database`, whose images were seen; tells what happened.
    pub(super) fn observe(
        &mut self,
        record: &Record<'_>,
        change: HeapRecord<'_>,
    ) -> Option<RowChange<'_>> {
        let block = record
            .block(0)
            .filter(|block| block.relation.relfilenode == self.relfilenode)?;
        match change {
            HeapRecord::Insert { row } => {
                let place = place(&block, row);
                if block.image.is_none() {
                    self.remember(place, inserted(block.data)?);
                }
                self.row(place).map(RowChange::Inserted)
            }
            HeapRecord::Delete { row } => Some(RowChange::Deleted(self.row(place(&block, row)))),
            HeapRecord::InPlace { row } => {
                let place = place(&block, row);
                if block.image.is_none() {
                    self.remember(place, block.data);
                }
                self.row(place).map(RowChange::Overwritten)
            }
            HeapRecord::Update(update) => {
                let old_block = record.block(1).unwrap_or(block);
                let old = place(&old_block, update.old_row);
                let new = place(&block, update.new_row);
                self.replaced = self.rows.get(&old).cloned();
                if block.image.is_none() {
                    let contents = updated(block.data, update, self.replaced.as_deref());
                    match contents {
                        Some(contents) => self.remember(new, &contents),
                        None => self.forget(|place| *place == new),
                    }
                }
                Some(RowChange::Updated {
                    old: self.replaced.as_deref().and_then(DatabaseRow::new),
                    new: self.row(new),
                })
            }
            HeapRecord::Truncate { .. } | HeapRecord::Other => None,
        }
    }

    fn row(&self, place: Place) -> Option<DatabaseRow<'_>> {
        self.rows.get(&place).and_then(|row| DatabaseRow::new(row))
    }

    fn remember(&mut self, place: Place, contents: &[u8]) {
        if self.bytes > MAX_ROW_BYTES {
            self.rows.clear();
            self.bytes = 0;
        }
        self.bytes += contents.len() + ROW_OVERHEAD;
        if let Some(before) = self.rows.insert(place, contents.into()) {
            self.bytes = self.bytes.saturating_sub(before.len() + ROW_OVERHEAD);
        }
    }

    fn forget(&mut self, unwanted: impl Fn(&Place) -> bool) {
        self.rows.retain(|place, _| !unwanted(place));
        let bytes = self.rows.values().map(|row| row.len() + ROW_OVERHEAD);
        self.bytes = bytes.sum();
    }
}

fn place(block: &BlockReference<'_>, row: LinePointer) -> Place {
    Place {
        relfilenode: block.relation.relfilenode,
        block: block.block,
        row,
    }
}

/// A new row's contents in a block's data: behind `xl_heap_header` and what belongs to the tuple's header.
fn inserted(data: &[u8]) -> Option<&[u8]> {
    let mut reader = Reader::new(data);
    header_rest(&mut reader)?;
    Some(reader.rest())
}

/// A row's new contents: data, between what it shares with the old row.
fn updated(data: &[u8], update: Update, old: Option<&[u8]>) -> Option<Vec<u8>> {
    let mut reader = Reader::new(data);
    let mut shared = |shares| if shares { reader.u16() } else { Some(0) };
    let prefix_len = usize::from(shared(update.shares_prefix())?);
    let suffix_len = usize::from(shared(update.shares_suffix())?);
    header_rest(&mut reader)?;
    let mut contents = Vec::new();
    if prefix_len > 0 {
        contents.extend_from_slice(old?.get(..prefix_len)?);
    }
    contents.extend_from_slice(reader.rest());
    if suffix_len > 0 {
        let old = old?;
        contents.extend_from_slice(old.get(old.len().checked_sub(suffix_len)?..)?);
    }
    Some(contents)
}

/// Passes over `xl_heap_header`, the tuple's bitmap of nulls and padding.
fn header_rest(reader: &mut Reader<'_>) -> Option<()> {
    reader.u16()?;
    reader.u16()?;
    let header_len = usize::from(reader.u8()?);
    reader.take(header_len.checked_sub(TUPLE_HEADER_SIZE)?)?;
    Some(())
}
