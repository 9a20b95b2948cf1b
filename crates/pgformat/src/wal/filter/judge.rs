//! What of a record concerns which databases, and so what becomes of it.
//!
//! Records that name blocks are told by those. Of the others some name a database at a fixed place of their
//! main data, the same in PostgreSQL 15 to 18 (`storage_xlog.h`, `relmapper.h`, `dbcommands_xlog.h`,
//! `heapam_xlog.h`, `nbtxlog.h`, `gistxlog.h`, `message.h`).

use std::collections::BTreeSet;

use crate::{Oid, bytes::Reader};

use crate::wal::{
    record::Record, resource_manager::ResourceManager, tablespace::TablespaceRecord, xlog::NOOP,
};

/// The databases whose changes stay in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Databases {
    /// All.
    All,
    /// These, and what belongs to the whole cluster.
    Only(BTreeSet<Oid>),
}

impl Databases {
    /// Whether changes of a database stay.
    pub fn keep(&self, database: Oid) -> bool {
        match self {
            Self::All => true,
            Self::Only(kept) => database == SHARED || kept.contains(&database),
        }
    }
}

/// The database of what all databases share.
const SHARED: Oid = Oid::new(0);

/// What becomes of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It stays as it is.
    Keep,
    /// It concerns databases that are left out as well as others, or an extension's resource manager wrote
    /// it and it does not say whom it concerns: it stays, and is counted.
    KeepUnsure,
    /// It becomes one that does nothing.
    Neutralise,
    /// It makes a tablespace, whose location is taken out. The number is the location's offset in the
    /// main data.
    MakeTablespaceInside {
        /// Where the location begins.
        location: usize,
    },
}

/// Where the location lies in the main data of `CREATE TABLESPACE`: behind the tablespace's OID.
const LOCATION_OFFSET: usize = 4;

pub(super) fn judge(record: &Record<'_>, databases: &Databases) -> Verdict {
    let manager = record.resource_manager();
    if manager == ResourceManager::TABLESPACE {
        return match TablespaceRecord::parse(record) {
            Ok(TablespaceRecord::Create { .. }) => Verdict::MakeTablespaceInside {
                location: LOCATION_OFFSET,
            },
            _ => Verdict::Keep,
        };
    }
    if *databases == Databases::All {
        return Verdict::Keep;
    }
    let blocks = record.blocks();
    if blocks.len() > 0 {
        let kept = blocks
            .filter(|block| databases.keep(block.relation.database))
            .count();
        return match kept {
            0 => Verdict::Neutralise,
            kept if kept == record.blocks().len() => Verdict::Keep,
            _ => Verdict::KeepUnsure,
        };
    }
    if manager.is_custom() {
        return Verdict::KeepUnsure;
    }
    match database_offset(record) {
        None => Verdict::Keep,
        Some(offset) => {
            let database = Reader::at(record.main_data(), offset).and_then(|mut data| data.u32());
            match database {
                Some(database) if !databases.keep(database.into()) => Verdict::Neutralise,
                // Too short for its kind: replay shall complain, not we.
                Some(_) | None => Verdict::Keep,
            }
        }
    }
}

/// Where a record without blocks names the database that it concerns; `None` when it concerns the cluster.
fn database_offset(record: &Record<'_>) -> Option<usize> {
    const SMGR_CREATE: u8 = 0x10;
    const SMGR_TRUNCATE: u8 = 0x20;
    const HEAP_TRUNCATE: u8 = 0x30;
    const HEAP2_REWRITE: u8 = 0x00;
    const HEAP2_NEW_CID: u8 = 0x70;
    const HEAP_KIND: u8 = 0x70;
    const BTREE_REUSE_PAGE: u8 = 0xD0;
    const GIST_PAGE_REUSE: u8 = 0x20;
    let info = record.info();
    match record.resource_manager() {
        // A RelFileLocator: tablespace, database, relation.
        ResourceManager::STORAGE if info == SMGR_CREATE => Some(4),
        // The number of blocks comes first.
        ResourceManager::STORAGE if info == SMGR_TRUNCATE => Some(8),
        // Both kinds of CREATE name the new database first, DROP the one that goes.
        ResourceManager::DATABASE | ResourceManager::RELATION_MAP => Some(0),
        ResourceManager::HEAP if info & HEAP_KIND == HEAP_TRUNCATE => Some(0),
        ResourceManager::HEAP2 => match info & HEAP_KIND {
            HEAP2_REWRITE => Some(4),
            // Four numbers of transactions and commands come first, then a RelFileLocator.
            HEAP2_NEW_CID => Some(20),
            _ => None,
        },
        ResourceManager::BTREE if info == BTREE_REUSE_PAGE => Some(4),
        ResourceManager::GIST if info == GIST_PAGE_REUSE => Some(4),
        ResourceManager::LOGICAL_MESSAGE => Some(0),
        _ => None,
    }
}

/// `xl_info` and `xl_rmid` of a record that does nothing.
pub(super) const DOES_NOTHING: [u8; 2] = [NOOP, ResourceManager::XLOG.get()];
