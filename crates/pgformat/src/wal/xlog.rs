//! Records of the log itself: checkpoints, restore points, settings, ends of recovery.
//!
//! Format: `src/include/catalog/pg_control.h` (record kinds, `CheckPoint`) and
//! `src/include/access/xlog_internal.h`. PostgreSQL 17 added `wal_level` to checkpoints and ends of
//! recovery, and the record kind `CHECKPOINT_REDO`.

use crate::{Lsn, MajorVersion, Oid, PgTimestamp, TimelineId, TransactionId, bytes::Reader};

use super::{
    payload::{Context, PayloadError},
    record::Record,
};

/// `XLOG_CHECKPOINT_SHUTDOWN`.
pub const CHECKPOINT_SHUTDOWN: u8 = 0x00;
/// `XLOG_CHECKPOINT_ONLINE`.
pub const CHECKPOINT_ONLINE: u8 = 0x10;
/// `XLOG_NOOP`: nothing to replay.
pub const NOOP: u8 = 0x20;
/// `XLOG_NEXTOID`.
pub const NEXT_OID: u8 = 0x30;
/// `XLOG_SWITCH`: the rest of the segment is padding.
pub const SWITCH: u8 = 0x40;
/// `XLOG_BACKUP_END`.
pub const BACKUP_END: u8 = 0x50;
/// `XLOG_PARAMETER_CHANGE`.
pub const PARAMETER_CHANGE: u8 = 0x60;
/// `XLOG_RESTORE_POINT`.
pub const RESTORE_POINT: u8 = 0x70;
/// `XLOG_FPW_CHANGE`.
pub const FULL_PAGE_WRITES_CHANGE: u8 = 0x80;
/// `XLOG_END_OF_RECOVERY`.
pub const END_OF_RECOVERY: u8 = 0x90;
/// `XLOG_FPI_FOR_HINT`.
pub const FULL_PAGE_IMAGE_FOR_HINT: u8 = 0xA0;
/// `XLOG_FPI`.
pub const FULL_PAGE_IMAGE: u8 = 0xB0;
/// `XLOG_OVERWRITE_CONTRECORD`.
pub const OVERWRITE_CONTRECORD: u8 = 0xD0;
/// `XLOG_CHECKPOINT_REDO`, from PostgreSQL 17.
pub const CHECKPOINT_REDO: u8 = 0xE0;

/// Bytes of a restore point's name, its closing zero included (`MAXFNAMELEN`).
const RESTORE_POINT_NAME_SIZE: usize = 64;

/// What a record of the log itself says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XlogRecord<'a> {
    /// A checkpoint.
    Checkpoint(Checkpoint),
    /// The redo point of the online checkpoint to come (from PostgreSQL 17).
    CheckpointRedo {
        /// The level of log from here on.
        wal_level: WalLevel,
    },
    /// No object identifier below this is given out again.
    NextOid(Oid),
    /// The rest of the segment is padding.
    Switch,
    /// A backup ended.
    BackupEnd {
        /// Where it began.
        start: Lsn,
    },
    /// Settings that matter to replicas changed.
    ParameterChange(ParameterChange),
    /// A named point to recover to.
    RestorePoint(RestorePoint<'a>),
    /// Full-page writes were switched on or off.
    FullPageWrites(FullPageWrites),
    /// Recovery ended without a checkpoint; a timeline begins.
    EndOfRecovery(EndOfRecovery),
    /// Whole pages, for their own sake.
    FullPageImage,
    /// The record lost its continuation and is void.
    OverwriteContinuation {
        /// The void record.
        lost: Lsn,
        /// When that was found.
        at: PgTimestamp,
    },
    /// Nothing, or a kind that no supported version writes.
    Other,
}

/// `wal_level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WalLevel {
    /// Not enough to recover from a backup.
    Minimal,
    /// Enough to recover and to replicate.
    Replica,
    /// Enough to decode changes logically.
    Logical,
}

impl WalLevel {
    fn from_raw(raw: i32) -> Option<Self> {
        Some(match raw {
            0 => Self::Minimal,
            1 => Self::Replica,
            2 => Self::Logical,
            _ => return None,
        })
    }
}

