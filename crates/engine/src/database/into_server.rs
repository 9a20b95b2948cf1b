//! One database's restore into a running server, from the repository to its final name.

use std::path::{Path, PathBuf};

use everpoint_instance::{
    ConnectError, ConnectionSpec, FactsError, PgBinaries, ServerFacts, connect_sql,
    process::BinariesError,
};
use everpoint_pgformat::ByteCount;
use everpoint_repository::Repository;

use super::{
    DatabasePlan,
    journal::{self, Journal, Reach},
    recovered::Recovered,
    scratch::ScratchError,
    server::ScratchServerError,
    watch::{Event, Watch},
};
use crate::transplant::{
    self, Existing, Method, MissingRoles, MoveError, MoveRequest, Moved, OpenSessions,
    TablespaceUse,
    name::{DatabaseName, OperationId},
    replicas::ReplicaPolicy,
};

/// Into which running server a database goes, and how.
#[derive(Clone, Debug)]
pub struct IntoServer {
    /// How a later start reaches the server, should this one die.
    pub reach: Reach,
    /// The server, as a superuser.
    pub target: ConnectionSpec,
    /// The database's name there.
    pub name: DatabaseName,
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
    /// Replicas that are to have the database, besides those that are connected.
    pub replicas: Vec<String>,
    /// What if replicas do not keep up.
    pub replica_policy: ReplicaPolicy,
    /// Where PostgreSQL's programs are, when not in the usual places.
    pub bin_directory: Option<PathBuf>,
}

/// A database was not restored into the server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IntoServerError {
    /// The programs of the source's version, or of the target's. Nothing was begun.
    #[error("{0}. Nothing was restored")]
    Binaries(#[source] BinariesError),
    /// The target.
    #[error("the target server cannot be reached")]
    Connect(#[from] ConnectError),
    /// The target.
    #[error(transparent)]
    Facts(#[from] FactsError),
    /// Its way into the scratch server.
    #[error(transparent)]
    Recover(#[from] ScratchServerError),
    /// Its way into the target.
    #[error(transparent)]
    Move(#[from] MoveError),
    /// The scratch directory.
    #[error(transparent)]
    Scratch(#[from] ScratchError),
}

/// A database that is online in the target. Its scratch server is still there, so that whoever dies before he has
/// noted the success finds it in the journal.
#[derive(Debug)]
#[must_use = "its scratch server is to be put away"]
pub struct Landed {
    /// What was moved.
    pub moved: Moved,
    recovered: Recovered,
}

impl Landed {
    /// Removes the scratch server.
    ///
    /// # Errors
    /// When it does not stop, or something cannot be removed.
    pub async fn put_away(self, watch: &Watch) -> Result<(), ScratchError> {
        self.recovered.put_away(watch).await.map(drop)
    }
}

impl IntoServer {
    /// Refuses what the target alone speaks against, before anything is fetched.
    ///
    /// # Errors
    /// See [`IntoServerError`].
    pub async fn check(&self, plan: &DatabasePlan) -> Result<(), IntoServerError> {
        let source = plan.chosen.resolved.backup.version;
        let size = ByteCount::new(plan.file_bytes());
        let (existing, sessions) = (self.existing, self.sessions);
        let scratch = (
            plan.request.scratch.as_path(),
            ByteCount::new(plan.scratch_bytes()),
        );
        transplant::check_target(
            &self.target,
            &self.name,
            existing,
            sessions,
            (source, size),
            scratch,
        )
        .await?;
        if self.method == Method::Files {
            let cluster = plan.chosen.resolved.backup.system_identifier;
            transplant::check_target_for_files(&self.target, cluster).await?;
        }
        binaries(&self.target, self.bin_directory.as_deref())
            .await
            .map(drop)
    }

    /// What a later start needs to know of it, should this one die.
    pub fn for_journal(&self) -> journal::Destination {
        journal::Destination {
            reach: self.reach.clone(),
            name: self.name.clone(),
            sessions: self.sessions,
        }
    }

    /// Restores the database. What nothing but time would mend was refused by [`IntoServer::check`]. `operation` names
    /// it in its journal.
    ///
    /// # Errors
    /// See [`IntoServerError`]. The server is then as it was before, unless the error says otherwise.
    pub async fn restore(
        &self,
        repository: &Repository,
        plan: &DatabasePlan,
        operation: Option<String>,
        watch: &Watch,
    ) -> Result<Landed, IntoServerError> {
        self.clear(watch).await?;
        let version = plan.chosen.resolved.backup.version;
        let binaries = PgBinaries::find(self.bin_directory.as_deref(), version)
            .await
            .map_err(IntoServerError::Binaries)?;
        let mut journal = Journal::new(plan, Some(self.for_journal()));
        journal.operation = operation;
        let recovered = Recovered::bring(repository, plan, journal, &binaries, watch).await?;
        match self.fill(&recovered, plan.request.jobs, watch).await {
            Ok(moved) => Ok(Landed { moved, recovered }),
            Err(error) => {
                let _ = recovered.put_away(watch).await;
                Err(error)
            }
        }
    }

    /// Removes what moves that died have left there whose journals are lost.
    async fn clear(&self, watch: &Watch) -> Result<(), MoveError> {
        for leftover in transplant::leftovers(&self.target).await? {
            transplant::remove_leftover(&self.target, &leftover).await?;
            watch.say(Event::LeftoverRemoved(leftover.database));
        }
        Ok(())
    }

    /// Moves the recovered database there.
    async fn fill(
        &self,
        recovered: &Recovered,
        jobs: usize,
        watch: &Watch,
    ) -> Result<Moved, IntoServerError> {
        let source = &recovered.server;
        let request = MoveRequest {
            operation: OperationId::new(),
            source: source.connection().clone(),
            source_database: source.name().to_owned(),
            target: self.target.clone(),
            new_name: self.name.clone(),
            existing: self.existing,
            sessions: self.sessions,
            missing_roles: self.missing_roles,
            tablespaces: self.tablespaces,
            method: self.method,
            replicas: self.replicas.clone(),
            replica_policy: self.replica_policy,
            binaries: binaries(&self.target, self.bin_directory.as_deref()).await?,
            jobs,
            work_directory: recovered.scratch.make_move_directory()?,
        };
        let plan = transplant::plan(request).await?;
        for remark in &plan.remarks {
            watch.say(Event::Remark(remark.clone()));
        }
        let control = recovered.control(watch);
        Ok(transplant::execute(&plan, &control).await?)
    }
}

/// `pg_dump` and `pg_restore` of the target's version, which read every older one.
pub(super) async fn binaries(
    target: &ConnectionSpec,
    directory: Option<&Path>,
) -> Result<PgBinaries, IntoServerError> {
    let session = connect_sql(target, target.database()).await?;
    let version = ServerFacts::read(&session).await?.major;
    // The directory that is named may hold the source's version, and another one be installed too.
    if let Ok(found) = PgBinaries::find(directory, version).await {
        return Ok(found);
    }
    PgBinaries::find(None, version)
        .await
        .map_err(IntoServerError::Binaries)
}
