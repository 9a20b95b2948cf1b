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
        xlog::{self, FullPageWrites, WalLevel, XlogRecord},
    },
};

use super::{
    WalSummary,
    activity::Activity,
    carried::{Carried, MAX_UNASSIGNED},
    catalog_rows::{CatalogRows, DatabaseRow},
    change_map::{EverythingChanged, ForkId, MAX_CHANGE_MAP_MEMORY},
    database_events::{DatabaseChange, DatabaseEvent, MAX_DATABASE_EVENTS, UNKNOWN_DATABASE},
    relation_events::{MAX_RELATION_EVENTS, RelationChange, RelationEvent},
    relation_rows::{RelationNews, RelationRows},
    row_store::RowChange,
    time_index::{
        MAX_PREPARED_MARKS, MAX_RESTORE_POINTS, MAX_TRANSACTION_MARKS, PreparedMark,
        RestorePointMark, TransactionMark,
    },
    transactions::{MAX_KEPT_CHANGES, MAX_NOTABLE_TRANSACTIONS, OpenTransactions},
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
/// knows less of rows: a rename may lack the old name, a drop the name of the table, and
/// [`WalSummary::unread`] says so. [`SummaryBuilder::begin`] mends that: the builder is given the log from the
/// last checkpoint on first. Without the summary before, a transaction lacks what it did before, too.
#[derive(Debug)]
pub struct SummaryBuilder {
    version: MajorVersion,
    summary: WalSummary,
    rows: CatalogRows,
    relations: RelationRows,
    open: OpenTransactions,
    redo: Option<Lsn>,
    /// Changes of names whose transactions may turn out to be children of others.
    unassigned: Vec<Unassigned>,
}

/// A change of a database's name whose top-level transaction is looked for.
#[derive(Clone, Copy, Debug)]
struct Unassigned {
    transaction: TransactionId,
    /// Its place among the summary's events; `None` when it is in an earlier summary.
    event: Option<usize>,
}

impl SummaryBuilder {
    /// Begins at a record boundary of a cluster whose `pg_database` still has the file `initdb` gave it.
    pub fn new(version: MajorVersion, timeline: TimelineId, start: Lsn) -> Self {
        Self::with_carried(version, timeline, start, Carried::default())
    }

    /// Begins at a record boundary, where this much is known: see [`WalSummary::carried`] of the summary
    /// before, or the `pg_filenode.map` of that directory.
    ///
    /// If `pg_database` lies elsewhere than it says, names of databases stay unknown up to the first mark or
    /// freeze of a row, which tells the file. Drops are found in any case.
    pub fn with_carried(
        version: MajorVersion,
        timeline: TimelineId,
        start: Lsn,
        carried: Carried,
    ) -> Self {
        let unassigned = carried.unassigned.iter();
        Self {
            version,
            rows: CatalogRows::new(carried.database_catalog),
            relations: RelationRows::new(version, &carried.moved),
            open: OpenTransactions::default(),
            redo: carried.redo,
            unassigned: unassigned
                .map(|transaction| Unassigned {
                    transaction: *transaction,
                    event: None,
                })
                .collect(),
            summary: WalSummary::empty(version, timeline, start, carried),
        }
    }

    /// Goes on at the end of a summary, from what was under way there.
    pub fn following(before: &WalSummary) -> Self {
        let (version, timeline) = (before.version, before.timeline);
        let carried = before.carried.clone();
        let mut builder = Self::with_carried(version, timeline, before.end, carried);
        builder.take_over(before.transactions.unfinished());
        builder
    }

    /// Takes over what transactions have done that are under way.
    pub fn take_over(&mut self, unfinished: &[(TransactionId, Activity)]) {
        self.open = OpenTransactions::going_on(unfinished);
    }

    /// Begins a summary here, behind all records that were added, and forgets what they were but for what they
    /// showed of catalogs' rows. Transactions under way stay as they are known.
    pub fn begin(&mut self, timeline: TimelineId, start: Lsn) {
        self.cut();
        let carried = self.summary.carried.clone();
        self.summary = WalSummary::empty(self.version, timeline, start, carried);
    }

    /// The summary so far, but for [`WalSummary::carried`] and transactions under way.
    pub fn summary(&self) -> &WalSummary {
        &self.summary
    }

    /// Whether the summary should be cut now: it is half as large as it may get.
    pub fn is_full(&self) -> bool {
        let summary = &self.summary;
        summary.changes.memory().get() > MAX_CHANGE_MAP_MEMORY.get() / 2
            || summary.times.transactions().len() > MAX_TRANSACTION_MARKS / 2
            || summary.times.prepared().len() > MAX_PREPARED_MARKS / 2
            || summary.times.restore_points().len() > MAX_RESTORE_POINTS / 2
            || summary.databases.events().len() > MAX_DATABASE_EVENTS / 2
            || summary.relations.events().len() > MAX_RELATION_EVENTS / 2
            || summary.transactions.ended().len() > MAX_NOTABLE_TRANSACTIONS / 2
            || summary.transactions.listed_changes() > MAX_KEPT_CHANGES / 2
    }

    /// Gives the summary away. The next one begins where it ends.
    pub fn cut(&mut self) -> WalSummary {
        self.summary.carried = self.carried();
        let unfinished = self.open.unfinished();
        self.summary.transactions.set_unfinished(unfinished);
        let next = WalSummary::empty(
            self.version,
            self.summary.timeline,
            self.summary.end,
            self.summary.carried.clone(),
        );
        for unassigned in &mut self.unassigned {
            unassigned.event = None;
        }
        std::mem::replace(&mut self.summary, next)
    }

    fn carried(&self) -> Carried {
        let unassigned = self.unassigned.iter();
        let mut unassigned: Vec<_> = unassigned.map(|change| change.transaction).collect();
        unassigned.sort_unstable();
        unassigned.dedup();
        Carried {
            database_catalog: self.rows.relfilenode(),
            redo: self.redo,
            moved: self.relations.moved(),
            unassigned,
        }
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
        self.summary.last = record.start();
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
            } => self.assign(record, children, top_level),
            TransactionRecord::Prepare(prepare) => {
                self.assign(record, prepare.children, prepare.transaction);
                self.summary.times.add_prepared(PreparedMark {
                    time: prepare.time,
                    start: record.start(),
                    end: record.end(),
                    transaction: prepare.transaction,
                });
            }
            TransactionRecord::Invalidations | TransactionRecord::Other => {}
        }
        Ok(())
    }

    fn transaction_end(&mut self, record: &Record<'_>, end: &TransactionEnd<'_>) {
        self.assign(record, end.children, end.transaction);
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
    fn assign(
        &mut self,
        record: &Record<'_>,
        children: TransactionIds<'_>,
        top_level: TransactionId,
    ) {
        if self.unassigned.is_empty() {
            return;
        }
        let databases = &mut self.summary.databases;
        let mut told = Vec::new();
        self.unassigned.retain(|change| {
            let child = change.transaction;
            let is_child = children.iter().any(|id| id == child);
            match change.event {
                Some(event) if is_child => databases.assign(event, top_level),
                None if is_child && !told.contains(&child) => {
                    told.push(child);
                    databases.add(DatabaseEvent {
                        start: record.start(),
                        end: record.end(),
                        transaction: top_level,
                        database: UNKNOWN_DATABASE,
                        change: DatabaseChange::Assigned { child },
                    });
                }
                _ => {}
            }
            !is_child && child != top_level
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
            XlogRecord::Checkpoint(checkpoint) => {
                if checkpoint.full_page_writes == FullPageWrites::On {
                    self.redo = Some(checkpoint.redo);
                }
                checkpoint.wal_level
            }
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
            if self.rows.take_missed() {
                let unread = &mut self.summary.unread.databases;
                unread.get_or_insert(record.start());
            }
            if let Some((database, change)) = event {
                self.add_event(record, database, change);
            }
        }
        if concerns.relations {
            let news = self.relations.observe(record, change);
            let counts = rows.is_some() && record.transaction().is_valid();
            if self.relations.take_missed() && counts {
                let unread = &mut self.summary.unread.relations;
                unread.get_or_insert(record.start());
            }
            if let Some(news) = news.filter(|_| counts) {
                let transaction = record.transaction();
                match news {
                    RelationNews::Change(change) => self.open.add_change(transaction, change),
                    RelationNews::Temporary => {
                        self.open.of(transaction, record.start()).temporary = true;
                    }
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
            let oldest = TransactionId::new(oldest);
            self.open.forget_before(oldest);
            self.unassigned
                .retain(|change| !change.transaction.is_before(oldest));
        }
    }

    fn add_event(&mut self, record: &Record<'_>, database: Oid, change: DatabaseChange) {
        let top_level = record.top_level_transaction();
        let transaction = top_level.unwrap_or(record.transaction());
        if change.is_of_name() && top_level.is_none() {
            if self.unassigned.len() >= MAX_UNASSIGNED {
                self.unassigned.remove(0);
            }
            self.unassigned.push(Unassigned {
                transaction,
                event: Some(self.summary.databases.events().len()),
            });
        }
        self.summary.databases.add(DatabaseEvent {
            start: record.start(),
            end: record.end(),
            transaction,
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
