//! How far an operation is: numbers that others may read at any time.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

/// How often a waiting operation looks whether it was cancelled.
const CANCEL_POLL: Duration = Duration::from_millis(100);

/// The progress of one operation. Cheap to clone; all clones are the same progress.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    shared: Arc<Shared>,
    /// What asks only this part of the operation to end.
    part: Option<Arc<AtomicBool>>,
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

    /// The same progress for a part of the operation, which can be asked to end by itself: [`Progress::cancel`] of
    /// the part and its clones cancels nothing else. It ends when the operation is to end, too.
    pub fn part(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            part: Some(Arc::default()),
        }
    }

    /// Asks the operation to end as soon as it can.
    pub fn cancel(&self) {
        let cancelled = self.part.as_deref().unwrap_or(&self.shared.cancelled);
        cancelled.store(true, Ordering::Relaxed);
    }

    /// Whether it was asked to end.
    pub fn is_cancelled(&self) -> bool {
        let set = |cancelled: &AtomicBool| cancelled.load(Ordering::Relaxed);
        set(&self.shared.cancelled) || self.part.as_deref().is_some_and(set)
    }

    /// Waits until it was asked to end.
    pub async fn cancelled(&self) {
        while !self.is_cancelled() {
            tokio::time::sleep(CANCEL_POLL).await;
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_ends_alone_and_with_the_whole() {
        let whole = Progress::default();
        let (ended, other) = (whole.part(), whole.part());
        ended.clone().cancel();
        assert!(ended.is_cancelled());
        assert!(!other.is_cancelled() && !whole.is_cancelled());
        whole.cancel();
        assert!(other.is_cancelled());
        other.add_bytes(3);
        assert_eq!(whole.read().done_bytes, 3);
    }
}
