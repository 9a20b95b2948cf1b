//! The `everpoint` command as a user runs it, with a repository and a key file of its own.

use std::{
    env,
    ffi::OsString,
    fs::{self, File},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use everpoint_pgformat::Lsn;
use everpoint_testkit::{Cluster, Moment, Scratch, Server};
use jiff::Timestamp;
use serde_json::Value;
use tokio::process::{Child, Command};

/// How long the repository may take to hold what the server has written. Far more than it needs.
const PATIENCE: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(50);
/// The exit code of what was refused before anything was done.
pub const REFUSED: i32 = 3;
/// The name that tests give their only instance.
pub const NAME: &str = "main";

/// A repository and the command that uses it.
pub struct Everpoint {
    scratch: Scratch,
}

/// How a call of the command ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code; none when it was killed.
    pub code: Option<i32>,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

/// A backup, as `everpoint backup` prints it.
#[derive(Clone, Debug)]
pub struct Taken {
    pub kind: String,
    pub start_lsn: Lsn,
    pub stop_lsn: Lsn,
    pub restorable_from: Timestamp,
    pub restored_bytes: u64,
    pub stored_bytes: u64,
}

/// A restored cluster in a directory of its own.
pub struct Restored {
    // Stopped before its directory is removed.
    pub cluster: Cluster,
    _place: Scratch,
}

impl std::ops::Deref for Restored {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

impl Everpoint {
    /// Makes an empty repository.
    pub async fn new() -> Result<Self> {
        let everpoint = Self {
            scratch: Scratch::new()?,
        };
        everpoint.json(&["init", "--generate-key-file"]).await?;
        Ok(everpoint)
    }

    /// Where the repository and all else of it is.
    pub fn place(&self) -> &Path {
        self.scratch.path()
    }

    /// Makes a repository and adds a cluster to it.
    pub async fn with(cluster: &Cluster) -> Result<Self> {
        let everpoint = Self::new().await?;
        everpoint.add(cluster).await?;
        Ok(everpoint)
    }

    /// Adds the cluster as [`NAME`], or points the instance to it.
    pub async fn add(&self, cluster: &Cluster) -> Result<()> {
        let connection = cluster.connection_string("postgres");
        self.json(&["instance", "add", NAME, "--connection", &connection])
            .await?;
        Ok(())
    }

    /// Takes a backup of the given type.
    pub async fn backup(&self, kind: &str) -> Result<Taken> {
        let row = self.json(&["backup", NAME, "--type", kind]).await?;
        let text = |name: &str| {
            let value = row[name].as_str().map(str::to_owned);
            value.with_context(|| format!("no `{name}` in {row}"))
        };
        let number = |name: &str| {
            let value = row[name].as_u64();
            value.with_context(|| format!("no `{name}` in {row}"))
        };
        Ok(Taken {
            kind: text("type")?,
            start_lsn: text("start_lsn")?.parse()?,
            stop_lsn: text("stop_lsn")?.parse()?,
            restorable_from: text("restorable_from")?.parse()?,
            restored_bytes: number("restored_bytes")?,
            stored_bytes: number("stored_bytes")?,
        })
    }

    /// A full backup.
    pub async fn full(&self) -> Result<Taken> {
        self.backup("full").await
    }

    /// A differential backup, which must not turn out as another.
    pub async fn differential(&self) -> Result<Taken> {
        let taken = self.backup("differential").await?;
        ensure!(taken.kind == "differential", "a {} backup", taken.kind);
        Ok(taken)
    }

    /// Restores into a new directory and starts a server there as a user does who was not told of
    /// `--start`. Returns when it has been promoted.
    pub async fn restore(&self, major: u16, target: &[&str]) -> Result<Restored> {
        let place = Scratch::new()?;
        let to = place.path().join("data");
        self.restore_into(&to, target).await?;
        let cluster = Cluster::adopt(&to, major).await?;
        cluster.wait_until_promoted().await?;
        Ok(Restored {
            cluster,
            _place: place,
        })
    }

    /// Restores into a directory, starting nothing.
    pub async fn restore_into(&self, to: &Path, target: &[&str]) -> Result<()> {
        let ended = self.try_restore(to, target).await?;
        ensure!(ended.code == Some(0), "restore {target:?}: {ended:?}");
        Ok(())
    }

    /// Restores into a directory and says how that ended.
    pub async fn try_restore(&self, to: &Path, target: &[&str]) -> Result<Ended> {
        self.run(&self.restore_arguments(to, target)?).await
    }

    /// Restores into a directory that is not there yet, which must be refused, and nothing be written.
    /// Returns the message.
    pub async fn refused_restore(&self, target: &[&str]) -> Result<String> {
        let place = Scratch::new()?;
        let to = place.path().join("data");
        let ended = self.try_restore(&to, target).await?;
        ensure!(ended.code == Some(REFUSED), "restore {target:?}: {ended:?}");
        ensure!(!to.exists(), "something was written: {ended:?}");
        Ok(ended.err)
    }

    /// The arguments of a restore.
    pub fn restore_arguments(&self, to: &Path, target: &[&str]) -> Result<Vec<String>> {
        let to = to.to_str().context("a path in UTF-8")?;
        let mut arguments = vec!["restore", "instance", NAME, "--to", to];
        arguments.extend(target);
        let mut arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
        if let Some(owner) = self.owner()? {
            arguments.extend(["--owner".to_owned(), owner]);
        }
        Ok(arguments)
    }

    /// The user that servers run as, when that is another than the test's.
    fn owner(&self) -> Result<Option<String>> {
        let user = fs::metadata(self.scratch.path())?.uid();
        if user == rustix::process::geteuid().as_raw() {
            return Ok(None);
        }
        let users = fs::read_to_string("/etc/passwd")?;
        let name = users.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)? == user.to_string()).then(|| name.to_owned())
        });
        name.context("the user that servers run as").map(Some)
    }

    /// Starts to receive log in the background.
    pub fn receive(&self) -> Result<Receiver> {
        let log = self.scratch.path().join("receive.log");
        let out = File::options().create(true).append(true).open(&log)?;
        let mut command = self.command(&["wal", "receive", NAME, "--interval", "1s"]);
        command.stdout(out.try_clone()?).stderr(out);
        Ok(Receiver {
            child: command.spawn()?,
            log,
        })
    }

    /// The last stretch that can be restored, from `everpoint status`.
    pub async fn window(&self) -> Result<Value> {
        let status = self.json(&["status", NAME]).await?;
        let ranges = status[0]["ranges"].as_array().cloned().unwrap_or_default();
        ranges.last().cloned().context("nothing can be restored")
    }

    /// Up to when everything can be restored.
    pub async fn latest(&self) -> Result<Timestamp> {
        let window = self.window().await?;
        let latest = window["latest"].as_str();
        Ok(latest.context("the latest time is not known")?.parse()?)
    }

    /// Waits until the receiver has stored the log up to a moment of the cluster.
    pub async fn wait_until_stored(&self, moment: Moment) -> Result<()> {
        let begun = Instant::now();
        loop {
            let window = self.window().await?;
            let stored: Lsn = window["latest_lsn"].as_str().unwrap_or("0/0").parse()?;
            // While log keeps coming, it may not be known up to when it is complete.
            let latest: Option<Timestamp> =
                window["latest"].as_str().and_then(|time| time.parse().ok());
            if stored >= moment.lsn && latest.is_some_and(|latest| latest >= moment.time) {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                bail!("the log up to {moment} is not stored after {PATIENCE:?}: {window}");
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Runs a command that must succeed, and returns what it printed as JSON.
    pub async fn json(&self, arguments: &[&str]) -> Result<Value> {
        let mut all = vec!["--output", "json"];
        all.extend(arguments);
        let ended = self.run(&all).await?;
        ensure!(ended.code == Some(0), "{arguments:?}: {ended:?}");
        serde_json::from_str(&ended.out).with_context(|| format!("{arguments:?}: {}", ended.out))
    }

    /// Runs a command to its end, however it ends.
    pub async fn run<S: AsRef<str>>(&self, arguments: &[S]) -> Result<Ended> {
        let output = self.command(arguments).output().await?;
        Ok(Ended::from(output))
    }

    /// Runs a command to its end that finds a disk of its own in a directory. Says at the end of its standard output
    /// which directories are left on it.
    pub async fn run_with_disk<S: AsRef<str>>(
        &self,
        at: &Path,
        megabytes: u32,
        arguments: &[S],
    ) -> Result<Ended> {
        // Who may not mount may in a name space of his own, and has his own name again in another one in that.
        let user = rustix::process::geteuid().as_raw();
        let group = rustix::process::getegid().as_raw();
        let (mounting, again) = match user {
            0 => (vec!["--mount"], String::new()),
            _ => (
                vec!["--mount", "--map-root-user"],
                format!("unshare --map-user={user} --map-group={group}"),
            ),
        };
        let at = at.to_str().context("a path in UTF-8")?;
        let script = format!(
            "mount -t tmpfs -o size={megabytes}m none '{at}' || exit 99
            {again} \"$@\"; code=$?; find '{at}' -mindepth 1 -type d; exit $code"
        );
        let call = self.command(arguments);
        let call = call.as_std();
        let set = |(name, value): (_, Option<_>)| Some((name, value?));
        let output = Command::new("unshare")
            .args(mounting)
            .args(["sh", "-c", &script, "sh"])
            .arg(call.get_program())
            .args(call.get_args())
            .envs(call.get_envs().filter_map(set))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await?;
        Ok(Ended::from(output))
    }

    /// Where objects of the repository lie.
    pub fn objects(&self, folder: &str) -> PathBuf {
        self.scratch.path().join("repository").join(folder)
    }

    /// A call of the command.
    pub fn command<S: AsRef<str>>(&self, arguments: &[S]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_everpoint"));
        command.args(arguments.iter().map(AsRef::as_ref));
        let repository = self.scratch.path().join("repository");
        command.env("EVERPOINT_REPOSITORY", repository);
        command.env("EVERPOINT_KEY_FILE", self.scratch.path().join("key"));
        command.env("PATH", search_path());
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }
}

/// The programs of all versions, which the command looks for on its `PATH`, before all else there.
fn search_path() -> OsString {
    let servers = (15..=18).filter_map(|major| Server::find(major).ok()?.tool("postgres").ok());
    let mut places: Vec<PathBuf> = servers
        .filter_map(|program| Some(program.parent()?.to_owned()))
        .collect();
    places.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    env::join_paths(places).unwrap_or_default()
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// A running `everpoint wal receive`. Killed when dropped.
pub struct Receiver {
    child: Child,
    log: PathBuf,
}

impl Receiver {
    /// Tells it to end, and waits until it has stored what it received.
    pub async fn stop(mut self) -> Result<()> {
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok());
        let pid = pid.and_then(rustix::process::Pid::from_raw);
        let pid = pid.with_context(|| format!("it ended already: {}", self.log()))?;
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let status = self.child.wait().await?;
        ensure!(status.success(), "it ended with {status}: {}", self.log());
        Ok(())
    }

    /// What it said.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

/// Writes log that is no commit, so that what came before it is stored and known to be complete.
pub async fn nudge(cluster: &Cluster) -> Result<Moment> {
    let moment = cluster.moment().await?;
    let message = "SELECT pg_logical_emit_message(false, 'test', 'nudge')";
    cluster.sql("postgres", message).await?;
    cluster.switch_wal().await?;
    Ok(moment)
}

/// Writes log that is no commit and has all log stored.
pub async fn store(everpoint: &Everpoint, cluster: &Cluster) -> Result<()> {
    let end = nudge(cluster).await?;
    let receiver = everpoint.receive()?;
    everpoint.wait_until_stored(end).await?;
    receiver.stop().await
}
