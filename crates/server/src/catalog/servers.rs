//! Servers that share the catalog, and the lease of the one that schedules.
//!
//! No clock is compared with another one. Whoever lives counts its row's beats up; whoever looks on remembers by
//! its own monotonic clock since when a number has not grown.

use jiff::Timestamp;
use sqlx::{Any, Row, Transaction};
use uuid::Uuid;

use super::{Catalog, CatalogError, microseconds, operations::INTERRUPTED, uuid};

/// A run of a server; each start is another one.
pub type ServerId = Uuid;

/// The number of a term of scheduling. A later term has a greater one.
pub type Term = i64;

const LEASE: &str = "schedule";

/// The lease as it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseRow {
    /// Who has it.
    pub owner: Option<ServerId>,
    /// For the how manieth term.
    pub term: Term,
    /// How often it was renewed in this term.
    pub beats: i64,
}

/// Keeps the lease from changing hands until the transaction ends. False when the term is over.
pub(super) async fn hold_term(
    transaction: &mut Transaction<'static, Any>,
    id: ServerId,
    term: Term,
) -> Result<bool, CatalogError> {
    let done =
        sqlx::query("UPDATE leases SET term = term WHERE name = $1 AND owner = $2 AND term = $3")
            .bind(LEASE)
            .bind(id.to_string())
            .bind(term)
            .execute(&mut **transaction)
            .await?;
    Ok(done.rows_affected() == 1)
}

impl Catalog {
    /// Writes down that a server runs. `home` is what it calls itself after each start, `name` is for people.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn add_server(
        &self,
        id: ServerId,
        home: &str,
        name: &str,
        now: Timestamp,
    ) -> Result<(), CatalogError> {
        sqlx::query(
            "INSERT INTO servers (id, home, name, beats, started_us) VALUES ($1, $2, $3, 0, $4)",
        )
        .bind(id.to_string())
        .bind(home)
        .bind(name)
        .bind(microseconds(now))
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Forgets all servers and who schedules. Only for who knows to be alone.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn forget_servers(&self) -> Result<(), CatalogError> {
        let mut transaction = self.begin().await?;
        sqlx::query("DELETE FROM servers")
            .execute(&mut *transaction)
            .await?;
        sqlx::query("UPDATE leases SET owner = ''")
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Shows that a server lives. False when the others think that it does not, and have ended its operations.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn beat(&self, id: ServerId) -> Result<bool, CatalogError> {
        let done = sqlx::query("UPDATE servers SET beats = beats + 1 WHERE id = $1")
            .bind(id.to_string())
            .execute(&self.pool)
            .await?;
        Ok(done.rows_affected() == 1)
    }

    /// All servers and their beats.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn servers(&self) -> Result<Vec<(ServerId, i64)>, CatalogError> {
        let rows = sqlx::query("SELECT id, beats FROM servers")
            .fetch_all(&self.pool)
            .await?;
        rows.iter()
            .map(|row| Ok((uuid(row.try_get("id")?, "a server")?, row.try_get("beats")?)))
            .collect()
    }

    /// Strikes a server off that has not counted on since `beats` were seen; its operations are ended by
    /// [`Catalog::end_interrupted`]. A server that ends by itself gives no beats.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn remove_server(
        &self,
        id: ServerId,
        beats: Option<i64>,
    ) -> Result<(), CatalogError> {
        sqlx::query("DELETE FROM servers WHERE id = $1 AND ($2 OR beats = $3)")
            .bind(id.to_string())
            .bind(beats.is_none())
            .bind(beats.unwrap_or(0))
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Ends the operations of servers that are not there any more, but those on single databases, which are taken up
    /// again. Returns how many there were.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn end_interrupted(&self, now: Timestamp) -> Result<u64, CatalogError> {
        let done = sqlx::query("UPDATE operations SET state = $1, ended_us = $2, error_code = $3, error_text = $4 WHERE ended_us IS NULL AND owner NOT IN (SELECT id FROM servers) AND id NOT IN (SELECT operation FROM database_operations)")
            .bind(INTERRUPTED.0.as_str())
            .bind(microseconds(now))
            .bind(INTERRUPTED.1)
            .bind(INTERRUPTED.2)
            .execute(&self.pool)
            .await?;
        Ok(done.rows_affected())
    }

    /// Who schedules.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn lease(&self) -> Result<LeaseRow, CatalogError> {
        let row = sqlx::query("SELECT owner, term, beats FROM leases WHERE name = $1")
            .bind(LEASE)
            .fetch_one(&self.pool)
            .await?;
        let owner: &str = row.try_get("owner")?;
        Ok(LeaseRow {
            owner: match owner {
                "" => None,
                text => Some(uuid(text, "a server")?),
            },
            term: row.try_get("term")?,
            beats: row.try_get("beats")?,
        })
    }

    /// Takes the lease, if it still is as it was seen. Returns the new term.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn take_lease(
        &self,
        id: ServerId,
        seen: &LeaseRow,
    ) -> Result<Option<Term>, CatalogError> {
        let owner = seen.owner.map(|owner| owner.to_string());
        let term = seen.term.saturating_add(1);
        let done = sqlx::query("UPDATE leases SET owner = $1, term = $2, beats = 0 WHERE name = $3 AND owner = $4 AND term = $5 AND beats = $6")
            .bind(id.to_string())
            .bind(term)
            .bind(LEASE)
            .bind(owner.unwrap_or_default())
            .bind(seen.term)
            .bind(seen.beats)
            .execute(&self.pool)
            .await?;
        Ok((done.rows_affected() == 1).then_some(term))
    }

    /// Renews a term. False when it is over.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn renew_lease(&self, id: ServerId, term: Term) -> Result<bool, CatalogError> {
        let done = sqlx::query(
            "UPDATE leases SET beats = beats + 1 WHERE name = $1 AND owner = $2 AND term = $3",
        )
        .bind(LEASE)
        .bind(id.to_string())
        .bind(term)
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Gives the lease up, so that another server takes it at once.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn give_lease(&self, id: ServerId) -> Result<(), CatalogError> {
        sqlx::query("UPDATE leases SET owner = '' WHERE name = $1 AND owner = $2")
            .bind(LEASE)
            .bind(id.to_string())
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}
