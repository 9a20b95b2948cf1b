//! One of the two servers of a move: how it is reached, and SQL on it.

use everpoint_instance::{
    ConnectionSpec, SqlClient,
    connect::{LibpqConnection, connect_sql},
};
use everpoint_pgformat::MajorVersion;
use tokio_postgres::{
    Row,
    types::{FromSql, ToSql},
};

use super::error::{MoveError, Side};

/// Options of all sessions in the database being filled. What is done there is undone as a whole when it
/// fails, so nothing has to wait for the disk, or for synchronous standbys, before registering does.
const FILLING: &str = "-c synchronous_commit=off";
/// What would get into the way of sessions that are to come to an end.
const UNDISTURBED: &str = "-c default_transaction_read_only=off \
    -c session_replication_role=origin -c row_security=off -c lock_timeout=0 -c statement_timeout=0 \
    -c idle_in_transaction_session_timeout=0 -c idle_session_timeout=0";
/// Options of sessions whose work lasts, and that files of the server depend on: what they have committed is on
/// this server's disk.
const LASTING: &str = "-c synchronous_commit=local -c default_transaction_read_only=off \
    -c lock_timeout=0 -c statement_timeout=0 -c idle_in_transaction_session_timeout=0 -c idle_session_timeout=0";
/// Event triggers of the database, those on login among them, are not ours to fire (17 and later).
const WITHOUT_EVENT_TRIGGERS: &str = "-c event_triggers=off";
/// The version from which on there is `event_triggers`.
const EVENT_TRIGGERS_SETTING: u16 = 17;

/// A server.
#[derive(Clone, Debug)]
pub(super) struct Server {
    pub(super) side: Side,
    pub(super) spec: ConnectionSpec,
}

/// A session with one of the servers.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) side: Side,
    pub(super) client: SqlClient,
}

impl Server {
    pub(super) fn new(side: Side, spec: &ConnectionSpec) -> Self {
        Self {
            side,
            spec: spec.clone(),
        }
    }

    /// The same for sessions in a database that is being filled.
    pub(super) fn filling(&self, version: MajorVersion) -> Self {
        let undisturbed = self.undisturbed(version);
        Self {
            side: self.side,
            spec: undisturbed.spec.with_options(FILLING),
        }
    }

    /// The same for sessions that nothing of the database's is to disturb, and whose commits count.
    pub(super) fn undisturbed(&self, version: MajorVersion) -> Self {
        let mut spec = self.spec.with_options(UNDISTURBED);
        if version.get() >= EVENT_TRIGGERS_SETTING {
            spec = spec.with_options(WITHOUT_EVENT_TRIGGERS);
        }
        Self {
            side: self.side,
            spec,
        }
    }

    /// The same for a database that others use: what would fire for their changes does not fire for ours. Before
    /// there is a setting for event triggers, those that are always to fire do.
    pub(super) fn replaying(mut self) -> Self {
        self.spec = self
            .spec
            .with_options("-c session_replication_role=replica");
        self
    }

    /// The same for sessions whose work lasts. By the name they are found and ended, should the move be cancelled.
    pub(super) fn lasting(&self, name: &str) -> Self {
        Self {
            side: self.side,
            spec: self.spec.with_options(LASTING).with_application_name(name),
        }
    }

    pub(super) async fn connect(&self, database: &str) -> Result<Session, MoveError> {
        let side = self.side;
        let client = connect_sql(&self.spec, database)
            .await
            .map_err(|source| MoveError::Connect { side, source })?;
        Ok(Session { side, client })
    }

    /// A session in the database for sessions without one of their own.
    pub(super) async fn connect_any(&self) -> Result<Session, MoveError> {
        self.connect(self.spec.database()).await
    }

    /// How a program reaches a database where `session` has found the server.
    pub(super) fn libpq(
        &self,
        session: &Session,
        database: &str,
    ) -> Result<LibpqConnection, MoveError> {
        let side = self.side;
        self.spec
            .for_libpq(session.client.endpoint(), database)
            .map_err(|source| MoveError::Connect { side, source })
    }
}

impl Session {
    /// Runs statements that return nothing.
    pub(super) async fn run(&self, what: &str, sql: &str) -> Result<(), MoveError> {
        self.client
            .batch_execute(sql)
            .await
            .map_err(self.side.failed(what))
    }

    pub(super) async fn rows(
        &self,
        what: &str,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, MoveError> {
        self.client
            .query(sql, parameters)
            .await
            .map_err(self.side.failed(what))
    }

    /// The rows of a query, each made a value.
    pub(super) async fn all<T>(
        &self,
        what: &str,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
        make: impl Fn(&Row) -> Result<T, tokio_postgres::Error>,
    ) -> Result<Vec<T>, MoveError> {
        let rows = self.rows(what, sql, parameters).await?;
        rows.iter()
            .map(make)
            .collect::<Result<_, _>>()
            .map_err(self.side.failed(what))
    }

    /// The first column of a query's only row.
    pub(super) async fn value<T: for<'a> FromSql<'a>>(
        &self,
        what: &str,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<T, MoveError> {
        self.client
            .query_one(sql, parameters)
            .await
            .and_then(|row| row.try_get(0))
            .map_err(self.side.failed(what))
    }

    /// The first column of every row.
    pub(super) async fn column<T: for<'a> FromSql<'a>>(
        &self,
        what: &str,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<T>, MoveError> {
        self.all(what, sql, parameters, |row| row.try_get(0)).await
    }
}
