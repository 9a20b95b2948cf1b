//! Files of a backup moved into packs of a copy's own: decrypted, compared with their hashes, encrypted anew,
//! and not compressed again.
//!
//! A dispatcher cuts files into tasks; workers take them in any order, each into packs of its own; the
//! collector, which is the dispatcher's other half, puts the answers back into the files' order.

use std::{collections::VecDeque, sync::Arc};

use everpoint_pgformat::{Oid, relation::DataPath};
use everpoint_repository::{
    RepositoryError,
    backup::{Backup, Totals},
    manifest::{Content, FileEntry, StoredFrame},
};
use tokio::sync::oneshot;

use super::LongTermError;
use crate::{
    backup::{
        pack_writer::{PackTarget, PackWriter},
        pipeline::ManifestTarget,
    },
    progress::Progress,
    restore::{
        pack_reader::{PackReadError, PackReader, PackSource},
        selection::Paths,
        units::Layer,
    },
    work_queue::{Work, work_queue},
};

/// Contents that one task moves at the most, in bytes.
const TASK_BYTES: u64 = 4 << 20;
/// Tasks that wait for a worker at the most.
const WAITING_TASKS: usize = 16;
/// Tasks whose answers were not taken yet at the most.
const OPEN_TASKS: usize = 64;

/// Frames of one file, to be moved.
struct Task {
    path: Arc<str>,
    database: Option<Oid>,
    frames: Vec<StoredFrame>,
    answer: oneshot::Sender<Vec<StoredFrame>>,
}

/// What the collector waits for next.
struct Open {
    /// `None` for a file without contents.
    answer: Option<oneshot::Receiver<Vec<StoredFrame>>>,
    /// The file that ends with it, still without its frames.
    ends: Option<FileEntry>,
}

/// Moves the files of a full backup that `paths` holds.
pub(super) async fn copy(
    source: PackSource,
    target: PackTarget,
    backup: &Backup,
    paths: &Paths,
    jobs: usize,
    manifest: &mut ManifestTarget,
    progress: &Progress,
) -> Result<Totals, LongTermError> {
    let (sender, tasks) = work_queue(WAITING_TASKS);
    let mut workers = Vec::new();
    for number in 0..jobs.max(1) {
        let reader = PackReader::new(source.clone())?;
        let writer = PackWriter::new(target.clone())?;
        let (tasks, progress) = (tasks.clone(), progress.clone());
        let thread = std::thread::Builder::new()
            .name(format!("copy-{number}"))
            .spawn(move || work(reader, writer, &tasks, &progress))
            .map_err(|_| LongTermError::TaskLost)?;
        workers.push(thread);
    }
    let mut collector = Collector {
        manifest,
        progress,
        open: VecDeque::new(),
        frames: Vec::new(),
        totals: Totals::default(),
    };
    let (_, mut files) = source
        .repository
        .manifest(&source.instance, &backup.id)
        .await?;
    files.keep_sections(&paths.sections(&backup.sections));
    let store = source.repository.store();
    let collected = async {
        while let Some(entry) = files.next(store).await.map_err(RepositoryError::from)? {
            if paths.contain(&entry.path) {
                collector.dispatch(backup, entry, &sender).await?;
            }
        }
        collector.take_all().await
    }
    .await;
    drop(sender);
    let mut totals = collector.totals;
    let joined = tokio::task::spawn_blocking(move || {
        let threads = workers.into_iter();
        threads
            .map(std::thread::JoinHandle::join)
            .collect::<Vec<_>>()
    });
    // A worker's error is the cause of the collector's.
    for result in joined.await.map_err(|_| LongTermError::TaskLost)? {
        totals.stored_bytes += result.map_err(|_| LongTermError::TaskLost)??;
    }
    match progress.is_cancelled() {
        true => Err(LongTermError::Cancelled),
        false => collected.map(|()| totals),
    }
}

struct Collector<'a> {
    manifest: &'a mut ManifestTarget,
    progress: &'a Progress,
    open: VecDeque<Open>,
    frames: Vec<StoredFrame>,
    totals: Totals,
}

