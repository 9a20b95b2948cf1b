//! Makes summaries from records as they come.

use crate::{
    Lsn, MajorVersion, Oid, TimelineId, TransactionId,
    relation::Fork,
    wal::{
        database::{DatabaseDirectory, DatabaseRecord},
        heap::{self, HeapRecord},
        payload::PayloadError,
        record::Record,
        relation_map::RelationMapUpdate,
        resource_manager::ResourceManager,
        storage::StorageRecord,
        transaction::{TransactionEnd, TransactionIds, TransactionRecord},
        xlog::{self, WalLevel, XlogRecord},
    },
};

use super::{
    WalSummary,
    catalog_rows::{CatalogRows, DATABASE_CATALOG, DatabaseRow, RowChange},
    change_map::{EverythingChanged, ForkId, MAX_CHANGE_MAP_MEMORY},
    database_events::{DatabaseChange, DatabaseEvent, MAX_DATABASE_EVENTS, UNKNOWN_DATABASE},
    large_transactions::{OpenTransactions, keep_largest},
    relation_events::{MAX_RELATION_EVENTS, RelationChange, RelationEvent},
    time_index::{MAX_RESTORE_POINTS, MAX_TRANSACTION_MARKS, RestorePointMark, TransactionMark},
};

/// A record cannot be summarised.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SummaryError {
    /// The record lies before the end of what is summarised.
    #[error("the record at {record} lies before {end}, up to where log is summarised already")]
    OutOfOrder {
        /// Start of the record.
        record: Lsn,
        /// End of the summary.
        end: Lsn,
    },
    /// The record does not have the contents it must have.
    #[error(transparent)]
    Payload(#[from] PayloadError),
}

/// Makes summaries of one line of history, one after the other.
///
/// Between two summaries it keeps what later records build on: rows of `pg_database` and running
/// transactions. A builder made anew in the middle of log knows less: a rename may lack the old name, a large
/// transaction the blocks it touched before.
#[derive(Debug)]
pub struct SummaryBuilder {
    version: MajorVersion,
    summary: WalSummary,
    rows: CatalogRows,
    open: OpenTransactions,
    /// Renames, by their index, whose transactions may turn out to be children of others.
    unassigned: Vec<usize>,
}

/// The most renames whose top-level transactions are still looked for.
const MAX_UNASSIGNED: usize = 64;

impl SummaryBuilder {
    /// Begins at a record boundary of a cluster whose `pg_database` still has the file `initdb` gave it.
    pub fn new(version: MajorVersion, timeline: TimelineId, start: Lsn) -> Self {
        Self::with_database_catalog(version, timeline, start, DATABASE_CATALOG)
    }

    /// Begins at a record boundary. `pg_database` lies in this file of `global/` there: see
    /// [`WalSummary::database_catalog`] of the summary before, or the `pg_filenode.map` of that directory.
    ///
    /// If it lies elsewhere, names of databases stay unknown up to the first mark or freeze of a row, which
    /// tells the file. Drops are found in any case.
    pub fn with_database_catalog(
        version: MajorVersion,
        timeline: TimelineId,
        start: Lsn,
        relfilenode: Oid,
    ) -> Self {
        Self {
            version,
            summary: WalSummary::empty(version, timeline, start, relfilenode),
            rows: CatalogRows::new(relfilenode),
            open: OpenTransactions::default(),
            unassigned: Vec::new(),
        }
    }

    /// The summary so far, but for [`WalSummary::database_catalog`].
    pub fn summary(&self) -> &WalSummary {
        &self.summary
    }

    /// Whether the summary should be cut now: it is half as large as it may get.
    pub fn is_full(&self) -> bool {
        let summary = &self.summary;
        summary.changes.memory().get() > MAX_CHANGE_MAP_MEMORY.get() / 2
            || summary.times.transactions().len() > MAX_TRANSACTION_MARKS / 2
            || summary.times.restore_points().len() > MAX_RESTORE_POINTS / 2
            || summary.databases.events().len() > MAX_DATABASE_EVENTS / 2
            || summary.relations.events().len() > MAX_RELATION_EVENTS / 2
    }

    /// Gives the summary away. The next one begins where it ends.
    pub fn cut(&mut self) -> WalSummary {
        self.summary.database_catalog = self.rows.relfilenode();
        let next = WalSummary::empty(
            self.version,
            self.summary.timeline,
            self.summary.end,
            self.summary.database_catalog,
        );
        self.unassigned.clear();
        std::mem::replace(&mut self.summary, next)
    }

