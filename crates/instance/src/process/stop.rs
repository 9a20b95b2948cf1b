//! Stopping servers, ours and others'.

use std::{path::Path, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

use super::{
    error::ProcessError,
    server::{Milestone, io_error},
};
use crate::data_directory::{Running, running};

const POLL: Duration = Duration::from_millis(50);

/// How a server is to be stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopMode {
    /// When the last client is gone.
    Smart,
    /// Now, in good order: clients are disconnected.
    Fast,
    /// Now, as if it had crashed.
    Immediate,
}

impl StopMode {
    pub(super) const fn signal(self) -> Signal {
        match self {
            Self::Smart => Signal::TERM,
            Self::Fast => Signal::INT,
            Self::Immediate => Signal::QUIT,
        }
    }
}

/// Stops whatever server runs on a data directory, be it one that an earlier process of ours left behind,
/// and waits until it is gone. `false` when none runs.
///
/// # Errors
/// [`ProcessError::TimedOut`], [`ProcessError::Io`].
pub async fn stop_running(
    root: &Path,
    mode: StopMode,
    limit: Duration,
) -> Result<bool, ProcessError> {
    let look = || running(root).map_err(|error| io_error("look at the server on", root, error));
    let Running::Yes(file) = look()? else {
        return Ok(false);
    };
    let deadline = Instant::now() + limit;
    if let Some(pid) = Pid::from_raw(file.pid) {
        kill_process(pid, mode.signal())
            .map_err(|error| io_error("signal the server on", root, error.into()))?;
    }
    while matches!(look()?, Running::Yes(now) if now.pid == file.pid) {
        if Instant::now() >= deadline {
            return Err(ProcessError::TimedOut {
                root: root.to_owned(),
                limit,
                milestone: Milestone::Exited,
                log_tail: String::new(),
            });
        }
        sleep(POLL).await;
    }
    Ok(true)
}
