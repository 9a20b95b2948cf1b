//! Backup mode: the time between `pg_backup_start` and `pg_backup_stop`, in which data files may be copied.
//!
//! Source: `src/backend/access/transam/xlogfuncs.c`, `xlog.c` (`do_pg_backup_start`, `do_pg_backup_stop`).

use everpoint_pgformat::{
    Lsn, TimelineId,
    backup_label::{BackupLabel, BackupLabelError, TablespaceMapEntry, parse_tablespace_map},
};
use tokio_postgres::types::PgLsn;

use crate::{
    connect::{QueryError, SqlClient},
    facts::ServerRole,
};

/// The longest label that `pg_backup_start` takes (`MAXPGPATH` less 1).
const MAX_LABEL_BYTES: usize = 1023;
/// SQLSTATE `object_not_in_prerequisite_state`: what both functions raise for every reason of their own.
const NOT_IN_STATE: &str = "55000";

const BEGIN: &str = "begin a backup";
const END: &str = "end a backup";

/// How the checkpoint that a backup begins with is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckpointMode {
    /// At once, at the cost of the database's throughput.
    Fast,
    /// Spread over part of `checkpoint_timeout`, so the start takes minutes.
    Spread,
}

/// A server in backup mode. It owns the session: dropping it ends the session, and with it the backup.
#[derive(Debug)]
pub struct BackupMode {
    client: SqlClient,
    start: BackupStart,
}

/// Where a backup began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupStart {
    /// Where replay must begin: the redo point of the backup's checkpoint.
    pub lsn: Lsn,
    /// The timeline of that position, as far as it can be known now; the label at the end is decisive.
    pub timeline: TimelineId,
    /// What the server was when it began.
    pub role: ServerRole,
}

/// What a backup needs besides the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupStop {
    /// Replay must reach here before the copy is consistent.
    pub stop_lsn: Lsn,
    /// What has to become the copy's `backup_label`.
    pub label_text: String,
    /// What has to become the copy's `tablespace_map`; empty without tablespaces.
    pub tablespace_map_text: String,
    /// What the label says.
    pub label: BackupLabel,
    /// What the map says.
    pub tablespaces: Vec<TablespaceMapEntry>,
}

