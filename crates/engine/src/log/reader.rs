//! Write-ahead log read back from log backups, in order, at any position.

use std::collections::VecDeque;

use everpoint_pgformat::{
    Lsn, TimelineId,
    timeline::TimelineHistory,
    wal::{
        page::{PageExpectation, WAL_PAGE_SIZE},
        segment::{SegmentName, SegmentSize},
    },
};
use everpoint_repository::{
    Repository, RepositoryError,
    backup::Backup,
    frame::{FrameDecoder, FrameRef},
    log::{LogIndex, LogMetadata, LogPiece},
    object::{ObjectError, ObjectKind, SealedObject},
};

/// Stored bytes that are fetched by one request at the most. A reader begins with one frame, and doubles what it
/// asks for while it goes on.
const MAX_FETCH_BYTES: u64 = 4 << 20;

/// Reads the log of a list of pieces that follow each other. What one request brought is in memory at a time.
pub struct LogReader {
    repository: Repository,
    decoder: FrameDecoder,
    pieces: VecDeque<LogPiece>,
    open: Option<OpenPiece>,
    at: Lsn,
    /// How many stored bytes the next request may bring.
    fetch_bytes: u64,
}

struct OpenPiece {
    object: SealedObject,
    next_frame: usize,
    /// Position of the first byte of the next frame.
    frame_start: Lsn,
    ahead: Ahead,
}

/// Stored frames that were fetched together.
#[derive(Default)]
struct Ahead {
    bytes: Vec<u8>,
    /// Where the first byte lies in the object.
    offset: u64,
}

