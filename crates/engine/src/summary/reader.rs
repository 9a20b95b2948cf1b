//! The summaries of a stretch of history, one at a time: stored ones where they can be trusted, the log itself
//! where not.

use std::collections::VecDeque;

use everpoint_pgformat::{
    Lsn, Oid, TimelineId,
    timeline::HistoryPart,
    wal::page::{LONG_HEADER_SIZE, WAL_PAGE_SIZE},
    wal_summary::{Coverage, WalSummary, change_map::ChangeMap},
};
use everpoint_repository::{
    RepositoryError,
    log::{LogIndex, LogPiece},
    summary::{StoredSummary, StoredSummaryError},
};

use super::{
    DERIVED_SUMMARY_BYTES, Facts, Knowledge, LogSummariser, Sources, SummariseError, SummaryContext,
};
use crate::log::reader::{LogPlanError, LogReader};

/// A part of the stretch asked for, and its summary.
#[derive(Debug)]
pub struct SummaryPiece {
    /// It stands for the records that begin from here on ...
    pub from: Lsn,
    /// ... and before this. Pieces follow each other: this is the next one's `from`.
    pub to: Lsn,
    /// What was learned. It may tell of records before `from` and behind `to`, too, which changes nothing for
    /// a change map, as every record can only add to what must be copied; lists are to be cut to the piece.
    pub summary: WalSummary,
    /// Where it comes from.
    pub origin: Origin,
}

/// Where a summary comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It was stored.
    Stored(StoredSummary),
    /// It was made from stored log.
    Log,
}

/// Something is amiss with stored summaries. What they should say is read from the log.
#[derive(Debug)]
pub enum SummaryEvent {
    /// None is stored of this stretch.
    Missing {
        /// Its timeline.
        timeline: TimelineId,
        /// First position, inclusive.
        from: Lsn,
        /// Last position, exclusive.
        to: Lsn,
        /// Whether later ones are stored, or a further log backup will bring it.
        followed: bool,
    },
    /// One cannot be used.
    Unusable {
        /// It.
        stored: StoredSummary,
        /// Why.
        doubt: Doubt,
    },
}

/// Why a stored summary is not used.
#[derive(Debug)]
pub enum Doubt {
    /// It is damaged, or not what its name says.
    Damaged(StoredSummaryError),
    /// No record begins where it says that it begins.
    NoBoundary,
    /// It does not tell all that is asked for: whoever made it had not seen enough of the log before.
    Incomplete,
}

impl SummaryEvent {
    /// In words; nothing when it is only that the last log has no summary yet.
    pub fn text(&self) -> Option<String> {
        match self {
            Self::Missing {
                followed: false, ..
            } => None,
            Self::Missing {
                timeline, from, to, ..
            } => Some(format!(
                "no summary of the log from {from} to {to} on timeline {timeline} is stored: reading the log \
                 itself"
            )),
            Self::Unusable { stored, doubt } => {
                let StoredSummary {
                    timeline,
                    start,
                    end,
                    path,
                    ..
                } = stored;
                // Short enough for a line of a terminal.
                let path = path.rsplit('/').next().unwrap_or(path);
                let why = match doubt {
                    Doubt::Damaged(error) => error.to_string(),
                    Doubt::NoBoundary => format!("no record begins where `{path}` begins"),
                    Doubt::Incomplete => format!("`{path}` was made without the log before it"),
                };
                Some(format!(
                    "the summary of the log from {start} to {end} on timeline {timeline} is not used: {why}. \
                     Reading the log itself"
                ))
            }
        }
    }
}

/// Whether a stretch of log begins at a record's first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// It does.
    AtRecord,
    /// The first record behind the position is to be found.
    Search,
}

/// Neither summaries nor log tell what a stretch of history holds.
#[derive(Debug, thiserror::Error)]
pub enum SummaryReadError {
    /// There is no summary, and the log is not stored.
    #[error(transparent)]
    Log(#[from] LogPlanError),
    /// The repository cannot be read.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The log cannot be summarised.
    #[error("the write-ahead log behind {from} cannot be summarised")]
    Undecodable {
        /// The last position before which it can.
        from: Lsn,
        /// Why.
        source: SummariseError,
    },
}

/// Reads the summaries of a stretch of history in order, one in memory at a time.
pub struct SummaryReader<'a> {
    context: SummaryContext,
    index: &'a LogIndex,
    timeline: TimelineId,
    parts: VecDeque<HistoryPart>,
    stored: Vec<StoredSummary>,
    from: Lsn,
    begin: Begin,
    head: Head,
    facts: Facts,
    sources: Option<Sources>,
    at: Lsn,
    to: Lsn,
    boundary: Lsn,
    /// Up to where summaries were put aside.
    aside: Lsn,
    known: Knowledge,
    deriving: Option<Deriving>,
    listener: Box<dyn Fn(SummaryEvent) + Send + Sync + 'a>,
}

