//! Checks of the data directory.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use everpoint_pgformat::relation::tablespace_version_directory;
use jiff::SignedDuration;

use super::{CheckName, CheckReport, Outcome};
use crate::{
    data_directory::{PostmasterFile, Running, control_file, running},
    facts::{ServerFacts, TablespaceLocation},
};

/// Between the times that `postmaster.pid` and `pg_postmaster_start_time()` hold, the server loads its
/// libraries and looks its addresses up.
const START_TOLERANCE: SignedDuration = SignedDuration::from_secs(10);

/// Looks at the data directory `root`; without facts of a server only whether it can be read. Blocks.
pub(super) fn look_at(root: &Path, server: Option<&ServerFacts>, report: &mut CheckReport) {
    let readable = readable(root);
    let is_readable = matches!(readable, Outcome::Ok { .. });
    report.add(CheckName::DataDirectory, readable);
    let Some(facts) = server else { return };
    if is_readable {
        report.add(CheckName::SameDirectory, same_directory(root, facts));
    }
    report.add(CheckName::Tablespaces, tablespaces(facts));
}

/// Reads one file of each kind and lists the databases.
fn readable(root: &Path) -> Outcome {
    let attempts = || -> Result<usize, (PathBuf, io::Error)> {
        for name in ["PG_VERSION", "global/pg_control", "global/1262"] {
            let path = root.join(name);
            fs::read(&path).map_err(|error| (path, error))?;
        }
        let base = root.join("base");
        let entries = fs::read_dir(&base).map_err(|error| (base.clone(), error))?;
        let mut databases = 0;
        for entry in entries {
            let path = entry.map_err(|error| (base.clone(), error))?.path();
            if path.is_dir() {
                fs::read_dir(&path).map_err(|error| (path, error))?;
                databases += 1;
            }
        }
        Ok(databases)
    };
    match attempts() {
        Ok(databases) => Outcome::ok(format!("{}, {databases} databases", root.display())),
        Err((path, error)) => unreadable(&path, &error, root),
    }
}

fn unreadable(path: &Path, error: &io::Error, root: &Path) -> Outcome {
    let mend = match error.kind() {
        io::ErrorKind::NotFound => "See where it is: SHOW data_directory".to_owned(),
        _ => format!(
            "Run as the owner of {}; or make the cluster readable to its group (chmod -R g+rX, initdb --allow-group-access) and join that",
            root.display()
        ),
    };
    Outcome::failed(format!("{} cannot be read: {error}", path.display()), mend)
}

/// A clone or a stopped copy has the same system identifier, so the running server's own file decides.
fn same_directory(root: &Path, facts: &ServerFacts) -> Outcome {
    let mend = format!(
        "Give the data directory of the server that is connected to, which says it is {}",
        facts.data_directory
    );
    let control = match control_file(root) {
        Ok(control) => control,
        Err(error) => return Outcome::failed(super::server::chain(&error), mend),
    };
    if control.system_identifier != facts.system_identifier {
        return Outcome::failed(
            format!(
                "{} is of cluster {}, and the server of {}",
                root.display(),
                control.system_identifier,
                facts.system_identifier
            ),
            mend,
        );
    }
    let file = match running(root) {
        Ok(Running::Yes(file) | Running::Stale(file)) => file,
        Ok(Running::No) => {
            return Outcome::failed(
                format!(
                    "{} is a copy of the cluster on which no server runs",
                    root.display()
                ),
                mend,
            );
        }
        Err(error) => {
            return Outcome::failed(
                format!("{}/postmaster.pid cannot be read: {error}", root.display()),
                mend,
            );
        }
    };
    match is_this_server(&file, facts) {
        true => Outcome::ok(format!("server process {}", file.pid)),
        false => Outcome::failed(
            format!(
                "{} is a copy of the cluster on which another server runs (process {})",
                root.display(),
                file.pid
            ),
            mend,
        ),
    }
}

fn is_this_server(file: &PostmasterFile, facts: &ServerFacts) -> bool {
    let started_together = file
        .started_at
        .is_some_and(|started| started.duration_since(facts.started_at).abs() <= START_TOLERANCE);
    started_together && file.port.is_none_or(|port| port == facts.port)
}

fn tablespaces(facts: &ServerFacts) -> Outcome {
    let mut read = 0;
    for tablespace in &facts.tablespaces {
        let TablespaceLocation::Directory(location) = &tablespace.location else {
            continue;
        };
        let path = Path::new(location).join(tablespace_version_directory(facts.major));
        if let Err(error) = fs::read_dir(&path) {
            return Outcome::failed(
                format!(
                    "tablespace `{}` at {} cannot be read: {error}",
                    tablespace.name,
                    path.display()
                ),
                "Run as the owner of the directory, on the machine that it is on",
            );
        }
        read += 1;
    }
    Outcome::ok(format!("{read} outside the data directory"))
}
