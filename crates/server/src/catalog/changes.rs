//! What changed: a number for each thing that servers remember, which grows with every change of it.

use std::collections::BTreeMap;

use everpoint_repository::InstanceName;
use jiff::Timestamp;
use sqlx::{Any, Row, Transaction};

use super::{Catalog, CatalogError, PrincipalRow, Sharing, assignments, principals};
use crate::access::Assignment;

/// Principals, their secrets, and assignments.
pub const ACCESS: &str = "access";

const COUNT: &str = "INSERT INTO changes (name, number) VALUES ($1, 1) ON CONFLICT (name) DO UPDATE SET number = changes.number + 1";

/// All principals and assignments at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessSnapshot {
    /// The number of the last change.
    pub number: i64,
    /// Principals with their secrets.
    pub principals: Vec<PrincipalRow>,
    /// Assignments with their beginnings.
    pub assignments: Vec<(Assignment, Timestamp)>,
}

impl Catalog {
    /// Principals and assignments as of one change.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn access_snapshot(&self) -> Result<AccessSnapshot, CatalogError> {
        let statement = match self.sharing {
            Sharing::Alone => "BEGIN",
            Sharing::Shared => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        };
        let mut transaction = self.pool.begin_with(statement).await?;
        let row = sqlx::query("SELECT number FROM changes WHERE name = $1")
            .bind(ACCESS)
            .fetch_one(&mut *transaction)
            .await?;
        let snapshot = AccessSnapshot {
            number: row.try_get("number")?,
            principals: principals::read(&mut transaction).await?,
            assignments: assignments::read(&mut transaction).await?,
        };
        transaction.commit().await?;
        Ok(snapshot)
    }

    /// Tells other servers that more of an instance can be restored, or less.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn note_instance_change(&self, instance: &InstanceName) -> Result<(), CatalogError> {
        sqlx::query(COUNT)
            .bind(format!("instance {instance}"))
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// The numbers of all changes, by what changed: [`ACCESS`], or `instance NAME`.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn changes(&self) -> Result<BTreeMap<String, i64>, CatalogError> {
        let rows = sqlx::query("SELECT name, number FROM changes")
            .fetch_all(&self.pool)
            .await?;
        rows.iter()
            .map(|row| Ok((row.try_get("name")?, row.try_get("number")?)))
            .collect()
    }

    /// Sees to it that the number of changes of access is greater than `number`.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn raise_access_changes(&self, number: i64) -> Result<(), CatalogError> {
        sqlx::query("UPDATE changes SET number = $1 WHERE name = $2 AND number < $1")
            .bind(number.saturating_add(1))
            .bind(ACCESS)
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}

/// Notes a change of access in the transaction that makes it. Holds others back until it ends.
pub(super) async fn note_access(
    transaction: &mut Transaction<'static, Any>,
) -> Result<(), CatalogError> {
    sqlx::query(COUNT)
        .bind(ACCESS)
        .execute(&mut **transaction)
        .await?;
    Ok(())
}
