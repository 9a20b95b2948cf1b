//! One log backup being made: write-ahead log goes in, a stored object comes out.

use everpoint_pgformat::{Lsn, SystemIdentifier, TimelineId, wal::segment::SegmentSize};
use everpoint_repository::{
    InstanceName, Repository, RepositoryError,
    frame::FrameEncoder,
    layout,
    log::LogMetadata,
    object::{ObjectBuilder, ObjectKind},
};
use jiff::Timestamp;

/// Contents of a frame of a log backup.
pub const LOG_FRAME_BYTES: usize = 1 << 20;

/// What all log backups of a stream have in common.
#[derive(Clone, Debug)]
pub struct LogContext {
    /// The repository.
    pub repository: Repository,
    /// The instance.
    pub instance: InstanceName,
    /// The cluster.
    pub system_identifier: SystemIdentifier,
    /// The size of WAL segments.
    pub segment_size: SegmentSize,
}

/// A log backup that is being made. What it holds lies in memory, compressed, until it is stored.
pub struct LogCut {
    context: LogContext,
    encoder: FrameEncoder,
    object: ObjectBuilder,
    hasher: blake3::Hasher,
    pending: Vec<u8>,
    timeline: TimelineId,
    start: Lsn,
    end: Lsn,
    first_sent_at: Option<Timestamp>,
    complete_at: Option<Timestamp>,
}

impl LogCut {
    /// Begins one at `start`, where log ended that is known to be complete up to `complete_at`.
    ///
    /// # Errors
    /// When the codec cannot be set up.
    pub fn new(
        context: LogContext,
        timeline: TimelineId,
        start: Lsn,
        complete_at: Option<Timestamp>,
    ) -> Result<Self, RepositoryError> {
        let object = ObjectBuilder::new(ObjectKind::Log, context.repository.keys())?;
        let encoder = context.repository.encoder()?;
        Ok(Self {
            context,
            encoder,
            object,
            hasher: blake3::Hasher::new(),
            pending: Vec::with_capacity(LOG_FRAME_BYTES),
            timeline,
            start,
            end: start,
            first_sent_at: None,
            complete_at,
        })
    }

    /// Adds the next bytes.
    ///
    /// # Errors
    /// When the codec fails.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), RepositoryError> {
        self.hasher.update(bytes);
        self.end = self.end.advance(bytes.len() as u64);
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = LOG_FRAME_BYTES - self.pending.len();
            let (now, later) = rest.split_at(room.min(rest.len()));
            self.pending.extend_from_slice(now);
            rest = later;
            if self.pending.len() == LOG_FRAME_BYTES {
                self.object.append(&self.pending, &mut self.encoder)?;
                self.pending.clear();
            }
        }
        Ok(())
    }

    /// The server sent bytes at this moment of its clock.
    pub fn sent_at(&mut self, time: Timestamp) {
        self.first_sent_at.get_or_insert(time);
    }

    /// Everything that was committed by this moment of the server's clock is in here or before.
    pub fn complete_at(&mut self, time: Timestamp) {
        self.complete_at = Some(time);
    }

    /// The last moment given to [`LogCut::complete_at`].
    pub fn known_complete_at(&self) -> Option<Timestamp> {
        self.complete_at
    }

    /// The timeline.
    pub fn timeline(&self) -> TimelineId {
        self.timeline
    }

    /// The position behind the last byte.
    pub fn end(&self) -> Lsn {
        self.end
    }

    /// Bytes of log in it.
    pub fn len(&self) -> u64 {
        self.end.bytes_since(self.start)
    }

    /// Whether there is nothing in it yet.
    pub fn is_empty(&self) -> bool {
        self.end == self.start
    }

    /// Stores it.
    ///
    /// # Errors
    /// When the store or the codec fails.
    pub async fn store(mut self) -> Result<StoredLog, RepositoryError> {
        if !self.pending.is_empty() {
            self.object.append(&self.pending, &mut self.encoder)?;
        }
        let metadata = LogMetadata {
            system_identifier: self.context.system_identifier,
            timeline: self.timeline,
            start: self.start,
            end: self.end,
            segment_size: self.context.segment_size,
            first_sent_at: self.first_sent_at,
            complete_at: self.complete_at,
            hash: self.hasher.finalize().to_hex().to_string(),
        };
        let text = serde_json::to_vec(&metadata).unwrap_or_default();
        let finished = self.object.finish(&text)?;
        let id = finished.identity.id;
        let path = layout::log(
            &self.context.instance,
            self.timeline,
            self.start,
            self.end,
            id,
        );
        self.context
            .repository
            .store()
            .put_new(&path, finished.rest)
            .await?;
        Ok(StoredLog {
            timeline: self.timeline,
            start: self.start,
            end: self.end,
            stored_bytes: finished.size,
        })
    }
}

/// A log backup that is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredLog {
    /// Its timeline.
    pub timeline: TimelineId,
    /// First position, inclusive.
    pub start: Lsn,
    /// Last position, exclusive.
    pub end: Lsn,
    /// Bytes it takes.
    pub stored_bytes: u64,
}