/// What becomes of a first summary that begins before what is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Head {
    /// It is used: it tells of more.
    Superset,
    /// The log is read instead, if there is much more.
    Exact,
}

/// Log before the start that a first summary may tell of, too, where an exact head is asked for.
const MOST_EXCESS_BYTES: u64 = 256 << 10;

/// A stretch whose log is being read.
struct Deriving {
    log: LogReader,
    summariser: LogSummariser,
    timeline: TimelineId,
    /// Where it ends.
    to: Lsn,
    /// Whether a stored summary begins there.
    followed: bool,
}

impl<'a> SummaryReader<'a> {
    /// For the records that begin at or behind `from`, a record boundary, and end at or before `to`, in the
    /// history of `timeline`.
    ///
    /// # Errors
    /// When the summaries cannot be listed.
    pub async fn new(
        context: SummaryContext,
        index: &'a LogIndex,
        timeline: TimelineId,
        from: Lsn,
        to: Lsn,
        listener: impl Fn(SummaryEvent) + Send + Sync + 'a,
    ) -> Result<Self, RepositoryError> {
        let stored = context.repository.summaries(&context.instance).await?;
        let reader = Self::from_log(context, index, timeline, from, to, listener);
        Ok(Self { stored, ..reader })
    }

    /// As [`SummaryReader::new`], with no regard for stored summaries.
    pub fn from_log(
        context: SummaryContext,
        index: &'a LogIndex,
        timeline: TimelineId,
        from: Lsn,
        to: Lsn,
        listener: impl Fn(SummaryEvent) + Send + Sync + 'a,
    ) -> Self {
        Self {
            context,
            index,
            timeline,
            parts: index.history(timeline).parts().into(),
            stored: Vec::new(),
            from,
            begin: Begin::AtRecord,
            head: Head::Superset,
            facts: Facts::Changes,
            sources: None,
            at: from,
            to,
            boundary: from,
            aside: Lsn::INVALID,
            known: Knowledge::default(),
            deriving: None,
            listener: Box::new(listener),
        }
    }

    /// For what happened, not for what changed: lists have to be exact. Maps of changes are left out where
    /// log is read.
    #[must_use]
    pub(super) fn for_facts(self, facts: Facts, begin: Begin, sources: Sources) -> Self {
        Self {
            begin,
            facts,
            sources: Some(sources),
            ..self
        }
    }

    /// Reads the log where the first summary tells of much more than what is wanted, if that log is stored.
    #[must_use]
    pub fn with_exact_head(mut self) -> Self {
        self.head = Head::Exact;
        self
    }

    /// Behind the last record of the pieces given out, or where reading began.
    pub fn boundary(&self) -> Lsn {
        self.boundary
    }

    /// The file of `pg_database` there.
    pub fn database_catalog(&self) -> Oid {
        self.known.database_catalog()
    }

    /// The next piece; `None` behind the last.
    ///
    /// # Errors
    /// When neither summaries nor log tell what comes next. Reading can go on with a new reader behind that.
    pub async fn next(&mut self) -> Result<Option<SummaryPiece>, SummaryReadError> {
        loop {
            if let Some(deriving) = self.deriving.take() {
                if let Some(piece) = self.derive(deriving).await? {
                    return Ok(Some(piece));
                }
                continue;
            }
            if self.at >= self.to {
                return Ok(None);
            }
            let Some(part) = self.parts.front().copied() else {
                return Ok(None);
            };
            if self.at >= part.to {
                self.parts.pop_front();
                continue;
            }
            match self.choose(&part) {
                Some(stored) => {
                    if let Some(piece) = self.take_stored(stored).await {
                        return Ok(Some(piece));
                    }
                }
                None => match self.remembered() {
                    Some(piece) => return Ok(Some(piece)),
                    None => self.deriving = Some(self.begin(&part)?),
                },
            }
        }
    }

    /// The stored summary that covers the position and reaches furthest, without log that this history left.
    fn choose(&self, part: &HistoryPart) -> Option<StoredSummary> {
        self.on(part)
            .filter(|stored| stored.start <= self.at && self.at < stored.end)
            .filter(|stored| !self.tells_too_much(stored))
            .max_by_key(|stored| stored.end)
            .cloned()
    }

