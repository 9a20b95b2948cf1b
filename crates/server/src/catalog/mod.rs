//! The catalog: principals, assignments, databases with their policies, operations. SQLite by sqlx.
//!
//! What backups there are is not in it: that is the repository's to tell. Times are microseconds since 1970.

mod assignments;
mod database_operations;
mod databases;
mod long_term;
mod operations;
mod principals;

use std::{
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use sqlx::{
    Row,
    sqlite::{
        SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
    },
};

pub use database_operations::{DatabaseOperation, DatabaseRequest, RestoreRequest, RestoreSource};
pub use databases::{DatabaseRow, SeenDatabase};
pub use long_term::LongTermRow;
pub use operations::{EventRow, OperationId, OperationKind, OperationRow, OperationState};
pub use principals::PrincipalRow;

/// Sessions to the catalog at once.
const SESSIONS: u32 = 8;
/// The steps that bring an older catalog up to this version, in their order.
const MIGRATIONS: &[&str] = &[
    include_str!("0001.sql"),
    include_str!("database_operations.sql"),
    include_str!("0002_long_term.sql"),
];

/// The catalog. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Catalog {
    pool: SqlitePool,
}

/// The catalog failed.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// It cannot be opened.
    #[error("the catalog {} cannot be opened", path.display())]
    Open {
        /// The file.
        path: PathBuf,
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
    pub async fn open(path: &Path) -> Result<Self, CatalogError> {
        // It holds the signing key: nobody else may read it, whoever made the directory. SQLite gives its other
        // files the same mode.
        std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path)
            .map_err(|source| CatalogError::Open {
                path: path.to_owned(),
                source: source.into(),
            })?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .foreign_keys(true)
            .journal_mode(SqliteJournalMode::Wal)
            // What was acknowledged outlives a power failure.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(std::time::Duration::from_secs(10));
        let pool = SqlitePoolOptions::new()
            .max_connections(SESSIONS)
            .connect_with(options)
            .await
            .map_err(|source| CatalogError::Open {
                path: path.to_owned(),
                source,
            })?;
        let catalog = Self { pool };
        catalog.migrate().await?;
        Ok(catalog)
    }

    async fn migrate(&self) -> Result<(), CatalogError> {
        sqlx::query("CREATE TABLE IF NOT EXISTS migrations (number BIGINT PRIMARY KEY)")
            .execute(&self.pool)
            .await?;
        let row = sqlx::query("SELECT count(*) AS done FROM migrations")
            .fetch_one(&self.pool)
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
            let mut transaction = self.pool.begin().await?;
            sqlx::raw_sql(*step).execute(&mut *transaction).await?;
            sqlx::query("INSERT INTO migrations (number) VALUES ($1)")
                .bind(number)
                .execute(&mut *transaction)
                .await?;
            transaction.commit().await?;
        }
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

fn uuid(text: &str, what: &'static str) -> Result<uuid::Uuid, CatalogError> {
    uuid::Uuid::try_parse(text).map_err(|_| CatalogError::Value {
        what,
        value: text.to_owned(),
    })
}

#[cfg(test)]
mod tests;
