//! Log made harmless before recovery sees it: tablespaces that were made after the backup.
//!
//! Replay of `CREATE TABLESPACE` makes a link to the directory that the statement named, uses what lies
//! there, and fails where there is nothing. Beside a live cluster that is the live tablespace, and the
//! restored server would write into it. So the name is taken out of the record, which makes it one of a
//! tablespace inside `pg_tblspc` (`create_tablespace_directories` in
//! `src/backend/commands/tablespace.c`, 15 to 18). The record keeps its length; its checksum is made anew.
//!
//! For a tablespace that the backup knows, the link that the restore made is there already, and stays.

use everpoint_pgformat::{
    Lsn,
    wal::{
        decoder::{Next, WalDecoder},
        page::{LONG_HEADER_SIZE, SHORT_HEADER_SIZE, WAL_PAGE_SIZE},
        record::{Record, record_crc},
        resource_manager::ResourceManager,
        segment::SegmentSize,
        tablespace::TablespaceRecord,
    },
};

use super::{RestoreError, RestorePlan, target::TargetError};
use crate::log::reader::{Segment, SegmentReader};

/// Where a record's checksum lies in it (`xl_crc` of `XLogRecord`).
const CRC: std::ops::Range<usize> = 20..24;
/// Where the location lies in the main data: behind the tablespace's OID.
const LOCATION_OFFSET: usize = 4;

/// Segments for recovery, in order, with harmless tablespaces.
pub struct ReplayableLog {
    reader: SegmentReader,
    decoder: WalDecoder,
    segment_size: SegmentSize,
    /// A record may go on in the next segment, so a segment is held until that has been seen.
    held: Option<Piece>,
    ended: bool,
    in_place: u32,
}

/// A segment and where it begins.
struct Piece {
    start: Lsn,
    segment: Segment,
}

/// Bytes to be put in the place of a record.
struct Patch {
    start: Lsn,
    record: Vec<u8>,
}

impl ReplayableLog {
    /// The log that `reader` brings for a plan.
    pub fn new(reader: SegmentReader, plan: &RestorePlan) -> Self {
        let backup = &plan.resolved.backup;
        let (version, segment_size) = (backup.version, backup.segment_size);
        Self {
            reader,
            decoder: WalDecoder::new(version, segment_size, backup.start_lsn),
            segment_size,
            held: None,
            ended: false,
            in_place: 0,
        }
    }

    /// How many tablespaces there were in the log so far, all of them inside `pg_tblspc` now.
    pub fn tablespaces(&self) -> u32 {
        self.in_place
    }

    /// The next segment; `None` behind the last.
    ///
    /// # Errors
    /// When log is missing, damaged or cannot be decoded.
    pub async fn next(&mut self) -> Result<Option<Segment>, RestoreError> {
        loop {
            let Some(segment) = self.reader.next().await.map_err(RestoreError::Repository)? else {
                return Ok(self.held.take().map(|piece| piece.segment));
            };
            let start = match &self.held {
                Some(held) => held.start.advance(self.segment_size.bytes()),
                None => self.segment_size.floor(self.decoder.position()),
            };
            let mut piece = Piece { start, segment };
            for patch in self.find(&piece)? {
                self.apply(&patch, &mut piece);
            }
            if let Some(held) = self.held.replace(piece) {
                return Ok(Some(held.segment));
            }
        }
    }

    /// Decodes a segment and makes the records anew that would reach out of the data directory.
    fn find(&mut self, piece: &Piece) -> Result<Vec<Patch>, RestoreError> {
        let mut patches = Vec::new();
        if self.ended {
            return Ok(patches);
        }
        let from = self.decoder.wanted().max(piece.start);
        let skip = usize::try_from(from.bytes_since(piece.start)).unwrap_or(usize::MAX);
        let bytes = piece.segment.bytes.get(skip..).unwrap_or_default();
        let mut chunk = self.decoder.feed(from, bytes);
        loop {
            match chunk.next().map_err(TargetError::from)? {
                Next::Record(record) => {
                    if record.resource_manager() == ResourceManager::TABLESPACE
                        && let Ok(TablespaceRecord::Create { location, .. }) =
                            TablespaceRecord::parse(&record)
                    {
                        self.in_place += 1;
                        if !location.is_empty() {
                            patches.push(in_place(&record));
                        }
                    }
                }
                Next::NeedBytes => return Ok(patches),
                // Zeros behind the last record.
                Next::End(_) => {
                    self.ended = true;
                    return Ok(patches);
                }
            }
        }
    }

    fn apply(&mut self, patch: &Patch, current: &mut Piece) {
        let mut at = patch.start;
        for byte in &patch.record {
            if at.get().is_multiple_of(WAL_PAGE_SIZE as u64) {
                let header = match at == self.segment_size.floor(at) {
                    true => LONG_HEADER_SIZE,
                    false => SHORT_HEADER_SIZE,
                };
                at = at.advance(header as u64);
            }
            let piece = match &mut self.held {
                Some(held) if at < current.start => held,
                _ => &mut *current,
            };
            let offset = usize::try_from(at.bytes_since(piece.start)).unwrap_or(usize::MAX);
            if let Some(place) = piece.segment.bytes.get_mut(offset) {
                *place = *byte;
            }
            at = at.advance(1);
        }
    }
}

/// The record of a tablespace made inside `pg_tblspc`, as long as this one.
fn in_place(record: &Record<'_>) -> Patch {
    let mut bytes = record.bytes().to_vec();
    let location = bytes.len() - record.main_data().len() + LOCATION_OFFSET;
    if let Some(location) = bytes.get_mut(location..) {
        location.fill(0);
    }
    let crc = record_crc(&bytes).to_le_bytes();
    if let Some(place) = bytes.get_mut(CRC) {
        place.copy_from_slice(&crc);
    }
    Patch {
        start: record.start(),
        record: bytes,
    }
}
