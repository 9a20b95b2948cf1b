//! Log on its way to a recovery that shall replay only some databases, or stay inside its directory.
//!
//! Bytes go in as they lie in the log, and come out with the same length; what stays stays in its place. Records
//! that concern only databases that are left out become ones that do nothing (`XLOG_NOOP`), several in a row that
//! begin on one page become one ([`run`]). Transactions, which recovery counts, and links from each record to the
//! one before are kept right, and checksums. Transactions' ends, checkpoints and everything else about the whole
//! cluster stay.
//!
//! Replay of `CREATE TABLESPACE` makes a link to the directory that the statement named, uses what lies
//! there, and fails where there is nothing. Beside a live cluster that is the live tablespace, and the
//! recovering server would write into it, or delete it. So the location is taken out of those records, which
//! makes them ones of a tablespace inside `pg_tblspc` (`create_tablespace_directories` in
//! `src/backend/commands/tablespace.c`, 15 to 18).
//!
//! A filter also tells which relations an init fork is made for ([`WalFilter::take_reset`]): they are unlogged, and
//! recovery fails on other files of theirs.
//!
//! Memory: what the decoder needs, and the pieces over which the record being read reaches.

mod edit;
mod judge;
mod run;

use std::collections::VecDeque;

use crate::{
    Lsn,
    relation::{Fork, RelationId},
};

use super::{
    decoder::{Next, WalDecoder},
    error::WalError,
    record::{Record, RecordHeader},
    resource_manager::ResourceManager,
    segment::SegmentSize,
    storage::StorageRecord,
};

use edit::Edit;
pub use judge::Databases;
use judge::{Verdict, judge};
use run::Run;

/// Bytes decoded before what was found in them is written over them.
const STRIDE_BYTES: usize = 256 << 10;

/// Filters one stretch of log on one line of history.
#[derive(Debug)]
pub struct WalFilter {
    decoder: WalDecoder,
    segment_size: SegmentSize,
    editor: Editor,
    /// Pieces in order, each beginning where the one before ends.
    held: VecDeque<Piece>,
    ended: Ended,
}

/// What becomes of one record after the other.
#[derive(Debug)]
struct Editor {
    databases: Databases,
    /// Where a record may not be joined to those before it.
    stop: Option<Lsn>,
    /// Records that become one, until it is known where they end.
    run: Option<Run>,
    /// The last record: where it began, and where what stands in its place begins.
    last: Option<(Lsn, Lsn)>,
    /// To be written over the log.
    edits: Vec<Edit>,
    /// Relations whose init forks are made in what was decoded and not asked for.
    reset: Vec<RelationId>,
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
            editor: Editor {
                databases,
                stop: None,
                run: None,
                last: None,
                edits: Vec::new(),
                reset: Vec::new(),
                counts: FilterCounts::default(),
            },
            held: VecDeque::new(),
            ended: Ended::No,
        }
    }

    /// Has a record that begins at `stop` begin there still, whatever it concerns: recovery stops behind the first
    /// record that does not begin before its target, and log may be cut there.
    #[must_use]
    pub fn stopping_at(mut self, stop: Lsn) -> Self {
        self.editor.stop = Some(stop);
        self
    }

    /// What was done so far.
    pub fn counts(&self) -> FilterCounts {
        self.editor.counts
    }

    /// Relations for which an init fork is made in the bytes pushed since this was asked last, of the databases that
    /// stay. Those in the bytes that [`WalFilter::pop`] gives are among them, and some of later ones.
    pub fn take_reset(&mut self) -> Vec<RelationId> {
        std::mem::take(&mut self.editor.reset)
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
            if self.ended == Ended::Yes {
                self.editor.end_run();
            }
            self.apply();
            at = upto.max(self.decoder.wanted());
        }
        Ok(())
    }

    fn apply(&mut self) {
        for edit in self.editor.edits.drain(..) {
            edit.apply(self.segment_size, self.held.make_contiguous());
        }
    }

    /// Bytes that nothing that follows can change any more.
    pub fn pop(&mut self) -> Option<Piece> {
        let whole = match self.ended {
            Ended::Yes => Lsn::MAX,
            Ended::No => {
                let boundary = self.decoder.boundary()?;
                let run = self.editor.run;
                run.map_or(boundary, |run| run.start().min(boundary))
            }
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
        self.editor.end_run();
        self.apply();
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
                Next::Record(record) => self.editor.take(&record),
                Next::NeedBytes => return Ok(()),
                Next::End(_) => {
                    self.ended = Ended::Yes;
                    return Ok(());
                }
            }
        }
    }
}

impl Editor {
    fn take(&mut self, record: &Record<'_>) {
        self.counts.records += 1;
        let (start, header) = (record.start(), record.header());
        let previous = match self.last {
            Some((before, instead)) if before == header.previous => instead,
            _ => header.previous,
        };
        let verdict = match judge(record, &self.databases) {
            Verdict::Neutralise if !Edit::can_do_nothing(header.total_len) => Verdict::KeepUnsure,
            verdict => verdict,
        };
        if verdict == Verdict::Neutralise {
            self.counts.neutralised += 1;
            let begins = self.take_out(start, &header, previous);
            self.last = Some((start, begins));
            return;
        }
        self.last = Some((start, start));
        self.end_run();
        self.reset.extend(relation_reset(record));
        match verdict {
            Verdict::MakeTablespaceInside { location } => {
                self.counts.tablespaces += 1;
                let edit = Edit::without_main_data(record, location, previous);
                self.edits.push(edit);
                return;
            }
            Verdict::KeepUnsure => self.counts.unsure += 1,
            Verdict::Keep | Verdict::Neutralise => {}
        }
        if previous != header.previous {
            self.edits.push(Edit::link(record, previous));
        }
    }

    /// Returns where what stands in its place begins.
    fn take_out(&mut self, start: Lsn, header: &RecordHeader, previous: Lsn) -> Lsn {
        if let Some(run) = &mut self.run
            && self.stop != Some(start)
            && run.take(start, header)
        {
            return run.start();
        }
        self.end_run();
        self.run = Some(Run::new(start, header, previous));
        start
    }

    /// No more records are joined to the last ones.
    fn end_run(&mut self) {
        self.edits
            .extend(self.run.take().and_then(|run| run.edit()));
    }
}

/// The relation whose init fork a record makes. One that says too little is left to replay to complain of.
fn relation_reset(record: &Record<'_>) -> Option<RelationId> {
    if record.resource_manager() != ResourceManager::STORAGE {
        return None;
    }
    match StorageRecord::parse(record) {
        Ok(StorageRecord::Create {
            relation,
            fork: Fork::Init,
        }) => Some(relation),
        _ => None,
    }
}
