//! Room on a file system.

use std::{io, path::Path};

use everpoint_pgformat::ByteCount;

/// Room on a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// What an ordinary user may still write.
    pub available: ByteCount,
    /// All of it.
    pub total: ByteCount,
    /// Files that may still be made; 0 on file systems that do not count them.
    pub available_files: u64,
}

/// The room on the file system of `path`. Blocks.
///
/// # Errors
/// When `path` is not there or may not be looked at.
pub fn space(path: &Path) -> io::Result<Space> {
    let found = rustix::fs::statvfs(path)?;
    Ok(Space {
        available: ByteCount::new(found.f_bavail.saturating_mul(found.f_frsize)),
        total: ByteCount::new(found.f_blocks.saturating_mul(found.f_frsize)),
        available_files: found.f_favail,
    })
}
