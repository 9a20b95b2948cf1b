//! Ends of transactions: commits, aborts, and their two-phase forms.
//!
//! Format: `src/include/access/xact.h` (`xl_xact_commit`, `xl_xact_abort`, `xl_xact_prepare`), read in the
//! order of `ParseCommitRecord` and `ParseAbortRecord` (`src/backend/access/rmgrdesc/xactdesc.c`). The
//! versions differ in the size of a dropped statistics entry: 12 bytes in 15 to 17, 16 in 18.

use crate::{
    Lsn, MajorVersion, Oid, PgTimestamp, TransactionId,
    bytes::{Reader, length},
    relation::RelationId,
};

use super::{
    payload::{Context, PayloadError},
    record::Record,
};

const COMMIT: u8 = 0x00;
const PREPARE: u8 = 0x10;
const ABORT: u8 = 0x20;
const COMMIT_PREPARED: u8 = 0x30;
const ABORT_PREPARED: u8 = 0x40;
const ASSIGNMENT: u8 = 0x50;
const INVALIDATIONS: u8 = 0x60;
const KIND_MASK: u8 = 0x70;
const HAS_INFO: u8 = 0x80;

const HAS_DATABASE: u32 = 1;
const HAS_SUBTRANSACTIONS: u32 = 1 << 1;
const HAS_RELATIONS: u32 = 1 << 2;
const HAS_INVALIDATIONS: u32 = 1 << 3;
const HAS_TWO_PHASE: u32 = 1 << 4;
const HAS_ORIGIN: u32 = 1 << 5;
const HAS_GID: u32 = 1 << 7;
const HAS_STATISTICS: u32 = 1 << 8;

const INVALIDATION_SIZE: usize = 16;
/// Bytes of `xl_xact_prepare`.
const PREPARE_HEADER_SIZE: usize = 72;
const PREPARE_ALIGNMENT: usize = 8;

/// What a record of [`ResourceManager::TRANSACTION`](super::resource_manager::ResourceManager::TRANSACTION)
/// says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionRecord<'a> {
    /// A transaction ended.
    End(TransactionEnd<'a>),
    /// A transaction was prepared for a commit in two phases; it has not ended.
    Prepare(Prepare<'a>),
    /// Transactions became known as children of another.
    Assignment {
        /// The top-level transaction.
        top_level: TransactionId,
        /// Its children.
        children: TransactionIds<'a>,
    },
    /// Cache invalidations for logical decoding.
    Invalidations,
    /// A kind that no supported version writes.
    Other,
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndKind {
    /// Committed.
    Commit,
    /// Rolled back.
    Abort,
    /// Committed after having been prepared.
    CommitPrepared,
    /// Rolled back after having been prepared.
    AbortPrepared,
}

impl EndKind {
    /// Whether the transaction's changes count.
    pub const fn is_commit(self) -> bool {
        matches!(self, Self::Commit | Self::CommitPrepared)
    }
}

/// The end of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactionEnd<'a> {
    /// How it ended.
    pub kind: EndKind,
    /// The transaction that ended: the prepared one where there is one, not the one that ended it.
    pub transaction: TransactionId,
    /// When.
    pub time: PgTimestamp,
    /// The database it was in, when its record says so.
    pub database: Option<Oid>,
    /// Its committed children; on abort, all of them.
    pub children: TransactionIds<'a>,
    /// Relations whose files go away.
    pub dropped_relations: RelationIds<'a>,
    /// Statistics entries that go away.
    pub dropped_statistics: usize,
    /// The name it was prepared under.
    pub gid: Option<&'a [u8]>,
    /// Where it comes from, when it was replicated here.
    pub origin: Option<TransactionOrigin>,
}

/// Where a replicated transaction comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactionOrigin {
    /// Position in the log of its origin.
    pub lsn: Lsn,
    /// Its time at its origin.
    pub time: PgTimestamp,
}

