//! A server whose clock is the test's to set, by libfaketime.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::Cluster;

/// What gives a server another clock, and where that is set.
#[derive(Clone, Debug)]
pub(super) struct Clock {
    library: PathBuf,
    file: PathBuf,
}

impl Clock {
    /// One that goes right, set by a file at `file`.
    pub(super) fn new(file: PathBuf) -> Result<Self> {
        let clock = Self {
            library: library()?,
            file,
        };
        clock.set(0)?;
        Ok(clock)
    }

    fn set(&self, seconds: i64) -> Result<()> {
        // In one step, as the server reads it at any moment.
        let new = self.file.with_extension("new");
        fs::write(&new, format!("{seconds:+}\n"))?;
        Ok(fs::rename(&new, &self.file)?)
    }

    /// The environment of the server. Its clock for durations stays right.
    pub(super) fn environment(&self) -> [(&'static str, &Path); 4] {
        [
            ("LD_PRELOAD", &self.library),
            ("FAKETIME_TIMESTAMP_FILE", &self.file),
            ("FAKETIME_NO_CACHE", Path::new("1")),
            ("FAKETIME_DONT_FAKE_MONOTONIC", Path::new("1")),
        ]
    }
}

/// Debian's package `libfaketime` puts it into a directory of the machine's architecture.
fn library() -> Result<PathBuf> {
    let places = fs::read_dir("/usr/lib")?.filter_map(|entry| Some(entry.ok()?.path()));
    let libraries = places.map(|place| place.join("faketime/libfaketime.so.1"));
    let mut found = libraries.filter(|library| library.exists());
    found
        .next()
        .context("libfaketime is not installed. Run `make setup`")
}

impl Cluster {
    /// Sets the server's clock to so many seconds before (negative) or after the right time.
    ///
    /// # Errors
    /// When the cluster was not built [with a clock](super::ClusterBuilder::with_clock).
    pub fn set_clock(&self, seconds: i64) -> Result<()> {
        let clock = self.clock.as_ref().context("a cluster with a clock")?;
        clock.set(seconds)
    }
}
