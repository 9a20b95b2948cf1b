//! The list of a backup's files, in the frames of its manifest.
//!
//! Files are sorted by path, bytewise; each frame can be read by itself, so that one database's files
//! are found without reading the others'. Memory does not grow with the number of files, neither when
//! writing nor when reading. Specified in `docs/format/manifest.md`.

use std::collections::BTreeSet;

use everpoint_pgformat::ids::BLOCK_SIZE;

use crate::{
    frame::{FrameDecoder, FrameEncoder, FrameError, FrameRef, MAX_FRAME_BYTES},
    object::{ObjectBuilder, ObjectError, SealedObject},
    store::Store,
    varint::{self, Cursor},
};

/// A new frame of the manifest is begun when one holds this many bytes.
const SECTION_BYTES: usize = 512 << 10;

/// One file of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEntry {
    /// Relative to the data directory, parts divided by `/`.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Bytes of the file as restored.
    pub size: u64,
    /// What the backup holds of it.
    pub content: Content,
}

/// What a backup holds of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Everything: the frames follow each other.
    Whole(Vec<StoredFrame>),
    /// Some blocks, in ascending order; the others are as in the base backup's file.
    Blocks {
        /// Which blocks, as runs.
        runs: Vec<BlockRun>,
        /// Their pages, one behind the other.
        frames: Vec<StoredFrame>,
    },
}

/// Blocks that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRun {
    /// The first, counted from the file's start.
    pub first: u32,
    /// How many, at least 1.
    pub count: u32,
}

/// A frame of a file in a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredFrame {
    /// The pack, by its place in [`Backup::packs`](crate::backup::Backup::packs).
    pub pack: u32,
    /// Where it lies in the pack.
    pub frame: FrameRef,
    /// BLAKE3 of its contents.
    pub hash: [u8; 32],
}

impl FileEntry {
    /// The frames, whichever the content.
    pub fn frames(&self) -> &[StoredFrame] {
        match &self.content {
            Content::Whole(frames) | Content::Blocks { frames, .. } => frames,
        }
    }

    fn encode(&self, previous: &str, out: &mut Vec<u8>) {
        let shared = previous
            .bytes()
            .zip(self.path.bytes())
            .take_while(|(a, b)| a == b)
            .count();
        varint::put(out, shared as u64);
        varint::put_bytes(out, self.path.as_bytes().get(shared..).unwrap_or_default());
        varint::put(out, u64::from(self.mode));
        varint::put(out, self.size);
        match &self.content {
            Content::Whole(frames) => {
                out.push(0);
                encode_frames(frames, out);
            }
            Content::Blocks { runs, frames } => {
                out.push(1);
                varint::put(out, runs.len() as u64);
                let mut next = 0;
                for run in runs {
                    varint::put(out, u64::from(run.first.wrapping_sub(next)));
                    varint::put(out, u64::from(run.count));
                    next = run.first.wrapping_add(run.count);
                }
                encode_frames(frames, out);
            }
        }
    }

    fn decode(previous: &[u8], cursor: &mut Cursor<'_>) -> Option<Self> {
        let shared: usize = cursor.number()?.try_into().ok()?;
        let mut path = previous.get(..shared)?.to_vec();
        path.extend_from_slice(cursor.bytes()?);
        if !is_safe_path(&path) || path.as_slice() <= previous {
            return None;
        }
        let path = String::from_utf8(path).ok()?;
        let mode = cursor.number32()?;
        let size = cursor.number()?;
        let content = match cursor.array::<1>()? {
            [0] => {
                let frames = decode_frames(cursor)?;
                (sum(&frames)? == size).then_some(Content::Whole(frames))?
            }
            [1] => {
                let runs = decode_runs(cursor, size)?;
                let frames = decode_frames(cursor)?;
                let blocks: u64 = runs.iter().map(|run| u64::from(run.count)).sum();
                (sum(&frames)? == blocks * BLOCK_SIZE as u64)
                    .then_some(Content::Blocks { runs, frames })?
            }
            _ => return None,
        };
        Some(Self {
            path,
            mode,
            size,
            content,
        })
    }
}

