//! Operations that were asked for on one database: what was asked for, and who works on it. They outlive the
//! service's end: what is queued stays so, and what ran is looked at when the service starts again.
//!
//! An operation *holds* its database's name: while it does no other one of that name is queued.

use std::collections::BTreeMap;

use everpoint_engine::progress::Reading;
use everpoint_pgformat::Oid;
use everpoint_repository::{CopyId, InstanceName};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::Row;

use super::{
    Catalog, CatalogError, OperationId, OperationKind, OperationRow, OperationState, Tags,
    microseconds, operations::KEPT_OPERATIONS,
};

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "what")]
pub enum DatabaseRequest {
    /// An empty database.
    Create {
        /// Its collation; the server's own when absent.
        collation: Option<String>,
    },
    /// A database of before.
    Restore(RestoreRequest),
    /// No database.
    Delete {
        /// It was being made by this operation, which has to end first.
        instead_of: Option<OperationId>,
        /// The OID of the one that is meant: another one may have its name when its turn comes. Absent when it is being
        /// made, and in what older versions wrote.
        #[serde(default)]
        oid: Option<u32>,
    },
}

/// Which database is to be restored, and as of when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RestoreRequest {
    /// The instance it is, or was, in.
    pub instance: InstanceName,
    /// Which one.
    pub source: RestoreSource,
    /// As of when; as late as possible when absent.
    pub point: Option<Timestamp>,
}

/// A database to be restored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum RestoreSource {
    /// One that lives, whatever its name was then.
    Living {
        /// Its OID; absent in what older versions wrote.
        #[serde(default)]
        oid: Option<u32>,
        /// Its name.
        name: String,
    },
    /// One that was deleted.
    Deleted {
        /// Its OID.
        oid: u32,
        /// Its name.
        name: String,
        /// When it was found to be gone.
        deleted_at: Timestamp,
    },
    /// One that a long-term copy holds.
    LongTerm {
        /// The copy.
        copy: CopyId,
        /// Its name there.
        name: String,
    },
}

/// An operation on one database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseOperation {
    /// The operation.
    pub row: OperationRow,
    /// The database.
    pub name: String,
    /// What was asked for.
    pub request: DatabaseRequest,
    /// The tags that the database is to have.
    pub tags: Tags,
    /// How often it was begun.
    pub attempts: u32,
    /// The server that works on it; empty while it is queued.
    pub server: String,
    /// The OID of the database that was about to get the name. It is made, once that one has it.
    pub made: Option<Oid>,
    /// Whether it holds the name.
    pub holds: bool,
}

const COLUMNS: &str = "SELECT o.id, o.kind, o.instance, o.actor, o.state, o.phase, o.total_bytes, o.done_bytes, o.stored_bytes, o.started_us, o.ended_us, o.error_code, o.error_text, d.name, d.request, d.attempts, d.server, d.tags, d.holds, d.made_oid FROM operations o JOIN database_operations d ON d.operation = o.id";

