//! Taking a backup: full or differential, of a running server.

pub mod changes;
pub mod pack_writer;
pub mod pipeline;
pub mod selection;
pub mod source;
mod sweep;
pub mod work;

use std::{
    collections::BTreeSet,
    fs::Metadata,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use everpoint_instance::{
    BackupMode, BackupModeError, CheckpointMode, ConnectError, ConnectionSpec, FactsError,
    QueryError, ReplicationClient, ServerFacts, connect_sql,
    data_directory::{Listing, ReadControlError, ScanError, control_file, scan},
    lock::{InstanceLock, LockError, LockKind},
    notifications::notify,
    replication::SlotName,
};
use everpoint_pgformat::{
    Lsn, MajorVersion, Oid, SystemIdentifier, TimelineId,
    control::{Checksums, ControlFile},
    relation::DataPath,
    wal_summary::change_map::ChangeMap,
};
use everpoint_repository::{
    BackupId, InstanceName, Repository, RepositoryError,
    backup::{Backup, BackupKind, DamagedPages, Database, Directory, Tablespace},
    layout,
    log::TimelineDocument,
    manifest::{ManifestReader, ManifestWriter},
    object::{ObjectBuilder, ObjectKind, ObjectSink},
};
use jiff::{SignedDuration, Timestamp};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

pub use self::changes::UnknownChanges;
use self::{
    changes::{Changes, Interval},
    pack_writer::{PackTable, PackTarget},
    pipeline::{BaseFiles, Copied, CopyError, ManifestTarget, Mapped, copy_files},
    work::WorkContext,
};
pub(crate) use sweep::check;
pub use sweep::{SweepError, sweep};

use crate::{
    instance_record::{InstanceRecord, WalSupply},
    log::receive::{self, ReceiveError, ReceiveEvent, ReceivePlan, Until},
    progress::Progress,
    summary::{SummaryContext, SummaryEvent},
    verify::chain,
};

/// How long a backup waits for the log it needs to be stored, unless asked otherwise.
pub const DEFAULT_LOG_WAIT: Duration = Duration::from_secs(600);
/// How soon it looks again, at first and at last: a receiver that was asked answers within milliseconds.
const LOG_POLLS: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(200));
/// How often a running receiver is asked for a log backup.
const CUT_REQUEST_INTERVAL: Duration = Duration::from_secs(1);
/// Databases made up to so long before the base are compared in vain: file times lag behind the clock.
const FILE_TIME_LAG: SignedDuration = SignedDuration::from_millis(50);

/// What to back up and how.
#[derive(Clone, Debug)]
pub struct BackupPlan {
    /// The instance.
    pub instance: InstanceName,
    /// What is known of it.
    pub record: InstanceRecord,
    /// How its server is reached.
    pub connection: ConnectionSpec,
    /// Full or differential.
    pub kind: RequestedKind,
    /// Worker threads.
    pub jobs: usize,
    /// How the checkpoint at the start is made.
    pub checkpoint: CheckpointMode,
    /// How long to wait for the log that the backup needs.
    pub log_wait: Duration,
    /// Whether a differential relies on what the log says of changes.
    pub changes: ChangesUse,
}

/// What a differential makes of what the log says of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangesUse {
    /// It reads the blocks that changed.
    Trust,
    /// It reads everything, and reports what changed without the log saying so.
    Compare,
}

/// What kind of backup is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestedKind {
    /// Full; what did not change since the last is referred to.
    Full,
    /// Full, sharing nothing with earlier backups.
    IndependentFull,
    /// Differential, on the last full; full when there is none.
    Differential,
}

/// What happened while backing up.
#[derive(Debug)]
pub enum BackupEvent {
    /// Remains of backups that were interrupted were removed.
    Swept {
        /// How many objects.
        objects: u64,
    },
    /// A differential was asked for and becomes a full backup.
    BecameFull {
        /// Why.
        reason: &'static str,
    },
    /// An earlier backup's manifest cannot be read.
    Unreadable {
        /// The backup.
        id: BackupId,
        /// Why.
        error: String,
    },
    /// Backup mode began.
    Started {
        /// The backup.
        id: BackupId,
        /// Its start.
        lsn: Lsn,
    },
    /// Something is amiss with a summary of log; the log itself is read.
    Summary(SummaryEvent),
    /// It is not known which blocks changed; all pages are read and their positions compared.
    ReadingAll(UnknownChanges),
    /// Blocks changed, and the log does not say so. They are in the backup.
    Missed {
        /// The file.
        path: String,
        /// Its blocks, counted from the file's start.
        blocks: Vec<u32>,
    },
    /// Something in the data directory was left out.
    LeftOut(String),
    /// All files are stored; the log they need is waited for.
    WaitingForLog {
        /// Up to here.
        until: Lsn,
    },
}

