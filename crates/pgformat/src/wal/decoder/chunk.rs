//! The state machine that takes a chunk of bytes apart.

use crate::{
    Lsn,
    bytes::{Reader, length},
    wal::{
        error::{EndOfLog, EndSign, WalError, WalFault},
        page::{LONG_HEADER_SIZE, SHORT_HEADER_SIZE, WAL_PAGE_SIZE, WalPageHeader},
        record::{
            RECORD_ALIGNMENT, RECORD_HEADER_SIZE, Record, RecordFault, RecordHeader, RecordParts,
            check_length, record_crc,
        },
        resource_manager::ResourceManager,
        xlog::OVERWRITE_CONTRECORD,
    },
};

use super::{KEPT_BUFFER_SIZE, State, WalDecoder, as_u64, page_offset};

/// What comes next in the log.
#[derive(Debug)]
pub enum Next<'a> {
    /// A whole record.
    Record(Record<'a>),
    /// All bytes given are used up.
    NeedBytes,
    /// The log was never written beyond this.
    End(EndOfLog),
}

/// A record that is whole, and where its bytes are.
pub(super) struct Found {
    start: Lsn,
    end: Lsn,
    header: RecordHeader,
    place: Place,
}

pub(super) enum Place {
    /// In the chunk, from here on.
    Chunk(usize),
    Buffer,
}

/// The outcome of one move of the state machine.
pub(super) enum Move {
    On,
    NeedBytes,
    Found(Found),
    End(EndOfLog),
}

/// Bytes given to a decoder, and what they hold.
#[derive(Debug)]
pub struct Chunk<'d> {
    pub(super) decoder: &'d mut WalDecoder,
    pub(super) bytes: &'d [u8],
    pub(super) used: usize,
    /// What ended the reading of this chunk.
    pub(super) outcome: Option<Result<EndOfLog, WalError>>,
}

