//! Why and where the reading of log ends.

use crate::{Lsn, TimelineId};

use super::{page::PageFault, record::RecordFault};

/// The log cannot be read on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "write-ahead log on timeline {timeline} cannot be read on from {at}: {fault}",
    timeline = .timeline.map_or_else(|| "unknown".to_owned(), |id| id.to_string())
)]
pub struct WalError {
    /// The record that cannot be read.
    pub at: Lsn,
    /// The timeline of the last page seen.
    pub timeline: Option<TimelineId>,
    /// What is wrong.
    #[source]
    pub fault: WalFault,
}

/// Why log cannot be read on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WalFault {
    /// The bytes given do not follow those given before.
    #[error("the bytes given begin at {found}, and those at {wanted} were wanted")]
    Gap {
        /// Where they begin.
        found: Lsn,
        /// Where they should.
        wanted: Lsn,
    },
    /// Records cannot begin here.
    #[error("no record can begin at this position")]
    Position,
    /// A page header is wrong.
    #[error("the header of the page at {page} is wrong: {fault}")]
    Page {
        /// Where the page lies.
        page: Lsn,
        /// What is wrong with it.
        #[source]
        fault: PageFault,
    },
    /// The page at which reading began continues a record that began before.
    #[error("the page at {page} begins inside a record")]
    UnexpectedContinuation {
        /// Where the page lies.
        page: Lsn,
    },
    /// The record goes on at the next page, which does not continue it.
    #[error("the page at {page} does not continue the record")]
    LostContinuation {
        /// Where the page lies.
        page: Lsn,
    },
    /// A record took the place of the continuation of another, and does not say which.
    #[error("it replaces the end of the record at {lost} and does not say so")]
    WrongOverwrite {
        /// The record without an end.
        lost: Lsn,
    },
    /// The record itself is wrong.
    #[error(transparent)]
    Record(#[from] RecordFault),
}

/// Where written log ends, in a segment that is not full.
///
/// This is what the end of the current segment in `pg_wal` looks like, and also what a hole in the middle of
/// archived log looks like: whoever knows that more must follow takes it for damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndOfLog {
    /// Behind the last whole record: where the next one is to begin.
    pub at: Lsn,
    /// How the end shows.
    pub sign: EndSign,
}

/// How the end of written log shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndSign {
    /// Zeros instead of a record or a page.
    Zeros,
    /// A page left over from an earlier use of the segment's file.
    RecycledPage,
}
