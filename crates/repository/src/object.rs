//! The sealed object: the container of packs, manifests, log backups and documents.
//!
//! ```text
//! 0      header (64 bytes, authenticated with every frame)
//! 64     frames, one behind the other
//! n      index: sealed like a frame, ordinal 0xFFFFFFFF
//! n + m  trailer (24 bytes): offset of the index u64, its stored length u32, its raw length u32,
//!        b"EVPTEND1"
//! ```
//!
//! The index lists the frames and holds the object's metadata, a text whose meaning depends on the
//! kind. Specified in `docs/format/object.md`.

use bytes::Bytes;

use crate::{
    frame::{self, FrameDecoder, FrameEncoder, FrameError, FramePlace, FrameRef},
    ids::ObjectId,
    keys::{KeyError, KeyRing, ObjectKey, TAG_BYTES},
    store::{PART_BYTES, Store, StoreError, Upload},
    varint::{self, Cursor},
};

/// Bytes of an object's header.
pub const HEADER_BYTES: usize = 64;
/// Bytes of an object's trailer.
pub const TRAILER_BYTES: usize = 24;
/// The format version that is written, and the newest that is read.
pub const FORMAT_VERSION: u16 = 1;
/// The index at the most, before compression. A pack of 64 MiB has one of some kilobytes.
pub const MAX_INDEX_BYTES: u32 = 64 << 20;

const MAGIC: [u8; 8] = *b"EVPTOBJ1";
const END_MAGIC: [u8; 8] = *b"EVPTEND1";
const INDEX_ORDINAL: u32 = u32::MAX;

/// What an object holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ObjectKind {
    /// Frames of data files.
    Pack = 1,
    /// A backup's manifest.
    Manifest = 2,
    /// A stretch of write-ahead log.
    Log = 3,
    /// A document: what is known of an instance, a timeline's history, a gap.
    Document = 4,
    /// What was learned of a stretch of write-ahead log.
    Summary = 5,
}

/// A sealed object could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A key is missing or the cipher failed.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// It names a data key that the repository does not hold.
    #[error("object `{path}` is damaged, or data key {data_key} is missing from the repository")]
    UnknownDataKey {
        /// The object.
        path: String,
        /// The key that it names.
        data_key: ObjectId,
    },
    /// A frame cannot be made or read.
    #[error("object `{path}` cannot be read")]
    Frame {
        /// The object.
        path: String,
        /// Which frame and why.
        source: FrameError,
    },
    /// The object is not what its name says.
    #[error("object `{path}` is damaged: {what}")]
    Damaged {
        /// The object.
        path: String,
        /// What is wrong.
        what: &'static str,
    },
    /// Written by a newer Everpoint.
    #[error(
        "object `{path}` has format version {version}; this everpoint reads up to {FORMAT_VERSION}. Use a newer one"
    )]
    Newer {
        /// The object.
        path: String,
        /// Its version.
        version: u16,
    },
}

impl ObjectError {
    /// Whether the object itself is at fault, and not the store or this program's age.
    pub fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::Damaged { .. } | Self::Frame { .. } | Self::UnknownDataKey { .. }
        )
    }
}

/// The identity of a sealed object, from which its header and key follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ObjectIdentity {
    /// What it holds.
    pub kind: ObjectKind,
    /// Its identifier, also the last part of its name.
    pub id: ObjectId,
    /// The data key it is sealed with.
    pub data_key: ObjectId,
}

impl ObjectIdentity {
    /// Its header.
    pub fn header(&self) -> [u8; HEADER_BYTES] {
        let mut header = [0; HEADER_BYTES];
        let version = FORMAT_VERSION.to_le_bytes();
        let fields = MAGIC
            .iter()
            .chain(&version)
            .copied()
            .chain([self.kind as u8, CIPHER_AES_256_GCM, 0, 0, 0, 0])
            .chain(*self.id.as_bytes())
            .chain(*self.data_key.as_bytes());
        for (slot, byte) in header.iter_mut().zip(fields) {
            *slot = byte;
        }
        header
    }

