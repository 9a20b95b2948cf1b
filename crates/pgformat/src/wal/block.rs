//! Block references of WAL records, and the page images in them.
//!
//! Format: `XLogRecordBlockHeader`, `XLogRecordBlockImageHeader` and `XLogRecordBlockCompressHeader` in
//! `src/include/access/xlogrecord.h`, the same in PostgreSQL 15 to 18.

use crate::{
    BlockNumber,
    bytes::{Reader, length},
    ids::BLOCK_SIZE,
    relation::{Fork, RelationId},
};

use super::record::RecordFault;

const FORK_MASK: u8 = 0x0F;
const HAS_IMAGE: u8 = 0x10;
const HAS_DATA: u8 = 0x20;
const WILL_INIT: u8 = 0x40;
const SAME_RELATION: u8 = 0x80;

const IMAGE_HAS_HOLE: u8 = 0x01;
const IMAGE_APPLY: u8 = 0x02;
const IMAGE_PGLZ: u8 = 0x04;
const IMAGE_LZ4: u8 = 0x08;
const IMAGE_ZSTD: u8 = 0x10;
const IMAGE_COMPRESSED: u8 = IMAGE_PGLZ | IMAGE_LZ4 | IMAGE_ZSTD;

/// A block that a record changes, or at least refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockReference<'a> {
    /// Its number within the record, at most 32.
    pub id: u8,
    /// The relation.
    pub relation: RelationId,
    /// The fork.
    pub fork: Fork,
    /// The block.
    pub block: BlockNumber,
    /// Whether replay makes the page anew (`BKPBLOCK_WILL_INIT`).
    pub initialises: bool,
    /// The whole page, when the record carries it.
    pub image: Option<PageImage<'a>>,
    /// What the resource manager says of the change; often empty when there is an image.
    pub data: &'a [u8],
}

/// A whole page in a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageImage<'a> {
    /// The page without its hole, perhaps compressed.
    pub bytes: &'a [u8],
    /// Where the hole, which holds zeros, begins; 0 when there is none.
    pub hole_offset: u16,
    /// Bytes in the hole; 0 when there is none.
    pub hole_length: u16,
    /// How `bytes` is compressed.
    pub compression: Option<ImageCompression>,
    /// Whether replay uses the image; it is only for comparison otherwise.
    pub applied: bool,
}

/// How a page image is compressed (`wal_compression`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageCompression {
    /// PostgreSQL's own (`src/common/pg_lzcompress.c`).
    Pglz,
    /// LZ4, one raw block.
    Lz4,
    /// Zstandard, one frame.
    Zstd,
}

/// A block reference as positions within its record.
#[derive(Clone, Copy, Debug)]
pub(super) struct BlockParts {
    id: u8,
    flags: u8,
    fork: Fork,
    relation: RelationId,
    block: BlockNumber,
    image: Option<ImageParts>,
    data_len: u16,
    /// Where the image, and after it the data, begins in the record.
    payload: usize,
}

#[derive(Clone, Copy, Debug)]
struct ImageParts {
    len: u16,
    hole_offset: u16,
    hole_length: u16,
    info: u8,
}

impl BlockParts {
    /// Reads the header after the reference's number.
    pub(super) fn parse(
        id: u8,
        reader: &mut Reader<'_>,
        previous: Option<RelationId>,
    ) -> Result<Self, RecordFault> {
        let short = || RecordFault::Layout("a block header is cut short");
        let flags = reader.u8().ok_or_else(short)?;
        let data_len = reader.u16().ok_or_else(short)?;
        if (flags & HAS_DATA != 0) != (data_len != 0) {
            return Err(RecordFault::Layout(
                "a block's data length contradicts its flags",
            ));
        }
        let image = match flags & HAS_IMAGE {
            0 => None,
            _ => Some(ImageParts::parse(reader)?),
        };
        let relation = if flags & SAME_RELATION == 0 {
            RelationId {
                tablespace: reader.u32().ok_or_else(short)?.into(),
                database: reader.u32().ok_or_else(short)?.into(),
                relfilenode: reader.u32().ok_or_else(short)?.into(),
            }
        } else {
            previous.ok_or(RecordFault::Layout(
                "a block is of the same relation as the one before, and there is none",
            ))?
        };
        let block = BlockNumber::new(reader.u32().ok_or_else(short)?);
        let fork = Fork::from_number(flags & FORK_MASK)
            .ok_or(RecordFault::Layout("a block is of an unknown fork"))?;
        Ok(Self {
            id,
            flags,
            fork,
            relation,
            block,
            image,
            data_len,
            payload: 0,
        })
    }

