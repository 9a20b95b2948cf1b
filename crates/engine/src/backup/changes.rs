//! What changed between two backups, from summaries of the log between their starts.
//!
//! The last log before a backup's start is often not stored yet. It lies in `pg_wal` beside the files that
//! are about to be read, and is read from there.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use everpoint_pgformat::{
    Lsn, Oid, TimelineId,
    timeline::TimelineHistory,
    wal::segment::SegmentName,
    wal_summary::{
        WalSummary,
        change_map::{ChangeMap, EverythingChanged},
    },
};
use everpoint_repository::{RepositoryError, log::LogIndex};

use crate::summary::{
    LogSummariser, SummariseError, SummaryContext, SummaryEvent, SummaryReadError, SummaryReader,
};

/// Bytes of `pg_wal` read at once.
const READ_BYTES: usize = 1 << 20;

/// What is known of the changes between two positions.
#[derive(Debug)]
pub enum Changes {
    /// Which blocks changed.
    Known(ChangeMap),
    /// Relations may have changed without a trace in the log.
    MinimalLog(Lsn),
    /// It is not known; pages have to be looked at.
    Unknown(UnknownChanges),
}

/// Why it is not known what changed.
#[derive(Debug, thiserror::Error)]
pub enum UnknownChanges {
    /// Neither summaries nor log tell.
    #[error(transparent)]
    Log(#[from] SummaryReadError),
    /// The repository cannot be read.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The last log is neither stored nor in `pg_wal`.
    #[error("the log from {from} on is not stored and cannot be read in pg_wal")]
    Local {
        /// From here.
        from: Lsn,
        /// Why.
        source: LocalLogError,
    },
    /// Log is missing before log that is stored.
    #[error("the log from {from} on is missing")]
    Hole {
        /// From here.
        from: Lsn,
    },
    /// An extension's records may have changed more than they say.
    #[error("{records} records of extensions' resource managers name no blocks")]
    CustomRecords {
        /// How many.
        records: u64,
    },
    /// The map would have grown too large.
    #[error("more changed than a map of changes holds")]
    TooMany,
}

/// Log cannot be read in `pg_wal`.
#[derive(Debug, thiserror::Error)]
pub enum LocalLogError {
    /// A segment is missing or cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not the log that was wanted.
    #[error(transparent)]
    Summarise(#[from] SummariseError),
}

/// The stretch whose changes are wanted.
#[derive(Clone, Copy, Debug)]
pub struct Interval {
    /// The server's timeline.
    pub timeline: TimelineId,
    /// The base's start.
    pub from: Lsn,
    /// The new backup's start.
    pub to: Lsn,
}

#[derive(Default)]
struct Collected {
    changes: ChangeMap,
    custom_without_blocks: u64,
}

impl Collected {
    fn take(&mut self, summary: &WalSummary) {
        self.changes.absorb(&summary.changes);
        self.custom_without_blocks += summary.custom.without_blocks;
    }

    fn judge(self) -> Changes {
        match self.changes.everything() {
            Some(EverythingChanged::MinimalLog(at)) => Changes::MinimalLog(at),
            Some(EverythingChanged::TooManyChanges) => Changes::Unknown(UnknownChanges::TooMany),
            None if self.custom_without_blocks > 0 => {
                let records = self.custom_without_blocks;
                Changes::Unknown(UnknownChanges::CustomRecords { records })
            }
            None => Changes::Known(self.changes),
        }
    }
}

/// Finds out what changed in an interval, from summaries, stored log, and `pg_wal` in the data directory.
pub async fn read(
    context: &SummaryContext,
    data_directory: &Path,
    interval: Interval,
    listener: &(dyn Fn(SummaryEvent) + Sync),
) -> Changes {
    collect(context, data_directory, interval, listener)
        .await
        .map_or_else(Changes::Unknown, Collected::judge)
}

async fn collect(
    context: &SummaryContext,
    data_directory: &Path,
    interval: Interval,
    listener: &(dyn Fn(SummaryEvent) + Sync),
) -> Result<Collected, UnknownChanges> {
    let Interval { timeline, from, to } = interval;
    let index = context.repository.log_index(&context.instance).await?;
    let stored = index.complete_until(timeline, from).min(to);
    let mut collected = Collected::default();
    let of = context.clone();
    let reader = SummaryReader::new(of, &index, timeline, from, stored, listener).await?;
    let mut reader = reader.with_exact_head();
    while let Some(piece) = reader.next().await? {
        collected.take(&piece.summary);
    }
    if stored >= to {
        return Ok(collected);
    }
    if has_log_behind(&index, timeline, stored) {
        return Err(UnknownChanges::Hole { from: stored });
    }
    let local = LocalLog {
        context: context.clone(),
        pg_wal: data_directory.join("pg_wal"),
        history: index.history(timeline),
        from: reader.boundary(),
        to,
        catalog: reader.database_catalog(),
    };
    let read = tokio::task::spawn_blocking(move || {
        let mut collected = collected;
        local.read(&mut collected).map(|()| collected)
    });
    let read = read.await.unwrap_or_else(|_| {
        Err(LocalLogError::Read {
            path: data_directory.join("pg_wal"),
            source: std::io::ErrorKind::Interrupted.into(),
        })
    });
    read.map_err(|source| UnknownChanges::Local {
        from: stored,
        source,
    })
}

/// Whether log is stored behind a position where none joins.
fn has_log_behind(index: &LogIndex, timeline: TimelineId, at: Lsn) -> bool {
    index
        .stretches()
        .any(|stretch| stretch.timeline == timeline && stretch.start > at)
}

/// Log in the data directory.
struct LocalLog {
    context: SummaryContext,
    pg_wal: PathBuf,
    history: TimelineHistory,
    /// A record boundary.
    from: Lsn,
    to: Lsn,
    catalog: Oid,
}

impl LocalLog {
    fn read(&self, collected: &mut Collected) -> Result<(), LocalLogError> {
        let size = self.context.segment_size;
        let timeline = self.history.timeline();
        let mut summariser = LogSummariser::at(&self.context, timeline, self.from, self.catalog);
        let mut at = size.floor(self.from);
        while at < self.to {
            let end = at.advance(size.bytes());
            let (path, mut file) = self.open(size.segment_of(at), end)?;
            let mut left = end.min(self.to).bytes_since(at);
            let mut buffer = vec![0; READ_BYTES];
            while left > 0 {
                let len = usize::try_from(left).unwrap_or(READ_BYTES).min(READ_BYTES);
                let bytes = buffer.get_mut(..len).unwrap_or_default();
                file.read_exact(bytes)
                    .map_err(|source| LocalLogError::Read {
                        path: path.clone(),
                        source,
                    })?;
                summariser.feed(at, bytes)?;
                if summariser.is_full()
                    && let Some(summary) = summariser.cut()
                {
                    collected.take(&summary);
                }
                at = at.advance(len as u64);
                left -= len as u64;
            }
        }
        if let Some(summary) = summariser.cut() {
            collected.take(&summary);
        }
        Ok(())
    }

    /// Opens a segment: of the timeline that its last wanted byte lies on, or else of the one before.
    fn open(&self, segment: u64, end: Lsn) -> Result<(PathBuf, File), LocalLogError> {
        let last = Lsn::new(end.min(self.to).get().saturating_sub(1));
        let timeline = self.history.timeline_at(last);
        let name = SegmentName::new(timeline, segment, self.context.segment_size);
        let path = self.pg_wal.join(name.to_string());
        match File::open(&path) {
            Ok(file) => Ok((path, file)),
            Err(source) => Err(LocalLogError::Read { path, source }),
        }
    }
}
