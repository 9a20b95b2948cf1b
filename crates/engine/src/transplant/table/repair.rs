//! What a crash left of a move of tables: finished or removed.

use std::path::Path;

use everpoint_instance::{ConnectionSpec, LockError};

use super::{
    hidden,
    register::{self, TableRegistration},
    target,
};
use crate::transplant::{
    Repaired,
    error::{MoveError, Side},
    journal,
    name::OperationId,
    run::take_lock,
    server::Server,
};

/// Removes what was filled.
pub(in crate::transplant) async fn undo(
    target: &ConnectionSpec,
    journal: &Path,
    operation: OperationId,
    database: &str,
) -> Result<Repaired, MoveError> {
    let server = Server::new(Side::Target, target);
    let lock = take_lock(&server, operation).await?;
    hidden::remove(&server, database, operation).await?;
    journal::remove(journal)?;
    lock.give_up().await;
    Ok(Repaired::Undone)
}

/// Gives complete tables their names, and looks at their foreign keys.
pub(in crate::transplant) async fn finish(
    target: &ConnectionSpec,
    journal: &Path,
    registration: &TableRegistration,
) -> Result<Repaired, MoveError> {
    let server = Server::new(Side::Target, target);
    let lock = take_lock(&server, registration.operation).await?;
    let session = server.connect(&registration.database).await?;
    let version = crate::transplant::source::version(&session).await?;
    let server = server.undisturbed(version).replaying();
    let lost = match register::is_done(&session, registration).await? {
        true => register::validate(&server, registration).await?,
        false => register::register(&server, registration).await?,
    };
    for lost in lost {
        tracing::warn!("the server did not take {lost}");
    }
    journal::remove(journal)?;
    lock.give_up().await;
    Ok(Repaired::Finished(registration.names()))
}

/// Removes hidden schemas of a database whose operation does not run and has no journal here. Returns their names.
///
/// # Errors
/// When the server refuses.
pub async fn clear(target: &ConnectionSpec, database: &str) -> Result<Vec<String>, MoveError> {
    let server = Server::new(Side::Target, target);
    let Some(session) = target::connect(&server, database).await? else {
        return Ok(Vec::new());
    };
    let mut removed = Vec::new();
    for schema in hidden::all(&session).await? {
        let Some(operation) = OperationId::of_hidden(&schema) else {
            continue;
        };
        let lock = match take_lock(&server, operation).await {
            Ok(lock) => lock,
            // It is at work.
            Err(MoveError::Lock(LockError::Held { .. } | LockError::Contended { .. })) => continue,
            Err(error) => return Err(error),
        };
        let gone = hidden::remove(&server, database, operation).await;
        lock.give_up().await;
        gone?;
        removed.push(schema);
    }
    Ok(removed)
}