    pub(super) fn relation(&self) -> RelationId {
        self.relation
    }

    /// Bytes of image and data.
    pub(super) fn payload_len(&self) -> usize {
        usize::from(self.image.map_or(0, |image| image.len)) + usize::from(self.data_len)
    }

    /// Says where image and data begin.
    pub(super) fn place_at(&mut self, payload: usize) {
        self.payload = payload;
    }

    /// The reference with its bytes out of `record`.
    #[inline]
    pub(super) fn resolve<'a>(&self, record: &'a [u8]) -> BlockReference<'a> {
        let rest = record.get(self.payload..).unwrap_or_default();
        let image_len = usize::from(self.image.map_or(0, |image| image.len));
        let (image_bytes, rest) = rest.split_at_checked(image_len).unwrap_or_default();
        let data = rest.get(..usize::from(self.data_len)).unwrap_or_default();
        BlockReference {
            id: self.id,
            relation: self.relation,
            fork: self.fork,
            block: self.block,
            initialises: self.flags & WILL_INIT != 0,
            image: self.image.map(|image| image.resolve(image_bytes)),
            data,
        }
    }
}

impl ImageParts {
    fn parse(reader: &mut Reader<'_>) -> Result<Self, RecordFault> {
        let short = || RecordFault::Layout("an image header is cut short");
        let len = reader.u16().ok_or_else(short)?;
        let hole_offset = reader.u16().ok_or_else(short)?;
        let info = reader.u8().ok_or_else(short)?;
        let compressed = info & IMAGE_COMPRESSED != 0;
        let has_hole = info & IMAGE_HAS_HOLE != 0;
        let hole_length = match (compressed, has_hole) {
            (true, true) => reader.u16().ok_or_else(short)?,
            (true, false) => 0,
            (false, _) => u16::try_from(BLOCK_SIZE)
                .ok()
                .and_then(|size| size.checked_sub(len))
                .ok_or(RecordFault::Layout("an image is longer than a page"))?,
        };
        let image = Self {
            len,
            hole_offset,
            hole_length,
            info,
        };
        image.check(compressed, has_hole).map(|()| image)
    }

    fn check(&self, compressed: bool, has_hole: bool) -> Result<(), RecordFault> {
        let size = usize::from(self.len);
        let hole_end = usize::from(self.hole_offset) + usize::from(self.hole_length);
        let hole_fits = if has_hole {
            self.hole_offset != 0 && self.hole_length != 0 && hole_end <= BLOCK_SIZE
        } else {
            hole_end == 0
        };
        let size_fits = if compressed || has_hole {
            size < BLOCK_SIZE
        } else {
            size == BLOCK_SIZE
        };
        let methods = (self.info & IMAGE_COMPRESSED).count_ones();
        if hole_fits && size_fits && methods <= 1 {
            Ok(())
        } else {
            Err(RecordFault::Layout(
                "an image's length, hole and flags contradict each other",
            ))
        }
    }

    fn resolve(self, bytes: &[u8]) -> PageImage<'_> {
        PageImage {
            bytes,
            hole_offset: self.hole_offset,
            hole_length: self.hole_length,
            compression: match self.info & IMAGE_COMPRESSED {
                IMAGE_PGLZ => Some(ImageCompression::Pglz),
                IMAGE_LZ4 => Some(ImageCompression::Lz4),
                IMAGE_ZSTD => Some(ImageCompression::Zstd),
                _ => None,
            },
            applied: self.info & IMAGE_APPLY != 0,
        }
    }
}

/// Reads the length of main data behind its marker byte.
pub(super) fn main_data_len(marker: u8, reader: &mut Reader<'_>) -> Option<usize> {
    match marker {
        super::record::MAIN_DATA_SHORT => reader.u8().map(usize::from),
        _ => reader.u32().map(length),
    }
}
