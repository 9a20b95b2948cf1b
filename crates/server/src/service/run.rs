//! Starting the service, and ending it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::{File, TryLockError},
    net::SocketAddr,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, RwLock},
    time::Duration,
};

use everpoint_repository::{Repository, RepositoryError, Store, StoreError, store::Missing};
use jiff::Timestamp;
use tokio::{
    sync::{Notify, Semaphore, oneshot, watch},
    task::JoinHandle,
    time::{Instant, sleep},
};
use uuid::Uuid;

use super::{
    ATTEMPTS, COPIES_AT_ONCE, SECRETS_AT_ONCE, Service,
    database::DatabaseWork,
    first_start::{Owner, ensure_owner},
    thread, told,
};
use crate::{
    audit::{AuditFile, AuditFileError, Outcome},
    catalog::{Catalog, CatalogError, Sharing},
    config::{Config, SecretError, positive},
    http::{
        self, ListenError, RateLimit,
        tls::{Tls, TlsError},
    },
    identity::{Issuer, Signer, SignerError},
};

/// The longest that the scheduler waits before it looks again.
const SCHEDULER_INTERVAL: Duration = Duration::from_secs(60);
/// The shortest.
const SCHEDULER_PAUSE: Duration = Duration::from_secs(1);
/// How often it is looked whether operations have ended, while the service waits for them.
const END_POLL: Duration = Duration::from_millis(100);

/// The service cannot start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The state directory cannot be made.
    #[error("the state directory {} cannot be made", path.display())]
    StateDirectory {
        /// It.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another server uses it.
    #[error(
        "the state directory {} belongs to another server that runs. Give each server one of its own", path.display()
    )]
    InUse {
        /// It.
        path: PathBuf,
    },
    /// There was another one.
    #[error(
        "the catalog is new, but the repository knows principals and assignments of an earlier one. Put that back, or make it anew: everpoint catalog rebuild"
    )]
    CatalogLost,
    /// A secret.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The repository's place.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The repository.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The catalog.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// A value of the catalog.
    #[error("the catalog's {name} is no identifier")]
    Identifier {
        /// Which.
        name: &'static str,
    },
    /// The audit log.
    #[error(transparent)]
    Audit(#[from] AuditFileError),
    /// The signing key.
    #[error(transparent)]
    Signer(#[from] SignerError),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The address.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The system gives no thread.
    #[error("no thread can be begun")]
    Thread {
        /// Why.
        source: std::io::Error,
    },
}

/// A running service.
pub struct Running {
    service: Arc<Service>,
    address: SocketAddr,
    owner: Option<Owner>,
    stop: watch::Sender<bool>,
    stop_log: watch::Sender<bool>,
    serving: JoinHandle<()>,
    scheduling: JoinHandle<()>,
    watching: JoinHandle<()>,
    keeping_step: JoinHandle<()>,
    keeping_access: JoinHandle<()>,
    stop_step: watch::Sender<bool>,
    /// Nobody else may use the state directory, and with it a catalog that is a file.
    _lock: File,
    working: Option<oneshot::Receiver<()>>,
}

/// Starts the service.
///
/// # Errors
/// See [`RunError`].
pub async fn start(config: Config) -> Result<Running, RunError> {
    let directory = config.state_directory.clone();
    let lock = prepare_state_directory(&directory)?;
    let audit = AuditFile::open(&directory.join("audit.jsonl"))?;
    let store = Store::open(&config.repository.url, Missing::Refuse)?;
    let repository = Repository::open(store, &config.repository.secret.read()?).await?;
    let catalog = Catalog::open(&config.catalog_address()?).await?;
    if catalog.sharing() == Sharing::Alone {
        // Who is in it is gone: the lock says so.
        catalog.forget_servers().await?;
    }
    check_catalog_is_not_lost(&catalog, &repository).await?;
    let tenant = identifier(&catalog, "tenant").await?;
    let subscription = identifier(&catalog, "subscription").await?;
    // An empty key would be refused, so nothing is signed with it.
    let key = catalog
        .kept("signing key", || Signer::new_key().unwrap_or_default())
        .await?;
    let signer = Signer::new(&key, tenant, config.base_url())?;
    let tls = Tls::new(&config)?;
    let now = Timestamp::now();
    let owner = ensure_owner(&catalog, subscription, now).await?;
    let listener = http::bind(config.listen).await?;
    let address = listener.local_addr().unwrap_or(config.listen);
    let oidc = config.identity.oidc.clone();
    let issuer = oidc.map(|config| Arc::new(Issuer::new(config)));
    let databases = DatabaseWork::new(&directory).map_err(|source| RunError::StateDirectory {
        path: directory.clone(),
        source,
    })?;
    let service = Arc::new(Service {
        id: Uuid::new_v4(),
        settings: watch::Sender::new(Arc::new(config.clone())),
        config,
        catalog,
        repository,
        audit,
        signer,
        tenant,
        subscription,
        authority: tls.authority,
        tls: RwLock::new(tls.server),
        issuer: RwLock::new(issuer),
        assignments: RwLock::default(),
        principals: RwLock::default(),
        changing_assignments: tokio::sync::Mutex::default(),
        observed: RwLock::new(BTreeMap::new()),
        running: Mutex::new(HashMap::new()),
        busy: Mutex::new(BTreeSet::new()),
        lease: watch::Sender::new(None),
        step_now: Notify::new(),
        access_changed: Notify::new(),
        stored: Mutex::default(),
        wake: Notify::new(),
        checking_secrets: Semaphore::new(SECRETS_AT_ONCE),
        attempts: RateLimit::new(ATTEMPTS.1, ATTEMPTS.0),
        databases,
        copy_cache: Default::default(),
        copying: Semaphore::new(COPIES_AT_ONCE),
        copies_wake: Notify::new(),
        learning: Mutex::default(),
        ending: false.into(),
        clock: Default::default(),
        records: watch::Sender::new(0),
        not_received: Mutex::default(),
        written_policies: Default::default(),
    });
    service.reload_access().await?;
    service
        .catalog
        .add_server(
            service.id,
            service.databases.home(),
            &service.address_text(),
            now,
        )
        .await?;
    service.audit_own("start", "service", Outcome::Done, None);
    tracing::info!(audit_head = %service.audit.head(), %address, "started");
    let (stop, told) = watch::channel(false);
    let (stop_log, log_told) = watch::channel(false);
    let (stop_step, step_told) = watch::channel(false);
    let (begun, first_step) = oneshot::channel();
    let step = service.clone().keep_step(begun, step_told.clone());
    let keeping_step = thread::keep("keeping step", step);
    // So that who is alone schedules from the start.
    let _ = first_step.await;
    let access = service.clone().keep_access_document(step_told);
    let keeping_access = thread::keep("keeping access", access);
    let serving = {
        let (service, told) = (service.clone(), told.clone());
        thread::keep("serving", http::serve(listener, service, told))
    };
    let working = {
        let (service, told) = (service.clone(), told.clone());
        let working = thread::run("databases".to_owned(), move || service.keep_working(told));
        working.map_err(|source| RunError::Thread { source })?
    };
    let scheduling = thread::keep("scheduling", keep_scheduling(service.clone(), told));
    let watching = thread::keep("watching", service.clone().keep_watching(log_told));
    Ok(Running {
        service,
        address,
        owner,
        stop,
        stop_log,
        serving,
        scheduling,
        watching,
        keeping_step,
        keeping_access,
        stop_step,
        _lock: lock,
        working: Some(working),
    })
}

/// Makes the state directory, and keeps others out of it as long as the result lives.
pub(super) fn prepare_state_directory(directory: &Path) -> Result<File, RunError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|source| RunError::StateDirectory {
            path: directory.to_owned(),
            source,
        })?;
    let path = directory.join("lock");
    let error = |source| RunError::StateDirectory {
        path: path.clone(),
        source,
    };
    let file = File::options()
        .create(true)
        .append(true)
        .open(&path)
        .map_err(error)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(RunError::InUse {
            path: directory.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(error(source)),
    }
}

