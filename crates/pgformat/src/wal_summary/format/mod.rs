//! The stored form of a summary.
//!
//! ```text
//! "EPWS" | format version u16 | body | CRC-32C of all before u32
//! ```
//!
//! Fixed-width numbers are little-endian. In the body numbers are varints (seven bits a byte, lowest first,
//! the top bit set on all but the last byte), signed ones folded (0, -1, 1, -2, ...), lists are a count and
//! their items. Positions within lists are the distance from the item before. Body, version 1:
//!
//! ```text
//! major version, timeline, start u64, end u64, end - start of the last record, records, custom records,
//! custom records without blocks
//! what could not be read, what is handed on    see `carried`
//! change map          see `changes`
//! time index          see `times`
//! database events     see `events`
//! relation events     see `events`
//! transactions        see `transactions`
//! ```
//!
//! A reader must reject: another magic number or version, a wrong checksum, counts or lengths that the bytes
//! do not hold, forks, directories, catalogs and transactions out of order, lists beyond their limits, an end
//! before the start, a last record before the start, and bytes left over.

mod carried;
mod changes;
mod codec;
mod events;
mod times;
mod transactions;

use crate::{Lsn, MajorVersion, TimelineId};

use codec::{Input, Output};

use super::{CustomRecords, WalSummary};

/// The first bytes of a stored summary.
pub const MAGIC: [u8; 4] = *b"EPWS";
/// The version that is written, and the only one that is read.
pub const FORMAT_VERSION: u16 = 1;

const HEADER_SIZE: usize = 6;
const CRC_SIZE: usize = 4;

/// Bytes are not a stored summary that can be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SummaryFormatError {
    /// The first bytes are another's.
    #[error("the bytes are not a summary of write-ahead log")]
    NotASummary,
    /// A version from the future.
    #[error(
        "the summary has format version {found}, and only version 1 is known. A newer Everpoint wrote it"
    )]
    UnknownVersion {
        /// As found.
        found: u16,
    },
    /// The bytes are damaged.
    #[error(
        "the summary's checksum does not agree with its contents. It can be made anew from the log"
    )]
    Checksum,
    /// The checksum is right, and yet the contents are impossible.
    #[error("the summary is malformed in its {part}")]
    Malformed {
        /// Where.
        part: &'static str,
    },
}

impl WalSummary {
    /// The stored form. Equal summaries have the same.
    pub fn encode(&self) -> Vec<u8> {
        let mut output = Output::default();
        output.bytes(&MAGIC);
        output.bytes(&FORMAT_VERSION.to_le_bytes());
        output.number(u64::from(self.version.get()));
        output.number(u64::from(self.timeline.get()));
        output.bytes(&self.start.get().to_le_bytes());
        output.bytes(&self.end.get().to_le_bytes());
        output.number(self.end.bytes_since(self.last));
        output.number(self.records);
        output.number(self.custom.records);
        output.number(self.custom.without_blocks);
        carried::encode(self, &mut output);
        changes::encode(&self.changes, &mut output);
        times::encode(&self.times, self.start, &mut output);
        events::encode_databases(&self.databases, self.start, &mut output);
        events::encode_relations(&self.relations, self.start, &mut output);
        transactions::encode(&self.transactions, self.start, &mut output);
        output.finish()
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// See [`SummaryFormatError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, SummaryFormatError> {
        let header = bytes.first_chunk::<HEADER_SIZE>();
        let Some([m0, m1, m2, m3, v0, v1]) = header.copied() else {
            return Err(SummaryFormatError::NotASummary);
        };
        if [m0, m1, m2, m3] != MAGIC {
            return Err(SummaryFormatError::NotASummary);
        }
        let version = u16::from_le_bytes([v0, v1]);
        if version != FORMAT_VERSION {
            return Err(SummaryFormatError::UnknownVersion { found: version });
        }
        let (covered, crc) = bytes
            .split_last_chunk::<CRC_SIZE>()
            .ok_or(SummaryFormatError::Checksum)?;
        if crate::wal::crc32c(covered) != u32::from_le_bytes(*crc) {
            return Err(SummaryFormatError::Checksum);
        }
        let body = covered.get(HEADER_SIZE..).unwrap_or_default();
        let mut input = Input::new(body, "header");
        let summary = Self::decode_body(&mut input)?;
        input.end()?;
        Ok(summary)
    }

    fn decode_body(input: &mut Input<'_>) -> Result<Self, SummaryFormatError> {
        let version = input.number::<u16>()?;
        let version = MajorVersion::try_from(version).map_err(|_| input.malformed())?;
        let timeline = input.number::<u32>()?;
        let timeline = TimelineId::new(timeline).ok_or_else(|| input.malformed())?;
        let start = Lsn::new(u64::from_le_bytes(input.array()?));
        let end = Lsn::new(u64::from_le_bytes(input.array()?));
        if end < start {
            return Err(input.malformed());
        }
        let last = input.lsn_in_front(end)?;
        if last < start {
            return Err(input.malformed());
        }
        Ok(Self {
            version,
            timeline,
            start,
            end,
            last,
            records: input.number()?,
            custom: CustomRecords {
                records: input.number()?,
                without_blocks: input.number()?,
            },
            unread: carried::decode_unread(input, start)?,
            carried: carried::decode(input)?,
            changes: changes::decode(input)?,
            times: times::decode(input, start)?,
            databases: events::decode_databases(input, start)?,
            relations: events::decode_relations(input, start)?,
            transactions: transactions::decode(input, start)?,
        })
    }
}
