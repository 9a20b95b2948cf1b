//! `global/pg_control` (`src/include/catalog/pg_control.h`), one layout per format number.

use crate::{
    Lsn, MajorVersion, SystemIdentifier, TimelineId, bytes::Reader, ids::BLOCK_SIZE,
    version::UnsupportedVersion, wal::segment::SegmentSize,
};

/// What a backup or restore needs to know from a control file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlFile {
    /// Which cluster this is.
    pub system_identifier: SystemIdentifier,
    /// The server version that wrote it.
    pub version: MajorVersion,
    /// Whether the cluster is running, stopped or recovering.
    pub state: ClusterState,
    /// The latest checkpoint's record.
    pub checkpoint: Lsn,
    /// That checkpoint's redo point.
    pub redo: Lsn,
    /// That checkpoint's timeline.
    pub timeline: TimelineId,
    /// Recovery must replay at least to here before the cluster is consistent.
    pub min_recovery_point: Lsn,
    /// Where the backup being recovered began; invalid when none is.
    pub backup_start: Lsn,
    /// The size of WAL segments.
    pub segment_size: SegmentSize,
    /// Blocks in a full segment file of a relation.
    pub blocks_per_segment: u32,
    /// Whether pages carry checksums.
    pub checksums: Checksums,
    /// Settings that a recovering server needs at least as large.
    pub limits: RecoveryLimits,
}

/// Whether a cluster's pages carry checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksums {
    /// They do.
    On,
    /// They do not.
    Off,
}

/// `DBState`: what the cluster was doing when the control file was last written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterState {
    /// `DB_STARTUP`.
    StartingUp,
    /// `DB_SHUTDOWNED`: stopped cleanly.
    ShutDown,
    /// `DB_SHUTDOWNED_IN_RECOVERY`.
    ShutDownInRecovery,
    /// `DB_SHUTDOWNING`.
    ShuttingDown,
    /// `DB_IN_CRASH_RECOVERY`.
    InCrashRecovery,
    /// `DB_IN_ARCHIVE_RECOVERY`.
    InArchiveRecovery,
    /// `DB_IN_PRODUCTION`: running, or crashed while running.
    InProduction,
}

/// Settings recorded in the control file that a standby or recovering server must not undercut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecoveryLimits {
    /// `max_connections`.
    pub max_connections: i32,
    /// `max_worker_processes`.
    pub max_worker_processes: i32,
    /// `max_wal_senders`.
    pub max_wal_senders: i32,
    /// `max_prepared_transactions`.
    pub max_prepared_transactions: i32,
    /// `max_locks_per_transaction`.
    pub max_locks_per_transaction: i32,
}

/// A control file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlFileError {
    /// Fewer bytes than the layout has.
    #[error("pg_control is too short ({len} bytes)")]
    TooShort {
        /// Bytes there are.
        len: usize,
    },
    /// Torn or damaged: a running server may be writing it at this moment.
    #[error(
        "pg_control does not match its CRC. If the server is writing it right now, reading again helps"
    )]
    BadCrc,
    /// Another major version, or another byte order.
    #[error("pg_control has format {format}, which no supported PostgreSQL (15 to 18) writes")]
    UnknownFormat {
        /// `pg_control_version` as found.
        format: u32,
    },
    /// A catalog version of no supported release.
    #[error(transparent)]
    Version(#[from] UnsupportedVersion),
    /// The server was built with other block sizes than the usual.
    #[error(
        "pg_control says `{what}` is {found}. Only servers built with {expected} are supported"
    )]
    UnsupportedBuild {
        /// The setting.
        what: &'static str,
        /// As found.
        found: u32,
        /// The only value supported.
        expected: u32,
    },
    /// A field holds a value PostgreSQL never writes.
    #[error("pg_control has an impossible value in `{field}`")]
    BadField {
        /// The field.
        field: &'static str,
    },
}

