//! Bytes of log in, summaries out. No I/O.

use everpoint_pgformat::{
    Lsn, Oid, TimelineId, TransactionId,
    wal::{
        decoder::{Next, WalDecoder},
        error::{EndOfLog, WalError},
    },
    wal_summary::{SummaryBuilder, SummaryError, WalSummary, activity::Activity, carried::Carried},
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

/// What is known where a summary begins.
#[derive(Clone, Debug, Default)]
pub struct Knowledge {
    carried: Carried,
    unfinished: Vec<(TransactionId, Activity)>,
}

impl Knowledge {
    /// Only in which file `pg_database` lies.
    pub fn of_catalog(database_catalog: Oid) -> Self {
        Self {
            carried: Carried::new(database_catalog),
            unfinished: Vec::new(),
        }
    }

    /// What a summary hands on at its end.
    pub fn behind(summary: &WalSummary) -> Self {
        Self {
            carried: summary.carried.clone(),
            unfinished: summary.transactions.unfinished().to_vec(),
        }
    }

    /// The file of `pg_database`.
    pub fn database_catalog(&self) -> Oid {
        self.carried.database_catalog
    }

    /// Where the last checkpoint that is known began.
    pub fn redo(&self) -> Option<Lsn> {
        self.carried.redo
    }
}

/// Log before a summary's start that is read for what it shows of catalogs' rows.
#[derive(Debug)]
struct WarmUp {
    /// Where the summary begins.
    until: Lsn,
    unfinished: Vec<(TransactionId, Activity)>,
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
    warm_up: Option<WarmUp>,
}

impl LogSummariser {
    /// Begins at a record boundary. `catalog` is the file of `pg_database` there: that of the summary before.
    pub fn at(context: &SummaryContext, timeline: TimelineId, start: Lsn, catalog: Oid) -> Self {
        Self::following(context, timeline, start, Knowledge::of_catalog(catalog))
    }

    /// Begins at a record boundary, where this much is known.
    pub fn following(
        context: &SummaryContext,
        timeline: TimelineId,
        start: Lsn,
        known: Knowledge,
    ) -> Self {
        let decoder = WalDecoder::new(context.version, context.segment_size, start);
        Self::begun(context, decoder, timeline, start, known)
    }

    /// As [`LogSummariser::following`], where bytes from the page's start on are given: they say more surely
    /// where records begin.
    pub fn following_checked(
        context: &SummaryContext,
        timeline: TimelineId,
        start: Lsn,
        known: Knowledge,
    ) -> Self {
        let decoder = WalDecoder::searching(context.version, context.segment_size, start);
        Self::begun(context, decoder, timeline, start, known)
    }

    /// As [`LogSummariser::following`], where bytes from `shown_from` on are given, a record boundary further
    /// back: what they show of catalogs' rows is known at `start`.
    pub fn warmed_up(
        context: &SummaryContext,
        timeline: TimelineId,
        shown_from: Lsn,
        start: Lsn,
        known: Knowledge,
    ) -> Self {
        let decoder = WalDecoder::new(context.version, context.segment_size, shown_from);
        let unfinished = known.unfinished.clone();
        let summariser = Self::begun(context, decoder, timeline, shown_from, known);
        let until = start;
        Self {
            warm_up: Some(WarmUp { until, unfinished }),
            ..summariser
        }
    }

    fn begun(
        context: &SummaryContext,
        decoder: WalDecoder,
        timeline: TimelineId,
        start: Lsn,
        known: Knowledge,
    ) -> Self {
        let version = context.version;
        let mut builder = SummaryBuilder::with_carried(version, timeline, start, known.carried);
        builder.take_over(&known.unfinished);
        Self {
            version,
            timeline,
            decoder: decoder.of_cluster(context.system_identifier),
            builder: Some(builder),
            warm_up: None,
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
            warm_up: None,
        }
    }

    /// The next byte wanted; earlier ones are passed over.
    pub fn position(&self) -> Lsn {
        self.decoder.position()
    }

    /// Behind the last whole record, or where it began; `None` while the first is looked for.
    pub fn boundary(&self) -> Option<Lsn> {
        match &self.warm_up {
            Some(warm_up) => Some(warm_up.until),
            None => self.builder.as_ref().map(|builder| builder.summary().end),
        }
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
                    let start = record.start();
                    let builder = self
                        .builder
                        .get_or_insert_with(|| SummaryBuilder::new(version, timeline, start));
                    match &self.warm_up {
                        Some(warm_up) if start >= warm_up.until => {
                            builder.begin(timeline, warm_up.until);
                            builder.take_over(&warm_up.unfinished);
                            self.warm_up = None;
                        }
                        // What it says besides is told already.
                        Some(_) if builder.is_full() => drop(builder.cut()),
                        _ => {}
                    }
                    builder.add(&record)?;
                }
                Next::NeedBytes => return Ok(()),
                Next::End(EndOfLog { at, .. }) => return Err(SummariseError::Unwritten { at }),
            }
        }
    }

    /// Whether a summary should be cut now.
    pub fn is_full(&self) -> bool {
        self.warm_up.is_none() && self.builder.as_ref().is_some_and(SummaryBuilder::is_full)
    }

    /// The summary of what came since the last; `None` when no whole record did.
    pub fn cut(&mut self) -> Option<WalSummary> {
        if self.warm_up.is_some() {
            return None;
        }
        let builder = self.builder.as_mut()?;
        let summary = builder.summary();
        (summary.end > summary.start).then(|| builder.cut())
    }
}
