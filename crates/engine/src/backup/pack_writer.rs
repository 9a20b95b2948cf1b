//! Packs being written by one worker: built in its thread, sent to the store by tasks beside it.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use everpoint_pgformat::{ByteCount, Oid};
use everpoint_repository::{
    BackupId, InstanceName, Repository, RepositoryError, StoreError,
    backup::Pack,
    frame::{FrameEncoder, FrameError, FrameRef},
    layout,
    manifest::StoredFrame,
    object::{ObjectBuilder, ObjectKind, ObjectSink},
};
use tokio::{runtime::Handle, sync::mpsc, task::JoinHandle};

/// A pack is ended when it holds this much.
pub const PACK_BYTES: u64 = 64 << 20;
/// Parts of a pack that wait for the store, beside the one it is writing.
const WAITING_PARTS: usize = 1;
/// Packs of a worker that may still be on their way when it begins the next.
const UNFINISHED_PACKS: usize = 2;

/// The packs a backup refers to, numbered in the order in which they were first needed.
#[derive(Clone, Debug, Default)]
pub struct PackTable {
    shared: Arc<Mutex<Numbering>>,
}

#[derive(Debug, Default)]
struct Numbering {
    packs: Vec<Pack>,
    prior: Vec<Pack>,
    reused: HashMap<u32, u32>,
}

