//! Restoring an instance into an empty directory.
//!
//! A plan is made and every refusal comes before anything is written. Then the files are laid down, the
//! log that recovery needs is put in place, and recovery is told where to stop. A restore that was
//! interrupted leaves a marker in the directory and goes on from what is right when run again.

pub mod files;
pub mod pack_reader;
pub mod recovery;
pub mod refusal;
pub mod replayable_log;
pub mod selection;
pub mod start;
pub mod target;
pub mod time_search;
pub mod units;
mod unlogged;
pub mod writer;

use std::path::{Path, PathBuf};

use everpoint_pgformat::{ByteCount, Lsn, Oid, TimelineId};
use everpoint_repository::{
    BackupId, InstanceName, Repository, RepositoryError,
    backup::{Backup, Tablespace},
    log::LogIndex,
};
use serde::{Deserialize, Serialize};

use self::{
    refusal::{Left, RefusalError},
    selection::Selection,
    target::{Resolved, Resolver, Target, TargetError},
    writer::{Owner, WriteError},
};
use crate::{log::reader::LogPlanError, progress::Progress, summary::Sources};

/// The file that marks a directory whose restore is under way.
pub const MARKER: &str = "everpoint.restore.json";
/// Log that is put in place without a running restore takes no more than is needed; this much is spare
/// beyond the files when space is estimated.
const SPARE_BYTES: u64 = 64 << 20;

/// What to restore, and where.
#[derive(Clone, Debug)]
pub struct RestoreRequest {
    /// The instance.
    pub instance: InstanceName,
    /// The new data directory.
    pub to: PathBuf,
    /// What of the instance.
    pub selection: Selection,
    /// What to reach.
    pub target: Target,
    /// The timeline in whose history; the latest when absent.
    pub timeline: Option<TimelineId>,
    /// Where tablespaces go: old location, new one.
    pub tablespaces: Vec<(PathBuf, PathBuf)>,
    /// Worker threads.
    pub jobs: usize,
    /// Who the files shall belong to, when it is not this process's user.
    pub owner: Option<Owner>,
    /// Whether log is put into `pg_wal`, for a server that is started later without us, or supplied while we
    /// start it.
    pub log: LogDelivery,
    /// Whether it shall outlive a crash of the machine.
    pub durability: Durability,
}

/// Whether what is restored is brought to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Before the directory can be started.
    Synced,
    /// Never: it is thrown away after a crash of the machine.
    Scratch,
}

/// What is stored of an instance, as far as restores ask.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Finished backups.
    pub backups: Vec<Backup>,
    /// The log.
    pub index: LogIndex,
    /// The timeline in whose history targets lie.
    pub timeline: TimelineId,
    /// From what it is told what happened.
    pub sources: Sources,
}

impl Stored {
    /// Reads it; of the latest timeline unless another is named.
    ///
    /// # Errors
    /// When the repository cannot be read, or knows no such timeline.
    pub async fn read(
        repository: &Repository,
        instance: &InstanceName,
        timeline: Option<TimelineId>,
    ) -> Result<Self, RestoreError> {
        let backups = repository.readable_backups(instance).await?.backups;
        let index = repository.log_index(instance).await?;
        let known = index.timelines();
        let timeline = match timeline {
            Some(asked) if known.contains(&asked) => asked,
            Some(timeline) => {
                let known = known
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(", ");
                return Err(TargetError::UnknownTimeline { timeline, known }.into());
            }
            None => known.last().copied().unwrap_or(TimelineId::FIRST),
        };
        Ok(Self {
            backups,
            index,
            timeline,
            sources: Sources::default(),
        })
    }

    /// Turns targets into positions.
    pub fn resolver<'a>(
        &'a self,
        repository: &'a Repository,
        instance: &'a InstanceName,
    ) -> Resolver<'a> {
        Resolver {
            repository,
            instance,
            backups: &self.backups,
            index: &self.index,
            timeline: self.timeline,
            sources: &self.sources,
        }
    }
}

/// How log gets to recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogDelivery {
    /// All of it lies in `pg_wal` before the server is started.
    InPlace,
    /// It is brought while the server replays.
    Supplied,
}

/// A restore that nothing speaks against.
#[derive(Clone, Debug)]
pub struct RestorePlan {
    /// As asked for.
    pub request: RestoreRequest,
    /// Where the target is.
    pub resolved: Resolved,
    /// The full backup below a differential.
    pub base: Option<Backup>,
    /// The log.
    pub index: LogIndex,
    /// Where each tablespace goes; `None` for one inside `pg_tblspc`.
    pub tablespaces: Vec<(Oid, Option<PathBuf>)>,
    /// Bytes of all files as restored.
    pub file_bytes: ByteCount,
    /// Bytes of log that replay reads.
    pub log_bytes: ByteCount,
    /// Room that is needed where it goes.
    pub needed_bytes: ByteCount,
    /// Whether an interrupted restore is gone on with.
    pub resumed: bool,
    /// What was amiss with stored summaries when the target was looked for, for a person.
    pub notes: Vec<String>,
}

