//! Room on the target's file systems while it is filled.
//!
//! A server whose log finds no room ends, and does not start again before there is some: every database on it is
//! gone meanwhile. A checkpoint that finds none comes to the same. So a move ends before that, while the server can
//! still drop what the move has made.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use everpoint_instance::data_directory;
use everpoint_pgformat::ByteCount;
use tokio::time::sleep;

use super::{error::MoveError, server::Session, target};

/// How often it is looked at. A disk takes some 100 MB meanwhile.
const INTERVAL: Duration = Duration::from_millis(100);
/// What a move leaves of a file system: this, on a smaller one a [`SHARE`]th of it.
const LEFT: u64 = 512 << 20;
/// See [`LEFT`].
const SHARE: u64 = 20;
/// The least of that: three segments of log, which ending and starting again may take.
const LEAST_LEFT: u64 = 48 << 20;

/// What a move leaves of a file system of this size.
pub(super) fn left(total: ByteCount) -> ByteCount {
    ByteCount::new((total.get() / SHARE).clamp(LEAST_LEFT, LEFT))
}

/// What is left instead, in bytes; 0 while nobody said so.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted(Arc<AtomicU64>);

impl Wanted {
    pub(super) fn set(&self, bytes: ByteCount) {
        self.0.store(bytes.get(), Ordering::Relaxed);
    }

    fn or_left(&self, total: ByteCount) -> ByteCount {
        match self.0.load(Ordering::Relaxed) {
            0 => left(total),
            bytes => ByteCount::new(bytes),
        }
    }
}

/// The places that a move fills, as far as they are on this machine.
#[derive(Clone, Debug)]
pub(super) struct Room {
    places: Vec<Place>,
    wanted: Wanted,
}

#[derive(Clone, Debug)]
struct Place {
    what: String,
    path: PathBuf,
}

impl Room {
    /// Of a move to a tablespace of the server that a session is with. Things may go to others, too; those that are
    /// full already are for tables that are none of this move's.
    pub(super) async fn find(
        session: &Session,
        tablespace: &str,
        wanted: &Wanted,
    ) -> Result<Self, MoveError> {
        const WHAT: &str = "ask where its files are";
        let sql = "SELECT coalesce(current_setting('data_directory', true), ''), pg_backend_pid()";
        let row = |row: &tokio_postgres::Row| Ok((row.try_get(0)?, row.try_get(1)?));
        let own: Vec<(String, i32)> = session.all(WHAT, sql, &[], row).await?;
        let mut room = Self {
            places: Vec::new(),
            wanted: wanted.clone(),
        };
        let here = own.into_iter().next();
        let Some((data, _)) = here.filter(|(data, pid)| works_in(*pid, Path::new(data))) else {
            return Ok(room);
        };
        room.places.push(Place {
            what: "the log".to_owned(),
            path: Path::new(&data).join("pg_wal"),
        });
        for (name, path) in target::tablespaces(session).await? {
            let place = Place {
                what: format!("tablespace {name}"),
                path,
            };
            if name == tablespace || place.is_low(wanted).is_none() {
                room.places.push(place);
            }
        }
        Ok(room)
    }

    /// Why a move cannot go on, if so.
    pub(super) fn is_low(&self) -> Option<MoveError> {
        let low = |place: &Place| place.is_low(&self.wanted);
        self.places.iter().find_map(low)
    }

    /// Ends when there is too little.
    pub(super) async fn runs_out(&self) -> MoveError {
        loop {
            if let Some(error) = self.is_low() {
                return error;
            }
            sleep(INTERVAL).await;
        }
    }
}

impl Place {
    fn is_low(&self, wanted: &Wanted) -> Option<MoveError> {
        // Of what cannot be looked at nothing is known.
        let space = data_directory::space(&self.path).ok()?;
        let left = wanted.or_left(space.total);
        (space.available < left).then(|| MoveError::NoRoomLeft {
            what: self.what.clone(),
            path: self.path.clone(),
            available: space.available,
            left,
        })
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_is_left_of_larger_file_systems_within_bounds() {
        let left = |total| left(ByteCount::new(total)).get();
        assert_eq!(left(100 << 20), 48 << 20);
        assert_eq!(left(4000 << 20), 200 << 20);
        assert_eq!(left(1 << 40), 512 << 20);
    }
}
