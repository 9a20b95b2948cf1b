//! The summaries of a stretch of a timeline's log, one after the other.

use everpoint_pgformat::{
    Lsn, MajorVersion, TimelineId,
    wal::{
        decoder::{Next, WalDecoder},
        error::WalError,
        segment::SegmentSize,
    },
    wal_summary::{SummaryBuilder, SummaryError, WalSummary},
};
use everpoint_repository::{Repository, RepositoryError, log::LogIndex, object::ObjectError};

use crate::{log::reader::LogReader, restore::target::Begin};

/// Log that is summarised at a time.
const STRETCH_BYTES: u64 = 64 << 20;

/// Stored log cannot be summarised.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// It cannot be decoded.
    #[error("the stored log is damaged")]
    Log(#[from] WalError),
    /// It says something impossible.
    #[error("the stored log cannot be summarised")]
    Summary(#[from] SummaryError),
    /// The repository.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
}

/// Makes summaries of stored log.
pub struct SummaryStream {
    reader: LogReader,
    decoder: WalDecoder,
    builder: SummaryBuilder,
    is_over: bool,
}

/// Which log to summarise.
pub struct Stretch<'a> {
    /// The log.
    pub index: &'a LogIndex,
    /// The timeline in whose history it lies.
    pub timeline: TimelineId,
    /// The server's version.
    pub version: MajorVersion,
    /// The size of WAL segments.
    pub segment_size: SegmentSize,
    /// Where it begins.
    pub from: Lsn,
    /// Whether a record begins there.
    pub begin: Begin,
    /// Where it ends; it is stored without a hole up to here.
    pub until: Lsn,
}

impl SummaryStream {
    /// Begins at the first record of the stretch.
    ///
    /// # Errors
    /// When some of it is not stored.
    pub fn new(repository: &Repository, stretch: &Stretch<'_>) -> Result<Self, StreamError> {
        let (version, size, from) = (stretch.version, stretch.segment_size, stretch.from);
        let decoder = match stretch.begin {
            Begin::AtRecord => WalDecoder::new(version, size, from),
            Begin::Search => WalDecoder::searching(version, size, from),
        };
        let first = decoder.position();
        let pieces = stretch
            .index
            .pieces(stretch.timeline, first, stretch.until)
            .map_err(|_| {
                RepositoryError::from(ObjectError::Damaged {
                    path: format!("log of timeline {}", stretch.timeline),
                    what: "some of what was to be read is missing",
                })
            })?;
        Ok(Self {
            reader: LogReader::new(repository.clone(), pieces)?,
            decoder,
            builder: SummaryBuilder::new(version, stretch.timeline, from),
            is_over: false,
        })
    }

    /// The next summary; `None` behind the last.
    ///
    /// # Errors
    /// When log is missing or damaged.
    pub async fn next(&mut self) -> Result<Option<WalSummary>, StreamError> {
        if self.is_over {
            return Ok(None);
        }
        while let Some((at, bytes)) = self.reader.next().await? {
            let mut chunk = self.decoder.feed(at, &bytes);
            loop {
                match chunk.next()? {
                    Next::Record(record) => self.builder.add(&record)?,
                    Next::NeedBytes => break,
                    Next::End(_) => {
                        self.is_over = true;
                        return Ok(Some(self.builder.cut()));
                    }
                }
            }
            let summary = self.builder.summary();
            if self.builder.is_full() || summary.end.bytes_since(summary.start) > STRETCH_BYTES {
                return Ok(Some(self.builder.cut()));
            }
        }
        self.is_over = true;
        Ok(Some(self.builder.cut()))
    }
}
