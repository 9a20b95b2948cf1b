//! Heap records whose contents matter: changes of rows in system catalogs, and truncations for logical
//! decoding (`src/include/access/heapam_xlog.h`).

use crate::{Oid, TransactionId, bytes::Reader, page::LinePointer};

use super::{
    database::Oids,
    payload::{Context, PayloadError},
    record::Record,
    resource_manager::ResourceManager,
};

const INSERT: u8 = 0x00;
const DELETE: u8 = 0x10;
const UPDATE: u8 = 0x20;
const TRUNCATE: u8 = 0x30;
const HOT_UPDATE: u8 = 0x40;
const INPLACE: u8 = 0x70;
/// Of the second resource manager.
const MULTI_INSERT: u8 = 0x50;
const KIND_MASK: u8 = 0x70;

const UPDATE_PREFIX_FROM_OLD: u8 = 1 << 5;
const UPDATE_SUFFIX_FROM_OLD: u8 = 1 << 6;

/// What a record of [`ResourceManager::HEAP`](super::resource_manager::ResourceManager::HEAP) says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeapRecord<'a> {
    /// A row was added to the page of block reference 0.
    Insert {
        /// Its place.
        row: LinePointer,
    },
    /// A row of the page of block reference 0 was deleted.
    Delete {
        /// Its place.
        row: LinePointer,
    },
    /// A row got a new version.
    Update(Update),
    /// A row of the page of block reference 0 was overwritten where it lies. Its new contents behind the
    /// tuple header are in the block's data, unless there is an image.
    InPlace {
        /// Its place.
        row: LinePointer,
    },
    /// Relations were truncated, for logical decoding only.
    Truncate {
        /// Their database.
        database: Oid,
        /// Their OIDs, not relfilenodes.
        relations: Oids<'a>,
    },
    /// Another change of rows.
    Other,
}

/// A row got a new version (`xl_heap_update`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Update {
    /// Transaction that locked or replaced the old version.
    pub old_xmax: TransactionId,
    /// The old version's place on the page of block reference 1, or 0 when there is no 1.
    pub old_row: LinePointer,
    /// The new version's place on the page of block reference 0.
    pub new_row: LinePointer,
    flags: u8,
}

impl Update {
    /// Whether the new version's data leaves out what it begins with in common with the old.
    pub fn shares_prefix(&self) -> bool {
        self.flags & UPDATE_PREFIX_FROM_OLD != 0
    }

    /// Whether the new version's data leaves out what it ends with in common with the old.
    pub fn shares_suffix(&self) -> bool {
        self.flags & UPDATE_SUFFIX_FROM_OLD != 0
    }
}

impl<'a> HeapRecord<'a> {
    /// Reads a record of the heap resource manager.
    ///
    /// # Errors
    /// When the record lacks what its kind must have.
    pub fn parse(record: &Record<'a>) -> Result<Self, PayloadError> {
        let mut reader = Reader::new(record.main_data());
        Ok(match record.info() & KIND_MASK {
            INSERT => Self::Insert {
                row: row(Context::new(record, "Heap INSERT"), &mut reader)?,
            },
            DELETE => {
                let context = Context::new(record, "Heap DELETE");
                context.field("transaction", reader.u32())?;
                Self::Delete {
                    row: row(context, &mut reader)?,
                }
            }
            UPDATE | HOT_UPDATE => {
                let context = Context::new(record, "Heap UPDATE");
                let old_xmax = context.field("old transaction", reader.u32())?.into();
                let old_row = row(context, &mut reader)?;
                context.field("old row's flags", reader.u8())?;
                let flags = context.field("flags", reader.u8())?;
                context.field("new transaction", reader.u32())?;
                Self::Update(Update {
                    old_xmax,
                    old_row,
                    new_row: row(context, &mut reader)?,
                    flags,
                })
            }
            INPLACE => Self::InPlace {
                row: row(Context::new(record, "Heap INPLACE"), &mut reader)?,
            },
            TRUNCATE => {
                let context = Context::new(record, "Heap TRUNCATE");
                let database = context.field("database", reader.u32())?.into();
                let count = context.field("number of relations", reader.u32())?;
                // A byte of flags, and padding to four.
                context.field("flags", reader.u32())?;
                Self::Truncate {
                    database,
                    relations: context.field("relations", Oids::read(&mut reader, count))?,
                }
            }
            _ => Self::Other,
        })
    }
}

/// Whether a record overwrites a row where it lies ([`HeapRecord::InPlace`]).
#[inline]
pub fn is_overwrite(record: &Record<'_>) -> bool {
    record.resource_manager() == ResourceManager::HEAP && record.info() & KIND_MASK == INPLACE
}

/// What a record does to rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowsWritten {
    /// As many were added.
    Inserted(u64),
    /// One got a new version.
    Updated,
    /// One was deleted.
    Deleted,
}

/// The rows that a record of either heap resource manager writes, on the page of block reference 0; `None`
/// when it writes none.
#[inline]
pub fn rows_written(record: &Record<'_>) -> Option<RowsWritten> {
    match (record.resource_manager(), record.info() & KIND_MASK) {
        (ResourceManager::HEAP, INSERT) => Some(RowsWritten::Inserted(1)),
        (ResourceManager::HEAP, DELETE) => Some(RowsWritten::Deleted),
        (ResourceManager::HEAP, UPDATE | HOT_UPDATE) => Some(RowsWritten::Updated),
        (ResourceManager::HEAP2, MULTI_INSERT) => {
            // `xl_heap_multi_insert`: a byte of flags, padding, the number of rows.
            let count = Reader::at(record.main_data(), 2).and_then(|mut reader| reader.u16());
            Some(RowsWritten::Inserted(u64::from(count.unwrap_or(0))))
        }
        _ => None,
    }
}

fn row(context: Context, reader: &mut Reader<'_>) -> Result<LinePointer, PayloadError> {
    context.field("row", reader.u16()).map(LinePointer::new)
}