    /// Adds a record.
    ///
    /// # Errors
    /// When the record is out of order, or does not have the contents it must have. The summary is of no use
    /// from there on.
    pub fn add(&mut self, record: &Record<'_>) -> Result<(), SummaryError> {
        if record.start() < self.summary.end {
            return Err(SummaryError::OutOfOrder {
                record: record.start(),
                end: self.summary.end,
            });
        }
        self.summary.end = record.end();
        self.summary.records += 1;

        let mut blocks = 0;
        let mut concerns_catalog = false;
        for block in record.blocks() {
            blocks += 1;
            concerns_catalog |= self.rows.concerns(block.relation);
            if block.fork != Fork::FreeSpaceMap {
                let id = ForkId {
                    relation: block.relation,
                    fork: block.fork,
                };
                self.summary.changes.mark(id, block.block);
            }
        }
        if heap::is_overwrite(record) {
            self.rows.overwritten(record);
            concerns_catalog = true;
        }
        if concerns_catalog {
            self.catalog_record(record)?;
        }
        if blocks > 0 && record.transaction().is_valid() {
            self.open
                .count(record.transaction(), record.start(), blocks);
        }
        match record.resource_manager() {
            ResourceManager::TRANSACTION => self.transaction_record(record)?,
            ResourceManager::XLOG => self.xlog_record(record)?,
            ResourceManager::STORAGE => self.storage_record(record)?,
            ResourceManager::DATABASE => self.database_record(record)?,
            ResourceManager::RELATION_MAP => {
                if let Some(update) = RelationMapUpdate::parse(record)?
                    && update.directory.database.get() == 0
                {
                    self.rows.map_changed(&update.map);
                }
            }
            manager if manager.is_custom() => {
                self.summary.custom.records += 1;
                self.summary.custom.without_blocks += u64::from(blocks == 0);
            }
            _ => {}
        }
        Ok(())
    }

    fn transaction_record(&mut self, record: &Record<'_>) -> Result<(), SummaryError> {
        match TransactionRecord::parse(record, self.version)? {
            TransactionRecord::End(end) => self.transaction_end(record, &end),
            TransactionRecord::Assignment {
                top_level,
                children,
            } => self.assign(children, top_level),
            TransactionRecord::Prepare(_)
            | TransactionRecord::Invalidations
            | TransactionRecord::Other => {}
        }
        Ok(())
    }

    fn transaction_end(&mut self, record: &Record<'_>, end: &TransactionEnd<'_>) {
        self.assign(end.children, end.transaction);
        let summary = &mut self.summary;
        summary.changes.apply_end(end);
        summary.times.add_transaction(TransactionMark {
            time: end.time,
            before: record.header().previous,
            start: record.start(),
            end: record.end(),
            transaction: end.transaction,
            kind: end.kind,
        });
        if end.kind.is_commit() {
            for relation in end.dropped_relations.iter() {
                summary.relations.add(RelationEvent {
                    start: record.start(),
                    transaction: end.transaction,
                    relation,
                    change: RelationChange::Dropped,
                });
            }
        }
        if let Some(large) = self.open.end(end, record.start()) {
            keep_largest(&mut summary.large_transactions, large);
        }
    }

    /// Replaces the children in events by their top-level transaction, now that it is known.
    fn assign(&mut self, children: TransactionIds<'_>, top_level: TransactionId) {
        let databases = &mut self.summary.databases;
        self.unassigned.retain(|index| {
            let transaction = databases.transaction_of(*index);
            let is_child = children.iter().any(|child| Some(child) == transaction);
            if is_child {
                databases.assign(*index, top_level);
            }
            !is_child && transaction != Some(top_level)
        });
    }

    fn xlog_record(&mut self, record: &Record<'_>) -> Result<(), SummaryError> {
        if matches!(
            record.info(),
            xlog::FULL_PAGE_IMAGE | xlog::FULL_PAGE_IMAGE_FOR_HINT
        ) {
            return Ok(());
        }
        let level = match XlogRecord::parse(record, self.version)? {
            XlogRecord::RestorePoint(point) => {
                self.summary.times.add_restore_point(RestorePointMark {
                    time: point.time,
                    start: record.start(),
                    end: record.end(),
                    name: point.name.to_vec(),
                });
                None
            }
            XlogRecord::Checkpoint(checkpoint) => checkpoint.wal_level,
            XlogRecord::CheckpointRedo { wal_level } => Some(wal_level),
            XlogRecord::ParameterChange(change) => Some(change.wal_level),
            XlogRecord::EndOfRecovery(end) => end.wal_level,
            _ => None,
        };
        if level == Some(WalLevel::Minimal) {
            let why = EverythingChanged::MinimalLog(record.start());
            self.summary.changes.everything_changed(why);
        }
        Ok(())
    }

