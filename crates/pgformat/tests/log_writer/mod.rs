//! Writes log the way PostgreSQL lays it out, so that tests can make what a server seldom writes.

use everpoint_pgformat::{Lsn, MajorVersion, wal::record::record_crc, wal::segment::SegmentSize};

const PAGE: u64 = 8192;
const CONTINUES: u16 = 1;
const LONG: u16 = 2;
const OVERWRITES: u16 = 8;

/// The system identifier of all logs written here.
pub(crate) const CLUSTER: u64 = 0x0123_4567_89AB_CDEF;

/// A log that begins at a page's start.
pub(crate) struct LogWriter {
    pub(crate) version: MajorVersion,
    pub(crate) segment_size: SegmentSize,
    pub(crate) timeline: u32,
    pub(crate) start: Lsn,
    pub(crate) bytes: Vec<u8>,
    previous: Lsn,
    replaces: Option<Lsn>,
}

/// Where a record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) start: Lsn,
    pub(crate) end: Lsn,
}

impl LogWriter {
    pub(crate) fn new(major: u16, segment_size: u32, start: u64) -> Self {
        assert_eq!(start % PAGE, 0);
        Self {
            version: MajorVersion::try_from(major).expect("a supported version"),
            segment_size: SegmentSize::try_from(segment_size).expect("a segment size"),
            timeline: 1,
            start: Lsn::new(start),
            bytes: Vec::new(),
            previous: Lsn::INVALID,
            replaces: None,
        }
    }

    pub(crate) fn position(&self) -> Lsn {
        self.start.advance(self.bytes.len() as u64)
    }

    /// Appends a record with main data only.
    pub(crate) fn record(&mut self, manager: u8, info: u8, transaction: u32, main: &[u8]) -> Place {
        self.raw_record(manager, info, transaction, &main_data(main))
    }

    /// Appends a record with these bytes behind its header.
    pub(crate) fn raw_record(
        &mut self,
        manager: u8,
        info: u8,
        transaction: u32,
        body: &[u8],
    ) -> Place {
        let record = self.record_bytes(manager, info, transaction, body);
        let start = self.write(&record, usize::MAX);
        self.previous = start;
        while !self.bytes.len().is_multiple_of(8) {
            self.bytes.push(0);
        }
        Place {
            start,
            end: self.position(),
        }
    }

    /// Ends the segment.
    pub(crate) fn switch(&mut self) -> Place {
        let place = self.record(0, 0x40, 0, &[]);
        let end = self.segment_size.ceil(place.end);
        let padding = end.bytes_since(place.end);
        self.bytes.resize(self.bytes.len() + padding as usize, 0);
        Place {
            start: place.start,
            end,
        }
    }

    /// Begins a record that reaches over the page's end, and loses all of it from there on. The record that
    /// says so is next.
    pub(crate) fn lose_continuation(&mut self) -> Lsn {
        let record = self.record_bytes(10, 0, 7, &main_data(&[0xEE; 20_000]));
        let start = self.write(&record, 1);
        self.replaces = Some(start);
        start
    }

    fn record_bytes(&self, manager: u8, info: u8, transaction: u32, body: &[u8]) -> Vec<u8> {
        let mut record = Vec::new();
        record.extend((24 + body.len() as u32).to_le_bytes());
        record.extend(transaction.to_le_bytes());
        record.extend(self.previous.get().to_le_bytes());
        record.extend([info, manager, 0, 0, 0, 0, 0, 0]);
        record.extend(body);
        let crc = record_crc(&record);
        record[20..24].copy_from_slice(&crc.to_le_bytes());
        record
    }

