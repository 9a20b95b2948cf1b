//! What keeps a scratch server from touching anything but its own files.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use everpoint_pgformat::control::RecoveryLimits;
use rustix::{
    fs::{CWD, Dir, FileType, Mode, OFlags, openat},
    io::Errno,
};

use super::account::Account;

/// The longest path of a socket (`sun_path`, less its terminating zero).
const MAX_SOCKET_PATH_BYTES: usize = 107;
/// The port names the socket.
pub(super) const SOCKET_PORT: u16 = 5432;

/// Settings of every caged server, besides PostgreSQL's own defaults: no configuration of the source is
/// read.
const SETTINGS: [(&str, &str); 18] = [
    // No way in but the socket, and no way out.
    ("listen_addresses", ""),
    ("unix_socket_permissions", "0700"),
    ("archive_mode", "off"),
    ("max_logical_replication_workers", "0"),
    ("cluster_name", "everpoint scratch"),
    // Nothing goes on by itself.
    ("autovacuum", "off"),
    ("restart_after_crash", "off"),
    ("jit", "off"),
    // Else a raised `max_connections` in the WAL pauses recovery.
    ("hot_standby", "off"),
    // The scratch is thrown away after a crash of the machine.
    ("fsync", "off"),
    ("full_page_writes", "off"),
    ("synchronous_commit", "off"),
    ("recovery_init_sync_method", "syncfs"),
    // The log goes where we read it.
    ("logging_collector", "off"),
    ("log_destination", "stderr"),
    ("log_line_prefix", "%m [%p] "),
    ("log_timezone", "UTC"),
    ("timezone", "UTC"),
];

/// The file in a data directory that PostgreSQL reads wherever the other configuration is
/// (`PG_AUTOCONF_FILENAME`).
const AUTO_CONFIGURATION: &str = "postgresql.auto.conf";

/// A cage cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CageError {
    /// Its directory cannot be made.
    #[error("`{path}` cannot be made ready for a scratch server")]
    Prepare {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A socket in it would have too long a path.
    #[error(
        "`{path}` is too long for the path of a socket, which may have {MAX_SOCKET_PATH_BYTES} bytes. Choose a shorter directory"
    )]
    SocketPath {
        /// The socket.
        path: PathBuf,
    },
    /// A symbolic link leads out of the data directory, and dropping a database would follow it.
    #[error(
        "`{link}` leads out of the scratch directory, to `{target}`, so no scratch server is started on it. Remove it, or restore the scratch anew"
    )]
    LinkOutside {
        /// The link.
        link: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
}

/// Makes the cage's directory with its configuration, takes the source's away from the data directory
/// `root`, and gives the settings that make a server stay in the cage.
pub(super) fn build(
    directory: &Path,
    root: &Path,
    limits: &RecoveryLimits,
    account: Account,
) -> Result<Vec<(String, String)>, CageError> {
    check_socket_path(directory)?;
    let fail = |path: &Path| {
        let path = path.to_owned();
        move |source| CageError::Prepare { path, source }
    };
    if !directory.is_dir() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(fail(directory))?;
    }
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).map_err(fail(directory))?;
    account.own(directory).map_err(fail(directory))?;
    let files = [
        (
            "postgresql.conf",
            "# Settings are given on the command line.\n",
        ),
        // The directory is private, so whoever reaches the socket may.
        ("pg_hba.conf", "local all all trust\n"),
        ("pg_ident.conf", ""),
    ];
    for (name, text) in files {
        let path = directory.join(name);
        fs::write(&path, text).map_err(fail(&path))?;
        account.own(&path).map_err(fail(&path))?;
    }
    // What the source set by ALTER SYSTEM: its memory, its libraries, its primary.
    let path = root.join(AUTO_CONFIGURATION);
    fs::write(&path, "").map_err(fail(&path))?;
    account.own(&path).map_err(fail(&path))?;
    let mut settings: Vec<(String, String)> = SETTINGS
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let mut set = |name: &str, value: String| settings.push((name.to_owned(), value));
    let path = |name| directory.join(name).display().to_string();
    set("config_file", path("postgresql.conf"));
    set("hba_file", path("pg_hba.conf"));
    set("ident_file", path("pg_ident.conf"));
    set("unix_socket_directories", directory.display().to_string());
    set("port", SOCKET_PORT.to_string());
    // A standby may not undercut its source's; more is never needed.
    set("max_connections", limits.max_connections.to_string());
    set(
        "max_worker_processes",
        limits.max_worker_processes.to_string(),
    );
    set("max_wal_senders", limits.max_wal_senders.to_string());
    set(
        "max_prepared_transactions",
        limits.max_prepared_transactions.to_string(),
    );
    set(
        "max_locks_per_transaction",
        limits.max_locks_per_transaction.to_string(),
    );
    Ok(settings)
}

/// Refuses a cage's directory in which no socket could be.
///
/// # Errors
/// [`CageError::SocketPath`].
pub fn check_socket_path(directory: &Path) -> Result<(), CageError> {
    let path = socket_path(directory);
    match path.as_os_str().len() > MAX_SOCKET_PATH_BYTES {
        true => Err(CageError::SocketPath { path }),
        false => Ok(()),
    }
}

pub(super) fn socket_path(directory: &Path) -> PathBuf {
    directory.join(format!(".s.PGSQL.{SOCKET_PORT}"))
}

/// Refuses a data directory from which any symbolic link leads out. Blocks.
pub(super) fn refuse_links_outside(root: &Path) -> Result<(), CageError> {
    let fail = |path: &Path, source: io::Error| CageError::Prepare {
        path: path.to_owned(),
        source,
    };
    let real_root = root.canonicalize().map_err(|error| fail(root, error))?;
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = match openat(CWD, &directory, flags, Mode::empty()) {
            Err(Errno::NOENT) => continue,
            open => open.map_err(|error| fail(&directory, error.into()))?,
        };
        for entry in Dir::new(open).map_err(|error| fail(&directory, error.into()))? {
            let entry = entry.map_err(|error| fail(&directory, error.into()))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if matches!(name.as_str(), "." | "..") {
                continue;
            }
            let path = directory.join(&name);
            let kind = match entry.file_type() {
                FileType::Unknown => kind_of(&path).map_err(|error| fail(&path, error))?,
                known => known,
            };
            match kind {
                FileType::Directory => directories.push(path),
                FileType::Symlink => refuse_link(path, &real_root)?,
                _ => {}
            }
        }
    }
    Ok(())
}

/// For file systems that do not say it when listing.
fn kind_of(path: &Path) -> io::Result<FileType> {
    let metadata = fs::symlink_metadata(path)?;
    Ok(match (metadata.is_dir(), metadata.is_symlink()) {
        (true, _) => FileType::Directory,
        (_, true) => FileType::Symlink,
        _ => FileType::RegularFile,
    })
}

fn refuse_link(link: PathBuf, real_root: &Path) -> Result<(), CageError> {
    let target = match link.canonicalize() {
        Ok(target) => target,
        // It leads nowhere, as yet.
        Err(_) => fs::read_link(&link).unwrap_or_default(),
    };
    match target.starts_with(real_root) {
        true => Ok(()),
        false => Err(CageError::LinkOutside { link, target }),
    }
}
