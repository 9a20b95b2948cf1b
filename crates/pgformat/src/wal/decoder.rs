//! Turns a stream of WAL bytes, cut anywhere, into records.
//!
//! The rules are those of `src/backend/access/transam/xlogreader.c` (`XLogDecodeNextRecord`,
//! `XLogFindNextRecord`): every page header, record header, link to the record before and checksum is
//! checked. A record that lies whole in one page of the bytes given is not copied; others are put together in a
//! buffer that is used again.
//!
//! Memory: the buffer holds one record, at most [`MAX_RECORD_SIZE`](super::record::MAX_RECORD_SIZE) bytes,
//! and grows only as those bytes come in. What it holds beyond [`KEPT_BUFFER_SIZE`] is given back.

mod chunk;

use crate::{Lsn, MajorVersion, SystemIdentifier, TimelineId, bytes::Reader};

use super::{
    error::{EndOfLog, EndSign, WalError, WalFault},
    page::{PageExpectation, WAL_PAGE_SIZE, WalPageHeader},
    record::{RECORD_ALIGNMENT, RECORD_HEADER_SIZE, RecordFault, RecordHeader, RecordParts},
    segment::SegmentSize,
};

use chunk::Move;
pub use chunk::{Chunk, Next};

/// Bytes of buffer kept from one long record to the next.
pub const KEPT_BUFFER_SIZE: usize = 1 << 20;

/// Decodes one stretch of write-ahead log on one line of history.
#[derive(Debug)]
pub struct WalDecoder {
    version: MajorVersion,
    segment_size: SegmentSize,
    system_identifier: Option<SystemIdentifier>,
    timeline: Option<TimelineId>,
    /// The next byte wanted.
    at: Lsn,
    /// Bytes before this are passed over: alignment, padding, the rest of a record begun too early.
    skip_to: Lsn,
    /// Records that start before this are decoded and not given out.
    from: Lsn,
    state: State,
    /// Behind the last whole record.
    boundary: Option<Lsn>,
    /// Start of the last record, against which the next one's link is checked.
    previous: Option<Lsn>,
    /// A record that lost its continuation; the next record must say so.
    overwritten: Option<Lsn>,
    /// Part of a page header that was cut by the end of a chunk.
    page_header: Vec<u8>,
    buffer: Vec<u8>,
    parts: RecordParts,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// No record's start is known yet.
    Searching,
    /// Where the next record begins, or at the page header before it.
    Between,
    /// In a record whose bytes so far are in the buffer.
    Inside { start: Lsn },
}

impl WalDecoder {
    /// Begins at a record's start, or at the start of a page that begins with a record. A redo point, a
    /// checkpoint's position and [`Record::end`](super::record::Record::end) are such.
    pub fn new(version: MajorVersion, segment_size: SegmentSize, start: Lsn) -> Self {
        Self {
            version,
            segment_size,
            system_identifier: None,
            timeline: None,
            at: start,
            skip_to: start,
            from: start,
            state: State::Between,
            boundary: Some(start),
            previous: None,
            overwritten: None,
            page_header: Vec::new(),
            buffer: Vec::new(),
            parts: RecordParts::default(),
        }
    }

    /// Begins at any position: the first record given out is the first that starts at or after `from`.
    ///
    /// Bytes are wanted from the start of the page that holds `from`: see [`WalDecoder::position`].
    pub fn searching(version: MajorVersion, segment_size: SegmentSize, from: Lsn) -> Self {
        let page = Lsn::new(from.get() - from.get() % PAGE_SIZE);
        Self {
            from,
            state: State::Searching,
            boundary: None,
            ..Self::new(version, segment_size, page)
        }
    }

    /// Refuses segments of other clusters.
    #[must_use]
    pub fn of_cluster(mut self, id: SystemIdentifier) -> Self {
        self.system_identifier = Some(id);
        self
    }

    /// Refuses a first record that does not follow the record which starts at `previous`.
    #[must_use]
    pub fn following(mut self, previous: Lsn) -> Self {
        self.previous = Some(previous);
        self
    }

    /// The next byte wanted.
    pub fn position(&self) -> Lsn {
        self.at
    }

    /// Up to where no byte will be looked at: a caller may go on feeding from here instead of from
    /// [`WalDecoder::position`]. They differ inside the padding behind a segment switch.
    pub fn wanted(&self) -> Lsn {
        self.at.max(self.skip_to)
    }

    /// Behind the last whole record, or where decoding began: a new decoder can begin here. `None` while
    /// the first record is still being looked for.
    pub fn boundary(&self) -> Option<Lsn> {
        self.boundary
    }

    /// Start of the last record given out.
    pub fn last_record(&self) -> Option<Lsn> {
        self.previous
    }

    /// The timeline of the last page whose header was seen. A record that starts mid-page may come first.
    pub fn timeline(&self) -> Option<TimelineId> {
        self.timeline
    }

