//! What happened to databases, and how one that was dropped can be had back.
//!
//! `DROP DATABASE` writes (PostgreSQL 15 to 18): an overwrite of the row in `pg_database` that marks the
//! database invalid, a delete of the row, a checkpoint, the removal of the directories, and last the commit.
//! A recovery that stops just before the mark has the database whole; one that stops at any time between the
//! mark and the commit has it invalid or without files. `ALTER DATABASE SET TABLESPACE` removes a
//! directory too, and `CREATE DATABASE` does when it fails: without a mark or a delete of the row nothing
//! was dropped.

use crate::{Lsn, Oid, TransactionId, wal::database::DatabaseDirectory};

use super::Coverage;

/// The most events kept; what comes later is left out, and [`DatabaseEvents::coverage`] says so.
pub const MAX_DATABASE_EVENTS: usize = 1 << 18;

/// What [`DatabaseEvent::database`] is when the log does not show which database a deleted row was of.
pub const UNKNOWN_DATABASE: Oid = Oid::new(0);

/// Something that happened to a database. It counts only if its transaction commits, except a mark and
/// the removal of files, which count at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseEvent {
    /// Start of its record.
    pub start: Lsn,
    /// End of its record.
    pub end: Lsn,
    /// Its transaction, the top-level one where the log says so.
    pub transaction: TransactionId,
    /// The database.
    pub database: Oid,
    /// What happened.
    pub change: DatabaseChange,
}

/// What happened to a database. Names are in the server's encoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatabaseChange {
    /// Its directory was copied from another database's; nothing of its contents is in the log.
    CreatedByFileCopy {
        /// The new directory's tablespace.
        tablespace: Oid,
        /// What it is a copy of.
        source: DatabaseDirectory,
    },
    /// Its directory was made and its contents logged.
    CreatedByLog {
        /// The new directory's tablespace.
        tablespace: Oid,
    },
    /// Its directory was copied to another tablespace.
    Moved {
        /// The old tablespace.
        from: Oid,
        /// The new one.
        to: Oid,
    },
    /// It got its row in `pg_database`.
    Named {
        /// Its name.
        name: Vec<u8>,
    },
    /// It was renamed.
    Renamed {
        /// The name before, when the log shows it.
        from: Option<Vec<u8>>,
        /// The new name.
        to: Vec<u8>,
    },
    /// Its row was marked invalid: a drop has begun and will not be rolled back.
    Invalidated {
        /// Its name.
        name: Vec<u8>,
    },
    /// The mark was taken away again, by hand.
    Revalidated,
    /// Its row was deleted. Its name, when the log shows it.
    RowDeleted {
        /// Its name.
        name: Option<Vec<u8>>,
    },
    /// A transaction that changed a database's name in earlier log turned out to be a child of the event's
    /// transaction. The database is not told.
    Assigned {
        /// The child.
        child: TransactionId,
    },
    /// Its directories were removed.
    FilesRemoved {
        /// Their tablespaces.
        tablespaces: Vec<Oid>,
    },
}

impl DatabaseChange {
    /// Whether it may be done by a transaction's child; all else is only done by top-level transactions.
    pub fn is_of_name(&self) -> bool {
        matches!(self, Self::Renamed { .. } | Self::Revalidated)
    }
}

/// A database that was dropped, or that a failed drop left invalid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DroppedDatabase {
    /// The database.
    pub database: Oid,
    /// Its last name, when the log shows it.
    pub name: Option<Vec<u8>>,
    /// Start of the record that began the drop. Recovery up to here, exclusive, has the database whole.
    pub undo: Lsn,
    /// What that record is.
    pub begun_by: DropSign,
    /// Start of the record that removed its files; `None` when a drop failed before.
    pub removed: Option<Lsn>,
    /// Transaction of the drop; invalid when only the mark is there.
    pub transaction: TransactionId,
}

/// What shows that a drop began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropSign {
    /// The row was marked invalid.
    Mark,
    /// The row was deleted without a mark, as minor versions before the mark did.
    RowDeleted,
}

/// What happened to databases in a stretch of log, in the order of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DatabaseEvents {
    events: Vec<DatabaseEvent>,
    coverage: Coverage,
}

impl DatabaseEvents {
    /// The events, in the order of the log.
    pub fn events(&self) -> &[DatabaseEvent] {
        &self.events
    }

    /// Whether all events of the log are here.
    pub fn coverage(&self) -> Coverage {
        self.coverage
    }

