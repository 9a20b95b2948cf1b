//! Rows of system catalogs, as far as the log has shown them.
//!
//! A record about a row seldom carries the row's whole contents: an update leaves out what the old and the
//! new version share. So rows are kept as images, inserts and updates show them, and looked up when a later
//! record builds on them.

use crate::{
    BlockNumber,
    bytes::Reader,
    ids::BLOCK_SIZE,
    page::{self, LinePointer},
    relation::{Fork, RelationId},
    wal::{
        block::BlockReference,
        heap::{HeapRecord, Update},
        record::Record,
    },
};

use super::hash::QuickMap;

/// What a row is reckoned to take besides its contents.
const ROW_OVERHEAD: usize = 64;
const TUPLE_HEADER_SIZE: usize = 23;

/// What happened to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RowChange<T> {
    Inserted(T),
    /// The old row is missing when the log has not shown it, and so is the new one when it builds on it.
    Updated {
        old: Option<T>,
        new: Option<T>,
    },
    Overwritten(T),
    Deleted(Option<T>),
}

impl<T> RowChange<T> {
    /// Reads the contents as a catalog's row; `None` when they are not one.
    pub(super) fn read<U>(self, row: impl Fn(T) -> Option<U>) -> Option<RowChange<U>> {
        Some(match self {
            Self::Inserted(new) => RowChange::Inserted(row(new)?),
            Self::Updated { old, new } => RowChange::Updated {
                old: old.and_then(&row),
                new: new.and_then(&row),
            },
            Self::Overwritten(new) => RowChange::Overwritten(row(new)?),
            Self::Deleted(old) => RowChange::Deleted(old.and_then(row)),
        })
    }
}

/// Where a row lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Place {
    relation: RelationId,
    block: BlockNumber,
    row: LinePointer,
}

/// The rows seen.
#[derive(Debug)]
pub(super) struct RowStore {
    rows: QuickMap<Place, Box<[u8]>>,
    bytes: usize,
    max_bytes: usize,
    /// A change of a row was observed that was not known.
    missed: bool,
    /// The last row an update replaced, lent out with what happened to it.
    replaced: Option<Box<[u8]>>,
}

impl RowStore {
    /// Nothing seen yet. Beyond `max_bytes` of memory all rows are forgotten.
    pub(super) fn new(max_bytes: usize) -> Self {
        Self {
            rows: QuickMap::default(),
            bytes: 0,
            max_bytes,
            missed: false,
            replaced: None,
        }
    }

    /// Takes note of the page images of a record, of the relations that concern us.
    pub(super) fn see_images(
        &mut self,
        record: &Record<'_>,
        concerns: impl Fn(RelationId) -> bool,
    ) {
        for block in record.blocks() {
            if block.fork != Fork::Main || !concerns(block.relation) {
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

    /// Takes note of a heap record about a catalog, whose images were seen; tells what happened.
    pub(super) fn observe(
        &mut self,
        record: &Record<'_>,
        block: &BlockReference<'_>,
        change: HeapRecord<'_>,
    ) -> Option<RowChange<&[u8]>> {
        let new = match change {
            HeapRecord::Insert { row } => {
                let place = place(block, row);
                match inserted(block.data).filter(|_| block.image.is_none()) {
                    Some(contents) => self.remember(place, contents),
                    None if block.image.is_none() => self.forget(place),
                    None => {}
                }
                self.missed |= !self.rows.contains_key(&place);
                return self.row(place).map(RowChange::Inserted);
            }
            HeapRecord::Delete { row } => {
                let place = place(block, row);
                self.missed |= !self.rows.contains_key(&place);
                return Some(RowChange::Deleted(self.row(place)));
            }
            HeapRecord::InPlace { row } => {
                let place = place(block, row);
                if block.image.is_none() {
                    self.remember(place, block.data);
                }
                return self.row(place).map(RowChange::Overwritten);
            }
            HeapRecord::Update(update) => self.update(record, block, update),
            HeapRecord::Truncate { .. } | HeapRecord::Other => return None,
        };
        self.missed |= self.replaced.is_none() || !self.rows.contains_key(&new);
        Some(RowChange::Updated {
            old: self.replaced.as_deref(),
            new: self.row(new),
        })
    }

    /// Remembers a row's new version and tells its place.
    fn update(&mut self, record: &Record<'_>, block: &BlockReference<'_>, update: Update) -> Place {
        let old_block = record.block(1).filter(|old| old.fork == Fork::Main);
        let old = place(old_block.as_ref().unwrap_or(block), update.old_row);
        let new = place(block, update.new_row);
        self.replaced = self.rows.get(&old).cloned();
        if block.image.is_none() {
            match updated(block.data, update, self.replaced.as_deref()) {
                Some(contents) => self.remember(new, &contents),
                None => self.forget(new),
            }
        }
        new
    }

    /// Whether a change of a row was observed that was not known, since this was last asked.
    pub(super) fn take_missed(&mut self) -> bool {
        std::mem::take(&mut self.missed)
    }

    fn row(&self, place: Place) -> Option<&[u8]> {
        self.rows.get(&place).map(AsRef::as_ref)
    }

    fn remember(&mut self, place: Place, contents: &[u8]) {
        if self.bytes > self.max_bytes {
            self.rows.clear();
            self.bytes = 0;
        }
        self.bytes += contents.len() + ROW_OVERHEAD;
        if let Some(before) = self.rows.insert(place, contents.into()) {
            self.bytes = self.bytes.saturating_sub(before.len() + ROW_OVERHEAD);
        }
    }

    fn forget(&mut self, place: Place) {
        if let Some(row) = self.rows.remove(&place) {
            self.bytes = self.bytes.saturating_sub(row.len() + ROW_OVERHEAD);
        }
    }

    /// Keeps the rows of these relations.
    pub(super) fn retain(&mut self, wanted: impl Fn(RelationId) -> bool) {
        self.rows.retain(|place, _| wanted(place.relation));
        let bytes = self.rows.values().map(|row| row.len() + ROW_OVERHEAD);
        self.bytes = bytes.sum();
    }
}

fn place(block: &BlockReference<'_>, row: LinePointer) -> Place {
    Place {
        relation: block.relation,
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
