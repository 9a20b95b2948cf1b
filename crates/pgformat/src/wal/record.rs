//! WAL records: header, block references, main data (`src/include/access/xlogrecord.h`).
//!
//! ```text
//! 0 total length u32 | 4 transaction u32 | 8 previous record u64 | 16 info u8 | 17 resource manager u8
//! 18 padding | 20 CRC-32C u32 | 24 headers of parts, then the parts' bytes in the same order
//! ```
//!
//! A part's header begins with a byte: up to 32 is a block reference of that number ([`super::block`]),
//! 255 and 254 are main data with a length of one or four bytes (always last), 253 is a replication
//! origin, 252 the top-level transaction. The CRC covers everything from byte 24, then bytes 0 to 19.

use crate::{Lsn, ReplicationOriginId, TransactionId, bytes::Reader, relation::RelationId};

use super::{
    block::{BlockParts, BlockReference, main_data_len},
    resource_manager::ResourceManager,
};

/// Bytes in a record's fixed header (`SizeOfXLogRecord`).
pub const RECORD_HEADER_SIZE: usize = 24;
/// Records start at multiples of this (`MAXIMUM_ALIGNOF`).
pub const RECORD_ALIGNMENT: u64 = 8;
/// The longest record that is read, in bytes: PostgreSQL can allocate no more for one (`MaxAllocSize`).
pub const MAX_RECORD_SIZE: u32 = 0x3FFF_FFFF;
/// The highest number of a block reference (`XLR_MAX_BLOCK_ID`).
pub const MAX_BLOCK_ID: u8 = 32;

pub(super) const MAIN_DATA_SHORT: u8 = 255;
pub(super) const MAIN_DATA_LONG: u8 = 254;
const ORIGIN: u8 = 253;
const TOP_LEVEL_TRANSACTION: u8 = 252;
const CRC_OFFSET: usize = 20;

/// The bits of `info` that belong to the resource manager; the others are the log's own.
pub const INFO_MASK: u8 = 0xF0;

/// What is wrong with a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordFault {
    /// Too short to be a record, or longer than any.
    #[error("its length of {found} bytes is impossible")]
    Length {
        /// As found.
        found: u32,
    },
    /// A number that no resource manager has.
    #[error("its resource manager {found} does not exist")]
    ResourceManager {
        /// As found.
        found: u8,
    },
    /// The record does not follow the one before it.
    #[error("it says that the record before it is at {found}")]
    Previous {
        /// What it says.
        found: Lsn,
    },
    /// The contents are damaged.
    #[error("its checksum is {stored:08X}, and its contents give {computed:08X}")]
    Checksum {
        /// In the record.
        stored: u32,
        /// From the contents.
        computed: u32,
    },
    /// The checksum is right, and yet the parts make no sense.
    #[error("{0}")]
    Layout(&'static str),
}

/// The fixed header of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// Bytes in the record, page headers not counted.
    pub total_len: u32,
    /// The transaction that wrote it, or [`TransactionId::INVALID`].
    pub transaction: TransactionId,
    /// Start of the record before.
    pub previous: Lsn,
    /// `xl_info`, whole.
    pub info: u8,
    /// The resource manager.
    pub resource_manager: ResourceManager,
    /// CRC-32C as found.
    pub crc: u32,
}

impl RecordHeader {
    /// Reads a header.
    ///
    /// # Errors
    /// When the length or the resource manager is impossible.
    #[inline]
    pub fn parse(bytes: &[u8; RECORD_HEADER_SIZE]) -> Result<Self, RecordFault> {
        let [
            l0,
            l1,
            l2,
            l3,
            x0,
            x1,
            x2,
            x3,
            p0,
            p1,
            p2,
            p3,
            p4,
            p5,
            p6,
            p7,
            info,
            manager,
            _,
            _,
            c0,
            c1,
            c2,
            c3,
        ] = *bytes;
        let total_len = u32::from_le_bytes([l0, l1, l2, l3]);
        check_length(total_len)?;
        Ok(Self {
            total_len,
            transaction: TransactionId::new(u32::from_le_bytes([x0, x1, x2, x3])),
            previous: Lsn::new(u64::from_le_bytes([p0, p1, p2, p3, p4, p5, p6, p7])),
            info,
            resource_manager: ResourceManager::new(manager)
                .ok_or(RecordFault::ResourceManager { found: manager })?,
            crc: u32::from_le_bytes([c0, c1, c2, c3]),
        })
    }

    /// Whether this is the record after which the rest of its segment is padding (`XLOG_SWITCH`).
    pub fn is_switch(&self) -> bool {
        self.resource_manager == ResourceManager::XLOG && self.info & INFO_MASK == 0x40
    }
}

/// Refuses lengths that no record has.
pub(super) fn check_length(found: u32) -> Result<(), RecordFault> {
    let shortest = u32::try_from(RECORD_HEADER_SIZE).unwrap_or(u32::MAX);
    if (shortest..=MAX_RECORD_SIZE).contains(&found) {
        Ok(())
    } else {
        Err(RecordFault::Length { found })
    }
}

