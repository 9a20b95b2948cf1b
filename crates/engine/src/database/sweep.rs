//! What operations leave that died, or that could not clean up: a scratch server, its files, and on the server
//! that a database was being moved to a hidden database.
//!
//! The journals of the operation and of its move lie in the scratch directory, so it goes last. As long as the
//! move's journal is there, a hidden database may be.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use everpoint_instance::{ConnectionSpec, connect::SpecError};
use everpoint_repository::{Repository, RepositoryError};

use super::{
    journal::{Destination, Journal, Reach},
    scratch::{self, Scratch, ScratchError},
};
use crate::{
    instance_record::InstanceRecord,
    progress::Progress,
    transplant::{self, Control, Gate, MoveError, OpenSessions, Repaired},
};

/// A server notices only some time later that a session is gone, and with it its lock.
const LOCK_ATTEMPTS: u32 = 50;
const LOCK_POLL: Duration = Duration::from_millis(100);

/// What became of an operation that died.
#[derive(Debug)]
pub struct Swept {
    /// Its scratch directory.
    pub path: PathBuf,
    /// Its journal, if it had come so far.
    pub journal: Option<Journal>,
    /// What became of what it had made.
    pub end: End,
    /// Why its directory is still there though nothing hinders that it goes; the next sweep tries again.
    pub left: Option<ScratchError>,
}

/// How an operation that died was brought to an end.
#[derive(Debug)]
pub enum End {
    /// Its files and server are gone. It had made nothing elsewhere.
    Removed,
    /// What it had made on the server it moved a database to is gone as well.
    Undone,
    /// The database was complete, and is online under this name.
    Finished(String),
    /// Its move cannot be brought to an end now. Its journals are kept.
    Kept(SweepError),
}

/// A move that died cannot be brought to an end.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// Where it went is not known here.
    #[error("how the server is reached that it went to is not known")]
    Unknown,
    /// Where it went is not known any more.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// How it is reached cannot be read.
    #[error("the connection of instance `{instance}` cannot be read")]
    Connection {
        /// The instance.
        instance: String,
        /// Why.
        source: SpecError,
    },
    /// The server refuses.
    #[error(transparent)]
    Move(#[from] MoveError),
}

impl Destination {
    /// How its server is reached.
    ///
    /// # Errors
    /// When the repository does not know.
    pub async fn connection(&self, repository: &Repository) -> Result<ConnectionSpec, SweepError> {
        self.reach.connection(repository).await
    }
}

impl Reach {
    /// How the server is reached.
    ///
    /// # Errors
    /// When the repository does not know.
    pub async fn connection(&self, repository: &Repository) -> Result<ConnectionSpec, SweepError> {
        match self {
            Self::Connection(spec) => Ok(spec.as_ref().clone()),
            Self::Instance(instance) => {
                let (_, record) = repository.description::<InstanceRecord>(instance).await?;
                record
                    .connection
                    .parse()
                    .map_err(|source| SweepError::Connection {
                        instance: instance.to_string(),
                        source,
                    })
            }
        }
    }
}

/// Brings to an end whatever operations below `base` left that died: a database that was complete is registered,
/// anything less is removed from the server it went to; then their scratch servers and files are removed. Living
/// operations are let alone. `gate` gives who is asked before a database of this journal is registered.
///
/// # Errors
/// When what lies below `base` cannot be listed. A scratch server that does not stop, or files that cannot be removed,
/// are told in [`Swept::left`].
pub async fn sweep(
    repository: &Repository,
    base: &Path,
    gate: impl Fn(&Journal) -> Option<Gate>,
) -> Result<Vec<Swept>, ScratchError> {
    let mut all = Vec::new();
    for dead in scratch::abandoned(base)? {
        let path = dead.path().to_owned();
        let journal = dead.read_journal::<Journal>();
        let control = Control::new(Progress::default(), |_| {});
        let control = match journal.as_ref().and_then(&gate) {
            Some(gate) => control.with_gate(gate),
            None => control,
        };
        let end = match mend(repository, &dead, journal.as_ref(), &control).await {
            Ok(Repaired::Nothing) => match journal.as_ref().and_then(online) {
                Some(name) => End::Finished(name),
                None => End::Removed,
            },
            Ok(Repaired::Undone) => End::Undone,
            Ok(Repaired::Finished(name)) => End::Finished(name),
            Err(error) => End::Kept(error),
        };
        // One that cannot go must not keep what became of the others from being told.
        let left = put_away(dead).await.err();
        all.push(Swept {
            path,
            journal,
            end,
            left,
        });
    }
    Ok(all)
}

fn online(journal: &Journal) -> Option<String> {
    let database = journal.online_as().map(ToString::to_string);
    database.or_else(|| journal.tables_online_as().map(str::to_owned))
}

async fn mend(
    repository: &Repository,
    dead: &Scratch,
    journal: Option<&Journal>,
    control: &Control,
) -> Result<Repaired, SweepError> {
    let work = dead.move_directory();
    if !transplant::is_open(&work) {
        return Ok(Repaired::Nothing);
    }
    let destination = journal.and_then(|journal| journal.destination.as_ref());
    let tables = journal.and_then(|journal| journal.tables.as_ref());
    let (reach, sessions) = match (destination, tables) {
        (Some(destination), _) => (&destination.reach, destination.sessions),
        (None, Some(tables)) => (&tables.reach, OpenSessions::Refuse),
        (None, None) => return Err(SweepError::Unknown),
    };
    let target = reach.connection(repository).await?;
    let mut attempts = 0;
    loop {
        match transplant::repair(&target, &work, sessions, control).await {
            Err(MoveError::Lock(_)) if attempts < LOCK_ATTEMPTS => {
                attempts += 1;
                tokio::time::sleep(LOCK_POLL).await;
            }
            repaired => return Ok(repaired?),
        }
    }
}

/// Removes a scratch directory. Where a move has not come to an end its journals are kept, and the directory with
/// them, which is returned: [`sweep`] tries again.
///
/// # Errors
/// When its server does not stop, or something cannot be removed.
pub async fn put_away(scratch: Scratch) -> Result<Option<PathBuf>, ScratchError> {
    match transplant::is_open(&scratch.move_directory()) {
        false => scratch.remove().await.map(|()| None),
        true => {
            scratch.remove_server().await?;
            Ok(Some(scratch.path().to_owned()))
        }
    }
}
