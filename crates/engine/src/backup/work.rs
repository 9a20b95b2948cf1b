//! The work of a backup: files cut into units, and what a worker makes of one.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

use everpoint_pgformat::{
    BlockNumber, Lsn, MajorVersion, Oid,
    ids::BLOCK_SIZE,
    page,
    relation::{DataPath, Fork},
};
use everpoint_repository::{
    RepositoryError,
    manifest::{BlockRun, Content, FileEntry, StoredFrame},
};

use super::{
    pack_writer::PackWriter,
    source::{FileReader, SourceError, verify_pages},
};
use crate::progress::Progress;

/// Bytes of a unit at the most: what a worker reads at once.
pub const UNIT_BYTES: usize = 4 << 20;
/// Contents of a frame of a data file.
pub const FRAME_BYTES: usize = 256 << 10;
/// Contents of a frame of a file larger than [`HUGE_FILE_BYTES`], whose list would grow too long.
pub const HUGE_FRAME_BYTES: usize = 1 << 20;
/// Files larger than this, which no relation's are, have larger frames.
pub const HUGE_FILE_BYTES: u64 = 1 << 30;

/// A file to back up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// Relative to the data directory.
    pub path: String,
    /// Its size when it was found.
    pub size: u64,
    /// Its permission bits.
    pub mode: u32,
}

/// What all units of a backup have in common.
#[derive(Clone, Debug)]
pub struct WorkContext {
    /// The data directory.
    pub root: PathBuf,
    /// The server's version, for classifying paths.
    pub version: MajorVersion,
    /// Blocks in a full segment file of a relation.
    pub blocks_per_segment: u32,
    /// Whether pages carry checksums.
    pub checksums: bool,
    /// The start of this backup.
    pub backup_start: Lsn,
    /// For a differential that has no map of changes, the start of its base: pages changed before it are in
    /// the base.
    pub base_start: Option<Lsn>,
    /// Whether a map of changes chose what is read: what it leaves whole is stored whole.
    pub mapped: bool,
    /// Whether a page that the log does not name is as in the base to the last bit: with checksums, on the server that
    /// the base was taken of. Another one, such as a promoted standby, has set hint bits of its own, which are not
    /// logged and need not be.
    pub same_bits: bool,
    /// Databases whose pages' LSNs tell nothing of the base: their contents are compared.
    pub made_anew: Arc<BTreeSet<Oid>>,
}

/// What of a file one unit holds.
#[derive(Clone, Debug)]
pub struct Unit {
    /// Its place in the order of all units.
    pub sequence: u64,
    /// The file.
    pub file: Arc<SourceFile>,
    /// The file in the backup that is built upon.
    pub prior: Option<Arc<FileEntry>>,
    /// Its first byte in the file.
    pub offset: u64,
    /// Its bytes, read or not.
    pub len: u64,
    /// What of it is read.
    pub pick: Pick,
    /// Whether it is the file's last.
    pub last: bool,
}

/// What of a unit is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pick {
    /// All of it, at most [`UNIT_BYTES`].
    All,
    /// These blocks, counted from the file's start, at most [`UNIT_BYTES`] in all; the others are as in the
    /// base.
    Blocks(Vec<BlockRun>),
    /// All of it, to see whether these blocks are those that changed. What is stored is what either way tells.
    Compared(Arc<Vec<BlockRun>>),
}

