//! Files on their way from the data directory to packs and manifest.
//!
//! A dispatcher cuts files into units in the order of their paths and pairs them with the prior
//! backup's entries, which come in the same order. Worker threads read, verify, hash, compress and
//! encrypt. A collector puts the results back in order and writes the manifest. At most
//! [`UNITS_UNDER_WAY`] units are between dispatcher and collector, so memory does not depend on the
//! cluster's size.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use everpoint_instance::data_directory::Listing;
use everpoint_pgformat::{
    MajorVersion, ids::BLOCK_SIZE, relation::DataPath, relation::Fork,
    wal_summary::change_map::ChangeMap,
};
use everpoint_repository::{
    RepositoryError,
    backup::{DamagedPages, Totals},
    manifest::{BlockRun, Content, FileEntry, ManifestReader, ManifestWriter, StoredFrame},
    object::ObjectSink,
    store::Store,
};
use tokio::sync::{Semaphore, mpsc};

use super::{
    pack_writer::{PackTarget, PackWriter},
    selection::{self, Selection},
    work::{
        Outcome, Pick, ReadUnit, SourceFile, UNIT_BYTES, Unit, UnitResult, WorkContext, WorkError,
        Worker,
    },
};
use crate::{
    progress::Progress,
    work_queue::{Work, work_queue},
};

/// Units between dispatcher and collector at the most.
pub const UNITS_UNDER_WAY: usize = 64;

/// Blocks of a unit at the most.
const UNIT_BLOCKS: u32 = 512;
const _: () = assert!(UNIT_BLOCKS as usize * BLOCK_SIZE == UNIT_BYTES);

/// Kept in the manifest's metadata: it is read last and restored last.
const CONTROL_FILE: &str = "global/pg_control";

/// Damaged blocks that a manifest lists at the most; of files beyond that only the names are listed.
pub const MAX_LISTED_DAMAGE: usize = 10_000;

/// What copying the files came to.
#[derive(Debug, Default)]
pub struct Copied {
    /// Sizes.
    pub totals: Totals,
    /// Pages damaged in the cluster itself.
    pub damaged: Vec<DamagedPages>,
    /// Files that were gone when they were to be read.
    pub vanished: u64,
    /// Blocks that changed and that the map of changes does not name, when that was looked at.
    pub missed: Vec<DamagedPages>,
}

/// What a backup builds on.
pub struct BaseFiles {
    /// The base's files, when there is a base.
    pub prior: Option<ManifestReader>,
    /// For a differential, what changed since.
    pub changes: Mapped,
    /// For a differential, pages that are damaged in the base: those it takes over it takes over damaged.
    pub damaged: Vec<DamagedPages>,
}

/// How the map of changes is used.
#[derive(Debug)]
pub enum Mapped {
    /// There is none.
    No,
    /// Only what it names is read.
    Trusted(ChangeMap),
    /// Everything is read and compared with it.
    Compared(ChangeMap),
}

/// Copying failed.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// A file cannot be read or stored.
    #[error(transparent)]
    Work(#[from] WorkError),
    /// The manifest cannot be written, or the prior one not read.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// It was cancelled.
    #[error("the backup was cancelled")]
    Cancelled,
    /// A worker thread ended without a result.
    #[error("a worker ended unexpectedly")]
    WorkerLost,
}

/// The manifest being written and where it goes.
pub struct ManifestTarget {
    /// The files.
    pub writer: ManifestWriter,
    /// The object.
    pub sink: ObjectSink,
}

