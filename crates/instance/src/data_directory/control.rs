//! Reading `global/pg_control`.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use everpoint_pgformat::control::{ControlFile, ControlFileError};

/// Readings before a control file is called damaged: a running server may be writing it at any of them.
const ATTEMPTS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(10);

/// A control file cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadControlError {
    /// It cannot be opened or read.
    #[error(
        "`{path}` cannot be read. Check that the directory is a data directory, and run as its owner"
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its contents are of no use.
    #[error("`{path}` cannot be used")]
    Contents {
        /// The file.
        path: PathBuf,
        /// Why.
        source: ControlFileError,
    },
}

/// Reads the control file of the data directory `root`, again and again while it looks torn. Blocks.
///
/// # Errors
/// See [`ReadControlError`].
pub fn control_file(root: &Path) -> Result<ControlFile, ReadControlError> {
    let path = root.join("global/pg_control");
    let mut attempt = 1;
    loop {
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(source) => return Err(ReadControlError::Read { path, source }),
        };
        match ControlFile::parse(&bytes) {
            Ok(control) => return Ok(control),
            Err(ControlFileError::BadCrc | ControlFileError::TooShort { .. })
                if attempt < ATTEMPTS =>
            {
                attempt += 1;
                thread::sleep(PAUSE);
            }
            Err(source) => return Err(ReadControlError::Contents { path, source }),
        }
    }
}
