//! Room on file systems while they are filled.
//!
//! A server whose log finds no room ends, and does not start again before there is some: every database on it is
//! gone meanwhile. A checkpoint that finds none comes to the same. So what fills a disk that a server may be on ends
//! before that, and takes away what it has made.

use std::{
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

/// How often it is looked at. A disk takes some 100 MB meanwhile.
const INTERVAL: Duration = Duration::from_millis(100);
/// What is left of a file system: this, on a smaller one a [`SHARE`]th of it.
const LEFT: u64 = 512 << 20;
/// See [`LEFT`].
const SHARE: u64 = 20;
/// The least of that: three segments of log, which ending and starting again may take.
const LEAST_LEFT: u64 = 48 << 20;

/// A file system was filled up to what is to be left of it.
#[derive(Debug, thiserror::Error)]
#[error(
    "{what} has {available} bytes left (`{}`). A restore leaves {left} there: a full disk ends a server that is on it. What it had made was removed. Make room, and restore again", path.display()
)]
pub struct RoomError {
    /// What lies there.
    pub what: String,
    /// Its directory.
    pub path: PathBuf,
    /// What there is.
    pub available: ByteCount,
    /// What has to be left.
    pub left: ByteCount,
}

/// What is left of a file system of this size.
pub(crate) fn left(total: ByteCount) -> ByteCount {
    ByteCount::new((total.get() / SHARE).clamp(LEAST_LEFT, LEFT))
}

/// What is left instead, in bytes; 0 while nobody said so.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted(Arc<AtomicU64>);

impl Wanted {
    pub(crate) fn set(&self, bytes: ByteCount) {
        self.0.store(bytes.get(), Ordering::Relaxed);
    }

    fn or_left(&self, total: ByteCount) -> ByteCount {
        match self.0.load(Ordering::Relaxed) {
            0 => left(total),
            bytes => ByteCount::new(bytes),
        }
    }
}

/// Places that are filled.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    places: Vec<Place>,
    wanted: Wanted,
}

#[derive(Clone, Debug)]
struct Place {
    what: String,
    path: PathBuf,
}

impl Room {
    pub(crate) fn new(wanted: Wanted) -> Self {
        let places = Vec::new();
        Self { places, wanted }
    }

    pub(crate) fn watch(&mut self, what: impl Into<String>, path: &Path) {
        self.places.push(Place {
            what: what.into(),
            path: path.to_owned(),
        });
    }

    /// The same for a place that may never be filled: one that is full already is not watched.
    pub(crate) fn watch_unless_low(&mut self, what: impl Into<String>, path: &Path) {
        self.watch(what, path);
        let low = |place: &Place| place.is_low(&self.wanted).is_some();
        if self.places.last().is_some_and(low) {
            self.places.pop();
        }
    }

    /// Why it cannot be gone on, if so.
    pub(crate) fn is_low(&self) -> Option<RoomError> {
        let low = |place: &Place| place.is_low(&self.wanted);
        self.places.iter().find_map(low)
    }

    /// Ends when there is too little.
    pub(crate) async fn runs_out(&self) -> RoomError {
        loop {
            if let Some(error) = self.is_low() {
                return error;
            }
            sleep(INTERVAL).await;
        }
    }
}

impl Place {
    fn is_low(&self, wanted: &Wanted) -> Option<RoomError> {
        // Of what cannot be looked at nothing is known.
        let space = data_directory::space(&self.path).ok()?;
        let left = wanted.or_left(space.total);
        (space.available < left).then(|| RoomError {
            what: self.what.clone(),
            path: self.path.clone(),
            available: space.available,
            left,
        })
    }
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
