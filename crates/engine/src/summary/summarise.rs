//! Bytes of log in, summaries out. No I/O.

use everpoint_pgformat::{
    Lsn, Oid, TimelineId,
    wal::{
        decoder::{Next, WalDecoder},
        error::{EndOfLog, WalError},
    },
    wal_summary::{DATABASE_CATALOG, SummaryBuilder, SummaryError, WalSummary},
};

use super::SummaryContext;

/// Log cannot be summarised.
#[derive(Debug, thiserror::Error)]
pub enum SummariseError {
    /// It cannot be decoded.
    #[error(transparent)]
    Decode(#[from] WalError),
    /// A record does not have the contents it must have.
    #[error(transparent)]
    Record(#[from] SummaryError),
    /// What should be log was never written.
    #[error("write-ahead log ends at {at}, though more was stored behind it")]
    Unwritten {
        /// Behind the last whole record.
        at: Lsn,
    },
}

/// Decodes one timeline's log as it comes and keeps its summary.
///
/// The summaries it gives away follow each other: each begins where the one before ended, at a record
/// boundary. A record that has not come whole belongs to the next.
#[derive(Debug)]
pub struct LogSummariser {
    version: everpoint_pgformat::MajorVersion,
    timeline: TimelineId,
    decoder: WalDecoder,
    builder: Option<SummaryBuilder>,
    /// The file of `pg_database`, for a builder that begins at the first record found.
    catalog: Oid,
}

impl LogSummariser {
    /// Begins at a record boundary. `catalog` is the file of `pg_database` there: that of the summary before.
    pub fn at(context: &SummaryContext, timeline: TimelineId, start: Lsn, catalog: Oid) -> Self {
        let decoder = WalDecoder::new(context.version, context.segment_size, start);
        Self::begun(context, decoder, timeline, start, catalog)
    }

    /// As [`LogSummariser::at`], where bytes from the page's start on are given: they say more surely where
    /// records begin.
    pub fn at_checked(
        context: &SummaryContext,
        timeline: TimelineId,
        start: Lsn,
        catalog: Oid,
    ) -> Self {
        let decoder = WalDecoder::searching(context.version, context.segment_size, start);
        Self::begun(context, decoder, timeline, start, catalog)
    }

    fn begun(
        context: &SummaryContext,
        decoder: WalDecoder,
        timeline: TimelineId,
        start: Lsn,
        catalog: Oid,
    ) -> Self {
        let version = context.version;
        let builder = SummaryBuilder::with_database_catalog(version, timeline, start, catalog);
        Self {
            version,
            timeline,
            decoder: decoder.of_cluster(context.system_identifier),
            builder: Some(builder),
            catalog,
        }
    }

    /// Begins at the first record at or behind the start of the page that holds `from`, or that begins there.
    pub fn searching(context: &SummaryContext, timeline: TimelineId, from: Lsn) -> Self {
        let decoder = WalDecoder::searching(context.version, context.segment_size, from);
        Self {
            version: context.version,
            timeline,
            decoder: decoder.of_cluster(context.system_identifier),
            builder: None,
            catalog: DATABASE_CATALOG,
        }
    }

    /// The next byte wanted; earlier ones are passed over.
    pub fn position(&self) -> Lsn {
        self.decoder.position()
    }

    /// Behind the last whole record, or where it began; `None` while the first is looked for.
    pub fn boundary(&self) -> Option<Lsn> {
        self.builder.as_ref().map(|builder| builder.summary().end)
    }

    /// Takes bytes that lie at `at` in the log.
    ///
    /// # Errors
    /// When they cannot be summarised. It is of no use from there on.
    pub fn feed(&mut self, at: Lsn, bytes: &[u8]) -> Result<(), SummariseError> {
        let mut chunk = self.decoder.feed(at, bytes);
        loop {
            match chunk.next()? {
                Next::Record(record) => {
                    let (version, timeline) = (self.version, self.timeline);
                    let (start, catalog) = (record.start(), self.catalog);
                    let builder = self.builder.get_or_insert_with(|| {
                        SummaryBuilder::with_database_catalog(version, timeline, start, catalog)
                    });
                    builder.add(&record)?;
                }
                Next::NeedBytes => return Ok(()),
                Next::End(EndOfLog { at, .. }) => return Err(SummariseError::Unwritten { at }),
            }
        }
    }

    /// Whether a summary should be cut now.
    pub fn is_full(&self) -> bool {
        self.builder.as_ref().is_some_and(SummaryBuilder::is_full)
    }

    /// The summary of what came since the last; `None` when no whole record did.
    pub fn cut(&mut self) -> Option<WalSummary> {
        let builder = self.builder.as_mut()?;
        let summary = builder.summary();
        (summary.end > summary.start).then(|| builder.cut())
    }
}
