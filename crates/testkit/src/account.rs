//! Whom servers run as: PostgreSQL refuses to run as root, so tests run by root use another user.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt, lchown},
    path::Path,
};

use anyhow::{Context, Result, bail};
use tokio::process::Command;

/// The user that servers and PostgreSQL's tools run as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Account {
    /// The test runs as an ordinary user, and so does the server.
    Own,
    /// The test runs as root, the server as this user and group.
    Other {
        /// The user's number.
        uid: u32,
        /// Its group's number.
        gid: u32,
    },
}

impl Account {
    /// `postgres`, or else `nobody`, when the test runs as root; otherwise the test's own user.
    ///
    /// # Errors
    /// When the test runs as root and there is neither.
    pub fn for_servers() -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self::Own);
        }
        let users = fs::read_to_string("/etc/passwd").context("could not read /etc/passwd")?;
        ["postgres", "nobody"]
            .into_iter()
            .find_map(|name| find_user(&users, name))
            .map(|(uid, gid)| Self::Other { uid, gid })
            .context("tests run by root need a user `postgres` or `nobody` to run servers as")
    }

    /// Makes `command` run as this user.
    pub fn run_as(self, command: &mut Command) {
        if let Self::Other { uid, gid } = self {
            command.uid(uid).gid(gid);
        }
    }

    /// Gives a file, or a directory with all that is in it, to this user. Symbolic links are given, and
    /// followed where they lead to a directory outside (tablespaces, a `pg_wal` placed elsewhere).
    ///
    /// # Errors
    /// When something in it cannot be read or given.
    pub fn own(self, path: &Path) -> Result<()> {
        if let Self::Other { uid, gid } = self {
            give(path, uid, gid).with_context(|| format!("could not give {}", path.display()))?;
        }
        Ok(())
    }

    /// Sees to it that this user can reach `path`: every directory on the way must let others through.
    /// Directories below the system's temporary directory are opened if they do not.
    ///
    /// # Errors
    /// When a directory elsewhere is closed, such as `/root`.
    pub fn open_way_to(self, path: &Path) -> Result<()> {
        let Self::Other { uid, .. } = self else {
            return Ok(());
        };
        let path = fs::canonicalize(path).with_context(|| format!("no {}", path.display()))?;
        let temporary = fs::canonicalize(std::env::temp_dir())?;
        for directory in path.ancestors().skip(1) {
            let metadata = fs::metadata(directory)?;
            let mode = metadata.mode() & 0o7777;
            if mode & 0o001 != 0 || metadata.uid() == uid {
                continue;
            }
            if directory == temporary || !directory.starts_with(&temporary) {
                bail!(
                    "{} lets no other user through, so that no server started by root can read {}",
                    directory.display(),
                    path.display()
                );
            }
            fs::set_permissions(directory, fs::Permissions::from_mode(mode | 0o011))?;
        }
        Ok(())
    }
}

fn find_user(users: &str, name: &str) -> Option<(u32, u32)> {
    let line = users
        .lines()
        .find(|line| line.split(':').next() == Some(name))?;
    let mut fields = line.split(':').skip(2);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

fn give(path: &Path, uid: u32, gid: u32) -> io::Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    lchown(path, Some(uid), Some(gid))?;
    let leads_to_directory = metadata.is_symlink() && fs::metadata(path).is_ok_and(|m| m.is_dir());
    if leads_to_directory {
        return give(&fs::canonicalize(path)?, uid, gid);
    }
    if metadata.is_dir() {
        for entry in fs::read_dir(path)? {
            give(&entry?.path(), uid, gid)?;
        }
    }
    Ok(())
}
