//! The scratch server: it replays the log of one database in a cage, and is then a source to copy from.

use std::{io, path::PathBuf, time::Duration};

use everpoint_instance::{
    connect::{ConnectError, ConnectionSpec, Endpoint, QueryError, SqlClient, connect_sql},
    prepared::roll_back_prepared,
    process::{
        Milestone, PgBinaries, ProcessError, ServerProcess, StartOptions, StopMode,
        run_single_user, start_for_recovery,
    },
};
use everpoint_pgformat::{Oid, wal::filter::FilterCounts};
use everpoint_repository::Repository;

use super::{
    on_disk::{self, BOOTSTRAP_SUPERUSER, DATABASES, ROLES},
    scratch::{Scratch, ScratchError},
};
use crate::{
    progress::Progress,
    restore::{RestoreError, RestorePlan, recovery, recovery::Supplier},
    room::RoomError,
};

/// How long a scratch server may take to stop.
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// What hinders a copy and may be set for a database or a role: libraries that are not here, a read-only
/// database.
const SESSION_OPTIONS: &str = "-c session_preload_libraries= -c local_preload_libraries= \
     -c default_transaction_read_only=off -c default_transaction_deferrable=off";
/// From PostgreSQL 17 on triggers may fire at login.
const EVENT_TRIGGERS_FROM: u16 = 17;

/// How a server says that a database, though it is there, takes no connections (`object_not_in_prerequisite_state`).
const CLOSED: &str = "55000";

/// A scratch server that has replayed up to the target and takes connections.
#[derive(Debug)]
pub struct ScratchServer {
    process: ServerProcess,
    connection: ConnectionSpec,
    options: String,
    database: Oid,
    name: String,
    rolled_back: Vec<String>,
    opened: Opened,
    filter: FilterCounts,
}

/// Whether a database took connections at the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// It did.
    AsItWas,
    /// `ALLOW_CONNECTIONS` was false; it was set, else nothing could be done with it.
    ByUs,
}

