//! The files themselves: template0's go out of the vessel, the recovered database's come in.
//!
//! On one file system they are renamed, else copied. Each is brought to the disk: the server knows nothing of
//! them, and a write that the disk refuses later would show as other contents when they are read back. A file that
//! is a table's is read first, and refused when a row in it is not frozen.

use std::{
    collections::VecDeque,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    num::NonZero,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown, fchown},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use everpoint_pgformat::{
    Oid,
    ids::BLOCK_SIZE,
    page::{self, Page},
    relation::{Fork, RelationFile},
};

use super::{FilesPlan, freeze::Frozen, refused};
use crate::{
    progress::Progress,
    restore::writer::Owner,
    room::Room,
    transplant::{Control, MoveError, MovePlan, sessions::Queue},
};

/// Bytes read at a time.
const BUFFER_BYTES: usize = 128 * BLOCK_SIZE;
/// Files that the new database needs besides those of relations: which file is which catalog's.
const RELATION_MAP: &str = "pg_filenode.map";
/// What a new database's directory has already.
const VERSION_FILE: &str = "PG_VERSION";
/// The mode of a database's directory when its server tells no other.
const DIRECTORY_MODE: u32 = 0o700;

/// A file to be moved.
#[derive(Debug)]
struct Item {
    from: PathBuf,
    to: PathBuf,
    bytes: u64,
    contents: Contents,
}

/// What is in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contents {
    /// A table's rows.
    Rows,
    /// Anything else.
    Other,
}

/// How files look that the server makes there.
#[derive(Clone, Copy, Debug)]
struct Look {
    owner: Owner,
    mode: u32,
}

/// Tells threads to stop when whoever waits for them is gone.
struct Watched(Arc<AtomicBool>);

