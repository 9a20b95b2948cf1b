//! Why a move did not succeed.

use std::{io, path::PathBuf};

use everpoint_instance::{
    ConnectError, LockError,
    connect::ServerMessage,
    process::{BinariesError, ProcessError},
};

use super::refusal::Refusals;
use crate::room::RoomError;

/// A move did not succeed. Unless it says otherwise, the server is as it was before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MoveError {
    /// Something speaks against it. Nothing was begun.
    #[error(transparent)]
    Refused(#[from] Refusals),
    /// No session.
    #[error("no session with the {side} server")]
    Connect {
        /// Which server.
        side: Side,
        /// Why.
        source: ConnectError,
    },
    /// A statement failed.
    #[error("the {side} server failed to {what}")]
    Statement {
        /// Which server.
        side: Side,
        /// What was asked for.
        what: String,
        /// What the server said.
        #[source]
        message: ServerMessage,
    },
    /// A session broke.
    #[error(
        "the session with the {side} server broke while it was to {what}. The server's log says why"
    )]
    Lost {
        /// Which server.
        side: Side,
        /// What was asked for.
        what: String,
        /// Why.
        source: tokio_postgres::Error,
    },
    /// A program of PostgreSQL's is missing.
    #[error(transparent)]
    Binaries(#[from] BinariesError),
    /// The source does not stop.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A program of PostgreSQL's failed.
    #[error("{program} failed: {said}")]
    Program {
        /// Its name.
        program: &'static str,
        /// What it said last.
        said: String,
    },
    /// A program cannot be run.
    #[error("{program} cannot be run")]
    Run {
        /// Its name.
        program: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A file of ours.
    #[error("cannot {what} `{}`", path.display())]
    File {
        /// What was to be done.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What arrived is not what was sent.
    #[error(
        "{what}: {expected} in the source and {found} in the target. The target was not registered"
    )]
    Differs {
        /// What was compared.
        what: String,
        /// What the source has.
        expected: String,
        /// What the target has.
        found: String,
    },
    /// Somebody runs the same operation.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A database or a table of this name has come to be since the plan was made.
    #[error(
        "the name `{name}` was taken while the restore went on. Give another one, or try again"
    )]
    NameTaken {
        /// The name.
        name: String,
    },
    /// The living database does not become free.
    #[error(
        "`{database}` cannot be replaced while it is in use by {users}. End these sessions, or let them be ended: --end-sessions"
    )]
    InUse {
        /// The database.
        database: String,
        /// Who uses it.
        users: String,
    },
    /// The target's disk fills up.
    #[error(transparent)]
    NoRoomLeft(#[from] RoomError),
    /// Whoever asked for it could not be asked whether it still is to be registered.
    #[error("the database was complete, and could not be registered")]
    Gate(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The operator gave up.
    #[error("cancelled. Nothing was left on the server")]
    Cancelled,
    /// It failed, and what it made could not be removed.
    #[error(
        "{error}. Besides, `{left}` could not be removed and is left on the server; the next start removes it"
    )]
    Left {
        /// Why it failed.
        error: Box<MoveError>,
        /// What is left.
        left: String,
        /// Why it is left.
        source: Box<MoveError>,
    },
    /// The journal is not ours, or broken.
    #[error("the journal `{}` cannot be read. Look at it; `everpoint_restoring_*` databases are what it is about", path.display())]
    Journal {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}

/// Which of two servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Where the database comes from.
    Source,
    /// Where it goes.
    Target,
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Source => "source",
            Self::Target => "target",
        })
    }
}

impl Side {
    /// For `map_err`: says what was being done.
    pub(super) fn failed(
        self,
        what: impl Into<String>,
    ) -> impl FnOnce(tokio_postgres::Error) -> MoveError {
        let what = what.into();
        move |error| match error.as_db_error() {
            // The server says goodbye: the session is over, not the statement wrong.
            Some(message) if !message.code().code().starts_with("57P") => MoveError::Statement {
                side: self,
                what,
                message: message.into(),
            },
            _ => MoveError::Lost {
                side: self,
                what,
                source: error,
            },
        }
    }
}

impl MoveError {
    /// SQLSTATE, when a server refused.
    pub(super) fn code(&self) -> Option<&str> {
        match self {
            Self::Statement { message, .. } => Some(message.code()),
            _ => None,
        }
    }

    pub(super) fn file(
        what: &'static str,
        path: &std::path::Path,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { what, path, source }
    }
}
