//! Operations and what happened in them.

use everpoint_engine::progress::Reading;
use everpoint_repository::InstanceName;
use jiff::Timestamp;
use sqlx::{Row, sqlite::SqliteRow};
use uuid::Uuid;

use super::{Catalog, CatalogError, microseconds, time, uuid};

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
    /// Asks another operation to end.
    Cancel,
    /// Makes a long-term copy.
    LongTermCopy,
    /// Deletes long-term copies whose time is over.
    LongTermExpiry,
}

impl OperationKind {
    /// All there are.
    const ALL: [Self; 10] = [
        Self::FullBackup,
        Self::DifferentialBackup,
        Self::Expiry,
        Self::LongTermCopy,
        Self::LongTermExpiry,
        Self::Create,
        Self::Restore,
        Self::Delete,
        Self::PolicyChange,
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
            Self::Cancel => "Cancel",
            Self::LongTermCopy => "LongTermCopy",
            Self::LongTermExpiry => "LongTermExpiry",
        }
    }

    /// Whether it takes a backup.
    pub const fn is_backup(self) -> bool {
        matches!(self, Self::FullBackup | Self::DifferentialBackup)
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
            Self::Cancel => "Cancellation of an operation",
            Self::LongTermCopy => "Long-term copy of a database",
            Self::LongTermExpiry => "Deletion of long-term copies whose time is over",
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
        found.ok_or_else(|| CatalogError::Value {
            what: "a state",
            value: text.to_owned(),
        })
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

const COLUMNS: &str = "SELECT id, kind, instance, actor, state, phase, total_bytes, done_bytes, stored_bytes, started_us, ended_us, error_code, error_text FROM operations";

impl Catalog {
    /// Writes down that an operation began, and forgets its instance's oldest ones.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn begin_operation(&self, row: &OperationRow) -> Result<(), CatalogError> {
        let mut transaction = self.pool.begin().await?;
        sqlx::query("INSERT INTO operations (id, kind, instance, actor, state, phase, total_bytes, done_bytes, stored_bytes, started_us) VALUES ($1, $2, $3, $4, $5, $6, 0, 0, 0, $7)")
            .bind(row.id.to_string())
            .bind(row.kind.as_str())
            .bind(&row.instance)
            .bind(&row.actor)
            .bind(row.state.as_str())
            .bind(&row.phase)
            .bind(microseconds(row.started_at))
            .execute(&mut *transaction)
            .await?;
        sqlx::query("DELETE FROM operations WHERE instance = $1 AND ended_us IS NOT NULL AND id NOT IN (SELECT id FROM operations WHERE instance = $1 ORDER BY started_us DESC LIMIT $2)")
            .bind(&row.instance)
            .bind(KEPT_OPERATIONS)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Writes down how far an operation is.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn note_progress(
        &self,
        id: OperationId,
        reading: &Reading,
    ) -> Result<(), CatalogError> {
        let number = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        sqlx::query("UPDATE operations SET phase = $1, total_bytes = $2, done_bytes = $3, stored_bytes = $4 WHERE id = $5 AND ended_us IS NULL")
            .bind(reading.phase)
            .bind(number(reading.total_bytes))
            .bind(number(reading.done_bytes))
            .bind(number(reading.stored_bytes))
            .bind(id.to_string())
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Writes down that an operation was asked to end.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn note_cancel(&self, id: OperationId) -> Result<(), CatalogError> {
        sqlx::query("UPDATE operations SET state = $1 WHERE id = $2 AND ended_us IS NULL")
            .bind(OperationState::CancelInProgress.as_str())
            .bind(id.to_string())
            .execute(&self.pool)
            .await?;
        Ok(())
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

    /// Ends what an earlier run of the service left unfinished, but operations on single databases, which are taken
    /// up again. Returns how many there were.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn end_interrupted(&self, now: Timestamp) -> Result<u64, CatalogError> {
        let text = "the service ended while this ran. What it had stored is removed before the next backup, which is taken by itself";
        let done = sqlx::query("UPDATE operations SET state = $1, ended_us = $2, error_code = $3, error_text = $4 WHERE ended_us IS NULL AND id NOT IN (SELECT operation FROM database_operations)")
            .bind(OperationState::Failed.as_str())
            .bind(microseconds(now))
            .bind("OperationInterrupted")
            .bind(text)
            .execute(&self.pool)
            .await?;
        Ok(done.rows_affected())
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
        let backups = rows.iter().filter(|row| row.kind.is_backup());
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

pub(super) fn operation(row: &SqliteRow) -> Result<OperationRow, CatalogError> {
    let (kind, state): (&str, &str) = (row.try_get("kind")?, row.try_get("state")?);
    let value = |what, value: &str| CatalogError::Value {
        what,
        value: value.to_owned(),
    };
    let bytes = |name| -> Result<u64, CatalogError> {
        let number: i64 = row.try_get(name)?;
        Ok(u64::try_from(number).unwrap_or(0))
    };
    let ended: Option<i64> = row.try_get("ended_us")?;
    let code: Option<String> = row.try_get("error_code")?;
    let text: Option<String> = row.try_get("error_text")?;
    Ok(OperationRow {
        id: uuid(row.try_get("id")?, "an operation")?,
        kind: OperationKind::ALL
            .into_iter()
            .find(|found| found.as_str() == kind)
            .ok_or_else(|| value("a kind of operation", kind))?,
        instance: row.try_get("instance")?,
        actor: row.try_get("actor")?,
        state: OperationState::parse(state)?,
        phase: row.try_get("phase")?,
        total_bytes: bytes("total_bytes")?,
        done_bytes: bytes("done_bytes")?,
        stored_bytes: bytes("stored_bytes")?,
        started_at: time(row.try_get("started_us")?)?,
        ended_at: ended.map(time).transpose()?,
        error: code.zip(text),
    })
}