/// What a worker made of a unit.
#[derive(Debug)]
pub struct UnitResult {
    /// Its place in the order of all units.
    pub sequence: u64,
    /// The file.
    pub file: Arc<SourceFile>,
    /// Whether it is the file's last.
    pub last: bool,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a unit.
#[derive(Debug)]
pub enum Outcome {
    /// The file is gone.
    Vanished,
    /// It was read.
    Read(ReadUnit),
}

/// What was read of a unit.
#[derive(Debug)]
pub struct ReadUnit {
    /// Bytes of the file that it stands for.
    pub bytes: u64,
    /// Bytes that were read.
    pub read_bytes: u64,
    /// Whether the file ended before the unit did.
    pub short: bool,
    /// What is stored of it.
    pub content: Content,
    /// Bytes that earlier backups' packs hold.
    pub reused_bytes: u64,
    /// Damaged blocks, counted from the file's start.
    pub damaged: Vec<u32>,
    /// Blocks that changed and that the map of changes does not name.
    pub missed: Vec<u32>,
}

/// A unit could not be backed up.
#[derive(Debug, thiserror::Error)]
pub enum WorkError {
    /// The cluster cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The repository cannot be written.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
}

/// Bytes of a frame of a file of this size.
pub fn frame_bytes(file_size: u64) -> usize {
    if file_size > HUGE_FILE_BYTES {
        HUGE_FRAME_BYTES
    } else {
        FRAME_BYTES
    }
}

/// One worker's means.
pub struct Worker {
    context: WorkContext,
    reader: FileReader,
    packs: PackWriter,
    buffer: Vec<u8>,
    changed: Vec<u8>,
    progress: Progress,
}

/// How the pages of a file are chosen.
#[derive(Clone, Copy)]
enum Choice {
    /// All of it, but for frames that the prior backup holds already.
    Whole,
    /// Pages changed since this position, or behind the file's end in the base.
    Since { base_start: Lsn, base_blocks: u64 },
    /// Stretches of a frame's size whose contents are not those of the base.
    Differing,
}

impl Worker {
    /// Sets one up.
    pub fn new(context: WorkContext, packs: PackWriter, progress: Progress) -> Self {
        Self {
            context,
            reader: FileReader::default(),
            packs,
            buffer: vec![0; UNIT_BYTES],
            changed: Vec::with_capacity(FRAME_BYTES),
            progress,
        }
    }

    /// Backs one unit up.
    ///
    /// # Errors
    /// When the cluster cannot be read or the repository cannot be written.
    pub fn run(&mut self, unit: &Unit) -> Result<UnitResult, WorkError> {
        let outcome = match self.read(unit)? {
            Some(read) => Outcome::Read(read),
            None => Outcome::Vanished,
        };
        self.progress.add_bytes(unit.len);
        let (sequence, file, last) = (unit.sequence, unit.file.clone(), unit.last);
        Ok(UnitResult {
            sequence,
            file,
            last,
            outcome,
        })
    }

    fn read(&mut self, unit: &Unit) -> Result<Option<ReadUnit>, WorkError> {
        match &unit.pick {
            Pick::All | Pick::Compared(_) => self.read_all(unit),
            Pick::Blocks(runs) => self.read_blocks(unit, runs),
        }
    }

