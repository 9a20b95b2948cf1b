//! Write-ahead log read back from log backups, in order, at any position.

use std::collections::VecDeque;

use everpoint_pgformat::{
    Lsn, TimelineId,
    timeline::TimelineHistory,
    wal::segment::{SegmentName, SegmentSize},
};
use everpoint_repository::{
    Repository, RepositoryError,
    frame::FrameDecoder,
    log::{LogIndex, LogPiece},
    object::{ObjectError, ObjectKind, SealedObject},
};

/// Reads the log of a list of pieces that follow each other. One frame is in memory at a time.
pub struct LogReader {
    repository: Repository,
    decoder: FrameDecoder,
    pieces: VecDeque<LogPiece>,
    open: Option<OpenPiece>,
    at: Lsn,
}

struct OpenPiece {
    object: SealedObject,
    next_frame: usize,
    /// Position of the first byte of the next frame.
    frame_start: Lsn,
}

impl LogReader {
    /// Begins where the first piece does.
    ///
    /// # Errors
    /// When the codec cannot be set up.
    pub fn new(repository: Repository, pieces: Vec<LogPiece>) -> Result<Self, RepositoryError> {
        let at = pieces.first().map_or(Lsn::INVALID, |piece| piece.from);
        let decoder = FrameDecoder::new()?;
        Ok(Self {
            repository,
            decoder,
            pieces: pieces.into(),
            open: None,
            at,
        })
    }

    /// The next bytes and their position; `None` behind the last.
    ///
    /// # Errors
    /// When a log backup is missing or damaged.
    pub async fn next(&mut self) -> Result<Option<(Lsn, Vec<u8>)>, RepositoryError> {
        loop {
            let Some(piece) = self.pieces.front() else {
                return Ok(None);
            };
            if self.at >= piece.to {
                self.pieces.pop_front();
                self.open = None;
                continue;
            }
            let (path, id, to) = (&piece.stretch.path, piece.stretch.id, piece.to);
            let open = match &mut self.open {
                Some(open) => open,
                None => {
                    let (store, keys) = (self.repository.store(), self.repository.keys());
                    let object = SealedObject::open(store, keys, path, ObjectKind::Log, id).await?;
                    let frame_start = piece.stretch.start;
                    self.open.insert(OpenPiece {
                        object,
                        next_frame: 0,
                        frame_start,
                    })
                }
            };
            let Some(frame) = open.object.frames().get(open.next_frame).copied() else {
                let what = "it holds less log than its name says";
                return Err(ObjectError::Damaged {
                    path: path.clone(),
                    what,
                }
                .into());
            };
            open.next_frame += 1;
            let start = open.frame_start;
            let end = start.advance(u64::from(frame.raw));
            open.frame_start = end;
            if end <= self.at {
                continue;
            }
            let store = self.repository.store();
            let mut bytes = open.object.read(store, &frame, &mut self.decoder).await?;
            let keep = usize::try_from(to.min(end).bytes_since(start)).unwrap_or(usize::MAX);
            bytes.truncate(keep);
            let skip = usize::try_from(self.at.bytes_since(start)).unwrap_or(usize::MAX);
            bytes.drain(..skip.min(bytes.len()));
            let at = self.at;
            self.at = at.advance(bytes.len() as u64);
            return Ok(Some((at, bytes)));
        }
    }
}

/// Log that is needed cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LogPlanError {
    /// It is not in the repository.
    #[error("write-ahead log from {from} on, towards {to}, is not stored for timeline {timeline}")]
    NotStored {
        /// The first position that is missing.
        from: Lsn,
        /// Up to where it is needed.
        to: Lsn,
        /// The timeline in whose history it is needed.
        timeline: TimelineId,
    },
    /// The repository cannot be read.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
}

/// Builds whole segment files for recovery, in order.
pub struct SegmentReader {
    reader: LogReader,
    history: TimelineHistory,
    segment_size: SegmentSize,
    next_segment: u64,
    to: Lsn,
    rest: Vec<u8>,
}

/// A segment file for recovery.
#[derive(Debug)]
pub struct Segment {
    /// Its name: that of the timeline which its last position lies on, as recovery looks for the newest first.
    pub name: SegmentName,
    /// Its bytes; behind the end of what is stored there are zeros.
    pub bytes: Vec<u8>,
}

impl SegmentReader {
    /// For the segments that hold `from` (inclusive) to `to` (exclusive) in the history of `timeline`.
    ///
    /// # Errors
    /// [`LogPlanError::NotStored`] when some of it is not stored.
    pub fn plan(
        repository: &Repository,
        index: &LogIndex,
        timeline: TimelineId,
        segment_size: SegmentSize,
        from: Lsn,
        to: Lsn,
    ) -> Result<Self, LogPlanError> {
        // Recovery reads a segment from its first page on, so that is taken along where it is stored.
        let first = segment_size.floor(from);
        let pieces = index
            .pieces(timeline, first, to)
            .or_else(|_| index.pieces(timeline, from, to))
            .map_err(|from| LogPlanError::NotStored { from, to, timeline })?;
        Ok(Self {
            reader: LogReader::new(repository.clone(), pieces)?,
            history: index.history(timeline),
            segment_size,
            next_segment: segment_size.segment_of(from),
            to,
            rest: Vec::new(),
        })
    }

    /// The next segment; `None` behind the last.
    ///
    /// # Errors
    /// When a log backup is missing or damaged.
    pub async fn next(&mut self) -> Result<Option<Segment>, RepositoryError> {
        let start = self.segment_size.start_of(self.next_segment);
        if start >= self.to {
            return Ok(None);
        }
        let end = start.advance(self.segment_size.bytes());
        let size = usize::try_from(self.segment_size.bytes()).unwrap_or(usize::MAX);
        let mut bytes = Vec::with_capacity(size);
        bytes.append(&mut self.rest);
        while bytes.len() < size {
            let Some((at, mut more)) = self.reader.next().await? else {
                break;
            };
            let place = usize::try_from(at.bytes_since(start)).unwrap_or(usize::MAX);
            if place < size {
                // Only before the first stored byte of the first segment can there be a hole.
                bytes.resize(place, 0);
            }
            bytes.append(&mut more);
        }
        if bytes.len() > size {
            self.rest = bytes.split_off(size);
        }
        bytes.resize(size, 0);
        let last = Lsn::new(end.min(self.to).get() - 1);
        let timeline = self.history.timeline_at(last);
        let name = SegmentName::new(timeline, self.next_segment, self.segment_size);
        self.next_segment += 1;
        Ok(Some(Segment { name, bytes }))
    }
}
