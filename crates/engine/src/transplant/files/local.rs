//! A server's data directory, where it is on this machine and ours to write in.

use std::{
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use everpoint_instance::data_directory;
use everpoint_pgformat::{Oid, control::ClusterState, relation::DEFAULT_TABLESPACE};

use super::super::{error::MoveError, server::Session};
use crate::restore::writer::Owner;

const WHAT: &str = "ask where the server's files are";

/// A data directory on this machine that a server runs on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LocalDirectory {
    pub(super) path: PathBuf,
    pub(super) owner: Owner,
    /// The file system it is on.
    pub(super) device: u64,
    /// The directory in tablespaces that is this version's.
    pub(super) version_directory: String,
}

impl LocalDirectory {
    /// Where a database's files in a tablespace are.
    pub(super) fn database(&self, tablespace: Oid, database: Oid) -> PathBuf {
        match tablespace {
            DEFAULT_TABLESPACE => self.path.join(format!("base/{database}")),
            other => self
                .path
                .join(format!("pg_tblspc/{other}"))
                .join(&self.version_directory)
                .join(database.to_string()),
        }
    }
}

/// The directory of the server that a session is with, or why it is not for us to write in.
///
/// A path alone proves nothing: a standby of that server, on this machine, may have its files under the same path.
/// So the session's own process must be at work in the directory, and the control file be that of a running primary
/// of this cluster.
pub(super) async fn find(session: &Session) -> Result<Result<LocalDirectory, String>, MoveError> {
    let sql = "SELECT current_setting('data_directory'), pg_backend_pid(), system_identifier, \
            format('PG_%s_%s', current_setting('server_version_num')::int / 10000, catalog_version_no) \
        FROM pg_control_system()";
    let rows = session
        .all(WHAT, sql, &[], |row| {
            Ok((
                row.try_get::<_, String>(0)?,
                row.try_get::<_, i32>(1)?,
                row.try_get::<_, i64>(2)?,
                row.try_get::<_, String>(3)?,
            ))
        })
        .await?;
    let side = session.side;
    let Some((path, pid, system, version_directory)) = rows.into_iter().next() else {
        return Ok(Err(format!(
            "the {side} server does not say where its files are"
        )));
    };
    let path = PathBuf::from(path);
    let looked = {
        let path = path.clone();
        tokio::task::spawn_blocking(move || look(&path, pid, system.cast_unsigned()))
    };
    let shown = path.display().to_string();
    let found = looked.await.unwrap_or_else(|error| Err(error.to_string()));
    Ok(found
        .map(|(owner, device)| LocalDirectory {
            path,
            owner,
            device,
            version_directory,
        })
        .map_err(|why| format!("the {side} server's files in `{shown}` cannot be used: {why}")))
}

fn look(path: &Path, pid: i32, system: u64) -> Result<(Owner, u64), String> {
    let here = |path: &Path| fs::metadata(path).map_err(|error| not_here(path, &error));
    let directory = here(path)?;
    let works_in = here(&PathBuf::from(format!("/proc/{pid}/cwd")))?;
    let place = |found: &Metadata| (found.dev(), found.ino());
    if place(&directory) != place(&works_in) {
        return Err("it does not run on this machine".to_owned());
    }
    let control = data_directory::control_file(path).map_err(|error| error.to_string())?;
    if control.system_identifier.get() != system || control.state != ClusterState::InProduction {
        return Err("they are not those of this server".to_owned());
    }
    let own = rustix::process::geteuid().as_raw();
    if own != 0 && own != directory.uid() {
        return Err(format!(
            "they belong to user number {}, and this process runs as {own}",
            directory.uid()
        ));
    }
    let owner = Owner {
        user: directory.uid(),
        group: directory.gid(),
    };
    Ok((owner, directory.dev()))
}

fn not_here(path: &Path, error: &io::Error) -> String {
    format!(
        "it does not run on this machine, or this process may not look ({}: {error})",
        path.display()
    )
}