    /// Reads and stores chosen blocks.
    fn read_blocks(
        &mut self,
        unit: &Unit,
        runs: &[BlockRun],
    ) -> Result<Option<ReadUnit>, WorkError> {
        let kind = DataPath::classify(&unit.file.path, self.context.version);
        let first_block = match kind {
            DataPath::Relation(file) => file.first_block(self.context.blocks_per_segment),
            _ => None,
        };
        let first_block = first_block.map_or(0, BlockNumber::get);
        let path = self.context.root.join(&unit.file.path);
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut pending = std::mem::take(&mut self.changed);
        pending.clear();
        let (mut stored, mut frames, mut damaged) = (Vec::new(), Vec::new(), Vec::new());
        let mut read_bytes = 0;
        let mut ends_at = None;
        for run in runs {
            buffer.resize(run.count as usize * BLOCK_SIZE, 0);
            let offset = u64::from(run.first) * BLOCK_SIZE as u64;
            let Some(read) = self.reader.read(&path, offset, &mut buffer)? else {
                (self.buffer, self.changed) = (buffer, pending);
                return Ok(None);
            };
            buffer.truncate(read - read % BLOCK_SIZE);
            read_bytes += buffer.len() as u64;
            if self.context.checksums {
                let first = BlockNumber::new(first_block.wrapping_add(run.first));
                let start = self.context.backup_start;
                let wrong = verify_pages(&self.reader, offset, first, start, &mut buffer);
                damaged.extend(wrong);
            }
            let count = u32::try_from(buffer.len() / BLOCK_SIZE).unwrap_or(u32::MAX);
            if count > 0 {
                let first = run.first;
                stored.push(BlockRun { first, count });
            }
            for page in buffer.chunks(BLOCK_SIZE) {
                pending.extend_from_slice(page);
                if pending.len() >= FRAME_BYTES {
                    let hash = *blake3::hash(&pending).as_bytes();
                    frames.push(self.append(kind.database(), &pending, hash)?);
                    pending.clear();
                }
            }
            if count < run.count {
                // It was cut since it was listed; replay cuts it again.
                ends_at = Some((u64::from(run.first) + u64::from(count)) * BLOCK_SIZE as u64);
                break;
            }
        }
        if !pending.is_empty() {
            let hash = *blake3::hash(&pending).as_bytes();
            frames.push(self.append(kind.database(), &pending, hash)?);
        }
        (self.buffer, self.changed) = (buffer, pending);
        let end = ends_at.unwrap_or(unit.offset + unit.len);
        Ok(Some(ReadUnit {
            bytes: end.saturating_sub(unit.offset),
            read_bytes,
            short: ends_at.is_some(),
            content: Content::Blocks {
                runs: stored,
                frames,
            },
            reused_bytes: 0,
            damaged,
            missed: Vec::new(),
        }))
    }

    fn read_all(&mut self, unit: &Unit) -> Result<Option<ReadUnit>, WorkError> {
        let len = usize::try_from(unit.len)
            .unwrap_or(UNIT_BYTES)
            .min(UNIT_BYTES);
        let kind = DataPath::classify(&unit.file.path, self.context.version);
        let relation = match kind {
            DataPath::Relation(file) => Some(file),
            _ => None,
        };
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(len, 0);
        let Some(read) = self.reader.read(
            &self.context.root.join(&unit.file.path),
            unit.offset,
            &mut buffer,
        )?
        else {
            self.buffer = buffer;
            return Ok(None);
        };
        let short = read < len;
        // A relation's last page may be there only in part while it is being added; replay adds it.
        let kept = if relation.is_some() {
            read - read % BLOCK_SIZE
        } else {
            read
        };
        buffer.truncate(kept);
        let damaged = match relation.filter(|_| self.context.checksums) {
            Some(file) => {
                let first = file
                    .first_block(self.context.blocks_per_segment)
                    .map_or(0, BlockNumber::get)
                    .wrapping_add(u32::try_from(unit.offset / BLOCK_SIZE as u64).unwrap_or(0));
                let start = self.context.backup_start;
                verify_pages(&self.reader, unit.offset, first.into(), start, &mut buffer)
            }
            None => Vec::new(),
        };
        let database = kind.database();
        let made_anew = database.is_some_and(|database| self.context.made_anew.contains(&database));
        if let Pick::Compared(runs) = &unit.pick {
            let (content, missed) = self.store_compared(unit, database, &buffer, runs)?;
            self.buffer = buffer;
            return Ok(Some(ReadUnit {
                bytes: kept as u64,
                read_bytes: kept as u64,
                short,
                content,
                reused_bytes: 0,
                damaged,
                missed,
            }));
        }
        let base_start = self.context.base_start.filter(|_| !self.context.mapped);
        let choice = match (relation, &unit.prior, base_start) {
            (Some(file), Some(prior), Some(base_start)) if file.fork == Fork::Main => {
                let base_blocks = prior.size / BLOCK_SIZE as u64;
                // Without checksums a page may change and keep its LSN: VACUUM marks it all-visible.
                match self.context.checksums && !made_anew {
                    true => Choice::Since {
                        base_start,
                        base_blocks,
                    },
                    false => Choice::Differing,
                }
            }
            _ => Choice::Whole,
        };
        let (content, reused_bytes) = match choice {
            Choice::Whole => self.store_whole(unit, database, &buffer)?,
            Choice::Since {
                base_start,
                base_blocks,
            } => {
                let changed = |block: u64, page: &page::Page| {
                    let lsn = page::page_lsn(page);
                    block >= base_blocks || lsn >= base_start || !lsn.is_valid()
                };
                (self.store_changed(unit, database, &buffer, changed)?, 0)
            }
            Choice::Differing => (self.store_differing(unit, database, &buffer)?, 0),
        };
        self.buffer = buffer;
        Ok(Some(ReadUnit {
            bytes: kept as u64,
            read_bytes: kept as u64,
            short,
            content,
            reused_bytes,
            damaged,
            missed: Vec::new(),
        }))
    }