/// A transaction prepared for a commit in two phases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prepare<'a> {
    /// The transaction.
    pub transaction: TransactionId,
    /// The database it is in.
    pub database: Oid,
    /// When it was prepared.
    pub time: PgTimestamp,
    /// The name it was prepared under.
    pub gid: &'a [u8],
    /// Its children.
    pub children: TransactionIds<'a>,
    /// Relations whose files go away if it commits.
    pub dropped_on_commit: RelationIds<'a>,
    /// Relations whose files go away if it is rolled back.
    pub dropped_on_abort: RelationIds<'a>,
}

/// Transactions listed in a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransactionIds<'a>(&'a [[u8; 4]]);

impl<'a> TransactionIds<'a> {
    /// One after the other.
    pub fn iter(self) -> impl ExactSizeIterator<Item = TransactionId> + use<'a> {
        self.0
            .iter()
            .map(|bytes| TransactionId::new(u32::from_le_bytes(*bytes)))
    }
}

/// Relations listed in a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelationIds<'a>(&'a [[u8; 12]]);

impl<'a> RelationIds<'a> {
    /// One after the other.
    pub fn iter(self) -> impl ExactSizeIterator<Item = RelationId> + use<'a> {
        self.0.iter().map(|bytes| {
            let [a, b, c, d, e, f, g, h, i, j, k, l] = *bytes;
            RelationId {
                tablespace: u32::from_le_bytes([a, b, c, d]).into(),
                database: u32::from_le_bytes([e, f, g, h]).into(),
                relfilenode: u32::from_le_bytes([i, j, k, l]).into(),
            }
        })
    }
}

impl<'a> TransactionRecord<'a> {
    /// Reads a record of the transaction resource manager.
    ///
    /// # Errors
    /// When the record lacks what its kind must have.
    pub fn parse(record: &Record<'a>, version: MajorVersion) -> Result<Self, PayloadError> {
        Ok(match record.info() & KIND_MASK {
            COMMIT => Self::End(end(record, version, EndKind::Commit)?),
            ABORT => Self::End(end(record, version, EndKind::Abort)?),
            COMMIT_PREPARED => Self::End(end(record, version, EndKind::CommitPrepared)?),
            ABORT_PREPARED => Self::End(end(record, version, EndKind::AbortPrepared)?),
            PREPARE => Self::Prepare(prepare(record)?),
            ASSIGNMENT => {
                let context = Context::new(record, "ASSIGNMENT");
                let mut reader = Reader::new(record.main_data());
                let top_level = context.field("top-level transaction", reader.u32())?.into();
                let children = context.field("children", counted(&mut reader))?;
                Self::Assignment {
                    top_level,
                    children: TransactionIds(children),
                }
            }
            INVALIDATIONS => Self::Invalidations,
            _ => Self::Other,
        })
    }
}

fn end<'a>(
    record: &Record<'a>,
    version: MajorVersion,
    kind: EndKind,
) -> Result<TransactionEnd<'a>, PayloadError> {
    let context = Context::new(record, "transaction end");
    let mut reader = Reader::new(record.main_data());
    let time = PgTimestamp::from_raw(context.field("time", reader.i64())?);
    let flags = if record.info() & HAS_INFO == 0 {
        0
    } else {
        context.field("flags", reader.u32())?
    };
    let mut end = TransactionEnd {
        kind,
        transaction: record.transaction(),
        time,
        database: None,
        children: TransactionIds::default(),
        dropped_relations: RelationIds::default(),
        dropped_statistics: 0,
        gid: None,
        origin: None,
    };
    if flags & HAS_DATABASE != 0 {
        end.database = Some(context.field("database", reader.u32())?.into());
        context.field("tablespace", reader.u32())?;
    }
    if flags & HAS_SUBTRANSACTIONS != 0 {
        end.children = TransactionIds(context.field("children", counted(&mut reader))?);
    }
    if flags & HAS_RELATIONS != 0 {
        end.dropped_relations =
            RelationIds(context.field("dropped relations", counted(&mut reader))?);
    }
    if flags & HAS_STATISTICS != 0 {
        let items = if version.get() >= 18 {
            counted::<16>(&mut reader).map(<[_]>::len)
        } else {
            counted::<12>(&mut reader).map(<[_]>::len)
        };
        end.dropped_statistics = context.field("dropped statistics", items)?;
    }
    if flags & HAS_INVALIDATIONS != 0 && kind.is_commit() {
        context.field("invalidations", counted::<INVALIDATION_SIZE>(&mut reader))?;
    }
    if flags & HAS_TWO_PHASE != 0 {
        end.transaction = context.field("prepared transaction", reader.u32())?.into();
        if flags & HAS_GID != 0 {
            end.gid = Some(context.field("prepared name", zero_terminated(&mut reader))?);
        }
    }
    if flags & HAS_ORIGIN != 0 {
        end.origin = Some(TransactionOrigin {
            lsn: Lsn::new(context.field("origin's position", reader.u64())?),
            time: PgTimestamp::from_raw(context.field("origin's time", reader.i64())?),
        });
    }
    Ok(end)
}

