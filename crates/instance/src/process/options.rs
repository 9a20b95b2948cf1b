//! How a server is to be started.

use std::path::PathBuf;

/// What a starting server finds in its data directory, and therefore does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecoverySignal {
    /// Whatever is there already.
    AsIs,
    /// `recovery.signal`: it fetches WAL until its target, then does `recovery_target_action`.
    Recovery,
    /// `standby.signal`: it follows until it is promoted.
    Standby,
}

/// What becomes of a server when its handle is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDrop {
    /// It is stopped at once, without a checkpoint.
    StopImmediately,
    /// It goes on.
    LeaveRunning,
}

/// How a server is to be started.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct StartOptions {
    pub(super) cage: Option<PathBuf>,
    pub(super) settings: Vec<(String, String)>,
    pub(super) signal: RecoverySignal,
    pub(super) log: Option<PathBuf>,
    pub(super) on_drop: OnDrop,
}

impl StartOptions {
    /// A server as its own configuration files say. It is left running when its handle is dropped.
    pub fn as_configured() -> Self {
        Self {
            cage: None,
            settings: Vec::new(),
            signal: RecoverySignal::AsIs,
            log: None,
            on_drop: OnDrop::LeaveRunning,
        }
    }

    /// A scratch server that can touch and reach nothing outside its data directory and `directory`, which
    /// is made, private to the server's user, for its socket, configuration and log. None of the source's
    /// configuration is read, and `postgresql.auto.conf` is emptied. It is stopped when its handle is dropped. What it writes is not synced to disk.
    ///
    /// With `hot_standby` off, which is its default here, a raised `max_connections` in the WAL cannot
    /// pause it; nobody can connect before recovery ends.
    pub fn caged(directory: impl Into<PathBuf>) -> Self {
        Self {
            cage: Some(directory.into()),
            settings: Vec::new(),
            signal: RecoverySignal::AsIs,
            log: None,
            on_drop: OnDrop::StopImmediately,
        }
    }

    /// Sets a setting, whatever configuration files, the cage or an earlier call say.
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// What the server finds in its data directory.
    pub fn recovery_signal(mut self, signal: RecoverySignal) -> Self {
        self.signal = signal;
        self
    }

    /// The file that the server's messages are added to. Without one: `server.log` in the cage, else
    /// `everpoint-start.log` beside the data directory.
    pub fn log(mut self, path: impl Into<PathBuf>) -> Self {
        self.log = Some(path.into());
        self
    }

    /// What becomes of the server when its handle is dropped.
    pub fn on_drop(mut self, on_drop: OnDrop) -> Self {
        self.on_drop = on_drop;
        self
    }
}
