//! What a restore is to reach, and where in the log that is.
//!
//! PostgreSQL stops by time only at records that carry one, and fails when log ends before its target.
//! So a target is turned into the position of one record here, before anything is fetched: the last one
//! to be replayed. A time T means what PostgreSQL means by it: everything before the first end of a
//! transaction, in the log's order, whose time is later than T.
//! Of that, replay needs only what comes up to the last end or preparation of a transaction: behind it lie
//! effects of transactions under way, and those of `DROP DATABASE` on files would stay.

use std::{collections::VecDeque, fmt};

use everpoint_pgformat::{
    Lsn, MajorVersion, TimelineId, TransactionId,
    timestamp::PgTimestamp,
    wal::{
        decoder::{Next, WalDecoder},
        error::WalError,
        record::Record,
        segment::SegmentSize,
    },
    wal_summary::{WalSummary, time_index::RestorePointMark},
};
use everpoint_repository::{
    InstanceName, Repository, RepositoryError, backup::Backup, log::LogIndex, object::ObjectError,
};
use jiff::Timestamp;

use super::time_search::{Surroundings, TimeSearch};
use crate::{
    history::digest::shown,
    log::reader::LogReader,
    summary::{Asked, Begin, Chronicle, Facts, Source, Sources, SummaryReadError},
    window::{self, complete_at},
};

/// Restore points that an error names.
const NAMED_RESTORE_POINTS: usize = 10;

/// What a user wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The last moment that is stored.
    Latest,
    /// A moment.
    Time(Timestamp),
    /// A position: everything that ends before or at it.
    Lsn(Lsn),
    /// A named restore point.
    RestorePoint(String),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("the latest moment"),
            Self::Time(time) => time.fmt(f),
            Self::Lsn(lsn) => lsn.fmt(f),
            Self::RestorePoint(name) => write!(f, "restore point `{name}`"),
        }
    }
}

/// Where replay ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Behind the record that begins here.
    After(Lsn),
    /// As soon as the backup is consistent: nothing that was wanted follows it.
    AtConsistency,
}

/// The end of a transaction next to the point that was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The transaction.
    pub transaction: TransactionId,
    /// When it ended, by the server's clock.
    pub time: Timestamp,
    /// Its record's position.
    pub lsn: Lsn,
}

/// A target as a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The backup to restore.
    pub backup: Backup,
    /// The timeline in whose history replay goes.
    pub timeline: TimelineId,
    /// Where replay ends.
    pub stop: Stop,
    /// Log is needed up to here.
    pub log_until: Lsn,
    /// The last transaction inside, where the log had to be searched for it.
    pub last_inside: Option<Neighbour>,
    /// The first transaction outside, likewise.
    pub first_outside: Option<Neighbour>,
    /// What else is to be known of the way there, where the log had to be searched.
    pub surroundings: Surroundings,
}

/// A target cannot be reached. Nothing was fetched or written.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// There is no backup to begin with.
    #[error(
        "instance `{instance}` has no finished backup on timeline {timeline}. Take one: everpoint backup {instance}"
    )]
    NoBackup {
        /// The instance.
        instance: String,
        /// The timeline.
        timeline: TimelineId,
    },
    /// Before everything.
    #[error("{target} is before the earliest point that can be restored: {earliest}")]
    TooEarly {
        /// As asked for.
        target: Target,
        /// The earliest point.
        earliest: Point,
    },
    /// Behind what is stored.
    #[error(
        "{target} is later than what is stored. The latest point that can be restored is {latest}"
    )]
    TooLate {
        /// As asked for.
        target: Target,
        /// The latest point.
        latest: Point,
    },
    /// In a stretch whose log is lost.
    #[error(
        "{target} lies in a gap: log from {lost_from} on is missing. The nearest points that can be restored are {before} and {after}"
    )]
    InGap {
        /// As asked for.
        target: Target,
        /// Where the gap begins.
        lost_from: Lsn,
        /// The last point before it.
        before: Point,
        /// The first point behind it.
        after: Point,
    },
    /// No such restore point.
    #[error(
        "there is no restore point `{name}` in the log that is stored. The last ones there: {known}"
    )]
    UnknownRestorePoint {
        /// As asked for.
        name: String,
        /// The names there are, the latest first.
        known: String,
    },
    /// No log or backup of such a timeline.
    #[error("nothing is stored of timeline {timeline}. Stored are: {known}")]
    UnknownTimeline {
        /// As asked for.
        timeline: TimelineId,
        /// Those there are.
        known: String,
    },
    /// The stored log cannot be decoded.
    #[error("the stored log is damaged")]
    Log(#[from] WalError),
    /// Neither summaries nor log tell what happened.
    #[error(transparent)]
    Summaries(#[from] SummaryReadError),
    /// The repository.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
}

/// A point that can be restored, for a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// Its time, where known.
    pub time: Option<Timestamp>,
    /// Its position.
    pub lsn: Lsn,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.time {
            Some(time) => write!(f, "{time} (LSN {})", self.lsn),
            None => write!(f, "LSN {}", self.lsn),
        }
    }
}