/// Whether whole pages are logged at their first change after a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FullPageWrites {
    /// They are.
    On,
    /// They are not, and a page written in part cannot be mended.
    Off,
}

/// When a checkpoint was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckpointKind {
    /// At a stop: no other log follows but a start's.
    Shutdown,
    /// While running.
    Online,
}

/// A checkpoint (`CheckPoint`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// When it was made.
    pub kind: CheckpointKind,
    /// Where replay from it begins.
    pub redo: Lsn,
    /// Its timeline.
    pub timeline: TimelineId,
    /// The timeline before, when the checkpoint begins one; else the same.
    pub previous_timeline: TimelineId,
    /// Whether full pages are logged.
    pub full_page_writes: FullPageWrites,
    /// The level of log, from PostgreSQL 17.
    pub wal_level: Option<WalLevel>,
    /// The next transaction, with its epoch in the high half.
    pub next_transaction: u64,
    /// When it was begun, to the second.
    pub time: PgTimestamp,
    /// The oldest transaction still running, when known.
    pub oldest_active: TransactionId,
}

/// Settings that matter to replicas (`xl_parameter_change`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParameterChange {
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
    /// `wal_level`.
    pub wal_level: WalLevel,
}

/// A named point to recover to (`xl_restore_point`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestorePoint<'a> {
    /// When it was made.
    pub time: PgTimestamp,
    /// Its name, in the server's encoding.
    pub name: &'a [u8],
}

/// The end of a recovery (`xl_end_of_recovery`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndOfRecovery {
    /// When.
    pub time: PgTimestamp,
    /// The timeline that begins.
    pub timeline: TimelineId,
    /// The one it leaves.
    pub previous_timeline: TimelineId,
    /// The level of log, from PostgreSQL 17.
    pub wal_level: Option<WalLevel>,
}

impl<'a> XlogRecord<'a> {
    /// Reads a record of [`ResourceManager::XLOG`](super::resource_manager::ResourceManager::XLOG).
    ///
    /// # Errors
    /// When the record lacks what its kind must have.
    pub fn parse(record: &Record<'a>, version: MajorVersion) -> Result<Self, PayloadError> {
        let mut reader = Reader::new(record.main_data());
        Ok(match record.info() {
            CHECKPOINT_SHUTDOWN => {
                Self::Checkpoint(checkpoint(record, version, CheckpointKind::Shutdown)?)
            }
            CHECKPOINT_ONLINE => {
                Self::Checkpoint(checkpoint(record, version, CheckpointKind::Online)?)
            }
            CHECKPOINT_REDO => Self::CheckpointRedo {
                wal_level: Context::new(record, "CHECKPOINT_REDO")
                    .field("wal_level", reader.i32().and_then(WalLevel::from_raw))?,
            },
            NEXT_OID => {
                let oid = Context::new(record, "NEXTOID").field("OID", reader.u32())?;
                Self::NextOid(oid.into())
            }
            SWITCH => Self::Switch,
            BACKUP_END => {
                let start = Context::new(record, "BACKUP_END").field("start", reader.u64())?;
                Self::BackupEnd {
                    start: Lsn::new(start),
                }
            }
            PARAMETER_CHANGE => Self::ParameterChange(parameter_change(record)?),
            RESTORE_POINT => Self::RestorePoint(restore_point(record)?),
            FULL_PAGE_WRITES_CHANGE => {
                let raw = Context::new(record, "FPW_CHANGE").field("value", reader.u8())?;
                Self::FullPageWrites(full_page_writes(raw))
            }
            END_OF_RECOVERY => Self::EndOfRecovery(end_of_recovery(record, version)?),
            FULL_PAGE_IMAGE | FULL_PAGE_IMAGE_FOR_HINT => Self::FullPageImage,
            OVERWRITE_CONTRECORD => {
                let context = Context::new(record, "OVERWRITE_CONTRECORD");
                Self::OverwriteContinuation {
                    lost: Lsn::new(context.field("overwritten LSN", reader.u64())?),
                    at: PgTimestamp::from_raw(context.field("time", reader.i64())?),
                }
            }
            _ => Self::Other,
        })
    }
}

