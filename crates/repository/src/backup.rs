//! What a manifest says of a backup besides its files.

use everpoint_pgformat::{
    ByteCount, Lsn, MajorVersion, Oid, SystemIdentifier, TimelineId, wal::segment::SegmentSize,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{BackupId, ObjectId};

/// What a backup holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "type")]
pub enum BackupKind {
    /// Every file.
    Full,
    /// What changed since a full backup, which it needs.
    Differential {
        /// That full backup.
        base: BackupId,
    },
}

impl BackupKind {
    /// As a user writes it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Differential { .. } => "differential",
        }
    }

    /// The backup it needs.
    pub fn base(&self) -> Option<&BackupId> {
        match self {
            Self::Full => None,
            Self::Differential { base } => Some(base),
        }
    }
}

/// A finished backup: the metadata of its manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    /// Its identifier.
    pub id: BackupId,
    /// Full or differential.
    #[serde(flatten)]
    pub kind: BackupKind,
    /// The cluster.
    pub system_identifier: SystemIdentifier,
    /// The server's version.
    pub version: MajorVersion,
    /// The server's exact version, such as 150018.
    pub server_version_num: u32,
    /// The timeline at its start.
    pub timeline: TimelineId,
    /// Replay begins here: the redo point of the backup's checkpoint.
    pub start_lsn: Lsn,
    /// The cluster is consistent once replay has reached this.
    pub stop_lsn: Lsn,
    /// When it began, by this machine's clock.
    pub started_at: Timestamp,
    /// When the server ended backup mode, by the server's clock.
    pub stopped_at: Timestamp,
    /// The size of WAL segments.
    pub segment_size: SegmentSize,
    /// Blocks in a full segment file of a relation.
    pub blocks_per_segment: u32,
    /// Whether the cluster's pages carry checksums.
    pub checksums: bool,
    /// The contents of `global/pg_control`, in hexadecimal.
    pub control_file: String,
    /// The `backup_label` to restore.
    pub backup_label: String,
    /// Tablespaces and where they were.
    pub tablespaces: Vec<Tablespace>,
    /// Databases there were.
    pub databases: Vec<Database>,
    /// Directories to make, relative to the data directory, with their modes.
    pub directories: Vec<Directory>,
    /// The packs that the files' frames lie in, own ones and others'.
    pub packs: Vec<Pack>,
    /// For each frame of the manifest, the path of the first file in it.
    pub sections: Vec<String>,
    /// Sizes.
    pub totals: Totals,
    /// Pages that were damaged in the cluster itself when it was read.
    pub damaged_pages: Vec<DamagedPages>,
    /// Version of Everpoint that wrote it.
    pub written_by: String,
}

/// A tablespace outside the data directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tablespace {
    /// Its OID, the link's name in `pg_tblspc`.
    pub oid: Oid,
    /// The directory it was in; empty for one inside `pg_tblspc` itself.
    pub location: String,
}

/// A database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Database {
    /// Its OID.
    pub oid: Oid,
    /// Its name.
    pub name: String,
}

/// A directory of the data directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directory {
    /// Relative to the data directory.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
}

/// A pack that a backup's files lie in.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Pack {
    /// Its identifier.
    pub id: ObjectId,
    /// The backup that wrote it.
    pub backup: BackupId,
    /// The data key it is sealed with.
    pub data_key: ObjectId,
    /// Its size in bytes.
    pub size: ByteCount,
}

/// Sizes of a backup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Files.
    pub files: u64,
    /// Bytes of all files as restored.
    pub restored_bytes: u64,
    /// Bytes read from the data directory.
    pub read_bytes: u64,
    /// Bytes that this backup added to the repository, without its manifest.
    pub stored_bytes: u64,
    /// Bytes of files that were referred to in earlier backups' packs instead.
    pub reused_bytes: u64,
}

/// Damaged pages of one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamagedPages {
    /// The file, relative to the data directory.
    pub path: String,
    /// Their blocks within the file.
    pub blocks: Vec<u32>,
}
