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
    rows.iter()
        .map(|row| {
            let scope: &str = row.try_get("scope")?;
            let assignment = Assignment {
                id: uuid(row.try_get("id")?, "an assignment")?,
                principal: uuid(row.try_get("principal")?, "a principal")?,
                role: uuid(row.try_get("role")?, "a role")?,
                scope: Scope::parse(scope).map_err(|_| CatalogError::Value {
                    what: "a scope",
                    value: scope.to_owned(),
                })?,
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