/// A catalog without a tenant on a repository that knows one was lost: a new owner would be nobody's whom its
/// assignments name.
async fn check_catalog_is_not_lost(
    catalog: &Catalog,
    repository: &Repository,
) -> Result<(), RunError> {
    if catalog.known("tenant").await?.is_some() {
        return Ok(());
    }
    match repository.access_number().await? {
        None => Ok(()),
        Some(_) => Err(RunError::CatalogLost),
    }
}

async fn identifier(catalog: &Catalog, name: &'static str) -> Result<Uuid, RunError> {
    let text = catalog.kept(name, || Uuid::new_v4().to_string()).await?;
    Uuid::try_parse(&text).map_err(|_| RunError::Identifier { name })
}

async fn keep_scheduling(service: Arc<Service>, mut stop: watch::Receiver<bool>) {
    loop {
        service.clock.is_believed();
        let next = service.begin_due().await;
        let wait = next
            .map(|next| positive(next.duration_since(Timestamp::now())))
            .unwrap_or(SCHEDULER_INTERVAL)
            .min(SCHEDULER_INTERVAL);
        tokio::select! {
            () = sleep(wait) => {}
            () = service.wake.notified() => {}
            () = told(&mut stop) => return,
        }
        tokio::select! {
            () = sleep(SCHEDULER_PAUSE) => {}
            () = told(&mut stop) => return,
        }
    }
}

impl Running {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The service.
    pub fn service(&self) -> &Arc<Service> {
        &self.service
    }

    /// The owner that this start made.
    pub fn owner(&self) -> Option<&Owner> {
        self.owner.as_ref()
    }

    /// Ends: takes no more requests and begins nothing; lets what runs go on for the configured grace and
    /// then cancels it; stores what was received of the log.
    pub async fn stop(mut self) {
        self.service
            .ending
            .store(true, std::sync::atomic::Ordering::Relaxed);
        // Nobody listening means that it has ended already.
        let _ = self.stop.send(true);
        let _ = self.scheduling.await;
        let _ = self.serving.await;
        if let Some(working) = self.working.take() {
            let _ = working.await;
        }
        let grace = positive(self.service.settings().backups.grace);
        let begun = Instant::now();
        while self.service.running_count() > 0 {
            if begun.elapsed() >= grace {
                self.service.cancel_all();
            }
            sleep(END_POLL).await;
        }
        let _ = self.stop_log.send(true);
        let _ = self.watching.await;
        let _ = self.stop_step.send(true);
        let _ = self.keeping_step.await;
        let _ = self.keeping_access.await;
        self.service
            .audit_own("stop", "service", Outcome::Done, None);
        tracing::info!(audit_head = %self.service.audit.head(), "ended");
    }
}