    fn parse(path: &str, header: &[u8]) -> Result<(u8, ObjectId, ObjectId), ObjectError> {
        let damaged = |what| ObjectError::Damaged {
            path: path.to_owned(),
            what,
        };
        let mut cursor = Cursor::new(header);
        let short = || damaged("it has no whole header");
        if cursor.array::<8>().ok_or_else(short)? != MAGIC {
            return Err(damaged("it does not begin as an object of Everpoint"));
        }
        let version = u16::from_le_bytes(cursor.array().ok_or_else(short)?);
        if version == 0 {
            return Err(damaged("its format version is 0"));
        }
        if version != FORMAT_VERSION {
            return Err(ObjectError::Newer {
                path: path.to_owned(),
                version,
            });
        }
        let [kind, cipher, ..] = cursor.array::<6>().ok_or_else(short)?;
        if cipher != CIPHER_AES_256_GCM {
            return Err(damaged("its cipher is unknown"));
        }
        let id = ObjectId::from_bytes(cursor.array().ok_or_else(short)?);
        let data_key = ObjectId::from_bytes(cursor.array().ok_or_else(short)?);
        Ok((kind, id, data_key))
    }
}

const CIPHER_AES_256_GCM: u8 = 1;

/// Builds a sealed object, frame by frame, in memory. Whole parts can be taken away as they fill.
pub struct ObjectBuilder {
    identity: ObjectIdentity,
    header: [u8; HEADER_BYTES],
    key: ObjectKey,
    frames: Vec<FrameRef>,
    buffer: Vec<u8>,
    taken: u64,
}

impl ObjectBuilder {
    /// Begins an object with a new identifier, sealed with the current data key.
    ///
    /// # Errors
    /// When the key cannot be derived.
    pub fn new(kind: ObjectKind, keys: &KeyRing) -> Result<Self, KeyError> {
        let identity = ObjectIdentity {
            kind,
            id: ObjectId::random(),
            data_key: keys.current(),
        };
        let key = keys.object_key(identity.data_key, identity.id)?;
        let header = identity.header();
        Ok(Self {
            identity,
            header,
            key,
            frames: Vec::new(),
            buffer: header.to_vec(),
            taken: 0,
        })
    }

    /// Its identity.
    pub fn identity(&self) -> ObjectIdentity {
        self.identity
    }

    /// Bytes written so far, those taken away included.
    pub fn size(&self) -> u64 {
        self.taken + self.buffer.len() as u64
    }

    /// Frames written so far.
    pub fn frame_count(&self) -> usize {
        self.frames.len()
    }

    /// Adds a frame with these contents (1 to [`MAX_FRAME_BYTES`](crate::frame::MAX_FRAME_BYTES) bytes).
    ///
    /// # Errors
    /// When zstd or the cipher fails.
    pub fn append(
        &mut self,
        contents: &[u8],
        encoder: &mut FrameEncoder,
    ) -> Result<FrameRef, FrameError> {
        let place = FramePlace {
            ordinal: u32::try_from(self.frames.len()).unwrap_or(u32::MAX),
            offset: self.taken + self.buffer.len() as u64,
            header: &self.header,
            key: &self.key,
        };
        let frame = encoder.append(contents, place, &mut self.buffer)?;
        self.frames.push(frame);
        Ok(frame)
    }

    /// Adds a frame of another object, opened there, without compressing it anew.
    ///
    /// # Errors
    /// When the cipher fails.
    pub fn append_opened(
        &mut self,
        frame: &FrameRef,
        opened: &[u8],
    ) -> Result<FrameRef, FrameError> {
        let place = FramePlace {
            ordinal: u32::try_from(self.frames.len()).unwrap_or(u32::MAX),
            offset: self.taken + self.buffer.len() as u64,
            header: &self.header,
            key: &self.key,
        };
        let here = frame::append_opened(frame, opened, place, &mut self.buffer)?;
        self.frames.push(here);
        Ok(here)
    }

    /// Takes the next whole part ([`PART_BYTES`]) away, once there is one.
    pub fn take_part(&mut self) -> Option<Bytes> {
        if self.buffer.len() < PART_BYTES {
            return None;
        }
        let mut rest = Vec::with_capacity(PART_BYTES + (1 << 20));
        rest.extend_from_slice(self.buffer.get(PART_BYTES..).unwrap_or_default());
        let mut part = std::mem::replace(&mut self.buffer, rest);
        part.truncate(PART_BYTES);
        self.taken += PART_BYTES as u64;
        Some(part.into())
    }