/// A backup failed. What it stored is no backup and is removed.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The server cannot be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The server does not answer as it should.
    #[error(transparent)]
    Facts(#[from] FactsError),
    /// A query failed.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// Backup mode.
    #[error(transparent)]
    Mode(#[from] BackupModeError),
    /// Another process is at work.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The data directory cannot be listed.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// The control file cannot be read.
    #[error(transparent)]
    Control(#[from] ReadControlError),
    /// The control file's bytes cannot be read.
    #[error("cannot read {}", path.display())]
    ControlBytes {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Copying the files.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// The repository.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// Another server answers, or another directory lies there.
    #[error(
        "{what} is of another cluster (system identifier {found}) than `{instance}` ({expected}). Nothing was stored"
    )]
    OtherCluster {
        /// What was looked at.
        what: &'static str,
        /// The instance.
        instance: InstanceName,
        /// As recorded.
        expected: SystemIdentifier,
        /// As found.
        found: SystemIdentifier,
    },
    /// The log did not come.
    #[error(
        "the log from {from} to {until}, which this backup needs, was not stored within {waited_s} s. {hint}"
    )]
    LogMissing {
        /// Where it ends now.
        from: Lsn,
        /// Up to where it is needed.
        until: Lsn,
        /// How long it was waited for.
        waited_s: u64,
        /// What to do, or why it did not come.
        hint: String,
    },
    /// The log will not come.
    #[error(
        "the log from {from}, which this backup needs, was lost before it was stored. Take the backup again; a larger max_slot_wal_keep_size makes room for it"
    )]
    LogLost {
        /// From here on.
        from: Lsn,
    },
    /// The log cannot be received.
    #[error(transparent)]
    Receive(#[from] ReceiveError),
    /// Remains of earlier backups.
    #[error(transparent)]
    Sweep(#[from] SweepError),
    /// The slot's name.
    #[error("the instance's slot `{slot}` has an impossible name")]
    SlotName {
        /// As recorded.
        slot: String,
    },
    /// A background task ended by itself.
    #[error("a task of the backup ended unexpectedly")]
    TaskLost,
}

/// Hears what happens.
pub type Listener<'a> = &'a (dyn Fn(BackupEvent) + Sync);

/// Takes a backup.
///
/// # Errors
/// See [`BackupError`].
pub async fn run(
    repository: &Repository,
    plan: &BackupPlan,
    progress: &Progress,
    listener: Listener<'_>,
) -> Result<Backup, BackupError> {
    let session = connect_sql(&plan.connection, plan.connection.database()).await?;
    let facts = ServerFacts::read(&session).await?;
    check_cluster(plan, "the server at this address", facts.system_identifier)?;
    let root = plan.record.data_directory.clone();
    let control = blocking(move || control_file(&root)).await??;
    check_cluster(plan, "the data directory", control.system_identifier)?;

    let lock = InstanceLock::try_acquire(session, LockKind::Writer, plan.instance.as_str()).await?;
    store_history(repository, plan, &facts).await?;
    let found = repository.readable_backups(&plan.instance).await?;
    let backups = found.backups;
    match found.unreadable.as_slice() {
        [] => {
            let swept = sweep(repository, &plan.instance, &backups, Some(&lock)).await?;
            if swept > 0 {
                listener(BackupEvent::Swept { objects: swept });
            }
        }
        // What a damaged manifest names is not known, so nothing is swept.
        damaged => {
            for (id, error) in damaged {
                listener(BackupEvent::Unreadable {
                    id: id.clone(),
                    error: error.to_string(),
                });
            }
        }
    }
    keep_log(plan).await?;
    let base = choose_base(plan, &backups, &facts, repository, listener).await?;
    let kind = match (&base, plan.kind) {
        (Some(base), RequestedKind::Differential) => BackupKind::Differential {
            base: base.id.clone(),
        },
        _ => BackupKind::Full,
    };
    let started_at = Timestamp::now();
    let id = BackupId::new(started_at, kind.name(), random());
    let mut taking = Taking {
        repository,
        plan,
        progress,
        listener,
        lock: &lock,
        facts,
        control,
        id,
    };
    let outcome = taking.take(kind, base, started_at).await;
    if outcome.is_err() {
        // What cannot be removed now is swept before the next backup.
        let _ = remove(repository, &plan.instance, &taking.id).await;
    }
    lock.give_up().await;
    outcome
}

/// Sees to it that the server keeps the log of the backup until it is received.
async fn keep_log(plan: &BackupPlan) -> Result<(), BackupError> {
    if let WalSupply::Stream { slot } = &plan.record.wal {
        let mut client = ReplicationClient::connect(&plan.connection)
            .await
            .map_err(ReceiveError::from)?;
        receive::ensure_slot(&mut client, &slot_name(slot)?)
            .await
            .map_err(ReceiveError::from)?;
    }
    Ok(())
}

fn slot_name(slot: &str) -> Result<SlotName, BackupError> {
    slot.parse().map_err(|_| BackupError::SlotName {
        slot: slot.to_owned(),
    })
}

/// Stores the history of the server's timeline: without it nothing on that timeline can be restored, and a
/// server that archives has archived it long ago, perhaps to another place.
async fn store_history(
    repository: &Repository,
    plan: &BackupPlan,
    facts: &ServerFacts,
) -> Result<(), BackupError> {
    if facts.timeline == TimelineId::FIRST {
        return Ok(());
    }
    let name = facts.timeline.history_file_name();
    let path = plan.record.data_directory.join("pg_wal").join(name);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(BackupError::ControlBytes { path, source }),
    };
    let history = TimelineDocument {
        timeline: facts.timeline,
        text,
    };
    Ok(repository.write_timeline(&plan.instance, &history).await?)
}

