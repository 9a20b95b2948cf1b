//! PostgreSQL servers as programs: where each version is installed.
//!
//! Looked for, in this order: `EVERPOINT_PG15_BIN` (and so on) names the directory of the programs;
//! `EVERPOINT_SERVERS`, if set, else the directories that `scripts/places.sh` names; Debian's
//! `/usr/lib/postgresql`.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use everpoint_pgformat::{MajorVersion, version::VERSIONS};
use tokio::process::Command;

use crate::Account;

/// An installed PostgreSQL of one major version.
#[derive(Clone, Debug)]
pub struct Server {
    version: MajorVersion,
    bin: PathBuf,
}

impl Server {
    /// The installed server of a major version.
    ///
    /// # Errors
    /// When it is not installed, or not supported.
    pub fn find(major: u16) -> Result<Self> {
        let version = MajorVersion::try_from(major)?;
        let places = places(major);
        let bin = places.iter().find(|bin| bin.join("postgres").exists());
        let bin = bin.with_context(|| {
            let places: Vec<_> = places.iter().map(|bin| bin.display().to_string()).collect();
            format!(
                "PostgreSQL {major} is not in {}. Run `make setup`",
                places.join(" or ")
            )
        })?;
        Ok(Self {
            version,
            bin: bin.clone(),
        })
    }

    /// The servers of every supported version, oldest first.
    ///
    /// # Errors
    /// When one of them is not installed.
    pub fn all() -> Result<Vec<Self>> {
        VERSIONS.iter().map(|row| Self::find(row.major)).collect()
    }

    /// The major version, such as 15.
    pub fn major(&self) -> u16 {
        self.version.get()
    }

    /// The major version.
    pub fn version(&self) -> MajorVersion {
        self.version
    }

    /// The directory of its programs.
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// One of its programs, such as `pg_dump`.
    ///
    /// # Errors
    /// When the installation lacks it.
    pub fn tool(&self, name: &str) -> Result<PathBuf> {
        let path = self.bin.join(name);
        if !path.exists() {
            bail!("{} is missing. Run `make setup`", path.display());
        }
        Ok(path)
    }

    /// A call of one of its programs by the user that servers run as, in a neutral environment.
    ///
    /// # Errors
    /// When the installation lacks the program, or there is no user to run it as.
    pub fn command(&self, name: &str) -> Result<Command> {
        let mut command = Command::new(self.tool(name)?);
        for (variable, _) in env::vars_os() {
            if variable.to_string_lossy().starts_with("PG") {
                command.env_remove(variable);
            }
        }
        command.env("LC_ALL", "C").env("TZ", "UTC").current_dir("/");
        command.kill_on_drop(true);
        Account::for_servers()?.run_as(&mut command);
        Ok(command)
    }

    /// Runs one of its programs to its end and returns what it printed.
    ///
    /// # Errors
    /// When it cannot be run or reports failure; what it printed is in the error.
    pub async fn run<S: AsRef<std::ffi::OsStr>>(
        &self,
        name: &str,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<String> {
        let mut command = self.command(name)?;
        command.args(arguments).stdin(std::process::Stdio::null());
        let output = command
            .output()
            .await
            .with_context(|| format!("could not run {name}"))?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let complaint = String::from_utf8_lossy(&output.stderr);
            bail!("{name} ended with {}:\n{complaint}{printed}", output.status);
        }
        Ok(printed)
    }
}

fn places(major: u16) -> Vec<PathBuf> {
    if let Some(bin) = env::var_os(format!("EVERPOINT_PG{major}_BIN")) {
        return vec![bin.into()];
    }
    let mut servers: Vec<PathBuf> = Vec::new();
    if let Some(named) = env::var_os("EVERPOINT_SERVERS") {
        servers.push(named.into());
    } else if rustix::process::geteuid().is_root() {
        servers.push("/var/cache/everpoint/servers".into());
    } else {
        let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = cache.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache")));
        servers.extend(cache.map(|cache| cache.join("everpoint/servers")));
    }
    servers.push("/usr/lib/postgresql".into());
    let bin = |servers: PathBuf| servers.join(major.to_string()).join("bin");
    servers.into_iter().map(bin).collect()
}