/// Whether a path stays inside the data directory and can be a file's.
fn is_safe_path(path: &[u8]) -> bool {
    !path.is_empty()
        && path.len() < 4096
        && !path.contains(&0)
        && path
            .split(|byte| *byte == b'/')
            .all(|part| !matches!(part, b"" | b"." | b".."))
}

fn sum(frames: &[StoredFrame]) -> Option<u64> {
    frames.iter().try_fold(0_u64, |sum, frame| {
        sum.checked_add(u64::from(frame.frame.raw))
    })
}

fn encode_frames(frames: &[StoredFrame], out: &mut Vec<u8>) {
    varint::put(out, frames.len() as u64);
    for frame in frames {
        varint::put(out, u64::from(frame.pack));
        frame.frame.encode(out);
        out.extend_from_slice(&frame.hash);
    }
}

fn decode_frames(cursor: &mut Cursor<'_>) -> Option<Vec<StoredFrame>> {
    let count = cursor.count(38)?;
    (0..count)
        .map(|_| {
            Some(StoredFrame {
                pack: cursor.number32()?,
                frame: FrameRef::decode(cursor)?,
                hash: cursor.array()?,
            })
        })
        .collect()
}

fn decode_runs(cursor: &mut Cursor<'_>, size: u64) -> Option<Vec<BlockRun>> {
    let count = cursor.count(2)?;
    let mut runs = Vec::with_capacity(count);
    let mut next = 0_u32;
    for _ in 0..count {
        let first = next.checked_add(cursor.number32()?)?;
        let count = cursor.number32()?;
        next = first.checked_add(count)?;
        if count == 0 || u64::from(next) * BLOCK_SIZE as u64 > size {
            return None;
        }
        runs.push(BlockRun { first, count });
    }
    Some(runs)
}

/// Writes the files into a manifest's frames.
pub struct ManifestWriter {
    object: ObjectBuilder,
    encoder: FrameEncoder,
    section: Vec<u8>,
    previous: String,
    sections: Vec<String>,
}

impl ManifestWriter {
    /// Into an object of kind [`Manifest`](crate::object::ObjectKind::Manifest).
    pub fn new(object: ObjectBuilder, encoder: FrameEncoder) -> Self {
        let section = Vec::with_capacity(2 * SECTION_BYTES);
        Self {
            object,
            encoder,
            section,
            previous: String::new(),
            sections: Vec::new(),
        }
    }

    /// Adds the next file. Paths must ascend.
    ///
    /// # Errors
    /// When the cipher fails, or one file's entry is larger than a frame holds.
    pub fn push(&mut self, entry: &FileEntry) -> Result<(), FrameError> {
        if self.section.len() >= SECTION_BYTES {
            self.flush()?;
        }
        let before = self.section.len();
        if before == 0 {
            self.sections.push(entry.path.clone());
        }
        entry.encode(&self.previous, &mut self.section);
        if before > 0 && self.section.len() > 2 * SECTION_BYTES {
            // A large entry stands alone, so that a section is one entry or small.
            self.section.truncate(before);
            self.flush()?;
            self.sections.push(entry.path.clone());
            entry.encode("", &mut self.section);
        }
        if self.section.len() > MAX_FRAME_BYTES {
            return Err(FrameError::TooLarge {
                bytes: self.section.len(),
            });
        }
        self.previous.clone_from(&entry.path);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), FrameError> {
        if !self.section.is_empty() {
            self.object.append(&self.section, &mut self.encoder)?;
            self.section.clear();
        }
        self.previous.clear();
        Ok(())
    }

    /// Whole parts to send away; see [`ObjectBuilder::take_part`].
    pub fn take_part(&mut self) -> Option<bytes::Bytes> {
        self.object.take_part()
    }

    /// Ends the files; returns the object, to be finished with the backup's metadata, and the first path of each section.
    ///
    /// # Errors
    /// When the cipher fails.
    pub fn finish(mut self) -> Result<(ObjectBuilder, Vec<String>), FrameError> {
        self.flush()?;
        Ok((self.object, self.sections))
    }
}

/// Reads a manifest's files in order, one frame in memory at a time.
pub struct ManifestReader {
    object: SealedObject,
    decoder: FrameDecoder,
    sections: BTreeSet<usize>,
    section: std::vec::IntoIter<FileEntry>,
}