/// Where the fields lie, in bytes from the start. Formats 1300 (PostgreSQL 15 and 16), 1700 and 1800
/// differ only in front of the CRC: 17 fills padding, 18 adds `default_char_signedness`.
mod offset {
    pub(super) const STATE: usize = 16;
    pub(super) const CHECKPOINT: usize = 32;
    pub(super) const REDO: usize = 40;
    pub(super) const TIMELINE: usize = 48;
    pub(super) const MIN_RECOVERY_POINT: usize = 136;
    pub(super) const BACKUP_START: usize = 152;
    pub(super) const LIMITS: usize = 180;
    pub(super) const BLOCK_SIZE: usize = 216;
    pub(super) const CHECKSUM_VERSION: usize = 252;
}

/// Where the CRC lies, which covers everything before it.
fn crc_offset(format: u32) -> Option<usize> {
    match format {
        1300 | 1700 => Some(288),
        1800 => Some(292),
        _ => None,
    }
}

impl ControlFile {
    /// Reads the contents of `global/pg_control`.
    ///
    /// # Errors
    /// See [`ControlFileError`]; [`ControlFileError::BadCrc`] is worth a retry on a running server.
    pub fn parse(bytes: &[u8]) -> Result<Self, ControlFileError> {
        let short = || ControlFileError::TooShort { len: bytes.len() };
        let at = |offset| Reader::at(bytes, offset).ok_or_else(short);
        let u32_at = |offset| at(offset)?.u32().ok_or_else(short);
        let i32_at = |offset| at(offset)?.i32().ok_or_else(short);
        let lsn_at = |offset| at(offset)?.u64().map(Lsn::new).ok_or_else(short);

        let format = u32_at(8)?;
        let crc = crc_offset(format).ok_or(ControlFileError::UnknownFormat { format })?;
        let covered = bytes.get(..crc).ok_or_else(short)?;
        if crate::wal::crc32c(covered) != u32_at(crc)? {
            return Err(ControlFileError::BadCrc);
        }
        let version = MajorVersion::from_catalog_version(u32_at(12)?)?;
        let builds = [
            ("block size", u32_at(offset::BLOCK_SIZE)?, 8192),
            ("WAL block size", u32_at(offset::BLOCK_SIZE + 8)?, 8192),
        ];
        debug_assert_eq!(BLOCK_SIZE, 8192);
        for (what, found, expected) in builds {
            if found != expected {
                return Err(ControlFileError::UnsupportedBuild {
                    what,
                    found,
                    expected,
                });
            }
        }
        let bad = |field| ControlFileError::BadField { field };
        Ok(Self {
            system_identifier: SystemIdentifier::new(at(0)?.u64().ok_or_else(short)?),
            version,
            state: state(u32_at(offset::STATE)?).ok_or(bad("state"))?,
            checkpoint: lsn_at(offset::CHECKPOINT)?,
            redo: lsn_at(offset::REDO)?,
            timeline: TimelineId::new(u32_at(offset::TIMELINE)?).ok_or(bad("ThisTimeLineID"))?,
            min_recovery_point: lsn_at(offset::MIN_RECOVERY_POINT)?,
            backup_start: lsn_at(offset::BACKUP_START)?,
            segment_size: SegmentSize::try_from(u32_at(offset::BLOCK_SIZE + 12)?)
                .map_err(|_| bad("xlog_seg_size"))?,
            blocks_per_segment: u32_at(offset::BLOCK_SIZE + 4)?,
            checksums: match u32_at(offset::CHECKSUM_VERSION)? {
                0 => Checksums::Off,
                _ => Checksums::On,
            },
            limits: RecoveryLimits {
                max_connections: i32_at(offset::LIMITS)?,
                max_worker_processes: i32_at(offset::LIMITS + 4)?,
                max_wal_senders: i32_at(offset::LIMITS + 8)?,
                max_prepared_transactions: i32_at(offset::LIMITS + 12)?,
                max_locks_per_transaction: i32_at(offset::LIMITS + 16)?,
            },
        })
    }
}

fn state(raw: u32) -> Option<ClusterState> {
    Some(match raw {
        0 => ClusterState::StartingUp,
        1 => ClusterState::ShutDown,
        2 => ClusterState::ShutDownInRecovery,
        3 => ClusterState::ShuttingDown,
        4 => ClusterState::InCrashRecovery,
        5 => ClusterState::InArchiveRecovery,
        6 => ClusterState::InProduction,
        _ => return None,
    })
}
