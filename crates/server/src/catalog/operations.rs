//! Operations and what happened in them.

use std::collections::BTreeSet;

use everpoint_engine::progress::Reading;
use everpoint_repository::InstanceName;
use jiff::Timestamp;
use sqlx::{Row, any::AnyRow};
use uuid::Uuid;

use super::{
    Catalog, CatalogError, maybe_time, microseconds, servers::ServerId, servers::Term, time, uuid,
};
use crate::scheduler::CLOCK_SLACK;

/// An operation's name.
pub type OperationId = Uuid;

/// The most operations of an instance that are listed; older ones are forgotten.
pub const KEPT_OPERATIONS: i64 = 1000;
/// The most events of an operation that are kept.
pub const KEPT_EVENTS: i64 = 1000;

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperationKind {
    /// Takes a full backup.
    FullBackup,
    /// Takes a differential.
    DifferentialBackup,
    /// Forgets what no policy wants.
    Expiry,
    /// Makes an empty database.
    Create,
    /// Brings a database back, under a name of its own.
    Restore,
    /// Deletes a database.
    Delete,
    /// Changes how long something is kept.
    PolicyChange,
    /// Sets a database's tags.
    TagChange,
    /// Asks another operation to end.
    Cancel,
    /// Makes a long-term copy.
    LongTermCopy,
    /// Deletes long-term copies whose time is over.
    LongTermExpiry,
    /// Deletes a long-term copy before its time.
    LongTermDelete,
}

impl OperationKind {
    /// All there are.
    const ALL: [Self; 12] = [
        Self::FullBackup,
        Self::DifferentialBackup,
        Self::Expiry,
        Self::LongTermCopy,
        Self::LongTermExpiry,
        Self::LongTermDelete,
        Self::Create,
        Self::Restore,
        Self::Delete,
        Self::PolicyChange,
        Self::TagChange,
        Self::Cancel,
    ];

    /// As it is stored and sent.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FullBackup => "FullBackup",
            Self::DifferentialBackup => "DifferentialBackup",
            Self::Expiry => "Expiry",
            Self::Create => "CreateManagedDatabase",
            Self::Restore => "RestoreManagedDatabase",
            Self::Delete => "DropManagedDatabase",
            Self::PolicyChange => "PolicyChange",
            Self::TagChange => "TagChange",
            Self::Cancel => "Cancel",
            Self::LongTermCopy => "LongTermCopy",
            Self::LongTermExpiry => "LongTermExpiry",
            Self::LongTermDelete => "LongTermDelete",
        }
    }

    /// Whether it takes a backup.
    pub const fn is_backup(self) -> bool {
        matches!(self, Self::FullBackup | Self::DifferentialBackup)
    }

    /// Whether the server that schedules begins it, and no other.
    pub const fn is_scheduled(self) -> bool {
        matches!(
            self,
            Self::FullBackup
                | Self::DifferentialBackup
                | Self::Expiry
                | Self::LongTermCopy
                | Self::LongTermExpiry
        )
    }

    /// Whether no other backup of the instance may begin while it is under way.
    pub const fn holds_writer(self) -> bool {
        matches!(
            self,
            Self::FullBackup | Self::DifferentialBackup | Self::Expiry
        )
    }

    /// For a person.
    pub const fn friendly(self) -> &'static str {
        match self {
            Self::FullBackup => "Full backup",
            Self::DifferentialBackup => "Differential backup",
            Self::Expiry => "Deletion of backups that no retention wants",
            Self::Create => "Creation of a database",
            Self::Restore => "Restore of a database",
            Self::Delete => "Deletion of a database",
            Self::PolicyChange => "Change of a retention",
            Self::TagChange => "Change of tags",
            Self::Cancel => "Cancellation of an operation",
            Self::LongTermCopy => "Long-term copy of a database",
            Self::LongTermExpiry => "Deletion of long-term copies whose time is over",
            Self::LongTermDelete => "Deletion of a long-term copy",
        }
    }
}

/// Where an operation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperationState {
    /// It waits for its turn.
    Pending,
    /// It runs.
    InProgress,
    /// It runs and was asked to end.
    CancelInProgress,
    /// It was done.
    Succeeded,
    /// It was not.
    Failed,
    /// It ended because it was asked to.
    Cancelled,
}

impl OperationState {
    const ALL: [Self; 6] = [
        Self::Pending,
        Self::InProgress,
        Self::CancelInProgress,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
    ];

    /// As it is stored and sent.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::InProgress => "InProgress",
            Self::CancelInProgress => "CancelInProgress",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
            Self::Cancelled => "Cancelled",
        }
    }

    /// Reads what is stored.
    pub(super) fn parse(text: &str) -> Result<Self, CatalogError> {
        let found = Self::ALL.into_iter().find(|state| state.as_str() == text);
        found.ok_or_else(|| value("a state", text))
    }
}

