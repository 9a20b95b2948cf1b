//! The program with a repository and a key file of its own.

use std::{
    ffi::OsStr,
    fs,
    hash::{DefaultHasher, Hasher},
    io,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result, ensure};
use everpoint_testkit::{Account, Cluster, Scratch};
use serde_json::Value;

use super::Running;

/// The program, and where it keeps what it has.
pub struct Everpoint {
    scratch: Scratch,
    program: PathBuf,
    account: Account,
    started: AtomicU32,
    /// The recovery key that `init` printed; empty before.
    pub recovery_key: String,
}

/// What a program that ended left.
#[derive(Debug)]
pub struct Finished {
    /// Its exit code; -1 after a signal.
    pub code: i32,
    /// Its results.
    pub stdout: String,
    /// What else it said.
    pub stderr: String,
}

impl Everpoint {
    /// With a new repository.
    pub fn new() -> Result<Self> {
        Self::without_repository()?.init()
    }

    /// With a new repository, and run by the user that servers run as, who can call it, too.
    pub fn of_server_user() -> Result<Self> {
        let mut everpoint = Self::without_repository()?;
        everpoint.account = Account::for_servers()?;
        everpoint.program = everpoint.path("everpoint");
        // By another process: one that another test starts meanwhile must not inherit the open file.
        let mut copy = Command::new("cp");
        copy.arg(env!("CARGO_BIN_EXE_everpoint"));
        ensure!(copy.arg(&everpoint.program).status()?.success());
        everpoint.init()
    }

    /// With an empty directory, nothing more.
    pub fn without_repository() -> Result<Self> {
        Ok(Self {
            scratch: Scratch::new()?,
            program: env!("CARGO_BIN_EXE_everpoint").into(),
            account: Account::Own,
            started: AtomicU32::new(0),
            recovery_key: String::new(),
        })
    }

    fn init(mut self) -> Result<Self> {
        let made = self.json(["init", "--generate-key-file"])?;
        self.recovery_key = made["recovery_key"].as_str().unwrap().to_owned();
        Ok(self)
    }

    /// A place in its directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// Its repository.
    pub fn repository(&self) -> PathBuf {
        self.path("repository")
    }

    /// Its key file.
    pub fn key_file(&self) -> PathBuf {
        self.path("key")
    }

    /// A call with repository and key file named by the environment.
    pub fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = self.bare_command(arguments);
        command.env("EVERPOINT_REPOSITORY", self.repository());
        command.env("EVERPOINT_KEY_FILE", self.key_file());
        command
    }

    /// A call that names nothing.
    pub fn bare_command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).stdin(Stdio::null());
        for (variable, _) in std::env::vars_os() {
            let name = variable.to_string_lossy();
            if name.starts_with("PG") || name.starts_with("EVERPOINT_") {
                command.env_remove(&variable);
            }
        }
        command.env("HOME", self.scratch.path());
        command.current_dir(self.scratch.path());
        let mut command = tokio::process::Command::from(command);
        self.account.run_as(&mut command);
        command.into_std()
    }

    /// Runs it to its end.
    pub fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Result<Finished> {
        Finished::of(self.command(arguments))
    }

    /// Runs it to its end, which must be a success.
    pub fn succeed<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<Finished> {
        Ok(self.run(arguments)?.expect(0))
    }

    /// Runs it with `--output json`; it must succeed. Returns what it printed.
    pub fn json<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Result<Value> {
        let mut command = self.command(arguments);
        command.args(["--output", "json"]);
        Finished::of(command)?.expect(0).json()
    }

    /// Starts it and lets it run.
    pub fn start<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<Running> {
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let name = format!("started-{number}");
        Running::start(self.command(arguments), self.scratch.path(), &name)
    }

    /// Adds a cluster as instance `main`.
    pub fn add(&self, cluster: &Cluster) -> Result<()> {
        self.add_by(&cluster.connection_string("postgres"))
    }

    /// Adds what a connection string leads to as instance `main`.
    pub fn add_by(&self, connection: &str) -> Result<()> {
        self.succeed(["instance", "add", "main", "--connection", connection])?;
        Ok(())
    }

    /// Takes a full backup of `main` and returns its row.
    pub fn back_up(&self) -> Result<Value> {
        self.json(["backup", "main"])
    }

    /// The backups of `main`.
    pub fn backup_ids(&self) -> Result<Vec<String>> {
        let rows = self.json(["backups", "main"])?;
        let id = |row: &Value| row["id"].as_str().unwrap().to_owned();
        Ok(rows.as_array().unwrap().iter().map(id).collect())
    }

    /// What can be restored of `main`.
    pub fn status(&self) -> Result<Value> {
        Ok(self.json(["status", "main"])?[0].take())
    }

    /// Looks at every byte stored; there must be no damage.
    pub fn verify(&self) -> Result<()> {
        self.succeed(["verify", "--full"]).map(drop)
    }

    /// The names of the objects below a folder of the repository, sorted.
    pub fn objects(&self, folder: &str) -> Result<Vec<String>> {
        let root = self.repository();
        let mut found = Vec::new();
        let mut folders = vec![root.join(folder)];
        while let Some(folder) = folders.pop() {
            let entries = match fs::read_dir(&folder) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error).context(folder.display().to_string()),
            };
            for entry in entries {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    folders.push(entry.path());
                } else {
                    let path = entry.path();
                    let name = path.strip_prefix(&root)?;
                    found.push(name.to_string_lossy().into_owned());
                }
            }
        }
        found.sort();
        Ok(found)
    }

    /// The whole repository: every object with a hash of its bytes.
    pub fn contents(&self) -> Result<Vec<(String, u64)>> {
        let objects = self.objects("")?.into_iter();
        objects
            .map(|name| {
                let mut hasher = DefaultHasher::new();
                hasher.write(&fs::read(self.repository().join(&name))?);
                Ok((name, hasher.finish()))
            })
            .collect()
    }
}

impl Finished {
    /// Runs a command to its end.
    pub fn of(mut command: Command) -> Result<Self> {
        let Output {
            status,
            stdout,
            stderr,
        } = command.output().context("could not run everpoint")?;
        Ok(Self {
            code: status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&stdout).into_owned(),
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
        })
    }

    pub(super) fn read(status: ExitStatus, stdout: &Path, stderr: &Path) -> io::Result<Self> {
        Ok(Self {
            code: status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&fs::read(stdout)?).into_owned(),
            stderr: String::from_utf8_lossy(&fs::read(stderr)?).into_owned(),
        })
    }

    /// Itself, if it ended with this code.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}{}", self.stdout, self.stderr);
        self
    }

    /// Its results as JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.stdout).with_context(|| format!("no JSON: {}", self.stdout))
    }

    /// Whether it said this.
    #[track_caller]
    pub fn says(&self, text: &str) -> &Self {
        assert!(
            self.stderr.contains(text) || self.stdout.contains(text),
            "`{text}` is not in: {}{}",
            self.stdout,
            self.stderr
        );
        self
    }
}
