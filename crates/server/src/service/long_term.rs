//! Long-term copies that the service makes and expires by itself, and those there are.
//!
//! Each instance has a watcher. When a full backup is to be copied it begins a thread, which copies one
//! database after the other under the instance's lock for long-term copies; expiry of backups takes that lock,
//! too, so that nothing goes while it is read.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use everpoint_engine::{
    long_term::{self, CopiedDatabase, CopyRequest},
    transplant::name::OperationId,
};
use everpoint_instance::{InstanceLock, LockKind, connect_sql};
use everpoint_pgformat::Oid;
use everpoint_repository::{
    CopyId, InstanceName, RepositoryError,
    backup::{Backup, BackupKind},
    layout,
    long_term::{LongTermCopy, expired},
};
use jiff::{SignedDuration, Timestamp};
use tokio::{
    sync::{Mutex, watch},
    time::{Instant, sleep},
};

use super::{Observed, Service, operations::Failure, thread, told};
use crate::{
    catalog::{
        CatalogError, DatabaseOperation, DatabaseRequest, LongTermRow, OperationKind, RestoreSource,
    },
    policy::{CopyStep, EarlierCopy, Full, Kept, next_step},
};

/// How often it is looked for full backups to copy and copies whose time is over.
const COPIES_INTERVAL: Duration = Duration::from_secs(60);
/// The least time between two looks, when told to look.
const COPIES_PAUSE: Duration = Duration::from_secs(1);
/// The longest wait after copying failed.
const FAILED_INTERVAL: Duration = Duration::from_secs(6 * 3600);

/// How long a copy's state that was read is believed: other servers, and people at terminals, hold and release copies.
const READ_AGAIN: Duration = Duration::from_secs(30);

/// Copies, and when their states were read.
type ReadCopies = BTreeMap<CopyId, (Instant, LongTermCopy)>;

/// The copies of each instance, as their states said when they were read.
#[derive(Debug, Default)]
pub struct CopyCache {
    known: Mutex<HashMap<InstanceName, ReadCopies>>,
    /// Held while a copy's state is changed.
    changing: Mutex<()>,
}

/// A change of a long-term copy's legal hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// It stays, whatever its time says.
    Set,
    /// It goes when its time is over.
    Removed,
}

/// So late, at the most, is it usually noticed that a database was dropped.
const DROP_NOTICED: SignedDuration = SignedDuration::from_secs(60);

/// Something to be done for a database's long-term policy.
struct DueCopy {
    row: LongTermRow,
    step: CopyStep,
}