    fn tells_too_much(&self, stored: &StoredSummary) -> bool {
        let is_head = self.head == Head::Exact && self.at == self.from;
        is_head
            && self.from.bytes_since(stored.start) > MOST_EXCESS_BYTES
            && self.index.complete_until(self.timeline, self.from) >= stored.end.min(self.to)
    }

    fn on(&self, part: &HistoryPart) -> impl Iterator<Item = &StoredSummary> {
        let (timeline, end) = (part.timeline, part.to);
        self.stored
            .iter()
            .filter(move |stored| stored.timeline == timeline && stored.end <= end)
    }

    async fn take_stored(&mut self, stored: StoredSummary) -> Option<SummaryPiece> {
        let cluster = Some(self.context.system_identifier);
        let read = self.context.repository.read_summary(&stored, cluster).await;
        let read = read.and_then(|summary| match summary.version == self.context.version {
            true => Ok(summary),
            false => Err(StoredSummaryError::Other {
                path: stored.path.clone(),
                what: "it is of another major version",
            }),
        });
        match read {
            Ok(summary) if self.is_incomplete(&summary) => {
                self.put_aside(stored, Doubt::Incomplete);
                None
            }
            Ok(summary) => {
                let (from, to) = (self.at, stored.end.min(self.to));
                self.at = stored.end;
                self.boundary = stored.end;
                self.known = Knowledge::behind(&summary);
                Some(SummaryPiece {
                    from,
                    to,
                    summary,
                    origin: Origin::Stored(stored),
                })
            }
            Err(error) => {
                self.put_aside(stored, Doubt::Damaged(error));
                None
            }
        }
    }

    /// Whether a summary lacks some of what is asked for.
    fn is_incomplete(&self, summary: &WalSummary) -> bool {
        let (facts, unread) = (self.facts, summary.unread);
        let partial = [summary.times.coverage(), summary.databases.coverage()];
        facts >= Facts::Times && partial.contains(&Coverage::Partial)
            || facts >= Facts::Databases && unread.databases.is_some()
            || facts >= Facts::Tables && unread.relations.is_some()
    }

    /// What was made of the log that comes next when it was asked for before.
    fn remembered(&mut self) -> Option<SummaryPiece> {
        let sources = self.sources.as_ref()?;
        let (to, summary) = sources.remembered(self.timeline, self.at)?;
        let from = std::mem::replace(&mut self.at, to);
        self.boundary = summary.end;
        self.known = Knowledge::behind(&summary);
        Some(SummaryPiece {
            from,
            to: to.min(self.to),
            summary: WalSummary::clone(&summary),
            origin: Origin::Log,
        })
    }

    fn put_aside(&mut self, stored: StoredSummary, doubt: Doubt) {
        self.aside = self.aside.max(stored.end);
        self.stored.retain(|other| other.path != stored.path);
        (self.listener)(SummaryEvent::Unusable { stored, doubt });
    }

    /// Begins to read log up to where the next summary begins.
    fn begin(&self, part: &HistoryPart) -> Result<Deriving, SummaryReadError> {
        let next = self
            .on(part)
            .map(|stored| stored.start)
            .filter(|start| *start > self.at)
            .min();
        let end = part.to.min(self.to);
        let followed = next.is_some_and(|next| next < end);
        let to = next.map_or(end, |next| next.min(end));
        let is_head = self.head == Head::Exact && self.at == self.from;
        // Who asks what happened was told already of one that was put aside.
        let is_told = self.sources.is_some() && to <= self.aside;
        if to.bytes_since(self.at) > HEADER_BYTES && !is_head && !is_told {
            // Who asks what happened is told, too, that none is there at all.
            let is_all = self.sources.is_some() && self.at == self.from;
            (self.listener)(SummaryEvent::Missing {
                timeline: part.timeline,
                from: self.at,
                to,
                followed: followed || is_all,
            });
        }
        let (pieces, summariser) = self.summariser(part.timeline, to)?;
        let context = &self.context;
        Ok(Deriving {
            log: LogReader::new(context.repository.clone(), pieces)?,
            summariser,
            timeline: part.timeline,
            to,
            followed,
        })
    }

