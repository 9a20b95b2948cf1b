//! Principals: those that sign in with a secret, users with a password, and users of another issuer.

use std::collections::HashMap;

use jiff::Timestamp;
use sqlx::{Any, Row, Transaction};
use uuid::Uuid;

use super::{Catalog, CatalogError, changes::note_access, maybe_time, microseconds, time, uuid};
use crate::access::{Assignment, PrincipalId};

/// A secret's name.
pub type SecretId = Uuid;

/// What a principal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrincipalKind {
    /// A program, with a client id and secrets.
    ServicePrincipal,
    /// A person, with a name and a password, or known to another issuer.
    User,
}

impl PrincipalKind {
    /// By its name.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::ServicePrincipal, Self::User]
            .into_iter()
            .find(|found| found.as_str() == text)
    }

    /// As it is stored and sent.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ServicePrincipal => "ServicePrincipal",
            Self::User => "User",
        }
    }
}

/// A principal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrincipalRow {
    /// Its object id, which assignments name.
    pub id: PrincipalId,
    /// What it signs in with; of a user, its object id.
    pub client_id: Uuid,
    /// For a person; what a user signs in with.
    pub name: String,
    /// What it is.
    pub kind: PrincipalKind,
    /// What another issuer calls it: only that one's tokens are its. None when it signs in here.
    pub external: Option<String>,
    /// Since when it may not sign in.
    pub disabled_at: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Its secrets, oldest first; of a user, its password.
    pub secrets: Vec<SecretRow>,
}

/// A secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretRow {
    /// Its name.
    pub id: SecretId,
    /// Its argon2 hash.
    pub hash: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on it is of no use.
    pub expires_at: Option<Timestamp>,
}

impl PrincipalRow {
    /// A service principal with at most one secret, made at `now`.
    pub fn service(
        id: PrincipalId,
        client_id: Uuid,
        name: impl Into<String>,
        secret: Option<SecretRow>,
        now: Timestamp,
    ) -> Self {
        Self {
            id,
            client_id,
            name: name.into(),
            kind: PrincipalKind::ServicePrincipal,
            external: None,
            disabled_at: None,
            created_at: now,
            secrets: secret.into_iter().collect(),
        }
    }

    /// A user that signs in here with a password, or, with `external`, elsewhere.
    pub fn user(
        id: PrincipalId,
        name: impl Into<String>,
        external: Option<String>,
        password: Option<SecretRow>,
        now: Timestamp,
    ) -> Self {
        Self {
            kind: PrincipalKind::User,
            external,
            ..Self::service(id, id, name, password, now)
        }
    }

    /// Whether it may do anything at all.
    pub fn is_enabled(&self) -> bool {
        self.disabled_at.is_none()
    }
}

impl SecretRow {
    /// A secret of which `hash` is kept.
    pub fn new(hash: impl Into<String>, now: Timestamp, expires_at: Option<Timestamp>) -> Self {
        Self {
            id: Uuid::new_v4(),
            hash: hash.into(),
            created_at: now,
            expires_at,
        }
    }

    /// Whether it is of use at `now`.
    pub fn is_valid(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|end| now < end)
    }
}

impl Catalog {
    /// Adds a principal with its secrets.
    ///
    /// # Errors
    /// When the catalog fails, or a user of that name is there.
    pub async fn add_principal(&self, row: &PrincipalRow) -> Result<(), CatalogError> {
        let mut transaction = self.begin().await?;
        insert(&mut transaction, row).await?;
        note_access(&mut transaction).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Adds a principal with an assignment, if there is no assignment yet. False when there is one.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn add_first_owner(
        &self,
        row: &PrincipalRow,
        assignment: &Assignment,
        now: Timestamp,
    ) -> Result<bool, CatalogError> {
        let mut transaction = self.begin().await?;
        // First, for it makes other servers wait.
        note_access(&mut transaction).await?;
        let found = sqlx::query("SELECT id FROM assignments LIMIT 1")
            .fetch_optional(&mut *transaction)
            .await?;
        if found.is_some() {
            return Ok(false);
        }
        insert(&mut transaction, row).await?;
        super::assignments::insert(&mut transaction, assignment, now).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Removes a principal with its secrets and assignments. False when there is none.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn remove_principal(&self, id: PrincipalId) -> Result<bool, CatalogError> {
        let mut transaction = self.begin().await?;
        sqlx::query("DELETE FROM assignments WHERE principal = $1")
            .bind(id.to_string())
            .execute(&mut *transaction)
            .await?;
        let done = sqlx::query("DELETE FROM principals WHERE id = $1")
            .bind(id.to_string())
            .execute(&mut *transaction)
            .await?;
        note_access(&mut transaction).await?;
        transaction.commit().await?;
        Ok(done.rows_affected() == 1)
    }

    /// Lets a principal sign in again, or not any more from `disabled_at` on.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn set_disabled(
        &self,
        id: PrincipalId,
        disabled_at: Option<Timestamp>,
    ) -> Result<(), CatalogError> {
        let mut transaction = self.begin().await?;
        sqlx::query("UPDATE principals SET disabled_us = $1 WHERE id = $2")
            .bind(disabled_at.map(microseconds))
            .bind(id.to_string())
            .execute(&mut *transaction)
            .await?;
        note_access(&mut transaction).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Gives a principal a secret more.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn add_secret(
        &self,
        principal: PrincipalId,
        secret: &SecretRow,
    ) -> Result<(), CatalogError> {
        self.change_secrets(principal, None, Some(secret)).await
    }

    /// Gives a user another password; all earlier ones are of no use any more.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn set_password(
        &self,
        principal: PrincipalId,
        password: &SecretRow,
    ) -> Result<(), CatalogError> {
        self.change_secrets(principal, Some(""), Some(password))
            .await
    }

    /// Takes a secret away.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn remove_secret(
        &self,
        principal: PrincipalId,
        secret: SecretId,
    ) -> Result<(), CatalogError> {
        self.change_secrets(principal, Some(&secret.to_string()), None)
            .await
    }

