//! A restore's worker: fetches a unit's frames, opens them, and writes the file's part.

use std::{
    collections::{HashMap, VecDeque},
    fs::{File, OpenOptions, Permissions},
    io,
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::PathBuf,
    sync::Arc,
};

use bytes::BytesMut;
use everpoint_pgformat::ids::BLOCK_SIZE;
use everpoint_repository::{
    InstanceName, Repository, RepositoryError,
    aligned::{ALIGNMENT, AlignedBuffer},
    backup::Pack,
    frame::{Codec, FrameDecoder, FrameError},
    keys::ObjectKey,
    layout,
    manifest::StoredFrame,
    object::{HEADER_BYTES, ObjectError},
};
use rustix::fs::OFlags;
use tokio::runtime::Handle;

use super::units::{FileTask, Layer, RestoreUnit};
use crate::progress::Progress;

/// Stored frames that lie this close together in a pack are fetched by one request.
const FETCH_GAP_BYTES: u64 = 128 << 10;

/// A part of a file could not be restored.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The repository cannot be read, or holds damaged data.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// A frame's contents are not what the manifest says.
    #[error("pack `{pack}` holds other contents for `{path}` than the manifest says")]
    WrongContents {
        /// The pack.
        pack: String,
        /// The file.
        path: String,
    },
    /// The manifest names a pack it does not list.
    #[error("the manifest names pack {number} for `{path}`, but lists no such pack")]
    UnknownPack {
        /// Its number.
        number: u32,
        /// The file.
        path: String,
    },
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

/// The packs of the two backups a restore may take frames from.
#[derive(Clone, Debug)]
pub struct PackSource {
    /// The repository.
    pub repository: Repository,
    /// The instance.
    pub instance: InstanceName,
    /// The packs of the backup that is restored.
    pub top: Arc<Vec<Pack>>,
    /// The packs of its base; empty for a full backup.
    pub base: Arc<Vec<Pack>>,
    /// Where requests run.
    pub runtime: Handle,
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
    source: PackSource,
    root: PathBuf,
    existing: Existing,
    owner: Option<Owner>,
    progress: Progress,
    decoder: FrameDecoder,
    keys: HashMap<(Layer, u32), OpenPack>,
    contents: AlignedBuffer,
    pages: Vec<u8>,
    open: Option<(Arc<FileTask>, File)>,
}

/// Stored frames, in the order in which they were asked for.
#[derive(Default)]
struct Fetched {
    pieces: Vec<BytesMut>,
    frames: VecDeque<(usize, std::ops::Range<usize>)>,
}

impl Fetched {
    fn next(&mut self) -> &mut [u8] {
        let Some((piece, range)) = self.frames.pop_front() else {
            return &mut [];
        };
        let piece = self.pieces.get_mut(piece);
        piece
            .and_then(|piece| piece.get_mut(range))
            .unwrap_or_default()
    }
}

struct OpenPack {
    path: String,
    header: [u8; HEADER_BYTES],
    key: ObjectKey,
}

