//! One database out of a backup of many.
//!
//! Its files and what all databases share are laid into a scratch directory; a caged server there replays
//! log with the other databases' changes taken out; then the database is a source to copy from. The live
//! server is touched by the move alone, which comes after that.

pub mod choose;
pub mod deleted;
pub mod events;
pub mod into_server;
pub mod journal;
pub mod life;
pub mod on_disk;
pub mod presence;
pub mod recovered;
pub mod scratch;
pub mod server;
pub mod state;
pub mod sweep;
pub mod tables_into_server;
pub mod watch;

use std::{path::PathBuf, pin::pin};

use everpoint_instance::process::{CageError, PgBinaries};
use everpoint_pgformat::TimelineId;
use everpoint_repository::{InstanceName, Repository, log::LogPiece};

pub use sweep::sweep;

use self::{
    choose::{ChooseError, Chosen, Wanted, choose},
    scratch::Scratch,
    server::{ScratchServer, ScratchServerError},
    state::State,
};
use crate::{
    progress::Progress,
    restore::{
        self, Durability, LogDelivery, RestoreError, RestorePlan, RestoreRequest, Stored,
        selection::Selection, target::Target, writer::Owner,
    },
    room::{self, Room},
};

/// Which database to bring back, from where and as of when.
#[derive(Clone, Debug)]
pub struct DatabaseRequest {
    /// The instance it was in.
    pub instance: InstanceName,
    /// Which one.
    pub wanted: Wanted,
    /// As of when; as late as possible when absent.
    pub target: Option<Target>,
    /// The timeline in whose history; the latest when absent.
    pub timeline: Option<TimelineId>,
    /// Below which directory the scratch server lives.
    pub scratch: PathBuf,
    /// Who its files shall belong to, when it is not this process's user.
    pub owner: Option<Owner>,
    /// Worker threads.
    pub jobs: usize,
}

/// What is fetched and replayed.
#[derive(Clone, Debug)]
pub struct DatabasePlan {
    /// As asked for.
    pub request: DatabaseRequest,
    /// The database, and where its replay ends.
    pub chosen: Chosen,
    /// What its scratch server is made of.
    restore: RestorePlan,
}

/// A database cannot be brought back.
#[derive(Debug, thiserror::Error)]
pub enum DatabasePlanError {
    /// It cannot be told which.
    #[error(transparent)]
    Choose(#[from] ChooseError),
    /// It cannot be restored.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// Its scratch server could not live there.
    #[error(transparent)]
    Cage(#[from] CageError),
}

/// Makes a plan, or says why not. Writes nothing.
///
/// # Errors
/// See [`DatabasePlanError`].
pub async fn plan(
    repository: &Repository,
    request: DatabaseRequest,
) -> Result<DatabasePlan, DatabasePlanError> {
    scratch::check_base(&request.scratch, &request.instance)?;
    let stored = Stored::read(repository, &request.instance, request.timeline).await?;
    let (wanted, target) = (&request.wanted, request.target.as_ref());
    let chosen = choose(repository, &request.instance, &stored, wanted, target).await?;
    let restore = RestoreRequest {
        instance: request.instance.clone(),
        // Its name is chosen when it is made.
        to: request.scratch.join("new"),
        selection: Selection::Databases(chosen.needed.clone()),
        target: target.cloned().unwrap_or(Target::Latest),
        timeline: request.timeline,
        tablespaces: Vec::new(),
        jobs: request.jobs,
        owner: request.owner,
        log: LogDelivery::Supplied,
        durability: Durability::Scratch,
    };
    let resolved = chosen.resolved.clone();
    let restore = restore::plan_resolved(repository, restore, &stored, resolved).await?;
    Ok(DatabasePlan {
        request,
        chosen,
        restore,
    })
}

impl DatabasePlan {
    /// Bytes of the files that are fetched, as restored.
    pub fn file_bytes(&self) -> u64 {
        self.restore.file_bytes.get()
    }

    /// Bytes of log that are read.
    pub fn log_bytes(&self) -> u64 {
        self.restore.log_bytes.get()
    }

    /// The log backups that are read, in their order.
    pub fn log_pieces(&self) -> Vec<LogPiece> {
        let resolved = &self.restore.resolved;
        let (from, to) = (resolved.backup.start_lsn, resolved.log_until);
        // Whether all are there was looked at when the plan was made.
        self.restore
            .index
            .pieces(resolved.timeline, from, to)
            .unwrap_or_default()
    }

    /// Room that is needed where the scratch server lives.
    pub fn scratch_bytes(&self) -> u64 {
        self.restore.needed_bytes.get()
    }

    /// Bytes that the repository holds of the files.
    ///
    /// # Errors
    /// When a manifest cannot be read.
    pub async fn stored_bytes(&self, repository: &Repository) -> Result<u64, RestoreError> {
        restore::files::stored_bytes(repository, &self.restore).await
    }

    /// Bytes that the repository holds of the log.
    pub fn stored_log_bytes(&self) -> u64 {
        let resolved = &self.chosen.resolved;
        let (from, to) = (resolved.backup.start_lsn, resolved.log_until);
        let pieces = self.restore.index.pieces(resolved.timeline, from, to);
        let pieces = pieces.unwrap_or_default();
        pieces.iter().map(|piece| piece.stretch.stored_bytes).sum()
    }

    /// What was amiss with stored summaries when the database was looked for, for a person.
    pub fn notes(&self) -> &[String] {
        &self.restore.notes
    }

    /// The full backup below a differential.
    pub fn base(&self) -> Option<&everpoint_repository::backup::Backup> {
        self.restore.base.as_ref()
    }
}

/// Fetches and recovers into a scratch directory, and leaves the server there running. `enter` is told each
/// state as it begins. It ends before the directory's file system is full, which a live server may be on.
///
/// # Errors
/// See [`ScratchServerError`]. The directory is then the caller's to remove.
pub async fn recover(
    repository: &Repository,
    plan: &DatabasePlan,
    scratch: &Scratch,
    binaries: &PgBinaries,
    progress: &Progress,
    enter: impl FnMut(State) -> Result<(), ScratchServerError>,
) -> Result<ScratchServer, ScratchServerError> {
    let mut room = Room::new(room::Wanted::default());
    room.watch("the scratch directory", scratch.path());
    let part = progress.part();
    let mut recovery = pin!(fetch_and_replay(
        repository, plan, scratch, binaries, &part, enter
    ));
    let low = tokio::select! {
        ended = &mut recovery => return ended,
        low = room.runs_out() => low,
    };
    part.cancel();
    match recovery.await {
        Err(ScratchServerError::Cancelled) if !progress.is_cancelled() => Err(low.into()),
        ended => ended,
    }
}

async fn fetch_and_replay(
    repository: &Repository,
    plan: &DatabasePlan,
    scratch: &Scratch,
    binaries: &PgBinaries,
    progress: &Progress,
    mut enter: impl FnMut(State) -> Result<(), ScratchServerError>,
) -> Result<ScratchServer, ScratchServerError> {
    let mut restore = plan.restore.clone();
    restore.request.to = scratch.data();
    enter(State::Fetching)?;
    match restore::execute(repository, &restore, progress).await {
        Err(RestoreError::Cancelled) => return Err(ScratchServerError::Cancelled),
        executed => executed?,
    }
    enter(State::Recovering)?;
    let database = plan.chosen.database;
    server::start(repository, &restore, scratch, binaries, database, progress).await
}