    /// Removes the named secret, or all when the name is empty, and adds one.
    async fn change_secrets(
        &self,
        principal: PrincipalId,
        remove: Option<&str>,
        add: Option<&SecretRow>,
    ) -> Result<(), CatalogError> {
        let mut transaction = self.begin().await?;
        if let Some(name) = remove {
            sqlx::query("DELETE FROM secrets WHERE principal = $1 AND ($2 = '' OR id = $2)")
                .bind(principal.to_string())
                .bind(name)
                .execute(&mut *transaction)
                .await?;
        }
        if let Some(secret) = add {
            insert_secret(&mut transaction, principal, secret).await?;
        }
        note_access(&mut transaction).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// All principals.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn principals(&self) -> Result<Vec<PrincipalRow>, CatalogError> {
        Ok(self.access_snapshot().await?.principals)
    }
}

pub(super) async fn read(
    transaction: &mut Transaction<'static, Any>,
) -> Result<Vec<PrincipalRow>, CatalogError> {
    let mut secrets: HashMap<PrincipalId, Vec<SecretRow>> = HashMap::new();
    let rows = sqlx::query(
        "SELECT id, principal, hash, created_us, expires_us FROM secrets ORDER BY created_us, id",
    )
    .fetch_all(&mut **transaction)
    .await?;
    for row in &rows {
        let principal = uuid(row.try_get("principal")?, "a principal")?;
        secrets.entry(principal).or_default().push(SecretRow {
            id: uuid(row.try_get("id")?, "a secret")?,
            hash: row.try_get("hash")?,
            created_at: time(row.try_get("created_us")?)?,
            expires_at: maybe_time(row, "expires_us")?,
        });
    }
    let rows = sqlx::query("SELECT id, client_id, name, kind, external, disabled_us, created_us FROM principals ORDER BY name, id")
        .fetch_all(&mut **transaction)
        .await?;
    rows.iter()
        .map(|row| {
            let kind: &str = row.try_get("kind")?;
            let id = uuid(row.try_get("id")?, "a principal")?;
            Ok(PrincipalRow {
                id,
                client_id: uuid(row.try_get("client_id")?, "a client id")?,
                name: row.try_get("name")?,
                kind: PrincipalKind::parse(kind).ok_or_else(|| CatalogError::Value {
                    what: "a kind of principal",
                    value: kind.to_owned(),
                })?,
                external: row.try_get("external")?,
                disabled_at: maybe_time(row, "disabled_us")?,
                created_at: time(row.try_get("created_us")?)?,
                secrets: secrets.remove(&id).unwrap_or_default(),
            })
        })
        .collect()
}

pub(super) async fn insert(
    transaction: &mut Transaction<'static, Any>,
    row: &PrincipalRow,
) -> Result<(), CatalogError> {
    sqlx::query("INSERT INTO principals (id, client_id, name, kind, external, disabled_us, created_us) VALUES ($1, $2, $3, $4, $5, $6, $7)")
        .bind(row.id.to_string())
        .bind(row.client_id.to_string())
        .bind(&row.name)
        .bind(row.kind.as_str())
        .bind(row.external.as_deref())
        .bind(row.disabled_at.map(microseconds))
        .bind(microseconds(row.created_at))
        .execute(&mut **transaction)
        .await?;
    for secret in &row.secrets {
        insert_secret(transaction, row.id, secret).await?;
    }
    Ok(())
}

async fn insert_secret(
    transaction: &mut Transaction<'static, Any>,
    principal: PrincipalId,
    secret: &SecretRow,
) -> Result<(), CatalogError> {
    sqlx::query("INSERT INTO secrets (id, principal, hash, created_us, expires_us) VALUES ($1, $2, $3, $4, $5)")
        .bind(secret.id.to_string())
        .bind(principal.to_string())
        .bind(&secret.hash)
        .bind(microseconds(secret.created_at))
        .bind(secret.expires_at.map(microseconds))
        .execute(&mut **transaction)
        .await?;
    Ok(())
}