/// Copies `files`, sorted by path, with `jobs` worker threads.
///
/// # Errors
/// See [`CopyError`]; what was stored by then is swept later.
pub async fn copy_files(
    context: WorkContext,
    files: Arc<Listing>,
    base: BaseFiles,
    target: PackTarget,
    jobs: usize,
    manifest: &mut ManifestTarget,
    progress: &Progress,
) -> Result<Copied, CopyError> {
    let window = Arc::new(Semaphore::new(UNITS_UNDER_WAY));
    let (unit_sender, units) = work_queue(UNITS_UNDER_WAY);
    let (result_sender, results) = mpsc::channel(UNITS_UNDER_WAY);
    let store = target.repository.store().clone();

    let mut workers = Vec::with_capacity(jobs);
    for number in 0..jobs {
        let worker = Worker::new(
            context.clone(),
            PackWriter::new(target.clone())?,
            progress.clone(),
        );
        let (units, results) = (units.clone(), result_sender.clone());
        let run = move || run_worker(worker, &units, &results);
        let thread = std::thread::Builder::new()
            .name(format!("backup-{number}"))
            .spawn(run);
        workers.push(thread.map_err(|_| CopyError::WorkerLost)?);
    }

    let dispatcher = Dispatcher {
        units: unit_sender,
        results: result_sender,
        window: window.clone(),
        prior: base.prior,
        changes: base.changes,
        version: context.version,
        blocks_per_segment: context.blocks_per_segment,
        store,
    };
    let dispatching = dispatcher.run(files, progress.clone());
    let collecting = async {
        let collected = Collector::new(window.clone(), manifest, progress, base.damaged)
            .run(results)
            .await;
        // Nobody gives room for further units any more: a waiting dispatcher ends.
        window.close();
        collected
    };
    let (dispatched, collected) = tokio::join!(dispatching, collecting);

    let mut stored_bytes = 0;
    let mut failure = None;
    let ended = tokio::task::spawn_blocking(move || {
        workers
            .into_iter()
            .map(std::thread::JoinHandle::join)
            .collect::<Vec<_>>()
    });
    for result in ended.await.map_err(|_| CopyError::WorkerLost)? {
        match result {
            Ok(Ok(bytes)) => stored_bytes += bytes,
            Ok(Err(error)) => failure = failure.or(Some(CopyError::Work(error))),
            Err(_) => failure = failure.or(Some(CopyError::WorkerLost)),
        }
    }
    if let Some(failure) = failure {
        return Err(failure);
    }
    dispatched?;
    let mut copied = collected?;
    if progress.is_cancelled() {
        return Err(CopyError::Cancelled);
    }
    copied.totals.stored_bytes = stored_bytes;
    Ok(copied)
}

fn run_worker(
    mut worker: Worker,
    units: &Work<Unit>,
    results: &mpsc::Sender<UnitResult>,
) -> Result<u64, WorkError> {
    while let Some(unit) = units.next() {
        let result = worker.run(&unit)?;
        if results.blocking_send(result).is_err() {
            break;
        }
    }
    worker.finish()
}

struct Dispatcher {
    units: async_channel::Sender<Unit>,
    /// For what needs no worker.
    results: mpsc::Sender<UnitResult>,
    window: Arc<Semaphore>,
    prior: Option<ManifestReader>,
    /// For a differential, what changed since its base, where that is known.
    changes: Mapped,
    version: MajorVersion,
    blocks_per_segment: u32,
    store: Store,
}

impl Dispatcher {
    async fn run(mut self, files: Arc<Listing>, progress: Progress) -> Result<(), CopyError> {
        let mut sequence = 0;
        let mut prior_entry = None;
        for found in files.files() {
            let (path, size, mode) = (found.path(), found.size.get(), found.mode);
            if path == CONTROL_FILE {
                continue;
            }
            let file = Arc::new(SourceFile { path, size, mode });
            let prior = self
                .prior_of(&file.path, &mut prior_entry)
                .await?
                .map(Arc::new);
            for stretch in self.stretches(&file, prior.as_deref()) {
                let unit = Unit {
                    sequence,
                    file: file.clone(),
                    prior: prior.clone(),
                    offset: stretch.offset,
                    len: stretch.len,
                    pick: stretch.pick,
                    last: stretch.last,
                };
                tokio::select! {
                    permit = self.window.acquire() => match permit {
                        Ok(permit) => permit.forget(),
                        Err(_) => return Ok(()),
                    },
                    // A worker failed: what it was given is never collected, so no room comes of it.
                    () = self.units.closed() => return Ok(()),
                }
                if progress.is_cancelled() || !self.send(unit, &progress).await {
                    return Ok(());
                }
                sequence += 1;
            }
        }
        Ok(())
    }

    /// Gives a unit to the workers; one of which nothing is read is done already. Tells whether anybody takes it.
    async fn send(&self, unit: Unit, progress: &Progress) -> bool {
        let nothing = matches!(&unit.pick, Pick::Blocks(runs) if runs.is_empty());
        if !nothing {
            return self.units.send(unit).await.is_ok();
        }
        progress.add_bytes(unit.len);
        let read = ReadUnit {
            bytes: unit.len,
            read_bytes: 0,
            short: false,
            content: Content::Blocks {
                runs: Vec::new(),
                frames: Vec::new(),
            },
            reused_bytes: 0,
            damaged: Vec::new(),
            missed: Vec::new(),
        };
        let result = UnitResult {
            sequence: unit.sequence,
            file: unit.file,
            last: unit.last,
            outcome: Outcome::Read(read),
        };
        self.results.send(result).await.is_ok()
    }

    /// The stretches that a file is cut into.
    fn stretches(&self, file: &SourceFile, prior: Option<&FileEntry>) -> Vec<Stretch> {
        match self.selection(file, prior) {
            Selection::Whole => whole(file.size),
            Selection::Blocks(runs) => {
                // A last page that is there only in part is being added; replay adds it.
                let size = file.size - file.size % BLOCK_SIZE as u64;
                if let Mapped::Compared(_) = self.changes {
                    let mut stretches = whole(size);
                    let runs = Arc::new(runs);
                    for stretch in &mut stretches {
                        stretch.pick = Pick::Compared(runs.clone());
                    }
                    return stretches;
                }
                chosen(size, selection::parts(runs, UNIT_BLOCKS))
            }
        }
    }