    /// Ends the object with its index and returns the bytes not taken yet.
    ///
    /// # Errors
    /// When zstd or the cipher fails.
    pub fn finish(mut self, metadata: &[u8]) -> Result<FinishedObject, FrameError> {
        let mut index = Vec::with_capacity(16 + self.frames.len() * 12 + metadata.len());
        varint::put(&mut index, self.frames.len() as u64);
        for frame in &self.frames {
            frame.encode(&mut index);
        }
        varint::put_bytes(&mut index, metadata);

        let offset = self.size();
        let raw = u32::try_from(index.len()).unwrap_or(u32::MAX);
        if raw > MAX_INDEX_BYTES {
            return Err(FrameError::TooLarge { bytes: index.len() });
        }
        let mut sealed =
            zstd::bulk::compress(&index, INDEX_ZSTD_LEVEL).map_err(FrameError::Compress)?;
        let stored = u32::try_from(sealed.len() + TAG_BYTES).unwrap_or(u32::MAX);
        let trailer = trailer(offset, stored, raw);
        let context = [self.header.as_slice(), trailer.as_slice()].concat();
        let tag = self.key.seal(INDEX_ORDINAL, &context, &mut sealed)?;
        self.buffer.extend_from_slice(&sealed);
        self.buffer.extend_from_slice(&tag);
        self.buffer.extend_from_slice(&trailer);
        let size = self.size();
        Ok(FinishedObject {
            identity: self.identity,
            size,
            rest: self.buffer.into(),
        })
    }
}

const INDEX_ZSTD_LEVEL: i32 = 1;

fn trailer(offset: u64, stored: u32, raw: u32) -> [u8; TRAILER_BYTES] {
    let mut trailer = [0; TRAILER_BYTES];
    let fields = offset
        .to_le_bytes()
        .into_iter()
        .chain(stored.to_le_bytes())
        .chain(raw.to_le_bytes())
        .chain(END_MAGIC);
    for (slot, byte) in trailer.iter_mut().zip(fields) {
        *slot = byte;
    }
    trailer
}

/// What [`ObjectBuilder::finish`] returns.
#[derive(Debug)]
pub struct FinishedObject {
    /// The object's identity.
    pub identity: ObjectIdentity,
    /// Its size in bytes.
    pub size: u64,
    /// The bytes not taken before.
    pub rest: Bytes,
}

/// Sends the parts of an object being built to the store: begins an upload when the first whole part
/// is there, and writes a small object by one call.
pub struct ObjectSink {
    store: Store,
    path: String,
    upload: Option<Upload>,
}

impl ObjectSink {
    /// For an object of this name.
    pub fn new(store: &Store, path: String) -> Self {
        Self {
            store: store.clone(),
            path,
            upload: None,
        }
    }

    /// Writes a whole part.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn part(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        let upload = match &mut self.upload {
            Some(upload) => upload,
            None => self.upload.insert(self.store.upload(&self.path).await?),
        };
        upload.part(bytes).await
    }

    /// Writes the last bytes and makes the object appear.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn finish(self, rest: Bytes) -> Result<(), StoreError> {
        match self.upload {
            None => self.store.put_new(&self.path, rest).await,
            Some(mut upload) => {
                upload.part(rest).await?;
                upload.finish().await
            }
        }
    }

    /// Gives up; nothing appears.
    pub async fn abort(self) {
        if let Some(upload) = self.upload {
            upload.abort().await;
        }
    }
}

/// A sealed object opened for reading: its index is read and authentic.
pub struct SealedObject {
    path: String,
    identity: ObjectIdentity,
    header: [u8; HEADER_BYTES],
    key: ObjectKey,
    frames: Vec<FrameRef>,
    metadata: Vec<u8>,
    size: u64,
}

