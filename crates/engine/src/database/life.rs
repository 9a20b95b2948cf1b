//! The lives of databases: when each came, what it was called, when it went.
//!
//! Made from a backup's list of databases and the events in the log behind it. Pure.

use std::collections::{BTreeMap, BTreeSet};

use everpoint_pgformat::{
    Lsn, Oid, PgTimestamp, TransactionId,
    wal_summary::{
        database_events::{DatabaseChange, DatabaseEvents, DropSign, UNKNOWN_DATABASE},
        time_index::TransactionMark,
    },
};
use everpoint_repository::backup::Database;

use crate::transplant::name::OperationId;

/// How transactions ended.
#[derive(Clone, Debug, Default)]
pub struct Ends(Vec<TransactionMark>);

impl Ends {
    /// In the order of the log.
    pub fn new(marks: Vec<TransactionMark>) -> Self {
        Self(marks)
    }

    /// How a transaction ended that wrote something at `from`.
    fn of(&self, transaction: TransactionId, from: Lsn) -> Option<&TransactionMark> {
        let first = self.0.partition_point(|mark| mark.start < from);
        let later = self.0.get(first..)?;
        later.iter().find(|mark| mark.transaction == transaction)
    }

    fn commit_of(&self, transaction: TransactionId, from: Lsn) -> Option<Moment> {
        self.of(transaction, from)
            .filter(|mark| mark.kind.is_commit())
            .map(|mark| Moment {
                time: mark.time,
                lsn: mark.end,
                transaction,
            })
    }

    /// The first end behind a position, whose time is the earliest that is known behind it.
    fn behind(&self, lsn: Lsn) -> Option<&TransactionMark> {
        self.0.get(self.0.partition_point(|mark| mark.start < lsn))
    }
}

/// When a transaction committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// By the server's clock.
    pub time: PgTimestamp,
    /// Behind its record.
    pub lsn: Lsn,
    /// The transaction.
    pub transaction: TransactionId,
}

/// The end of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// Recovery up to here, exclusive, has it whole.
    pub undo: Lsn,
    /// The commit of the drop; absent when the drop failed, and left the database invalid.
    pub committed: Option<Moment>,
    /// When the drop began or ended, as close as it is known.
    pub time: Option<PgTimestamp>,
}

/// The life of a database, as far as a stretch of log shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    /// The database.
    pub database: Oid,
    /// Its names, each from a position on; the first from its beginning.
    pub names: Vec<(Lsn, String)>,
    /// Its beginning; absent when that was before the stretch of log.
    pub created: Option<Moment>,
    /// Since when it is there for others: its beginning, or when it got its name, if it was filled under a hidden one.
    /// Absent when that was before the stretch of log.
    pub shown: Option<Moment>,
    /// Whose directories were copied without a trace of their contents in the log, and where.
    pub copied: Vec<(Lsn, Oid)>,
    /// Its end, if it has one.
    pub dropped: Option<Dropped>,
}

impl Life {
    fn new(database: Oid) -> Self {
        Self {
            database,
            names: Vec::new(),
            created: None,
            shown: None,
            copied: Vec::new(),
            dropped: None,
        }
    }

    /// Its name in the state at `lsn`: that of commits that end at or before it.
    pub fn name_at(&self, lsn: Lsn) -> Option<&str> {
        let known = self.names.iter().rev().find(|(from, _)| *from <= lsn);
        known.map(|(_, name)| name.as_str())
    }

    /// Its last name.
    pub fn last_name(&self) -> Option<&str> {
        self.names.last().map(|(_, name)| name.as_str())
    }

    /// Whether it had begun in the state at `lsn`.
    pub fn begun_at(&self, lsn: Lsn) -> bool {
        !self.names.is_empty() && self.created.is_none_or(|created| created.lsn <= lsn)
    }

    /// Whether it is whole in the state at `lsn`.
    pub fn whole_at(&self, lsn: Lsn) -> bool {
        let ended = self
            .dropped
            .as_ref()
            .is_some_and(|dropped| dropped.undo < lsn);
        self.begun_at(lsn) && !ended
    }
}

/// The lives of all databases that the list or the events show, in the order of their OIDs.
pub fn lives(listed: &[Database], events: &DatabaseEvents, ends: &Ends) -> Vec<Life> {
    let mut lives: BTreeMap<Oid, Life> = BTreeMap::new();
    for database in listed {
        let mut life = Life::new(database.oid);
        life.names.push((Lsn::INVALID, database.name.clone()));
        lives.insert(database.oid, life);
    }
    let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
    for event in events.events() {
        let life = || Life::new(event.database);
        match &event.change {
            DatabaseChange::CreatedByFileCopy { source, .. } => {
                let life = lives.entry(event.database).or_insert_with(life);
                life.copied.push((event.start, source.database));
            }
            DatabaseChange::Named { name } => {
                if let Some(created) = ends.commit_of(event.transaction, event.start) {
                    let life = lives.entry(event.database).or_insert_with(life);
                    life.names = vec![(created.lsn, text(name))];
                    life.created = Some(created);
                    life.shown = Some(created);
                }
            }
            DatabaseChange::Renamed { to, .. } => {
                if let Some(renamed) = ends.commit_of(event.transaction, event.start) {
                    let life = lives.entry(event.database).or_insert_with(life);
                    if life.last_name().is_some_and(OperationId::is_hidden) {
                        life.shown = Some(renamed);
                    }
                    life.names.push((renamed.lsn, text(to)));
                }
            }
            DatabaseChange::CreatedByLog { .. }
            | DatabaseChange::Moved { .. }
            | DatabaseChange::Assigned { .. }
            | DatabaseChange::Invalidated { .. }
            | DatabaseChange::Revalidated
            | DatabaseChange::RowDeleted { .. }
            | DatabaseChange::FilesRemoved { .. } => {}
        }
    }
    for drop in events.dropped() {
        if drop.database == UNKNOWN_DATABASE {
            continue;
        }
        let life = lives
            .entry(drop.database)
            .or_insert_with(|| Life::new(drop.database));
        if let (true, Some(name)) = (life.names.is_empty(), &drop.name) {
            life.names.push((Lsn::INVALID, text(name)));
        }
        let committed = drop
            .removed
            .and_then(|removed| ends.commit_of(drop.transaction, removed));
        // Files that were removed are gone, whatever became of the transaction.
        if drop.begun_by == DropSign::RowDeleted && drop.removed.is_none() {
            continue;
        }
        life.dropped = Some(Dropped {
            undo: drop.undo,
            committed,
            time: committed
                .map(|commit| commit.time)
                .or_else(|| ends.behind(drop.undo).map(|mark| mark.time)),
        });
    }
    lives.retain(|_, life| !life.names.is_empty());
    lives.into_values().collect()
}

/// The databases whose log has to be replayed to have `database` whole at `until`, beginning at `from`: it
/// itself, and those that it, or they, are copies of.
pub fn with_sources(lives: &[Life], database: Oid, from: Lsn, until: Lsn) -> BTreeSet<Oid> {
    let mut needed = BTreeSet::new();
    let mut open = vec![database];
    while let Some(database) = open.pop() {
        if !needed.insert(database) {
            continue;
        }
        let life = lives.iter().find(|life| life.database == database);
        let copied = life.into_iter().flat_map(|life| &life.copied);
        let in_range = copied.filter(|(at, _)| *at >= from && *at < until);
        open.extend(in_range.map(|(_, source)| *source));
    }
    needed
}