    fn selection(&self, file: &SourceFile, prior: Option<&FileEntry>) -> Selection {
        let (Mapped::Trusted(changes) | Mapped::Compared(changes), Some(prior)) =
            (&self.changes, prior)
        else {
            return Selection::Whole;
        };
        let DataPath::Relation(relation) = DataPath::classify(&file.path, self.version) else {
            return Selection::Whole;
        };
        // Free space is noted without log, which is no mistake of the map of changes.
        if relation.fork == Fork::FreeSpaceMap && matches!(self.changes, Mapped::Compared(_)) {
            return Selection::Whole;
        }
        let blocks = |size: u64| u32::try_from(size / BLOCK_SIZE as u64).ok();
        let (Some(before), Some(now)) = (blocks(prior.size), blocks(file.size)) else {
            return Selection::Whole;
        };
        selection::select(changes, relation, self.blocks_per_segment, before, now)
    }

    /// The prior backup's entry of a path. Both come in ascending order.
    async fn prior_of(
        &mut self,
        path: &str,
        waiting: &mut Option<FileEntry>,
    ) -> Result<Option<FileEntry>, CopyError> {
        let Some(reader) = &mut self.prior else {
            return Ok(None);
        };
        loop {
            if waiting.is_none() {
                *waiting = reader
                    .next(&self.store)
                    .await
                    .map_err(RepositoryError::from)?;
            }
            match waiting.as_ref().map(|entry| entry.path.as_str().cmp(path)) {
                None | Some(std::cmp::Ordering::Greater) => return Ok(None),
                Some(std::cmp::Ordering::Equal) => return Ok(waiting.take()),
                Some(std::cmp::Ordering::Less) => *waiting = None,
            }
        }
    }
}

/// What of a file becomes one unit.
struct Stretch {
    offset: u64,
    len: u64,
    pick: Pick,
    last: bool,
}

/// All of a file, in stretches of [`UNIT_BYTES`].
fn whole(size: u64) -> Vec<Stretch> {
    let most = UNIT_BYTES as u64;
    let count = size.div_ceil(most).max(1);
    let stretch = |number: u64| {
        let offset = number * most;
        Stretch {
            offset,
            len: most.min(size - offset),
            pick: Pick::All,
            last: number + 1 == count,
        }
    };
    (0..count).map(stretch).collect()
}

/// Chosen blocks of a file, in stretches that reach up to where the next one's first block lies.
fn chosen(size: u64, parts: Vec<Vec<BlockRun>>) -> Vec<Stretch> {
    let starts: Vec<u64> = parts
        .iter()
        .skip(1)
        .filter_map(|part| part.first())
        .map(|run| u64::from(run.first) * BLOCK_SIZE as u64)
        .collect();
    let last = starts.len();
    let offsets = std::iter::once(0).chain(starts.iter().copied());
    let ends = starts.iter().copied().chain([size]);
    let stretches = offsets.zip(ends).zip(parts).enumerate();
    stretches
        .map(|(number, ((offset, end), runs))| Stretch {
            offset,
            len: end.saturating_sub(offset),
            pick: Pick::Blocks(runs),
            last: number == last,
        })
        .collect()
}

struct Collector<'a> {
    window: Arc<Semaphore>,
    manifest: &'a mut ManifestTarget,
    progress: &'a Progress,
    copied: Copied,
    damaged: HashMap<String, Vec<u32>>,
    /// Damaged blocks of the base.
    damaged_before: HashMap<String, Vec<u32>>,
    /// Blocks in `damaged`.
    listed: usize,
    current: Option<Assembly>,
}

/// A file whose units are being put together.
struct Assembly {
    size: u64,
    mode: u32,
    content: Content,
    /// The file ended inside one of its units: what later units read is not joined to it.
    ended: bool,
    vanished: bool,
}

impl<'a> Collector<'a> {
    fn new(
        window: Arc<Semaphore>,
        manifest: &'a mut ManifestTarget,
        progress: &'a Progress,
        damaged_before: Vec<DamagedPages>,
    ) -> Self {
        let (copied, damaged) = (Copied::default(), HashMap::new());
        let before = damaged_before.into_iter();
        Self {
            window,
            manifest,
            progress,
            copied,
            damaged,
            damaged_before: before.map(|file| (file.path, file.blocks)).collect(),
            listed: 0,
            current: None,
        }
    }