/// Backup mode failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupModeError {
    /// A query failed.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// The label is too long or has a line break.
    #[error("a backup's label must be at most {MAX_LABEL_BYTES} bytes, in one line")]
    BadLabel,
    /// The server is not in the state for a backup.
    #[error(
        "the server cannot begin a backup now. On a primary, wal_level must be replica or logical; on a standby, its primary's full_page_writes must be on"
    )]
    CannotBegin(#[source] QueryError),
    /// The standby became a primary.
    #[error(
        "the standby was promoted during the backup, so its files fit no recovery. Take the backup again"
    )]
    Promoted(#[source] QueryError),
    /// The copy is spoilt.
    #[error(
        "the server refuses to end the backup, so its files fit no recovery. If the primary turned full_page_writes off meanwhile, turn it on; take the backup again"
    )]
    Spoilt(#[source] QueryError),
    /// The server gave a label that cannot be read.
    #[error("the server gave an unreadable backup label")]
    Label(#[from] BackupLabelError),
    /// The server gave a map that cannot be read.
    #[error("the server gave an unreadable tablespace map")]
    TablespaceMap,
}

impl BackupMode {
    /// Puts the server into backup mode, with a session that does nothing else until [`BackupMode::stop`].
    /// When this is dropped while it waits for the checkpoint, the start is cancelled.
    ///
    /// # Errors
    /// See [`BackupModeError`].
    pub async fn start(
        client: SqlClient,
        label: &str,
        checkpoint: CheckpointMode,
    ) -> Result<Self, BackupModeError> {
        if label.len() > MAX_LABEL_BYTES || label.contains(['\n', '\r', '\0']) {
            return Err(BackupModeError::BadLabel);
        }
        let failed = QueryError::when(BEGIN);
        let role = role(&client, BEGIN).await?;
        let fast = checkpoint == CheckpointMode::Fast;
        let cancel = client.cancel_on_drop();
        let row = client
            .query_one("SELECT pg_backup_start($1, $2)", &[&label, &fast])
            .await;
        cancel.disarm();
        let row = row.map_err(failed).map_err(|error| match error.code() {
            Some(NOT_IN_STATE) => BackupModeError::CannotBegin(error),
            _ => BackupModeError::Query(error),
        })?;
        let lsn: PgLsn = row
            .try_get(0)
            .map_err(|error| QueryError::answer(BEGIN, error))?;
        let lsn = Lsn::new(lsn.into());
        let timeline = start_timeline(&client, role).await?;
        Ok(Self {
            client,
            start: BackupStart {
                lsn,
                timeline,
                role,
            },
        })
    }

    /// Where the backup began.
    pub fn start_point(&self) -> BackupStart {
        self.start
    }

    /// Whether the session is lost, and the backup with it.
    pub fn is_lost(&self) -> bool {
        self.client.is_closed()
    }

    /// Asks the server something harmless, so that a lost session or a promotion is found out early.
    ///
    /// # Errors
    /// [`BackupModeError::Query`] when the session is lost, [`BackupModeError::Promoted`].
    pub async fn check(&self) -> Result<(), BackupModeError> {
        let now = role(&self.client, "go on with a backup").await?;
        if self.start.role == ServerRole::Standby && now == ServerRole::Primary {
            return Err(BackupModeError::Promoted(QueryError::answer(
                "go on with a backup",
                "the server is no longer in recovery",
            )));
        }
        Ok(())
    }

    /// Ends backup mode without waiting for the server's own archiving. The copy is complete with the WAL
    /// from the start up to the stop position.
    ///
    /// # Errors
    /// See [`BackupModeError`]; after any of them the copied files are worthless.
    pub async fn stop(self) -> Result<BackupStop, BackupModeError> {
        let result = self
            .client
            .query_one(
                "SELECT lsn, labelfile, spcmapfile FROM pg_backup_stop(wait_for_archive => false)",
                &[],
            )
            .await
            .map_err(QueryError::when(END));
        let row = match result {
            Ok(row) => row,
            Err(error) if error.code() == Some(NOT_IN_STATE) => {
                let promoted = self.start.role == ServerRole::Standby
                    && role(&self.client, END).await? == ServerRole::Primary;
                return Err(match promoted {
                    true => BackupModeError::Promoted(error),
                    false => BackupModeError::Spoilt(error),
                });
            }
            Err(error) => return Err(error.into()),
        };
        let answer = |error| QueryError::answer(END, error);
        let stop_lsn: PgLsn = row.try_get(0).map_err(answer)?;
        let label_text: String = row.try_get(1).map_err(answer)?;
        let map_text: Option<String> = row.try_get(2).map_err(answer)?;
        let tablespace_map_text = map_text.unwrap_or_default();
        Ok(BackupStop {
            stop_lsn: Lsn::new(stop_lsn.into()),
            label: BackupLabel::parse(&label_text)?,
            tablespaces: parse_tablespace_map(&tablespace_map_text)
                .ok_or(BackupModeError::TablespaceMap)?,
            label_text,
            tablespace_map_text,
        })
    }
}

async fn role(client: &SqlClient, what: &'static str) -> Result<ServerRole, QueryError> {
    let row = client
        .query_one("SELECT pg_is_in_recovery()", &[])
        .await
        .map_err(QueryError::when(what))?;
    let in_recovery: bool = row
        .try_get(0)
        .map_err(|error| QueryError::answer(what, error))?;
    Ok(match in_recovery {
        true => ServerRole::Standby,
        false => ServerRole::Primary,
    })
}

/// A primary's timeline does not change while it is one. A standby begins at its last restartpoint,
/// which the control file names.
async fn start_timeline(client: &SqlClient, role: ServerRole) -> Result<TimelineId, QueryError> {
    let statement = match role {
        ServerRole::Primary => {
            "SELECT ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int"
        }
        ServerRole::Standby => "SELECT timeline_id FROM pg_control_checkpoint()",
    };
    let row = client
        .query_one(statement, &[])
        .await
        .map_err(QueryError::when(BEGIN))?;
    let timeline: i32 = row
        .try_get(0)
        .map_err(|error| QueryError::answer(BEGIN, error))?;
    TimelineId::new(timeline.cast_unsigned()).ok_or_else(|| QueryError::answer(BEGIN, "timeline 0"))
}