impl SealedObject {
    /// Opens the object at `path`, which must be of `kind` and carry `id`.
    ///
    /// # Errors
    /// When it is missing, damaged, of another kind, or sealed with an unknown key.
    pub async fn open(
        store: &Store,
        keys: &KeyRing,
        path: &str,
        kind: ObjectKind,
        id: ObjectId,
    ) -> Result<Self, ObjectError> {
        let damaged = |what| ObjectError::Damaged {
            path: path.to_owned(),
            what,
        };
        let size = store.size(path).await?.ok_or_else(|| StoreError::Missing {
            path: path.to_owned(),
        })?;
        let least = (HEADER_BYTES + TRAILER_BYTES + TAG_BYTES) as u64;
        if size < least {
            return Err(damaged("it is too short to be whole"));
        }
        let tail_from = size.saturating_sub(TAIL_BYTES);
        let tail = store.get_range(path, tail_from..size).await?;
        let head = match tail_from {
            0 => tail.clone(),
            _ => store.get_range(path, 0..HEADER_BYTES as u64).await?,
        };
        let (found_kind, found_id, data_key) =
            ObjectIdentity::parse(path, head.get(..HEADER_BYTES).unwrap_or_default())?;
        if found_kind != kind as u8 || found_id != id {
            return Err(damaged("it is another object than its name says"));
        }
        let identity = ObjectIdentity { kind, id, data_key };
        let header = identity.header();
        if head.get(..HEADER_BYTES) != Some(header.as_slice()) {
            return Err(damaged("its header's reserved bytes are set"));
        }
        let key = keys.object_key(data_key, id).map_err(|error| match error {
            KeyError::UnknownDataKey { id: data_key } => ObjectError::UnknownDataKey {
                path: path.to_owned(),
                data_key,
            },
            other => other.into(),
        })?;

        let (rest, trailer) = tail
            .split_last_chunk::<TRAILER_BYTES>()
            .ok_or_else(|| damaged("it is too short to be whole"))?;
        let (offset, stored, raw) =
            parse_trailer(trailer).ok_or_else(|| damaged("its end is missing or overwritten"))?;
        let end = size - TRAILER_BYTES as u64;
        if offset.checked_add(u64::from(stored)) != Some(end) || offset < HEADER_BYTES as u64 {
            return Err(damaged("its end does not match its length"));
        }
        if raw > MAX_INDEX_BYTES || (stored as usize) < TAG_BYTES {
            return Err(damaged("its index has an impossible size"));
        }
        let mut sealed = match usize::try_from(offset.saturating_sub(tail_from)) {
            Ok(from) if offset >= tail_from => rest.get(from..).unwrap_or_default().to_vec(),
            _ => store.get_range(path, offset..end).await?.to_vec(),
        };
        let context = [header.as_slice(), trailer.as_slice()].concat();
        let opened = key
            .open(INDEX_ORDINAL, &context, &mut sealed)
            .ok_or_else(|| damaged("its index is not the one that was written"))?;
        let index = zstd::bulk::decompress(opened, raw as usize)
            .map_err(|_| damaged("its index does not unpack"))?;
        let (frames, metadata) =
            parse_index(&index, offset).ok_or_else(|| damaged("its index is malformed"))?;
        Ok(Self {
            path: path.to_owned(),
            identity,
            header,
            key,
            frames,
            metadata,
            size,
        })
    }

    /// Its name in the repository.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Its identity.
    pub fn identity(&self) -> ObjectIdentity {
        self.identity
    }

    /// Its frames.
    pub fn frames(&self) -> &[FrameRef] {
        &self.frames
    }

    /// Its metadata.
    pub fn metadata(&self) -> &[u8] {
        &self.metadata
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Reads one frame's contents.
    ///
    /// # Errors
    /// When the store fails or the frame is damaged.
    pub async fn read(
        &self,
        store: &Store,
        frame: &FrameRef,
        decoder: &mut FrameDecoder,
    ) -> Result<Vec<u8>, ObjectError> {
        let mut stored = self.fetch(store, std::slice::from_ref(frame)).await?;
        self.decode(frame, &mut stored, decoder)
    }

    /// The stored form of frames that follow each other, by one request. Bounded by what is asked for.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn fetch(&self, store: &Store, frames: &[FrameRef]) -> Result<Vec<u8>, ObjectError> {
        let end = |frame: &FrameRef| frame.offset + u64::from(frame.stored);
        match (frames.first(), frames.last().map(end)) {
            (Some(first), Some(end)) if first.offset < end => {
                Ok(store.get_range(&self.path, first.offset..end).await?.into())
            }
            // Zeros take no room.
            _ => Ok(Vec::new()),
        }
    }