impl ManifestReader {
    /// Reads from the first section.
    ///
    /// # Errors
    /// When zstd cannot be set up.
    pub fn new(object: SealedObject) -> Result<Self, ObjectError> {
        let end = object.frames().len();
        let decoder = FrameDecoder::new().map_err(|source| ObjectError::Frame {
            path: object.path().to_owned(),
            source,
        })?;
        Ok(Self {
            object,
            decoder,
            sections: (0..end).collect(),
            section: Vec::new().into_iter(),
        })
    }

    /// Passes over the sections whose numbers are not among these. Call it before the first file is read.
    pub fn keep_sections(&mut self, wanted: &BTreeSet<usize>) {
        self.sections.retain(|number| wanted.contains(number));
    }

    /// The next file; `None` behind the last.
    ///
    /// # Errors
    /// When the manifest is damaged.
    pub async fn next(&mut self, store: &Store) -> Result<Option<FileEntry>, ObjectError> {
        loop {
            if let Some(entry) = self.section.next() {
                return Ok(Some(entry));
            }
            let Some(number) = self.sections.pop_first() else {
                return Ok(None);
            };
            let Some(frame) = self.object.frames().get(number).copied() else {
                return Ok(None);
            };
            let bytes = self.object.read(store, &frame, &mut self.decoder).await?;
            let entries = decode_section(&bytes).ok_or_else(|| ObjectError::Damaged {
                path: self.object.path().to_owned(),
                what: "a file's entry is malformed",
            })?;
            self.section = entries.into_iter();
        }
    }
}

fn decode_section(bytes: &[u8]) -> Option<Vec<FileEntry>> {
    let mut cursor = Cursor::new(bytes);
    let mut entries: Vec<FileEntry> = Vec::new();
    while !cursor.is_empty() {
        let previous = entries
            .last()
            .map_or(&[][..], |entry| entry.path.as_bytes());
        let entry = FileEntry::decode(previous, &mut cursor)?;
        entries.push(entry);
    }
    Some(entries)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::frame::Codec;

    fn frame(raw: u32) -> StoredFrame {
        let frame = FrameRef {
            ordinal: 3,
            offset: 64,
            stored: raw + 16,
            raw,
            codec: Codec::Plain,
        };
        StoredFrame {
            pack: 7,
            frame,
            hash: [9; 32],
        }
    }

    fn entries() -> Vec<FileEntry> {
        let blocks = Content::Blocks {
            runs: vec![
                BlockRun { first: 1, count: 2 },
                BlockRun { first: 9, count: 1 },
            ],
            frames: vec![frame(24576)],
        };
        let file = |path: &str, size, content| FileEntry {
            path: path.into(),
            mode: 0o600,
            size,
            content,
        };
        vec![
            file("base/5/1", 8192, Content::Whole(vec![frame(8192)])),
            file("base/5/112", 10 * 8192, blocks),
            file("base/5/2", 0, Content::Whole(vec![])),
        ]
    }

    fn encode(entries: &[FileEntry]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut previous = "";
        for entry in entries {
            entry.encode(previous, &mut out);
            previous = &entry.path;
        }
        out
    }

    #[test]
    fn entries_survive_a_round_trip() {
        assert_eq!(decode_section(&encode(&entries())).unwrap(), entries());
    }

    #[test]
    fn paths_that_leave_the_data_directory_are_refused() {
        for path in ["", "/etc/passwd", "../x", "a/../b", "a//b", "a/.", "a\0b"] {
            let mut entry = entries().remove(0);
            entry.path = path.into();
            assert!(decode_section(&encode(&[entry])).is_none(), "{path}");
        }
    }

    #[test]
    fn sizes_that_do_not_add_up_are_refused() {
        let mut entry = entries().remove(0);
        entry.size += 1;
        assert!(decode_section(&encode(&[entry])).is_none());
        let mut entry = entries().remove(1);
        entry.size = 9 * 8192;
        assert!(decode_section(&encode(&[entry])).is_none());
    }

    proptest! {
        #[test]
        fn altered_sections_never_panic(position in 0_usize..200, byte: u8) {
            let mut bytes = encode(&entries());
            let position = position % bytes.len();
            bytes[position] = byte;
            let _ = decode_section(&bytes);
        }
    }
}