/// Everything needed to resolve a target.
pub struct Resolver<'a> {
    /// The repository.
    pub repository: &'a Repository,
    /// The instance.
    pub instance: &'a InstanceName,
    /// Its finished backups.
    pub backups: &'a [Backup],
    /// Its log.
    pub index: &'a LogIndex,
    /// The timeline in whose history the target lies.
    pub timeline: TimelineId,
    /// From what it is told what happened.
    pub sources: &'a Sources,
}

impl Resolver<'_> {
    /// Finds the backup and the record at which replay ends.
    ///
    /// # Errors
    /// See [`TargetError`].
    pub async fn resolve(&self, target: &Target) -> Result<Resolved, TargetError> {
        match target {
            Target::Latest => {
                let usable = self.usable()?;
                let backup = *usable.last().ok_or_else(|| self.no_backup())?;
                let until = self.index.complete_until(self.timeline, backup.start_lsn);
                self.at_lsn(backup, until).await
            }
            Target::Lsn(lsn) => {
                let usable = self.usable()?;
                let Some(backup) = usable.iter().rfind(|backup| backup.stop_lsn <= *lsn) else {
                    return Err(self.too_early(target, &usable));
                };
                let until = self.index.complete_until(self.timeline, backup.start_lsn);
                if until < *lsn {
                    return Err(self.unreachable(target, backup, until).await?);
                }
                self.at_lsn(backup, *lsn).await
            }
            Target::Time(time) => self.at_time(target, *time).await,
            Target::RestorePoint(name) => {
                let (start, end) = self.find_restore_point(name).await?;
                let usable = self.usable()?;
                let Some(backup) = usable.iter().rfind(|backup| backup.stop_lsn <= start) else {
                    return Err(self.too_early(target, &usable));
                };
                Ok(self.resolved(backup, Stop::After(start), end, None, None))
            }
        }
    }

    fn no_backup(&self) -> TargetError {
        TargetError::NoBackup {
            instance: self.instance.to_string(),
            timeline: self.timeline,
        }
    }

    /// The backups in the timeline's history that log makes consistent, by position; never none.
    fn usable(&self) -> Result<Vec<&Backup>, TargetError> {
        let usable = window::usable(self.backups, self.index, self.timeline);
        if usable.is_empty() {
            Err(self.no_backup())
        } else {
            Ok(usable)
        }
    }

    fn too_early(&self, target: &Target, usable: &[&Backup]) -> TargetError {
        match usable.first() {
            None => self.no_backup(),
            Some(first) => TargetError::TooEarly {
                target: target.clone(),
                earliest: Point {
                    time: Some(first.stopped_at),
                    lsn: first.stop_lsn,
                },
            },
        }
    }

    /// Why a target behind `until` cannot be reached from `backup`.
    async fn unreachable(
        &self,
        target: &Target,
        backup: &Backup,
        until: Lsn,
    ) -> Result<TargetError, TargetError> {
        let time = complete_at(
            self.repository,
            self.instance,
            self.index,
            self.timeline,
            backup,
            until,
        )
        .await?;
        let before = Point { time, lsn: until };
        let usable = self.usable()?;
        let next = usable.iter().find(|next| next.stop_lsn > until);
        Ok(match next {
            Some(next) => TargetError::InGap {
                target: target.clone(),
                lost_from: until,
                before,
                after: Point {
                    time: Some(next.stopped_at),
                    lsn: next.stop_lsn,
                },
            },
            None => TargetError::TooLate {
                target: target.clone(),
                latest: before,
            },
        })
    }

    fn resolved(
        &self,
        backup: &Backup,
        stop: Stop,
        log_until: Lsn,
        last_inside: Option<Neighbour>,
        first_outside: Option<Neighbour>,
    ) -> Resolved {
        let (backup, timeline) = (backup.clone(), self.timeline);
        Resolved {
            backup,
            timeline,
            stop,
            log_until,
            last_inside,
            first_outside,
            surroundings: Surroundings::default(),
        }
    }

    /// The last record that ends at or before `lsn`.
    async fn at_lsn(&self, backup: &Backup, lsn: Lsn) -> Result<Resolved, TargetError> {
        let near = self.near(backup, lsn);
        let mut last = None;
        if let Some(known) = self.record_before(backup, lsn).await? {
            // A summary may be wrong, and the log is not: it is looked at from further back then.
            let found = self
                .last_record(backup, (known, Begin::AtRecord), lsn)
                .await;
            last = found.unwrap_or_default();
        }
        for from in [near, (backup.start_lsn, Begin::AtRecord)] {
            if last.is_none() {
                last = self.last_record(backup, from, lsn).await?;
            }
        }
        let Some((start, end)) = last else {
            let stop = self.at_consistency(backup).await?;
            return Ok(self.resolved(backup, stop, backup.stop_lsn, None, None));
        };
        let stop = match end <= backup.stop_lsn {
            true => self.at_consistency(backup).await?,
            false => Stop::After(start),
        };
        Ok(self.resolved(backup, stop, end.max(backup.stop_lsn), None, None))
    }

    /// Where the record that ends at or before a position is nearly always found: in the last two segments.
    fn near(&self, backup: &Backup, lsn: Lsn) -> (Lsn, Begin) {
        let size = backup.segment_size;
        let near = Lsn::new(size.floor(lsn).get().saturating_sub(size.bytes()));
        match near > backup.start_lsn {
            true => (near, Begin::Search),
            false => (backup.start_lsn, Begin::AtRecord),
        }
    }

    /// Where replay ends as soon as a backup is consistent. PostgreSQL stops there before the next record, and
    /// fails where none follows; then it is told to stop behind the record that ends at the stop position.
    async fn at_consistency(&self, backup: &Backup) -> Result<Stop, TargetError> {
        let stop = backup.stop_lsn;
        if self.index.complete_until(self.timeline, backup.start_lsn) > stop {
            return Ok(Stop::AtConsistency);
        }
        for from in [self.near(backup, stop), (backup.start_lsn, Begin::AtRecord)] {
            if let Some((start, end)) = self.last_record(backup, from, stop).await?
                && end == stop
            {
                return Ok(Stop::After(start));
            }
        }
        Ok(Stop::AtConsistency)
    }

    async fn at_time(&self, target: &Target, time: Timestamp) -> Result<Resolved, TargetError> {
        let usable = self.usable()?;
        let Some(backup) = usable.iter().rfind(|backup| backup.stopped_at <= time) else {
            return Err(self.too_early(target, &usable));
        };
        let until = self.index.complete_until(self.timeline, backup.start_lsn);
        let wanted = PgTimestamp::from_unix_microseconds(time.as_microsecond());
        let mut search = TimeSearch::new(wanted);
        let mut chronicle = self.chronicle(backup, until, Facts::Databases).await?;
        while !search.is_over()
            && let Some(summary) = chronicle.next().await?
        {
            search.add(&summary);
        }
        let mut surroundings = search.surroundings(self.index.history(self.timeline));
        let (inside, outside) = (search.inside(), search.outside());
        let last = search.last_record();
        let (start, end) = last.unwrap_or((backup.start_lsn, backup.stop_lsn));
        let stop = match end <= backup.stop_lsn {
            true => self.at_consistency(backup).await?,
            false => Stop::After(start),
        };
        surroundings.keep_before(end);
        let needed = end.max(backup.stop_lsn);
        let resolved = |outside| Resolved {
            surroundings,
            ..self.resolved(backup, stop, needed, inside, outside)
        };
        if outside.is_some() {
            return Ok(resolved(outside));
        }
        // No later end of a transaction is stored: it must be known that there was none.
        let complete_at = complete_at(
            self.repository,
            self.instance,
            self.index,
            self.timeline,
            backup,
            until,
        )
        .await?;
        let known = complete_at.max(inside.map(|inside| inside.time));
        if known.is_some_and(|known| known >= time) {
            return Ok(resolved(None));
        }
        match self.unreachable(target, backup, until).await? {
            TargetError::TooLate { target, latest } => {
                let latest = Point {
                    time: known,
                    lsn: latest.lsn,
                };
                Err(TargetError::TooLate { target, latest })
            }
            other => Err(other),
        }
    }

    /// What happened from a backup's start on.
    async fn chronicle<'a>(
        &'a self,
        backup: &'a Backup,
        until: Lsn,
        facts: Facts,
    ) -> Result<Chronicle<'a>, TargetError> {
        let asked = Asked {
            repository: self.repository,
            instance: self.instance,
            backup,
            index: self.index,
            timeline: self.timeline,
            from: backup.start_lsn,
            begin: Begin::AtRecord,
            until,
            facts,
            sources: self.sources,
        };
        Ok(Chronicle::new(&asked).await?)
    }

    /// The last restore point of a name: its record's start and end.
    async fn find_restore_point(&self, name: &str) -> Result<(Lsn, Lsn), TargetError> {
        let usable = self.usable()?;
        let mut to = None;
        let mut others: Vec<String> = Vec::new();
        for backup in usable.iter().rev() {
            let complete = self.index.complete_until(self.timeline, backup.start_lsn);
            let until = to.map_or(complete, |to: Lsn| to.min(complete));
            let mut found = None;
            let mut passed = VecDeque::new();
            let mut chronicle = self.chronicle(backup, until, Facts::Times).await?;
            while let Some(summary) = chronicle.next().await? {
                for point in summary.times.restore_points() {
                    if point.name == name.as_bytes() {
                        found = Some((point.start, point.end));
                    }
                    passed.push_front(restore_point_text(point));
                    passed.truncate(NAMED_RESTORE_POINTS);
                }
            }
            if let Some(found) = found {
                return Ok(found);
            }
            others.extend(passed);
            others.truncate(NAMED_RESTORE_POINTS);
            to = Some(backup.start_lsn);
        }
        let known = match others.is_empty() {
            true => "none".to_owned(),
            false => others.join(", "),
        };
        let name = name.to_owned();
        Err(TargetError::UnknownRestorePoint { name, known })
    }

    /// Where the last record begins, in front of a position, of which stored summaries know.
    async fn record_before(&self, backup: &Backup, lsn: Lsn) -> Result<Option<Lsn>, TargetError> {
        if self.sources.source() == Source::Log {
            return Ok(None);
        }
        let parts = self.index.history(self.timeline).parts().to_vec();
        let stored = self.repository.summaries(self.instance).await?;
        let near = stored
            .iter()
            .filter(|stored| stored.start < lsn && stored.end > backup.start_lsn)
            .filter(|stored| {
                let on = parts.iter().find(|part| part.timeline == stored.timeline);
                on.is_some_and(|part| stored.start >= part.from && stored.end <= part.to)
            })
            .max_by_key(|stored| stored.end.min(lsn));
        let Some(near) = near else {
            return Ok(None);
        };
        let cluster = Some(backup.system_identifier);
        Ok(match self.repository.read_summary(near, cluster).await {
            Ok(summary) => Some(last_start(&summary, lsn).max(backup.start_lsn)),
            Err(_) => None,
        })
    }

    /// The last record that ends at or before a position, by its start and end.
    async fn last_record(
        &self,
        backup: &Backup,
        (from, begin): (Lsn, Begin),
        lsn: Lsn,
    ) -> Result<Option<(Lsn, Lsn)>, TargetError> {
        let scan = LogScan {
            repository: self.repository,
            index: self.index,
            timeline: self.timeline,
            version: backup.version,
            segment_size: backup.segment_size,
        };
        let mut last = None;
        scan.run(from, lsn, begin, |record| {
            if record.end() <= lsn {
                last = Some((record.start(), record.end()));
            }
            Ok(record.end() < lsn)
        })
        .await?;
        Ok(last)
    }
}

