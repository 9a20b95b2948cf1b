//! Role assignments.

use jiff::Timestamp;
use sqlx::{Any, Row, Transaction};

use super::{Catalog, CatalogError, changes::note_access, microseconds, time, uuid};
use crate::access::{Assignment, AssignmentId, Scope};

impl Catalog {
    /// Adds an assignment.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn add_assignment(
        &self,
        assignment: &Assignment,
        now: Timestamp,
    ) -> Result<(), CatalogError> {
        let mut transaction = self.begin().await?;
        insert(&mut transaction, assignment, now).await?;
        note_access(&mut transaction).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Removes an assignment.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn remove_assignment(&self, id: AssignmentId) -> Result<(), CatalogError> {
        let mut transaction = self.begin().await?;
        sqlx::query("DELETE FROM assignments WHERE id = $1")
            .bind(id.to_string())
            .execute(&mut *transaction)
            .await?;
        note_access(&mut transaction).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Removes an assignment, unless nobody who is enabled has that role at that scope otherwise; says whether it did.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn remove_assignment_but_the_last(
        &self,
        assignment: &Assignment,
    ) -> Result<bool, CatalogError> {
        let mut transaction = self.begin().await?;
        // First, for it makes servers that do so at once wait for each other.
        note_access(&mut transaction).await?;
        sqlx::query("DELETE FROM assignments WHERE id = $1")
            .bind(assignment.id.to_string())
            .execute(&mut *transaction)
            .await?;
        let left = sqlx::query("SELECT a.id FROM assignments a JOIN principals p ON p.id = a.principal WHERE a.role = $1 AND a.scope = $2 AND p.disabled_us IS NULL LIMIT 1")
            .bind(assignment.role.to_string())
            .bind(assignment.scope.to_string())
            .fetch_optional(&mut *transaction)
            .await?;
        if left.is_none() {
            transaction.rollback().await?;
            return Ok(false);
        }
        transaction.commit().await?;
        Ok(true)
    }

    /// All assignments with their beginnings, oldest first.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn assignments(&self) -> Result<Vec<(Assignment, Timestamp)>, CatalogError> {
        Ok(self.access_snapshot().await?.assignments)
    }
}

pub(super) async fn read(
    transaction: &mut Transaction<'static, Any>,
) -> Result<Vec<(Assignment, Timestamp)>, CatalogError> {
    let rows = sqlx::query(
        "SELECT id, principal, role, scope, created_us FROM assignments ORDER BY created_us, id",
    )
    .fetch_all(&mut **transaction)
    .await?;
    let readable = rows.iter().filter_map(|row| {
        let text: &str = row.try_get("scope").unwrap_or_default();
        match Scope::parse(text) {
            Ok(scope) => Some((row, scope)),
            // What cannot be understood gives no right, and must not take those of everybody else.
            Err(error) => {
                tracing::error!(%error, "an assignment in the catalog counts for nothing");
                None
            }
        }
    });
    readable
        .map(|(row, scope)| {
            let assignment = Assignment {
                id: uuid(row.try_get("id")?, "an assignment")?,
                principal: uuid(row.try_get("principal")?, "a principal")?,
                role: uuid(row.try_get("role")?, "a role")?,
                scope,
            };
            Ok((assignment, time(row.try_get("created_us")?)?))
        })
        .collect()
}

pub(super) async fn insert(
    transaction: &mut Transaction<'static, Any>,
    assignment: &Assignment,
    now: Timestamp,
) -> Result<(), CatalogError> {
    sqlx::query(
        "INSERT INTO assignments (id, principal, role, scope, created_us) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(assignment.id.to_string())
    .bind(assignment.principal.to_string())
    .bind(assignment.role.to_string())
    .bind(assignment.scope.to_string())
    .bind(microseconds(now))
    .execute(&mut **transaction)
    .await?;
    Ok(())
}