    async fn run(mut self, mut results: mpsc::Receiver<UnitResult>) -> Result<Copied, CopyError> {
        let mut next = 0;
        let mut early = BTreeMap::new();
        while let Some(result) = results.recv().await {
            early.insert(result.sequence, result);
            while let Some(result) = early.remove(&next) {
                next += 1;
                self.take(result).await?;
                self.window.add_permits(1);
            }
        }
        let mut damaged: Vec<DamagedPages> = self
            .damaged
            .into_iter()
            .map(|(path, blocks)| DamagedPages { path, blocks })
            .collect();
        damaged.sort_by(|a, b| a.path.cmp(&b.path));
        self.copied.damaged = damaged;
        Ok(self.copied)
    }

    async fn take(&mut self, result: UnitResult) -> Result<(), CopyError> {
        let current = self.current.get_or_insert_with(|| Assembly {
            size: 0,
            mode: result.file.mode,
            content: Content::Whole(Vec::new()),
            ended: false,
            vanished: false,
        });
        match result.outcome {
            Outcome::Vanished => {
                current.vanished |= current.size == 0;
                current.ended = true;
            }
            Outcome::Read(_) if current.ended => {}
            Outcome::Read(read) => {
                join(&mut current.content, read.content, current.size);
                current.size += read.bytes;
                current.ended = read.short;
                self.copied.totals.read_bytes += read.read_bytes;
                self.copied.totals.reused_bytes += read.reused_bytes;
                if !read.missed.is_empty() {
                    self.copied.missed.push(DamagedPages {
                        path: result.file.path.clone(),
                        blocks: read.missed,
                    });
                }
                self.list_damage(&result.file.path, read.damaged);
            }
        }
        if result.last
            && let Some(assembly) = self.current.take()
        {
            self.end_file(&result.file.path, assembly).await?;
        }
        Ok(())
    }

    fn list_damage(&mut self, path: &str, found: Vec<u32>) {
        if found.is_empty() {
            return;
        }
        let blocks = self.damaged.entry(path.to_owned()).or_default();
        let room = MAX_LISTED_DAMAGE.saturating_sub(self.listed);
        self.listed += found.len().min(room);
        blocks.extend(found.into_iter().take(room));
    }

    /// Lists the damaged pages of the base that this backup takes over.
    fn take_damage_over(&mut self, path: &str, assembly: &Assembly) {
        let Content::Blocks { runs, .. } = &assembly.content else {
            return;
        };
        let Some(before) = self.damaged_before.remove(path) else {
            return;
        };
        let known = self.damaged.get(path);
        let taken_over: Vec<u32> = before
            .into_iter()
            .filter(|block| u64::from(*block) < assembly.size / BLOCK_SIZE as u64)
            .filter(|block| {
                let is_in = |run: &BlockRun| run.first <= *block && *block - run.first < run.count;
                !runs.iter().any(is_in)
            })
            .filter(|block| !known.is_some_and(|known| known.contains(block)))
            .collect();
        self.list_damage(path, taken_over);
        if let Some(blocks) = self.damaged.get_mut(path) {
            blocks.sort_unstable();
        }
    }

    async fn end_file(&mut self, path: &str, assembly: Assembly) -> Result<(), CopyError> {
        self.progress.add_files(1);
        if assembly.vanished {
            self.copied.vanished += 1;
            return Ok(());
        }
        self.take_damage_over(path, &assembly);
        self.copied.totals.files += 1;
        self.copied.totals.restored_bytes += assembly.size;
        let entry = FileEntry {
            path: path.to_owned(),
            mode: assembly.mode,
            size: assembly.size,
            content: assembly.content,
        };
        self.manifest
            .writer
            .push(&entry)
            .map_err(RepositoryError::from)?;
        while let Some(part) = self.manifest.writer.take_part() {
            self.manifest
                .sink
                .part(part)
                .await
                .map_err(RepositoryError::from)?;
        }
        Ok(())
    }
}

/// Adds the content of a file's next unit. All units of a file have content of one kind, but a file of
/// no units yet has none.
fn join(content: &mut Content, next: Content, size: u64) {
    if size == 0 {
        *content = next;
        return;
    }
    match (content, next) {
        (Content::Whole(frames), Content::Whole(more)) => frames.extend::<Vec<StoredFrame>>(more),
        (
            Content::Blocks { runs, frames },
            Content::Blocks {
                runs: more_runs,
                frames: more,
            },
        ) => {
            frames.extend(more);
            for run in more_runs {
                extend_runs(runs, run);
            }
        }
        _ => {}
    }
}

fn extend_runs(runs: &mut Vec<BlockRun>, run: BlockRun) {
    match runs.last_mut() {
        Some(last) if last.first + last.count == run.first => last.count += run.count,
        _ => runs.push(run),
    }
}
