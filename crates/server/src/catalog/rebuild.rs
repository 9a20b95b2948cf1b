//! Filling a new catalog with what the repository keeps.

use everpoint_repository::InstanceName;
use jiff::Timestamp;
use uuid::Uuid;

use super::{
    ACCESS, AccessSnapshot, Catalog, CatalogError, DatabaseRow, Sharing, assignments, databases,
    principals,
};

/// What all tables are, those first that others refer to.
const TABLES: &[&str] = &[
    "migrations",
    "meta",
    "principals",
    "secrets",
    "assignments",
    "databases",
    "operations",
    "operation_events",
    "changes",
    "servers",
    "leases",
    "audit_queue",
];

/// What a catalog is made of.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    /// The identifiers of tenant and subscription, with all principals and assignments.
    pub access: Option<(Uuid, Uuid, AccessSnapshot)>,
    /// The databases of each instance, with their policies.
    pub databases: Vec<(InstanceName, Vec<DatabaseRow>)>,
}

impl Catalog {
    /// Whether nobody has used it yet.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn is_empty(&self) -> Result<bool, CatalogError> {
        let row = sqlx::query("SELECT name FROM meta UNION ALL SELECT id FROM principals UNION ALL SELECT name FROM databases LIMIT 1")
            .fetch_optional(&self.pool)
            .await?;
        Ok(row.is_none())
    }

    /// Fills an empty catalog, all or nothing.
    ///
    /// # Errors
    /// When the catalog fails, or is not empty.
    pub async fn fill(&self, contents: &Contents) -> Result<(), CatalogError> {
        let mut transaction = self.begin().await?;
        if let Some((tenant, subscription, access)) = &contents.access {
            for (name, id) in [("tenant", tenant), ("subscription", subscription)] {
                sqlx::query("INSERT INTO meta (name, value) VALUES ($1, $2)")
                    .bind(name)
                    .bind(id.to_string())
                    .execute(&mut *transaction)
                    .await?;
            }
            sqlx::query("UPDATE changes SET number = $1 WHERE name = $2")
                .bind(access.number)
                .bind(ACCESS)
                .execute(&mut *transaction)
                .await?;
            for row in &access.principals {
                principals::insert(&mut transaction, row).await?;
            }
            for (assignment, since) in &access.assignments {
                assignments::insert(&mut transaction, assignment, *since).await?;
            }
        }
        for (instance, rows) in &contents.databases {
            for row in rows {
                databases::insert(&mut transaction, instance, row).await?;
            }
        }
        transaction.commit().await?;
        Ok(())
    }

    /// Moves all tables of a PostgreSQL catalog into a schema of their own, which keeps them as a copy, and makes
    /// new ones. Returns the schema's name. None when the catalog is a file, which is copied otherwise.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn set_aside(&self, now: Timestamp) -> Result<Option<String>, CatalogError> {
        if self.sharing == Sharing::Alone {
            return Ok(None);
        }
        let schema = now.strftime("everpoint_%Y%m%dt%H%M%Sz").to_string();
        let mut transaction = self.begin().await?;
        let create = format!("CREATE SCHEMA {schema}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(create))
            .execute(&mut *transaction)
            .await?;
        for table in TABLES {
            let statement = format!("ALTER TABLE {table} SET SCHEMA {schema}");
            sqlx::raw_sql(sqlx::AssertSqlSafe(statement))
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        // Statements that were prepared for the old tables go with their sessions.
        self.migrate().await?;
        Ok(Some(schema))
    }

    /// Ends all sessions.
    pub async fn close(self) {
        self.pool.close().await;
    }
}