fn check_cluster(
    plan: &BackupPlan,
    what: &'static str,
    found: SystemIdentifier,
) -> Result<(), BackupError> {
    let expected = plan.record.system_identifier;
    if found == expected {
        return Ok(());
    }
    Err(BackupError::OtherCluster {
        what,
        instance: plan.instance.clone(),
        expected,
        found,
    })
}

/// Removes what a backup that failed has written. Its manifest goes first, if it appeared nevertheless: later backups
/// would build on it.
async fn remove(
    repository: &Repository,
    instance: &InstanceName,
    id: &BackupId,
) -> Result<(), RepositoryError> {
    let manifests = repository.manifests(instance).await?;
    for (_, path, _) in manifests.iter().filter(|(of, ..)| of == id) {
        repository.store().delete(path).await?;
    }
    let folder = format!("{}/{id}", layout::packs(instance));
    for pack in repository.store().list(&folder).await? {
        repository.store().delete(&pack.path).await?;
    }
    repository.store().sweep_staged(&folder)?;
    Ok(())
}

/// The backup to build upon: for a differential the last full one in the server's history.
async fn choose_base(
    plan: &BackupPlan,
    backups: &[Backup],
    facts: &ServerFacts,
    repository: &Repository,
    listener: Listener<'_>,
) -> Result<Option<Backup>, BackupError> {
    if plan.kind == RequestedKind::IndependentFull {
        return Ok(None);
    }
    let history = repository
        .log_index(&plan.instance)
        .await?
        .history(facts.timeline);
    let parts = history.parts();
    let in_history = |backup: &&Backup| {
        parts
            .iter()
            .any(|part| part.timeline == backup.timeline && backup.stop_lsn <= part.to)
    };
    let last = backups
        .iter()
        .filter(|backup| backup.kind == BackupKind::Full && backup.version == facts.major)
        // Turning checksums on or off changes pages and leaves their LSNs as they were.
        .filter(|backup| backup.checksums == (facts.checksums == Checksums::On))
        .filter(in_history)
        // Not by time: a clock may have been wrong.
        .max_by_key(|backup| backup.stop_lsn)
        .cloned();
    if last.is_none() && plan.kind == RequestedKind::Differential {
        let reason = match backups.iter().any(|backup| backup.kind == BackupKind::Full) {
            true => "no full backup of this cluster, as it is now, lies in the server's history",
            false => "there is no full backup yet",
        };
        listener(BackupEvent::BecameFull { reason });
    }
    Ok(last)
}

