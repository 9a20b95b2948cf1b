//! Files on their way from the data directory to packs and manifest.
//!
//! A dispatcher cuts files into units in the order of their paths and pairs them with the prior
//! backup's entries, which come in the same order. Worker threads read, verify, hash, compress and
//! encrypt. A collector puts the results back in order and writes the manifest. At most
//! [`UNITS_UNDER_WAY`] units are between dispatcher and collector, so memory does not depend on the
//! cluster's size.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use everpoint_instance::data_directory::Listing;
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
    work::{Outcome, SourceFile, UNIT_BYTES, Unit, UnitResult, WorkContext, WorkError, Worker},
};
use crate::progress::Progress;

/// Units between dispatcher and collector at the most.
pub const UNITS_UNDER_WAY: usize = 64;

/// Kept in the manifest's metadata: it is read last and restored last.
const CONTROL_FILE: &str = "global/pg_control";

/// What copying the files came to.
#[derive(Debug, Default)]
pub struct Copied {
    /// Sizes.
    pub totals: Totals,
    /// Pages damaged in the cluster itself.
    pub damaged: Vec<DamagedPages>,
    /// Files that were gone when they were to be read.
    pub vanished: u64,
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
    prior: Option<ManifestReader>,
    target: PackTarget,
    jobs: usize,
    manifest: &mut ManifestTarget,
    progress: &Progress,
) -> Result<Copied, CopyError> {
    let window = Arc::new(Semaphore::new(UNITS_UNDER_WAY));
    let (unit_sender, units) = mpsc::channel(UNITS_UNDER_WAY);
    let (result_sender, results) = mpsc::channel(UNITS_UNDER_WAY);
    let units = Arc::new(Mutex::new(units));
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
    drop(result_sender);

    let dispatcher = Dispatcher {
        units: unit_sender,
        window: window.clone(),
        prior,
        store,
    };
    let dispatching = dispatcher.run(files, progress.clone());
    let collecting = async {
        let collected = Collector::new(window.clone(), manifest, progress)
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
    units: &Mutex<mpsc::Receiver<Unit>>,
    results: &mpsc::Sender<UnitResult>,
) -> Result<u64, WorkError> {
    loop {
        let next = units
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .blocking_recv();
        let Some(unit) = next else { break };
        let result = worker.run(&unit);
        match result {
            Ok(result) => {
                if results.blocking_send(result).is_err() {
                    break;
                }
            }
            Err(error) => {
                // Nobody may wait for this worker's units: the others end, too.
                units.lock().unwrap_or_else(PoisonError::into_inner).close();
                return Err(error);
            }
        }
    }
    worker.finish()
}

struct Dispatcher {
    units: mpsc::Sender<Unit>,
    window: Arc<Semaphore>,
    prior: Option<ManifestReader>,
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
            let mut offset = 0;
            loop {
                let rest = file.size - offset;
                let len = usize::try_from(rest).map_or(UNIT_BYTES, |rest| rest.min(UNIT_BYTES));
                let last = rest <= UNIT_BYTES as u64;
                let (file, prior) = (file.clone(), prior.clone());
                let unit = Unit {
                    sequence,
                    file,
                    prior,
                    offset,
                    len,
                    last,
                };
                let Ok(permit) = self.window.acquire().await else {
                    return Ok(());
                };
                permit.forget();
                if progress.is_cancelled() || self.units.send(unit).await.is_err() {
                    return Ok(());
                }
                sequence += 1;
                offset += len as u64;
                if last {
                    break;
                }
            }
        }
        Ok(())
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

struct Collector<'a> {
    window: Arc<Semaphore>,
    manifest: &'a mut ManifestTarget,
    progress: &'a Progress,
    copied: Copied,
    damaged: HashMap<String, Vec<u32>>,
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
    ) -> Self {
        let (copied, damaged) = (Copied::default(), HashMap::new());
        Self {
            window,
            manifest,
            progress,
            copied,
            damaged,
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
                self.copied.totals.read_bytes += read.bytes;
                self.copied.totals.reused_bytes += read.reused_bytes;
                if !read.damaged.is_empty() {
                    let blocks = self.damaged.entry(result.file.path.clone()).or_default();
                    blocks.extend(read.damaged);
                }
            }
        }
        if result.last
            && let Some(assembly) = self.current.take()
        {
            self.end_file(&result.file.path, assembly).await?;
        }
        Ok(())
    }

    async fn end_file(&mut self, path: &str, assembly: Assembly) -> Result<(), CopyError> {
        self.progress.add_files(1);
        if assembly.vanished {
            self.copied.vanished += 1;
            return Ok(());
        }
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