/// The start of the last record in front of a position that a summary tells of.
fn last_start(summary: &WalSummary, lsn: Lsn) -> Lsn {
    if summary.end <= lsn {
        return summary.last;
    }
    let ends = summary.times.transactions();
    let ended = ends.partition_point(|mark| mark.end <= lsn).checked_sub(1);
    let ended = ended
        .and_then(|index| ends.get(index))
        .map(|mark| mark.start);
    let events = summary.databases.events().iter();
    let event = events
        .rev()
        .map(|event| event.start)
        .find(|start| *start < lsn);
    ended.max(event).unwrap_or(summary.start)
}

fn restore_point_text(point: &RestorePointMark) -> String {
    let name = shown(&point.name);
    format!("`{name}` of {}", to_timestamp(point.time))
}

/// Reads stored log as records.
pub struct LogScan<'a> {
    /// The repository.
    pub repository: &'a Repository,
    /// The log.
    pub index: &'a LogIndex,
    /// The timeline in whose history it is read.
    pub timeline: TimelineId,
    /// The server's version.
    pub version: MajorVersion,
    /// The size of WAL segments.
    pub segment_size: SegmentSize,
}

impl LogScan<'_> {
    /// Shows the records from `from` up to `until` to `visit` until it returns false.
    ///
    /// # Errors
    /// When log is missing or damaged, or `visit` fails.
    pub async fn run(
        &self,
        from: Lsn,
        until: Lsn,
        begin: Begin,
        mut visit: impl FnMut(&Record<'_>) -> Result<bool, TargetError>,
    ) -> Result<(), TargetError> {
        let mut decoder = match begin {
            Begin::AtRecord => WalDecoder::new(self.version, self.segment_size, from),
            Begin::Search => WalDecoder::searching(self.version, self.segment_size, from),
        };
        let first = decoder.position();
        let missing = |_| {
            RepositoryError::from(ObjectError::Damaged {
                path: format!("log of timeline {}", self.timeline),
                what: "some of what was to be read is missing",
            })
        };
        let pieces = self
            .index
            .pieces(self.timeline, first, until)
            .map_err(missing)?;
        let mut reader = LogReader::new(self.repository.clone(), pieces)?;
        while let Some((at, bytes)) = reader.next().await? {
            let mut chunk = decoder.feed(at, &bytes);
            loop {
                match chunk.next()? {
                    Next::Record(record) => {
                        if !visit(&record)? {
                            return Ok(());
                        }
                    }
                    Next::NeedBytes => break,
                    Next::End(_) => return Ok(()),
                }
            }
        }
        Ok(())
    }
}

/// PostgreSQL's time as one of ours, held within the range that ours has.
pub fn to_timestamp(time: PgTimestamp) -> Timestamp {
    Timestamp::from_microsecond(time.unix_microseconds()).unwrap_or(match time.raw() < 0 {
        true => Timestamp::MIN,
        false => Timestamp::MAX,
    })
}