/// What is known of the changes since the base.
enum Known {
    /// There is no base that counts.
    Nothing,
    /// Which blocks changed.
    Changes(ChangeMap),
    /// Only where and when the base began.
    Base { start: Lsn, began: Timestamp },
}

/// How the pages of a differential are chosen.
struct Choice {
    changes: Mapped,
    base_start: Option<Lsn>,
    made_anew: BTreeSet<Oid>,
    /// Pages that are damaged in the base.
    damaged: Vec<DamagedPages>,
}

struct Taking<'a> {
    lock: &'a InstanceLock,
    repository: &'a Repository,
    plan: &'a BackupPlan,
    progress: &'a Progress,
    listener: Listener<'a>,
    facts: ServerFacts,
    control: ControlFile,
    id: BackupId,
}

impl Taking<'_> {
    async fn take(
        &mut self,
        mut kind: BackupKind,
        base: Option<Backup>,
        started_at: Timestamp,
    ) -> Result<Backup, BackupError> {
        self.progress.phase("checkpoint", 0);
        let session = connect_sql(&self.plan.connection, self.plan.connection.database()).await?;
        let label = format!("everpoint {}", self.id);
        let mode = BackupMode::start(session, &label, self.plan.checkpoint).await?;
        let start = mode.start_point();
        // Those that were made until now are in the list, and those that are made from now on in the log.
        self.facts = {
            let session =
                connect_sql(&self.plan.connection, self.plan.connection.database()).await?;
            ServerFacts::read(&session).await?
        };
        let known = match (&kind, &base) {
            (BackupKind::Differential { .. }, Some(base)) => self.known(base, start.lsn).await,
            _ => Some(Known::Nothing),
        };
        let known = known.unwrap_or_else(|| {
            kind = BackupKind::Full;
            self.id = BackupId::new(started_at, kind.name(), random());
            Known::Nothing
        });
        (self.listener)(BackupEvent::Started {
            id: self.id.clone(),
            lsn: start.lsn,
        });

        self.progress.phase("listing files", 0);
        let (root, version) = (self.plan.record.data_directory.clone(), self.facts.major);
        let scanned = root.clone();
        let listing = Arc::new(blocking(move || scan(&scanned, version)).await??);
        for oddity in listing.oddities() {
            (self.listener)(BackupEvent::LeftOut(oddity.to_string()));
        }
        self.progress
            .phase("copying files", listing.total_size().get());
        let damaged = match (&kind, &base) {
            (BackupKind::Differential { .. }, Some(base)) => base.damaged_pages.clone(),
            _ => Vec::new(),
        };
        let choice = match known {
            Known::Nothing => Choice {
                changes: Mapped::No,
                base_start: None,
                made_anew: BTreeSet::new(),
                damaged,
            },
            Known::Changes(changes) => Choice {
                changes: match self.plan.changes {
                    ChangesUse::Trust => Mapped::Trusted(changes),
                    ChangesUse::Compare => Mapped::Compared(changes),
                },
                base_start: match self.plan.changes {
                    ChangesUse::Trust => None,
                    ChangesUse::Compare => base.as_ref().map(|base| base.start_lsn),
                },
                made_anew: BTreeSet::new(),
                damaged,
            },
            Known::Base { start, began } => {
                let (root, files) = (root, listing.clone());
                let made_anew = move || databases_made_since(&root, version, &files, began);
                Choice {
                    changes: Mapped::No,
                    base_start: Some(start),
                    made_anew: blocking(made_anew).await?,
                    damaged,
                }
            }
        };
        let (copied, table, manifest) = self.copy(listing.clone(), base, choice, start.lsn).await?;

        self.progress.phase("ending backup mode", 0);
        let control_bytes = self.control_bytes().await?;
        let stop = mode.stop().await?;
        let session = connect_sql(&self.plan.connection, self.plan.connection.database()).await?;
        let stopped_at = ServerFacts::read(&session).await?.server_time;
        (self.listener)(BackupEvent::WaitingForLog {
            until: stop.stop_lsn,
        });
        self.progress.phase("waiting for log", 0);
        wait_for_log(
            self.repository,
            self.plan,
            &session,
            self.progress,
            stop.label.timeline,
            stop.label.start,
            stop.stop_lsn,
        )
        .await?;

        self.progress.phase("writing the manifest", 0);
        // Without it another backup may have removed this one's packs as remains.
        self.lock.check().await?;
        let (object, sections) = manifest.writer.finish().map_err(RepositoryError::from)?;
        let backup = Backup {
            id: self.id.clone(),
            kind,
            system_identifier: self.facts.system_identifier,
            version: self.facts.major,
            server_version_num: self.facts.version_num,
            timeline: stop.label.timeline,
            start_lsn: stop.label.start,
            stop_lsn: stop.stop_lsn,
            started_at,
            stopped_at,
            segment_size: self.control.segment_size,
            blocks_per_segment: self.control.blocks_per_segment,
            checksums: self.control.checksums == Checksums::On,
            control_file: control_bytes,
            backup_label: stop.label_text,
            tablespaces: tablespaces(&listing),
            databases: self.databases(),
            directories: directories(&listing),
            packs: table.take(),
            sections,
            totals: copied.totals,
            damaged_pages: copied.damaged,
            written_by: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let text = serde_json::to_vec(&backup).unwrap_or_default();
        let finished = object.finish(&text).map_err(RepositoryError::from)?;
        manifest
            .sink
            .finish(finished.rest)
            .await
            .map_err(RepositoryError::from)?;
        Ok(backup)
    }

    /// What is known of the changes since the base; `None` when only a full backup will do.
    async fn known(&self, base: &Backup, start: Lsn) -> Option<Known> {
        self.progress.phase("reading what changed", 0);
        let context = SummaryContext {
            version: self.facts.major,
            ..SummaryContext::new(self.repository, &self.plan.instance, &self.plan.record)
        };
        let interval = Interval {
            timeline: self.facts.timeline,
            from: base.start_lsn,
            to: start,
        };
        let say = |event| (self.listener)(BackupEvent::Summary(event));
        let root = &self.plan.record.data_directory;
        match changes::read(&context, root, interval, &say).await {
            Changes::Known(changes) => Some(Known::Changes(changes)),
            Changes::MinimalLog(_) => {
                let reason = "the server ran with wal_level = minimal since the last full backup";
                (self.listener)(BackupEvent::BecameFull { reason });
                None
            }
            Changes::Unknown(why) => {
                (self.listener)(BackupEvent::ReadingAll(why));
                Some(Known::Base {
                    start: base.start_lsn,
                    began: base.started_at,
                })
            }
        }
    }

    async fn copy(
        &self,
        listing: Arc<Listing>,
        base: Option<Backup>,
        choice: Choice,
        backup_start: Lsn,
    ) -> Result<(Copied, PackTable, ManifestTarget), BackupError> {
        let prior: Option<ManifestReader> = match &base {
            None => None,
            Some(base) => Some(
                self.repository
                    .manifest(&self.plan.instance, &base.id)
                    .await?
                    .1,
            ),
        };
        let checksums = self.control.checksums == Checksums::On;
        let same_server = base.as_ref().map(|base| base.timeline) == Some(self.facts.timeline);
        let table = PackTable::new(base.map(|base| base.packs).unwrap_or_default());
        let object = ObjectBuilder::new(ObjectKind::Manifest, self.repository.keys())
            .map_err(RepositoryError::from)?;
        let path = layout::manifest(&self.plan.instance, &self.id, object.identity().id);
        let encoder = self.repository.encoder().map_err(RepositoryError::from)?;
        let mut manifest = ManifestTarget {
            writer: ManifestWriter::new(object, encoder),
            sink: ObjectSink::new(self.repository.store(), path),
        };
        let context = WorkContext {
            root: self.plan.record.data_directory.clone(),
            version: self.facts.major,
            blocks_per_segment: self.control.blocks_per_segment,
            checksums,
            backup_start,
            base_start: choice.base_start,
            mapped: !matches!(choice.changes, Mapped::No),
            same_bits: checksums && same_server,
            made_anew: Arc::new(choice.made_anew),
        };
        let target = PackTarget {
            repository: self.repository.clone(),
            instance: self.plan.instance.clone(),
            backup: self.id.clone(),
            table: table.clone(),
            runtime: tokio::runtime::Handle::current(),
        };
        let jobs = self.plan.jobs.max(1);
        let copied = copy_files(
            context,
            listing,
            BaseFiles {
                prior,
                changes: choice.changes,
                damaged: choice.damaged,
            },
            target,
            jobs,
            &mut manifest,
            self.progress,
        )
        .await;
        match copied {
            Ok(mut copied) => {
                for missed in std::mem::take(&mut copied.missed) {
                    (self.listener)(BackupEvent::Missed {
                        path: missed.path,
                        blocks: missed.blocks,
                    });
                }
                Ok((copied, table, manifest))
            }
            Err(error) => {
                manifest.sink.abort().await;
                Err(error.into())
            }
        }
    }

    /// The control file is read last, as PostgreSQL's own backup does, and whole.
    async fn control_bytes(&self) -> Result<String, BackupError> {
        let root = self.plan.record.data_directory.clone();
        let path = root.join("global/pg_control");
        for _ in 0..CONTROL_FILE_READS {
            let read = path.clone();
            let bytes = blocking(move || std::fs::read(&read))
                .await?
                .map_err(|source| BackupError::ControlBytes {
                    path: path.clone(),
                    source,
                })?;
            if ControlFile::parse(&bytes).is_ok() {
                return Ok(crate::hex::encode(&bytes));
            }
            sleep(Duration::from_millis(10)).await;
        }
        blocking(move || control_file(&root)).await??;
        Err(BackupError::TaskLost)
    }

    fn databases(&self) -> Vec<Database> {
        let database = |database: &everpoint_instance::facts::Database| Database {
            oid: database.oid,
            name: database.name.clone(),
        };
        self.facts.databases.iter().map(database).collect()
    }
}

