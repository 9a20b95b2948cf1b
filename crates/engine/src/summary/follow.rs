//! Summarising log while it comes in, after what was summarised before.

use everpoint_pgformat::{Lsn, TimelineId, wal_summary::WalSummary};
use everpoint_repository::{RepositoryError, log::LogIndex};

use super::{
    DERIVED_SUMMARY_BYTES, Knowledge, LogSummariser, SummariseError, SummaryContext,
    reader::next_page,
};
use crate::log::reader::LogReader;

/// Stored log without a summary that is read again at the most before log is received. What lies further
/// behind is left to `everpoint wal summarize`, or to whoever needs it.
pub const MAX_CATCH_UP_BYTES: u64 = 256 << 20;

/// Log that comes in is not summarised. It is stored all the same.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// It cannot be summarised.
    #[error(transparent)]
    Summarise(#[from] SummariseError),
    /// The repository cannot be read or written.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// There is too much without a summary.
    #[error(
        "log from {from} to {to} has no summary. `everpoint wal summarize` makes what is missing"
    )]
    Behind {
        /// The end of the last summary, or the start of the log.
        from: Lsn,
        /// Where log is received.
        to: Lsn,
    },
}

/// Summarises one timeline's log as it comes in. What cannot be summarised is left out: it never hinders the
/// storing of log.
#[derive(Debug)]
pub struct Follower {
    context: SummaryContext,
    timeline: TimelineId,
    summariser: LogSummariser,
}

impl Follower {
    /// Goes on at `at`, the end of the stored log of a timeline: reads again what was stored behind the last
    /// summary.
    ///
    /// Where that cannot be done, it begins with what comes in; the reason is returned, too.
    pub async fn resume(
        context: SummaryContext,
        index: &LogIndex,
        timeline: TimelineId,
        at: Lsn,
    ) -> (Self, Option<FollowError>) {
        match Self::caught_up(&context, index, timeline, at).await {
            Ok(summariser) => {
                let follower = Self {
                    context,
                    timeline,
                    summariser,
                };
                (follower, None)
            }
            Err(error) => {
                let summariser = LogSummariser::searching(&context, timeline, next_page(at));
                let follower = Self {
                    context,
                    timeline,
                    summariser,
                };
                (follower, Some(error))
            }
        }
    }

    async fn caught_up(
        context: &SummaryContext,
        index: &LogIndex,
        timeline: TimelineId,
        at: Lsn,
    ) -> Result<LogSummariser, FollowError> {
        let begins = index.history(timeline).parts().last().map(|part| part.from);
        let begins = begins.unwrap_or(Lsn::INVALID);
        let log_begins = start_of_run(index, timeline, at).max(begins);
        let last = context
            .repository
            .summaries(&context.instance)
            .await?
            .into_iter()
            .filter(|stored| stored.timeline == timeline)
            .filter(|stored| stored.end <= at && stored.end >= log_begins)
            .max_by_key(|stored| stored.end);
        let cluster = Some(context.system_identifier);
        let last = match last {
            Some(stored) => context.repository.read_summary(&stored, cluster).await.ok(),
            None => None,
        };
        let (from, mut summariser) = match last {
            Some(last) => {
                let known = Knowledge::behind(&last);
                let summariser = LogSummariser::following(context, timeline, last.end, known);
                (last.end, summariser)
            }
            None if log_begins == begins && begins.is_valid() => {
                let known = Knowledge::default();
                let summariser = LogSummariser::following(context, timeline, begins, known);
                (begins, summariser)
            }
            None => {
                let from = next_page(log_begins);
                let summariser = LogSummariser::searching(context, timeline, from);
                (from, summariser)
            }
        };
        if from >= at {
            return Ok(summariser);
        }
        if at.bytes_since(from) > MAX_CATCH_UP_BYTES {
            return Err(FollowError::Behind { from, to: at });
        }
        let Ok(pieces) = index.pieces(timeline, from, at) else {
            return Err(FollowError::Behind { from, to: at });
        };
        let mut log = LogReader::new(context.repository.clone(), pieces)?;
        let mut cut_at = from;
        while let Some((at, bytes)) = log.next().await? {
            summariser.feed(at, &bytes)?;
            let is_large = at.bytes_since(cut_at) >= DERIVED_SUMMARY_BYTES;
            if (is_large || summariser.is_full())
                && let Some(summary) = summariser.cut()
            {
                cut_at = summary.end;
                store(context, &summary).await?;
            }
        }
        Ok(summariser)
    }

    /// Takes bytes that came in. After an error it goes on with the next page.
    ///
    /// # Errors
    /// When they cannot be summarised; what came in since the last summary has none then.
    pub fn feed(&mut self, at: Lsn, bytes: &[u8]) -> Result<(), FollowError> {
        let fed = self.summariser.feed(at, bytes);
        if fed.is_err() {
            let behind = next_page(at.advance(bytes.len() as u64));
            self.summariser = LogSummariser::searching(&self.context, self.timeline, behind);
        }
        Ok(fed?)
    }

    /// Whether a summary should be cut now.
    pub fn is_full(&self) -> bool {
        self.summariser.is_full()
    }

    /// The summary of what came in since the last; `None` when there is no whole record.
    pub fn cut(&mut self) -> Option<WalSummary> {
        self.summariser.cut()
    }
}

/// Stores a summary.
///
/// # Errors
/// When the repository cannot be written.
pub(crate) async fn store(
    context: &SummaryContext,
    summary: &WalSummary,
) -> Result<u64, RepositoryError> {
    let (instance, cluster) = (&context.instance, context.system_identifier);
    let stored = context
        .repository
        .write_summary(instance, cluster, summary)
        .await?;
    Ok(stored.map_or(0, |stored| stored.stored_bytes))
}

/// Where the log of a timeline that ends at `at` without a hole begins; `at` when none is stored.
fn start_of_run(index: &LogIndex, timeline: TimelineId, at: Lsn) -> Lsn {
    let mut stretches: Vec<_> = index
        .stretches()
        .filter(|stretch| stretch.timeline == timeline && stretch.start < at)
        .map(|stretch| (stretch.end, stretch.start))
        .collect();
    stretches.sort_unstable();
    let mut begins = at;
    for (end, start) in stretches.into_iter().rev() {
        if end >= begins {
            begins = begins.min(start);
        }
    }
    begins
}
