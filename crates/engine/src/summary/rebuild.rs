//! Making summaries anew from stored log: those that are missing or damaged, or all.

use everpoint_pgformat::{Lsn, TimelineId};
use everpoint_repository::{RepositoryError, log::LogIndex, summary::StoredSummary};
use serde::Serialize;

use super::{
    Doubt, Origin, SummaryContext, SummaryEvent, SummaryReadError, SummaryReader, follow::store,
    reader::next_page, reader::page_of,
};

/// Which summaries are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Those that are missing, damaged or doubtful.
    Missing,
    /// All.
    All,
}

/// What happened while summaries were made.
#[derive(Debug)]
pub enum RebuildEvent {
    /// A stored one is of no use and is replaced.
    Unusable(SummaryEvent),
    /// A stretch of log cannot be summarised.
    Skipped {
        /// Its timeline.
        timeline: TimelineId,
        /// First position, inclusive.
        from: Lsn,
        /// Last position, exclusive.
        to: Lsn,
        /// Why.
        error: SummaryReadError,
    },
}

/// What was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Rebuilt {
    /// Summaries made.
    pub made: u64,
    /// Bytes of log they stand for.
    pub log_bytes: u64,
    /// Bytes they take.
    pub stored_bytes: u64,
    /// Sound ones that were left as they are.
    pub kept: u64,
    /// Damaged, doubtful or replaced ones that were deleted.
    pub deleted: u64,
    /// Stretches of log that cannot be summarised.
    pub skipped: u64,
}

/// Makes summaries of an instance's stored log from `from` on, timeline by timeline.
///
/// What is replaced is deleted when its replacement is stored, and stays where there can be none.
///
/// # Errors
/// When the repository cannot be listed or written.
pub async fn rebuild(
    context: &SummaryContext,
    extent: Extent,
    from: Lsn,
    listener: &(dyn Fn(RebuildEvent) + Sync),
) -> Result<Rebuilt, RepositoryError> {
    let index = context.repository.log_index(&context.instance).await?;
    let mut rebuilt = Rebuilt::default();
    for timeline in index.timelines() {
        let own: Vec<_> = index
            .stretches()
            .filter(|stretch| stretch.timeline == timeline)
            .cloned()
            .collect();
        let parts = index.history(timeline).parts();
        let begins = parts.last().map_or(Lsn::INVALID, |part| part.from);
        let own = LogIndex::new(own, Vec::new());
        for (start, end) in runs(&own, begins, from) {
            let run = Run {
                context,
                extent,
                timeline,
                start,
                end,
                listener,
            };
            run.rebuild(&own, &mut rebuilt).await?;
        }
    }
    Ok(rebuilt)
}

/// Log without holes, from a record's start or a page's on.
struct Run<'a> {
    context: &'a SummaryContext,
    extent: Extent,
    timeline: TimelineId,
    start: Lsn,
    end: Lsn,
    listener: &'a (dyn Fn(RebuildEvent) + Sync),
}

impl Run<'_> {
    async fn rebuild(&self, own: &LogIndex, rebuilt: &mut Rebuilt) -> Result<(), RepositoryError> {
        let repository = &self.context.repository;
        let unusable = std::sync::Mutex::new(Vec::<StoredSummary>::new());
        let hear = |event: SummaryEvent| {
            if let SummaryEvent::Unusable { stored, .. } = &event {
                let mut unusable = unusable
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner);
                // It was looked at before it was to be used.
                if unusable.iter().all(|known| known.path != stored.path) {
                    unusable.push(stored.clone());
                    drop(unusable);
                    (self.listener)(RebuildEvent::Unusable(event));
                }
            }
        };
        let context = self.context.clone();
        let (timeline, start, end) = (self.timeline, self.start, self.end);
        let mut replaced: Vec<StoredSummary> = Vec::new();
        let mut reader = match self.extent {
            Extent::Missing => {
                self.check(&hear).await?;
                SummaryReader::new(context, own, timeline, start, end, &hear).await?
            }
            Extent::All => {
                let stored = repository.summaries(&context.instance).await?;
                replaced = stored
                    .into_iter()
                    .filter(|stored| stored.timeline == timeline)
                    .collect();
                SummaryReader::from_log(context, own, timeline, start, end, hear)
            }
        };
        let mut reached = start;
        loop {
            match reader.next().await {
                Ok(None) => {
                    reached = reached.max(reader.boundary());
                    break;
                }
                Ok(Some(piece)) => {
                    reached = piece.to;
                    match piece.origin {
                        Origin::Stored(_) => rebuilt.kept += 1,
                        Origin::Log => {
                            rebuilt.made += 1;
                            let summary = &piece.summary;
                            rebuilt.log_bytes += summary.end.bytes_since(summary.start);
                            rebuilt.stored_bytes += store(self.context, summary).await?;
                        }
                    }
                }
                Err(SummaryReadError::Repository(error)) if is_store_failure(&error) => {
                    return Err(error);
                }
                Err(error) => {
                    rebuilt.skipped += 1;
                    let from = reader.boundary();
                    let to = self.end;
                    (self.listener)(RebuildEvent::Skipped {
                        timeline,
                        from,
                        to,
                        error,
                    });
                    break;
                }
            }
        }
        drop(reader);
        let unusable = unusable
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        for old in unusable.into_iter().chain(replaced) {
            if old.start >= start && old.end <= reached {
                repository.store().delete(&old.path).await?;
                rebuilt.deleted += 1;
            }
        }
        Ok(())
    }
}

impl Run<'_> {
    /// Looks at every stored summary: also those whose log another one tells of.
    async fn check(&self, hear: &(dyn Fn(SummaryEvent) + Sync)) -> Result<(), RepositoryError> {
        let repository = &self.context.repository;
        let cluster = Some(self.context.system_identifier);
        for stored in repository.summaries(&self.context.instance).await? {
            let is_here = stored.timeline == self.timeline
                && stored.start >= self.start
                && stored.end <= self.end;
            if !is_here {
                continue;
            }
            if let Err(error) = repository.read_summary(&stored, cluster).await {
                let doubt = Doubt::Damaged(error);
                hear(SummaryEvent::Unusable { stored, doubt });
            }
        }
        Ok(())
    }
}

fn is_store_failure(error: &RepositoryError) -> bool {
    matches!(error, RepositoryError::Store(_))
}

/// Where a timeline's own log lies without holes: from where the timeline begins, or `from`, on.
fn runs(own: &LogIndex, begins: Lsn, from: Lsn) -> Vec<(Lsn, Lsn)> {
    let mut runs: Vec<(Lsn, Lsn)> = Vec::new();
    for stretch in own.stretches() {
        match runs.last_mut() {
            Some((_, end)) if stretch.start <= *end => *end = stretch.end.max(*end),
            _ => runs.push((stretch.start, stretch.end)),
        }
    }
    let clipped = runs.into_iter().map(|(start, end)| {
        let first = match start <= begins {
            true => begins,
            // Log before it is gone, and it may begin inside a record.
            false => next_page(start),
        };
        (first.max(page_of(from)), end)
    });
    clipped.filter(|(start, end)| start < end).collect()
}
