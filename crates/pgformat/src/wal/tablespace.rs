//! Tablespaces, created and dropped (`src/include/commands/tablespace.h`).

use crate::{Oid, bytes::Reader};

use super::{
    payload::{Context, PayloadError},
    record::Record,
};

const CREATE: u8 = 0x00;
const DROP: u8 = 0x10;

/// What a record of [`ResourceManager::TABLESPACE`](super::resource_manager::ResourceManager::TABLESPACE)
/// says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TablespaceRecord<'a> {
    /// A tablespace was created. Replay makes a symbolic link to its location.
    Create {
        /// The tablespace.
        tablespace: Oid,
        /// Its directory.
        location: &'a [u8],
    },
    /// A tablespace was dropped.
    Drop {
        /// The tablespace.
        tablespace: Oid,
    },
    /// A kind that no supported version writes.
    Other,
}

impl<'a> TablespaceRecord<'a> {
    /// Reads a record of the tablespace resource manager.
    ///
    /// # Errors
    /// When the record lacks what its kind must have.
    pub fn parse(record: &Record<'a>) -> Result<Self, PayloadError> {
        let mut reader = Reader::new(record.main_data());
        Ok(match record.info() {
            CREATE => {
                let context = Context::new(record, "Tablespace CREATE");
                let tablespace = context.field("tablespace", reader.u32())?.into();
                let location = reader.rest().split(|byte| *byte == 0).next();
                Self::Create {
                    tablespace,
                    location: location.unwrap_or_default(),
                }
            }
            DROP => Self::Drop {
                tablespace: Context::new(record, "Tablespace DROP")
                    .field("tablespace", reader.u32())?
                    .into(),
            },
            _ => Self::Other,
        })
    }
}