/// Whether the version's checkpoints carry `wal_level`.
fn has_wal_level(version: MajorVersion) -> bool {
    version.get() >= 17
}

fn full_page_writes(raw: u8) -> FullPageWrites {
    match raw {
        0 => FullPageWrites::Off,
        _ => FullPageWrites::On,
    }
}

fn checkpoint(
    record: &Record<'_>,
    version: MajorVersion,
    kind: CheckpointKind,
) -> Result<Checkpoint, PayloadError> {
    let context = Context::new(record, "CHECKPOINT");
    let data = record.main_data();
    let at = |offset| Reader::at(data, offset);
    let u32_at = |offset| at(offset).and_then(|mut reader| reader.u32());
    let u64_at = |offset| at(offset).and_then(|mut reader| reader.u64());
    let wal_level = if has_wal_level(version) {
        let raw = at(20).and_then(|mut reader| reader.i32());
        Some(context.field("wal_level", raw.and_then(WalLevel::from_raw))?)
    } else {
        None
    };
    let time = at(64).and_then(|mut reader| reader.i64());
    let fpw = at(16).and_then(|mut reader| reader.u8());
    Ok(Checkpoint {
        kind,
        redo: Lsn::new(context.field("redo point", u64_at(0))?),
        timeline: context.field("timeline", u32_at(8).and_then(TimelineId::new))?,
        previous_timeline: context
            .field("previous timeline", u32_at(12).and_then(TimelineId::new))?,
        full_page_writes: full_page_writes(context.field("full_page_writes", fpw)?),
        wal_level,
        next_transaction: context.field("next transaction", u64_at(24))?,
        time: PgTimestamp::from_unix_seconds(context.field("time", time)?),
        oldest_active: context
            .field("oldest active transaction", u32_at(80))?
            .into(),
    })
}

fn parameter_change(record: &Record<'_>) -> Result<ParameterChange, PayloadError> {
    let context = Context::new(record, "PARAMETER_CHANGE");
    let mut reader = Reader::new(record.main_data());
    let mut next = |name| context.field(name, reader.i32());
    Ok(ParameterChange {
        max_connections: next("max_connections")?,
        max_worker_processes: next("max_worker_processes")?,
        max_wal_senders: next("max_wal_senders")?,
        max_prepared_transactions: next("max_prepared_transactions")?,
        max_locks_per_transaction: next("max_locks_per_transaction")?,
        wal_level: {
            let raw = next("wal_level")?;
            context.field("wal_level", WalLevel::from_raw(raw))?
        },
    })
}

fn restore_point<'a>(record: &Record<'a>) -> Result<RestorePoint<'a>, PayloadError> {
    let context = Context::new(record, "RESTORE_POINT");
    let mut reader = Reader::new(record.main_data());
    let time = context.field("time", reader.i64())?;
    let name = context.field("name", reader.take(RESTORE_POINT_NAME_SIZE))?;
    Ok(RestorePoint {
        time: PgTimestamp::from_raw(time),
        name: name.split(|byte| *byte == 0).next().unwrap_or_default(),
    })
}

fn end_of_recovery(
    record: &Record<'_>,
    version: MajorVersion,
) -> Result<EndOfRecovery, PayloadError> {
    let context = Context::new(record, "END_OF_RECOVERY");
    let mut reader = Reader::new(record.main_data());
    Ok(EndOfRecovery {
        time: PgTimestamp::from_raw(context.field("time", reader.i64())?),
        timeline: context.field("timeline", reader.u32().and_then(TimelineId::new))?,
        previous_timeline: context
            .field("previous timeline", reader.u32().and_then(TimelineId::new))?,
        wal_level: if has_wal_level(version) {
            let raw = reader.i32().and_then(WalLevel::from_raw);
            Some(context.field("wal_level", raw)?)
        } else {
            None
        },
    })
}
