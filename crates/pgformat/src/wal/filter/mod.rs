//! Log on its way to a recovery that shall replay only some databases, or stay inside its directory.
//!
//! Bytes go in as they lie in the log, and come out with the same length and the same positions. A record
//! that concerns only databases that are left out becomes one that does nothing (`XLOG_NOOP`): its length,
//! its transaction, which recovery counts, and its link to the record before stay, its checksum is made
//! anew. Transactions' ends, checkpoints and everything else about the whole cluster stay.
//!
//! Replay of `CREATE TABLESPACE` makes a link to the directory that the statement named, uses what lies
//! there, and fails where there is nothing. Beside a live cluster that is the live tablespace, and the
//! recovering server would write into it, or delete it. So the location is taken out of those records, which
//! makes them ones of a tablespace inside `pg_tblspc` (`create_tablespace_directories` in
//! `src/backend/commands/tablespace.c`, 15 to 18).
//!
//! Memory: what the decoder needs, and the pieces over which the record being read reaches.

mod edit;
mod judge;

use std::collections::VecDeque;

use crate::Lsn;

use super::{
    decoder::{Next, WalDecoder},
    error::WalError,
    segment::SegmentSize,
};

use edit::Edit;
pub use judge::Databases;
use judge::{Verdict, judge};

/// Bytes decoded before what was found in them is written over them.
const STRIDE_BYTES: usize = 256 << 10;

/// Filters one stretch of log on one line of history.
#[derive(Debug)]
pub struct WalFilter {
    decoder: WalDecoder,
    segment_size: SegmentSize,
    databases: Databases,
    /// Pieces in order, each beginning where the one before ends.
    held: VecDeque<Piece>,
    edits: Vec<Edit>,
    ended: Ended,
    counts: FilterCounts,
}

/// Consecutive bytes of log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Where they begin.
    pub start: Lsn,
    /// They themselves.
    pub bytes: Vec<u8>,
}

impl Piece {
    fn end(&self) -> Lsn {
        let len = u64::try_from(self.bytes.len()).unwrap_or(u64::MAX);
        self.start.advance(len)
    }
}

/// What a filter did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FilterCounts {
    /// Records decoded.
    pub records: u64,
    /// Of those, made to do nothing.
    pub neutralised: u64,
    /// Of those, kept although it is not clear that they concern only databases that are kept.
    pub unsure: u64,
    /// Records that make tablespaces, all of them inside `pg_tblspc` now.
    pub tablespaces: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    No,
    /// What follows was never written as log.
    Yes,
}

impl WalFilter {
    /// Filters what `decoder` decodes. What lies before its start passes unchanged.
    pub fn new(decoder: WalDecoder, segment_size: SegmentSize, databases: Databases) -> Self {
        Self {
            decoder,
            segment_size,
            databases,
            held: VecDeque::new(),
            edits: Vec::new(),
            ended: Ended::No,
            counts: FilterCounts::default(),
        }
    }

    /// What was done so far.
    pub fn counts(&self) -> FilterCounts {
        self.counts
    }

    /// Takes the next bytes, which begin where those before end.
    ///
    /// # Errors
    /// When they do not, or the log in them is damaged.
    pub fn push(&mut self, piece: Piece) -> Result<(), WalError> {
        let from = self.decoder.wanted().max(piece.start);
        let end = piece.end();
        self.held.push_back(piece);
        let mut at = from;
        while at < end && self.ended == Ended::No {
            let upto = at.advance(STRIDE_BYTES as u64).min(end);
            self.find(at, upto)?;
            for edit in self.edits.drain(..) {
                edit.apply(self.segment_size, self.held.make_contiguous());
            }
            at = upto.max(self.decoder.wanted());
        }
        Ok(())
    }

    /// Bytes that nothing that follows can change any more.
    pub fn pop(&mut self) -> Option<Piece> {
        let whole = match self.ended {
            Ended::Yes => Lsn::MAX,
            Ended::No => self.decoder.boundary()?,
        };
        let first = self.held.front()?;
        if first.end() <= whole {
            self.held.pop_front()
        } else {
            None
        }
    }

    /// The bytes that are left when no more follow. A record begun in them stays as it is: it cannot be
    /// replayed.
    pub fn finish(&mut self) -> Option<Piece> {
        self.held.pop_front()
    }

    /// Decodes what the last piece holds from `at` to `upto`, and notes what is to be written over it.
    fn find(&mut self, at: Lsn, upto: Lsn) -> Result<(), WalError> {
        let Some(piece) = self.held.back() else {
            return Ok(());
        };
        let offset = |lsn: Lsn| usize::try_from(lsn.bytes_since(piece.start)).unwrap_or(usize::MAX);
        let bytes = piece
            .bytes
            .get(offset(at)..offset(upto))
            .unwrap_or_default();
        let mut chunk = self.decoder.feed(at, bytes);
        loop {
            match chunk.next()? {
                Next::Record(record) => {
                    self.counts.records += 1;
                    match judge(&record, &self.databases) {
                        Verdict::Keep => {}
                        Verdict::KeepUnsure => self.counts.unsure += 1,
                        Verdict::Neutralise => {
                            match Edit::does_nothing(record.start(), &record.header()) {
                                Some(edit) => {
                                    self.counts.neutralised += 1;
                                    self.edits.push(edit);
                                }
                                None => self.counts.unsure += 1,
                            }
                        }
                        Verdict::MakeTablespaceInside { location } => {
                            self.counts.tablespaces += 1;
                            self.edits.push(Edit::without_main_data(&record, location));
                        }
                    }
                }
                Next::NeedBytes => return Ok(()),
                Next::End(_) => {
                    self.ended = Ended::Yes;
                    return Ok(());
                }
            }
        }
    }
}
