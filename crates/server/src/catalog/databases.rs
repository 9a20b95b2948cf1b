//! Databases, living and deleted, with their short-term policies.

use everpoint_repository::InstanceName;
use jiff::Timestamp;
use sqlx::{Any, Row, Transaction, any::AnyRow};

use super::{Catalog, CatalogError, ServerId, Tags, Term, maybe_time, microseconds, time};
use crate::policy::RetentionDays;

/// A database as its server shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenDatabase {
    /// Its OID.
    pub oid: u32,
    /// Its name.
    pub name: String,
    /// Its collation.
    pub collation: String,
    /// When it was made, as far as the server knows.
    pub created_at: Timestamp,
}

/// A database in the catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseRow {
    /// Its OID.
    pub oid: u32,
    /// Its name.
    pub name: String,
    /// Its collation.
    pub collation: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// Since when it can be restored, as far as backups go.
    pub there: There,
    /// Its short-term retention.
    pub retention: RetentionDays,
    /// When it was found to be gone.
    pub deleted_at: Option<Timestamp>,
    /// Its tags.
    pub tags: Tags,
}

/// Since when a database is there, by its server's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum There {
    /// Log or backups tell: it was there from then on, and not before.
    Since(Timestamp),
    /// It was seen then, and may have been there before.
    By(Timestamp),
}

impl There {
    /// From when on it certainly was there.
    pub fn time(self) -> Timestamp {
        match self {
            Self::Since(time) | Self::By(time) => time,
        }
    }
}

/// How an instance's databases differed from those that were known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Differences {
    /// So many are new.
    pub new: usize,
    /// So many are gone.
    pub gone: usize,
}

/// The retention of databases that the catalog meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewRetention {
    /// When none of the instance is known.
    pub first_look: RetentionDays,
    /// Else.
    pub later: RetentionDays,
}

impl From<RetentionDays> for NewRetention {
    fn from(first_look: RetentionDays) -> Self {
        Self {
            first_look,
            later: RetentionDays::DEFAULT,
        }
    }
}

