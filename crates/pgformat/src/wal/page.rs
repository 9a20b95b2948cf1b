//! Headers of WAL pages: `XLogPageHeaderData` and `XLogLongPageHeaderData` in
//! `src/include/access/xlog_internal.h`, checked as `XLogReaderValidatePageHeader` does
//! (`src/backend/access/transam/xlogreader.c`).
//!
//! ```text
//!  0 magic u16 | 2 flags u16 | 4 timeline u32 | 8 address u64 | 16 remaining u32 | 20 padding
//! 24 system identifier u64 | 32 segment size u32 | 36 WAL block size u32      long header only
//! ```

use crate::{Lsn, MajorVersion, SystemIdentifier, TimelineId, bytes::Reader};

use super::segment::SegmentSize;

/// Bytes in a page of write-ahead log (`XLOG_BLCKSZ`). Other sizes are refused.
pub const WAL_PAGE_SIZE: usize = 8192;
/// Bytes in the header of every page but a segment's first.
pub const SHORT_HEADER_SIZE: usize = 24;
/// Bytes in the header of a segment's first page.
pub const LONG_HEADER_SIZE: usize = 40;

/// The first record on the page continues one from the page before.
const CONTINUES: u16 = 0x0001;
const LONG: u16 = 0x0002;
/// The page's first record takes the place of one whose continuation was lost.
const OVERWRITES: u16 = 0x0008;
const ALL_FLAGS: u16 = 0x000F;

/// The header of a WAL page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalPageHeader {
    /// `xlp_magic`, which tells the major version.
    pub magic: u16,
    /// `xlp_info`, whole.
    pub flags: u16,
    /// The timeline of the first record on the page, 0 when the page is none.
    pub raw_timeline: u32,
    /// Where the page says it lies.
    pub address: Lsn,
    /// Bytes left of a record that began on an earlier page, headers not counted.
    pub remaining: u32,
    /// What only a segment's first page says.
    pub long: Option<LongHeader>,
}

/// What the first page of a segment says besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongHeader {
    /// The cluster the segment belongs to.
    pub system_identifier: SystemIdentifier,
    /// Its segment size in bytes, as found.
    pub segment_size: u32,
    /// Its WAL block size in bytes, as found.
    pub block_size: u32,
}

/// What a page's header must agree with.
#[derive(Clone, Copy, Debug)]
pub struct PageExpectation {
    /// The version that wrote the log.
    pub version: MajorVersion,
    /// The cluster's segment size.
    pub segment_size: SegmentSize,
    /// Where the page lies.
    pub address: Lsn,
    /// The cluster, when known.
    pub system_identifier: Option<SystemIdentifier>,
    /// The timeline of the page before, when known: timelines never go back.
    pub timeline: Option<TimelineId>,
}

/// What is wrong with a page's header.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PageFault {
    /// Not the magic number of the expected version.
    #[error("its magic number is {found:04X}, not {expected:04X}")]
    Magic {
        /// As found.
        found: u16,
        /// The version's.
        expected: u16,
    },
    /// Flags that no version sets, or a long header in the wrong place.
    #[error("its flags are {found:04X}")]
    Flags {
        /// As found.
        found: u16,
    },
    /// The page belongs somewhere else.
    #[error("it says that it lies at {found}")]
    Address {
        /// Where it says it lies.
        found: Lsn,
    },
    /// The segment is another cluster's.
    #[error("it belongs to the cluster with system identifier {found}, not {expected}")]
    SystemIdentifier {
        /// As found.
        found: SystemIdentifier,
        /// The cluster's.
        expected: SystemIdentifier,
    },
    /// The segment has another size.
    #[error("it belongs to a log with segments of {found} bytes, not {expected}")]
    SegmentSize {
        /// As found.
        found: u32,
        /// The cluster's.
        expected: u64,
    },
    /// The server was built with another WAL block size.
    #[error("it belongs to a log with blocks of {found} bytes. Only 8192 is supported")]
    BlockSize {
        /// As found.
        found: u32,
    },
    /// The timeline is 0, or smaller than the page's before.
    #[error("its timeline {found} does not follow timeline {before}")]
    Timeline {
        /// As found.
        found: u32,
        /// That of the page before; 0 when unknown.
        before: u32,
    },
}

