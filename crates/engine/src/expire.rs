//! Forgetting what no point inside the window needs: first manifests, then packs and log.

use std::time::{Duration, SystemTime};

use everpoint_instance::InstanceLock;
use everpoint_repository::{InstanceName, Repository, layout, retention::ExpirePlan};

use crate::backup::{self, SweepError, check};

/// What was written last so long ago beside log backups is nobody's any more.
const ABANDONED: Duration = Duration::from_secs(24 * 3600);

/// What expiry did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// Backups forgotten.
    pub backups: u64,
    /// Log backups forgotten.
    pub logs: u64,
    /// Summaries of log forgotten.
    pub summaries: u64,
    /// Packs and remains deleted.
    pub packs: u64,
}

/// Carries a plan out. Nobody else may write to the instance meanwhile: `lock` is its writer's, none where it is known
/// that there is no server.
///
/// A manifest goes before the packs it names, so that an interruption leaves packs without a manifest,
/// which the next sweep removes, and never a manifest without its packs.
///
/// # Errors
/// When the lock is lost, or the store fails; carried out again, it goes on.
pub async fn execute(
    repository: &Repository,
    instance: &InstanceName,
    plan: &ExpirePlan,
    lock: Option<&InstanceLock>,
) -> Result<Expired, SweepError> {
    let mut expired = Expired::default();
    check(lock).await?;
    let manifests = repository.manifests(instance).await?;
    // Newest first: a differential goes before the full one it builds upon.
    for id in plan.backups.iter().rev() {
        for (_, path, _) in manifests.iter().filter(|(of, ..)| of == id) {
            repository.store().delete(path).await?;
            expired.backups += 1;
        }
    }
    let living = repository.backups(instance).await?;
    expired.packs = backup::sweep(repository, instance, &living, lock).await?;
    for log in &plan.logs {
        repository.store().delete(&log.path).await?;
        expired.logs += 1;
    }
    for summary in repository.summaries(instance).await? {
        if summary.end <= plan.needed_from {
            repository.store().delete(&summary.path).await?;
            expired.summaries += 1;
        }
    }
    for folder in [layout::logs(instance), layout::summaries(instance)] {
        // Those who receive and push log hold another lock.
        repository
            .store()
            .sweep_staged_before(&folder, SystemTime::now() - ABANDONED)?;
    }
    Ok(expired)
}