/// A control file caught while it is written is read again this often.
const CONTROL_FILE_READS: u32 = 100;

/// Databases whose directory may be younger than the base. `CREATE DATABASE` by file_copy, and `ALTER DATABASE SET
/// TABLESPACE`, copy pages as they are, LSNs included; where another database had the same number before,
/// those say nothing of what the base holds.
fn databases_made_since(
    root: &Path,
    version: MajorVersion,
    listing: &Listing,
    base_began: Timestamp,
) -> BTreeSet<Oid> {
    let begun = base_began - FILE_TIME_LAG;
    let changed_at = |file: &Metadata| {
        let nanoseconds = i32::try_from(file.ctime_nsec()).unwrap_or_default();
        Timestamp::new(file.ctime(), nanoseconds).unwrap_or(Timestamp::MAX)
    };
    let mut databases = BTreeSet::new();
    for found in listing.files() {
        let path = found.path();
        if let DataPath::Database { database, .. } = DataPath::classify(&path, version)
            && path.ends_with("/PG_VERSION")
            // It is written once, and its time of change cannot be set back.
            && std::fs::metadata(root.join(&path)).is_ok_and(|file| changed_at(&file) >= begun)
        {
            databases.insert(database);
        }
    }
    databases
}

fn tablespaces(listing: &Listing) -> Vec<Tablespace> {
    let tablespace = |entry: &everpoint_instance::data_directory::TablespaceEntry| Tablespace {
        oid: entry.oid,
        location: entry
            .location
            .as_ref()
            .map(|location| location.to_string_lossy().into_owned())
            .unwrap_or_default(),
    };
    listing.tablespaces().iter().map(tablespace).collect()
}

