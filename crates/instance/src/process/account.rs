//! The user that a server runs as. PostgreSQL refuses to run as root, and to use another user's directory.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use tokio::process::Command;

/// The user that a program is to run as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Account {
    /// The one that we run as.
    Own,
    /// Another, by its numbers. Only root may choose.
    Other {
        /// User.
        uid: u32,
        /// Group.
        gid: u32,
    },
}

/// No user to run a server as.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccountError {
    /// The directory cannot be looked at.
    #[error("the owner of `{path}` cannot be found out. Check that it is there")]
    Unknown {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Root owns it.
    #[error(
        "`{path}` belongs to root, and PostgreSQL does not run as root. Give it to the server's user: chown -R postgres: {path}"
    )]
    OwnedByRoot {
        /// The directory.
        path: PathBuf,
    },
    /// Another user owns it, and we are not root.
    #[error(
        "`{path}` belongs to user number {owner}, and this process runs as {own}. Run it as the owner, or as root"
    )]
    OwnedByOther {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        own: u32,
    },
}

impl Account {
    /// The owner of a data directory, as far as we may run programs as it.
    ///
    /// # Errors
    /// See [`AccountError`].
    pub fn owner_of(path: &Path) -> Result<Self, AccountError> {
        let metadata = fs::metadata(path).map_err(|source| AccountError::Unknown {
            path: path.to_owned(),
            source,
        })?;
        let own = rustix::process::geteuid().as_raw();
        let path = || path.to_owned();
        match (metadata.uid(), own) {
            (0, _) => Err(AccountError::OwnedByRoot { path: path() }),
            (owner, own) if owner == own => Ok(Self::Own),
            (uid, 0) => Ok(Self::Other {
                uid,
                gid: metadata.gid(),
            }),
            (owner, own) => Err(AccountError::OwnedByOther {
                path: path(),
                owner,
                own,
            }),
        }
    }

    /// Lets a program run as this user, without root's groups.
    pub fn apply(self, command: &mut Command) {
        if let Self::Other { uid, gid } = self {
            command.uid(uid).gid(gid);
        }
    }

    /// Gives a file or directory to this user.
    ///
    /// # Errors
    /// When that is not allowed.
    pub fn own(self, path: &Path) -> io::Result<()> {
        match self {
            Self::Own => Ok(()),
            Self::Other { uid, gid } => std::os::unix::fs::chown(path, Some(uid), Some(gid)),
        }
    }
}