fn prepare<'a>(record: &Record<'a>) -> Result<Prepare<'a>, PayloadError> {
    let context = Context::new(record, "PREPARE");
    let data = record.main_data();
    let mut header = Reader::new(context.field("header", data.get(..PREPARE_HEADER_SIZE))?);
    let mut next = |name| context.field(name, header.u32());
    next("magic number")?;
    next("length")?;
    let transaction = next("transaction")?;
    let database = next("database")?;
    let time = context.field("time", header.i64())?;
    let mut next = |name| context.field(name, header.u32());
    next("owner")?;
    let children_len = next("number of children")?;
    let commit_len = next("number of relations")?;
    let abort_len = next("number of relations")?;
    let mut lengths = Reader::new(context.field("header", data.get(54..))?);
    let gid_len = usize::from(context.field("length of the name", lengths.u16())?);

    let mut reader = Reader::new(context.field("contents", data.get(PREPARE_HEADER_SIZE..))?);
    let gid = context.field("name", aligned(&mut reader, gid_len))?;
    let children = context.field("children", aligned_array(&mut reader, children_len))?;
    let on_commit = context.field("relations", aligned_array(&mut reader, commit_len))?;
    let on_abort = context.field("relations", aligned_array(&mut reader, abort_len))?;
    Ok(Prepare {
        transaction: transaction.into(),
        database: database.into(),
        time: PgTimestamp::from_raw(time),
        gid: gid.split(|byte| *byte == 0).next().unwrap_or_default(),
        children: TransactionIds(children),
        dropped_on_commit: RelationIds(on_commit),
        dropped_on_abort: RelationIds(on_abort),
    })
}

/// A count and as many items of `N` bytes.
fn counted<'a, const N: usize>(reader: &mut Reader<'a>) -> Option<&'a [[u8; N]]> {
    let count = reader.u32()?;
    array(reader, count)
}

fn array<'a, const N: usize>(reader: &mut Reader<'a>, count: u32) -> Option<&'a [[u8; N]]> {
    let bytes = reader.take(length(count).checked_mul(N)?)?;
    Some(bytes.as_chunks().0)
}

/// As many bytes, and the padding behind them; padding may be missing at the end.
fn aligned<'a>(reader: &mut Reader<'a>, len: usize) -> Option<&'a [u8]> {
    let bytes = reader.take(len)?;
    let padding = len.next_multiple_of(PREPARE_ALIGNMENT) - len;
    reader.take(padding.min(reader.remaining()))?;
    Some(bytes)
}

fn aligned_array<'a, const N: usize>(reader: &mut Reader<'a>, count: u32) -> Option<&'a [[u8; N]]> {
    let bytes = aligned(reader, length(count).checked_mul(N)?)?;
    Some(bytes.as_chunks().0)
}

fn zero_terminated<'a>(reader: &mut Reader<'a>) -> Option<&'a [u8]> {
    let len = reader.rest().iter().position(|byte| *byte == 0)?;
    let text = reader.take(len)?;
    reader.u8()?;
    Some(text)
}
