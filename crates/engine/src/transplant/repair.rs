//! What a crash left: found, and finished or removed.

use everpoint_instance::{ConnectionSpec, InstanceLock, LockError, lock::LockKind};
use std::path::Path;

use super::{
    Control, MoveError, OpenSessions, Side, create,
    journal::{self, Record},
    name::OperationId,
    register::{self, Standing},
    run,
    server::Server,
    table::repair as table,
};

/// What a repair did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repaired {
    /// There was no journal: nothing had been begun, or all had been done.
    Nothing,
    /// What had been made was removed.
    Undone,
    /// The database is online under this name.
    Finished(String),
}

/// A hidden database that no running operation claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// Its operation.
    pub operation: OperationId,
    /// The database.
    pub database: String,
}

/// Brings a move that was interrupted to an end, by its journal in `work_directory`: a database that was complete is
/// given its name, anything less is removed, and so is one whose name somebody else has taken, or that `control`'s gate
/// does not let have it.
///
/// # Errors
/// When the server cannot be reached or refuses, or somebody uses the database that is to be replaced: the journal
/// stays, and it can be tried again. [`MoveError::Lock`] when the move is not dead.
pub async fn repair(
    target: &ConnectionSpec,
    work_directory: &Path,
    sessions: OpenSessions,
    control: &Control,
) -> Result<Repaired, MoveError> {
    let path = run::journal_path(work_directory);
    let Some(record) = journal::read(&path)? else {
        return Ok(Repaired::Nothing);
    };
    let (operation, registration) = match record {
        Record::Filling { operation } => (operation, None),
        Record::Registering { registration } => (registration.operation, Some(registration)),
        Record::FillingTables {
            operation,
            database,
        } => return table::undo(target, &path, operation, &database).await,
        Record::RegisteringTables { registration } => {
            return table::finish(target, &path, &registration).await;
        }
    };
    let mut target = target.clone();
    if registration
        .as_ref()
        .is_some_and(|found| found.name == target.database())
    {
        target = target.with_database("postgres");
    }
    let server = Server::new(Side::Target, &target);
    let session = server.connect_any().await?;
    let lock =
        InstanceLock::try_acquire(session.client, LockKind::Move, &operation.to_string()).await?;
    let repaired = match registration {
        None => {
            create::remove(&server, operation).await?;
            Repaired::Undone
        }
        Some(registration) => {
            let session = server.connect_any().await?;
            let registered = match register::standing(&session, &registration).await? {
                Standing::Registered => true,
                Standing::Gone => false,
                Standing::Hidden => {
                    let database = match registration.database {
                        Some(database) => database,
                        None => register::hidden_oid(&session, &registration.hidden).await?,
                    };
                    let registered = async {
                        control.may_register(database).await?;
                        register::register(&server, &registration, sessions, control).await
                    };
                    match registered.await {
                        Ok(_) => true,
                        // Nobody wants it any more.
                        Err(MoveError::Cancelled) => false,
                        // The name is somebody else's by now, and no later attempt would get it.
                        Err(MoveError::NameTaken { name }) => {
                            tracing::warn!("`{name}` was taken meanwhile: the restore is undone");
                            false
                        }
                        Err(error) => return Err(error),
                    }
                }
            };
            match registered {
                true => {
                    create::remove_vessel(&server, operation).await?;
                    Repaired::Finished(registration.name)
                }
                false => {
                    // What is half removed must not be taken for complete.
                    journal::write(&path, &Record::Filling { operation })?;
                    create::remove(&server, operation).await?;
                    Repaired::Undone
                }
            }
        }
    };
    journal::remove(&path)?;
    lock.give_up().await;
    Ok(repaired)
}

/// Hidden databases on a server that no running operation claims, also those whose journal is lost.
///
/// # Errors
/// When the server cannot be asked.
pub async fn leftovers(target: &ConnectionSpec) -> Result<Vec<Leftover>, MoveError> {
    let server = Server::new(Side::Target, target);
    let session = server.connect_any().await?;
    let names: Vec<String> = session
        .column(
            "look for hidden databases",
            "SELECT datname::text FROM pg_database WHERE datname LIKE 'everpoint\\_restoring\\_%'",
            &[],
        )
        .await?;
    let mut found = Vec::new();
    for database in names {
        let Some(operation) = OperationId::of_hidden(&database) else {
            continue;
        };
        let session = server.connect_any().await?;
        match InstanceLock::try_acquire(session.client, LockKind::Move, &operation.to_string())
            .await
        {
            Ok(lock) => {
                lock.give_up().await;
                found.push(Leftover {
                    operation,
                    database,
                });
            }
            // It is at work.
            Err(LockError::Held { .. } | LockError::Contended { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(found)
}

/// Removes what an operation without a journal left.
///
/// # Errors
/// When the server refuses; [`MoveError::Lock`] when the operation runs.
pub async fn remove_leftover(
    target: &ConnectionSpec,
    leftover: &Leftover,
) -> Result<(), MoveError> {
    let server = Server::new(Side::Target, target);
    let session = server.connect_any().await?;
    let name = leftover.operation.to_string();
    let lock = InstanceLock::try_acquire(session.client, LockKind::Move, &name).await?;
    let removed = create::remove(&server, leftover.operation).await;
    lock.give_up().await;
    removed
}
