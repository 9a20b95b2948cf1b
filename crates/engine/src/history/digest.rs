//! What summaries say, put together into events. Pure: from values to values.
//!
//! Names come from the log as it goes by. What it does not name keeps its file, by which the catalog of a
//! backup can name it later.

use std::collections::{HashMap, HashSet};

use everpoint_pgformat::{
    Lsn, Oid, TransactionId,
    relation::RelationId,
    timeline::TimelineHistory,
    wal_summary::{
        Coverage, WalSummary,
        database_events::{DatabaseChange, DatabaseEvent, DatabaseEvents},
        relation_events::RelationChange,
        time_index::TransactionMark,
        transactions::NotableTransaction,
    },
};

use super::{
    clock::ClockWatch,
    event::{Change, Event, EventDatabase, EventId, EventKind},
    known::KnownRelations,
    lives::DatabaseLives,
    relations,
};
use crate::restore::target::to_timestamp;

/// The most events kept; what comes later is left out and said to be.
pub const MAX_EVENTS: usize = 1 << 17;
/// The most files of relations whose transactions are not known to have removed them by name.
const MAX_FILES: usize = 1 << 12;

/// Summaries as they are put together.
pub struct Digest {
    history: TimelineHistory,
    events: Vec<Event>,
    is_partial: bool,
    known: KnownRelations,
    databases: DatabaseEvents,
    /// Databases' events whose transactions have not ended yet.
    pending: Vec<DatabaseEvent>,
    /// How the transactions of databases' events ended.
    ends: HashMap<(TransactionId, Lsn), TransactionMark>,
    clock: ClockWatch,
    lives: DatabaseLives,
    last: Option<TransactionMark>,
}

/// What summaries were put together to.
pub struct Digested {
    /// What happened, in the order of the log.
    pub events: Vec<Event>,
    /// Whether events are missing because there were too many.
    pub is_partial: bool,
    /// What became of databases.
    pub lives: DatabaseLives,
    /// The last end of a transaction.
    pub last: Option<TransactionMark>,
}

impl Digest {
    /// Nothing seen yet. These databases are known from backups.
    pub fn new(history: TimelineHistory, lives: DatabaseLives) -> Self {
        Self {
            history,
            events: Vec::new(),
            is_partial: false,
            known: KnownRelations::default(),
            databases: DatabaseEvents::default(),
            pending: Vec::new(),
            ends: HashMap::new(),
            clock: ClockWatch::default(),
            lives,
            last: None,
        }
    }

    /// Adds a summary; it follows the one before.
    pub fn add(&mut self, summary: &WalSummary) {
        let partial = [
            summary.times.coverage(),
            summary.databases.coverage(),
            summary.relations.coverage(),
            summary.transactions.coverage(),
        ];
        self.is_partial |= partial.contains(&Coverage::Partial);
        self.note_clock(summary);
        self.note_databases(summary);
        for point in summary.times.restore_points() {
            let change = Change::RestorePoint {
                name: shown(&point.name),
            };
            let time = Some(to_timestamp(point.time));
            self.push(EventKind::RestorePoint, point.start, time, None, change);
        }
        for notable in summary.transactions.ended() {
            self.note_transaction(summary, notable);
        }
    }

    fn id(&self, lsn: Lsn) -> EventId {
        EventId {
            timeline: self.history.timeline_at(lsn),
            lsn,
        }
    }

    fn push(
        &mut self,
        kind: EventKind,
        lsn: Lsn,
        time: Option<jiff::Timestamp>,
        transaction: Option<TransactionId>,
        change: Change,
    ) {
        let event = Event {
            id: self.id(lsn),
            kind,
            time,
            transaction,
            database: None,
            change,
            size: None,
        };
        self.keep(event);
    }

    fn keep(&mut self, event: Event) {
        if self.events.len() < MAX_EVENTS {
            self.events.push(event);
        } else {
            self.is_partial = true;
        }
    }

    fn note_clock(&mut self, summary: &WalSummary) {
        for mark in summary.times.transactions() {
            if let Some(step) = self.clock.see(mark) {
                let change = Change::ClockBack {
                    from: to_timestamp(step.from),
                    to: to_timestamp(step.to),
                };
                let time = Some(to_timestamp(step.to));
                self.push(EventKind::Clock, step.at, time, None, change);
            }
            self.last = Some(*mark);
        }
    }

    fn note_databases(&mut self, summary: &WalSummary) {
        self.databases.absorb(summary.databases.clone());
        for event in summary.databases.events() {
            match event.change {
                DatabaseChange::Assigned { child } => {
                    let pending = self.pending.iter_mut();
                    pending
                        .filter(|of| of.transaction == child && of.change.is_of_name())
                        .for_each(|of| of.transaction = event.transaction);
                }
                _ => self.pending.push(event.clone()),
            }
        }
        if self.pending.is_empty() {
            return;
        }
        let wanted: HashSet<TransactionId> =
            self.pending.iter().map(|event| event.transaction).collect();
        for mark in summary.times.transactions() {
            if !wanted.contains(&mark.transaction) {
                continue;
            }
            let (ended, pending) = std::mem::take(&mut self.pending)
                .into_iter()
                .partition::<Vec<_>, _>(|event| {
                    event.transaction == mark.transaction && event.start < mark.start
                });
            self.pending = pending;
            for event in ended {
                self.ends.insert((event.transaction, event.start), *mark);
                if mark.kind.is_commit() {
                    self.database_changed(&event, mark);
                }
            }
        }
    }

