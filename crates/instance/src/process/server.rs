//! A server process of our own.

use std::{
    fmt, fs, io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use everpoint_pgformat::control::ClusterState;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{process::Child, time::Instant};

use super::{
    account::Account,
    binaries::PgBinaries,
    cage,
    error::ProcessError,
    log,
    options::{OnDrop, RecoverySignal, StartOptions},
    stop::StopMode,
};
use crate::{
    connect::ConnectionSpec,
    data_directory::{PostmasterState, Running, control_file, running},
};

const FIRST_POLL: Duration = Duration::from_millis(10);
const SLOWEST_POLL: Duration = Duration::from_millis(250);

/// A running server that this process started.
#[derive(Debug)]
pub struct ServerProcess {
    child: Child,
    pid: Pid,
    root: PathBuf,
    cage: Option<PathBuf>,
    log: PathBuf,
    on_drop: OnDrop,
}

/// What a server is waited for to have done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Milestone {
    /// Takes connections: in recovery with `hot_standby` on, or after it.
    Ready,
    /// Ended its recovery, and takes connections.
    Promoted,
    /// Ended itself, as `recovery_target_action = shutdown` makes it.
    Exited,
}

/// Starts a server on a restored data directory, as the user that owns the directory. Returns as soon as
/// the process is there; [`ServerProcess::wait_until`] says when it is ready.
///
/// # Errors
/// See [`ProcessError`].
pub async fn start_for_recovery(
    binaries: &PgBinaries,
    root: &Path,
    options: &StartOptions,
) -> Result<ServerProcess, ProcessError> {
    let prepared = prepare_aside(binaries, root, options).await?;
    let root = root.to_owned();
    let mut command = binaries.command("postgres", prepared.account)?;
    command.arg("-D").arg(&root);
    for (name, value) in prepared.settings.iter().chain(&options.settings) {
        command.arg("-c").arg(format!("{name}={value}"));
    }
    // A group of its own: an interrupt typed at us is ours to hand on.
    command.process_group(0).stdin(Stdio::null());
    let log_again = prepared
        .log
        .try_clone()
        .map_err(|error| io_error("open", prepared.log_path.clone(), error))?;
    command.stdout(prepared.log).stderr(log_again);
    let program = binaries.directory().join("postgres");
    let child = command
        .spawn()
        .map_err(|error| io_error("run", program.clone(), error))?;
    let pid = child
        .id()
        .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?))
        .ok_or_else(|| io_error("run", program, io::ErrorKind::NotFound.into()))?;
    Ok(ServerProcess {
        child,
        pid,
        root,
        cage: options.cage.clone(),
        log: prepared.log_path,
        on_drop: options.on_drop,
    })
}

/// Everything that is done before the process is started.
pub(super) struct Prepared {
    pub(super) account: Account,
    pub(super) settings: Vec<(String, String)>,
    pub(super) log: fs::File,
    pub(super) log_path: PathBuf,
}

/// On a thread where it may block.
pub(super) async fn prepare_aside(
    binaries: &PgBinaries,
    root: &Path,
    options: &StartOptions,
) -> Result<Prepared, ProcessError> {
    let (at, options, version) = (root.to_owned(), options.clone(), binaries.version());
    let job = tokio::task::spawn_blocking(move || prepare(&at, &options, version));
    match job.await {
        Ok(prepared) => prepared,
        Err(error) => Err(io_error("prepare", root, io::Error::other(error))),
    }
}

fn prepare(
    root: &Path,
    options: &StartOptions,
    version: everpoint_pgformat::MajorVersion,
) -> Result<Prepared, ProcessError> {
    let account = Account::owner_of(root)?;
    let control = control_file(root)?;
    if control.version != version {
        return Err(ProcessError::OtherVersion {
            root: root.to_owned(),
            found: control.version,
            programs: version,
        });
    }
    if let Ok(Running::Yes(file)) = running(root) {
        return Err(ProcessError::AlreadyRunning {
            root: root.to_owned(),
            pid: file.pid,
        });
    }
    let settings = match &options.cage {
        Some(directory) => {
            cage::refuse_links_outside(root)?;
            cage::build(directory, root, &control.limits, account)?
        }
        None => Vec::new(),
    };
    write_signal(root, options.signal, account)?;
    let log_path = match (&options.log, &options.cage) {
        (Some(path), _) => path.clone(),
        (None, Some(cage)) => cage.join("server.log"),
        (None, None) => {
            let mut name = root.as_os_str().to_owned();
            name.push(".everpoint-start.log");
            PathBuf::from(name)
        }
    };
    let log = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&log_path)
        .map_err(|error| io_error("open", log_path.clone(), error))?;
    Ok(Prepared {
        account,
        settings,
        log,
        log_path,
    })
}

fn write_signal(root: &Path, signal: RecoverySignal, account: Account) -> Result<(), ProcessError> {
    let name = match signal {
        RecoverySignal::AsIs => return Ok(()),
        RecoverySignal::Recovery => "recovery.signal",
        RecoverySignal::Standby => "standby.signal",
    };
    let path = root.join(name);
    fs::write(&path, "")
        .and_then(|()| account.own(&path))
        .map_err(|error| io_error("write", path, error))
}

