//! `postmaster.pid`: which server runs on a data directory (`src/include/utils/pidfile.h`).

use std::{fs, io, path::Path, path::PathBuf};

use jiff::Timestamp;
use rustix::{
    io::Errno,
    process::{Pid, test_kill_process},
};

/// What a server wrote about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostmasterFile {
    /// Its process.
    pub pid: i32,
    /// The data directory, as it was given.
    pub data_directory: String,
    /// When it started, to the second.
    pub started_at: Option<Timestamp>,
    /// Its port.
    pub port: Option<u16>,
    /// The directory of its first socket; `None` without one.
    pub socket_directory: Option<PathBuf>,
    /// How far it has got.
    pub state: PostmasterState,
}

/// The last line of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PostmasterState {
    /// Not written yet, or not known.
    Unknown,
    /// It starts up.
    Starting,
    /// It takes connections.
    Ready,
    /// It is in recovery, with `hot_standby` off: no connections.
    Standby,
    /// It shuts down.
    Stopping,
}

/// Whether a server runs on a data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Running {
    /// No: there is no `postmaster.pid`.
    No,
    /// No: its process is not there (on this machine, in this container).
    Stale(PostmasterFile),
    /// Yes.
    Yes(PostmasterFile),
}

impl PostmasterFile {
    /// Reads the file's text; `None` when it has no process number.
    pub fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines().map(str::trim);
        // A single-user server writes its number negated.
        let pid = lines.next()?.parse::<i32>().ok()?.checked_abs()?;
        let data_directory = lines.next().unwrap_or_default().to_owned();
        let started_at = lines
            .next()
            .and_then(|line| line.parse().ok())
            .and_then(|seconds| Timestamp::from_second(seconds).ok());
        let port = lines.next().and_then(|line| line.parse().ok());
        let socket_directory = lines
            .next()
            .filter(|line| !line.is_empty())
            .map(PathBuf::from);
        let _listen_address = lines.next();
        let _shared_memory = lines.next();
        let state = match lines.next() {
            Some("starting") => PostmasterState::Starting,
            Some("ready") => PostmasterState::Ready,
            Some("standby") => PostmasterState::Standby,
            Some("stopping") => PostmasterState::Stopping,
            _ => PostmasterState::Unknown,
        };
        Some(Self {
            pid,
            data_directory,
            started_at,
            port,
            socket_directory,
            state,
        })
    }
}

/// Looks at `postmaster.pid` of the data directory `root` and at its process. Blocks.
///
/// # Errors
/// When the file is there and cannot be read.
pub fn running(root: &Path) -> io::Result<Running> {
    let text = match fs::read_to_string(root.join("postmaster.pid")) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Running::No),
        Err(error) => return Err(error),
    };
    let Some(file) = PostmasterFile::parse(&text) else {
        // Just being written: somebody starts a server.
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "postmaster.pid holds no process number",
        ));
    };
    Ok(match is_server(file.pid, root) {
        true => Running::Yes(file),
        false => Running::Stale(file),
    })
}

/// Whether a server runs on the data directory `root`.
///
/// # Errors
/// As [`running`].
pub fn is_running(root: &Path) -> io::Result<bool> {
    Ok(matches!(running(root)?, Running::Yes(_)))
}

/// Whether the process is there, and not another that was given its number: a server's working
/// directory is its data directory.
fn is_server(pid: i32, root: &Path) -> bool {
    let alive = match Pid::from_raw(pid) {
        None => false,
        Some(pid) => !matches!(test_kill_process(pid), Err(Errno::SRCH)),
    };
    if !alive {
        return false;
    }
    let directory = fs::read_link(format!("/proc/{pid}/cwd"));
    match (directory, root.canonicalize()) {
        (Ok(directory), Ok(root)) => directory == root,
        // No right to look: it is taken for the server.
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_of_a_ready_server_is_read() {
        let text = "4711\n/srv/data\n1767225600\n5433\n/run/pg\nlocalhost\n  123 456\nready   \n";
        let file = PostmasterFile::parse(text).unwrap();
        assert_eq!((file.pid, file.port), (4711, Some(5433)));
        assert_eq!(file.state, PostmasterState::Ready);
        assert_eq!(file.started_at.unwrap().to_string(), "2026-01-01T00:00:00Z");
        assert_eq!(PostmasterFile::parse(""), None);
        assert_eq!(PostmasterFile::parse("-12\n").unwrap().pid, 12);
    }

    #[test]
    fn file_of_a_process_elsewhere_is_stale() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(running(root.path()).unwrap(), Running::No);
        let path = root.path().join("postmaster.pid");
        // This very process is alive, but works elsewhere.
        fs::write(&path, format!("{}\n/x\n", std::process::id())).unwrap();
        assert!(matches!(running(root.path()).unwrap(), Running::Stale(_)));
        fs::write(&path, "\n").unwrap();
        assert!(running(root.path()).is_err());
    }
}
