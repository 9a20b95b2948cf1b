//! What happened in a stretch of history, cut to that stretch.

use everpoint_pgformat::{Lsn, TimelineId, wal_summary::WalSummary};
use everpoint_repository::{InstanceName, Repository, backup::Backup, log::LogIndex};

use super::{Begin, Facts, Source, Sources, SummaryContext, SummaryReadError, SummaryReader};

/// What happened, and where that is looked for.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The repository.
    pub repository: &'a Repository,
    /// The instance.
    pub instance: &'a InstanceName,
    /// A backup of the cluster that wrote the log.
    pub backup: &'a Backup,
    /// The log.
    pub index: &'a LogIndex,
    /// The timeline in whose history it lies.
    pub timeline: TimelineId,
    /// Where it begins.
    pub from: Lsn,
    /// Whether a record begins there.
    pub begin: Begin,
    /// Up to where records have to end; the log is stored without a hole up to here.
    pub until: Lsn,
    /// What is asked for.
    pub facts: Facts,
    /// From what it is told.
    pub sources: &'a Sources,
}

/// Tells what happened, a piece of history at a time.
pub struct Chronicle<'a> {
    reader: SummaryReader<'a>,
}

impl<'a> Chronicle<'a> {
    /// Of a stretch of history.
    ///
    /// # Errors
    /// When summaries cannot be listed.
    pub async fn new(asked: &Asked<'a>) -> Result<Self, SummaryReadError> {
        let Asked {
            index,
            timeline,
            from,
            until,
            facts,
            sources,
            ..
        } = *asked;
        let context = SummaryContext {
            repository: asked.repository.clone(),
            instance: asked.instance.clone(),
            system_identifier: asked.backup.system_identifier,
            version: asked.backup.version,
            segment_size: asked.backup.segment_size,
        };
        let hear = move |event| sources.note(&event);
        let reader = match sources.source() {
            Source::Log => SummaryReader::from_log(context, index, timeline, from, until, hear),
            Source::Summaries => {
                SummaryReader::new(context, index, timeline, from, until, hear).await?
            }
        };
        let reader = reader.for_facts(facts, asked.begin, sources.clone());
        Ok(Self { reader })
    }

    /// The next piece: its lists tell of the records in the stretch and follow the ones before; its map of
    /// changes is of no use. `None` behind the last.
    ///
    /// # Errors
    /// When neither summaries nor log tell what comes next.
    pub async fn next(&mut self) -> Result<Option<WalSummary>, SummaryReadError> {
        let Some(piece) = self.reader.next().await? else {
            return Ok(None);
        };
        let mut summary = piece.summary;
        summary.keep_lists_between(piece.from, piece.to);
        Ok(Some(summary))
    }
}