impl Service {
    /// The long-term copies of an instance, the earliest backup first. What others changed of them is seen 30 s later at
    /// the latest, what this server changed at once.
    ///
    /// # Errors
    /// When the repository fails.
    pub async fn copies(
        &self,
        instance: &InstanceName,
    ) -> Result<Vec<LongTermCopy>, RepositoryError> {
        let repository = self.repository();
        let folders = repository
            .store()
            .folders(&layout::copies(instance))
            .await?;
        let there: BTreeSet<CopyId> = folders.iter().filter_map(|id| id.parse().ok()).collect();
        let mut cache = self.copy_cache.known.lock().await;
        if there.is_empty() {
            cache.remove(instance);
            return Ok(Vec::new());
        }
        let known = cache.entry(instance.clone()).or_default();
        known.retain(|id, _| there.contains(id));
        for id in there {
            if known
                .get(&id)
                .is_some_and(|(read, _)| read.elapsed() < READ_AGAIN)
            {
                continue;
            }
            match repository.copy_state(instance, id).await {
                Ok(Some((_, copy))) => {
                    known.insert(id, (Instant::now(), copy));
                }
                // It is being made, or was begun and not finished.
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%instance, copy = %id, error = %crate::chain(&error), "a long-term copy cannot be read");
                }
            }
        }
        let mut copies: Vec<LongTermCopy> = known.values().map(|(_, copy)| copy.clone()).collect();
        copies.sort_by_key(|copy| (copy.backup_time, copy.id));
        Ok(copies)
    }

    /// Deletes a long-term copy that is not held.
    ///
    /// # Errors
    /// When it is held, gone, or the repository fails.
    pub async fn delete_copy(
        &self,
        instance: &InstanceName,
        id: CopyId,
    ) -> Result<(), long_term::LongTermError> {
        let _turn = self.copy_cache.changing.lock().await;
        let deleted = long_term::delete(self.repository(), instance, id).await;
        self.forget_copy(instance, id).await;
        deleted
    }

    /// Holds a long-term copy, or lets it go. Returns its state behind that.
    ///
    /// # Errors
    /// When it is gone, or the repository fails.
    pub async fn set_hold(
        &self,
        instance: &InstanceName,
        id: CopyId,
        hold: Hold,
    ) -> Result<LongTermCopy, long_term::LongTermError> {
        // So that none is held that is just being deleted.
        let _turn = self.copy_cache.changing.lock().await;
        let changed = match hold {
            Hold::Set => long_term::hold(self.repository(), id, Timestamp::now()).await,
            Hold::Removed => long_term::release(self.repository(), id).await,
        };
        self.forget_copy(instance, id).await;
        changed
    }

    async fn forget_copy(&self, instance: &InstanceName, id: CopyId) {
        let mut cache = self.copy_cache.known.lock().await;
        if let Some(known) = cache.get_mut(instance) {
            known.remove(&id);
        }
    }

    /// Copies and expires for one instance until told to end, while this server schedules.
    pub(super) async fn watch_copies(
        self: &Arc<Self>,
        name: &InstanceName,
        mut stop: watch::Receiver<bool>,
    ) {
        let mut failures = 0;
        let mut lease = self.lease.subscribe();
        loop {
            if self.term().is_none() {
                // It changes with each step that is taken.
                tokio::select! {
                    _ = lease.changed() => continue,
                    () = told(&mut stop) => return,
                }
            }
            // What is stored tells of a clock that is wrong, so that is looked at first.
            if self
                .instance(name)
                .is_none_or(|found| found.restorable.is_none())
            {
                tokio::select! {
                    () = sleep(COPIES_PAUSE) => continue,
                    () = told(&mut stop) => return,
                }
            }
            let done = self.look_at_copies(name).await;
            failures = match done {
                Ok(()) => 0,
                Err(failure) => {
                    tracing::warn!(instance = %name, "long-term copies: {}", failure.text);
                    failures + 1
                }
            };
            let wait = COPIES_INTERVAL
                .saturating_mul(2_u32.saturating_pow(failures))
                .min(FAILED_INTERVAL);
            tokio::select! {
                () = sleep(wait) => {}
                () = self.copies_wake.notified(), if failures == 0 => sleep(COPIES_PAUSE).await,
                () = told(&mut stop) => return,
            }
        }
    }

    async fn look_at_copies(self: &Arc<Self>, name: &InstanceName) -> Result<(), Failure> {
        if self.clock.is_believed() {
            self.expire_copies(name, Timestamp::now()).await?;
        }
        let none = BTreeSet::new();
        if self
            .due_copy(name, &none, Timestamp::now())
            .await?
            .is_none()
        {
            return Ok(());
        }
        let Some(observed) = self.instance(name).filter(|found| found.server.is_ok()) else {
            return Ok(());
        };
        let (result, told) = tokio::sync::oneshot::channel();
        let service = self.clone();
        let ended = thread::run(format!("copies {name}"), move || async move {
            let copied = service.make_copies(&observed).await;
            // The watcher waits for it.
            let _ = result.send(copied);
        });
        let ended = ended.map_err(|error| failure("LongTermCopyFailed", &error))?;
        let copied = told.await.unwrap_or(Ok(()));
        let _ = ended.await;
        copied
    }

    /// Copies what is due, one database after the other, as long as there is something.
    async fn make_copies(&self, observed: &Observed) -> Result<(), Failure> {
        let name = &observed.name;
        let connection = &observed.connection;
        let session = connect_sql(connection, connection.database()).await;
        let session = session.map_err(|error| failure("InstanceNotReachable", &error))?;
        let lock = InstanceLock::try_acquire(session, LockKind::LongTerm, name.as_str());
        let lock = lock
            .await
            .map_err(|error| failure("ConflictingDatabaseOperation", &error))?;
        let made = async {
            let swept = long_term::sweep(self.repository(), name, Some(&lock)).await;
            swept.map_err(|error| failure("LongTermCopyFailed", &error))?;
            // One database that cannot be copied keeps no other from being copied.
            let (mut passed_over, mut first) = (BTreeSet::new(), None);
            while !self.is_ending()
                && self.term().is_some()
                && let Some(due) = self.due_copy(name, &passed_over, Timestamp::now()).await?
            {
                let (considered, copied_for) = match &due.step {
                    CopyStep::PassOver { full } => (full.ended, &[][..]),
                    CopyStep::Copied { full, reasons } => (full.ended, reasons.as_slice()),
                    CopyStep::Copy { full, kept } => {
                        let made = self.make_copy(&lock, name, &due.row, full, kept).await;
                        if let Err(failure) = made {
                            passed_over.insert(due.row.oid);
                            first.get_or_insert(failure);
                            continue;
                        }
                        (full.ended, kept.reasons.as_slice())
                    }
                };
                let noted = self
                    .catalog()
                    .note_considered(name, &due.row, considered, copied_for);
                let noted = noted.await;
                noted.map_err(|error| failure("LongTermCopyFailed", &error))?;
            }
            first.map_or(Ok(()), Err)
        }
        .await;
        lock.give_up().await;
        made
    }

    async fn make_copy(
        &self,
        lock: &InstanceLock,
        instance: &InstanceName,
        row: &LongTermRow,
        full: &Full,
        kept: &Kept,
    ) -> Result<(), Failure> {
        let _turn = self.copying.acquire().await;
        let failed = |error: &dyn std::error::Error| failure("LongTermCopyFailed", error);
        let request = CopyRequest {
            instance: instance.clone(),
            database: CopiedDatabase::Oid(Oid::new(row.oid)),
            backup: Some(full.id.clone()),
            reasons: kept.reasons.clone(),
            expires_at: Some(kept.until),
            jobs: 1,
        };
        let mut failure = None;
        let made = self.operate(
            OperationKind::LongTermCopy,
            instance,
            async |progress, say| {
                let result = async {
                    let plan = long_term::plan(self.repository(), request).await;
                    let plan = plan.map_err(|error| failed(&error))?;
                    say(format!(
                        "copies database `{}` of {}",
                        plan.name, plan.backup.id
                    ));
                    let copy =
                        long_term::execute(self.repository(), &plan, Some(lock), progress).await;
                    let copy = copy.map_err(|error| failed(&error))?;
                    say(format!(
                        "copy {} is complete: {} bytes stored, kept until {}",
                        copy.id, copy.stored_bytes, kept.until
                    ));
                    Ok(())
                }
                .await;
                failure = result.as_ref().err().cloned();
                result
            },
        );
        match made.await {
            Some(()) => Ok(()),
            None => Err(failure.unwrap_or_else(|| Failure {
                code: "LongTermCopyFailed",
                text: "the operation could not be written down".to_owned(),
            })),
        }
    }

    /// The next thing to be done for any database of an instance.
    async fn due_copy(
        &self,
        instance: &InstanceName,
        passed_over: &BTreeSet<u32>,
        now: Timestamp,
    ) -> Result<Option<DueCopy>, Failure> {
        let failed = |error: &dyn std::error::Error| failure("LongTermCopyFailed", error);
        let policies = self.catalog().long_term_policies(instance).await;
        let policies = policies.map_err(|error| failed(&error))?;
        if policies.is_empty() {
            return Ok(None);
        }
        let databases = self.catalog().databases(instance).await;
        let databases = databases.map_err(|error| failed(&error))?;
        // Of one that was deleted, backups from before that are copied.
        let is_known = |row: &LongTermRow| databases.iter().any(|database| row.is_of(database));
        let backups = self.repository().readable_backups(instance).await;
        let backups = backups.map_err(|error| failed(&error))?.backups;
        let copies = self.copies(instance).await;
        let copies = copies.map_err(|error| failed(&error))?;
        let is_wanted = |row: &LongTermRow| is_known(row) && !passed_over.contains(&row.oid);
        for row in policies.into_iter().filter(is_wanted) {
            let mut fulls = fulls_of(&row, &backups);
            let database = databases.iter().find(|database| row.is_of(database));
            if let Some(deleted_at) = database.and_then(|database| database.deleted_at) {
                // A backup during which it was dropped does not hold it whole.
                fulls.retain(|full| full.ended + DROP_NOTICED < deleted_at);
            }
            let earlier: Vec<EarlierCopy> = copies
                .iter()
                .filter(|copy| copy.oid.get() == row.oid && copy.backup_time >= row.created_at)
                .map(|copy| EarlierCopy {
                    taken: copy.backup_time,
                    reasons: copy.reasons.clone(),
                })
                .chain(row.last.iter().cloned())
                .collect();
            if let Some(step) = next_step(&row.policy, &fulls, &earlier, row.considered, now) {
                return Ok(Some(DueCopy { row, step }));
            }
        }
        Ok(None)
    }

    /// The copies of which a restore is queued or runs.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn copies_being_restored(&self) -> Result<BTreeSet<CopyId>, CatalogError> {
        let open = self.catalog().open_database_operations().await?;
        let copy_of = |operation: &DatabaseOperation| match &operation.request {
            DatabaseRequest::Restore(request) => match &request.source {
                RestoreSource::LongTerm { copy, .. } => Some(*copy),
                _ => None,
            },
            _ => None,
        };
        Ok(open.iter().filter_map(copy_of).collect())
    }

    /// Deletes the copies whose time is over. What the states say is read anew before each goes.
    pub(super) async fn expire_copies(
        &self,
        instance: &InstanceName,
        now: Timestamp,
    ) -> Result<(), Failure> {
        let failed = |error: &dyn std::error::Error| failure("LongTermExpiryFailed", error);
        let copies = self
            .copies(instance)
            .await
            .map_err(|error| failed(&error))?;
        let read = self.copies_being_restored().await;
        let read = read.map_err(|error| failed(&error))?;
        let mut gone = Vec::new();
        // What a restore reads stays until that has ended.
        for copy in expired(&copies, now)
            .into_iter()
            .filter(|copy| !read.contains(&copy.id))
        {
            let state = self.repository().copy_state(instance, copy.id).await;
            let state = state.map_err(|error| failed(&error))?;
            let copy = state.map(|(_, copy)| copy);
            gone.extend(copy.filter(|copy| copy.has_expired(now)));
        }
        if gone.is_empty() {
            return Ok(());
        }
        self.operate(OperationKind::LongTermExpiry, instance, async |_, say| {
            for copy in gone {
                say(format!(
                    "deletes copy {} of `{}` of {}",
                    copy.id, copy.database, copy.backup_time
                ));
                let deleted = self.delete_copy(instance, copy.id).await;
                deleted.map_err(|error| failed(&error))?;
            }
            Ok(())
        })
        .await;
        Ok(())
    }
}

/// The full backups that hold a database from its beginning on.
fn fulls_of(row: &LongTermRow, backups: &[Backup]) -> Vec<Full> {
    let holds = |backup: &&Backup| {
        backup.kind == BackupKind::Full
            && backup.databases.iter().any(|database| {
                database.oid.get() == row.oid && !OperationId::is_hidden(&database.name)
            })
            && backup.stopped_at >= row.created_at
    };
    backups
        .iter()
        .filter(holds)
        .map(|backup| Full {
            id: backup.id.clone(),
            ended: backup.stopped_at,
        })
        .collect()
}

fn failure(code: &'static str, error: &dyn std::error::Error) -> Failure {
    let text = crate::chain(error);
    Failure { code, text }
}