impl Drop for Watched {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Moves all files. Nothing goes on when it returns.
pub(super) async fn place(
    plan: &MovePlan,
    files: &FilesPlan,
    frozen: &Frozen,
    room: &Room,
    control: &Control,
) -> Result<(), MoveError> {
    let vessel = plan.operation().vessel_number();
    let (from, to) = files.own_tablespace;
    let mut directories = vec![(
        from,
        files.source.database(from, files.database),
        files.target.database(to, vessel),
    )];
    for tablespace in &files.tablespaces {
        directories.push((
            *tablespace,
            files.source.database(*tablespace, files.database),
            files.target.database(*tablespace, vessel),
        ));
    }
    let heaps = frozen.heaps.clone();
    let owner = files.target.owner;
    let jobs = NonZero::new(plan.request.jobs).unwrap_or(NonZero::<usize>::MIN);
    let progress = control.progress.clone();
    let gone = Arc::new(AtomicBool::new(false));
    let _watched = Watched(Arc::clone(&gone));
    let watched = room.clone();
    let work = tokio::task::spawn_blocking(move || {
        let stop = || {
            gone.load(Ordering::Relaxed) || progress.is_cancelled() || watched.is_low().is_some()
        };
        let (look, items, changed) = prepare(
            &directories,
            &|tablespace, file| {
                file.fork == Fork::Main && heaps.contains(&(tablespace, file.relation.relfilenode))
            },
            owner,
        )?;
        progress.phase("moving files", items.iter().map(|item| item.bytes).sum());
        move_all(items, look, jobs, &progress, &stop)?;
        changed.iter().try_for_each(|to| sync_directory(to))
    });
    match work.await {
        // Why it stopped, it does not know.
        Ok(Err(MoveError::Cancelled)) if !control.progress.is_cancelled() => {
            Err(room.is_low().map_or(MoveError::Cancelled, Into::into))
        }
        Ok(done) => done,
        Err(error) => Err(MoveError::file("move", &files.target.path)(
            io::Error::other(error),
        )),
    }
}

/// Empties the vessel. Lists what goes in, and which directories change.
fn prepare(
    directories: &[(Oid, PathBuf, PathBuf)],
    is_table: &dyn Fn(Oid, &RelationFile) -> bool,
    owner: Owner,
) -> Result<(Look, Vec<Item>, Vec<PathBuf>), MoveError> {
    let mut look = Look { owner, mode: 0o600 };
    let mut items = Vec::new();
    let mut changed = Vec::new();
    for (index, (tablespace, from, to)) in directories.iter().enumerate() {
        // Parents of partitions choose a tablespace, and have no files.
        if index > 0 && !from.is_dir() {
            continue;
        }
        changed.push(to.clone());
        match index {
            0 => look.mode = empty(to)?,
            _ => make_directory(to, owner)?,
        }
        for entry in entries(from)? {
            let metadata =
                fs::symlink_metadata(&entry).map_err(MoveError::file("look at", &entry))?;
            let Some(name) = entry.file_name().and_then(|name| name.to_str()) else {
                continue;
            };
            let file = RelationFile::in_database_directory(name);
            let wanted = file.is_some() || (index == 0 && name == RELATION_MAP);
            if !wanted || !metadata.is_file() {
                continue;
            }
            let contents = match &file {
                Some(file) if is_table(*tablespace, file) => Contents::Rows,
                _ => Contents::Other,
            };
            items.push(Item {
                to: to.join(name),
                bytes: metadata.len(),
                contents,
                from: entry,
            });
        }
    }
    // The large ones first, so that threads end together.
    items.sort_by_key(|item| std::cmp::Reverse(item.bytes));
    Ok((look, items, changed))
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>, MoveError> {
    let list = fs::read_dir(directory).map_err(MoveError::file("list", directory))?;
    list.map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()
        .map_err(MoveError::file("list", directory))
}

/// Returns the mode that the server gives its files.
fn empty(directory: &Path) -> Result<u32, MoveError> {
    for path in entries(directory)? {
        if path.file_name().is_some_and(|name| name != VERSION_FILE) {
            fs::remove_file(&path).map_err(MoveError::file("remove", &path))?;
        }
    }
    let path = directory.join(VERSION_FILE);
    let metadata = fs::symlink_metadata(&path).map_err(MoveError::file("look at", &path))?;
    Ok(metadata.permissions().mode() & 0o777)
}

fn make_directory(path: &Path, owner: Owner) -> Result<(), MoveError> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    let mode = match fs::metadata(parent) {
        Ok(metadata) => metadata.permissions().mode() & 0o777,
        // The first database of this version there.
        Err(_) => {
            make_one(parent, owner, DIRECTORY_MODE)?;
            DIRECTORY_MODE
        }
    };
    make_one(path, owner, mode)?;
    sync_directory(parent)
}

fn make_one(path: &Path, owner: Owner, mode: u32) -> Result<(), MoveError> {
    DirBuilder::new()
        .mode(mode)
        .create(path)
        .and_then(|()| chown(path, Some(owner.user), Some(owner.group)))
        .map_err(MoveError::file("make", path))
}

fn move_all(
    items: Vec<Item>,
    look: Look,
    jobs: NonZero<usize>,
    progress: &Progress,
    stop: &(dyn Fn() -> bool + Sync),
) -> Result<(), MoveError> {
    let items = Queue::new(VecDeque::from(items));
    let failed = AtomicBool::new(false);
    let stop = || stop() || failed.load(Ordering::Relaxed);
    let work = || {
        let mut buffer = vec![0; BUFFER_BYTES];
        while let Some(item) = items.next() {
            let done = move_one(&item, look, &mut buffer, progress, &stop);
            if done.is_err() {
                failed.store(true, Ordering::Relaxed);
                return done;
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..jobs.get()).map(|_| scope.spawn(work)).collect();
        let ended = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err(MoveError::Cancelled)));
        // Of several failures that is told which is not the consequence of another.
        let mut result = Ok(());
        for done in ended {
            if matches!(result, Ok(()) | Err(MoveError::Cancelled)) && done.is_err() {
                result = done;
            }
        }
        result
    })
}

