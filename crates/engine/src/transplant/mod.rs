//! The move of one database from a recovered scratch server into a running one, as a new database.
//!
//! [`plan`] looks at both servers and makes a [`MovePlan`], or says everything that speaks against it. [`execute`]
//! does what the plan says: it fills a hidden database, checks it, waits until replicas have it, and gives it its
//! name, owner and rights in one transaction. Whatever ends it before that transaction has removed what it made;
//! what a crash leaves, [`repair`] finishes or removes.
//!
//! Nobody else writes in the source. Where it comes from is not known here.

mod check;
mod create;
mod error;
pub mod files;
mod formats;
mod journal;
pub mod name;
mod objects;
pub mod plan;
pub mod refusal;
pub mod register;
mod repair;
pub mod replicas;
mod room;
mod run;
mod schema;
mod server;
mod sessions;
pub mod source;
mod stream;
pub mod table;
mod tables;
pub mod target;

use std::{
    error::Error,
    fmt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use everpoint_instance::{ConnectionSpec, PgBinaries};
use everpoint_pgformat::{ByteCount, MajorVersion, Oid, SystemIdentifier};
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

pub use error::{MoveError, Side};
pub use plan::MovePlan;
pub use refusal::{Refusal, Refusals};
pub use repair::{Leftover, Repaired, leftovers, remove_leftover, repair};
pub use run::{execute, is_open};

use self::{
    name::{DatabaseName, OperationId},
    replicas::{ReplicaPolicy, Seeded},
    server::Server,
    source::SourceDatabase,
    target::TargetServer,
};
use crate::{progress::Progress, room::Wanted};

/// What is asked for.
#[derive(Clone, Debug)]
pub struct MoveRequest {
    /// The operation's identifier.
    pub operation: OperationId,
    /// The server that the database comes from, as a superuser.
    pub source: ConnectionSpec,
    /// The database there.
    pub source_database: String,
    /// The server that it goes to, as a superuser.
    pub target: ConnectionSpec,
    /// Its name there.
    pub new_name: DatabaseName,
    /// What if that name has a database.
    pub existing: Existing,
    /// What if sessions are open in the database to be replaced.
    pub sessions: OpenSessions,
    /// What if roles are missing.
    pub missing_roles: MissingRoles,
    /// Where things go.
    pub tablespaces: TablespaceUse,
    /// How contents are carried.
    pub method: Method,
    /// Replicas that are to have the database, by their application names, besides those that are connected.
    pub replicas: Vec<String>,
    /// What if replicas do not keep up.
    pub replica_policy: ReplicaPolicy,
    /// `pg_dump` and `pg_restore`: not older than the source, not newer than the target.
    pub binaries: PgBinaries,
    /// Streams at a time.
    pub jobs: usize,
    /// A directory of this operation's own, for definitions and the journal.
    pub work_directory: PathBuf,
}

/// What if the name is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Refuse.
    Refuse,
    /// Rename that database and take its name.
    Replace,
}

/// What if sessions are open in the database to be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OpenSessions {
    /// Refuse; at the end, wait a minute for them.
    Refuse,
    /// End them at the moment of the rename.
    End,
}

/// What if roles are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissingRoles {
    /// Refuse.
    Refuse,
    /// Create them, without passwords and without the right to log in.
    Create,
}

/// Which tablespaces are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TablespaceUse {
    /// Those of the same names.
    AsItWas,
    /// `pg_default` for everything.
    Default,
}

/// How contents are carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Definitions by `pg_dump`, rows by COPY from server to server.
    Copy,
    /// The source's files, put into the target's data directory. Needs a source that nobody needs afterwards: it is
    /// changed, and stopped.
    Files,
}

/// Where a move stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MoveState {
    /// The hidden database is made and filled.
    Moving,
    /// Source and target are compared.
    Checking,
    /// Replicas replay the hidden database.
    SeedingReplicas,
    /// The database is given its name.
    Registering,
    /// Everybody who may can use it.
    Online,
}

impl fmt::Display for MoveState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Moving => "moving",
            Self::Checking => "checking",
            Self::SeedingReplicas => "seeding replicas",
            Self::Registering => "registering",
            Self::Online => "online",
        })
    }
}

/// What happens while a move is carried out.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A state began.
    State(MoveState),
    /// A step was done that a crash would leave behind, or that a repair would have to go on from.
    Step(Step),
    /// Replicas that have not replayed everything, with the bytes they lack; `None` when not connected.
    ReplicasBehind(Vec<(String, Option<u64>)>),
    /// Sessions in the way of the rename.
    OpenSessions(Vec<String>),
    /// Sessions that were ended.
    SessionsEnded(Vec<String>),
    /// A database that is of no use any more and could not be dropped; a later start does it.
    Left(String),
    /// Something of the source's that the target did not take.
    NotTaken(String),
}

/// Steps whose effects outlive a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The journal was begun.
    Journalled,
    /// By files: the source was frozen and stopped.
    SourceStopped,
    /// By files: and the vessel is there.
    Frozen,
    /// By files: the vessel has its files.
    FilesPlaced,
    /// By files: the hidden database was made of it.
    Copied,
    /// Missing roles and the hidden database are there.
    Created,
    /// It has its tables, without rows.
    PreData,
    /// It has its rows.
    Rows,
    /// It is complete.
    PostData,
    /// The journal says that only registering is left.
    ReadyToRegister,
    /// The database has its name.
    Registered,
}

