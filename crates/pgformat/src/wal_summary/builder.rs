//! Makes summaries from records as they come.

use crate::{
    Lsn, MajorVersion, Oid, TimelineId, TransactionId,
    bytes::Reader,
    relation::Fork,
    wal::{
        database::{DatabaseDirectory, DatabaseRecord},
        heap::{self, HeapRecord, RowsWritten},
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
    catalog_rows::{CatalogRows, DATABASE_CATALOG, DatabaseRow},
    change_map::{EverythingChanged, ForkId, MAX_CHANGE_MAP_MEMORY},
    database_events::{DatabaseChange, DatabaseEvent, MAX_DATABASE_EVENTS, UNKNOWN_DATABASE},
    relation_events::{MAX_RELATION_EVENTS, RelationChange, RelationEvent},
    relation_rows::{RelationNews, RelationRows},
    row_store::RowChange,
    time_index::{MAX_RESTORE_POINTS, MAX_TRANSACTION_MARKS, RestorePointMark, TransactionMark},
    transactions::{MAX_NOTABLE_TRANSACTIONS, OpenTransactions},
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
/// Between two summaries it keeps what later records build on: rows of catalogs and running transactions. A
/// builder made anew in the middle of log by [`SummaryBuilder::following`] takes over the transactions, and
/// knows less of rows: a rename may lack the old name, a drop the name of the table. Without the summary
/// before, a transaction lacks what it did before, too.
#[derive(Debug)]
pub struct SummaryBuilder {
    version: MajorVersion,
    summary: WalSummary,
    rows: CatalogRows,
    relations: RelationRows,
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
            relations: RelationRows::new(version),
            open: OpenTransactions::default(),
            unassigned: Vec::new(),
        }
    }

    /// Goes on at the end of a summary, from what was under way there.
    pub fn following(before: &WalSummary) -> Self {
        let mut builder = Self::with_database_catalog(
            before.version,
            before.timeline,
            before.end,
            before.database_catalog,
        );
        builder.open = OpenTransactions::going_on(before.transactions.unfinished());
        builder
    }

    /// The summary so far, but for [`WalSummary::database_catalog`] and transactions under way.
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
            || summary.transactions.ended().len() > MAX_NOTABLE_TRANSACTIONS / 2
    }

    /// Gives the summary away. The next one begins where it ends.
    pub fn cut(&mut self) -> WalSummary {
        self.summary.database_catalog = self.rows.relfilenode();
        let unfinished = self.open.unfinished();
        self.summary.transactions.set_unfinished(unfinished);
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

        let blocks = record.blocks().len();
        let rows = heap::rows_written(record);
        let mut concerns = Concerns::default();
        let mut activity = match blocks > 0 && record.transaction().is_valid() {
            true => Some(self.open.of(record.transaction(), record.start())),
            false => None,
        };
        if let Some(activity) = &mut activity {
            activity.log_bytes += u64::from(record.header().total_len);
        }
        for block in record.blocks() {
            concerns.databases |= self.rows.concerns(block.relation);
            concerns.relations |= self.relations.concerns(block.relation);
            if block.fork != Fork::FreeSpaceMap {
                let id = ForkId {
                    relation: block.relation,
                    fork: block.fork,
                };
                self.summary.changes.mark(id, block.block);
            }
            if let Some(activity) = &mut activity {
                let touched = activity.touch(block.relation);
                if let Some(rows) = rows
                    && block.id == 0
                {
                    touched.rows.count(rows);
                    if let Some(catalog) = self.relations.catalog(block.relation) {
                        activity.catalogs.add(catalog);
                    }
                }
            }
        }
        if heap::is_overwrite(record) {
            self.rows.overwritten(record);
            concerns.databases = true;
        }
        if concerns.databases || concerns.relations {
            self.catalog_record(record, concerns, rows)?;
        }
        match record.resource_manager() {
            ResourceManager::TRANSACTION => self.transaction_record(record)?,
            ResourceManager::XLOG => self.xlog_record(record)?,
            ResourceManager::STORAGE => self.storage_record(record)?,
            ResourceManager::DATABASE => self.database_record(record)?,
            ResourceManager::RELATION_MAP => match RelationMapUpdate::parse(record)? {
                Some(update) if update.directory.database.get() == 0 => {
                    self.rows.map_changed(&update.map);
                }
                Some(update) => self.relations.map_changed(&update),
                None => {}
            },
            ResourceManager::STANDBY => self.standby_record(record),
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
        if let Some(notable) = self.open.end(end, record) {
            summary.transactions.add(notable);
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

    fn catalog_record(
        &mut self,
        record: &Record<'_>,
        concerns: Concerns,
        rows: Option<RowsWritten>,
    ) -> Result<(), SummaryError> {
        if concerns.databases {
            self.rows.see_images(record);
        }
        if concerns.relations {
            self.relations.see_images(record);
        }
        if record.resource_manager() != ResourceManager::HEAP {
            return Ok(());
        }
        let change = HeapRecord::parse(record)?;
        if concerns.databases {
            let event = self.rows.observe(record, change).and_then(row_event);
            if let Some((database, change)) = event {
                self.add_event(record, database, change);
            }
        }
        if concerns.relations {
            let news = self.relations.observe(record, change);
            if let Some(news) = news.filter(|_| rows.is_some() && record.transaction().is_valid()) {
                let activity = self.open.of(record.transaction(), record.start());
                match news {
                    RelationNews::Change(change) => activity.add_change(change),
                    RelationNews::Temporary => activity.temporary = true,
                }
            }
        }
        Ok(())
    }

    /// Transactions that are not running any more never ended: the server crashed.
    fn standby_record(&mut self, record: &Record<'_>) {
        const RUNNING_TRANSACTIONS: u8 = 0x10;
        /// `oldestRunningXid` in `xl_running_xacts` (`src/include/storage/standbydefs.h`).
        const OLDEST_OFFSET: usize = 16;
        if record.info() == RUNNING_TRANSACTIONS
            && let Some(mut reader) = Reader::at(record.main_data(), OLDEST_OFFSET)
            && let Some(oldest) = reader.u32()
        {
            self.open.forget_before(TransactionId::new(oldest));
        }
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

/// Which catalogs' rows a record may show.
#[derive(Clone, Copy, Debug, Default)]
struct Concerns {
    databases: bool,
    relations: bool,
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
fn row_event(change: RowChange<DatabaseRow<'_>>) -> Option<(Oid, DatabaseChange)> {
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
