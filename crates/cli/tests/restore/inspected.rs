//! `everpoint restore database --inspect`: the scratch server it leaves running, and what becomes of it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, Result, bail, ensure};
use everpoint_testkit::compare::{DatabaseContent, fingerprint_database};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStderr, ChildStdout, Command},
};
use tokio_postgres::{Client, NoTls};

use crate::everpoint::{Ended, Everpoint};

/// A database that was recovered in a scratch server, which runs as long as the command does.
pub struct Inspected {
    child: Child,
    /// How it is reached.
    pub connection: String,
    base: PathBuf,
}

/// A restore of a database under way.
pub struct Inspecting {
    child: Child,
    out: Lines<BufReader<ChildStdout>>,
    err: Lines<BufReader<ChildStderr>>,
    base: PathBuf,
}

impl Everpoint {
    /// Below where scratch servers live.
    pub fn scratch_base(&self) -> PathBuf {
        self.place().join("scratch")
    }

    /// Recovers a database and leaves it in its scratch server.
    pub async fn inspect(&self, arguments: &[&str]) -> Result<Inspected> {
        self.begin_inspecting(arguments)?.until_connected().await
    }

    /// Begins to recover a database.
    pub fn begin_inspecting(&self, arguments: &[&str]) -> Result<Inspecting> {
        self.begin(self.command(&self.inspect_arguments(arguments)?))
    }

    /// Begins to restore a database into a server.
    pub fn begin_putting_back(&self, arguments: &[&str]) -> Result<Inspecting> {
        let base = self.scratch_base().display().to_string();
        let mut all = vec!["restore", "database", "--scratch", &base];
        all.extend(arguments);
        self.begin(self.command(&all))
    }

    pub fn begin(&self, mut command: Command) -> Result<Inspecting> {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let out = child.stdout.take().context("its output")?;
        let err = child.stderr.take().context("its messages")?;
        Ok(Inspecting {
            child,
            out: BufReader::new(out).lines(),
            err: BufReader::new(err).lines(),
            base: self.scratch_base(),
        })
    }

    /// A restore of a database that ends by itself.
    pub async fn try_inspect(&self, arguments: &[&str]) -> Result<Ended> {
        self.run(&self.inspect_arguments(arguments)?).await
    }

    /// The arguments of a restore that leaves a database in its scratch server.
    pub fn inspect_arguments(&self, arguments: &[&str]) -> Result<Vec<String>> {
        let base = self.scratch_base();
        let base = base.to_str().context("a path in UTF-8")?;
        let mut all = vec!["restore", "database", "--inspect", "--scratch", base];
        all.extend(arguments);
        Ok(all.into_iter().map(str::to_owned).collect())
    }

    /// What is below the scratch directory: nothing, when everything was cleaned up.
    pub fn left_in_scratch(&self) -> Result<Vec<PathBuf>> {
        left(&self.scratch_base())
    }
}

fn left(base: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(base)?.map(|entry| Ok(entry?.path()));
    let paths: Result<Vec<PathBuf>> = entries.collect();
    Ok(paths?.into_iter().filter(|path| path.is_dir()).collect())
}

impl Inspecting {
    /// Waits until it says that a state has begun.
    pub async fn until(&mut self, state: &str) -> Result<()> {
        while let Some(line) = self.err.next_line().await? {
            // What is said of one that was killed ends with a state, too.
            if line.trim_end().ends_with(&format!(" s  {state}")) {
                return Ok(());
            }
        }
        bail!("it ended before {state}");
    }

    /// Waits until it says something, and gives the line.
    pub async fn until_said(&mut self, part: &str) -> Result<String> {
        while let Some(line) = self.err.next_line().await? {
            if line.contains(part) {
                return Ok(line);
            }
        }
        bail!("it ended without saying {part}");
    }

    /// Waits until it says how the scratch server is reached.
    pub async fn until_connected(mut self) -> Result<Inspected> {
        let said = tokio::spawn(async move {
            let mut said = String::new();
            while let Ok(Some(line)) = self.err.next_line().await {
                said.push_str(&line);
                said.push('\n');
            }
            said
        });
        while let Some(line) = self.out.next_line().await? {
            if line.contains("host=") {
                return Ok(Inspected {
                    child: self.child,
                    connection: line,
                    base: self.base,
                });
            }
        }
        bail!("it ended instead: {}", said.await?);
    }

    /// Ends it at once, as if the machine had ended it.
    pub async fn kill(mut self) -> Result<()> {
        self.child.kill().await?;
        Ok(())
    }

    /// Interrupts it as a user does, and waits until it has ended.
    pub async fn interrupt(mut self) -> Result<Option<i32>> {
        signal(&self.child, Signal::INT)?;
        Ok(self.child.wait().await?.code())
    }

    /// As [`Inspecting::interrupt`], with what it said since. It may have ended just then.
    pub async fn interrupt_and_hear(self) -> Result<Ended> {
        let _ = signal(&self.child, Signal::INT);
        self.hear().await
    }

    /// Sends it a signal.
    pub fn signal(&self, which: Signal) -> Result<()> {
        signal(&self.child, which)
    }

    /// Waits until it has ended, and tells what it said since.
    pub async fn hear(mut self) -> Result<Ended> {
        let (mut out, mut err) = (String::new(), String::new());
        while let Some(line) = self.err.next_line().await? {
            err.push_str(&line);
            err.push('\n');
        }
        while let Some(line) = self.out.next_line().await? {
            out.push_str(&line);
            out.push('\n');
        }
        let code = self.child.wait().await?.code();
        Ok(Ended { code, out, err })
    }
}

fn signal(child: &Child, which: Signal) -> Result<()> {
    let pid = child
        .id()
        .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    kill_process(pid.context("it has ended")?, which)?;
    Ok(())
}

impl Inspected {
    /// Connects to the restored database.
    pub async fn connect(&self) -> Result<Client> {
        let (client, connection) = tokio_postgres::connect(&self.connection, NoTls)
            .await
            .with_context(|| format!("could not connect to {}", self.connection))?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// What the restored database holds.
    pub async fn content(&self) -> Result<DatabaseContent> {
        fingerprint_database(&self.connect().await?).await
    }

    /// Its data directory.
    pub fn data(&self) -> Result<PathBuf> {
        let [scratch] = &left(&self.base)?[..] else {
            bail!("not one scratch directory in {}", self.base.display());
        };
        Ok(scratch.join("data"))
    }

    /// The OIDs of the databases whose directories are there, in the default tablespace.
    pub fn directories(&self) -> Result<BTreeSet<u32>> {
        let entries = fs::read_dir(self.data()?.join("base"))?;
        let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        let names: Result<Vec<String>> = names.collect();
        Ok(names?.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// Ends the command at once and leaves the scratch server behind.
    pub async fn kill(mut self) -> Result<()> {
        self.child.kill().await?;
        Ok(())
    }

    /// Interrupts the command, which must leave nothing behind.
    pub async fn end(mut self) -> Result<()> {
        signal(&self.child, Signal::INT)?;
        let status = self.child.wait().await?;
        ensure!(status.success(), "it ended with {status}");
        let left = left(&self.base)?;
        ensure!(left.is_empty(), "left behind: {left:?}");
        Ok(())
    }
}