    /// The contents of a frame of which the stored form is at hand, which is used up.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn decode(
        &self,
        frame: &FrameRef,
        stored: &mut [u8],
        decoder: &mut FrameDecoder,
    ) -> Result<Vec<u8>, ObjectError> {
        let mut contents = vec![0; frame.raw as usize];
        decoder
            .decode(frame, &self.header, &self.key, stored, &mut contents)
            .map_err(|source| ObjectError::Frame {
                path: self.path.clone(),
                source,
            })?;
        Ok(contents)
    }
}

/// Read from an object's end at once: most indexes fit.
const TAIL_BYTES: u64 = 64 << 10;

fn parse_trailer(trailer: &[u8; TRAILER_BYTES]) -> Option<(u64, u32, u32)> {
    let mut cursor = Cursor::new(trailer);
    let offset = u64::from_le_bytes(cursor.array()?);
    let stored = u32::from_le_bytes(cursor.array()?);
    let raw = u32::from_le_bytes(cursor.array()?);
    (cursor.array::<8>()? == END_MAGIC).then_some((offset, stored, raw))
}

fn parse_index(index: &[u8], end: u64) -> Option<(Vec<FrameRef>, Vec<u8>)> {
    let mut cursor = Cursor::new(index);
    let count = cursor.count(5)?;
    let mut frames = Vec::with_capacity(count);
    let mut offset = HEADER_BYTES as u64;
    for ordinal in 0..count {
        let frame = FrameRef::decode(&mut cursor)?;
        if frame.ordinal as usize != ordinal || frame.offset != offset {
            return None;
        }
        offset += u64::from(frame.stored);
        frames.push(frame);
    }
    let metadata = cursor.bytes()?.to_vec();
    (cursor.is_empty() && offset == end).then_some((frames, metadata))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::frame::Codec;
    use crate::{keys::RootKey, store::Missing};

    struct Fixture {
        _directory: tempfile::TempDir,
        store: Store,
        keys: KeyRing,
    }

    fn fixture() -> Fixture {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().to_str().unwrap(), Missing::Refuse).unwrap();
        let root = RootKey::random(Uuid::new_v4()).unwrap();
        let keys = root.ring(&[root.new_data_key().unwrap()]).unwrap();
        Fixture {
            _directory: directory,
            store,
            keys,
        }
    }

    async fn write(fixture: &Fixture, contents: &[&[u8]], path: &str) -> FinishedObject {
        let mut encoder = FrameEncoder::new(1).unwrap();
        let mut builder = ObjectBuilder::new(ObjectKind::Pack, &fixture.keys).unwrap();
        let mut sink = ObjectSink::new(&fixture.store, path.to_owned());
        for frame in contents {
            builder.append(frame, &mut encoder).unwrap();
            while let Some(part) = builder.take_part() {
                sink.part(part).await.unwrap();
            }
        }
        let finished = builder.finish(b"metadata").unwrap();
        sink.finish(finished.rest.clone()).await.unwrap();
        finished
    }

    fn noise(seed: u64, len: usize) -> Vec<u8> {
        let mut state = seed;
        let step = |state: &mut u64| {
            *state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (*state >> 56) as u8
        };
        (0..len).map(|_| step(&mut state)).collect()
    }

    #[tokio::test]
    async fn frames_of_every_codec_come_back_from_an_object_of_several_parts() {
        let fixture = fixture();
        let random = noise(1, 1 << 20);
        let text = b"every page tells a story ".repeat(1000);
        let mut contents: Vec<&[u8]> = vec![&text, &[0; 8192], b"x"];
        contents.extend(std::iter::repeat_n(random.as_slice(), 20));
        let finished = write(&fixture, &contents, "packs/x").await;
        assert!(finished.size > 2 * PART_BYTES as u64);
        let object = SealedObject::open(
            &fixture.store,
            &fixture.keys,
            "packs/x",
            ObjectKind::Pack,
            finished.identity.id,
        )
        .await
        .unwrap();
        assert_eq!(object.metadata(), b"metadata");
        assert_eq!(object.size(), finished.size);
        let codecs: Vec<Codec> = object.frames().iter().map(|frame| frame.codec).collect();
        assert_eq!(
            codecs[..4],
            [Codec::Zstd, Codec::Zero, Codec::Plain, Codec::Plain]
        );
        let mut decoder = FrameDecoder::new().unwrap();
        for (frame, expected) in object.frames().iter().zip(contents) {
            let read = object
                .read(&fixture.store, frame, &mut decoder)
                .await
                .unwrap();
            assert_eq!(read, expected);
        }
    }

    #[tokio::test]
    async fn frames_move_to_another_object_without_being_compressed_anew() {
        let fixture = fixture();
        let text = b"every page tells a story ".repeat(1000);
        let random = noise(3, 5000);
        let contents: [&[u8]; 3] = [&text, &[0; 8192], &random];
        let finished = write(&fixture, &contents, "packs/from").await;
        let open = async |path: &'static str, id| {
            SealedObject::open(&fixture.store, &fixture.keys, path, ObjectKind::Pack, id)
                .await
                .unwrap()
        };
        let from = open("packs/from", finished.identity.id).await;
        let mut builder = ObjectBuilder::new(ObjectKind::Pack, &fixture.keys).unwrap();
        let whole = fixture.store.get("packs/from").await.unwrap();
        for frame in from.frames() {
            let place = usize::try_from(frame.offset).unwrap();
            let mut stored = whole[place..place + frame.stored as usize].to_vec();
            let opened = frame::open(frame, &from.header, &from.key, &mut stored).unwrap();
            builder.append_opened(frame, opened).unwrap();
        }
        let moved = builder.finish(b"").unwrap();
        fixture.store.put_new("packs/to", moved.rest).await.unwrap();
        let to = open("packs/to", moved.identity.id).await;
        assert_eq!(to.frames(), from.frames());
        let mut decoder = FrameDecoder::new().unwrap();
        for (frame, expected) in to.frames().iter().zip(contents) {
            let read = to.read(&fixture.store, frame, &mut decoder).await.unwrap();
            assert_eq!(read, expected);
        }
    }

    #[tokio::test]
    async fn any_flipped_byte_is_noticed() {
        let fixture = fixture();
        let finished = write(&fixture, &[b"some contents", &noise(2, 100)], "whole").await;
        let bytes = fixture.store.get("whole").await.unwrap();
        for position in 0..bytes.len() {
            let mut damaged = bytes.to_vec();
            damaged[position] ^= 0x40;
            let path = format!("damaged/{position}");
            fixture.store.put_new(&path, damaged).await.unwrap();
            let id = finished.identity.id;
            let open =
                SealedObject::open(&fixture.store, &fixture.keys, &path, ObjectKind::Pack, id);
            let Ok(object) = open.await else { continue };
            let mut decoder = FrameDecoder::new().unwrap();
            let mut noticed = false;
            for frame in object.frames() {
                noticed |= object
                    .read(&fixture.store, frame, &mut decoder)
                    .await
                    .is_err();
            }
            assert!(noticed, "byte {position}");
        }
    }

    #[tokio::test]
    async fn a_cut_object_and_one_under_a_wrong_name_are_refused() {
        let fixture = fixture();
        let finished = write(&fixture, &[b"contents"], "whole").await;
        let bytes = fixture.store.get("whole").await.unwrap();
        let id = finished.identity.id;
        for len in 0..bytes.len() {
            let path = format!("cut/{len}");
            fixture
                .store
                .put_new(&path, bytes.slice(..len))
                .await
                .unwrap();
            let cut =
                SealedObject::open(&fixture.store, &fixture.keys, &path, ObjectKind::Pack, id);
            assert!(cut.await.is_err(), "{len}");
        }
        for (kind, id) in [
            (ObjectKind::Pack, ObjectId::random()),
            (ObjectKind::Log, id),
        ] {
            let open = SealedObject::open(&fixture.store, &fixture.keys, "whole", kind, id);
            assert!(matches!(open.await, Err(ObjectError::Damaged { .. })));
        }
    }
}