impl Chunk<'_> {
    /// The next record, the end of the log, or the wish for more bytes.
    ///
    /// After the end and after an error the same is returned again. The decoder itself goes back to the start
    /// of the record in question, so that the same place can be tried with other bytes: of a segment that is
    /// being written, of another copy.
    ///
    /// # Errors
    /// When the log is damaged, or the bytes do not follow those before.
    #[expect(
        clippy::should_implement_trait,
        reason = "records borrow from the decoder, which iterators cannot do"
    )]
    pub fn next(&mut self) -> Result<Next<'_>, WalError> {
        let found = loop {
            match &self.outcome {
                Some(Ok(end)) => return Ok(Next::End(*end)),
                Some(Err(error)) => return Err(error.clone()),
                None => {}
            }
            match self.step() {
                Ok(Move::On) => {}
                Ok(Move::NeedBytes) => return Ok(Next::NeedBytes),
                Ok(Move::Found(found)) if found.start < self.decoder.from => {}
                Ok(Move::Found(found)) => break found,
                Ok(Move::End(end)) => {
                    self.decoder.go_back_to(end.at);
                    self.outcome = Some(Ok(end));
                }
                Err(fault) => {
                    let at = self.decoder.record_position();
                    self.outcome = Some(Err(self.decoder.error(at, fault)));
                    self.decoder.go_back_to(at);
                }
            }
        };
        Ok(Next::Record(self.record(&found)))
    }

    /// Bytes not looked at yet.
    fn rest(&self) -> &[u8] {
        self.bytes.get(self.used..).unwrap_or_default()
    }

    fn record(&self, found: &Found) -> Record<'_> {
        Record {
            start: found.start,
            end: found.end,
            header: found.header,
            bytes: self.record_bytes(&found.place, found.header.total_len),
            parts: &self.decoder.parts,
        }
    }

    fn record_bytes(&self, place: &Place, total_len: u32) -> &[u8] {
        match place {
            Place::Buffer => &self.decoder.buffer,
            Place::Chunk(from) => self
                .bytes
                .get(*from..)
                .and_then(|rest| rest.get(..length(total_len)))
                .unwrap_or_default(),
        }
    }

    fn advance(&mut self, bytes: usize) {
        self.used += bytes;
        self.decoder.at = self.decoder.at.advance(as_u64(bytes));
    }

    fn step(&mut self) -> Result<Move, WalFault> {
        let decoder = &*self.decoder;
        if decoder.at < decoder.skip_to {
            let skipped = usize::try_from(decoder.skip_to.bytes_since(decoder.at))
                .unwrap_or(usize::MAX)
                .min(self.rest().len());
            self.advance(skipped);
            if self.decoder.at < self.decoder.skip_to {
                return Ok(Move::NeedBytes);
            }
        }
        if self.rest().is_empty() {
            return Ok(Move::NeedBytes);
        }
        if page_offset(self.decoder.at) == 0 || !self.decoder.page_header.is_empty() {
            return self.page_header();
        }
        match self.decoder.state {
            State::Searching => {
                let to_next_page = WAL_PAGE_SIZE - page_offset(self.decoder.at);
                self.decoder.skip_to = self.decoder.at.advance(as_u64(to_next_page));
                Ok(Move::On)
            }
            State::Between => self.begin_record(),
            State::Inside { start } => self.continue_record(start),
        }
    }

    fn page_header(&mut self) -> Result<Move, WalFault> {
        let decoder = &mut *self.decoder;
        let rest = self.bytes.get(self.used..).unwrap_or_default();
        let had = decoder.page_header.len();
        let (header, taken) = if had == 0 && rest.len() >= LONG_HEADER_SIZE {
            let header = WalPageHeader::parse(rest);
            (header, header.map_or(0, |header| header.size()))
        } else {
            // The flags, which tell the header's size, are in its first bytes.
            let mut size = SHORT_HEADER_SIZE;
            let mut taken = 0;
            loop {
                let missing = size.saturating_sub(had + taken);
                let more = rest.get(taken..).unwrap_or_default();
                let more = more.get(..missing.min(more.len())).unwrap_or_default();
                decoder.page_header.extend_from_slice(more);
                taken += more.len();
                if more.len() < missing {
                    self.advance(taken);
                    return Ok(Move::NeedBytes);
                }
                match decoder.page_header.first_chunk() {
                    Some(start) if WalPageHeader::size_from_start(*start) > size => {
                        size = LONG_HEADER_SIZE;
                    }
                    _ => break,
                }
            }
            (WalPageHeader::parse(&decoder.page_header), taken)
        };
        let Some(header) = header else {
            return Ok(Move::NeedBytes);
        };
        decoder.page_header.clear();
        self.advance(taken);
        self.decoder.enter_page(&header)
    }

    fn begin_record(&mut self) -> Result<Move, WalFault> {
        let start = self.decoder.at;
        if !start.get().is_multiple_of(RECORD_ALIGNMENT) || page_offset(start) < SHORT_HEADER_SIZE {
            return Err(WalFault::Position);
        }
        let page_left = WAL_PAGE_SIZE - page_offset(start);
        let rest = self.rest();
        let here = rest.get(..page_left).unwrap_or(rest);
        let total_len = Reader::new(here).u32();
        if total_len == Some(0) {
            return Ok(Move::End(EndOfLog {
                at: start,
                sign: EndSign::Zeros,
            }));
        }
        if let (Some(total_len), Some(bytes)) = (total_len, here.first_chunk())
            && length(total_len) <= here.len()
        {
            let header = self.decoder.checked_header(bytes, start)?;
            let place = Place::Chunk(self.used);
            self.advance(length(total_len));
            return self.finish(start, header, place);
        }
        self.decoder.buffer.clear();
        self.decoder.buffer.shrink_to(KEPT_BUFFER_SIZE);
        self.decoder.state = State::Inside { start };
        self.continue_record(start)
    }

    /// Takes bytes of this page into the buffer, up to the next point at which something can be checked.
    fn continue_record(&mut self, start: Lsn) -> Result<Move, WalFault> {
        let decoder = &mut *self.decoder;
        let had = decoder.buffer.len();
        let total_len = Reader::new(&decoder.buffer).u32();
        let goal = match total_len {
            None => size_of::<u32>(),
            Some(_) if had < RECORD_HEADER_SIZE => RECORD_HEADER_SIZE,
            Some(total_len) => length(total_len),
        };
        let page_left = WAL_PAGE_SIZE - page_offset(decoder.at);
        let rest = self.bytes.get(self.used..).unwrap_or_default();
        let taken = rest
            .get(..(goal - had).min(page_left).min(rest.len()))
            .unwrap_or_default();
        decoder.buffer.extend_from_slice(taken);
        self.advance(taken.len());

        let decoder = &*self.decoder;
        if decoder.buffer.len() < goal {
            return Ok(Move::On);
        }
        match (total_len, decoder.buffer.first_chunk()) {
            (None, _) => match Reader::new(&decoder.buffer).u32() {
                Some(0) => Ok(Move::End(EndOfLog {
                    at: start,
                    sign: EndSign::Zeros,
                })),
                Some(found) => check_length(found)
                    .map(|()| Move::On)
                    .map_err(WalFault::Record),
                None => Ok(Move::On),
            },
            (Some(total_len), Some(bytes)) => {
                let header = decoder.checked_header(bytes, start)?;
                if decoder.buffer.len() < length(total_len) {
                    return Ok(Move::On);
                }
                self.finish(start, header, Place::Buffer)
            }
            (Some(_), None) => Ok(Move::On),
        }
    }

    fn finish(&mut self, start: Lsn, header: RecordHeader, place: Place) -> Result<Move, WalFault> {
        // So that an error names this record, and the decoder goes back to it.
        self.decoder.state = State::Inside { start };
        let mut parts = std::mem::take(&mut self.decoder.parts);
        let checked = self.check(header, &place, &mut parts);
        self.decoder.parts = parts;
        checked?;

        let decoder = &mut *self.decoder;
        let aligned = decoder.at.get().next_multiple_of(RECORD_ALIGNMENT);
        let mut end = Lsn::new(aligned);
        if header.is_switch() {
            end = decoder.segment_size.ceil(end);
        }
        decoder.skip_to = end;
        decoder.state = State::Between;
        decoder.previous = Some(start);
        decoder.boundary = Some(end);
        decoder.overwritten = None;
        Ok(Move::Found(Found {
            start,
            end,
            header,
            place,
        }))
    }

    fn check(
        &self,
        header: RecordHeader,
        place: &Place,
        parts: &mut RecordParts,
    ) -> Result<(), WalFault> {
        let bytes = self.record_bytes(place, header.total_len);
        let computed = record_crc(bytes);
        if computed != header.crc {
            return Err(WalFault::Record(RecordFault::Checksum {
                stored: header.crc,
                computed,
            }));
        }
        parts.parse(bytes)?;
        if let Some(lost) = self.decoder.overwritten {
            let says_so = header.resource_manager == ResourceManager::XLOG
                && header.info == OVERWRITE_CONTRECORD
                && Reader::new(parts.main_data(bytes)).u64() == Some(lost.get());
            if !says_so {
                return Err(WalFault::WrongOverwrite { lost });
            }
        }
        Ok(())
    }
}
