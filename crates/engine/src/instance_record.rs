//! What is known of an instance, kept in the repository.

use std::path::PathBuf;

use everpoint_pgformat::{MajorVersion, SystemIdentifier, wal::segment::SegmentSize};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The description of an instance. Every change is a new revision of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceRecord {
    /// The cluster.
    pub system_identifier: SystemIdentifier,
    /// The server's version when it was last looked at.
    pub version: MajorVersion,
    /// How the server is reached, as a connection string.
    pub connection: String,
    /// Its data directory on this machine.
    pub data_directory: PathBuf,
    /// The size of its WAL segments.
    pub segment_size: SegmentSize,
    /// How its write-ahead log comes here.
    pub wal: WalSupply,
    /// When it was added.
    pub added_at: Timestamp,
}

/// How an instance's write-ahead log comes into the repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum WalSupply {
    /// Streamed through a replication slot by `everpoint wal receive`.
    Stream {
        /// The slot.
        slot: String,
    },
    /// Pushed by the server's `archive_command`, `everpoint wal push`.
    Push,
}
