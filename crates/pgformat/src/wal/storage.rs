//! Files of relations, created and truncated (`src/include/catalog/storage_xlog.h`).
//!
//! Their removal is part of the transaction's end: see
//! [`TransactionEnd::dropped_relations`](super::transaction::TransactionEnd::dropped_relations).

use crate::{
    BlockNumber,
    bytes::Reader,
    relation::{Fork, RelationId},
};

use super::{
    payload::{Context, PayloadError},
    record::Record,
};

const CREATE: u8 = 0x10;
const TRUNCATE: u8 = 0x20;

/// What a record of [`ResourceManager::STORAGE`](super::resource_manager::ResourceManager::STORAGE) says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorageRecord {
    /// A fork's file was created, empty.
    Create {
        /// The relation.
        relation: RelationId,
        /// The fork.
        fork: Fork,
    },
    /// A relation was cut.
    Truncate(Truncate),
    /// A kind that no supported version writes.
    Other,
}

/// A relation was cut to fewer blocks (`xl_smgr_truncate`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncate {
    /// The relation.
    pub relation: RelationId,
    /// Blocks that are left of the main fork.
    pub blocks: BlockNumber,
    flags: u32,
}

impl Truncate {
    /// Whether this fork was cut. Forks other than the main one are cut to what `blocks` blocks need.
    pub fn cuts(&self, fork: Fork) -> bool {
        let bit = match fork {
            Fork::Main => 1,
            Fork::VisibilityMap => 2,
            Fork::FreeSpaceMap => 4,
            Fork::Init => 0,
        };
        self.flags & bit != 0
    }
}

impl StorageRecord {
    /// Reads a record of the storage resource manager.
    ///
    /// # Errors
    /// When the record lacks what its kind must have.
    pub fn parse(record: &Record<'_>) -> Result<Self, PayloadError> {
        let mut reader = Reader::new(record.main_data());
        match record.info() {
            CREATE => {
                let context = Context::new(record, "Storage CREATE");
                let relation = context.field("relation", relation(&mut reader))?;
                let fork = reader.u32().and_then(|raw| u8::try_from(raw).ok());
                Ok(Self::Create {
                    relation,
                    fork: context.field("fork", fork.and_then(Fork::from_number))?,
                })
            }
            TRUNCATE => {
                let context = Context::new(record, "Storage TRUNCATE");
                Ok(Self::Truncate(Truncate {
                    blocks: BlockNumber::new(context.field("number of blocks", reader.u32())?),
                    relation: context.field("relation", relation(&mut reader))?,
                    flags: context.field("flags", reader.u32())?,
                }))
            }
            _ => Ok(Self::Other),
        }
    }
}

fn relation(reader: &mut Reader<'_>) -> Option<RelationId> {
    Some(RelationId {
        tablespace: reader.u32()?.into(),
        database: reader.u32()?.into(),
        relfilenode: reader.u32()?.into(),
    })
}
