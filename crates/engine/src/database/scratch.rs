//! The directories that scratch servers live in.
//!
//! ```text
//! <scratch>/<instance>-<random>/      0700, the server's user's
//!   lock            held (flock) for as long as the operation lives
//!   journal.json    what the operation does, and how far it is
//!   data/           the data directory
//!   cage/           socket, configuration, log
//!   move/           definitions and journal of the move into another server
//! ```
//!
//! The lock goes with its process, however that ends. So a later operation that can take it knows that nobody
//! lives there any more: it stops what server was left, undoes what the journal says, and removes the
//! directory. A directory whose lock is held is let alone.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, chown},
    path::{Path, PathBuf},
    time::Duration,
};

use everpoint_instance::process::{
    CageError, ProcessError, StopMode, check_socket_path, stop_running,
};
use everpoint_repository::{InstanceName, ids::ObjectId};
use rustix::fs::{FlockOperation, flock};
use serde::{Serialize, de::DeserializeOwned};

use crate::restore::writer::Owner;

const LOCK: &str = "lock";
const JOURNAL: &str = "journal.json";
const DATA: &str = "data";
const CAGE: &str = "cage";
const MOVE: &str = "move";
/// Of what tells directories of one instance apart.
const ID_CHARACTERS: usize = 8;
/// Held while directories are made and swept, so that none is swept while it is being made.
const MAKING: &str = ".making";
/// How long a server that was left behind may take to stop.
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// The longest journal that is read.
const MAX_JOURNAL_BYTES: u64 = 1 << 20;

/// A scratch directory of ours. It is removed by [`Scratch::remove`], not when dropped.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    owner: Option<Owner>,
    _lock: File,
}

/// A scratch directory cannot be made, written or removed.
#[derive(Debug, thiserror::Error)]
pub enum ScratchError {
    /// A file or directory.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A server that was left behind.
    #[error(transparent)]
    Server(#[from] ProcessError),
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ScratchError {
    let path = path.to_owned();
    move |source| ScratchError::File {
        action,
        path,
        source,
    }
}

/// Whether a lock was free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Locked {
    Ours,
    Others,
}

/// Refuses a place below which no scratch server could have its socket.
///
/// # Errors
/// [`CageError::SocketPath`].
pub fn check_base(base: &Path, instance: &InstanceName) -> Result<(), CageError> {
    let name = format!("{instance}-{}", "0".repeat(ID_CHARACTERS));
    check_socket_path(&base.join(name).join(CAGE))
}

impl Scratch {
    /// Makes a directory below `base`, which is made as well.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn make(
        base: &Path,
        instance: &InstanceName,
        owner: Option<Owner>,
    ) -> Result<Self, ScratchError> {
        make_base(base)?;
        let _making = lock_making(base)?;
        let id = ObjectId::random().to_string();
        let id = id.get(..ID_CHARACTERS).unwrap_or(&id);
        let path = base.join(format!("{instance}-{id}"));
        make_private(&path, owner)?;
        let lock = open_lock(&path)?;
        take(&lock, &path)?;
        Ok(Self {
            path,
            owner,
            _lock: lock,
        })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.path.join(DATA)
    }

    /// Where the socket is.
    pub fn cage(&self) -> PathBuf {
        self.path.join(CAGE)
    }

    /// Where a move keeps what it needs. Made by [`Scratch::make_move_directory`].
    pub fn move_directory(&self) -> PathBuf {
        self.path.join(MOVE)
    }

    /// Makes the directory of a move.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn make_move_directory(&self) -> Result<PathBuf, ScratchError> {
        let path = self.move_directory();
        make_private(&path, None)?;
        Ok(path)
    }

    /// Whose the files are.
    pub fn owner(&self) -> Option<Owner> {
        self.owner
    }

    /// Writes the journal anew, whole or not at all, and brings it to the disk.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_journal<T: Serialize>(&self, journal: &T) -> Result<(), ScratchError> {
        write_journal(&self.path, journal)
    }

    /// Reads the journal; `None` when there is none, or no readable one.
    pub fn read_journal<T: DeserializeOwned>(&self) -> Option<T> {
        let mut text = Vec::new();
        let file = File::open(self.path.join(JOURNAL)).ok()?;
        io::Read::read_to_end(&mut io::Read::take(file, MAX_JOURNAL_BYTES), &mut text).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Stops a server that runs there and removes everything. Links are removed, not followed.
    ///
    /// # Errors
    /// When the server does not stop or something cannot be removed.
    pub async fn remove(self) -> Result<(), ScratchError> {
        stop_running(&self.data(), StopMode::Immediate, STOP_LIMIT).await?;
        remove_all(&self.path)
    }

    /// Stops a server that runs there, and removes it; journals stay.
    ///
    /// # Errors
    /// As for [`Scratch::remove`].
    pub async fn remove_server(&self) -> Result<(), ScratchError> {
        stop_running(&self.data(), StopMode::Immediate, STOP_LIMIT).await?;
        remove_all(&self.data())?;
        remove_all(&self.cage())
    }
}