/// A restore failed.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The target cannot be reached.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// Something speaks against it.
    #[error(transparent)]
    Refused(#[from] RefusalError),
    /// The repository.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The files.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A differential without its base.
    #[error(transparent)]
    MissingBase(#[from] units::MissingBase),
    /// The log.
    #[error(transparent)]
    Log(#[from] LogPlanError),
    /// A file or directory of the target.
    #[error("cannot {action} {}", path.display())]
    Directory {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// What an interrupted restore left cannot be listed.
    #[error(transparent)]
    Scan(#[from] everpoint_instance::data_directory::ScanError),
    /// The manifest is self-contradictory.
    #[error("backup {backup} is damaged: {what}")]
    Damaged {
        /// The backup.
        backup: BackupId,
        /// What is wrong.
        what: &'static str,
    },
    /// It was cancelled.
    #[error("the restore was cancelled. Run again, it goes on where it stopped")]
    Cancelled,
    /// A background task ended by itself.
    #[error("a task of the restore ended unexpectedly")]
    TaskLost,
}

/// The text of the marker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// The repository.
    pub repository: String,
    /// The instance.
    pub instance: InstanceName,
    /// The backup being laid down.
    pub backup: BackupId,
    /// Where replay will end.
    pub log_until: Lsn,
}

/// Makes a plan, or says why not. Writes nothing.
///
/// # Errors
/// See [`RestoreError`].
pub async fn plan(
    repository: &Repository,
    request: RestoreRequest,
) -> Result<RestorePlan, RestoreError> {
    let stored = Stored::read(repository, &request.instance, request.timeline).await?;
    let resolver = stored.resolver(repository, &request.instance);
    let resolved = resolver.resolve(&request.target).await?;
    plan_resolved(repository, request, &stored, resolved).await
}

/// As [`plan`], of a target whose position is known.
///
/// # Errors
/// See [`RestoreError`].
pub async fn plan_resolved(
    repository: &Repository,
    request: RestoreRequest,
    stored: &Stored,
    resolved: Resolved,
) -> Result<RestorePlan, RestoreError> {
    let base = match resolved.backup.kind.base() {
        None => None,
        Some(id) => Some(
            stored
                .backups
                .iter()
                .find(|backup| backup.id == *id)
                .cloned()
                .ok_or_else(|| RepositoryError::UnknownBackup {
                    name: request.instance.clone(),
                    backup: id.clone(),
                })?,
        ),
    };
    let backup = &resolved.backup;
    let size = backup.segment_size;
    let log_bytes = size
        .ceil(resolved.log_until)
        .bytes_since(size.floor(backup.start_lsn));
    let marker = Marker {
        repository: repository.id().to_string(),
        instance: request.instance.clone(),
        backup: backup.id.clone(),
        log_until: resolved.log_until,
    };
    let tablespaces = match request.selection {
        Selection::Cluster => refusal::map_tablespaces(backup, &request.tablespaces, &request.to)?,
        // All inside the directory: nothing shall lead out of it.
        Selection::Databases(_) => {
            let inside = |tablespace: &Tablespace| (tablespace.oid, None);
            backup.tablespaces.iter().map(inside).collect()
        }
    };
    let resumed = refusal::check_directory(&request.to, &marker, backup)?;
    for (oid, place) in &tablespaces {
        if let Some(place) = place
            && !(resumed && refusal::is_linked(&request.to, *oid, place))
        {
            refusal::check_empty(place)?;
        }
    }
    let in_place = match request.log {
        LogDelivery::InPlace => log_bytes,
        LogDelivery::Supplied => log_bytes.min(recovery::spool_bytes(backup)),
    };
    let file_bytes = match request.selection {
        Selection::Cluster => backup.totals.restored_bytes,
        Selection::Databases(_) => files::selected_bytes(repository, &request, backup).await?,
    };
    let needed_bytes = file_bytes + in_place + SPARE_BYTES;
    if !resumed {
        let left = match request.durability {
            Durability::Synced => Left::Nothing,
            Durability::Scratch => Left::Share,
        };
        refusal::check_space(&request.to, needed_bytes, left)?;
    }
    Ok(RestorePlan {
        needed_bytes: ByteCount::new(needed_bytes),
        file_bytes: ByteCount::new(file_bytes),
        log_bytes: ByteCount::new(log_bytes),
        request,
        resolved,
        base,
        index: stored.index.clone(),
        tablespaces,
        resumed,
        notes: stored.sources.notes(),
    })
}

/// Lays the files down and prepares recovery. The directory is then ready for the server; with
/// [`LogDelivery::Supplied`] a [`recovery::Supplier`] has to bring it log while it replays.
///
/// # Errors
/// See [`RestoreError`]; run again, it goes on.
pub async fn execute(
    repository: &Repository,
    plan: &RestorePlan,
    progress: &Progress,
) -> Result<(), RestoreError> {
    let marker = Marker {
        repository: repository.id().to_string(),
        instance: plan.request.instance.clone(),
        backup: plan.resolved.backup.id.clone(),
        log_until: plan.resolved.log_until,
    };
    files::make_directories(plan, &marker)?;
    if plan.resumed {
        files::remove_strangers(repository, plan).await?;
    }
    progress.phase("restoring files", plan.file_bytes.get());
    files::restore_files(repository, plan, progress).await?;
    let mut placed_tablespaces = 0;
    if plan.request.log == LogDelivery::InPlace {
        progress.phase("placing log", plan.log_bytes.get());
        placed_tablespaces = recovery::place_log(repository, plan, progress).await?;
    }
    progress.phase("writing recovery settings", 0);
    recovery::write_histories(repository, plan).await?;
    recovery::write_settings(plan, placed_tablespaces)?;
    progress.phase("syncing", 0);
    files::finish(plan)?;
    Ok(())
}

/// An error of the target directory.
fn failed(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> RestoreError {
    let path = path.to_owned();
    move |source| RestoreError::Directory {
        action,
        path,
        source,
    }
}