    /// Writes a record over at most `pages` pages.
    fn write(&mut self, record: &[u8], pages: usize) -> Lsn {
        if self.position().get().is_multiple_of(PAGE) {
            self.page_header(0);
        }
        let start = self.position();
        let mut rest = record;
        for page in 0.. {
            if page > 0 {
                self.page_header(rest.len() as u32);
            }
            let room = (PAGE - self.position().get() % PAGE) as usize;
            let (here, later) = rest.split_at(room.min(rest.len()));
            self.bytes.extend(here);
            rest = later;
            if rest.is_empty() || page + 1 == pages {
                break;
            }
        }
        start
    }

    fn page_header(&mut self, remaining: u32) {
        let address = self.position();
        let mut flags = 0;
        if remaining > 0 {
            flags |= CONTINUES;
        }
        if self.replaces.take().is_some() {
            flags |= OVERWRITES;
        }
        let long = self.segment_size.floor(address) == address;
        if long {
            flags |= LONG;
        }
        self.bytes
            .extend(self.version.row().wal_page_magic.to_le_bytes());
        self.bytes.extend(flags.to_le_bytes());
        self.bytes.extend(self.timeline.to_le_bytes());
        self.bytes.extend(address.get().to_le_bytes());
        self.bytes.extend(remaining.to_le_bytes());
        self.bytes.extend([0; 4]);
        if long {
            self.bytes.extend(CLUSTER.to_le_bytes());
            self.bytes
                .extend(u32::from(self.segment_size).to_le_bytes());
            self.bytes.extend((PAGE as u32).to_le_bytes());
        }
    }
}

/// Main data with its header.
pub(crate) fn main_data(bytes: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    match u8::try_from(bytes.len()) {
        Ok(0) => return data,
        Ok(len) => data.extend([255, len]),
        Err(_) => {
            data.push(254);
            data.extend((bytes.len() as u32).to_le_bytes());
        }
    }
    data.extend(bytes);
    data
}

/// A block reference as it is written.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub(crate) id: u8,
    pub(crate) fork: u8,
    /// Tablespace, database, relfilenode; `None` for the same as before.
    pub(crate) relation: Option<[u32; 3]>,
    pub(crate) number: u32,
    pub(crate) data: Vec<u8>,
    /// The whole page, without a hole.
    pub(crate) image: Option<Vec<u8>>,
}

impl Block {
    pub(crate) fn new(relation: [u32; 3], number: u32) -> Self {
        Self {
            id: 0,
            fork: 0,
            relation: Some(relation),
            number,
            data: Vec::new(),
            image: None,
        }
    }

    pub(crate) fn with_data(mut self, data: &[u8]) -> Self {
        self.data = data.to_vec();
        self
    }

    pub(crate) fn with_image(mut self, page: &[u8]) -> Self {
        self.image = Some(page.to_vec());
        self
    }

    pub(crate) fn of_fork(mut self, fork: u8) -> Self {
        self.fork = fork;
        self
    }

    pub(crate) fn numbered(mut self, id: u8) -> Self {
        self.id = id;
        self
    }
}

/// What stands behind the header of a record with blocks and main data.
pub(crate) fn body(blocks: &[Block], main: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    for block in blocks {
        let mut flags = block.fork;
        if block.image.is_some() {
            flags |= 0x10;
        }
        if !block.data.is_empty() {
            flags |= 0x20;
        }
        if block.relation.is_none() {
            flags |= 0x80;
        }
        body.extend([block.id, flags]);
        body.extend((block.data.len() as u16).to_le_bytes());
        if let Some(image) = &block.image {
            body.extend((image.len() as u16).to_le_bytes());
            // No hole; the image is applied.
            body.extend([0, 0, 2]);
        }
        for oid in block.relation.iter().flatten() {
            body.extend(oid.to_le_bytes());
        }
        body.extend(block.number.to_le_bytes());
    }
    let mut main = main_data(main);
    let header_len = match main.first() {
        None => 0,
        Some(255) => 2,
        Some(_) => 5,
    };
    let payload = main.split_off(header_len);
    body.extend(main);
    for block in blocks {
        body.extend(block.image.iter().flatten());
        body.extend(&block.data);
    }
    body.extend(payload);
    body
}
