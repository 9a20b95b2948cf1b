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
/// # Errors
/// When there is no such copy, or the store fails.
pub async fn hold(
    repository: &Repository,
    id: CopyId,
    now: Timestamp,
) -> Result<LongTermCopy, LongTermError> {
    let mut copy = find(repository, id).await?;
    if copy.held_since.is_none() {
        copy.held_since = Some(now);
        repository.write_copy_state(&copy).await?;
    }
    Ok(copy)
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

/// Deletes a copy before its time. The state is read anew, so that a hold of this moment counts.
///
/// # Errors
/// [`LongTermError::Held`] when it is held.
pub async fn delete(
    repository: &Repository,
    instance: &InstanceName,
    id: CopyId,
) -> Result<(), LongTermError> {
    let state = repository.copy_state(instance, id).await?;
    let (_, copy) = state.ok_or(LongTermError::Unknown { id })?;
    if let Some(since) = copy.held_since {
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
