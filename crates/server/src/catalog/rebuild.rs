//! Filling a new catalog with what the repository keeps.

use everpoint_repository::InstanceName;
use jiff::Timestamp;
use uuid::Uuid;

use super::{
    ACCESS, AccessSnapshot, Catalog, CatalogError, DatabaseRow, LongTermRow, Sharing, assignments,
    databases, long_term, principals,
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
    "database_operations",
    "long_term_policies",
    "policy_documents",
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
    /// What is known of instances.
    pub instances: Vec<InstanceContents>,
}

/// The databases of an instance, with their policies.
#[derive(Clone, Debug)]
pub struct InstanceContents {
    /// It.
    pub instance: InstanceName,
    /// The revision in the repository that this is.
    pub revision: u32,
    /// Its databases, living and deleted.
    pub databases: Vec<DatabaseRow>,
    /// The long-term policies of those whose policy is not off.
    pub long_term: Vec<LongTermRow>,
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
        for known in &contents.instances {
            let instance = &known.instance;
            for row in &known.databases {
                databases::insert(&mut transaction, instance, row).await?;
            }
            for row in &known.long_term {
                long_term::insert(&mut transaction, instance, row).await?;
            }
            long_term::insert_revision(&mut transaction, instance, known.revision).await?;
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
