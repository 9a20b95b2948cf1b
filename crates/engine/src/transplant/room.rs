//! Where a move goes, to be watched while it fills that.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{error::MoveError, server::Session, target};
use crate::room::{Room, Wanted};

/// The places that a move to a tablespace of the server that a session is with fills, as far as they are on this
/// machine.
pub(super) async fn find(
    session: &Session,
    tablespace: &str,
    wanted: &Wanted,
) -> Result<Room, MoveError> {
    const WHAT: &str = "ask where its files are";
    let sql = "SELECT coalesce(current_setting('data_directory', true), ''), pg_backend_pid()";
    let row = |row: &tokio_postgres::Row| Ok((row.try_get(0)?, row.try_get(1)?));
    let own: Vec<(String, i32)> = session.all(WHAT, sql, &[], row).await?;
    let mut room = Room::new(wanted.clone());
    let here = own.into_iter().next();
    let Some((data, _)) = here.filter(|(data, pid)| works_in(*pid, Path::new(data))) else {
        return Ok(room);
    };
    room.watch("the log of the target", &Path::new(&data).join("pg_wal"));
    for (name, path) in target::tablespaces(session).await? {
        let what = format!("tablespace {name} of the target");
        // Things may go to others, too; those that are full already are for tables that are none of this move's.
        match name == tablespace {
            true => room.watch(what, &path),
            false => room.watch_unless_low(what, &path),
        }
    }
    Ok(room)
}

/// Whether a process, a server's by what it said, works in this directory on this machine.
fn works_in(pid: i32, directory: &Path) -> bool {
    let place = |path: &Path| {
        let found = fs::metadata(path).ok()?;
        Some((found.dev(), found.ino()))
    };
    let here = place(directory);
    here.is_some() && here == place(&PathBuf::from(format!("/proc/{pid}/cwd")))
}