/// The checksum of a whole record: of everything behind the header, then of the header before the CRC.
pub fn record_crc(record: &[u8]) -> u32 {
    let (header, body) = record
        .split_at_checked(RECORD_HEADER_SIZE)
        .unwrap_or((record, &[]));
    super::crc::crc32c_of_two(body, header.get(..CRC_OFFSET).unwrap_or(header))
}

/// A record: borrowed bytes and where its parts lie in them.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    pub(super) start: Lsn,
    pub(super) end: Lsn,
    pub(super) header: RecordHeader,
    pub(super) bytes: &'a [u8],
    pub(super) parts: &'a RecordParts,
}

/// Where the parts of a record lie; kept by a decoder and used again for every record.
#[derive(Clone, Debug, Default)]
pub struct RecordParts {
    blocks: Vec<BlockParts>,
    main_data: usize,
    origin: Option<ReplicationOriginId>,
    top_level: Option<TransactionId>,
}

impl RecordParts {
    /// Finds the parts of a whole record.
    ///
    /// # Errors
    /// [`RecordFault::Layout`] when they contradict each other or the record's length.
    pub fn parse(&mut self, record: &[u8]) -> Result<(), RecordFault> {
        let short = || RecordFault::Layout("the header of a part is cut short");
        self.blocks.clear();
        self.origin = None;
        self.top_level = None;
        let mut reader = Reader::at(record, RECORD_HEADER_SIZE).ok_or_else(short)?;
        let mut relation: Option<RelationId> = None;
        let mut lowest_id = 0;
        let mut payload_len = 0_usize;
        while reader.remaining() > payload_len {
            match reader.u8().ok_or_else(short)? {
                marker @ (MAIN_DATA_SHORT | MAIN_DATA_LONG) => {
                    let len = main_data_len(marker, &mut reader).ok_or_else(short)?;
                    payload_len = payload_len.saturating_add(len);
                    break;
                }
                ORIGIN => {
                    self.origin = Some(reader.u16().ok_or_else(short)?.into());
                }
                TOP_LEVEL_TRANSACTION => {
                    self.top_level = Some(reader.u32().ok_or_else(short)?.into());
                }
                id if id >= lowest_id && id <= MAX_BLOCK_ID => {
                    let block = BlockParts::parse(id, &mut reader, relation)?;
                    lowest_id = id + 1;
                    relation = Some(block.relation());
                    payload_len += block.payload_len();
                    self.blocks.push(block);
                }
                _ => return Err(RecordFault::Layout("a part has a number out of order")),
            }
        }
        if reader.remaining() != payload_len {
            return Err(RecordFault::Layout("its parts do not add up to its length"));
        }
        let mut at = record.len() - payload_len;
        for block in &mut self.blocks {
            block.place_at(at);
            at += block.payload_len();
        }
        self.main_data = at;
        Ok(())
    }

    /// What belongs to no block, in the record whose parts these are.
    pub(super) fn main_data<'a>(&self, record: &'a [u8]) -> &'a [u8] {
        record.get(self.main_data..).unwrap_or_default()
    }
}

impl<'a> Record<'a> {
    /// Where it begins (`ReadRecPtr`).
    pub fn start(&self) -> Lsn {
        self.start
    }

    /// The position behind it, aligned, and behind the padding of a segment switch (`EndRecPtr`). The next
    /// record begins here, or behind the page header that lies here.
    pub fn end(&self) -> Lsn {
        self.end
    }

    /// Its fixed header.
    pub fn header(&self) -> RecordHeader {
        self.header
    }

    /// The transaction that wrote it, or [`TransactionId::INVALID`].
    pub fn transaction(&self) -> TransactionId {
        self.header.transaction
    }

    /// The top-level transaction, when the record says so (only with `wal_level = logical`, at a
    /// subtransaction's first record).
    pub fn top_level_transaction(&self) -> Option<TransactionId> {
        self.parts.top_level
    }

    /// Where the change comes from, when it was replicated here.
    pub fn origin(&self) -> Option<ReplicationOriginId> {
        self.parts.origin
    }

    /// The resource manager.
    pub fn resource_manager(&self) -> ResourceManager {
        self.header.resource_manager
    }

    /// The resource manager's bits of `xl_info`.
    pub fn info(&self) -> u8 {
        self.header.info & INFO_MASK
    }

    /// The blocks it refers to, in the order of their numbers.
    pub fn blocks(&self) -> impl ExactSizeIterator<Item = BlockReference<'a>> + use<'a> {
        let bytes = self.bytes;
        self.parts
            .blocks
            .iter()
            .map(move |block| block.resolve(bytes))
    }

    /// The block reference of a number.
    pub fn block(&self, id: u8) -> Option<BlockReference<'a>> {
        self.blocks().find(|block| block.id == id)
    }

    /// What belongs to no block.
    pub fn main_data(&self) -> &'a [u8] {
        self.parts.main_data(self.bytes)
    }

    /// The whole record, page headers left out.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}
