//! Small requests about a primary's WAL.

use everpoint_pgformat::Lsn;
use tokio_postgres::{Client, types::PgLsn};

use crate::connect::QueryError;

/// The longest name of a restore point (`MAXFNAMELEN` less 1, `xlogfuncs.c`).
pub const MAX_RESTORE_POINT_NAME_BYTES: usize = 63;

/// Writes a restore point and gives the position behind it. Not on a standby.
///
/// # Errors
/// See [`QueryError`].
pub async fn create_restore_point(client: &Client, name: &str) -> Result<Lsn, QueryError> {
    let what = "create a restore point";
    let row = client
        .query_one("SELECT pg_create_restore_point($1)", &[&name])
        .await
        .map_err(QueryError::when(what))?;
    lsn(&row, what)
}

/// Begins a new segment, and gives the position behind the last record of the former. Does nothing when
/// nothing was written since the last switch. Not on a standby.
///
/// # Errors
/// See [`QueryError`].
pub async fn switch_wal(client: &Client) -> Result<Lsn, QueryError> {
    position(
        client,
        "SELECT pg_switch_wal()",
        "switch to a new WAL segment",
    )
    .await
}

/// Up to where records have been made. Not on a standby.
///
/// # Errors
/// See [`QueryError`].
pub async fn current_wal_insert_lsn(client: &Client) -> Result<Lsn, QueryError> {
    let statement = "SELECT pg_current_wal_insert_lsn()";
    position(client, statement, "read the WAL insert position").await
}

/// Up to where WAL is on the server's disk, and can be streamed. Not on a standby.
///
/// # Errors
/// See [`QueryError`].
pub async fn current_wal_flush_lsn(client: &Client) -> Result<Lsn, QueryError> {
    let statement = "SELECT pg_current_wal_flush_lsn()";
    position(client, statement, "read the WAL flush position").await
}

/// Up to where a standby has replayed; `None` on a primary.
///
/// # Errors
/// See [`QueryError`].
pub async fn last_replayed_lsn(client: &Client) -> Result<Option<Lsn>, QueryError> {
    let what = "read the replay position";
    let row = client
        .query_one("SELECT pg_last_wal_replay_lsn()", &[])
        .await
        .map_err(QueryError::when(what))?;
    let position: Option<PgLsn> = row
        .try_get(0)
        .map_err(|error| QueryError::answer(what, error))?;
    Ok(position.map(|position| Lsn::new(position.into())))
}

async fn position(client: &Client, statement: &str, what: &'static str) -> Result<Lsn, QueryError> {
    let row = client
        .query_one(statement, &[])
        .await
        .map_err(QueryError::when(what))?;
    lsn(&row, what)
}

fn lsn(row: &tokio_postgres::Row, what: &'static str) -> Result<Lsn, QueryError> {
    let position: PgLsn = row
        .try_get(0)
        .map_err(|error| QueryError::answer(what, error))?;
    Ok(Lsn::new(position.into()))
}