impl Ahead {
    fn stored(&mut self, frame: &FrameRef) -> Option<&mut [u8]> {
        let from = usize::try_from(frame.offset.checked_sub(self.offset)?).ok()?;
        let end = from.checked_add(usize::try_from(frame.stored).ok()?)?;
        self.bytes.get_mut(from..end)
    }
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
            fetch_bytes: 0,
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
                    let metadata: Option<LogMetadata> =
                        serde_json::from_slice(object.metadata()).ok();
                    if !metadata.is_some_and(|metadata| metadata.is_of(&piece.stretch)) {
                        let what = "it holds other log than its name says";
                        return Err(ObjectError::Damaged {
                            path: path.clone(),
                            what,
                        }
                        .into());
                    }
                    let frame_start = piece.stretch.start;
                    self.open.insert(OpenPiece {
                        object,
                        next_frame: 0,
                        frame_start,
                        ahead: Ahead::default(),
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
            if open.ahead.stored(&frame).is_none() {
                let rest = open.object.frames().get(open.next_frame - 1..);
                let wanted = to.bytes_since(start);
                let frames = together(rest.unwrap_or_default(), wanted, self.fetch_bytes);
                let store = self.repository.store();
                open.ahead = Ahead {
                    bytes: open.object.fetch(store, frames).await?,
                    offset: frame.offset,
                };
                let brought = open.ahead.bytes.len() as u64;
                self.fetch_bytes = (brought.max(self.fetch_bytes) * 2).min(MAX_FETCH_BYTES);
            }
            let stored = open.ahead.stored(&frame).unwrap_or_default();
            let mut bytes = open.object.decode(&frame, stored, &mut self.decoder)?;
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

/// The first of the frames, and as many behind it as are needed for `wanted` bytes of log and have no more than `most`
/// bytes stored together.
fn together(frames: &[FrameRef], wanted: u64, most: u64) -> &[FrameRef] {
    let (mut stored, mut raw) = (0, 0);
    let fits = |frame: &&FrameRef| {
        stored += u64::from(frame.stored);
        let fits = stored <= most && raw < wanted;
        raw += u64::from(frame.raw);
        fits
    };
    let count = frames.iter().take_while(fits).count().max(1);
    frames.get(..count).unwrap_or(frames)
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

/// Bytes of a segment file that come at once. Segments of every size are multiples of it.
pub const PART_BYTES: u64 = 1 << 20;

/// Brings segment files for recovery, in order, [`PART_BYTES`] at a time.
pub struct SegmentReader {
    reader: LogReader,
    names: SegmentNames,
    /// Headers of pages before the log begins, where their segment's beginning is not stored.
    headers: Vec<(Lsn, Vec<u8>)>,
    at: Lsn,
    /// What was read and not given yet, and where it lies.
    rest: Vec<u8>,
    rest_at: Lsn,
}

/// How the segment files of a stretch of history are called.
#[derive(Clone, Debug)]
pub struct SegmentNames {
    history: TimelineHistory,
    segment_size: SegmentSize,
    to: Lsn,
}

impl SegmentNames {
    /// The file that holds a position: named by the timeline which its last position lies on, as recovery looks for
    /// the newest first.
    pub fn name(&self, at: Lsn) -> SegmentName {
        let segment = self.segment_size.segment_of(at);
        let end = self.segment_size.start_of(segment + 1).min(self.to);
        let last = Lsn::new(end.get().saturating_sub(1));
        SegmentName::new(self.history.timeline_at(last), segment, self.segment_size)
    }
}

impl SegmentReader {
    /// For the segments that hold the log from a backup's start to `to` (exclusive) in the history of `timeline`.
    ///
    /// # Errors
    /// [`LogPlanError::NotStored`] when some of it is not stored.
    pub fn plan(
        repository: &Repository,
        index: &LogIndex,
        timeline: TimelineId,
        backup: &Backup,
        to: Lsn,
    ) -> Result<Self, LogPlanError> {
        let (segment_size, from) = (backup.segment_size, backup.start_lsn);
        let history = index.history(timeline);
        // Recovery reads a segment from its first page on, so that is taken along where it is stored. Of what lies
        // before the backup's start it looks at headers alone: that page's, and that of the page of the start.
        let first = segment_size.floor(from);
        let (pieces, headers) = match index.pieces(timeline, first, to) {
            Ok(pieces) => (pieces, Vec::new()),
            Err(_) => {
                let page = Lsn::new(from.get() - from.get() % WAL_PAGE_SIZE as u64);
                let header = |address| {
                    let expected = PageExpectation {
                        version: backup.version,
                        segment_size,
                        address,
                        system_identifier: Some(backup.system_identifier),
                        timeline: Some(history.timeline_at(address)),
                    };
                    Some((address, expected.header()?))
                };
                let headers = [first, page].into_iter().filter_map(header).collect();
                let pieces = index.pieces(timeline, from, to);
                let pieces =
                    pieces.map_err(|from| LogPlanError::NotStored { from, to, timeline })?;
                (pieces, headers)
            }
        };
        Ok(Self {
            reader: LogReader::new(repository.clone(), pieces)?,
            names: SegmentNames {
                history,
                segment_size,
                to,
            },
            headers,
            at: first,
            rest: Vec::new(),
            rest_at: first,
        })
    }

    /// How the files are called.
    pub fn names(&self) -> &SegmentNames {
        &self.names
    }

    /// The next bytes of segment files, and where they lie; `None` behind the last file. Behind the end of what is
    /// stored there are zeros.
    ///
    /// # Errors
    /// When a log backup is missing or damaged.
    pub async fn next(&mut self) -> Result<Option<(Lsn, Vec<u8>)>, RepositoryError> {
        let start = self.at;
        if start >= self.names.segment_size.ceil(self.names.to) {
            return Ok(None);
        }
        let size = usize::try_from(PART_BYTES).unwrap_or(usize::MAX);
        let mut bytes = Vec::with_capacity(size);
        while bytes.len() < size {
            if self.rest.is_empty() {
                let Some((at, more)) = self.reader.next().await? else {
                    break;
                };
                (self.rest_at, self.rest) = (at, more);
            }
            let place = usize::try_from(self.rest_at.bytes_since(start)).unwrap_or(usize::MAX);
            if place >= size {
                break;
            }
            // Only before the first stored byte of the first segment can there be a hole.
            bytes.resize(place.max(bytes.len()), 0);
            let taken = self.rest.len().min(size - bytes.len());
            let behind = self.rest.split_off(taken);
            bytes.append(&mut self.rest);
            self.rest = behind;
            self.rest_at = self.rest_at.advance(taken as u64);
        }
        bytes.resize(size, 0);
        for (at, header) in &self.headers {
            let place = at.get().checked_sub(start.get());
            let place = place.and_then(|place| usize::try_from(place).ok());
            if let Some(place) = place
                && let Some(to) = bytes.get_mut(place..place + header.len())
            {
                to.copy_from_slice(header);
            }
        }
        self.at = start.advance(PART_BYTES);
        Ok(Some((start, bytes)))
    }
}