    fn store_whole(
        &mut self,
        unit: &Unit,
        database: Option<Oid>,
        buffer: &[u8],
    ) -> Result<(Content, u64), WorkError> {
        let size = frame_bytes(unit.file.size);
        let prior = match unit.prior.as_deref().map(|prior| &prior.content) {
            Some(Content::Whole(frames)) => frames.as_slice(),
            _ => &[],
        };
        let first = usize::try_from(unit.offset).unwrap_or(usize::MAX) / size;
        let mut frames = Vec::with_capacity(buffer.len().div_ceil(size));
        let mut reused = 0;
        for (index, contents) in buffer.chunks(size).enumerate() {
            let hash = *blake3::hash(contents).as_bytes();
            let known = prior
                .get(first + index)
                .filter(|known| known.hash == hash && known.frame.raw as usize == contents.len())
                .and_then(|known| self.packs.reuse(known));
            reused += known.map_or(0, |known| u64::from(known.frame.raw));
            frames.push(match known {
                Some(known) => known,
                None => self.append(database, contents, hash)?,
            });
        }
        Ok((Content::Whole(frames), reused))
    }

    /// Stores the blocks that the map names, and those that changed by their LSN or, where no change goes without
    /// one, by their contents. Returns the blocks that only those tell of.
    fn store_compared(
        &mut self,
        unit: &Unit,
        database: Option<Oid>,
        buffer: &[u8],
        runs: &[BlockRun],
    ) -> Result<(Content, Vec<u32>), WorkError> {
        let size = frame_bytes(unit.file.size);
        let first_frame = usize::try_from(unit.offset).unwrap_or(usize::MAX) / size;
        let base = match unit.prior.as_deref() {
            Some(FileEntry {
                content: Content::Whole(frames),
                ..
            }) => frames.as_slice(),
            _ => &[],
        };
        let base_start = self.context.base_start.unwrap_or(Lsn::MAX);
        let backup_start = self.context.backup_start;
        let named = |block: u64| {
            let block = u32::try_from(block).unwrap_or(u32::MAX);
            let before = runs.partition_point(|run| run.first <= block);
            let run = before.checked_sub(1).and_then(|index| runs.get(index));
            run.is_some_and(|run| block - run.first < run.count)
        };
        let mut missed = Vec::new();
        let mut block = unit.offset / BLOCK_SIZE as u64;
        for (index, contents) in (first_frame..).zip(buffer.chunks(size)) {
            let (pages, _) = contents.as_chunks::<BLOCK_SIZE>();
            let mut explained = false;
            let mut found = Vec::new();
            let first = block;
            for page in pages {
                let lsn = page::page_lsn(page);
                // What changed since this backup began is not for the map to tell.
                explained |= named(block) || lsn >= backup_start;
                if !named(block) && lsn >= base_start && lsn < backup_start {
                    found.push(u32::try_from(block).unwrap_or(u32::MAX));
                }
                block += 1;
            }
            let same = base.get(index).is_some_and(|known| {
                known.frame.raw as usize == contents.len()
                    && known.hash == *blake3::hash(contents).as_bytes()
            });
            if self.context.same_bits && !explained && !same && found.is_empty() {
                let blocks = first..block;
                found.extend(blocks.map(|block| u32::try_from(block).unwrap_or(u32::MAX)));
            }
            missed.extend(found);
        }
        let stored = |block: u64, _: &page::Page| {
            let number = u32::try_from(block).unwrap_or(u32::MAX);
            named(block) || missed.binary_search(&number).is_ok()
        };
        let content = self.store_changed(unit, database, buffer, stored)?;
        Ok((content, missed))
    }

