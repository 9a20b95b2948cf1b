//! A PostgreSQL cluster of a test's own, from `initdb` to its removal.
//!
//! The server is a child of the test, found and stopped by its handle alone. It listens on a socket in a
//! directory of its own, so that clusters never meet, and trusts whoever reaches it.

mod access;
mod adopt;
mod builder;
mod clock;
mod process;
mod sql;
mod standby;
mod template;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use clock::Clock;
use process::Process;
pub use {builder::ClusterBuilder, process::StopMode};

use crate::{Scratch, Server};

/// The superuser of every cluster.
pub const SUPERUSER: &str = "postgres";
/// The port of a cluster that listens on a socket only: it names the socket.
const SOCKET_PORT: u16 = 5432;

/// A cluster, running unless stopped. Dropping it stops the server at once and removes its files, except a
/// data directory that was [adopted](Cluster::adopt).
#[derive(Debug)]
pub struct Cluster {
    // Dropped before the directory that the server runs in.
    process: Option<Process>,
    server: Server,
    data: PathBuf,
    listen: Listen,
    clock: Option<Clock>,
    scratch: Scratch,
}

#[derive(Clone, Copy, Debug)]
enum Listen {
    Socket,
    Loopback { port: u16 },
}

impl Cluster {
    /// A new cluster of a major version, still to be configured.
    pub fn builder(major: u16) -> ClusterBuilder {
        ClusterBuilder::new(major)
    }

    /// The programs that run it.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// The major version.
    pub fn major(&self) -> u16 {
        self.server.major()
    }

    /// The data directory. Belongs to the server's user.
    pub fn data_directory(&self) -> &Path {
        &self.data
    }

    /// The directory of its socket: a `host` for libpq and tokio-postgres.
    pub fn socket_dir(&self) -> &Path {
        self.scratch.path()
    }

    /// The port: that of TCP, if it listens there, and part of the socket's name.
    pub fn port(&self) -> u16 {
        match self.listen {
            Listen::Socket => SOCKET_PORT,
            Listen::Loopback { port } => port,
        }
    }

    /// Where a tablespace asked of the builder keeps its files.
    pub fn tablespace_directory(&self, name: &str) -> PathBuf {
        self.scratch.path().join(format!("tablespace-{name}"))
    }

    /// Whether the server process is there, ready or not.
    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(Process::is_alive)
    }

    /// The process number of the running server.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// Starts the server and waits until it takes connections. Does nothing if it runs already.
    ///
    /// # Errors
    /// When the server gives up, with the end of its log; or is not ready after two minutes.
    pub async fn start(&mut self) -> Result<()> {
        if self.is_running() {
            return Ok(());
        }
        let mut process = Process::spawn(
            &self.server,
            &self.data,
            &self.arguments(),
            self.clock.as_ref(),
            &self.log_path(),
        )?;
        process.wait_until_ready(&self.data).await?;
        self.process = Some(process);
        Ok(())
    }

    /// Stops the server and waits until it is gone. Does nothing if it is not running.
    ///
    /// # Errors
    /// When it is not gone after two minutes; it is then killed when dropped.
    pub async fn stop(&mut self, mode: StopMode) -> Result<()> {
        if let Some(process) = &mut self.process {
            process.stop(mode).await?;
            self.process = None;
        }
        Ok(())
    }

    /// Stops the server in good order and starts it again.
    ///
    /// # Errors
    /// As for [`Cluster::stop`] and [`Cluster::start`].
    pub async fn restart(&mut self) -> Result<()> {
        self.stop(StopMode::Fast).await?;
        self.start().await
    }

    /// Adds a line to `postgresql.conf`. Takes effect when the server is restarted or reloaded.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn configure(&self, line: &str) -> Result<()> {
        let path = self.data.join("postgresql.conf");
        let mut text = fs::read_to_string(&path).context("could not read postgresql.conf")?;
        text.push_str(line);
        text.push('\n');
        fs::write(&path, text).context("could not write postgresql.conf")
    }

    /// The server's log since the cluster was made.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn log(&self) -> Result<String> {
        let bytes = fs::read(self.log_path()).context("could not read the server's log")?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn log_path(&self) -> PathBuf {
        self.scratch.path().join("server.log")
    }

    /// Settings that hold whatever the configuration files say, so that an adopted directory cannot reach
    /// for its origin's port, socket or log.
    fn arguments(&self) -> Vec<String> {
        let addresses = match self.listen {
            Listen::Socket => "",
            Listen::Loopback { .. } => "127.0.0.1",
        };
        let settings = [
            format!("listen_addresses={addresses}"),
            format!("port={}", self.port()),
            format!("unix_socket_directories={}", self.socket_dir().display()),
            "unix_socket_permissions=0777".to_owned(),
            "logging_collector=off".to_owned(),
            "log_destination=stderr".to_owned(),
            "log_line_prefix=%m [%p] %d ".to_owned(),
        ];
        let arguments = settings.into_iter();
        arguments.flat_map(|s| ["-c".to_owned(), s]).collect()
    }
}