    /// A committed change of a database other than its drop, which is told at the end.
    fn database_changed(&mut self, event: &DatabaseEvent, mark: &TransactionMark) {
        let time = to_timestamp(mark.time);
        let oid = event.database;
        let (kind, change) = match &event.change {
            DatabaseChange::Named { name } => {
                self.lives.created(oid, shown(name), mark.end, time);
                (EventKind::Create, Change::DatabaseCreated)
            }
            DatabaseChange::Renamed { from, to } => {
                let before = from.as_deref().map(shown);
                let before = before.or_else(|| self.lives.name(oid).map(str::to_owned));
                self.lives.renamed(oid, shown(to), mark.end, time);
                (EventKind::Rename, Change::DatabaseRenamed { from: before })
            }
            DatabaseChange::Moved { .. }
            | DatabaseChange::CreatedByFileCopy { .. }
            | DatabaseChange::CreatedByLog { .. }
            | DatabaseChange::Invalidated { .. }
            | DatabaseChange::Revalidated
            | DatabaseChange::Assigned { .. }
            | DatabaseChange::RowDeleted { .. }
            | DatabaseChange::FilesRemoved { .. } => return,
        };
        let database = Some(EventDatabase {
            oid,
            name: self.lives.name(oid).map(str::to_owned),
        });
        let event = Event {
            id: self.id(mark.start),
            kind,
            time: Some(time),
            transaction: Some(event.transaction),
            database,
            change,
            size: None,
        };
        self.keep(event);
    }

    fn note_transaction(&mut self, summary: &WalSummary, notable: &NotableTransaction) {
        let removed: Vec<RelationId> = summary
            .relations
            .events()
            .iter()
            .skip(
                summary
                    .relations
                    .events()
                    .partition_point(|event| event.start < notable.ended),
            )
            .take_while(|event| event.start == notable.ended)
            .filter(|event| event.change == RelationChange::Dropped)
            .map(|event| event.relation)
            .take(MAX_FILES)
            .collect();
        for told in relations::told(notable, &removed, &mut self.known) {
            let event = Event {
                id: self.id(notable.ended),
                kind: told.kind,
                time: Some(to_timestamp(notable.time)),
                transaction: Some(notable.transaction),
                database: told.database.map(|oid| EventDatabase {
                    oid,
                    name: self.lives.name(oid).map(str::to_owned),
                }),
                change: told.change,
                size: Some(told.size),
            };
            self.keep(event);
        }
    }

    /// All that was seen, in the order of the log.
    pub fn finish(mut self) -> Digested {
        for event in self.databases.events() {
            // A move has no transaction of its own, and its record stands for it.
            if let DatabaseChange::Moved { from, to } = event.change {
                let moved = Event {
                    id: self.id(event.start),
                    kind: EventKind::Move,
                    time: None,
                    transaction: None,
                    database: Some(EventDatabase {
                        oid: event.database,
                        name: self.lives.name(event.database).map(str::to_owned),
                    }),
                    change: Change::DatabaseMoved { from, to },
                    size: None,
                };
                self.events.push(moved);
            }
        }
        for dropped in self.databases.dropped() {
            let removal = dropped.removed.unwrap_or(dropped.undo);
            let mark = self.ends.get(&(dropped.transaction, removal));
            let time = mark.map(|mark| to_timestamp(mark.time));
            let name = dropped.name.as_deref().map(shown);
            self.lives
                .dropped(dropped.database, name.clone(), dropped.undo, time);
            let change = match dropped.removed {
                Some(_) => Change::DatabaseDropped,
                None => Change::DatabaseSpoilt,
            };
            let event = Event {
                id: self.id(dropped.undo),
                kind: EventKind::Drop,
                time,
                transaction: Some(dropped.transaction).filter(|id| id.is_valid()),
                database: Some(EventDatabase {
                    oid: dropped.database,
                    name: name.or_else(|| self.lives.name(dropped.database).map(str::to_owned)),
                }),
                change,
                size: None,
            };
            self.events.push(event);
        }
        // What a transaction did to a database was told already.
        let ends: HashSet<Lsn> = self.ends.values().map(|mark| mark.start).collect();
        self.events.retain(|event| {
            !(event.kind == EventKind::Ddl
                && matches!(event.change, Change::Definitions { .. })
                && ends.contains(&event.id.lsn))
        });
        self.events.sort_by_key(|event| event.id.lsn);
        Digested {
            events: self.events,
            is_partial: self.is_partial,
            lives: self.lives,
            last: self.last,
        }
    }
}

/// A name out of the log for a person: what is not a character of UTF-8 is replaced, and what would steer a
/// terminal is escaped.
pub fn shown(name: &[u8]) -> String {
    let mut text = String::new();
    for character in String::from_utf8_lossy(name).chars() {
        if character.is_control() {
            text.extend(character.escape_default());
        } else {
            text.push(character);
        }
    }
    text
}

/// The OID of no database.
pub const NO_DATABASE: Oid = Oid::new(0);
