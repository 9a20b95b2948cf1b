//! WAL segment files: their size and their names (`src/include/access/xlog_internal.h`).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Lsn, TimelineId};

/// The size of a cluster's WAL segments: a power of two from 1 MiB to 1 GiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct SegmentSize(u32);

/// Not a WAL segment size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{bytes} bytes is no WAL segment size. It must be a power of two from 1 MiB to 1 GiB")]
pub struct SegmentSizeError {
    bytes: u32,
}

impl SegmentSize {
    /// 16 MiB, what `initdb` takes unless told otherwise.
    pub const DEFAULT: Self = Self(16 << 20);

    /// Bytes in a segment.
    pub const fn bytes(self) -> u64 {
        self.0 as u64
    }

    /// The segment that holds `lsn`.
    pub const fn segment_of(self, lsn: Lsn) -> u64 {
        lsn.get() / self.bytes()
    }

    /// The first position of a segment.
    pub const fn start_of(self, segment: u64) -> Lsn {
        Lsn::new(segment.saturating_mul(self.bytes()))
    }

    /// The first position of the segment that holds `lsn`.
    pub const fn floor(self, lsn: Lsn) -> Lsn {
        self.start_of(self.segment_of(lsn))
    }

    /// `lsn` itself when it begins a segment, else the first position of the next.
    pub const fn ceil(self, lsn: Lsn) -> Lsn {
        let floor = self.floor(lsn);
        if floor.get() == lsn.get() {
            floor
        } else {
            floor.advance(self.bytes())
        }
    }

    const fn segments_per_id(self) -> u64 {
        0x1_0000_0000 / self.bytes()
    }
}

impl TryFrom<u32> for SegmentSize {
    type Error = SegmentSizeError;

    fn try_from(bytes: u32) -> Result<Self, Self::Error> {
        if bytes.is_power_of_two() && (1 << 20..=1 << 30).contains(&bytes) {
            Ok(Self(bytes))
        } else {
            Err(SegmentSizeError { bytes })
        }
    }
}

impl From<SegmentSize> for u32 {
    fn from(size: SegmentSize) -> Self {
        size.0
    }
}

/// The name of a WAL segment file, such as `000000010000000A000000FF`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentName {
    timeline: TimelineId,
    high: u32,
    low: u32,
}

impl SegmentName {
    /// The name of segment number `segment` (counted from LSN 0) on `timeline`.
    pub fn new(timeline: TimelineId, segment: u64, size: SegmentSize) -> Self {
        let per_id = size.segments_per_id();
        Self {
            timeline,
            high: u32::try_from(segment / per_id).unwrap_or(u32::MAX),
            low: u32::try_from(segment % per_id).unwrap_or(u32::MAX),
        }
    }

    /// Reads a name; `None` when it is not a plain segment's (a `.partial`, `.history` or `.backup` file,
    /// or anything else).
    pub fn parse(name: &str) -> Option<Self> {
        if name.len() != 24 || !name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F')) {
            return None;
        }
        let part = |range: std::ops::Range<usize>| {
            name.get(range)
                .and_then(|text| u32::from_str_radix(text, 16).ok())
        };
        Some(Self {
            timeline: TimelineId::new(part(0..8)?)?,
            high: part(8..16)?,
            low: part(16..24)?,
        })
    }

    /// Its timeline.
    pub fn timeline(self) -> TimelineId {
        self.timeline
    }

    /// Its number, counted from LSN 0; `None` when no segment of that size can carry the name.
    pub fn number(self, size: SegmentSize) -> Option<u64> {
        let per_id = size.segments_per_id();
        (u64::from(self.low) < per_id).then(|| u64::from(self.high) * per_id + u64::from(self.low))
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:08X}{:08X}{:08X}",
            self.timeline.get(),
            self.high,
            self.low
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segment_names_follow_the_segment_size() {
        let lsn: Lsn = "A/FF000028".parse().unwrap();
        let size = SegmentSize::DEFAULT;
        let name = SegmentName::new(TimelineId::FIRST, size.segment_of(lsn), size);
        assert_eq!(name.to_string(), "000000010000000A000000FF");
        assert_eq!(SegmentName::parse(&name.to_string()), Some(name));
        assert_eq!(size.start_of(name.number(size).unwrap()), size.floor(lsn));
        let big = SegmentSize::try_from(1 << 30).unwrap();
        assert_eq!(name.number(big), None);
        assert!(SegmentName::parse("000000010000000A000000FF.partial").is_none());
        assert!(SegmentSize::try_from(3 << 20).is_err());
    }
}