/// Asked before a database gets its name, with its OID: whether it still is to. `Err` says why it is not known.
pub type Gate = Arc<
    dyn Fn(Oid) -> BoxFuture<'static, Result<bool, Box<dyn Error + Send + Sync>>> + Send + Sync,
>;

/// How a move is watched and steered. Cheap to clone; all clones steer the same move.
#[derive(Clone)]
pub struct Control {
    /// How far it is; it can be cancelled here until it is registered.
    pub progress: Progress,
    listener: Arc<dyn Fn(Event) + Send + Sync>,
    without_replicas: Arc<AtomicBool>,
    room: Wanted,
    gate: Option<Gate>,
}

impl Control {
    /// With a listener, which must not block.
    pub fn new(progress: Progress, listener: impl Fn(Event) + Send + Sync + 'static) -> Self {
        Self {
            progress,
            listener: Arc::new(listener),
            without_replicas: Arc::default(),
            room: Wanted::default(),
            gate: None,
        }
    }

    /// The same control, which asks before a database gets its name: whoever asks for the restore can note its OID,
    /// so that it is known for what it is whatever happens next.
    #[must_use]
    pub fn with_gate(mut self, gate: Gate) -> Self {
        self.gate = Some(gate);
        self
    }

    /// The same control with another listener, which must not block either.
    pub fn with_listener(&self, listener: impl Fn(Event) + Send + Sync + 'static) -> Self {
        Self {
            progress: self.progress.clone(),
            listener: Arc::new(listener),
            without_replicas: self.without_replicas.clone(),
            room: self.room.clone(),
            gate: self.gate.clone(),
        }
    }

    /// The operator does not want to wait for replicas any longer.
    pub fn go_on_without_replicas(&self) {
        self.without_replicas.store(true, Ordering::Relaxed);
    }

    /// Ends the move once fewer bytes than these are left on a file system of the target's, whatever its size. What is
    /// left of it otherwise is a twentieth, at least 48 MiB and at most 512 MiB.
    pub fn leave_room(&self, bytes: ByteCount) {
        self.room.set(bytes);
    }

    fn goes_on_without_replicas(&self) -> bool {
        self.without_replicas.load(Ordering::Relaxed)
    }

    fn say(&self, event: Event) {
        (self.listener)(event);
    }

    async fn may_register(&self, database: Oid) -> Result<(), MoveError> {
        let Some(gate) = &self.gate else {
            return Ok(());
        };
        match gate(database).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(MoveError::Cancelled),
            Err(source) => Err(MoveError::Gate(source)),
        }
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control")
            .field("progress", &self.progress)
            .finish_non_exhaustive()
    }
}

/// A move that was carried out.
#[derive(Clone, Debug, PartialEq)]
pub struct Moved {
    /// The database.
    pub name: String,
    /// What the one it replaces is called now.
    pub kept: Option<String>,
    /// Rows that were copied one by one: none of what came with files.
    pub rows: u64,
    /// Which replicas have it.
    pub replicas: Seeded,
}

/// Looks at the target alone, for what speaks against any database of this name, version and size. Room that a
/// scratch server takes before, where it lies on the same file system, is not there for the database. What depends on
/// its contents is found by [`plan`], when there is a source.
///
/// # Errors
/// As for [`plan`].
pub async fn check_target(
    target: &ConnectionSpec,
    new_name: &DatabaseName,
    existing: Existing,
    sessions: OpenSessions,
    coming: (MajorVersion, ByteCount),
    (scratch, scratch_bytes): (&Path, ByteCount),
) -> Result<(), MoveError> {
    let session = Server::new(Side::Target, target).connect_any().await?;
    let mut target = TargetServer::read(&session, None, new_name.as_str()).await?;
    target.set_aside(scratch, scratch_bytes);
    let now = jiff::Timestamp::now();
    Ok(plan::check_target(
        new_name, existing, sessions, coming, &target, now,
    )?)
}

/// Looks at the target alone, for what speaks against files of that cluster. For after [`check_target`].
///
/// # Errors
/// As for [`plan`].
pub async fn check_target_for_files(
    target: &ConnectionSpec,
    cluster: SystemIdentifier,
) -> Result<(), MoveError> {
    let session = Server::new(Side::Target, target).connect_any().await?;
    let facts = files::facts::ServerFacts::read(&session).await?;
    match files::conditions::judge_target(&facts, cluster) {
        refusals if refusals.is_empty() => Ok(()),
        refusals => Err(Refusals(refusals).into()),
    }
}

/// Looks at both servers. Changes nothing on either.
///
/// # Errors
/// [`MoveError::Refused`] with everything that speaks against the move, and others when a server cannot be asked.
pub async fn plan(mut request: MoveRequest) -> Result<MovePlan, MoveError> {
    // A database that we are connected to cannot be renamed.
    if request.target.database() == request.new_name.as_str() {
        request.target = request.target.with_database("postgres");
    }
    let source = Server::new(Side::Source, &request.source);
    let source = source.connect(&request.source_database).await?;
    let database = SourceDatabase::read(&source, &request.source_database).await?;
    let session = Server::new(Side::Target, &request.target)
        .connect_any()
        .await?;
    let name = request.new_name.as_str();
    let mut target = TargetServer::read(&session, Some(&database.locale), name).await?;
    let mut facts = None;
    // Others may not ask, and are refused anyway.
    if target.superuser && !target.in_recovery {
        target.collation_faults = target::try_collations(&session, &database).await?;
        if request.method == Method::Files {
            facts = Some(files::facts::Facts::read(&source, &session).await?);
        }
    }
    let now = jiff::Timestamp::now();
    Ok(plan::make(request, database, &target, facts, now)?)
}