    fn storage_record(&mut self, record: &Record<'_>) -> Result<(), SummaryError> {
        self.summary.changes.apply_storage(record)?;
        match StorageRecord::parse(record)? {
            StorageRecord::Create { relation, fork } => self.rows.file_created(relation, fork),
            StorageRecord::Truncate(cut) if cut.cuts(Fork::Main) => {
                self.summary.relations.add(RelationEvent {
                    start: record.start(),
                    transaction: record.transaction(),
                    relation: cut.relation,
                    change: RelationChange::Truncated(cut.blocks),
                });
            }
            StorageRecord::Truncate(_) | StorageRecord::Other => {}
        }
        Ok(())
    }

    fn database_record(&mut self, record: &Record<'_>) -> Result<(), SummaryError> {
        self.summary.changes.apply_storage(record)?;
        let (database, change) = match DatabaseRecord::parse(record)? {
            DatabaseRecord::CreateFileCopy { target, source } => {
                (target.database, file_copy(target, source))
            }
            DatabaseRecord::CreateWalLog { target } => (
                target.database,
                DatabaseChange::CreatedByLog {
                    tablespace: target.tablespace,
                },
            ),
            DatabaseRecord::Drop {
                database,
                tablespaces,
            } => (
                database,
                DatabaseChange::FilesRemoved {
                    tablespaces: tablespaces.iter().collect(),
                },
            ),
            DatabaseRecord::Other => return Ok(()),
        };
        self.add_event(record, database, change);
        Ok(())
    }

    fn catalog_record(&mut self, record: &Record<'_>) -> Result<(), SummaryError> {
        self.rows.see_images(record);
        if record.resource_manager() != ResourceManager::HEAP {
            return Ok(());
        }
        let change = HeapRecord::parse(record)?;
        let event = self.rows.observe(record, change).and_then(row_event);
        if let Some((database, change)) = event {
            self.add_event(record, database, change);
        }
        Ok(())
    }

    fn add_event(&mut self, record: &Record<'_>, database: Oid, change: DatabaseChange) {
        // Of all that happens to databases only this can happen in a transaction's child.
        if matches!(
            change,
            DatabaseChange::Renamed { .. } | DatabaseChange::Revalidated
        ) {
            if self.unassigned.len() >= MAX_UNASSIGNED {
                self.unassigned.remove(0);
            }
            self.unassigned.push(self.summary.databases.events().len());
        }
        self.summary.databases.add(DatabaseEvent {
            start: record.start(),
            end: record.end(),
            transaction: record
                .top_level_transaction()
                .unwrap_or(record.transaction()),
            database,
            change,
        });
    }
}

/// A copy of a database's own directory is a move.
fn file_copy(target: DatabaseDirectory, source: DatabaseDirectory) -> DatabaseChange {
    if target.database == source.database {
        DatabaseChange::Moved {
            from: source.tablespace,
            to: target.tablespace,
        }
    } else {
        DatabaseChange::CreatedByFileCopy {
            tablespace: target.tablespace,
            source,
        }
    }
}

/// What the change of a row means to the database, if anything.
fn row_event(change: RowChange<'_>) -> Option<(Oid, DatabaseChange)> {
    let name = |row: DatabaseRow<'_>| row.name().to_vec();
    match change {
        RowChange::Inserted(row) => {
            Some((row.database(), DatabaseChange::Named { name: name(row) }))
        }
        RowChange::Deleted(row) => {
            let database = row.map_or(UNKNOWN_DATABASE, |row| row.database());
            let name = row.map(name);
            Some((database, DatabaseChange::RowDeleted { name }))
        }
        RowChange::Overwritten(row) if row.is_invalid() => {
            let name = name(row);
            Some((row.database(), DatabaseChange::Invalidated { name }))
        }
        RowChange::Overwritten(_) => None,
        RowChange::Updated { old, new } => {
            let new = new?;
            let change = match old {
                Some(old) if old.is_invalid() && !new.is_invalid() => DatabaseChange::Revalidated,
                Some(old) if old.name() == new.name() => return None,
                old => DatabaseChange::Renamed {
                    from: old.map(name),
                    to: name(new),
                },
            };
            Some((new.database(), change))
        }
    }
}