    /// The databases that were dropped, in the order in which their drops were completed or, failing that,
    /// begun.
    ///
    /// A drop that began in earlier log shows as [`DropSign::RowDeleted`] or not at all: merge that log's
    /// events first.
    pub fn dropped(&self) -> Vec<DroppedDatabase> {
        let mut dropped = Vec::new();
        let mut begun: Vec<DroppedDatabase> = Vec::new();
        for event in &self.events {
            match &event.change {
                DatabaseChange::Invalidated { name } => {
                    // A second drop of an invalid database marks it again: the first mark counts.
                    let known = begun.iter().any(|drop| {
                        drop.database == event.database && drop.begun_by == DropSign::Mark
                    });
                    if !known {
                        begun.retain(|drop| drop.database != event.database);
                        begun.push(DroppedDatabase {
                            database: event.database,
                            name: Some(name.clone()),
                            undo: event.start,
                            begun_by: DropSign::Mark,
                            removed: None,
                            transaction: event.transaction,
                        });
                    }
                }
                DatabaseChange::Revalidated => {
                    begun.retain(|drop| drop.database != event.database);
                }
                DatabaseChange::RowDeleted { name } => {
                    match begun
                        .iter_mut()
                        .find(|drop| drop.database == event.database)
                    {
                        Some(drop) if drop.begun_by == DropSign::Mark => {
                            drop.transaction = event.transaction;
                        }
                        Some(drop) => {
                            // The earlier delete was rolled back, or there would be no row now.
                            drop.undo = event.start;
                            drop.transaction = event.transaction;
                        }
                        None => begun.push(DroppedDatabase {
                            database: event.database,
                            name: name.clone(),
                            undo: event.start,
                            begun_by: DropSign::RowDeleted,
                            removed: None,
                            transaction: event.transaction,
                        }),
                    }
                }
                DatabaseChange::FilesRemoved { .. } => {
                    let ours = begun.iter().position(|drop| match drop.begun_by {
                        DropSign::Mark => drop.database == event.database,
                        DropSign::RowDeleted => {
                            drop.transaction == event.transaction
                                && [event.database, UNKNOWN_DATABASE].contains(&drop.database)
                        }
                    });
                    if let Some(index) = ours {
                        let mut drop = begun.remove(index);
                        drop.database = event.database;
                        drop.removed = Some(event.start);
                        drop.transaction = event.transaction;
                        dropped.push(drop);
                    }
                }
                DatabaseChange::CreatedByFileCopy { .. }
                | DatabaseChange::CreatedByLog { .. }
                | DatabaseChange::Moved { .. }
                | DatabaseChange::Named { .. }
                | DatabaseChange::Renamed { .. }
                | DatabaseChange::Assigned { .. } => {}
            }
        }
        // A row deleted without its files removed is a rolled-back transaction's.
        let failed = begun
            .into_iter()
            .filter(|drop| drop.begun_by == DropSign::Mark);
        dropped.extend(failed);
        dropped
    }

    pub(super) fn add(&mut self, event: DatabaseEvent) {
        if self.events.len() < MAX_DATABASE_EVENTS {
            self.events.push(event);
        } else {
            self.coverage = Coverage::Partial;
        }
    }

    /// Names the top-level transaction of earlier events, if that is what an event tells and there are some.
    fn assign_earlier(&mut self, later: &DatabaseEvent) -> bool {
        let DatabaseChange::Assigned { child } = later.change else {
            return false;
        };
        let mut is_known = false;
        for event in &mut self.events {
            if event.transaction == child && event.change.is_of_name() {
                event.transaction = later.transaction;
                is_known = true;
            }
        }
        is_known
    }

    /// Names the top-level transaction of an event.
    pub(super) fn assign(&mut self, index: usize, top_level: TransactionId) {
        if let Some(event) = self.events.get_mut(index) {
            event.transaction = top_level;
        }
    }

    /// Adds what happened in the log that follows.
    pub fn absorb(&mut self, later: Self) {
        self.coverage = self.coverage.and(later.coverage);
        for event in later.events {
            if !self.assign_earlier(&event) {
                self.add(event);
            }
        }
    }

    /// Leaves out what is not told by records in a stretch.
    pub(super) fn keep_between(&mut self, from: Lsn, to: Lsn) {
        self.events
            .retain(|event| event.start >= from && event.end <= to);
    }

    pub(super) fn set_coverage(&mut self, coverage: Coverage) {
        self.coverage = coverage;
    }
}