fn directories(listing: &Listing) -> Vec<Directory> {
    listing
        .directories()
        .map(|entry| Directory {
            path: entry.path.to_owned(),
            mode: entry.mode,
        })
        .collect()
}

/// Waits until log from `start` to `until` is stored. Where nobody receives it, it is received here.
async fn wait_for_log(
    repository: &Repository,
    plan: &BackupPlan,
    session: &everpoint_instance::SqlClient,
    progress: &Progress,
    timeline: TimelineId,
    start: Lsn,
    until: Lsn,
) -> Result<(), BackupError> {
    let begun = Instant::now();
    let mut asked: Option<Instant> = None;
    let mut pause = LOG_POLLS.0;
    let mut trouble = None;
    loop {
        let index = repository.log_index(&plan.instance).await?;
        let from = index.complete_until(timeline, start);
        if from >= until {
            return Ok(());
        }
        if progress.is_cancelled() {
            return Err(CopyError::Cancelled.into());
        }
        let gaps = repository.gaps(&plan.instance).await?;
        if gaps.iter().any(|gap| gap.from <= from && from < gap.to) {
            return Err(BackupError::LogLost { from });
        }
        if begun.elapsed() >= plan.log_wait {
            let hint = match (trouble, &plan.record.wal) {
                (Some(trouble), _) => format!("Receiving it failed: {trouble}"),
                (None, WalSupply::Push) => {
                    "Look at the server's log for errors of archive_command".to_owned()
                }
                (None, WalSupply::Stream { .. }) => {
                    "Look at the output of `everpoint wal receive`".to_owned()
                }
            };
            let waited_s = begun.elapsed().as_secs();
            return Err(BackupError::LogMissing {
                from,
                until,
                waited_s,
                hint,
            });
        }
        if let WalSupply::Stream { slot } = &plan.record.wal
            && asked.is_none_or(|asked| asked.elapsed() >= CUT_REQUEST_INTERVAL)
        {
            asked = Some(Instant::now());
            let own = connect_sql(&plan.connection, plan.connection.database()).await?;
            match InstanceLock::try_acquire(own, LockKind::Receiver, plan.instance.as_str()).await {
                Ok(lock) => {
                    trouble = receive_until(repository, plan, slot, until, progress).await?;
                    lock.give_up().await;
                    continue;
                }
                Err(LockError::Held { .. } | LockError::Contended { .. }) => {
                    // Somebody receives; a standby cannot carry the request, there the interval decides.
                    let _ = notify(session, receive::CUT_REQUEST).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
        sleep(pause).await;
        pause = (pause * 2).min(LOG_POLLS.1);
    }
}

/// Receives log up to `until`, until the backup is cancelled or nothing could be stored for as long as it may wait. Ends
/// with what last kept it from receiving.
async fn receive_until(
    repository: &Repository,
    plan: &BackupPlan,
    slot: &str,
    until: Lsn,
    progress: &Progress,
) -> Result<Option<String>, BackupError> {
    let slot = slot_name(slot)?;
    let receive_plan = ReceivePlan {
        instance: plan.instance.clone(),
        record: plan.record.clone(),
        connection: plan.connection.clone(),
        slot,
        interval: receive::DEFAULT_INTERVAL,
        cut_bytes: receive::DEFAULT_CUT_BYTES,
        until: Until::Stored(until),
    };
    let (stop, stopped) = watch::channel(false);
    let came = Arc::new(AtomicBool::new(false));
    let comes = came.clone();
    let (tell, trouble) = watch::channel(None);
    let listener = Arc::new(move |event| match event {
        ReceiveEvent::Stored(_) => comes.store(true, Ordering::Relaxed),
        ReceiveEvent::Waiting { error, .. } => {
            let error = chain(&error);
            tracing::warn!(%error, "the log does not come yet");
            tell.send_replace(Some(error));
        }
        _ => {}
    });
    let receiving = receive::receive(repository, &receive_plan, stopped, listener);
    let mut receiving = pin!(receiving);
    let enough = async {
        let mut last = Instant::now();
        while last.elapsed() < plan.log_wait && !progress.is_cancelled() {
            sleep(LOG_POLLS.1).await;
            if came.swap(false, Ordering::Relaxed) {
                last = Instant::now();
            }
        }
    };
    tokio::select! {
        received = &mut receiving => received?,
        () = enough => {
            // What came is stored.
            let _ = stop.send(true);
            receiving.await?;
        }
    }
    Ok(trouble.borrow().clone())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, BackupError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| BackupError::TaskLost)
}

fn random() -> u32 {
    let id = everpoint_repository::ObjectId::random();
    let [a, b, c, d, ..] = *id.as_bytes();
    u32::from_le_bytes([a, b, c, d])
}