/// The scratch server did not come up.
#[derive(Debug, thiserror::Error)]
pub enum ScratchServerError {
    /// The files or the log.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// The process.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// Its directory.
    #[error(transparent)]
    Scratch(#[from] ScratchError),
    /// Its catalogs.
    #[error("the catalogs of the scratch server in {} cannot be read", path.display())]
    Catalogs {
        /// The data directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The database is not among them.
    #[error(
        "database {database} is not in the catalogs that were restored. Report this: the log was understood wrongly"
    )]
    NoDatabase {
        /// Its OID.
        database: Oid,
    },
    /// It refuses a connection.
    #[error("the restored database cannot be connected to in the scratch server")]
    Connect(#[from] ConnectError),
    /// It takes no connections, whatever is tried.
    #[error("database `{name}` takes no connections in the scratch server")]
    Closed {
        /// Its name.
        name: String,
        /// What the server said.
        #[source]
        source: ConnectError,
    },
    /// A statement failed.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// Its disk fills up.
    #[error(transparent)]
    NoRoomLeft(#[from] RoomError),
    /// It was cancelled.
    #[error("the restore was cancelled")]
    Cancelled,
}

/// Starts a caged server on a directory that was restored for it, supplies the log, and waits until it has
/// been promoted. What was prepared and not committed in the database is rolled back.
///
/// # Errors
/// See [`ScratchServerError`]; the server is stopped then.
pub async fn start(
    repository: &Repository,
    plan: &RestorePlan,
    scratch: &Scratch,
    binaries: &PgBinaries,
    database: Oid,
    progress: &Progress,
) -> Result<ScratchServer, ScratchServerError> {
    progress.phase("recovering", plan.log_bytes.get());
    let supplier = Supplier::new(repository, plan)?;
    let mut options = StartOptions::caged(scratch.cage())
        // The log may make some, inside the directory.
        .setting("allow_in_place_tablespaces", "on");
    for (name, value) in recovery::settings(plan, 0) {
        options = options.setting(name, value);
    }
    let data = scratch.data();
    let mut process = start_for_recovery(binaries, &data, &options).await?;
    let mut filter = FilterCounts::default();
    let supply = async {
        filter = supplier.run(progress).await?;
        std::future::pending::<Result<(), RestoreError>>().await
    };
    tokio::select! {
        supplied = supply => supplied?,
        promoted = process.wait_until(Milestone::Promoted, None) => promoted?,
        () = progress.cancelled() => {
            process.stop(StopMode::Immediate, STOP_LIMIT).await?;
            return Err(ScratchServerError::Cancelled);
        }
    }
    let session_options = session_options(plan);
    let mut opened = Opened::AsItWas;
    let (connection, name, session) = match connect(&process, &session_options, database).await {
        Err(ScratchServerError::Closed { name, .. }) => {
            process.stop(StopMode::Fast, STOP_LIMIT).await?;
            let statement = format!(
                "UPDATE pg_catalog.pg_database SET datallowconn = true WHERE oid = {database}"
            );
            run_single_user(binaries, &data, &options, &name, &statement).await?;
            process = start_for_recovery(binaries, &data, &options).await?;
            process.wait_until(Milestone::Ready, None).await?;
            opened = Opened::ByUs;
            connect(&process, &session_options, database).await?
        }
        found => found?,
    };
    let rolled_back = roll_back_prepared(&session).await?;
    Ok(ScratchServer {
        process,
        connection,
        options: session_options,
        database,
        name,
        rolled_back,
        opened,
        filter,
    })
}

fn session_options(plan: &RestorePlan) -> String {
    let mut options = SESSION_OPTIONS.to_owned();
    if plan.resolved.backup.version.get() >= EVENT_TRIGGERS_FROM {
        options.push_str(" -c event_triggers=off");
    }
    options
}

/// Finds the names to connect with: of several versions of a row only one is the living one.
async fn connect(
    process: &ServerProcess,
    options: &str,
    database: Oid,
) -> Result<(ConnectionSpec, String, SqlClient), ScratchServerError> {
    let data = process.root().to_owned();
    let path = data.clone();
    let read = tokio::task::spawn_blocking(move || {
        let roles = on_disk::names(&data, ROLES, BOOTSTRAP_SUPERUSER)?;
        let names = on_disk::names(&data, DATABASES, database)?;
        Ok((roles, names))
    });
    let (roles, names) = read
        .await
        .map_err(|_| RestoreError::TaskLost)?
        .map_err(|source| ScratchServerError::Catalogs { path, source })?;
    let mut refused = None;
    for role in &roles {
        let Some(spec) = process.connection(role) else {
            continue;
        };
        for name in &names {
            let spec = spec.with_database(name).with_options(options);
            match connect_sql(&spec, name).await {
                Ok(session) => return Ok((spec, name.clone(), session)),
                Err(source) if source.code() == Some(CLOSED) => {
                    let name = name.clone();
                    return Err(ScratchServerError::Closed { name, source });
                }
                Err(error) => refused = Some(error),
            }
        }
    }
    Err(refused.map_or(ScratchServerError::NoDatabase { database }, Into::into))
}

impl ScratchServer {
    /// How to reach the restored database, as a superuser.
    pub fn connection(&self) -> &ConnectionSpec {
        &self.connection
    }

    /// libpq's environment variables that lead there.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let mut variables = vec![
            (
                "PGUSER",
                self.connection.user().unwrap_or_default().to_owned(),
            ),
            ("PGDATABASE", self.name.clone()),
            ("PGOPTIONS", self.options.clone()),
        ];
        if let Some(Endpoint::Unix { directory, port }) = self.connection.endpoints().first() {
            variables.push(("PGHOST", directory.display().to_string()));
            variables.push(("PGPORT", port.to_string()));
        }
        variables
    }

    /// The restored database.
    pub fn database(&self) -> Oid {
        self.database
    }

    /// Its name in the scratch server.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Transactions that had been prepared in it, and were rolled back.
    pub fn rolled_back(&self) -> &[String] {
        &self.rolled_back
    }

    /// Whether it took connections at the target.
    pub fn opened(&self) -> Opened {
        self.opened
    }

    /// What was taken out of the log.
    pub fn filter_counts(&self) -> FilterCounts {
        self.filter
    }

    /// The process.
    pub fn process(&mut self) -> &mut ServerProcess {
        &mut self.process
    }

    /// Stops it at once: nothing in it is wanted any more.
    ///
    /// # Errors
    /// When it does not stop.
    pub async fn stop(mut self) -> Result<(), ProcessError> {
        self.process.stop(StopMode::Immediate, STOP_LIMIT).await?;
        Ok(())
    }
}