impl WalPageHeader {
    /// Bytes the header takes, told by its first four bytes.
    pub fn size_from_start(start: [u8; 4]) -> usize {
        let [_, _, low, high] = start;
        if u16::from_le_bytes([low, high]) & LONG != 0 {
            LONG_HEADER_SIZE
        } else {
            SHORT_HEADER_SIZE
        }
    }

    /// Reads a header; `None` when `bytes` is shorter than it.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let magic = reader.u16()?;
        let flags = reader.u16()?;
        let raw_timeline = reader.u32()?;
        let address = Lsn::new(reader.u64()?);
        let remaining = reader.u32()?;
        reader.u32()?;
        let long = if flags & LONG == 0 {
            None
        } else {
            Some(LongHeader {
                system_identifier: SystemIdentifier::new(reader.u64()?),
                segment_size: reader.u32()?,
                block_size: reader.u32()?,
            })
        };
        Some(Self {
            magic,
            flags,
            raw_timeline,
            address,
            remaining,
            long,
        })
    }

    /// Bytes this header takes.
    pub fn size(&self) -> usize {
        if self.long.is_some() {
            LONG_HEADER_SIZE
        } else {
            SHORT_HEADER_SIZE
        }
    }

    /// The page's timeline.
    pub fn timeline(&self) -> Option<TimelineId> {
        TimelineId::new(self.raw_timeline)
    }

    /// Whether the page begins inside a record.
    pub fn continues_record(&self) -> bool {
        self.flags & CONTINUES != 0
    }

    /// Whether the page's first record takes the place of one whose continuation was lost.
    pub fn overwrites_record(&self) -> bool {
        self.flags & OVERWRITES != 0
    }

    /// Whether every field is 0: the page was never written.
    pub fn is_zero(&self) -> bool {
        let Self {
            magic,
            flags,
            raw_timeline,
            address,
            remaining,
            long,
        } = *self;
        (magic, flags, raw_timeline, remaining) == (0, 0, 0, 0)
            && !address.is_valid()
            && long.is_none()
    }

    /// Whether the page is left over from an earlier use of a recycled segment file: a good header whose
    /// address lies whole segments back.
    pub fn is_recycled(&self, expected: &PageExpectation) -> bool {
        let back = expected.address.bytes_since(self.address);
        self.magic == expected.version.row().wal_page_magic
            && back > 0
            && back.is_multiple_of(expected.segment_size.bytes())
    }

    /// Checks the header.
    ///
    /// # Errors
    /// With the first thing that does not agree.
    pub fn validate(&self, expected: &PageExpectation) -> Result<(), PageFault> {
        let magic = expected.version.row().wal_page_magic;
        if self.magic != magic {
            return Err(PageFault::Magic {
                found: self.magic,
                expected: magic,
            });
        }
        if self.flags & !ALL_FLAGS != 0 {
            return Err(PageFault::Flags { found: self.flags });
        }
        match &self.long {
            Some(long) => long.validate(expected)?,
            None if expected.segment_size.floor(expected.address) == expected.address => {
                return Err(PageFault::Flags { found: self.flags });
            }
            None => {}
        }
        if self.address != expected.address {
            return Err(PageFault::Address {
                found: self.address,
            });
        }
        let before = expected.timeline.map_or(0, TimelineId::get);
        if self.raw_timeline == 0 || self.raw_timeline < before {
            return Err(PageFault::Timeline {
                found: self.raw_timeline,
                before,
            });
        }
        Ok(())
    }
}