/// Opened packs a worker remembers at the most.
const REMEMBERED_PACKS: usize = 256;

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
            source,
            root,
            existing,
            owner,
            progress,
            decoder: FrameDecoder::new().map_err(RepositoryError::from)?,
            keys: HashMap::new(),
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
        let mut fetched = self.fetch(&unit.file, &wanted)?;

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
            self.decode(&unit.file, laid.layer, &laid.stored, fetched.next(), target)?;
        }
        let mut pages = std::mem::take(&mut self.pages);
        for overlay in &unit.overlays {
            pages.resize(overlay.stored.frame.raw as usize, 0);
            self.decode(
                &unit.file,
                Layer::Top,
                &overlay.stored,
                fetched.next(),
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

    /// Fetches the stored form of frames; what lies close together comes in one piece.
    fn fetch(
        &mut self,
        file: &FileTask,
        wanted: &[(Layer, StoredFrame)],
    ) -> Result<Fetched, WriteError> {
        let mut fetched = Fetched::default();
        let mut rest = wanted;
        while let Some(((layer, first), _)) = rest.split_first() {
            let mut end = first.frame.offset + u64::from(first.frame.stored);
            let joins = |(other, next): &&(Layer, StoredFrame)| {
                let at = next.frame.offset;
                let close = at >= end && at - end <= FETCH_GAP_BYTES;
                let joins = other == layer && next.pack == first.pack && close;
                if joins {
                    end = at + u64::from(next.frame.stored);
                }
                joins
            };
            let count = 1 + rest.iter().skip(1).take_while(joins).count();
            let (group, others) = rest.split_at(count);
            rest = others;
            let start = first.frame.offset;
            let mut piece = BytesMut::new();
            if end > start {
                self.remember(file, *layer, first.pack)?;
                let path = self
                    .keys
                    .get(&(*layer, first.pack))
                    .map_or("", |pack| &pack.path);
                let store = self.source.repository.store();
                let bytes = self
                    .source
                    .runtime
                    .block_on(store.get_range(path, start..end))
                    .map_err(RepositoryError::from)?;
                piece = bytes
                    .try_into_mut()
                    .unwrap_or_else(|bytes| bytes.as_ref().into());
            }
            for (_, stored) in group {
                let from = usize::try_from(stored.frame.offset - start).unwrap_or(usize::MAX);
                let to = from.saturating_add(stored.frame.stored as usize);
                fetched.frames.push_back((fetched.pieces.len(), from..to));
            }
            fetched.pieces.push(piece);
        }
        Ok(fetched)
    }

    fn remember(&mut self, file: &FileTask, layer: Layer, number: u32) -> Result<(), WriteError> {
        if self.keys.contains_key(&(layer, number)) {
            return Ok(());
        }
        let packs = match layer {
            Layer::Base => &self.source.base,
            Layer::Top => &self.source.top,
        };
        let unknown = || WriteError::UnknownPack {
            number,
            path: file.path.clone(),
        };
        let pack = packs.get(number as usize).ok_or_else(unknown)?;
        let identity = pack.identity();
        let keys = self.source.repository.keys();
        let key = keys
            .object_key(identity.data_key, identity.id)
            .map_err(RepositoryError::from)?;
        let path = layout::pack(&self.source.instance, &pack.backup, pack.id);
        if self.keys.len() >= REMEMBERED_PACKS {
            self.keys.clear();
        }
        self.keys.insert(
            (layer, number),
            OpenPack {
                path,
                header: identity.header(),
                key,
            },
        );
        Ok(())
    }

    fn decode(
        &mut self,
        file: &FileTask,
        layer: Layer,
        stored: &StoredFrame,
        bytes: &mut [u8],
        target: &mut [u8],
    ) -> Result<(), WriteError> {
        if stored.frame.codec == Codec::Zero {
            target.fill(0);
            return Ok(());
        }
        self.remember(file, layer, stored.pack)?;
        let Some(pack) = self.keys.get(&(layer, stored.pack)) else {
            return Ok(());
        };
        self.decoder
            .decode(&stored.frame, &pack.header, &pack.key, bytes, target)
            .map_err(|source| damaged(&pack.path, source))?;
        if *blake3::hash(target).as_bytes() != stored.hash {
            let (pack, path) = (pack.path.clone(), file.path.clone());
            return Err(WriteError::WrongContents { pack, path });
        }
        Ok(())
    }
}

fn damaged(pack: &str, source: FrameError) -> WriteError {
    let path = pack.to_owned();
    RepositoryError::from(ObjectError::Frame { path, source }).into()
}

/// Files of this size and more are written past the page cache, which costs more than the disk does. The
/// open flags also keep a link in the place of a file from being written through.
const DIRECT_BYTES: u64 = 1 << 20;

fn is_direct(task: &FileTask) -> bool {
    task.size >= DIRECT_BYTES && task.size.is_multiple_of(ALIGNMENT as u64)
}
