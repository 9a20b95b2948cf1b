//! The program while it runs.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::{Finished, until};

/// A started program, killed when dropped.
pub struct Running {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Running {
    /// Starts a program; what it prints goes to files in `directory`.
    pub fn start(mut command: Command, directory: &std::path::Path, name: &str) -> Result<Self> {
        let stdout = directory.join(format!("{name}.out"));
        let stderr = directory.join(format!("{name}.err"));
        command.stdin(Stdio::null());
        command.stdout(File::create(&stdout)?);
        command.stderr(File::create(&stderr)?);
        let child = command.spawn().context("could not start everpoint")?;
        Ok(Self {
            child,
            stdout,
            stderr,
        })
    }

    /// What it has printed so far, errors behind results.
    pub fn printed(&self) -> Result<String> {
        let printed = [fs::read(&self.stdout)?, fs::read(&self.stderr)?].concat();
        Ok(String::from_utf8_lossy(&printed).into_owned())
    }

    /// Waits until it has printed `text`, which fails if it ends before.
    pub async fn wait_until_it_says(&mut self, text: &str) -> Result<()> {
        until(&format!("it says `{text}`"), async || {
            // In this order: what it said at its end counts.
            let ended = self.child.try_wait()?;
            let printed = self.printed()?;
            if printed.contains(text) {
                return Ok(true);
            }
            match ended {
                None => Ok(false),
                Some(status) => bail!("it ended with {status} and never said `{text}`: {printed}"),
            }
        })
        .await
    }

    /// Sends a signal.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.is_alive() {
            kill_process(Pid::from_child(&self.child), signal)?;
        }
        Ok(())
    }

    /// Whether it has not ended yet.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Kills it at once, as a crash does.
    pub fn kill(mut self) -> Result<Finished> {
        self.child.kill()?;
        let status = self.child.wait()?;
        Ok(Finished::read(status, &self.stdout, &self.stderr)?)
    }

    /// Waits until it ends.
    pub async fn wait(mut self) -> Result<Finished> {
        until("everpoint ends", async || {
            Ok(self.child.try_wait()?.is_some())
        })
        .await
        .with_context(|| self.printed().unwrap_or_default())?;
        let status = self.child.wait()?;
        Ok(Finished::read(status, &self.stdout, &self.stderr)?)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
