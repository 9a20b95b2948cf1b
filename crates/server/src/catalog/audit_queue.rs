//! What was done on the catalog directly, until the server that schedules has written it into its audit log.

use jiff::Timestamp;
use sqlx::{Any, Row, Transaction};
use uuid::Uuid;

use super::{Catalog, CatalogError, microseconds, time, uuid};

/// The most that is taken at once.
const MAX_TAKEN: i64 = 100;

/// Something that was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// When.
    pub time: Timestamp,
    /// By whom.
    pub principal: String,
    /// What.
    pub action: String,
    /// On what.
    pub scope: String,
    /// How, for a person.
    pub detail: String,
}

impl Catalog {
    /// Queues a line for the audit log.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn queue_audit(&self, done: &Done) -> Result<(), CatalogError> {
        let mut transaction = self.begin().await?;
        insert(&mut transaction, done).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// The oldest lines that wait, with their names.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn queued_audit(&self) -> Result<Vec<(Uuid, Done)>, CatalogError> {
        let rows = sqlx::query("SELECT id, time_us, principal, action, scope, detail FROM audit_queue ORDER BY time_us, id LIMIT $1")
            .bind(MAX_TAKEN)
            .fetch_all(&self.pool)
            .await?;
        rows.iter()
            .map(|row| {
                let done = Done {
                    time: time(row.try_get("time_us")?)?,
                    principal: row.try_get("principal")?,
                    action: row.try_get("action")?,
                    scope: row.try_get("scope")?,
                    detail: row.try_get("detail")?,
                };
                Ok((uuid(row.try_get("id")?, "a line")?, done))
            })
            .collect()
    }

    /// Forgets a line, once it is in the audit log.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn forget_audit(&self, id: Uuid) -> Result<(), CatalogError> {
        sqlx::query("DELETE FROM audit_queue WHERE id = $1")
            .bind(id.to_string())
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}

async fn insert(
    transaction: &mut Transaction<'static, Any>,
    done: &Done,
) -> Result<(), CatalogError> {
    sqlx::query("INSERT INTO audit_queue (id, time_us, principal, action, scope, detail) VALUES ($1, $2, $3, $4, $5, $6)")
        .bind(Uuid::now_v7().to_string())
        .bind(microseconds(done.time))
        .bind(&done.principal)
        .bind(&done.action)
        .bind(&done.scope)
        .bind(&done.detail)
        .execute(&mut **transaction)
        .await?;
    Ok(())
}
