//! A restore's worker: fetches a unit's frames, opens them, and writes the file's part.

use std::{
    fs::{File, OpenOptions, Permissions},
    io,
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::PathBuf,
    sync::Arc,
};

use everpoint_pgformat::ids::BLOCK_SIZE;
use everpoint_repository::{
    aligned::{ALIGNMENT, AlignedBuffer},
    frame::Codec,
    manifest::StoredFrame,
};
use rustix::fs::OFlags;

use super::{
    pack_reader::{PackReadError, PackReader, PackSource},
    units::{FileTask, Layer, RestoreUnit},
};
use crate::progress::Progress;

/// A part of a file could not be restored.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The repository cannot be read, or holds damaged data.
    #[error(transparent)]
    Read(#[from] PackReadError),
    /// The target cannot be written.
    #[error("cannot {action} {}", path.display())]
    Target {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Whether what lies in the target already may be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// The target was empty.
    None,
    /// An earlier restore of the same backup may have been interrupted: parts that are right are kept.
    Compare,
}

/// Who the restored files shall belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The user's number.
    pub user: u32,
    /// The group's number.
    pub group: u32,
}

/// One worker's means.
pub struct Writer {
    root: PathBuf,
    existing: Existing,
    owner: Option<Owner>,
    progress: Progress,
    packs: PackReader,
    contents: AlignedBuffer,
    pages: Vec<u8>,
    open: Option<(Arc<FileTask>, File)>,
}

impl Writer {
    /// Sets one up for the data directory `root`.
    ///
    /// # Errors
    /// When the codec cannot be set up.
    pub fn new(
        source: PackSource,
        root: PathBuf,
        existing: Existing,
        owner: Option<Owner>,
        progress: Progress,
    ) -> Result<Self, WriteError> {
        Ok(Self {
            root,
            existing,
            owner,
            progress,
            packs: PackReader::new(source)?,
            contents: AlignedBuffer::default(),
            pages: Vec::new(),
            open: None,
        })
    }

    /// Restores one unit.
    ///
    /// # Errors
    /// When the repository or the target fails.
    pub fn run(&mut self, unit: &RestoreUnit) -> Result<(), WriteError> {
        self.open_file(&unit.file)?;
        let right = self.existing == Existing::Compare && self.is_right(unit)?;
        if !right {
            self.fill(unit)?;
            self.write(unit)?;
        }
        self.progress.add_bytes(unit.len as u64);
        if unit.last {
            self.progress.add_files(1);
        }
        Ok(())
    }

    fn open_file(&mut self, task: &Arc<FileTask>) -> Result<(), WriteError> {
        if self
            .open
            .as_ref()
            .is_some_and(|(open, _)| Arc::ptr_eq(open, task))
        {
            return Ok(());
        }
        let path = self.root.join(&task.path);
        let error = |action| {
            let path = path.clone();
            move |source| WriteError::Target {
                action,
                path,
                source,
            }
        };
        let open = |flags: OFlags| {
            OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(task.mode)
                .custom_flags((OFlags::NOFOLLOW | flags).bits().cast_signed())
                .open(&path)
        };
        let file = match is_direct(task) {
            // Not every file system writes directly.
            true => open(OFlags::DIRECT).or_else(|_| open(OFlags::empty())),
            false => open(OFlags::empty()),
        };
        let file = file.map_err(error("create"))?;
        let metadata = file.metadata().map_err(error("look at"))?;
        if let Some(owner) = self.owner
            && (metadata.uid() != owner.user || metadata.gid() != owner.group)
        {
            std::os::unix::fs::fchown(&file, Some(owner.user), Some(owner.group))
                .map_err(error("give away"))?;
        }
        // The umask may have taken bits away.
        if metadata.mode() & 0o7777 != task.mode {
            file.set_permissions(Permissions::from_mode(task.mode))
                .map_err(error("set permissions of"))?;
        }
        // Where nothing is written the file reads as zeros.
        if metadata.len() != task.size {
            file.set_len(task.size)
                .map_err(error("set the length of"))?;
        }
        self.open = Some((task.clone(), file));
        Ok(())
    }

