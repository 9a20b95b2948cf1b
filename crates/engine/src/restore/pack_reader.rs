//! Frames read out of the packs of a backup, and of the one it builds upon.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use bytes::BytesMut;
use everpoint_repository::{
    InstanceName, Repository, RepositoryError,
    backup::Pack,
    frame::{self, Codec, FrameDecoder, FrameError},
    keys::ObjectKey,
    layout,
    manifest::StoredFrame,
    object::{HEADER_BYTES, ObjectError},
};
use tokio::runtime::Handle;

use super::units::Layer;

/// Stored frames that lie this close together in a pack are fetched by one request.
const FETCH_GAP_BYTES: u64 = 128 << 10;
/// Opened packs a worker remembers at the most.
const REMEMBERED_PACKS: usize = 256;

/// A frame cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum PackReadError {
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
}

/// The packs of the two backups frames may be taken from.
#[derive(Clone, Debug)]
pub struct PackSource {
    /// The repository.
    pub repository: Repository,
    /// The instance.
    pub instance: InstanceName,
    /// The packs of the backup itself.
    pub top: Arc<Vec<Pack>>,
    /// The packs of its base; empty for a full backup.
    pub base: Arc<Vec<Pack>>,
    /// Where requests run.
    pub runtime: Handle,
}

/// Reads frames, in a thread that may wait. Keeps the keys of packs and a decompression context.
pub struct PackReader {
    source: PackSource,
    decoder: FrameDecoder,
    keys: HashMap<(Layer, u32), OpenPack>,
}

struct OpenPack {
    path: String,
    header: [u8; HEADER_BYTES],
    key: ObjectKey,
}

/// Stored frames, in the order in which they were asked for.
#[derive(Default)]
pub struct Fetched {
    pieces: Vec<BytesMut>,
    frames: VecDeque<(usize, std::ops::Range<usize>)>,
}

impl Fetched {
    /// The stored form of the next frame; nothing of a frame of zeros.
    pub fn next_frame(&mut self) -> &mut [u8] {
        let Some((piece, range)) = self.frames.pop_front() else {
            return &mut [];
        };
        let piece = self.pieces.get_mut(piece);
        piece
            .and_then(|piece| piece.get_mut(range))
            .unwrap_or_default()
    }
}

impl PackReader {
    /// A reader that has no pack open.
    ///
    /// # Errors
    /// When the codec cannot be set up.
    pub fn new(source: PackSource) -> Result<Self, PackReadError> {
        Ok(Self {
            source,
            decoder: FrameDecoder::new().map_err(RepositoryError::from)?,
            keys: HashMap::new(),
        })
    }

    /// Fetches the stored form of frames of the file `path`; what lies close together comes in one piece.
    ///
    /// # Errors
    /// See [`PackReadError`].
    pub fn fetch(
        &mut self,
        path: &str,
        wanted: &[(Layer, StoredFrame)],
    ) -> Result<Fetched, PackReadError> {
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
                self.remember(path, *layer, first.pack)?;
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

    fn remember(&mut self, path: &str, layer: Layer, number: u32) -> Result<(), PackReadError> {
        if self.keys.contains_key(&(layer, number)) {
            return Ok(());
        }
        let packs = match layer {
            Layer::Base => &self.source.base,
            Layer::Top => &self.source.top,
        };
        let unknown = || PackReadError::UnknownPack {
            number,
            path: path.to_owned(),
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

    /// Writes a frame's contents over `target`, compared with their hash. `bytes` is the stored form, decrypted in
    /// place; what is returned of it are the contents as the codec stores them, nothing of a frame of zeros.
    ///
    /// # Errors
    /// See [`PackReadError`].
    pub fn decode<'b>(
        &mut self,
        path: &str,
        layer: Layer,
        stored: &StoredFrame,
        bytes: &'b mut [u8],
        target: &mut [u8],
    ) -> Result<&'b [u8], PackReadError> {
        if stored.frame.codec == Codec::Zero {
            target.fill(0);
            return Ok(&[]);
        }
        self.remember(path, layer, stored.pack)?;
        let Some(pack) = self.keys.get(&(layer, stored.pack)) else {
            return Ok(&[]);
        };
        let opened = frame::open(&stored.frame, &pack.header, &pack.key, bytes)
            .map_err(|source| damaged(&pack.path, source))?;
        self.decoder
            .unpack(&stored.frame, opened, target)
            .map_err(|source| damaged(&pack.path, source))?;
        if *blake3::hash(target).as_bytes() != stored.hash {
            let (pack, path) = (pack.path.clone(), path.to_owned());
            return Err(PackReadError::WrongContents { pack, path });
        }
        Ok(opened)
    }
}

fn damaged(pack: &str, source: FrameError) -> PackReadError {
    let path = pack.to_owned();
    RepositoryError::from(ObjectError::Frame { path, source }).into()
}