/// [`Scratch::write_journal`] of the directory at `path`, for those who only know where it is.
pub(super) fn write_journal<T: Serialize>(path: &Path, journal: &T) -> Result<(), ScratchError> {
    let part = path.join("journal.part");
    let text =
        serde_json::to_vec_pretty(journal).map_err(|error| failed("write", &part)(error.into()))?;
    match fs::remove_file(&part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed("remove", &part)(error));
        }
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&part)
        .map_err(failed("create", &part))?;
    io::Write::write_all(&mut file, &text)
        .and_then(|()| file.sync_all())
        .map_err(failed("write", &part))?;
    fs::rename(&part, path.join(JOURNAL)).map_err(failed("rename", &part))?;
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(failed("sync", path))
}

fn remove_all(path: &Path) -> Result<(), ScratchError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

/// The directories below `base` whose operations are dead, with their locks taken.
///
/// # Errors
/// When `base` cannot be listed.
pub fn abandoned(base: &Path) -> Result<Vec<Scratch>, ScratchError> {
    if !base.is_dir() {
        return Ok(Vec::new());
    }
    let _making = lock_making(base)?;
    let mut found = Vec::new();
    for entry in fs::read_dir(base).map_err(failed("list", base))? {
        let entry = entry.map_err(failed("list", base))?;
        let path = entry.path();
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        // Only what was made here has a lock: nothing else is touched.
        if !is_directory || !path.join(LOCK).is_file() {
            continue;
        }
        let lock = open_lock(&path)?;
        if take(&lock, &path)? == Locked::Ours {
            found.push(Scratch {
                path,
                owner: None,
                _lock: lock,
            });
        }
    }
    Ok(found)
}

/// Others than the owner may pass through, as the server's user must.
fn make_base(base: &Path) -> Result<(), ScratchError> {
    if base.is_dir() {
        return Ok(());
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(base)
        .map_err(failed("make", base))
}

fn make_private(path: &Path, owner: Option<Owner>) -> Result<(), ScratchError> {
    DirBuilder::new()
        .mode(0o700)
        .create(path)
        .map_err(failed("make", path))?;
    if let Some(owner) = owner {
        chown(path, Some(owner.user), Some(owner.group)).map_err(failed("give away", path))?;
    }
    Ok(())
}

fn lock_making(base: &Path) -> Result<File, ScratchError> {
    let path = base.join(MAKING);
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(failed("open", &path))?;
    flock(&file, FlockOperation::LockExclusive)
        .map_err(|error| failed("lock", &path)(error.into()))?;
    Ok(file)
}

fn open_lock(path: &Path) -> Result<File, ScratchError> {
    let path = path.join(LOCK);
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
        .open(&path)
        .map_err(failed("open", &path))
}

fn take(lock: &File, path: &Path) -> Result<Locked, ScratchError> {
    match flock(lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Locked::Ours),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(Locked::Others),
        Err(error) => Err(failed("lock", path)(error.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> InstanceName {
        "main".parse().unwrap()
    }

    #[tokio::test]
    async fn only_directories_whose_operation_is_dead_are_swept() {
        let base = tempfile::tempdir().unwrap();
        let foreign = base.path().join("not-ours");
        fs::create_dir(&foreign).unwrap();
        let living = Scratch::make(base.path(), &name(), None).unwrap();
        let dead = Scratch::make(base.path(), &name(), None).unwrap();
        dead.write_journal(&vec![1, 2]).unwrap();
        let path = dead.path().to_owned();
        assert!(abandoned(base.path()).unwrap().is_empty());
        drop(dead);
        let mut found = abandoned(base.path()).unwrap();
        assert_eq!(found.len(), 1);
        let dead = found.remove(0);
        assert_eq!(dead.path(), path);
        assert_eq!(dead.read_journal::<Vec<i32>>(), Some(vec![1, 2]));
        dead.remove().await.unwrap();
        assert!(!path.exists() && living.path().exists() && foreign.exists());
    }

    #[tokio::test]
    async fn removal_does_not_follow_links() {
        let base = tempfile::tempdir().unwrap();
        let live = base.path().join("live");
        fs::create_dir(&live).unwrap();
        fs::write(live.join("file"), "kept").unwrap();
        let scratch = Scratch::make(&base.path().join("scratch"), &name(), None).unwrap();
        fs::create_dir_all(scratch.data()).unwrap();
        std::os::unix::fs::symlink(&live, scratch.data().join("link")).unwrap();
        let path = scratch.path().to_owned();
        scratch.remove().await.unwrap();
        assert!(live.join("file").exists() && !path.exists());
    }
}