impl Collector<'_> {
    async fn dispatch(
        &mut self,
        backup: &Backup,
        mut entry: FileEntry,
        sender: &async_channel::Sender<Task>,
    ) -> Result<(), LongTermError> {
        let frames = match std::mem::replace(&mut entry.content, Content::Whole(Vec::new())) {
            Content::Whole(frames) => frames,
            // A full backup has none; a manifest that says so is damaged.
            Content::Blocks { .. } => {
                return Err(PackReadError::UnknownPack {
                    number: 0,
                    path: entry.path,
                }
                .into());
            }
        };
        let database = DataPath::classify(&entry.path, backup.version).database();
        let path: Arc<str> = entry.path.as_str().into();
        let mut frames = frames.into_iter().peekable();
        if frames.peek().is_none() {
            self.open.push_back(Open {
                answer: None,
                ends: Some(entry.clone()),
            });
        }
        while frames.peek().is_some() {
            let mut bytes = 0;
            let mut taken = Vec::new();
            while bytes < TASK_BYTES
                && let Some(frame) = frames.next()
            {
                bytes += u64::from(frame.frame.raw);
                taken.push(frame);
            }
            let (answer, receiver) = oneshot::channel();
            let task = Task {
                path: path.clone(),
                database,
                frames: taken,
                answer,
            };
            if self.progress.is_cancelled() || sender.send(task).await.is_err() {
                return Err(LongTermError::Cancelled);
            }
            self.open.push_back(Open {
                answer: Some(receiver),
                ends: frames.peek().is_none().then(|| entry.clone()),
            });
        }
        while self.open.len() > OPEN_TASKS {
            self.take().await?;
        }
        Ok(())
    }

    async fn take_all(&mut self) -> Result<(), LongTermError> {
        while !self.open.is_empty() {
            self.take().await?;
        }
        Ok(())
    }

    /// Waits for the next answer, and writes the file that it ends into the manifest.
    async fn take(&mut self) -> Result<(), LongTermError> {
        let Some(open) = self.open.pop_front() else {
            return Ok(());
        };
        if let Some(answer) = open.answer {
            // Without one its worker failed, and says why.
            let moved = answer.await.map_err(|_| LongTermError::TaskLost)?;
            self.frames.extend(moved);
        }
        let Some(mut entry) = open.ends else {
            return Ok(());
        };
        self.totals.files += 1;
        self.totals.restored_bytes += entry.size;
        self.totals.read_bytes += entry.size;
        entry.content = Content::Whole(std::mem::take(&mut self.frames));
        let writer = &mut self.manifest.writer;
        writer.push(&entry).map_err(RepositoryError::from)?;
        while let Some(part) = writer.take_part() {
            let sent = self.manifest.sink.part(part).await;
            sent.map_err(RepositoryError::from)?;
        }
        self.progress.add_files(1);
        Ok(())
    }
}

/// A worker: returns the bytes it stored.
fn work(
    mut reader: PackReader,
    mut writer: PackWriter,
    tasks: &Work<Task>,
    progress: &Progress,
) -> Result<u64, LongTermError> {
    let mut contents = Vec::new();
    while let Some(task) = tasks.next() {
        let before = writer.stored_bytes();
        let moved = run(&mut reader, &mut writer, &task, &mut contents)?;
        let raw = moved.iter().map(|frame| u64::from(frame.frame.raw));
        progress.add_bytes(raw.sum());
        progress.add_stored(writer.stored_bytes() - before);
        // Nobody waits for it when the copy was given up.
        let _ = task.answer.send(moved);
    }
    Ok(writer.finish()?)
}

fn run(
    reader: &mut PackReader,
    writer: &mut PackWriter,
    task: &Task,
    contents: &mut Vec<u8>,
) -> Result<Vec<StoredFrame>, LongTermError> {
    let wanted: Vec<(Layer, StoredFrame)> = task
        .frames
        .iter()
        .map(|frame| (Layer::Top, *frame))
        .collect();
    let mut fetched = reader.fetch(&task.path, &wanted)?;
    let mut moved = Vec::with_capacity(task.frames.len());
    for frame in &task.frames {
        contents.resize(frame.frame.raw as usize, 0);
        let stored = fetched.next_frame();
        let opened = reader.decode(&task.path, Layer::Top, frame, stored, contents)?;
        moved.push(writer.append_opened(task.database, frame, opened)?);
    }
    Ok(moved)
}