pub(super) fn io_error(
    what: &'static str,
    path: impl Into<PathBuf>,
    source: io::Error,
) -> ProcessError {
    ProcessError::Io {
        what,
        path: path.into(),
        source,
    }
}

impl ServerProcess {
    /// Its process number.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Its data directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The file with its messages.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The last lines of its messages. Blocks, shortly.
    pub fn log_tail(&self) -> String {
        log::tail(&self.log)
    }

    /// How to reach a caged server as `role`; `None` for others, whose configuration says it.
    pub fn connection(&self, role: &str) -> Option<ConnectionSpec> {
        let cage = self.cage.as_ref()?;
        ConnectionSpec::local(cage, cage::SOCKET_PORT, role).ok()
    }

    /// Waits for a milestone; without a `limit`, as long as it takes. May be dropped and called again.
    ///
    /// # Errors
    /// [`ProcessError::Exited`] when the server ends instead, [`ProcessError::TimedOut`], each with the end
    /// of its log.
    pub async fn wait_until(
        &mut self,
        milestone: Milestone,
        limit: Option<Duration>,
    ) -> Result<(), ProcessError> {
        let deadline = limit.map(|limit| (Instant::now() + limit, limit));
        let mut pause = FIRST_POLL;
        loop {
            // First the process, then the files: what it did before it ended counts.
            if let Some(status) = self.try_wait()? {
                let wanted = milestone == Milestone::Exited && status.success();
                return match wanted {
                    true => Ok(()),
                    false => Err(ProcessError::Exited {
                        root: self.root.clone(),
                        status,
                        milestone,
                        log_tail: self.log_tail(),
                    }),
                };
            }
            if self.has_reached(milestone).await {
                return Ok(());
            }
            if let Some((deadline, limit)) = deadline
                && Instant::now() >= deadline
            {
                return Err(ProcessError::TimedOut {
                    root: self.root.clone(),
                    limit,
                    milestone,
                    log_tail: self.log_tail(),
                });
            }
            // Ends at once when the process does.
            let _ = tokio::time::timeout(pause, self.child.wait()).await;
            pause = (pause * 2).min(SLOWEST_POLL);
        }
    }

    /// How the server ended; `None` while it runs.
    ///
    /// # Errors
    /// When the operating system does not say.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>, ProcessError> {
        self.child
            .try_wait()
            .map_err(|error| io_error("wait for the server on", self.root.clone(), error))
    }

    /// By `postmaster.pid` and the control file, which need neither a role nor a connection.
    async fn has_reached(&self, milestone: Milestone) -> bool {
        let (root, pid) = (self.root.clone(), self.pid());
        let look = move || {
            let ready = match running(&root) {
                Ok(Running::Yes(file)) => file.pid == pid && file.state == PostmasterState::Ready,
                _ => false,
            };
            match milestone {
                Milestone::Exited => false,
                Milestone::Ready => ready,
                // A server that is ready has put its own state into the control file, in place of what the
                // backup's said.
                Milestone::Promoted => {
                    ready
                        && control_file(&root)
                            .is_ok_and(|control| control.state == ClusterState::InProduction)
                }
            }
        };
        tokio::task::spawn_blocking(look).await.unwrap_or(false)
    }

    /// Ends recovery, as `pg_ctl promote` does.
    ///
    /// # Errors
    /// [`ProcessError::Io`].
    pub fn promote(&self) -> Result<(), ProcessError> {
        let path = self.root.join("promote");
        Account::owner_of(&self.root)
            .map_err(ProcessError::from)
            .and_then(|account| {
                fs::write(&path, "")
                    .and_then(|()| account.own(&path))
                    .map_err(|error| io_error("write", path.clone(), error))
            })?;
        self.signal(Signal::USR1)
    }

    /// Stops the server and waits until it is gone.
    ///
    /// # Errors
    /// [`ProcessError::TimedOut`] when it is not gone within `limit`; it may be stopped again, harder.
    pub async fn stop(
        &mut self,
        mode: StopMode,
        limit: Duration,
    ) -> Result<ExitStatus, ProcessError> {
        if let Some(status) = self.try_wait()? {
            return Ok(status);
        }
        self.signal(mode.signal())?;
        match tokio::time::timeout(limit, self.child.wait()).await {
            Ok(status) => {
                status.map_err(|error| io_error("wait for the server on", self.root.clone(), error))
            }
            Err(_) => Err(ProcessError::TimedOut {
                root: self.root.clone(),
                limit,
                milestone: Milestone::Exited,
                log_tail: self.log_tail(),
            }),
        }
    }

    fn signal(&self, signal: Signal) -> Result<(), ProcessError> {
        kill_process(self.pid, signal)
            .map_err(|error| io_error("signal the server on", self.root.clone(), error.into()))
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        if self.on_drop == OnDrop::StopImmediately && matches!(self.child.try_wait(), Ok(None)) {
            // The runtime collects it when it is gone.
            let _ = self.signal(Signal::QUIT);
        }
    }
}

impl fmt::Display for Milestone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ready => "taken connections",
            Self::Promoted => "ended its recovery",
            Self::Exited => "ended in good order",
        })
    }
}
