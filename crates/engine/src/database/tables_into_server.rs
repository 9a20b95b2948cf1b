//! Single tables' restore into a running server, from the repository to their names there.

use std::path::PathBuf;

use everpoint_instance::{ConnectionSpec, PgBinaries};
use everpoint_repository::Repository;

use super::{
    DatabasePlan,
    into_server::{IntoServerError, binaries},
    journal::{Journal, Reach, TablesDestination},
    recovered::Recovered,
    scratch::ScratchError,
    watch::{Event, Watch},
};
use crate::transplant::{
    MissingRoles, TablespaceUse,
    name::OperationId,
    replicas::ReplicaPolicy,
    table::{self, Place, TablesMoved, TablesPlan, TablesRequest, name::TableName},
};

/// Which tables go into which running server, and how.
#[derive(Clone, Debug)]
pub struct TablesIntoServer {
    /// How a later start reaches the server, should this one die.
    pub reach: Reach,
    /// The server, as a superuser.
    pub target: ConnectionSpec,
    /// The tables, by their names at the target of the restore.
    pub tables: Vec<TableName>,
    /// The database that they go into, and the name of one.
    pub place: Place,
    /// What if roles are missing.
    pub missing_roles: MissingRoles,
    /// Where things go.
    pub tablespaces: TablespaceUse,
    /// Replicas that are to have them, besides those that are connected.
    pub replicas: Vec<String>,
    /// What if replicas do not keep up.
    pub replica_policy: ReplicaPolicy,
    /// Where PostgreSQL's programs are, when not in the usual places.
    pub bin_directory: Option<PathBuf>,
}

/// Tables that are online in the target. Their scratch server is still there, so that whoever dies before he has
/// noted the success finds it in the journal.
#[derive(Debug)]
#[must_use = "its scratch server is to be put away"]
pub struct TablesLanded {
    /// What was planned: what went where under which names.
    pub plan: TablesPlan,
    /// What was moved.
    pub moved: TablesMoved,
    recovered: Recovered,
}

impl TablesLanded {
    /// Removes the scratch server.
    ///
    /// # Errors
    /// When it does not stop, or something cannot be removed.
    pub async fn put_away(self, watch: &Watch) -> Result<(), ScratchError> {
        self.recovered.put_away(watch).await.map(drop)
    }
}

impl TablesIntoServer {
    /// Refuses what the target alone speaks against, before anything is fetched.
    ///
    /// # Errors
    /// See [`IntoServerError`].
    pub async fn check(&self, plan: &DatabasePlan) -> Result<(), IntoServerError> {
        let version = plan.chosen.resolved.backup.version;
        table::check_target(&self.target, &self.tables, &self.place, version).await?;
        binaries(&self.target, self.bin_directory.as_deref())
            .await
            .map(drop)
    }

    /// Restores the tables. What nothing but time would mend was refused by [`TablesIntoServer::check`]. `operation`
    /// names it in its journal.
    ///
    /// # Errors
    /// See [`IntoServerError`]. The server is then as it was before, unless the error says otherwise.
    pub async fn restore(
        &self,
        repository: &Repository,
        plan: &DatabasePlan,
        operation: Option<String>,
        watch: &Watch,
    ) -> Result<TablesLanded, IntoServerError> {
        for schema in table::clear(&self.target, &self.place.database).await? {
            watch.say(Event::LeftoverRemoved(schema));
        }
        let version = plan.chosen.resolved.backup.version;
        let binaries = PgBinaries::find(self.bin_directory.as_deref(), version)
            .await
            .map_err(IntoServerError::Binaries)?;
        let mut journal = Journal::new(plan, None);
        journal.operation = operation;
        journal.tables = Some(self.for_journal());
        let recovered = Recovered::bring(repository, plan, journal, &binaries, watch).await?;
        match self.fill(&recovered, plan.request.jobs, watch).await {
            Ok((plan, moved)) => Ok(TablesLanded {
                plan,
                moved,
                recovered,
            }),
            Err(error) => {
                let _ = recovered.put_away(watch).await;
                Err(error)
            }
        }
    }

    /// What a later start needs to know of it, should this one die.
    fn for_journal(&self) -> TablesDestination {
        let names = self.place.new_name.as_ref();
        let names = names.map_or(self.tables.as_slice(), std::slice::from_ref);
        let names: Vec<String> = names.iter().map(TableName::to_string).collect();
        TablesDestination {
            reach: self.reach.clone(),
            names: names.join(", "),
        }
    }

    /// Moves the tables of the recovered database there.
    async fn fill(
        &self,
        recovered: &Recovered,
        jobs: usize,
        watch: &Watch,
    ) -> Result<(TablesPlan, TablesMoved), IntoServerError> {
        let source = &recovered.server;
        let request = TablesRequest {
            operation: OperationId::new(),
            source: source.connection().clone(),
            source_database: source.name().to_owned(),
            target: self.target.clone(),
            tables: self.tables.clone(),
            place: self.place.clone(),
            missing_roles: self.missing_roles,
            tablespaces: self.tablespaces,
            replicas: self.replicas.clone(),
            replica_policy: self.replica_policy,
            binaries: binaries(&self.target, self.bin_directory.as_deref()).await?,
            jobs,
            work_directory: recovered.scratch.make_move_directory()?,
        };
        let plan = table::plan(request).await?;
        for remark in &plan.remarks {
            watch.say(Event::Remark(remark.clone()));
        }
        let control = recovered.control(watch);
        let moved = table::execute(&plan, &control).await?;
        Ok((plan, moved))
    }
}
