//! Databases that are made, restored and deleted because somebody asked: queued, worked on, cancelled, and taken up
//! again when the service starts.

mod admin;
mod create;
mod delete;
mod details;
mod failure;
mod progress;
mod queue;
mod restore;
mod stored;
mod take_up;
mod work;

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use everpoint_repository::InstanceName;
use tokio::sync::{Notify, OwnedMutexGuard};
use uuid::Uuid;

pub use details::details;
pub use progress::{Pace, percent, steps};
pub(super) use stored::hurry;

use crate::catalog::OperationId;

/// What the service holds for this.
pub(super) struct DatabaseWork {
    /// This server, the same after each start: what it works on is written down under this name.
    server: String,
    /// How fast those go that run here.
    paces: Mutex<HashMap<OperationId, Pace>>,
    /// Something was queued, or ended.
    changed: Notify,
    /// Operations of which it was told that they cannot be settled yet.
    told: Mutex<HashSet<OperationId>>,
    /// The service is to end: what is cancelled now is taken up again when it starts.
    ending: AtomicBool,
    /// Held while a server's databases are asked for and written down, so that no older list follows a newer one.
    looks: Mutex<HashMap<InstanceName, Arc<tokio::sync::Mutex<()>>>>,
}

impl DatabaseWork {
    /// Of the server whose state directory this is.
    pub(super) fn new(state_directory: &Path) -> std::io::Result<Self> {
        let path = state_directory.join("server");
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        let server = match Uuid::try_parse(kept.trim()) {
            Ok(id) => id.to_string(),
            Err(_) => {
                let id = Uuid::new_v4().to_string();
                std::fs::write(&path, &id)?;
                id
            }
        };
        Ok(Self {
            server,
            paces: Mutex::default(),
            changed: Notify::new(),
            told: Mutex::default(),
            ending: AtomicBool::new(false),
            looks: Mutex::default(),
        })
    }

    /// What this server is called in the catalog, the same after each start.
    pub(super) fn home(&self) -> &str {
        &self.server
    }

    /// Waits until nobody else looks at an instance's databases.
    pub(super) async fn look(&self, instance: &InstanceName) -> OwnedMutexGuard<()> {
        let mutex = {
            let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
            looks.entry(instance.clone()).or_default().clone()
        };
        mutex.lock_owned().await
    }

    /// Whether what hinders an operation is told for the first time.
    fn is_first_told(&self, id: OperationId) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.insert(id)
    }

    fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }
}
