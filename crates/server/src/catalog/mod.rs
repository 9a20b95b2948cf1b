//! The catalog: principals, assignments, databases with their policies, operations, and which server schedules.
//! SQLite or PostgreSQL by sqlx, with the same statements: plain SQL with numbered parameters.
//!
//! What backups there are is not in it: that is the repository's to tell. Times are microseconds since 1970.

mod address;
mod assignments;
mod audit_queue;
mod changes;
mod database_operations;
mod databases;
mod long_term;
mod operations;
mod principals;
mod rebuild;
mod servers;
mod tags;

use jiff::Timestamp;
use sqlx::{Any, AnyPool, Row, Transaction, any::AnyRow};

pub use address::{CatalogAddress, CatalogAddressError};
pub use audit_queue::Done;
pub use changes::{ACCESS, AccessSnapshot};
pub use database_operations::{DatabaseOperation, DatabaseRequest, RestoreRequest, RestoreSource};
pub use databases::{DatabaseRow, Differences, NewRetention, SeenDatabase, There};
pub use long_term::LongTermRow;
pub use operations::{EventRow, OperationId, OperationKind, OperationRow, OperationState};
pub use principals::{PrincipalKind, PrincipalRow, SecretId, SecretRow};
pub use rebuild::{Contents, InstanceContents};
pub use servers::{LeaseRow, ServerId, Term};
pub use tags::{Tags, TagsError};

/// The steps that bring an older catalog up to this version, in their order.
const MIGRATIONS: &[&str] = &[
    include_str!("0001.sql"),
    include_str!("0002.sql"),
    include_str!("0003_long_term.sql"),
    include_str!("0004_database_operations.sql"),
    include_str!("0005_homes.sql"),
    include_str!("0006_tags.sql"),
    include_str!("0007_made_databases.sql"),
    include_str!("0008_there_since.sql"),
];
/// The advisory lock in PostgreSQL under which servers that start at once migrate one after the other.
const MIGRATION_LOCK: i64 = 0x6576_6572_706f_696e;

/// The catalog. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Catalog {
    pool: AnyPool,
    sharing: Sharing,
}

/// Whether other servers may use the same catalog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// None may.
    Alone,
    /// They may.
    Shared,
}

/// The catalog failed.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// It cannot be opened.
    #[error("the catalog {place} cannot be opened")]
    Open {
        /// Its address.
        place: String,
        /// Why.
        source: sqlx::Error,
    },
    /// It was written by a newer version.
    #[error(
        "the catalog is of version {found}, newer than this everpoint knows ({known}). Use the newer everpoint"
    )]
    Newer {
        /// Its version.
        found: usize,
        /// The newest known.
        known: usize,
    },
    /// A statement failed.
    #[error("the catalog failed")]
    Query(#[from] sqlx::Error),
    /// A row says what no version wrote.
    #[error("the catalog holds `{value}` as {what}, which is none")]
    Value {
        /// What it should be.
        what: &'static str,
        /// As found.
        value: String,
    },
}

impl Catalog {
    /// Opens a catalog, or makes it; brings an older one up to this version.
    ///
    /// # Errors
    /// When it cannot be opened or is newer.
    pub async fn open(address: &CatalogAddress) -> Result<Self, CatalogError> {
        let pool = address.connect().await?;
        let sharing = match address {
            CatalogAddress::File(_) => Sharing::Alone,
            CatalogAddress::Postgres(_) => Sharing::Shared,
        };
        let catalog = Self { pool, sharing };
        catalog.migrate().await?;
        Ok(catalog)
    }

    /// Whether other servers may use it.
    pub fn sharing(&self) -> Sharing {
        self.sharing
    }

    /// A transaction that will write. In SQLite it holds the only lock there is from the start, so that it cannot
    /// find in the middle that another one was faster.
    async fn begin(&self) -> Result<Transaction<'static, Any>, CatalogError> {
        let statement = match self.sharing {
            Sharing::Alone => "BEGIN IMMEDIATE",
            Sharing::Shared => "BEGIN",
        };
        Ok(self.pool.begin_with(statement).await?)
    }

    /// All steps that are missing, in one transaction that keeps others out.
    async fn migrate(&self) -> Result<(), CatalogError> {
        let mut transaction = self.begin().await?;
        if self.sharing == Sharing::Shared {
            sqlx::query("SELECT pg_advisory_xact_lock($1)")
                .bind(MIGRATION_LOCK)
                .execute(&mut *transaction)
                .await?;
        }
        sqlx::query("CREATE TABLE IF NOT EXISTS migrations (number BIGINT PRIMARY KEY)")
            .execute(&mut *transaction)
            .await?;
        let row = sqlx::query("SELECT count(*) AS done FROM migrations")
            .fetch_one(&mut *transaction)
            .await?;
        let done: i64 = row.try_get("done")?;
        let done = usize::try_from(done).unwrap_or(usize::MAX);
        if done > MIGRATIONS.len() {
            return Err(CatalogError::Newer {
                found: done,
                known: MIGRATIONS.len(),
            });
        }
        for (number, step) in (1_i64..).zip(MIGRATIONS).skip(done) {
            sqlx::raw_sql(*step).execute(&mut *transaction).await?;
            sqlx::query("INSERT INTO migrations (number) VALUES ($1)")
                .bind(number)
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// A value that is set once and kept for ever, made by `make` when it is not there.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn kept(
        &self,
        name: &'static str,
        make: impl FnOnce() -> String,
    ) -> Result<String, CatalogError> {
        sqlx::query("INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING")
            .bind(name)
            .bind(make())
            .execute(&self.pool)
            .await?;
        let row = sqlx::query("SELECT value FROM meta WHERE name = $1")
            .bind(name)
            .fetch_one(&self.pool)
            .await?;
        Ok(row.try_get("value")?)
    }

    /// A value that is kept for ever, if it was set.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn known(&self, name: &'static str) -> Result<Option<String>, CatalogError> {
        let row = sqlx::query("SELECT value FROM meta WHERE name = $1")
            .bind(name)
            .fetch_optional(&self.pool)
            .await?;
        Ok(row.map(|row| row.try_get("value")).transpose()?)
    }

    /// Whether it answers.
    ///
    /// # Errors
    /// When it does not.
    pub async fn ping(&self) -> Result<(), CatalogError> {
        sqlx::query("SELECT 1").execute(&self.pool).await?;
        Ok(())
    }
}

fn microseconds(time: Timestamp) -> i64 {
    time.as_microsecond()
}

fn time(microseconds: i64) -> Result<Timestamp, CatalogError> {
    Timestamp::from_microsecond(microseconds).map_err(|_| CatalogError::Value {
        what: "a time",
        value: microseconds.to_string(),
    })
}

fn maybe_time(row: &AnyRow, name: &str) -> Result<Option<Timestamp>, CatalogError> {
    row.try_get::<Option<i64>, _>(name)?.map(time).transpose()
}

fn uuid(text: &str, what: &'static str) -> Result<uuid::Uuid, CatalogError> {
    uuid::Uuid::try_parse(text).map_err(|_| CatalogError::Value {
        what,
        value: text.to_owned(),
    })
}

#[cfg(test)]
mod tests;
