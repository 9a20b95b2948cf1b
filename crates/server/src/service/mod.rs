//! The service: what it knows, what it does by itself, and how a request comes to its answer.

mod access_document;
mod authorize;
mod backup;
mod clock;
mod database;
mod directory;
mod expiry;
mod first_start;
mod long_term;
mod observe;
mod operations;
mod place;
mod policies;
mod rebuild;
mod receive;
mod reload;
mod run;
mod step;
mod strays;
mod thread;
mod watching;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Instant,
};

use everpoint_engine::progress::Progress;
use everpoint_repository::{InstanceName, Repository};
use jiff::Timestamp;
use rustls::ServerConfig;
use tokio::sync::{Notify, Semaphore, watch};
use uuid::Uuid;

pub use authorize::{Caller, Wanted};
pub use database::{Pace, details, percent, steps};
pub use directory::{Directory, DirectoryError, Grant, SignIn};
pub use first_start::Owner;
pub use long_term::Hold;
pub use observe::{Observed, Restorable, restorable};
pub use rebuild::{Existing, RebuildError, Rebuilt, rebuild};
pub use reload::{CheckError, Reloaded, check};
pub use run::{RunError, Running, start};
pub use step::Scheduling;

use crate::{
    access::{Assignment, SubscriptionId},
    audit::{AuditFile, Entry, Outcome},
    catalog::{Catalog, CatalogError, OperationId, PrincipalRow, ServerId},
    config::Config,
    http::RateLimit,
    identity::{Issuer, Signer},
};

/// Secrets that are checked at once: each takes 19 MiB and a processor for some tens of milliseconds.
const SECRETS_AT_ONCE: usize = 2;
/// Failed attempts to sign in as one principal: so many at once, and then so many a second.
const ATTEMPTS: (f64, f64) = (10.0, 0.2);
/// Long-term copies that are made at once, of all instances.
const COPIES_AT_ONCE: usize = 2;

/// The service.
pub struct Service {
    /// This run of it, among those that share the catalog.
    id: ServerId,
    /// As it was started; what of it can change while it runs is in `settings`.
    config: Config,
    settings: watch::Sender<Arc<Config>>,
    catalog: Catalog,
    repository: Repository,
    audit: AuditFile,
    signer: Signer,
    tenant: Uuid,
    subscription: SubscriptionId,
    authority: Option<String>,
    tls: RwLock<Arc<ServerConfig>>,
    /// Another issuer of tokens.
    issuer: RwLock<Option<Arc<Issuer>>>,
    /// As the catalog has them; read anew when they change.
    assignments: RwLock<Arc<Vec<(Assignment, Timestamp)>>>,
    principals: RwLock<Arc<Vec<PrincipalRow>>>,
    /// Changes of assignments are made one after another.
    changing_assignments: tokio::sync::Mutex<()>,
    observed: RwLock<BTreeMap<InstanceName, Arc<Observed>>>,
    running: Mutex<HashMap<OperationId, Progress>>,
    busy: Mutex<BTreeSet<InstanceName>>,
    /// The lease of scheduling, while this server has it.
    lease: watch::Sender<Option<step::Held>>,
    /// Something changed that the other servers' caches are of.
    step_now: Notify,
    /// Principals or assignments changed, and the repository's copy is to follow.
    access_changed: Notify,
    /// By instance, what is told when more can be restored.
    stored: Mutex<HashMap<InstanceName, Arc<Notify>>>,
    /// Something changed that the scheduler should look at.
    wake: Notify,
    checking_secrets: Semaphore,
    /// Failed attempts to sign in, by the name that was tried.
    attempts: RateLimit<String>,
    /// Databases that are made, restored and deleted because somebody asked.
    databases: database::DatabaseWork,
    /// Long-term copies that were met, and a turn for those that are made.
    copy_cache: long_term::CopyCache,
    copying: Semaphore,
    /// Something changed that those who make long-term copies should look at.
    copies_wake: Notify,
    /// When it is next looked since when an instance's databases are there.
    learning: Mutex<HashMap<InstanceName, tokio::time::Instant>>,
    ending: std::sync::atomic::AtomicBool,
    clock: clock::Clock,
    /// Counts changes of instances' records.
    records: watch::Sender<u64>,
    /// Instances whose log is to be received here, and is not.
    not_received: Mutex<BTreeSet<InstanceName>>,
    written_policies: policies::WrittenPolicies,
}

impl Service {
    /// Its configuration, as it was started with: for what stays until it ends, such as its address.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Its configuration, as it was last read: schedules, limits, other issuers.
    pub fn settings(&self) -> Arc<Config> {
        self.settings.borrow().clone()
    }

    /// What tells when the settings change.
    pub fn follow_settings(&self) -> watch::Receiver<Arc<Config>> {
        self.settings.subscribe()
    }

