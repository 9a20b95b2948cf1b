//! Laying the files down: directories, tablespace links, contents, and at the end the control file.

use std::{
    fs::{self, DirBuilder, File, Permissions},
    io::Write,
    os::unix::fs::{DirBuilderExt, PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
    sync::Arc,
};

use everpoint_instance::data_directory::scan;
use everpoint_pgformat::Oid;
use everpoint_repository::{
    Repository, RepositoryError,
    backup::Backup,
    manifest::{Content, FileEntry, ManifestReader, StoredFrame},
};

use super::{
    Durability, LogDelivery, MARKER, Marker, RestoreError, RestorePlan, RestoreRequest, failed,
    pack_reader::PackSource,
    selection::Paths,
    units::{self, RestoreUnit},
    writer::{Existing, Owner, WriteError, Writer},
};
use crate::{
    progress::Progress,
    work_queue::{Work, work_queue},
};

/// Units that wait for a worker at the most.
const WAITING_UNITS: usize = 32;
/// Threads for each job: while one waits for the disk, another decodes.
const THREADS_PER_JOB: usize = 2;
/// Directories whose contents no backup holds, but which a server wants.
const SERVER_DIRECTORIES: [&str; 4] = [
    "pg_wal",
    "pg_wal/archive_status",
    "pg_wal/summaries",
    "pg_tblspc",
];
/// Only the owner may look into a data directory, unless the cluster allows its group.
const PRIVATE: u32 = 0o700;

/// Makes the directories and links, and the marker first of all.
///
/// # Errors
/// When the target cannot be written.
pub fn make_directories(plan: &RestorePlan, marker: &Marker) -> Result<(), RestoreError> {
    let root = &plan.request.to;
    let owner = plan.request.owner;
    let directories = &plan.resolved.backup.directories;
    let root_mode = directories
        .iter()
        .find(|directory| directory.path.is_empty())
        .map_or(PRIVATE, |directory| directory.mode);
    make_directory(root, root_mode, owner)?;
    let text = serde_json::to_vec(marker).unwrap_or_default();
    write_file(&root.join(MARKER), &text, owner)?;
    for (oid, place) in &plan.tablespaces {
        let link = root.join("pg_tblspc").join(oid.to_string());
        make_directory(&root.join("pg_tblspc"), root_mode, owner)?;
        match place {
            None => make_directory(&link, root_mode, owner)?,
            Some(place) => {
                make_directory(place, root_mode, owner)?;
                make_link(place, &link)?;
            }
        }
    }
    for directory in directories
        .iter()
        .filter(|directory| !directory.path.is_empty())
        .filter(|directory| {
            let version = plan.resolved.backup.version;
            let selection = &plan.request.selection;
            selection.takes_directory(&directory.path, version)
        })
    {
        make_directory(&root.join(&directory.path), directory.mode, owner)?;
    }
    for path in SERVER_DIRECTORIES {
        if path == "pg_wal/summaries" && plan.resolved.backup.version.get() < 17 {
            continue;
        }
        make_directory(&root.join(path), root_mode, owner)?;
    }
    Ok(())
}

fn make_link(place: &Path, link: &Path) -> Result<(), RestoreError> {
    match fs::read_link(link) {
        Ok(found) if found == place => return Ok(()),
        // An interrupted restore was asked to put it elsewhere.
        Ok(_) => fs::remove_file(link).map_err(failed("remove", link))?,
        Err(_) => {}
    }
    symlink(place, link).map_err(failed("make the link", link))
}

pub(super) fn make_directory(
    path: &Path,
    mode: u32,
    owner: Option<Owner>,
) -> Result<(), RestoreError> {
    if !path.is_dir() {
        DirBuilder::new()
            .recursive(true)
            .mode(mode)
            .create(path)
            .map_err(failed("make", path))?;
    }
    fs::set_permissions(path, Permissions::from_mode(mode))
        .map_err(failed("set permissions of", path))?;
    give(path, owner)
}

/// Gives a path to the owner, where one is wanted.
pub(super) fn give(path: &Path, owner: Option<Owner>) -> Result<(), RestoreError> {
    match owner {
        None => Ok(()),
        Some(owner) => {
            chown(path, Some(owner.user), Some(owner.group)).map_err(failed("give away", path))
        }
    }
}

pub(super) fn write_file(
    path: &Path,
    bytes: &[u8],
    owner: Option<Owner>,
) -> Result<(), RestoreError> {
    let mut file = File::create(path).map_err(failed("create", path))?;
    file.set_permissions(Permissions::from_mode(0o600))
        .map_err(failed("set permissions of", path))?;
    file.write_all(bytes).map_err(failed("write", path))?;
    file.sync_all().map_err(failed("sync", path))?;
    give(path, owner)
}

/// Restores all files of the backup, the pages of a differential laid over those of its base.
///
/// # Errors
/// See [`RestoreError`].
pub async fn restore_files(
    repository: &Repository,
    plan: &RestorePlan,
    progress: &Progress,
) -> Result<(), RestoreError> {
    let instance = &plan.request.instance;
    let backup = &plan.resolved.backup;
    let (top, paths) = manifest(repository, &plan.request, backup).await?;
    let base = match &plan.base {
        None => None,
        Some(base) => Some(manifest(repository, &plan.request, base).await?.0),
    };
    let source = PackSource {
        repository: repository.clone(),
        instance: instance.clone(),
        top: Arc::new(backup.packs.clone()),
        base: Arc::new(
            plan.base
                .as_ref()
                .map(|base| base.packs.clone())
                .unwrap_or_default(),
        ),
        runtime: tokio::runtime::Handle::current(),
    };
    let existing = if plan.resumed {
        Existing::Compare
    } else {
        Existing::None
    };
    let (sender, work) = work_queue(WAITING_UNITS);
    let mut workers = Vec::new();
    for number in 0..plan.request.jobs.max(1) * THREADS_PER_JOB {
        let (root, owner) = (plan.request.to.clone(), plan.request.owner);
        let writer = Writer::new(source.clone(), root, existing, owner, progress.clone())?;
        let units = work.clone();
        let thread = std::thread::Builder::new()
            .name(format!("restore-{number}"))
            .spawn(move || run_worker(writer, &units))
            .map_err(|_| RestoreError::TaskLost)?;
        workers.push(thread);
    }
    let dispatched = dispatch(repository, (top, &paths), base, sender, progress).await;
    let ended = tokio::task::spawn_blocking(move || {
        workers
            .into_iter()
            .map(std::thread::JoinHandle::join)
            .collect::<Vec<_>>()
    });
    for result in ended.await.map_err(|_| RestoreError::TaskLost)? {
        result.map_err(|_| RestoreError::TaskLost)??;
    }
    dispatched?;
    if progress.is_cancelled() {
        Err(RestoreError::Cancelled)
    } else {
        Ok(())
    }
}

fn run_worker(mut writer: Writer, units: &Work<RestoreUnit>) -> Result<(), WriteError> {
    while let Some(unit) = units.next() {
        writer.run(&unit)?;
    }
    Ok(())
}

/// Opens a manifest at the sections that hold files of the selection.
async fn manifest(
    repository: &Repository,
    request: &RestoreRequest,
    backup: &Backup,
) -> Result<(ManifestReader, Paths), RestoreError> {
    let (_, mut reader) = repository.manifest(&request.instance, &backup.id).await?;
    let paths = request.selection.paths(backup);
    reader.keep_sections(&paths.sections(&backup.sections));
    Ok((reader, paths))
}

/// Bytes of the selected files of a backup, as restored.
///
/// # Errors
/// When the manifest cannot be read.
pub async fn selected_bytes(
    repository: &Repository,
    request: &RestoreRequest,
    backup: &Backup,
) -> Result<u64, RestoreError> {
    let (mut reader, paths) = manifest(repository, request, backup).await?;
    let store = repository.store();
    let mut bytes = 0;
    while let Some(entry) = reader.next(store).await.map_err(RepositoryError::from)? {
        if paths.contain(&entry.path) {
            bytes += entry.size;
        }
    }
    Ok(bytes)
}

/// Bytes that the repository holds of the selected files: in the backup, and in the base below it.
///
/// # Errors
/// When a manifest cannot be read.
pub async fn stored_bytes(
    repository: &Repository,
    plan: &RestorePlan,
) -> Result<u64, RestoreError> {
    let store = repository.store();
    let mut bytes = 0;
    for backup in [Some(&plan.resolved.backup), plan.base.as_ref()]
        .into_iter()
        .flatten()
    {
        let (mut reader, paths) = manifest(repository, &plan.request, backup).await?;
        while let Some(entry) = reader.next(store).await.map_err(RepositoryError::from)? {
            if paths.contain(&entry.path) {
                let stored = |frame: &StoredFrame| u64::from(frame.frame.stored);
                bytes += entry.frames().iter().map(stored).sum::<u64>();
            }
        }
    }
    Ok(bytes)
}

/// Pairs the files with those of the base, both in ascending order, and cuts them into units.
async fn dispatch(
    repository: &Repository,
    (mut top, paths): (ManifestReader, &Paths),
    mut base: Option<ManifestReader>,
    units: async_channel::Sender<RestoreUnit>,
    progress: &Progress,
) -> Result<(), RestoreError> {
    let store = repository.store();
    let mut waiting: Option<FileEntry> = None;
    while let Some(entry) = top.next(store).await.map_err(RepositoryError::from)? {
        if !paths.contain(&entry.path) {
            continue;
        }
        let mut below = None;
        if let (Content::Blocks { .. }, Some(base)) = (&entry.content, &mut base) {
            while waiting.as_ref().is_none_or(|found| found.path < entry.path) {
                match base.next(store).await.map_err(RepositoryError::from)? {
                    Some(next) => waiting = Some(next),
                    None => break,
                }
            }
            below = waiting.as_ref().filter(|found| found.path == entry.path);
        }
        for unit in units::cut(&entry, below)? {
            if progress.is_cancelled() || units.send(unit).await.is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Removes from a directory whose restore was interrupted what the backup does not hold: a recovery that
/// was begun there may have made files.
///
/// # Errors
/// When the target cannot be read or written.
pub async fn remove_strangers(
    repository: &Repository,
    plan: &RestorePlan,
) -> Result<(), RestoreError> {
    let root = plan.request.to.clone();
    let version = plan.resolved.backup.version;
    remove_strange_links(plan)?;
    let listing = tokio::task::spawn_blocking(move || scan(&root, version))
        .await
        .map_err(|_| RestoreError::TaskLost)??;
    let (_, mut top) = repository
        .manifest(&plan.request.instance, &plan.resolved.backup.id)
        .await?;
    let store = repository.store();
    let mut next = top.next(store).await.map_err(RepositoryError::from)?;
    for found in listing.files() {
        let path = found.path();
        while next.as_ref().is_some_and(|entry| entry.path < path) {
            next = top.next(store).await.map_err(RepositoryError::from)?;
        }
        if path != MARKER && next.as_ref().is_none_or(|entry| entry.path != path) {
            let path = plan.request.to.join(path);
            fs::remove_file(&path).map_err(failed("remove", &path))?;
        }
    }
    empty_folder(&plan.request.to.join("pg_wal"))
}

/// Removes links to tablespaces that the backup does not have. What they lead to is none of the restore's.
fn remove_strange_links(plan: &RestorePlan) -> Result<(), RestoreError> {
    let folder = plan.request.to.join("pg_tblspc");
    for entry in fs::read_dir(&folder).map_err(failed("list", &folder))? {
        let path = entry.map_err(failed("list", &folder))?.path();
        let oid = path.file_name().unwrap_or_default().to_string_lossy();
        let known =
            |(known, place): &(Oid, Option<PathBuf>)| place.is_some() && oid == format!("{known}");
        if path.is_symlink() && !plan.tablespaces.iter().any(known) {
            fs::remove_file(&path).map_err(failed("remove", &path))?;
        }
    }
    Ok(())
}

/// Removes the files in a folder and in those below it.
fn empty_folder(folder: &Path) -> Result<(), RestoreError> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Ok(());
    };
    for entry in entries {
        let path = entry.map_err(failed("list", folder))?.path();
        if path.is_dir() && !path.is_symlink() {
            empty_folder(&path)?;
        } else {
            fs::remove_file(&path).map_err(failed("remove", &path))?;
        }
    }
    Ok(())
}

/// Brings everything to the disk, then writes the control file. The marker goes last, where no recovery of
/// ours follows.
///
/// # Errors
/// When the target cannot be written or synced.
pub fn finish(plan: &RestorePlan) -> Result<(), RestoreError> {
    let root = &plan.request.to;
    let backup = &plan.resolved.backup;
    let control =
        crate::hex::decode(&backup.control_file).ok_or_else(|| RestoreError::Damaged {
            backup: backup.id.clone(),
            what: "its control file is unreadable",
        })?;
    for place in plan
        .tablespaces
        .iter()
        .filter_map(|(_, place)| place.as_ref())
    {
        sync_file_system(place)?;
    }
    let sync = || match plan.request.durability {
        Durability::Synced => sync_file_system(root),
        Durability::Scratch => Ok(()),
    };
    sync()?;
    write_file(
        &root.join("global/pg_control"),
        &control,
        plan.request.owner,
    )?;
    if plan.request.log == LogDelivery::InPlace {
        let marker = root.join(MARKER);
        fs::remove_file(&marker).map_err(failed("remove", &marker))?;
    }
    sync()
}

fn sync_file_system(path: &Path) -> Result<(), RestoreError> {
    let directory = File::open(path).map_err(failed("open", path))?;
    rustix::fs::syncfs(&directory).map_err(|error| failed("sync", path)(error.into()))
}