/// An operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperationRow {
    /// Its name.
    pub id: OperationId,
    /// What it does.
    pub kind: OperationKind,
    /// On this instance.
    pub instance: String,
    /// Who wanted it: an object id, or `service`.
    pub actor: String,
    /// Where it stands.
    pub state: OperationState,
    /// What is being done.
    pub phase: String,
    /// All bytes of the phase; 0 while unknown.
    pub total_bytes: u64,
    /// Those that are done.
    pub done_bytes: u64,
    /// Bytes added to the repository.
    pub stored_bytes: u64,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Why it failed, as a code and for a person.
    pub error: Option<(String, String)>,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRow {
    /// When.
    pub time: Timestamp,
    /// What.
    pub message: String,
}

/// How what ended with its server is ended: state, code and text.
pub(super) const INTERRUPTED: (OperationState, &str, &str) = (
    OperationState::Failed,
    "OperationInterrupted",
    "the service ended while this ran. What it had stored is removed before the next backup, which is taken by itself",
);

const COLUMNS: &str = "SELECT id, kind, instance, actor, state, phase, total_bytes, done_bytes, stored_bytes, started_us, ended_us, error_code, error_text FROM operations";

impl Catalog {
    /// Writes down that `owner` began an operation, and forgets its instance's oldest ones. With a `term` only
    /// while that is not over: false says that it is, and that nothing may begin.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn begin_operation(
        &self,
        row: &OperationRow,
        owner: ServerId,
        term: Option<Term>,
    ) -> Result<bool, CatalogError> {
        let mut transaction = self.begin().await?;
        let done = sqlx::query("INSERT INTO operations (id, kind, instance, actor, state, phase, total_bytes, done_bytes, stored_bytes, started_us, owner) SELECT $1, $2, $3, $4, $5, $6, 0, 0, 0, $7, $8 WHERE $9 OR EXISTS (SELECT 1 FROM leases WHERE owner = $8 AND term = $10)")
            .bind(row.id.to_string())
            .bind(row.kind.as_str())
            .bind(&row.instance)
            .bind(&row.actor)
            .bind(row.state.as_str())
            .bind(&row.phase)
            .bind(microseconds(row.started_at))
            .bind(owner.to_string())
            .bind(term.is_none())
            .bind(term.unwrap_or(0))
            .execute(&mut *transaction)
            .await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        sqlx::query("DELETE FROM operations WHERE instance = $1 AND ended_us IS NOT NULL AND id NOT IN (SELECT id FROM operations WHERE instance = $1 ORDER BY started_us DESC LIMIT $2)")
            .bind(&row.instance)
            .bind(KEPT_OPERATIONS)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// The instances whose writer is held by an operation, on any server.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn busy_instances(&self) -> Result<BTreeSet<String>, CatalogError> {
        let rows = sqlx::query("SELECT instance, kind FROM operations WHERE ended_us IS NULL")
            .fetch_all(&self.pool)
            .await?;
        let mut busy = BTreeSet::new();
        for row in &rows {
            if kind_of(row)?.holds_writer() {
                busy.insert(row.try_get("instance")?);
            }
        }
        Ok(busy)
    }

    /// Writes down how far an operation is. Returns its state: it may have been asked to end meanwhile, by another
    /// server, too. None when it is over.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn note_progress(
        &self,
        id: OperationId,
        reading: &Reading,
    ) -> Result<Option<OperationState>, CatalogError> {
        let number = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let row = sqlx::query("UPDATE operations SET phase = $1, total_bytes = $2, done_bytes = $3, stored_bytes = $4 WHERE id = $5 AND ended_us IS NULL RETURNING state")
            .bind(reading.phase)
            .bind(number(reading.total_bytes))
            .bind(number(reading.done_bytes))
            .bind(number(reading.stored_bytes))
            .bind(id.to_string())
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(state_of).transpose()
    }

    /// Writes down that an operation was asked to end; whoever runs it sees that within a second. False when it
    /// is over.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn note_cancel(&self, id: OperationId) -> Result<bool, CatalogError> {
        let done =
            sqlx::query("UPDATE operations SET state = $1 WHERE id = $2 AND ended_us IS NULL")
                .bind(OperationState::CancelInProgress.as_str())
                .bind(id.to_string())
                .execute(&self.pool)
                .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Writes down what happened in an operation; what comes behind its last place is left out.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn note_event(&self, id: OperationId, event: &EventRow) -> Result<(), CatalogError> {
        sqlx::query("INSERT INTO operation_events (operation, number, time_us, message) SELECT $1, count(*), $2, $3 FROM operation_events WHERE operation = $1 HAVING count(*) < $4")
            .bind(id.to_string())
            .bind(microseconds(event.time))
            .bind(&event.message)
            .bind(KEPT_EVENTS)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Writes down how an operation ended.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn end_operation(
        &self,
        id: OperationId,
        state: OperationState,
        error: Option<(&str, &str)>,
        now: Timestamp,
    ) -> Result<(), CatalogError> {
        sqlx::query("UPDATE operations SET state = $1, ended_us = $2, error_code = $3, error_text = $4 WHERE id = $5 AND ended_us IS NULL")
            .bind(state.as_str())
            .bind(microseconds(now))
            .bind(error.map(|(code, _)| code))
            .bind(error.map(|(_, text)| text))
            .bind(id.to_string())
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// An instance's operations, newest first.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn operations(
        &self,
        instance: &InstanceName,
    ) -> Result<Vec<OperationRow>, CatalogError> {
        let text = const_format(" WHERE instance = $1 ORDER BY started_us DESC, id LIMIT $2");
        let rows = sqlx::query(sqlx::AssertSqlSafe(text))
            .bind(instance.as_str())
            .bind(KEPT_OPERATIONS)
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(operation).collect()
    }

    /// An operation and what happened in it.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn operation(
        &self,
        id: OperationId,
    ) -> Result<Option<(OperationRow, Vec<EventRow>)>, CatalogError> {
        let row = sqlx::query(sqlx::AssertSqlSafe(const_format(" WHERE id = $1")))
            .bind(id.to_string())
            .fetch_optional(&self.pool)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let events = sqlx::query(
            "SELECT time_us, message FROM operation_events WHERE operation = $1 ORDER BY number",
        )
        .bind(id.to_string())
        .fetch_all(&self.pool)
        .await?;
        let events = events
            .iter()
            .map(|row| {
                Ok(EventRow {
                    time: time(row.try_get("time_us")?)?,
                    message: row.try_get("message")?,
                })
            })
            .collect::<Result<_, CatalogError>>()?;
        Ok(Some((operation(&row)?, events)))
    }

    /// How many attempts at a backup failed since the last that did not, and when the last ended. What was
    /// cancelled counts as neither.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn failures(
        &self,
        instance: &InstanceName,
    ) -> Result<(u32, Option<Timestamp>), CatalogError> {
        let rows = self.operations(instance).await?;
        let mut count = 0;
        let mut last = None;
        // What is dated ahead is older than it says, for a clock was set back.
        let latest = Timestamp::now() + CLOCK_SLACK;
        let is_ahead = |row: &OperationRow| {
            row.started_at.max(row.ended_at.unwrap_or(row.started_at)) > latest
        };
        let backups = rows
            .iter()
            .filter(|row| row.kind.is_backup() && !is_ahead(row));
        for row in backups {
            match row.state {
                OperationState::Failed => {
                    count += 1;
                    last = last.max(row.ended_at);
                }
                OperationState::Succeeded => break,
                _ => {}
            }
        }
        Ok((count, last))
    }
}