impl PackTable {
    /// A table for a backup that may refer to the packs of another.
    pub fn new(prior: Vec<Pack>) -> Self {
        let numbering = Numbering {
            prior,
            ..Numbering::default()
        };
        Self {
            shared: Arc::new(Mutex::new(numbering)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Numbering> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, pack: Pack) -> u32 {
        self.lock().add(pack)
    }

    /// The number here of the prior backup's pack `number`; `None` when it has no such pack.
    fn reuse(&self, number: u32) -> Option<u32> {
        let mut numbering = self.lock();
        if let Some(known) = numbering.reused.get(&number) {
            return Some(*known);
        }
        let pack = numbering.prior.get(number as usize)?.clone();
        let here = numbering.add(pack);
        numbering.reused.insert(number, here);
        Some(here)
    }

    fn set_size(&self, number: u32, size: u64) {
        if let Some(pack) = self.lock().packs.get_mut(number as usize) {
            pack.size = ByteCount::new(size);
        }
    }

    /// All of them, by number.
    pub fn take(&self) -> Vec<Pack> {
        std::mem::take(&mut self.lock().packs)
    }
}

impl Numbering {
    fn add(&mut self, pack: Pack) -> u32 {
        self.packs.push(pack);
        u32::try_from(self.packs.len() - 1).unwrap_or(u32::MAX)
    }
}

/// Where a backup's packs go.
#[derive(Clone)]
pub struct PackTarget {
    /// The repository.
    pub repository: Repository,
    /// The instance.
    pub instance: InstanceName,
    /// The backup that writes them.
    pub backup: BackupId,
    /// The table they are entered in.
    pub table: PackTable,
    /// Where the sending tasks run.
    pub runtime: Handle,
}

/// Writes one worker's frames. A pack holds one database's files only.
pub struct PackWriter {
    target: PackTarget,
    encoder: FrameEncoder,
    current: Option<Current>,
    unfinished: VecDeque<JoinHandle<Result<(), StoreError>>>,
    stored_bytes: u64,
    last_reused: Option<(u32, u32)>,
}

struct Current {
    database: Option<Oid>,
    number: u32,
    object: ObjectBuilder,
    parts: mpsc::Sender<Message>,
}

enum Message {
    Part(Bytes),
    Last(Bytes),
}

impl PackWriter {
    /// A writer that has no pack open.
    ///
    /// # Errors
    /// When the codec cannot be set up.
    pub fn new(target: PackTarget) -> Result<Self, RepositoryError> {
        let encoder = target.repository.encoder()?;
        Ok(Self {
            target,
            encoder,
            current: None,
            unfinished: VecDeque::new(),
            stored_bytes: 0,
            last_reused: None,
        })
    }

    /// Stores one frame of a file of `database`.
    ///
    /// # Errors
    /// When the store or the codec fails.
    pub fn append(
        &mut self,
        database: Option<Oid>,
        contents: &[u8],
        hash: [u8; 32],
    ) -> Result<StoredFrame, RepositoryError> {
        self.add(database, hash, |object, encoder| {
            object.append(contents, encoder)
        })
    }

    /// Stores a frame of another pack, opened there, without compressing it anew.
    ///
    /// # Errors
    /// When the store or the cipher fails.
    pub fn append_opened(
        &mut self,
        database: Option<Oid>,
        known: &StoredFrame,
        opened: &[u8],
    ) -> Result<StoredFrame, RepositoryError> {
        self.add(database, known.hash, |object, _| {
            object.append_opened(&known.frame, opened)
        })
    }

    fn add(
        &mut self,
        database: Option<Oid>,
        hash: [u8; 32],
        append: impl FnOnce(&mut ObjectBuilder, &mut FrameEncoder) -> Result<FrameRef, FrameError>,
    ) -> Result<StoredFrame, RepositoryError> {
        let full = |current: &Current| current.object.size() >= PACK_BYTES;
        if self
            .current
            .as_ref()
            .is_some_and(|c| c.database != database || full(c))
        {
            self.end_pack()?;
        }
        let current = match &mut self.current {
            Some(current) => current,
            None => {
                let begun = begin(&self.target, database, &mut self.unfinished)?;
                self.current.insert(begun)
            }
        };
        let before = current.object.size();
        let frame = append(&mut current.object, &mut self.encoder)?;
        self.stored_bytes += current.object.size() - before;
        let stored = StoredFrame {
            pack: current.number,
            frame,
            hash,
        };
        while let Some(part) = current.object.take_part() {
            if current.parts.blocking_send(Message::Part(part)).is_err() {
                self.current = None;
                return Err(self.first_failure());
            }
        }
        Ok(stored)
    }

    /// Refers to a frame of the prior backup; `None` when its pack is unknown.
    pub fn reuse(&mut self, known: &StoredFrame) -> Option<StoredFrame> {
        let pack = match self.last_reused {
            Some((prior, here)) if prior == known.pack => here,
            _ => self.target.table.reuse(known.pack)?,
        };
        self.last_reused = Some((known.pack, pack));
        Some(StoredFrame { pack, ..*known })
    }

    /// Bytes stored so far.
    pub fn stored_bytes(&self) -> u64 {
        self.stored_bytes
    }

    fn end_pack(&mut self) -> Result<(), RepositoryError> {
        let Some(current) = self.current.take() else {
            return Ok(());
        };
        let finished = current.object.finish(b"")?;
        self.target.table.set_size(current.number, finished.size);
        if current
            .parts
            .blocking_send(Message::Last(finished.rest))
            .is_err()
        {
            return Err(self.first_failure());
        }
        Ok(())
    }

    /// Ends the last pack and waits until all are stored.
    ///
    /// # Errors
    /// When the store failed.
    pub fn finish(mut self) -> Result<u64, RepositoryError> {
        self.end_pack()?;
        while let Some(task) = self.unfinished.pop_front() {
            wait(&self.target.runtime, task)?;
        }
        Ok(self.stored_bytes)
    }

    /// Why a sending task ended early.
    fn first_failure(&mut self) -> RepositoryError {
        while let Some(task) = self.unfinished.pop_front() {
            if let Err(error) = wait(&self.target.runtime, task) {
                return error;
            }
        }
        gone().into()
    }
}

fn begin(
    target: &PackTarget,
    database: Option<Oid>,
    unfinished: &mut VecDeque<JoinHandle<Result<(), StoreError>>>,
) -> Result<Current, RepositoryError> {
    while unfinished.len() >= UNFINISHED_PACKS {
        if let Some(task) = unfinished.pop_front() {
            wait(&target.runtime, task)?;
        }
    }
    let object = ObjectBuilder::new(ObjectKind::Pack, target.repository.keys())?;
    let identity = object.identity();
    let number = target.table.add(Pack {
        id: identity.id,
        backup: target.backup.clone(),
        data_key: identity.data_key,
        size: ByteCount::new(0),
    });
    let path = layout::pack(&target.instance, &target.backup, identity.id);
    let sink = ObjectSink::new(target.repository.store(), path);
    let (parts, receiver) = mpsc::channel(WAITING_PARTS);
    unfinished.push_back(target.runtime.spawn(send(sink, receiver)));
    Ok(Current {
        database,
        number,
        object,
        parts,
    })
}

async fn send(mut sink: ObjectSink, mut parts: mpsc::Receiver<Message>) -> Result<(), StoreError> {
    while let Some(message) = parts.recv().await {
        match message {
            Message::Part(bytes) => sink.part(bytes).await?,
            Message::Last(bytes) => return sink.finish(bytes).await,
        }
    }
    // The worker gave up.
    sink.abort().await;
    Ok(())
}

fn wait(runtime: &Handle, task: JoinHandle<Result<(), StoreError>>) -> Result<(), RepositoryError> {
    match runtime.block_on(task) {
        Ok(result) => Ok(result?),
        Err(_) => Err(gone().into()),
    }
}

fn gone() -> StoreError {
    StoreError::Missing {
        path: "a pack whose writing was ended early".to_owned(),
    }
}