impl PageExpectation {
    /// The header that a page needs for records that begin on it to be read. `None` where the cluster or the timeline is
    /// not known.
    pub fn header(&self) -> Option<Vec<u8>> {
        let (system_identifier, timeline) = (self.system_identifier?, self.timeline?);
        let is_first = self.segment_size.floor(self.address) == self.address;
        let flags = if is_first { LONG } else { 0 };
        let mut bytes = Vec::with_capacity(LONG_HEADER_SIZE);
        bytes.extend(self.version.row().wal_page_magic.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend(timeline.get().to_le_bytes());
        bytes.extend(self.address.get().to_le_bytes());
        bytes.extend([0; 8]);
        if is_first {
            bytes.extend(system_identifier.get().to_le_bytes());
            let size = u32::try_from(self.segment_size.bytes()).ok()?;
            bytes.extend(size.to_le_bytes());
            bytes.extend(u32::try_from(WAL_PAGE_SIZE).ok()?.to_le_bytes());
        }
        Some(bytes)
    }
}

impl LongHeader {
    fn validate(&self, expected: &PageExpectation) -> Result<(), PageFault> {
        if let Some(id) = expected.system_identifier
            && self.system_identifier != id
        {
            return Err(PageFault::SystemIdentifier {
                found: self.system_identifier,
                expected: id,
            });
        }
        if u64::from(self.segment_size) != expected.segment_size.bytes() {
            return Err(PageFault::SegmentSize {
                found: self.segment_size,
                expected: expected.segment_size.bytes(),
            });
        }
        if usize::try_from(self.block_size) != Ok(WAL_PAGE_SIZE) {
            return Err(PageFault::BlockSize {
                found: self.block_size,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expectation(address: u64) -> PageExpectation {
        PageExpectation {
            version: MajorVersion::try_from(15).unwrap(),
            segment_size: SegmentSize::DEFAULT,
            address: Lsn::new(address),
            system_identifier: Some(SystemIdentifier::new(7)),
            timeline: TimelineId::new(2),
        }
    }

    fn long_header() -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(0xD110_u16.to_le_bytes());
        bytes.extend(LONG.to_le_bytes());
        bytes.extend(2_u32.to_le_bytes());
        bytes.extend(0x100_0000_u64.to_le_bytes());
        bytes.extend([0; 8]);
        bytes.extend(7_u64.to_le_bytes());
        bytes.extend((16_u32 << 20).to_le_bytes());
        bytes.extend(8192_u32.to_le_bytes());
        bytes
    }

    #[test]
    fn header_of_a_segments_first_page_is_read_and_accepted() {
        let bytes = long_header();
        let header = WalPageHeader::parse(&bytes).unwrap();
        assert_eq!(header.size(), 40);
        assert_eq!(header.validate(&expectation(0x100_0000)), Ok(()));
        assert!(WalPageHeader::parse(&bytes[..39]).is_none());
    }

    #[test]
    fn header_that_is_made_is_the_one_that_is_expected() {
        let made = expectation(0x100_0000).header().unwrap();
        assert_eq!(made, long_header());
        let expected = expectation(0x100_2000);
        let made = expected.header().unwrap();
        assert_eq!(made.len(), SHORT_HEADER_SIZE);
        let header = WalPageHeader::parse(&made).unwrap();
        assert_eq!(header.validate(&expected), Ok(()));
    }

    #[test]
    fn every_field_that_disagrees_is_named() {
        for (at, value) in [
            (0, 0x11),
            (2, 0x12),
            (4, 1),
            (9, 1),
            (24, 8),
            (34, 9),
            (37, 1),
        ] {
            let mut bytes = long_header();
            bytes[at] = value;
            let header = WalPageHeader::parse(&bytes).unwrap();
            assert!(header.validate(&expectation(0x100_0000)).is_err(), "{at}");
        }
    }

    #[test]
    fn first_page_of_a_segment_needs_a_long_header() {
        let mut bytes = long_header();
        bytes[2] = 0;
        let header = WalPageHeader::parse(&bytes).unwrap();
        assert_eq!(
            header.validate(&expectation(0x100_0000)),
            Err(PageFault::Flags { found: 0 })
        );
    }

    #[test]
    fn page_of_a_recycled_segment_is_told_from_a_misplaced_one() {
        let header = WalPageHeader::parse(&long_header()).unwrap();
        assert!(header.is_recycled(&expectation(0x300_0000)));
        assert!(!header.is_recycled(&expectation(0x300_2000)));
        assert!(!header.is_recycled(&expectation(0x100_0000)));
    }
}
