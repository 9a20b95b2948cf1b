//! Summaries of write-ahead log: made while log comes in, stored beside it, read back, and made anew from
//! stored log where one is missing, damaged or doubtful.
//!
//! What a summary says is told in [`everpoint_pgformat::wal_summary`]. It is never the only source of anything:
//! [`SummaryReader`] reads the log where no summary can be trusted.

mod chronicle;
mod follow;
mod reader;
mod rebuild;
mod source;
mod summarise;

use everpoint_pgformat::{MajorVersion, SystemIdentifier, wal::segment::SegmentSize};
use everpoint_repository::{InstanceName, Repository};

use crate::instance_record::InstanceRecord;

pub use chronicle::{Asked, Chronicle};
pub(crate) use follow::store;
pub use follow::{FollowError, Follower, MAX_CATCH_UP_BYTES};
pub use reader::{
    Begin, Doubt, Origin, SummaryEvent, SummaryPiece, SummaryReadError, SummaryReader,
};
pub use rebuild::{Extent, RebuildEvent, Rebuilt, rebuild};
pub use source::{Facts, Source, Sources};
pub use summarise::{Knowledge, LogSummariser, SummariseError};

/// Log that one summary made from stored log covers at the most.
pub const DERIVED_SUMMARY_BYTES: u64 = 64 << 20;

/// Whose log is summarised, and where it is stored.
#[derive(Clone, Debug)]
pub struct SummaryContext {
    /// The repository.
    pub repository: Repository,
    /// The instance.
    pub instance: InstanceName,
    /// The cluster.
    pub system_identifier: SystemIdentifier,
    /// The version that wrote the log.
    pub version: MajorVersion,
    /// The size of WAL segments.
    pub segment_size: SegmentSize,
}

impl SummaryContext {
    /// For an instance.
    pub fn new(repository: &Repository, instance: &InstanceName, record: &InstanceRecord) -> Self {
        Self {
            repository: repository.clone(),
            instance: instance.clone(),
            system_identifier: record.system_identifier,
            version: record.version,
            segment_size: record.segment_size,
        }
    }
}