fn move_one(
    item: &Item,
    look: Look,
    buffer: &mut [u8],
    progress: &Progress,
    stop: &dyn Fn() -> bool,
) -> Result<(), MoveError> {
    if stop() {
        return Err(MoveError::Cancelled);
    }
    if item.contents == Contents::Rows {
        refuse_unfrozen(item, buffer, progress, stop)?;
    } else {
        progress.add_bytes(item.bytes);
    }
    match fs::rename(&item.from, &item.to) {
        Ok(()) => own(&item.to, look),
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            copy(item, look, buffer, stop)
        }
        Err(error) => Err(MoveError::file("move", &item.to)(error)),
    }
}

/// Reads a table's file through.
fn refuse_unfrozen(
    item: &Item,
    buffer: &mut [u8],
    progress: &Progress,
    stop: &dyn Fn() -> bool,
) -> Result<(), MoveError> {
    let mut file = open(&item.from)?;
    loop {
        let read = fill(&mut file, buffer).map_err(MoveError::file("read", &item.from))?;
        let (pages, rest) = buffer
            .get(..read)
            .unwrap_or_default()
            .as_chunks::<BLOCK_SIZE>();
        if !rest.is_empty() {
            return Err(refused(format!(
                "`{}` ends within a page",
                item.from.display()
            )));
        }
        if let Some(row) = pages.iter().find_map(unfrozen) {
            return Err(refused(format!(
                "a row in `{}` is not frozen, though the visibility map says so (line pointer {row} of its page)",
                item.from.display()
            )));
        }
        progress.add_bytes(u64::try_from(read).unwrap_or_default());
        if read < buffer.len() {
            return Ok(());
        }
        if stop() {
            return Err(MoveError::Cancelled);
        }
    }
}

fn unfrozen(page: &Page) -> Option<u16> {
    page::tuples(page)
        .find(|tuple| !tuple.names_no_transaction())
        .map(|tuple| tuple.place().get())
}

fn fill(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read(rest) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Whoever runs the source could put a link in a file's place.
fn open(path: &Path) -> Result<File, MoveError> {
    OpenOptions::new()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)
        .map_err(MoveError::file("open", path))
}

fn own(path: &Path, look: Look) -> Result<(), MoveError> {
    let file = open(path)?;
    let metadata = file.metadata().map_err(MoveError::file("look at", path))?;
    let owned = (metadata.uid(), metadata.gid()) == (look.owner.user, look.owner.group);
    let given = match owned {
        true => Ok(()),
        false => fchown(&file, Some(look.owner.user), Some(look.owner.group)),
    };
    given
        .and_then(
            |()| match metadata.permissions().mode() & 0o777 == look.mode {
                true => Ok(()),
                false => file.set_permissions(fs::Permissions::from_mode(look.mode)),
            },
        )
        .and_then(|()| file.sync_all())
        .map_err(MoveError::file("give away", path))
}

fn copy(
    item: &Item,
    look: Look,
    buffer: &mut [u8],
    stop: &dyn Fn() -> bool,
) -> Result<(), MoveError> {
    let mut from = open(&item.from)?;
    let to = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(look.mode)
        .open(&item.to);
    let mut to = to.map_err(MoveError::file("create", &item.to))?;
    loop {
        let read = fill(&mut from, buffer).map_err(MoveError::file("read", &item.from))?;
        let bytes = buffer.get(..read).unwrap_or_default();
        to.write_all(bytes)
            .map_err(MoveError::file("write", &item.to))?;
        if read < buffer.len() {
            return own(&item.to, look);
        }
        if stop() {
            return Err(MoveError::Cancelled);
        }
    }
}

fn sync_directory(path: &Path) -> Result<(), MoveError> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(MoveError::file("sync", path))
}