    /// Gives bytes that lie at `at` in the log. Bytes from before [`WalDecoder::position`] are passed over.
    ///
    /// Call [`Chunk::next`] until it asks for more bytes. Bytes left unread when the [`Chunk`] goes away must
    /// be given again.
    pub fn feed<'d>(&'d mut self, at: Lsn, bytes: &'d [u8]) -> Chunk<'d> {
        let passed_over = usize::try_from(self.at.bytes_since(at)).unwrap_or(usize::MAX);
        let failed = if at > self.wanted() {
            Some(self.error(
                self.at,
                WalFault::Gap {
                    found: at,
                    wanted: self.at,
                },
            ))
        } else {
            self.at = self.at.max(at);
            None
        };
        Chunk {
            bytes,
            used: passed_over.min(bytes.len()),
            outcome: failed.map(Err),
            decoder: self,
        }
    }

    fn error(&self, at: Lsn, fault: WalFault) -> WalError {
        WalError {
            at,
            timeline: self.timeline,
            fault,
        }
    }

    /// Forgets a record begun, so that the next bytes wanted are those at `at`.
    fn go_back_to(&mut self, at: Lsn) {
        self.at = at;
        self.skip_to = at;
        self.page_header.clear();
        self.buffer.clear();
        if let State::Inside { .. } = self.state {
            self.state = State::Between;
        }
    }

    /// Start of the record being read, or the place where one is looked for.
    fn record_position(&self) -> Lsn {
        match self.state {
            State::Inside { start } => start,
            State::Searching | State::Between => self.at,
        }
    }

    /// Takes a page's header into account; `self.at` is behind it.
    fn enter_page(&mut self, header: &WalPageHeader) -> Result<Move, WalFault> {
        let page = Lsn::new(self.at.get() - as_u64(page_offset(self.at)));
        let expected = PageExpectation {
            version: self.version,
            segment_size: self.segment_size,
            address: page,
            system_identifier: self.system_identifier,
            timeline: self.timeline,
        };
        let unwritten = if header.is_zero() {
            Some(EndSign::Zeros)
        } else if header.is_recycled(&expected) {
            Some(EndSign::RecycledPage)
        } else {
            None
        };
        if let Some(sign) = unwritten {
            let at = match self.state {
                State::Inside { start } => start,
                State::Searching | State::Between => page,
            };
            return Ok(Move::End(EndOfLog { at, sign }));
        }
        let in_place = |decoder: &mut Self, fault| {
            if !matches!(decoder.state, State::Inside { .. }) {
                decoder.at = page;
            }
            fault
        };
        if let Err(fault) = header.validate(&expected) {
            return Err(in_place(self, WalFault::Page { page, fault }));
        }
        self.timeline = header.timeline();
        match self.state {
            State::Between if header.continues_record() => {
                Err(in_place(self, WalFault::UnexpectedContinuation { page }))
            }
            State::Between => Ok(Move::On),
            State::Searching => {
                self.search_page(header, page);
                Ok(Move::On)
            }
            State::Inside { start } if header.overwrites_record() => {
                self.overwritten = Some(start);
                self.buffer.clear();
                self.state = State::Between;
                Ok(Move::On)
            }
            State::Inside { .. } => {
                let got = u32::try_from(self.buffer.len()).unwrap_or(u32::MAX);
                let missing = Reader::new(&self.buffer)
                    .u32()
                    .map(|total| total.saturating_sub(got));
                if header.continues_record() && missing == Some(header.remaining) {
                    Ok(Move::On)
                } else {
                    Err(WalFault::LostContinuation { page })
                }
            }
        }
    }

    /// Finds the first record of a page, or goes on to the next.
    fn search_page(&mut self, header: &WalPageHeader, page: Lsn) {
        if !header.continues_record() {
            self.state = State::Between;
            return;
        }
        let remaining = u64::from(header.remaining).next_multiple_of(RECORD_ALIGNMENT);
        let next_page = page.advance(PAGE_SIZE);
        if remaining < next_page.bytes_since(self.at) {
            self.skip_to = self.at.advance(remaining);
            self.state = State::Between;
        } else {
            self.skip_to = next_page;
        }
    }

    fn checked_header(
        &self,
        bytes: &[u8; RECORD_HEADER_SIZE],
        start: Lsn,
    ) -> Result<RecordHeader, RecordFault> {
        let header = RecordHeader::parse(bytes)?;
        let follows = match self.previous {
            Some(previous) => header.previous == previous,
            None => header.previous < start,
        };
        if follows {
            Ok(header)
        } else {
            Err(RecordFault::Previous {
                found: header.previous,
            })
        }
    }
}

const PAGE_SIZE: u64 = 8192;
const _: () = assert!(PAGE_SIZE == WAL_PAGE_SIZE as u64);

fn page_offset(lsn: Lsn) -> usize {
    usize::try_from(lsn.get() % PAGE_SIZE).unwrap_or_default()
}

fn as_u64(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
