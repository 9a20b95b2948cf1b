//! Log as recovery is given it: filtered, a segment at a time.
//!
//! Every restore has the locations taken out of records of `CREATE TABLESPACE`: for a tablespace that the
//! backup knows, the link or directory that the restore made is there already, and stays; a later one lies
//! inside `pg_tblspc`. A restore of one database has the changes of the others taken out as well. See
//! [`everpoint_pgformat::wal::filter`].

use std::collections::VecDeque;

use everpoint_pgformat::{
    Lsn,
    wal::{
        decoder::WalDecoder,
        filter::{Databases, FilterCounts, Piece, WalFilter},
        segment::{SegmentName, SegmentSize},
    },
};

use everpoint_repository::backup::Backup;

use super::{RestoreError, target::TargetError};
use crate::log::reader::{Segment, SegmentReader};

/// Segments for recovery, in order.
pub struct ReplayableLog {
    reader: SegmentReader,
    filter: WalFilter,
    segment_size: SegmentSize,
    /// Names of the segments that the filter holds.
    names: VecDeque<SegmentName>,
    next_start: Lsn,
}

impl ReplayableLog {
    /// The log that `reader` brings for a backup, as far as it concerns `databases`.
    pub fn new(reader: SegmentReader, backup: &Backup, databases: Databases) -> Self {
        let (version, segment_size) = (backup.version, backup.segment_size);
        let decoder = WalDecoder::new(version, segment_size, backup.start_lsn);
        Self {
            reader,
            filter: WalFilter::new(decoder, segment_size, databases),
            segment_size,
            names: VecDeque::new(),
            next_start: segment_size.floor(backup.start_lsn),
        }
    }

    /// What the filter did so far.
    pub fn counts(&self) -> FilterCounts {
        self.filter.counts()
    }

    /// The next segment; `None` behind the last.
    ///
    /// # Errors
    /// When log is missing, damaged or cannot be decoded.
    pub async fn next(&mut self) -> Result<Option<Segment>, RestoreError> {
        loop {
            if let Some(piece) = self.filter.pop() {
                return Ok(self.named(piece));
            }
            let Some(segment) = self.reader.next().await? else {
                let last = self.filter.finish();
                return Ok(last.and_then(|piece| self.named(piece)));
            };
            let start = self.next_start;
            self.next_start = start.advance(self.segment_size.bytes());
            self.names.push_back(segment.name);
            let bytes = segment.bytes;
            self.filter
                .push(Piece { start, bytes })
                .map_err(TargetError::from)?;
        }
    }

    fn named(&mut self, piece: Piece) -> Option<Segment> {
        let name = self.names.pop_front()?;
        let bytes = piece.bytes;
        Some(Segment { name, bytes })
    }
}
