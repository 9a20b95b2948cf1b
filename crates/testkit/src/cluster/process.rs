//! The server process: started, awaited, stopped by its own handle.

use std::{
    fs::{self, OpenOptions},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::clock::Clock;
use crate::Server;

/// How long a server may take to start or stop. Far more than it needs on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long a server that is dropped may take to go in its own way.
const LAST_PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(15);
/// Lines of the log that an error shows.
const LOG_TAIL_LINES: usize = 25;

/// How a server is told to stop (`pg_ctl stop -m`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopMode {
    /// Waits for its clients to leave.
    Smart,
    /// Sends its clients away, writes a checkpoint.
    Fast,
    /// At once, as in a crash: the next start recovers.
    Immediate,
}

impl StopMode {
    fn signal(self) -> Signal {
        match self {
            Self::Smart => Signal::TERM,
            Self::Fast => Signal::INT,
            Self::Immediate => Signal::QUIT,
        }
    }
}

/// A running server. Dropping it stops it.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    pub(super) fn spawn(
        server: &Server,
        data: &Path,
        arguments: &[String],
        clock: Option<&Clock>,
        log: &Path,
    ) -> Result<Self> {
        let out = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("could not open {}", log.display()))?;
        let mut command = server.command("postgres")?.into_std();
        command.arg("-D").arg(data).args(arguments);
        if let Some(clock) = clock {
            command.envs(clock.environment());
        }
        command.stdin(Stdio::null());
        command.stdout(out.try_clone()?).stderr(out);
        let child = command.spawn().context("could not start postgres")?;
        Ok(Self {
            child,
            log: log.to_owned(),
        })
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until the server's status file says that it takes connections (`PM_STATUS_READY` in
    /// `src/include/utils/pidfile.h`), which a standby does once it is consistent.
    pub(super) async fn wait_until_ready(&mut self, data: &Path) -> Result<()> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended with {status}{}", self.log_tail());
            }
            if self.is_ready(data) {
                return Ok(());
            }
            if started.elapsed() > PATIENCE {
                bail!(
                    "the server is not ready after {PATIENCE:?}{}",
                    self.log_tail()
                );
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn is_ready(&self, data: &Path) -> bool {
        // An adopted directory may hold its origin's file: it counts only if it names this process.
        let text = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        lines.first() == Some(&self.id().to_string().as_str()) && lines.get(7) == Some(&"ready")
    }

    pub(super) async fn stop(&mut self, mode: StopMode) -> Result<()> {
        let started = Instant::now();
        self.signal(mode.signal())?;
        while self.child.try_wait()?.is_none() {
            if started.elapsed() > PATIENCE {
                bail!(
                    "the server has not stopped after {PATIENCE:?}{}",
                    self.log_tail()
                );
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    fn signal(&mut self, signal: Signal) -> Result<()> {
        // A child that has been waited for is gone, and its number may be another's.
        if self.is_alive() {
            kill_process(Pid::from_child(&self.child), signal)
                .context("could not signal the server")?;
        }
        Ok(())
    }

    fn log_tail(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        let tail = &lines[lines.len().saturating_sub(LOG_TAIL_LINES)..];
        format!(". The end of its log:\n{}", tail.join("\n"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let started = Instant::now();
        let _ = self.signal(StopMode::Immediate.signal());
        while self.is_alive() && started.elapsed() < LAST_PATIENCE {
            std::thread::sleep(POLL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