    /// What summarises the log from here to `to`, and the log that it has to be given.
    fn summariser(
        &self,
        on: TimelineId,
        to: Lsn,
    ) -> Result<(Vec<LogPiece>, LogSummariser), SummaryReadError> {
        let (context, known, at) = (&self.context, self.known.clone(), self.at);
        let stored = |from| self.index.pieces(self.timeline, from, to);
        if let Some(shown_from) = self.shown_from()
            && let Ok(pieces) = stored(shown_from)
        {
            let warmed_up = LogSummariser::warmed_up(context, on, shown_from, at, known);
            return Ok((pieces, warmed_up));
        }
        // From its page's header on, where that is stored, the log tells more surely where records begin.
        if let Ok(pieces) = stored(page_of(at)) {
            let checked = LogSummariser::following_checked(context, on, at, known);
            return Ok((pieces, checked));
        }
        let is_record = self.begin == Begin::AtRecord || at != self.from;
        let (first, summariser) = match is_record {
            true => (at, LogSummariser::following(context, on, at, known)),
            false => {
                let page = next_page(at);
                (page, LogSummariser::searching(context, on, page))
            }
        };
        let timeline = self.timeline;
        let missing = |from| LogPlanError::NotStored { from, to, timeline };
        Ok((stored(first).map_err(missing)?, summariser))
    }

    /// From where log is read to know the rows of catalogs that it changes from here on, if that matters.
    fn shown_from(&self) -> Option<Lsn> {
        if self.facts < Facts::Databases {
            return None;
        }
        let start = Some(self.from).filter(|_| self.begin == Begin::AtRecord);
        let redo = self.known.redo().filter(|redo| *redo >= self.from);
        redo.max(start).filter(|from| *from < self.at)
    }

    /// Reads on until a summary is full or the stretch ends.
    async fn derive(
        &mut self,
        mut deriving: Deriving,
    ) -> Result<Option<SummaryPiece>, SummaryReadError> {
        while let Some((at, bytes)) = deriving.log.next().await? {
            let fed = deriving.summariser.feed(at, &bytes);
            fed.map_err(|source| SummaryReadError::Undecodable {
                from: self.boundary,
                source,
            })?;
            let boundary = deriving.summariser.boundary().unwrap_or(self.at);
            let is_large = boundary.bytes_since(self.at) >= DERIVED_SUMMARY_BYTES;
            if (is_large || deriving.summariser.is_full())
                && let Some(summary) = deriving.summariser.cut()
            {
                let to = summary.end;
                self.deriving = Some(deriving);
                return Ok(Some(self.derived(summary, to)));
            }
        }
        let boundary = deriving.summariser.boundary().unwrap_or(self.at);
        let summary = deriving.summariser.cut();
        let mut to = deriving.to;
        if deriving.followed && !is_boundary(boundary, to) {
            // The one that follows does not begin with a record: nothing it says can be relied upon.
            let doubtful: Vec<_> = self
                .stored
                .iter()
                .filter(|stored| stored.timeline == deriving.timeline && stored.start == to)
                .cloned()
                .collect();
            for stored in doubtful {
                self.put_aside(stored, Doubt::NoBoundary);
            }
            to = boundary;
        }
        Ok(match summary {
            Some(summary) => Some(self.derived(summary, to)),
            None => {
                self.at = to;
                None
            }
        })
    }

    fn derived(&mut self, mut summary: WalSummary, to: Lsn) -> SummaryPiece {
        let from = std::mem::replace(&mut self.at, to);
        self.boundary = summary.end;
        self.known = Knowledge::behind(&summary);
        if let Some(sources) = &self.sources {
            summary.changes = ChangeMap::default();
            sources.remember(self.timeline, (from, to), &summary);
        }
        SummaryPiece {
            from,
            to,
            summary,
            origin: Origin::Log,
        }
    }
}

/// The most bytes between the end of a record and the start of the next, but for a segment's padding, which
/// belongs to the record before.
const HEADER_BYTES: u64 = LONG_HEADER_SIZE as u64;
const PAGE_BYTES: u64 = WAL_PAGE_SIZE as u64;

/// The start of the page that holds a position.
pub(super) fn page_of(at: Lsn) -> Lsn {
    Lsn::new(at.get() - at.get() % PAGE_BYTES)
}

/// Whether a record can begin at `start` when the one before ends at `end`: there, or behind the page header
/// that lies there.
fn is_boundary(end: Lsn, start: Lsn) -> bool {
    end == start || end == page_of(start) && start.bytes_since(end) <= HEADER_BYTES
}

/// The first page's start at or behind a position.
pub(super) fn next_page(at: Lsn) -> Lsn {
    match page_of(at) {
        page if page == at => at,
        page => page.advance(PAGE_BYTES),
    }
}
