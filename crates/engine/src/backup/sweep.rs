//! Removing what interrupted backups left.

use everpoint_instance::{InstanceLock, lock::LockError};
use everpoint_repository::{
    InstanceName, Repository, RepositoryError, StoreError, backup::Backup, layout,
};

/// What nobody needs could not be removed.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// Others may write.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The repository.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Removes packs that no backup of `living` names. `lock` is the writer's lock, so that no backup is under way; none
/// where it is known that there is no server.
///
/// # Errors
/// When the lock is lost, or the store fails.
pub async fn sweep(
    repository: &Repository,
    instance: &InstanceName,
    living: &[Backup],
    lock: Option<&InstanceLock>,
) -> Result<u64, SweepError> {
    let packs = repository.unreferenced_packs(instance, living).await?;
    // Behind the listing: what a later holder's backup writes is not in it.
    check(lock).await?;
    let mut swept = 0;
    for pack in packs {
        repository.store().delete(&pack.path).await?;
        swept += 1;
    }
    for folder in [layout::packs(instance), layout::backups(instance)] {
        swept += repository.store().sweep_staged(&folder)?;
    }
    Ok(swept)
}

/// Whether it is still sure that nobody else writes.
pub(crate) async fn check(lock: Option<&InstanceLock>) -> Result<(), LockError> {
    match lock {
        Some(lock) => lock.check().await,
        None => Ok(()),
    }
}