    fn store_changed(
        &mut self,
        unit: &Unit,
        database: Option<Oid>,
        buffer: &[u8],
        changed: impl Fn(u64, &page::Page) -> bool,
    ) -> Result<Content, WorkError> {
        let mut runs: Vec<BlockRun> = Vec::new();
        let mut frames = Vec::new();
        let mut pending = std::mem::take(&mut self.changed);
        pending.clear();
        let (pages, _) = buffer.as_chunks::<BLOCK_SIZE>();
        for (block, page) in (unit.offset / BLOCK_SIZE as u64..).zip(pages) {
            if !changed(block, page) {
                continue;
            }
            let first = u32::try_from(block).unwrap_or(u32::MAX);
            match runs.last_mut() {
                Some(run) if run.first + run.count == first => run.count += 1,
                _ => runs.push(BlockRun { first, count: 1 }),
            }
            pending.extend_from_slice(page);
            if pending.len() >= FRAME_BYTES {
                frames.push(self.append(database, &pending, *blake3::hash(&pending).as_bytes())?);
                pending.clear();
            }
        }
        if !pending.is_empty() {
            frames.push(self.append(database, &pending, *blake3::hash(&pending).as_bytes())?);
        }
        self.changed = pending;
        Ok(Content::Blocks { runs, frames })
    }

    fn store_differing(
        &mut self,
        unit: &Unit,
        database: Option<Oid>,
        buffer: &[u8],
    ) -> Result<Content, WorkError> {
        let size = frame_bytes(unit.file.size);
        let first = usize::try_from(unit.offset).unwrap_or(usize::MAX) / size;
        let base = match unit.prior.as_deref().map(|prior| &prior.content) {
            Some(Content::Whole(frames)) => frames.as_slice(),
            _ => &[],
        };
        let same: Vec<bool> = buffer
            .chunks(size)
            .zip(first..)
            .map(|(contents, index)| {
                base.get(index).is_some_and(|known| {
                    known.frame.raw as usize == contents.len()
                        && known.hash == *blake3::hash(contents).as_bytes()
                })
            })
            .collect();
        let blocks = (size / BLOCK_SIZE) as u64;
        let start = unit.offset / BLOCK_SIZE as u64;
        let changed = |block: u64, _: &page::Page| {
            let index = usize::try_from((block - start) / blocks).unwrap_or(usize::MAX);
            !same.get(index).copied().unwrap_or(false)
        };
        self.store_changed(unit, database, buffer, changed)
    }

    fn append(
        &mut self,
        database: Option<Oid>,
        contents: &[u8],
        hash: [u8; 32],
    ) -> Result<StoredFrame, WorkError> {
        let before = self.packs.stored_bytes();
        let frame = self.packs.append(database, contents, hash)?;
        self.progress.add_stored(self.packs.stored_bytes() - before);
        Ok(frame)
    }

    /// Ends the packs and returns the bytes they hold.
    ///
    /// # Errors
    /// When the repository cannot be written.
    pub fn finish(self) -> Result<u64, WorkError> {
        Ok(self.packs.finish()?)
    }
}
