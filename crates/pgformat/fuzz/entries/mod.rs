//! What the fuzz targets do with their input, and what they begin with. `tests/fuzz_entries.rs` runs the same
//! without a fuzzer.

pub(crate) mod filter;
pub(crate) mod image;
pub(crate) mod log;
pub(crate) mod records;
pub(crate) mod seeds;
pub(crate) mod summary;

use everpoint_pgformat::{Lsn, MajorVersion, wal::segment::SegmentSize};

/// How many bytes of an input say how the log behind them is to be read.
const LOG_HEAD: usize = 8;

/// Log, and how it is read.
struct LogInput<'a> {
    version: MajorVersion,
    size: SegmentSize,
    /// A page's start.
    start: Lsn,
    /// Bytes given at once.
    cut: usize,
    /// Free for the target.
    choice: u8,
    log: &'a [u8],
}

impl<'a> LogInput<'a> {
    /// The head: version, size of segments, `choice`, `cut`, and the number of the first page.
    fn parse(data: &'a [u8]) -> Option<Self> {
        let ([major, size, choice, cut, page @ ..], log) = data.split_first_chunk::<LOG_HEAD>()?;
        Some(Self {
            version: version(*major)?,
            size: SegmentSize::try_from(1 << (20 + u32::from(size % 11))).ok()?,
            start: Lsn::new(u64::from(u32::from_le_bytes(*page)) * 8192),
            cut: usize::from(*cut) * 37 + 1,
            choice: *choice,
            log,
        })
    }
}

fn version(choice: u8) -> Option<MajorVersion> {
    MajorVersion::try_from(15 + u16::from(choice % 4)).ok()
}
