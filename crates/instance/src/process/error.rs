//! What goes wrong with server processes.

use std::{io, path::PathBuf, process::ExitStatus, time::Duration};

use super::{account::AccountError, binaries::BinariesError, cage::CageError, server::Milestone};
use crate::data_directory::ReadControlError;

/// A server cannot be started, waited for or stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessError {
    /// No programs.
    #[error(transparent)]
    Binaries(#[from] BinariesError),
    /// No user to run it as.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// No cage.
    #[error(transparent)]
    Cage(#[from] CageError),
    /// No data directory to start on.
    #[error(transparent)]
    Control(#[from] ReadControlError),
    /// The programs are of another version than the data directory.
    #[error(
        "`{root}` is of PostgreSQL {found}, and the programs are of {programs}. Use those of {found}"
    )]
    OtherVersion {
        /// The data directory.
        root: PathBuf,
        /// Its version.
        found: everpoint_pgformat::MajorVersion,
        /// The programs' version.
        programs: everpoint_pgformat::MajorVersion,
    },
    /// A server is there.
    #[error(
        "a server runs on `{root}` already (process {pid}). Stop it first: pg_ctl stop -D {root}"
    )]
    AlreadyRunning {
        /// The data directory.
        root: PathBuf,
        /// Its process.
        pid: i32,
    },
    /// A file or the process itself.
    #[error("could not {what} `{path}`")]
    Io {
        /// What was to be done.
        what: &'static str,
        /// To what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It ended while it was waited for.
    #[error(
        "the server on `{root}` ended ({status}) and had not {milestone}. The end of its log says why:\n{log_tail}"
    )]
    Exited {
        /// The data directory.
        root: PathBuf,
        /// How it ended.
        status: ExitStatus,
        /// What was waited for.
        milestone: Milestone,
        /// The end of its log.
        log_tail: String,
    },
    /// Single-user mode does not get in.
    #[error(
        "single-user mode on `{root}` ended ({status}). The end of its log says why:\n{log_tail}"
    )]
    SingleUser {
        /// The data directory.
        root: PathBuf,
        /// How it ended.
        status: ExitStatus,
        /// The end of its log.
        log_tail: String,
    },
    /// It takes too long.
    #[error(
        "the server on `{root}` had not {milestone} after {limit:?}. The end of its log:\n{log_tail}"
    )]
    TimedOut {
        /// The data directory.
        root: PathBuf,
        /// How long was waited.
        limit: Duration,
        /// What was waited for.
        milestone: Milestone,
        /// The end of its log.
        log_tail: String,
    },
}