impl Catalog {
    /// Writes down what databases an instance has: new ones get a policy, those that are gone are marked as
    /// deleted at `now`. One that was gone and is back, as on a server that was set back, has its policy again. Returns
    /// what is new and gone; `None`, and nothing is written down, when the term of whoever looked is over: another one
    /// may have written down a newer list.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn observe_databases(
        &self,
        instance: &InstanceName,
        seen: &[SeenDatabase],
        policy: impl Into<NewRetention>,
        by: Option<(ServerId, Term)>,
        now: Timestamp,
    ) -> Result<Option<Differences>, CatalogError> {
        let policy = policy.into();
        let mut transaction = self.begin().await?;
        if let Some((id, term)) = by
            && !super::servers::hold_term(&mut transaction, id, term).await?
        {
            transaction.rollback().await?;
            return Ok(None);
        }
        let known = read(&mut *transaction, instance).await?;
        let retention = match known.is_empty() {
            true => policy.first_look,
            false => policy.later,
        };
        let (mut new, mut gone) = (0, 0);
        for row in known.iter().filter(|row| row.deleted_at.is_none()) {
            let same = seen.iter().find(|seen| seen.oid == row.oid);
            match same {
                Some(seen) if seen.name == row.name && seen.collation == row.collation => {}
                Some(seen) => {
                    sqlx::query("UPDATE databases SET name = $1, \"collation\" = $2 WHERE instance = $3 AND oid = $4 AND deleted_us IS NULL")
                        .bind(&seen.name)
                        .bind(&seen.collation)
                        .bind(instance.as_str())
                        .bind(i64::from(row.oid))
                        .execute(&mut *transaction)
                        .await?;
                }
                None => {
                    sqlx::query("UPDATE databases SET deleted_us = $1 WHERE instance = $2 AND oid = $3 AND deleted_us IS NULL")
                        // By a clock that was behind it would have wanted nothing any more.
                        .bind(microseconds(now.max(row.created_at)))
                        .bind(instance.as_str())
                        .bind(i64::from(row.oid))
                        .execute(&mut *transaction)
                        .await?;
                    gone += 1;
                }
            }
        }
        let is_known = |oid| {
            known
                .iter()
                .any(|row| row.oid == oid && row.deleted_at.is_none())
        };
        for seen in seen.iter().filter(|seen| !is_known(seen.oid)) {
            // No two databases of one name get one OID: it is back, and its files may be newer.
            let back = known
                .iter()
                .filter(|row| row.oid == seen.oid && row.name == seen.name)
                .max_by_key(|row| row.deleted_at);
            let created_at = back.map_or(seen.created_at, |row| row.created_at);
            sqlx::query("INSERT INTO databases (instance, oid, created_us, name, \"collation\", retention_days, there_us) VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (instance, oid, created_us) DO UPDATE SET deleted_us = NULL, name = excluded.name, \"collation\" = excluded.\"collation\", retention_days = CASE databases.retention_days WHEN 0 THEN excluded.retention_days ELSE databases.retention_days END")
                .bind(instance.as_str())
                .bind(i64::from(seen.oid))
                .bind(microseconds(created_at))
                .bind(&seen.name)
                .bind(&seen.collation)
                .bind(i64::from(retention.get()))
                .bind(microseconds(now))
                .execute(&mut *transaction)
                .await?;
            new += 1;
        }
        transaction.commit().await?;
        Ok(Some(Differences { new, gone }))
    }

    /// All databases of an instance, living and deleted, by name.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn databases(
        &self,
        instance: &InstanceName,
    ) -> Result<Vec<DatabaseRow>, CatalogError> {
        read(&self.pool, instance).await
    }

    /// The databases of an instance, living and deleted, whose names are alike but for case, by name.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn databases_named(
        &self,
        instance: &InstanceName,
        name: &str,
    ) -> Result<Vec<DatabaseRow>, CatalogError> {
        let rows = sqlx::query("SELECT oid, created_us, name, \"collation\", retention_days, deleted_us, tags, there_us, there_known FROM databases WHERE instance = $1 AND lower(name) = lower($2) ORDER BY name, created_us")
            .bind(instance.as_str())
            .bind(name)
            .fetch_all(&self.pool)
            .await?;
        let mut found: Vec<_> = rows.iter().map(database).collect::<Result<_, _>>()?;
        // Catalogs do not agree on letters outside ASCII.
        found.retain(|row| row.name.eq_ignore_ascii_case(name));
        Ok(found)
    }

    /// Forgets databases, deleted ones, with their policies. Those that are back meanwhile stay.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn forget_databases(
        &self,
        instance: &InstanceName,
        rows: &[DatabaseRow],
    ) -> Result<(), CatalogError> {
        let mut transaction = self.begin().await?;
        for row in rows {
            let done = sqlx::query("DELETE FROM databases WHERE instance = $1 AND oid = $2 AND created_us = $3 AND deleted_us IS NOT NULL")
                .bind(instance.as_str())
                .bind(i64::from(row.oid))
                .bind(microseconds(row.created_at))
                .execute(&mut *transaction)
                .await?;
            if done.rows_affected() == 1 {
                sqlx::query("DELETE FROM long_term_policies WHERE instance = $1 AND oid = $2 AND created_us = $3")
                    .bind(instance.as_str())
                    .bind(i64::from(row.oid))
                    .bind(microseconds(row.created_at))
                    .execute(&mut *transaction)
                    .await?;
            }
        }
        transaction.commit().await?;
        Ok(())
    }

    /// Writes down since when databases are there.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn set_there(
        &self,
        instance: &InstanceName,
        known: &[(&DatabaseRow, Timestamp)],
    ) -> Result<(), CatalogError> {
        let mut transaction = self.begin().await?;
        for (row, since) in known {
            sqlx::query("UPDATE databases SET there_us = $1, there_known = 1 WHERE instance = $2 AND oid = $3 AND created_us = $4")
                .bind(microseconds(*since))
                .bind(instance.as_str())
                .bind(i64::from(row.oid))
                .bind(microseconds(row.created_at))
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// Sets the retention of one database. False when it is not known any more.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn set_retention(
        &self,
        instance: &InstanceName,
        row: &DatabaseRow,
        retention: RetentionDays,
    ) -> Result<bool, CatalogError> {
        let done = sqlx::query("UPDATE databases SET retention_days = $1 WHERE instance = $2 AND oid = $3 AND created_us = $4")
            .bind(i64::from(retention.get()))
            .bind(instance.as_str())
            .bind(i64::from(row.oid))
            .bind(microseconds(row.created_at))
            .execute(&self.pool)
            .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Sets the tags of the living database of a name. False when there is none.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn set_tags(
        &self,
        instance: &InstanceName,
        name: &str,
        tags: &Tags,
    ) -> Result<bool, CatalogError> {
        let done = sqlx::query("UPDATE databases SET tags = $1 WHERE instance = $2 AND name = $3 AND deleted_us IS NULL")
            .bind(tags.to_json())
            .bind(instance.as_str())
            .bind(name)
            .execute(&self.pool)
            .await?;
        Ok(done.rows_affected() > 0)
    }
}

async fn read(
    executor: impl sqlx::Executor<'_, Database = Any>,
    instance: &InstanceName,
) -> Result<Vec<DatabaseRow>, CatalogError> {
    let rows = sqlx::query("SELECT oid, created_us, name, \"collation\", retention_days, deleted_us, tags, there_us, there_known FROM databases WHERE instance = $1 ORDER BY name, created_us")
        .bind(instance.as_str())
        .fetch_all(executor)
        .await?;
    rows.iter().map(database).collect()
}

pub(super) async fn insert(
    transaction: &mut Transaction<'static, Any>,
    instance: &InstanceName,
    row: &DatabaseRow,
) -> Result<(), CatalogError> {
    sqlx::query("INSERT INTO databases (instance, oid, created_us, name, \"collation\", retention_days, deleted_us, tags, there_us, there_known) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)")
        .bind(instance.as_str())
        .bind(i64::from(row.oid))
        .bind(microseconds(row.created_at))
        .bind(&row.name)
        .bind(&row.collation)
        .bind(i64::from(row.retention.get()))
        .bind(row.deleted_at.map(microseconds))
        .bind(row.tags.to_json())
        .bind(microseconds(row.there.time()))
        .bind(i64::from(matches!(row.there, There::Since(_))))
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

fn database(row: &AnyRow) -> Result<DatabaseRow, CatalogError> {
    let (oid, days): (i64, i64) = (row.try_get("oid")?, row.try_get("retention_days")?);
    let value = |what, number: i64| CatalogError::Value {
        what,
        value: number.to_string(),
    };
    let there = time(row.try_get("there_us")?)?;
    let is_known: i64 = row.try_get("there_known")?;
    // Of a deleted one, 0 is a retention too.
    let retention = RetentionDays::of_deleted(days, RetentionDays::LONGEST);
    Ok(DatabaseRow {
        oid: u32::try_from(oid).map_err(|_| value("an OID", oid))?,
        name: row.try_get("name")?,
        collation: row.try_get("collation")?,
        created_at: time(row.try_get("created_us")?)?,
        there: match is_known {
            0 => There::By(there),
            _ => There::Since(there),
        },
        retention: retention.map_err(|_| value("a retention", days))?,
        deleted_at: maybe_time(row, "deleted_us")?,
        tags: Tags::from_json(row.try_get("tags")?)?,
    })
}