    /// Whether the target holds the unit's contents already. Units with pages laid over have no hash of
    /// their own and are written again.
    fn is_right(&mut self, unit: &RestoreUnit) -> Result<bool, WriteError> {
        if !unit.overlays.is_empty() {
            return Ok(false);
        }
        let Some((_, file)) = &self.open else {
            return Ok(false);
        };
        self.contents.set_len(unit.len);
        if file.read_exact_at(&mut self.contents, unit.offset).is_err() {
            return Ok(false);
        }
        Ok(unit.laid.iter().all(|laid| {
            let end = laid.at + laid.stored.frame.raw as usize;
            let found = self.contents.get(laid.at..end);
            found.is_some_and(|found| *blake3::hash(found).as_bytes() == laid.stored.hash)
        }))
    }

    /// Makes the unit's contents.
    fn fill(&mut self, unit: &RestoreUnit) -> Result<(), WriteError> {
        let mut wanted: Vec<(Layer, StoredFrame)> = unit
            .laid
            .iter()
            .map(|laid| (laid.layer, laid.stored))
            .collect();
        wanted.extend(
            unit.overlays
                .iter()
                .map(|overlay| (Layer::Top, overlay.stored)),
        );
        let path = &unit.file.path;
        let mut fetched = self.packs.fetch(path, &wanted)?;

        let reach = unit
            .laid
            .iter()
            .map(|l| l.at + l.stored.frame.raw as usize)
            .max();
        let mut contents = std::mem::take(&mut self.contents);
        contents.set_len(reach.unwrap_or(0).max(unit.len));
        for laid in &unit.laid {
            let end = laid.at + laid.stored.frame.raw as usize;
            let target = contents.get_mut(laid.at..end).unwrap_or_default();
            self.packs
                .decode(path, laid.layer, &laid.stored, fetched.next_frame(), target)?;
        }
        let mut pages = std::mem::take(&mut self.pages);
        for overlay in &unit.overlays {
            pages.resize(overlay.stored.frame.raw as usize, 0);
            self.packs.decode(
                path,
                Layer::Top,
                &overlay.stored,
                fetched.next_frame(),
                &mut pages,
            )?;
            for (from, to) in &overlay.pages {
                let page = pages.get(*from..from + BLOCK_SIZE);
                let place = contents.get_mut(*to..to + BLOCK_SIZE);
                if let (Some(page), Some(place)) = (page, place) {
                    place.copy_from_slice(page);
                }
            }
        }
        self.pages = pages;
        contents.truncate(unit.len);
        self.contents = contents;
        Ok(())
    }

    fn write(&mut self, unit: &RestoreUnit) -> Result<(), WriteError> {
        let Some((task, file)) = &self.open else {
            return Ok(());
        };
        let zero = |laid: &super::units::LaidFrame| laid.stored.frame.codec == Codec::Zero;
        let mut written = 0;
        let put = |range: std::ops::Range<usize>| {
            let bytes = self.contents.get(range.clone()).unwrap_or_default();
            file.write_all_at(bytes, unit.offset + range.start as u64)
        };
        let mut result = Ok(());
        if self.existing == Existing::None && unit.overlays.is_empty() {
            // Frames of zeros stay holes.
            for laid in unit.laid.iter().filter(|laid| zero(laid)) {
                let at = laid.at.min(unit.len);
                result = result.and_then(|()| put(written..at));
                written = (laid.at + laid.stored.frame.raw as usize).min(unit.len);
            }
        }
        if written < unit.len {
            result = result.and_then(|()| put(written..unit.len));
        }
        let path = || self.root.join(&task.path);
        result.map_err(|source| WriteError::Target {
            action: "write",
            path: path(),
            source,
        })
    }
}

/// Files of this size and more are written past the page cache, which costs more than the disk does. The
/// open flags also keep a link in the place of a file from being written through.
const DIRECT_BYTES: u64 = 1 << 20;

fn is_direct(task: &FileTask) -> bool {
    task.size >= DIRECT_BYTES && task.size.is_multiple_of(ALIGNMENT as u64)
}
