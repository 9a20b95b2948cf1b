//! What a later start needs to finish or undo a move: a small file, replaced as a whole.
//!
//! It is written before the server is touched, and once more before the registering transaction. Whether that
//! transaction committed is told by the server alone: the database has another name then than its hidden one.

use std::{fs, io::Write, path::Path};

use serde::{Deserialize, Serialize};

use super::{
    error::MoveError, name::OperationId, register::Registration, table::register::TableRegistration,
};

/// How far the move was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub(super) enum Record {
    /// The hidden database is being made and filled: what there is of it is of no use.
    Filling {
        /// The operation.
        operation: OperationId,
    },
    /// The hidden database is complete and checked.
    Registering {
        /// What remains to be done.
        registration: Box<Registration>,
    },
    /// Hidden schemas are being made and filled.
    FillingTables {
        /// The operation.
        operation: OperationId,
        /// The database they are in.
        database: String,
    },
    /// The tables are complete and checked.
    RegisteringTables {
        /// What remains to be done.
        registration: Box<TableRegistration>,
    },
}

pub(super) fn write(path: &Path, record: &Record) -> Result<(), MoveError> {
    let failed = || MoveError::file("write", path);
    let mut bytes = serde_json::to_vec_pretty(record).map_err(|source| MoveError::Journal {
        path: path.to_owned(),
        source,
    })?;
    bytes.push(b'\n');
    let new = path.with_extension("new");
    let mut file = fs::File::create(&new).map_err(failed())?;
    file.write_all(&bytes)
        .and_then(|()| file.sync_all())
        .map_err(failed())?;
    fs::rename(&new, path).map_err(failed())?;
    sync_parent(path)
}

/// `None` when there is no journal.
pub(super) fn read(path: &Path) -> Result<Option<Record>, MoveError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(MoveError::file("read", path)(error)),
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|source| MoveError::Journal {
            path: path.to_owned(),
            source,
        })
}

pub(super) fn remove(path: &Path) -> Result<(), MoveError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(MoveError::file("remove", path)(error))
        }
        _ => sync_parent(path),
    }
}

fn sync_parent(path: &Path) -> Result<(), MoveError> {
    let parent = path.parent().unwrap_or(Path::new("."));
    let directory = fs::File::open(parent).map_err(MoveError::file("open", parent))?;
    directory
        .sync_all()
        .map_err(MoveError::file("sync", parent))
}
