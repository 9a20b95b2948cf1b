//! Long-term copies: one database out of a full backup, as a backup of its own that needs no other.
//!
//! A copy holds the database's files, those that all databases share, and the log from the backup's start to
//! its stop, with other databases' changes taken out. It lies in a part of the repository that looks like a
//! repository with one instance ([`Repository::long_term`]), so restores read it as they read anything else.
//! See `docs/format/long-term.md`.

mod copy;
mod frames;
mod log;

use everpoint_instance::{InstanceLock, lock::LockError};
use everpoint_pgformat::Lsn;
use everpoint_repository::{
    BackupId, CopyId, InstanceName, Repository, RepositoryError, long_term::LongTermCopy,
};
use jiff::Timestamp;

pub use copy::{CopiedDatabase, CopyPlan, CopyRequest, execute, plan};

use crate::{
    backup::{SweepError, check},
    log::reader::LogPlanError,
    restore::{RestoreError, pack_reader::PackReadError},
    summary::SummaryReadError,
};

/// A long-term copy cannot be made or changed.
#[derive(Debug, thiserror::Error)]
pub enum LongTermError {
    /// There is no full backup.
    #[error(
        "instance `{instance}` has no full backup that log makes consistent. Take one: everpoint backup {instance}"
    )]
    NoFullBackup {
        /// The instance.
        instance: InstanceName,
    },
    /// A differential.
    #[error("backup {backup} is a differential one. Copies are made of full backups")]
    NotFull {
        /// The backup.
        backup: BackupId,
    },
    /// The backup does not hold such a database whole.
    #[error("backup {backup} holds no database `{database}` whole. It holds: {known}")]
    NoDatabase {
        /// As asked for.
        database: String,
        /// The backup.
        backup: BackupId,
        /// Those it holds.
        known: String,
    },
    /// There is no such copy.
    #[error("there is no long-term copy {id}. `everpoint long-term list` lists those there are")]
    Unknown {
        /// As asked for.
        id: CopyId,
    },
    /// It may not be deleted.
    #[error(
        "long-term copy {id} is held since {since:.0} and stays. `everpoint long-term release {id}` lets it go"
    )]
    Held {
        /// The copy.
        id: CopyId,
        /// Since when.
        since: Timestamp,
    },
    /// Somebody deletes it.
    #[error(
        "long-term copy {id} is being deleted. `everpoint long-term list` tells when it is gone"
    )]
    BeingDeleted {
        /// The copy.
        id: CopyId,
    },
    /// The log that tells which databases there were.
    #[error(transparent)]
    Events(#[from] SummaryReadError),
    /// What is stored.
    #[error(transparent)]
    Stored(#[from] RestoreError),
    /// The frames.
    #[error(transparent)]
    Read(#[from] PackReadError),
    /// The log.
    #[error(transparent)]
    Log(#[from] LogPlanError),
    /// The log that was copied ends early.
    #[error("the log that backup {backup} needs ends at {end}, before its stop position")]
    LogEndsEarly {
        /// The backup.
        backup: BackupId,
        /// Where.
        end: Lsn,
    },
    /// Others may write.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The repository.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// It was cancelled.
    #[error("the copy was cancelled. Nothing of it is left")]
    Cancelled,
    /// A background task ended by itself.
    #[error("a task of the copy ended unexpectedly")]
    TaskLost,
}

/// Finds a copy by its identifier alone.
///
/// # Errors
/// [`LongTermError::Unknown`] when there is none.
pub async fn find(repository: &Repository, id: CopyId) -> Result<LongTermCopy, LongTermError> {
    for instance in repository.instances_with_copies().await? {
        if let Some((_, copy)) = repository.copy_state(&instance, id).await? {
            return Ok(copy);
        }
    }
    Err(LongTermError::Unknown { id })
}

/// Keeps a copy whatever its time says, until it is released. One that is held already stays as it is.
///
/// Who holds a copy and who deletes it, wherever, each write that down first, and then look whether the other one did:
/// one of them at least sees it and gives up.
///
/// # Errors
/// When there is no such copy, or the store fails; [`LongTermError::BeingDeleted`].
pub async fn hold(
    repository: &Repository,
    id: CopyId,
    now: Timestamp,
) -> Result<LongTermCopy, LongTermError> {
    let instance = find(repository, id).await?.instance;
    let states = repository.copy_states(&instance, id).await?;
    let base = states.last().ok_or(LongTermError::Unknown { id })?;
    if states.iter().any(|state| state.copy.deleting) {
        return Err(LongTermError::BeingDeleted { id });
    }
    let mut copy = base.copy.clone();
    if copy.held_since.is_some() {
        return Ok(copy);
    }
    copy.held_since = Some(now);
    let own = repository.write_copy_state(&copy).await?;
    let states = repository.copy_states(&instance, id).await?;
    // The earlier state goes before the one that says so of a copy that is deleted: while it is there, the list above
    // holds that one.
    let behind = repository.copy_states(&instance, id).await?;
    let is_there = behind.iter().any(|state| state.path == base.path);
    if is_there && states.iter().all(|state| !state.copy.deleting) {
        return Ok(copy);
    }
    repository
        .store()
        .delete(&own)
        .await
        .map_err(RepositoryError::from)?;
    Err(LongTermError::BeingDeleted { id })
}

/// Lets a copy go when its time is over.
///
/// # Errors
/// When there is no such copy, or the store fails.
pub async fn release(repository: &Repository, id: CopyId) -> Result<LongTermCopy, LongTermError> {
    let mut copy = find(repository, id).await?;
    if copy.held_since.take().is_some() {
        repository.write_copy_state(&copy).await?;
    }
    Ok(copy)
}

/// Deletes a copy, if it is not held: see [`hold`].
///
/// # Errors
/// [`LongTermError::Held`] when it is held.
pub async fn delete(
    repository: &Repository,
    instance: &InstanceName,
    id: CopyId,
) -> Result<(), LongTermError> {
    let before = repository.copy_states(instance, id).await?;
    let latest = before.last().ok_or(LongTermError::Unknown { id })?;
    // Another deletion may have been interrupted, or go on at this moment.
    let own = before.iter().rfind(|state| !state.copy.deleting);
    let copy = own.unwrap_or(latest).copy.clone();
    if let Some(since) = copy.held_since {
        return Err(LongTermError::Held { id, since });
    }
    let going = LongTermCopy {
        deleting: true,
        ..copy
    };
    let own = repository.write_copy_state(&going).await?;
    let states = repository.copy_states(instance, id).await?;
    let is_new = |path: &str| before.iter().all(|state| state.path != path);
    let mut new = states.iter().filter(|state| is_new(&state.path));
    if let Some(since) = new.find_map(|state| state.copy.held_since) {
        repository
            .store()
            .delete(&own)
            .await
            .map_err(RepositoryError::from)?;
        return Err(LongTermError::Held { id, since });
    }
    Ok(repository.delete_copy(instance, id).await?)
}

/// Deletes what interrupted copies of an instance left, and returns how many there were. Nobody may be
/// making one: `lock` is the instance's for long-term copies, none where it is known that there is no server.
///
/// # Errors
/// When the lock is lost, or the store fails.
pub async fn sweep(
    repository: &Repository,
    instance: &InstanceName,
    lock: Option<&InstanceLock>,
) -> Result<u64, SweepError> {
    let unfinished = repository.copies(instance).await?.unfinished;
    check(lock).await?;
    let mut swept = 0;
    for id in unfinished {
        repository.delete_copy(instance, id).await?;
        swept += 1;
    }
    Ok(swept)
}

#[cfg(test)]
mod tests {
    use everpoint_pgformat::{MajorVersion, Oid, SystemIdentifier};
    use everpoint_repository::{
        keys::Secret,
        store::{Missing, Store},
    };

    use super::*;

    /// Rounds, in each of which two processes are at one copy.
    const ROUNDS: u64 = 200;

    fn open(directory: &tempfile::TempDir) -> Store {
        Store::open(directory.path().to_str().unwrap(), Missing::Refuse).unwrap()
    }

    fn copy() -> LongTermCopy {
        LongTermCopy {
            id: CopyId::random(),
            instance: "shop".parse().unwrap(),
            oid: Oid::new(16_384),
            database: "orders".to_owned(),
            system_identifier: SystemIdentifier::new(7),
            version: MajorVersion::try_from(17).unwrap(),
            backup: BackupId::new(Timestamp::UNIX_EPOCH, "full", 1),
            backup_time: Timestamp::UNIX_EPOCH,
            copied_at: Timestamp::UNIX_EPOCH,
            reasons: Vec::new(),
            expires_at: None,
            held_since: None,
            deleting: false,
            restored_bytes: 1,
            stored_bytes: 1,
        }
    }

    /// They may be servers on two machines, or a person at a terminal.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn a_copy_that_is_held_is_not_deleted_at_the_same_moment() {
        let directory = tempfile::tempdir().unwrap();
        let secret = Secret::KeyFile(vec![1; 32].into());
        let (now, secrets) = (Timestamp::now(), std::slice::from_ref(&secret));
        let one = Repository::create(open(&directory), secrets, now)
            .await
            .unwrap();
        let other = Repository::open(open(&directory), &secret).await.unwrap();
        let (mut held, mut deleted) = (0, 0);
        for round in 0..ROUNDS {
            let copy = copy();
            one.write_copy_state(&copy).await.unwrap();
            let (repository, id) = (other.clone(), copy.id);
            let holding = tokio::spawn(async move { hold(&repository, id, now).await });
            let deleting = [one.clone(), other.clone()].map(|repository| {
                let instance = copy.instance.clone();
                let later = std::time::Duration::from_micros(round % 20 * 100);
                tokio::spawn(async move {
                    std::thread::sleep(later);
                    delete(&repository, &instance, id).await
                })
            });
            let holding = holding.await.unwrap();
            let mut ends = Vec::new();
            for deleting in deleting {
                ends.push(deleting.await.unwrap());
            }
            let left = one.copy_state(&copy.instance, id).await.unwrap();
            if holding.is_ok() {
                held += 1;
                let (_, left) = left.expect("who held it was told that it stays");
                assert!(left.held_since.is_some() && !left.deleting);
                for end in &ends {
                    assert!(matches!(end, Err(LongTermError::Held { .. })), "{ends:?}");
                }
            } else if ends.iter().any(Result::is_ok) {
                deleted += 1;
                assert_eq!(left, None);
            }
            if ends.iter().all(Result::is_err) {
                let left = release(&one, id).await.unwrap();
                assert!(!left.deleting);
                delete(&one, &copy.instance, id).await.unwrap();
            }
        }
        assert!(held > 0 && deleted > 0, "{held} held, {deleted} deleted");
    }
}
