//! Temporary directories that a server can use: short, owned by the server's user, passable by others.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::Account;

/// The longest directory that still leaves room for a socket's name: `sun_path` holds 107 bytes.
const LONGEST_BASE_BYTES: usize = 50;

/// A temporary directory, removed with everything in it when dropped.
#[derive(Debug)]
pub struct Scratch {
    directory: TempDir,
    account: Account,
}

impl Scratch {
    /// An empty directory below the system's temporary directory, or below `/tmp` if that has a long name.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new() -> Result<Self> {
        let mut base = std::env::temp_dir();
        if base.as_os_str().len() > LONGEST_BASE_BYTES {
            base = PathBuf::from("/tmp");
        }
        let account = Account::for_servers()?;
        let directory = tempfile::Builder::new()
            .prefix("evp-")
            .tempdir_in(base)
            .context("could not make a temporary directory")?;
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
        account.own(directory.path())?;
        Ok(Self { directory, account })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Makes a directory in it, which belongs to the server's user. Only that user can read it (0700), as
    /// PostgreSQL demands of a data directory.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn private_directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.path().join(name);
        fs::create_dir(&path).with_context(|| format!("could not make {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700))?;
        self.account.own(&path)?;
        Ok(path)
    }
}
