//! Databases, created and dropped (`src/include/commands/dbcommands_xlog.h`).
//!
//! These records are about directories. A move to another tablespace is a copy and the drop of the old
//! directory; a database that is gone is told by its row in `pg_database`: see [`super::heap`].

use crate::{Oid, bytes::Reader};

use super::{
    payload::{Context, PayloadError},
    record::Record,
};

const CREATE_FILE_COPY: u8 = 0x00;
const CREATE_WAL_LOG: u8 = 0x10;
const DROP: u8 = 0x20;

/// A database's directory in a tablespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DatabaseDirectory {
    /// The tablespace.
    pub tablespace: Oid,
    /// The database.
    pub database: Oid,
}

/// What a record of [`ResourceManager::DATABASE`](super::resource_manager::ResourceManager::DATABASE) says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatabaseRecord<'a> {
    /// A directory was copied, and none of its contents are in the log.
    CreateFileCopy {
        /// The new directory.
        target: DatabaseDirectory,
        /// Whose copy it is.
        source: DatabaseDirectory,
    },
    /// A directory was made; its contents follow in the log.
    CreateWalLog {
        /// The new directory.
        target: DatabaseDirectory,
    },
    /// A database's directories were removed.
    Drop {
        /// The database.
        database: Oid,
        /// The tablespaces they were in.
        tablespaces: Oids<'a>,
    },
    /// A kind that no supported version writes.
    Other,
}

/// Object identifiers listed in a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Oids<'a>(&'a [[u8; 4]]);

impl<'a> Oids<'a> {
    /// `count` of them; `None` when there are fewer.
    pub(super) fn read(reader: &mut Reader<'a>, count: u32) -> Option<Self> {
        let bytes = reader.take(crate::bytes::length(count).checked_mul(4)?)?;
        Some(Self(bytes.as_chunks().0))
    }

    /// One after the other.
    pub fn iter(self) -> impl ExactSizeIterator<Item = Oid> + use<'a> {
        self.0
            .iter()
            .map(|bytes| Oid::new(u32::from_le_bytes(*bytes)))
    }
}

impl<'a> DatabaseRecord<'a> {
    /// Reads a record of the database resource manager.
    ///
    /// # Errors
    /// When the record lacks what its kind must have.
    pub fn parse(record: &Record<'a>) -> Result<Self, PayloadError> {
        let mut reader = Reader::new(record.main_data());
        Ok(match record.info() {
            CREATE_FILE_COPY => {
                let context = Context::new(record, "Database CREATE_FILE_COPY");
                Self::CreateFileCopy {
                    target: context.field("new database", directory(&mut reader))?,
                    source: context.field("source database", directory(&mut reader))?,
                }
            }
            CREATE_WAL_LOG => {
                let context = Context::new(record, "Database CREATE_WAL_LOG");
                Self::CreateWalLog {
                    target: context.field("new database", directory(&mut reader))?,
                }
            }
            DROP => {
                let context = Context::new(record, "Database DROP");
                let database = context.field("database", reader.u32())?.into();
                let count = context.field("number of tablespaces", reader.u32())?;
                Self::Drop {
                    database,
                    tablespaces: context.field("tablespaces", Oids::read(&mut reader, count))?,
                }
            }
            _ => Self::Other,
        })
    }
}

fn directory(reader: &mut Reader<'_>) -> Option<DatabaseDirectory> {
    let database = reader.u32()?.into();
    Some(DatabaseDirectory {
        database,
        tablespace: reader.u32()?.into(),
    })
}