impl Catalog {
    /// Queues an operation. False when another one holds the name; `holds` says whether this one is to.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn queue_database_operation(
        &self,
        operation: &DatabaseOperation,
    ) -> Result<bool, CatalogError> {
        let row = &operation.row;
        let mut transaction = self.begin().await?;
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
        let request = serde_json::to_string(&operation.request).unwrap_or_default();
        let done = sqlx::query("INSERT INTO database_operations (operation, instance, name, holds, attempts, server, request, tags) VALUES ($1, $2, $3, $4, 0, '', $5, $6) ON CONFLICT DO NOTHING")
            .bind(row.id.to_string())
            .bind(&row.instance)
            .bind(&operation.name)
            .bind(i64::from(operation.holds))
            .bind(request)
            .bind(operation.tags.to_json())
            .execute(&mut *transaction)
            .await?;
        if done.rows_affected() == 0 {
            transaction.rollback().await?;
            return Ok(false);
        }
        // The details of a database's last restore are kept as long as its operation is.
        sqlx::query("DELETE FROM operations WHERE instance = $1 AND ended_us IS NOT NULL AND id NOT IN (SELECT id FROM operations WHERE instance = $1 ORDER BY started_us DESC LIMIT $2)")
            .bind(&row.instance)
            .bind(KEPT_OPERATIONS)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Writes down an operation that was done at once.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn add_done_operation(&self, row: &OperationRow) -> Result<(), CatalogError> {
        sqlx::query("INSERT INTO operations (id, kind, instance, actor, state, phase, total_bytes, done_bytes, stored_bytes, started_us, ended_us) VALUES ($1, $2, $3, $4, $5, $6, 0, 0, 0, $7, $8)")
            .bind(row.id.to_string())
            .bind(row.kind.as_str())
            .bind(&row.instance)
            .bind(&row.actor)
            .bind(row.state.as_str())
            .bind(&row.phase)
            .bind(microseconds(row.started_at))
            .bind(microseconds(row.ended_at.unwrap_or(row.started_at)))
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Begins what is queued, on `server`. Returns which attempt at it this is; `None` when it is not queued any more.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn claim_database_operation(
        &self,
        id: OperationId,
        server: &str,
    ) -> Result<Option<u32>, CatalogError> {
        let mut transaction = self.begin().await?;
        let done = sqlx::query("UPDATE operations SET state = $1, phase = $2 WHERE id = $3 AND state = $4 AND ended_us IS NULL")
            .bind(OperationState::InProgress.as_str())
            .bind("starting")
            .bind(id.to_string())
            .bind(OperationState::Pending.as_str())
            .execute(&mut *transaction)
            .await?;
        if done.rows_affected() == 0 {
            transaction.rollback().await?;
            return Ok(None);
        }
        let row = sqlx::query("UPDATE database_operations SET server = $1, attempts = attempts + 1 WHERE operation = $2 RETURNING attempts")
            .bind(server)
            .bind(id.to_string())
            .fetch_one(&mut *transaction)
            .await?;
        let attempts: i64 = row.try_get("attempts")?;
        transaction.commit().await?;
        Ok(Some(u32::try_from(attempts).unwrap_or(u32::MAX)))
    }

    /// Puts what was begun and undone back to where it was in the queue, unless a later attempt is made by now.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn requeue_database_operation(
        &self,
        attempt: &DatabaseOperation,
    ) -> Result<(), CatalogError> {
        let id = attempt.row.id;
        let mut transaction = self.begin().await?;
        let done = sqlx::query("UPDATE operations SET state = $1, phase = $2, total_bytes = 0, done_bytes = 0 WHERE id = $3 AND state = $4 AND ended_us IS NULL AND EXISTS (SELECT 1 FROM database_operations d WHERE d.operation = operations.id AND d.server = $5 AND d.attempts = $6)")
            .bind(OperationState::Pending.as_str())
            .bind("queued")
            .bind(id.to_string())
            .bind(OperationState::InProgress.as_str())
            .bind(&attempt.server)
            .bind(i64::from(attempt.attempts))
            .execute(&mut *transaction)
            .await?;
        if done.rows_affected() == 1 {
            sqlx::query("UPDATE database_operations SET server = '' WHERE operation = $1")
                .bind(id.to_string())
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// What servers had begun that are not there any more.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn abandoned_database_operations(
        &self,
    ) -> Result<Vec<DatabaseOperation>, CatalogError> {
        let text = format!(
            "{COLUMNS} WHERE o.ended_us IS NULL AND o.state <> $1 AND d.server NOT IN (SELECT home FROM servers) ORDER BY o.started_us, o.id"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(text))
            .bind(OperationState::Pending.as_str())
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(operation).collect()
    }

    /// Has an operation hold its name. False when another one does.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn hold_name(&self, id: OperationId) -> Result<bool, CatalogError> {
        let done = sqlx::query("UPDATE database_operations SET holds = 1 WHERE operation = $1 AND NOT EXISTS (SELECT 1 FROM database_operations o WHERE o.instance = database_operations.instance AND o.name = database_operations.name AND o.holds = 1 AND o.operation <> $1)")
            .bind(id.to_string())
            .execute(&self.pool)
            .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Writes down how far an attempt at an operation is. Returns its state, for it may have been asked to end; `None`
    /// when it is over, or a later attempt is made.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn note_database_progress(
        &self,
        attempt: &DatabaseOperation,
        phase: &str,
        reading: &Reading,
    ) -> Result<Option<OperationState>, CatalogError> {
        let number = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let row = sqlx::query("UPDATE operations SET phase = $1, total_bytes = $2, done_bytes = $3 WHERE id = $4 AND ended_us IS NULL AND EXISTS (SELECT 1 FROM database_operations d WHERE d.operation = operations.id AND d.server = $5 AND d.attempts = $6) RETURNING state")
            .bind(phase)
            .bind(number(reading.total_bytes))
            .bind(number(reading.done_bytes))
            .bind(attempt.row.id.to_string())
            .bind(&attempt.server)
            .bind(i64::from(attempt.attempts))
            .fetch_optional(&self.pool)
            .await?;
        let Some(row) = row else { return Ok(None) };
        OperationState::parse(row.try_get("state")?).map(Some)
    }

    /// Writes down that the database of this OID is about to get the name, before it does. False when the operation is
    /// over or to be cancelled, or a later attempt is made: then it must not.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn set_made(
        &self,
        attempt: &DatabaseOperation,
        made: Oid,
    ) -> Result<bool, CatalogError> {
        let done = sqlx::query("UPDATE database_operations SET made_oid = $1 WHERE operation = $2 AND server = $3 AND attempts = $4 AND EXISTS (SELECT 1 FROM operations o WHERE o.id = database_operations.operation AND o.state = $5 AND o.ended_us IS NULL)")
            .bind(i64::from(made.get()))
            .bind(attempt.row.id.to_string())
            .bind(&attempt.server)
            .bind(i64::from(attempt.attempts))
            .bind(OperationState::InProgress.as_str())
            .execute(&self.pool)
            .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Ends what is still queued. False when it has begun, or is over.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn cancel_queued(
        &self,
        id: OperationId,
        error: (&str, &str),
        now: Timestamp,
    ) -> Result<bool, CatalogError> {
        let mut transaction = self.begin().await?;
        let done = sqlx::query("UPDATE operations SET state = $1, ended_us = $2, error_code = $3, error_text = $4 WHERE id = $5 AND state = $6 AND ended_us IS NULL")
            .bind(OperationState::Cancelled.as_str())
            .bind(microseconds(now))
            .bind(error.0)
            .bind(error.1)
            .bind(id.to_string())
            .bind(OperationState::Pending.as_str())
            .execute(&mut *transaction)
            .await?;
        if done.rows_affected() == 0 {
            transaction.rollback().await?;
            return Ok(false);
        }
        sqlx::query("UPDATE database_operations SET holds = 0 WHERE operation = $1")
            .bind(id.to_string())
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Writes down how an attempt at an operation ended, and with it the operation, and gives its name free. False when
    /// it was over, or a later attempt is made.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn end_database_operation(
        &self,
        attempt: &DatabaseOperation,
        state: OperationState,
        error: Option<(&str, &str)>,
        now: Timestamp,
    ) -> Result<bool, CatalogError> {
        let id = attempt.row.id;
        let mut transaction = self.begin().await?;
        let done = sqlx::query("UPDATE operations SET state = $1, ended_us = $2, error_code = $3, error_text = $4 WHERE id = $5 AND ended_us IS NULL AND EXISTS (SELECT 1 FROM database_operations d WHERE d.operation = operations.id AND d.server = $6 AND d.attempts = $7)")
            .bind(state.as_str())
            .bind(microseconds(now))
            .bind(error.map(|(code, _)| code))
            .bind(error.map(|(_, text)| text))
            .bind(id.to_string())
            .bind(&attempt.server)
            .bind(i64::from(attempt.attempts))
            .execute(&mut *transaction)
            .await?;
        if done.rows_affected() == 0 {
            transaction.rollback().await?;
            return Ok(false);
        }
        sqlx::query("UPDATE database_operations SET holds = 0 WHERE operation = $1")
            .bind(id.to_string())
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Operations on databases that are not over, in the order in which they were asked for.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn open_database_operations(&self) -> Result<Vec<DatabaseOperation>, CatalogError> {
        let text = format!("{COLUMNS} WHERE o.ended_us IS NULL ORDER BY o.started_us, o.id");
        let rows = sqlx::query(sqlx::AssertSqlSafe(text))
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(operation).collect()
    }

    /// Those of one instance.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn open_operations_of(
        &self,
        instance: &InstanceName,
    ) -> Result<Vec<DatabaseOperation>, CatalogError> {
        let text = format!(
            "{COLUMNS} WHERE o.ended_us IS NULL AND d.instance = $1 ORDER BY o.started_us, o.id"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(text))
            .bind(instance.as_str())
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(operation).collect()
    }

    /// What was asked for by an operation; `None` when it is none on a database.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn database_operation(
        &self,
        id: OperationId,
    ) -> Result<Option<DatabaseOperation>, CatalogError> {
        let text = format!("{COLUMNS} WHERE o.id = $1");
        let row = sqlx::query(sqlx::AssertSqlSafe(text))
            .bind(id.to_string())
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(operation).transpose()
    }

    /// Which databases an instance's operations are about, of those that are about one.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn operation_names(
        &self,
        instance: &InstanceName,
    ) -> Result<BTreeMap<OperationId, String>, CatalogError> {
        let rows =
            sqlx::query("SELECT operation, name FROM database_operations WHERE instance = $1")
                .bind(instance.as_str())
                .fetch_all(&self.pool)
                .await?;
        rows.iter()
            .map(|row| {
                let id = super::uuid(row.try_get("operation")?, "an operation")?;
                Ok((id, row.try_get("name")?))
            })
            .collect()
    }

    /// Keeps what a restore is made of.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn set_details(&self, id: OperationId, details: &str) -> Result<(), CatalogError> {
        sqlx::query("UPDATE database_operations SET details = $1 WHERE operation = $2")
            .bind(details)
            .bind(id.to_string())
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// The last restore that made, or makes, a database of this name, and what it is made of.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn last_restore(
        &self,
        instance: &InstanceName,
        name: &str,
    ) -> Result<Option<(DatabaseOperation, Option<String>)>, CatalogError> {
        let columns = COLUMNS.replacen("d.holds", "d.holds, d.details", 1);
        let text = format!(
            "{columns} WHERE d.instance = $1 AND d.name = $2 AND o.kind = $3 ORDER BY o.started_us DESC, o.id LIMIT 1"
        );
        let row = sqlx::query(sqlx::AssertSqlSafe(text))
            .bind(instance.as_str())
            .bind(name)
            .bind(OperationKind::Restore.as_str())
            .fetch_optional(&self.pool)
            .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some((operation(&row)?, row.try_get("details")?)))
    }
}

fn operation(row: &sqlx::any::AnyRow) -> Result<DatabaseOperation, CatalogError> {
    let text: &str = row.try_get("request")?;
    let attempts: i64 = row.try_get("attempts")?;
    let holds: i64 = row.try_get("holds")?;
    let made: Option<i64> = row.try_get("made_oid")?;
    let made = made.map(u32::try_from).transpose();
    let made = made.map_err(|_| CatalogError::Value {
        what: "an OID",
        value: "out of range".to_owned(),
    })?;
    Ok(DatabaseOperation {
        row: super::operations::operation(row)?,
        name: row.try_get("name")?,
        request: serde_json::from_str(text).map_err(|_| CatalogError::Value {
            what: "a request",
            value: text.to_owned(),
        })?,
        tags: Tags::from_json(row.try_get("tags")?)?,
        attempts: u32::try_from(attempts).unwrap_or(u32::MAX),
        server: row.try_get("server")?,
        made: made.map(Oid::new),
        holds: holds == 1,
    })
}
