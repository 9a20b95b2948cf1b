//! Backups by the scheduler's word, log all the time, and expiry by the retention's.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use everpoint_engine::{
    backup::{self, BackupPlan, ChangesUse, RequestedKind},
    expire,
    instance_record::{InstanceRecord, WalSupply},
    log::receive::{DEFAULT_CUT_BYTES, ReceivePlan, Until, receive},
    progress::Progress,
    window::{self, Window},
};
use everpoint_instance::{
    CheckpointMode, ConnectionSpec, InstanceLock, LockKind, ServerFacts, connect_sql,
};
use everpoint_repository::{
    InstanceName, Repository, Store,
    backup::{Backup, BackupKind},
    keys::Secret,
    retention,
    store::Missing,
};
use everpoint_server::{
    scheduler::{
        DIFFERENTIAL_EVERY, History, Kind, Limits, Rhythm, Running, Schedule, Taken,
        Window as Weekly, due,
    },
    service::restorable,
};
use everpoint_testkit::Cluster;
use jiff::{Timestamp, civil::Weekday};
use tokio::{sync::watch, task::JoinHandle, time::Instant};

use crate::clock::Clock;

const PATIENCE: Duration = Duration::from_secs(120);

/// A repository that an instance is backed up into.
pub struct Taking {
    _directory: tempfile::TempDir,
    repository: Repository,
    name: InstanceName,
    record: InstanceRecord,
    connection: ConnectionSpec,
    schedule: Schedule,
    stop: watch::Sender<bool>,
    receiver: JoinHandle<Result<()>>,
    first: OnceLock<Timestamp>,
}

impl Taking {
    /// Makes the repository and begins to receive log.
    pub async fn begin(cluster: &Cluster) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("repository").display().to_string();
        let secret = Secret::Passphrase("a passphrase of some length".to_owned().into());
        let store = Store::open(&path, Missing::Create)?;
        Repository::create(store, std::slice::from_ref(&secret), Timestamp::now()).await?;
        let open = async || {
            anyhow::Ok(Repository::open(Store::open(&path, Missing::Refuse)?, &secret).await?)
        };
        let repository = open().await?;
        let connection: ConnectionSpec = cluster.connection_string("postgres").parse()?;
        let session = connect_sql(&connection, "postgres").await?;
        let facts = ServerFacts::read(&session).await?;
        let name: InstanceName = "one".parse()?;
        let slot = "everpoint_one".to_owned();
        let record = InstanceRecord {
            system_identifier: facts.system_identifier,
            version: facts.major,
            connection: connection.to_text().to_string(),
            data_directory: cluster.data_directory().to_owned(),
            segment_size: facts.segment_size,
            wal: WalSupply::Stream { slot: slot.clone() },
            added_at: Timestamp::now(),
        };
        repository.write_description(&name, 0, &record).await?;
        let plan = ReceivePlan {
            instance: name.clone(),
            record: record.clone(),
            connection: connection.clone(),
            slot: slot.parse()?,
            interval: Duration::from_secs(1),
            cut_bytes: DEFAULT_CUT_BYTES,
            until: Until::Told,
        };
        let (stop, told) = watch::channel(false);
        let receiving = open().await?;
        // By the lock a backup knows that somebody receives.
        let lock = InstanceLock::try_acquire(session, LockKind::Receiver, name.as_str()).await?;
        let receiver = tokio::spawn(async move {
            let received = receive(&receiving, &plan, told, Arc::new(|_| {})).await;
            lock.give_up().await;
            Ok(received?)
        });
        Ok(Self {
            _directory: directory,
            repository,
            schedule: Schedule {
                instance: name.clone(),
                full: Weekly::new(Weekday::Sunday, 0, Duration::from_secs(6 * 3600), &name)?,
                differential: Rhythm::new(DIFFERENTIAL_EVERY, &name)?,
            },
            name,
            record,
            connection,
            stop,
            receiver,
            first: OnceLock::new(),
        })
    }

    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Asks the scheduler, and does as it says.
    pub async fn take_what_is_due(
        &self,
        clock: &Clock,
        now: Timestamp,
    ) -> Result<Option<BackupKind>> {
        let known = restorable(&self.repository, &self.name).await?;
        let then = |taken: Taken| Taken {
            started_at: clock.simulated(taken.started_at),
            ..taken
        };
        let history = History {
            full: known.full.map(then),
            differential: known.differential.map(then),
            gap: known
                .full
                .filter(|_| known.window.backup_needed)
                .map(|full| clock.simulated(full.started_at)),
            failures: 0,
            failed_at: None,
            running: Running::No,
        };
        let limits = Limits { backups_at_once: 1 };
        let due = due([(&self.schedule, &history)], limits, now);
        let Some(item) = due.first() else {
            return Ok(None);
        };
        let plan = BackupPlan {
            instance: self.name.clone(),
            record: self.record.clone(),
            connection: self.connection.clone(),
            kind: match item.kind {
                Kind::Full => RequestedKind::Full,
                Kind::Differential => RequestedKind::Differential,
            },
            jobs: 1,
            checkpoint: CheckpointMode::Fast,
            log_wait: PATIENCE,
            changes: ChangesUse::Trust,
        };
        let backup = backup::run(&self.repository, &plan, &Progress::default(), &|_| {}).await?;
        self.first.get_or_init(|| backup.stopped_at);
        Ok(Some(backup.kind))
    }

    /// Forgets what no point behind `window_start` needs.
    pub async fn expire(&self, window_start: Timestamp) -> Result<()> {
        let index = self.repository.log_index(&self.name).await?;
        let now = Timestamp::now();
        let plan = retention::plan(&self.backups().await?, &index, window_start, now);
        expire::execute(&self.repository, &self.name, &plan, None).await?;
        Ok(())
    }

    pub async fn backups(&self) -> Result<Vec<Backup>> {
        Ok(self.repository.backups(&self.name).await?)
    }

    pub async fn window(&self) -> Result<Window> {
        Ok(window::window(&self.repository, &self.name).await?)
    }

    /// When the first backup was complete.
    pub async fn first_backup(&self) -> Result<Timestamp> {
        self.first.get().copied().context("no backup yet")
    }

    /// Waits until log is known to be complete up to a moment.
    pub async fn wait_for_log(&self, until: Timestamp) -> Result<()> {
        let begun = Instant::now();
        loop {
            let window = self.window().await?;
            let latest = window.ranges.last().and_then(|range| range.latest);
            if latest.is_some_and(|latest| latest >= until) {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                bail!("log is stored until {latest:?}, not until {until}");
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    pub async fn end(self) -> Result<()> {
        self.stop.send(true)?;
        self.receiver.await?
    }
}
