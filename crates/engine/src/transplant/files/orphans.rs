//! Directories of databases that were being made when the server crashed.
//!
//! PostgreSQL removes what a `CREATE DATABASE` that fails has copied, but not what one has that a crash ended
//! (`createdb`, `src/backend/commands/dbcommands.c`): the directory stays, and no row speaks of it. For a
//! transplant that is a database's size. An operation gives its databases numbers of its own, so that theirs
//! are known.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use everpoint_pgformat::Oid;

use super::local::{self, LocalDirectory};
use crate::transplant::{MoveError, name::OperationId, server::Session};

const WHAT: &str = "look for remains of databases";

/// Removes directories of an operation's databases that are no databases. Does nothing for a server on another
/// machine, where none was made.
pub(in crate::transplant) async fn remove(
    session: &Session,
    operation: OperationId,
) -> Result<(), MoveError> {
    let Ok(directory) = local::find(session).await? else {
        return Ok(());
    };
    let numbers = [operation.hidden_number(), operation.vessel_number()];
    if numbers.iter().all(|oid| found(&directory, *oid).is_empty()) {
        return Ok(());
    }
    // Whoever makes or drops a database holds a lock that excludes this one, from before its directory changes
    // until its row is there, or gone, for all.
    session
        .run(
            WHAT,
            "BEGIN; LOCK TABLE pg_catalog.pg_database IN SHARE MODE",
        )
        .await?;
    let mut result = Ok(());
    for oid in numbers {
        let sql = "SELECT EXISTS (SELECT FROM pg_database WHERE oid = $1)";
        let lives: bool = session.value(WHAT, sql, &[&oid.get()]).await?;
        if !lives {
            result = result.and(remove_all(&found(&directory, oid)));
        }
    }
    session.run(WHAT, "COMMIT").await?;
    result
}

/// The directories that a database of this number has, in whatever tablespace.
fn found(directory: &LocalDirectory, database: Oid) -> Vec<PathBuf> {
    let own = directory.path.join(format!("base/{database}"));
    let tablespaces = fs::read_dir(directory.path.join("pg_tblspc"));
    let elsewhere = tablespaces.into_iter().flatten().flatten().map(|entry| {
        entry
            .path()
            .join(&directory.version_directory)
            .join(database.to_string())
    });
    elsewhere
        .chain([own])
        .filter(|path| path.is_dir())
        .collect()
}

fn remove_all(directories: &[PathBuf]) -> Result<(), MoveError> {
    for path in directories {
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(MoveError::file("remove", path)(error));
            }
            _ => tracing::info!(path = %shown(path), "removed what a crash left of a database"),
        }
    }
    Ok(())
}

fn shown(path: &Path) -> std::path::Display<'_> {
    path.display()
}
