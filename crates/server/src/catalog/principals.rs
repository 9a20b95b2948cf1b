//! Service principals.

use jiff::Timestamp;
use sqlx::Row;
use uuid::Uuid;

use super::{Catalog, CatalogError, microseconds, uuid};
use crate::access::PrincipalId;

/// A service principal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrincipalRow {
    /// Its object id, which assignments name.
    pub id: PrincipalId,
    /// Its client id, which it signs in with.
    pub client_id: Uuid,
    /// For a person.
    pub name: String,
    /// Its secret's hash.
    pub secret: String,
}

impl Catalog {
    /// Adds a principal.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn add_principal(
        &self,
        row: &PrincipalRow,
        now: Timestamp,
    ) -> Result<(), CatalogError> {
        sqlx::query(
            "INSERT INTO principals (id, client_id, name, secret, created_us) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(row.id.to_string())
        .bind(row.client_id.to_string())
        .bind(&row.name)
        .bind(&row.secret)
        .bind(microseconds(now))
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// All principals.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn principals(&self) -> Result<Vec<PrincipalRow>, CatalogError> {
        let rows =
            sqlx::query("SELECT id, client_id, name, secret FROM principals ORDER BY name, id")
                .fetch_all(&self.pool)
                .await?;
        rows.iter()
            .map(|row| {
                Ok(PrincipalRow {
                    id: uuid(row.try_get("id")?, "a principal")?,
                    client_id: uuid(row.try_get("client_id")?, "a client id")?,
                    name: row.try_get("name")?,
                    secret: row.try_get("secret")?,
                })
            })
            .collect()
    }
}
