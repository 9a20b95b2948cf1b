//! Changes of the map from mapped system catalogs to their files.
//!
//! Record: `xl_relmap_update` in `src/include/utils/relmapper.h`. It carries the whole map, which is also what
//! `pg_filenode.map` holds (`RelMapFile` in `src/backend/utils/cache/relmapper.c`): a magic number, a count,
//! then pairs of a catalog's OID and its relfilenode.

use crate::{
    Oid,
    bytes::{Reader, length},
};

use super::{
    database::DatabaseDirectory,
    payload::{Context, PayloadError},
    record::Record,
};

const UPDATE: u8 = 0x00;
const MAP_MAGIC: u32 = 0x0059_2717;
/// The most entries any version has room for.
const MAX_MAPPINGS: u32 = 64;

/// What a record of [`ResourceManager::RELATION_MAP`](super::resource_manager::ResourceManager::RELATION_MAP)
/// says: the new map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelationMapUpdate<'a> {
    /// The database whose map it is; database 0 for the map of the shared catalogs.
    pub directory: DatabaseDirectory,
    /// The whole map.
    pub map: RelationMap<'a>,
}

/// The map from mapped catalogs to their files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelationMap<'a> {
    pairs: &'a [[u8; 8]],
}

impl<'a> RelationMap<'a> {
    /// Reads the contents of a `pg_filenode.map`, without looking at its checksum; `None` when they are not
    /// such a map.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let magic = reader.u32()?;
        let count = reader.u32()?;
        if magic != MAP_MAGIC || count > MAX_MAPPINGS {
            return None;
        }
        let pairs = reader.take(length(count) * 8)?;
        Some(Self {
            pairs: pairs.as_chunks().0,
        })
    }

    /// The catalogs and their relfilenodes.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (Oid, Oid)> + use<'a> {
        self.pairs.iter().map(|pair| {
            let [a, b, c, d, e, f, g, h] = *pair;
            (
                Oid::new(u32::from_le_bytes([a, b, c, d])),
                Oid::new(u32::from_le_bytes([e, f, g, h])),
            )
        })
    }

    /// The relfilenode of a catalog.
    pub fn relfilenode(&self, catalog: Oid) -> Option<Oid> {
        self.iter()
            .find_map(|(mapped, relfilenode)| (mapped == catalog).then_some(relfilenode))
    }
}

impl<'a> RelationMapUpdate<'a> {
    /// Reads a record of the relation map resource manager; `None` for a kind that no supported version
    /// writes.
    ///
    /// # Errors
    /// When the record lacks what its kind must have.
    pub fn parse(record: &Record<'a>) -> Result<Option<Self>, PayloadError> {
        if record.info() != UPDATE {
            return Ok(None);
        }
        let context = Context::new(record, "RelMap UPDATE");
        let mut reader = Reader::new(record.main_data());
        let database = context.field("database", reader.u32())?.into();
        let tablespace = context.field("tablespace", reader.u32())?.into();
        let len = context.field("length", reader.u32())?;
        let bytes = context.field("map", reader.take(length(len)))?;
        Ok(Some(Self {
            directory: DatabaseDirectory {
                tablespace,
                database,
            },
            map: context.field("map", RelationMap::parse(bytes))?,
        }))
    }
}