fn const_format(condition: &str) -> String {
    format!("{COLUMNS}{condition}")
}

fn value(what: &'static str, value: &str) -> CatalogError {
    CatalogError::Value {
        what,
        value: value.to_owned(),
    }
}

fn kind_of(row: &AnyRow) -> Result<OperationKind, CatalogError> {
    let kind: &str = row.try_get("kind")?;
    let found = OperationKind::ALL.into_iter().find(|k| k.as_str() == kind);
    found.ok_or_else(|| value("a kind of operation", kind))
}

fn state_of(row: &AnyRow) -> Result<OperationState, CatalogError> {
    OperationState::parse(row.try_get("state")?)
}

pub(super) fn operation(row: &AnyRow) -> Result<OperationRow, CatalogError> {
    let bytes = |name| -> Result<u64, CatalogError> {
        let number: i64 = row.try_get(name)?;
        Ok(u64::try_from(number).unwrap_or(0))
    };
    let code: Option<String> = row.try_get("error_code")?;
    let text: Option<String> = row.try_get("error_text")?;
    Ok(OperationRow {
        id: uuid(row.try_get("id")?, "an operation")?,
        kind: kind_of(row)?,
        instance: row.try_get("instance")?,
        actor: row.try_get("actor")?,
        state: state_of(row)?,
        phase: row.try_get("phase")?,
        total_bytes: bytes("total_bytes")?,
        done_bytes: bytes("done_bytes")?,
        stored_bytes: bytes("stored_bytes")?,
        started_at: time(row.try_get("started_us")?)?,
        ended_at: maybe_time(row, "ended_us")?,
        error: code.zip(text),
    })
}