    /// The certificate that new connections get.
    pub fn tls(&self) -> Arc<ServerConfig> {
        let held = self.tls.read();
        held.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Another issuer of tokens.
    pub fn issuer(&self) -> Option<Arc<Issuer>> {
        let held = self.issuer.read();
        held.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What tells it from other servers, for people.
    fn address_text(&self) -> String {
        format!("process {} of {}", std::process::id(), self.config.listen)
    }

    /// The catalog.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// The repository.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Its tokens.
    pub fn signer(&self) -> &Signer {
        &self.signer
    }

    /// The one tenant.
    pub fn tenant(&self) -> Uuid {
        self.tenant
    }

    /// The certificate of the generated authority, as PEM.
    pub fn authority(&self) -> Option<&str> {
        self.authority.as_deref()
    }

    /// How many secrets may be checked at once.
    pub fn checking_secrets(&self) -> &Semaphore {
        &self.checking_secrets
    }

    /// Held while assignments are changed.
    pub fn changing_assignments(&self) -> &tokio::sync::Mutex<()> {
        &self.changing_assignments
    }

    /// Tells the scheduler that something changed.
    pub fn wake_scheduler(&self) {
        self.wake.notify_one();
    }

    /// Tells those who make long-term copies that something changed.
    pub fn wake_copies(&self) {
        self.copies_wake.notify_waiters();
    }

    /// Whether the service was told to end: then nothing new is begun.
    fn is_ending(&self) -> bool {
        self.ending.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// All assignments.
    pub fn assignments(&self) -> Arc<Vec<(Assignment, Timestamp)>> {
        let held = self.assignments.read();
        held.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All principals.
    pub fn principals(&self) -> Arc<Vec<PrincipalRow>> {
        let held = self.principals.read();
        held.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads principals and assignments anew.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn reload_access(&self) -> Result<(), CatalogError> {
        let snapshot = self.catalog.access_snapshot().await?;
        let principals = Arc::new(snapshot.principals);
        let assignments = Arc::new(snapshot.assignments);
        *self
            .principals
            .write()
            .unwrap_or_else(PoisonError::into_inner) = principals;
        *self
            .assignments
            .write()
            .unwrap_or_else(PoisonError::into_inner) = assignments;
        self.access_changed.notify_one();
        Ok(())
    }

    /// What is known of an instance.
    pub fn instance(&self, name: &InstanceName) -> Option<Arc<Observed>> {
        let held = self.observed.read();
        held.unwrap_or_else(PoisonError::into_inner)
            .get(name)
            .cloned()
    }

    /// What is known of all instances, by name.
    pub fn instances(&self) -> Vec<Arc<Observed>> {
        let held = self.observed.read();
        held.unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    fn set_instance(&self, observed: Observed) {
        let mut held = self
            .observed
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        held.insert(observed.name.clone(), Arc::new(observed));
    }

    fn change_instance(&self, name: &InstanceName, change: impl FnOnce(&mut Observed)) {
        let mut held = self
            .observed
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(observed) = held.get_mut(name) {
            change(Arc::make_mut(observed));
        }
    }

    /// Whether somebody may try to sign in, or failed too often of late. `who` is a name that is tried.
    pub fn may_try(&self, who: &str) -> bool {
        self.attempts.has(&who.to_owned(), Instant::now())
    }

    /// Counts a failed attempt to sign in.
    pub fn note_failed_attempt(&self, who: &str) {
        self.attempts.take(who.to_owned(), Instant::now());
    }

    /// Writes down an attempt to sign in as `claimed`. False when that cannot be.
    pub fn audit_sign_in(&self, claimed: &str, principal: Option<Uuid>) -> bool {
        let entry = Entry {
            time: Timestamp::now(),
            principal: principal.map_or_else(|| "unknown".to_owned(), |id| id.to_string()),
            action: "sign in".to_owned(),
            scope: "service".to_owned(),
            outcome: match principal {
                Some(_) => Outcome::Allowed,
                None => Outcome::Denied,
            },
            detail: Some(claimed.to_owned()),
        };
        let written = self.audit.append(&entry);
        if let Err(error) = &written {
            tracing::error!(error = %crate::chain(error), "the audit log failed");
        }
        written.is_ok()
    }

    /// Writes down what was done at somebody's request. A failure is told, and does not undo it.
    pub fn audit_done(&self, principal: &str, action: &str, scope: &str, detail: String) {
        self.audit_as(principal, action, scope, Outcome::Done, Some(detail));
    }

    /// Writes down what the service did by itself. A failure is told, and does not undo what was done.
    fn audit_own(&self, action: &str, scope: &str, outcome: Outcome, detail: Option<String>) {
        self.audit_as("service", action, scope, outcome, detail);
    }

    /// Writes down what was done for somebody. A failure is told, and does not undo what was done.
    fn audit_as(
        &self,
        principal: &str,
        action: &str,
        scope: &str,
        outcome: Outcome,
        detail: Option<String>,
    ) {
        let entry = Entry {
            time: Timestamp::now(),
            principal: principal.to_owned(),
            action: action.to_owned(),
            scope: scope.to_owned(),
            outcome,
            detail,
        };
        if let Err(error) = self.audit.append(&entry).and_then(|()| self.audit.sync()) {
            tracing::error!(error = %crate::chain(&error), "the audit log failed");
        }
    }
}

/// Waits until told to end. A channel that nobody holds any more tells to end, too.
pub async fn told(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}
