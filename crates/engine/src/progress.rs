//! How far an operation is: numbers that others may read at any time.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

/// The progress of one operation. Cheap to clone; all clones are the same progress.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    phase: Mutex<&'static str>,
    total_bytes: AtomicU64,
    done_bytes: AtomicU64,
    files: AtomicU64,
    stored_bytes: AtomicU64,
    cancelled: AtomicBool,
}

/// A reading of [`Progress`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// What is being done, such as `reading files`.
    pub phase: &'static str,
    /// Bytes of the phase; 0 while unknown.
    pub total_bytes: u64,
    /// Bytes done of it.
    pub done_bytes: u64,
    /// Files done.
    pub files: u64,
    /// Bytes added to the repository.
    pub stored_bytes: u64,
}

impl Progress {
    /// Begins a phase; the counters of bytes begin anew.
    pub fn phase(&self, phase: &'static str, total_bytes: u64) {
        *self
            .shared
            .phase
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = phase;
        self.shared
            .total_bytes
            .store(total_bytes, Ordering::Relaxed);
        self.shared.done_bytes.store(0, Ordering::Relaxed);
    }

    /// Counts bytes done.
    pub fn add_bytes(&self, bytes: u64) {
        self.shared.done_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts bytes stored.
    pub fn add_stored(&self, bytes: u64) {
        self.shared.stored_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts files done.
    pub fn add_files(&self, files: u64) {
        self.shared.files.fetch_add(files, Ordering::Relaxed);
    }

    /// Asks the operation to end as soon as it can.
    pub fn cancel(&self) {
        self.shared.cancelled.store(true, Ordering::Relaxed);
    }

    /// Whether it was asked to end.
    pub fn is_cancelled(&self) -> bool {
        self.shared.cancelled.load(Ordering::Relaxed)
    }

    /// Where it stands now.
    pub fn read(&self) -> Reading {
        Reading {
            phase: *self
                .shared
                .phase
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
            total_bytes: self.shared.total_bytes.load(Ordering::Relaxed),
            done_bytes: self.shared.done_bytes.load(Ordering::Relaxed),
            files: self.shared.files.load(Ordering::Relaxed),
            stored_bytes: self.shared.stored_bytes.load(Ordering::Relaxed),
        }
    }
}
