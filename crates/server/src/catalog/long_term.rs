//! Long-term policies, and which policies were written to the repository.

use everpoint_repository::{InstanceName, long_term::CopyReason};
use jiff::Timestamp;
use sqlx::{Row, sqlite::SqliteRow};

use super::{Catalog, CatalogError, DatabaseRow, microseconds, time};
use crate::policy::{EarlierCopy, LongTermPolicy, Period, WeekOfYear};

/// A database's long-term policy, which is not off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LongTermRow {
    /// The database's OID.
    pub oid: u32,
    /// When it was made.
    pub created_at: Timestamp,
    /// Its policy.
    pub policy: LongTermPolicy,
    /// Full backups that ended up to here were copied, or passed over.
    pub considered: Timestamp,
    /// Of which backups the last copies for each period were made, whether or not they are still there.
    pub last: Vec<EarlierCopy>,
}

impl LongTermRow {
    /// Whether it is that database's.
    pub fn is_of(&self, database: &DatabaseRow) -> bool {
        self.oid == database.oid && self.created_at == database.created_at
    }
}

impl Catalog {
    /// The long-term policies of an instance's databases, of those whose policy is not off.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn long_term_policies(
        &self,
        instance: &InstanceName,
    ) -> Result<Vec<LongTermRow>, CatalogError> {
        let rows = sqlx::query("SELECT oid, created_us, weekly, monthly, yearly, week_of_year, considered_us, last_weekly_us, last_monthly_us, last_yearly_us FROM long_term_policies WHERE instance = $1 ORDER BY oid, created_us")
            .bind(instance.as_str())
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(long_term).collect()
    }

    /// Sets the long-term policy of a database. One that was off touches only backups that end behind `now`.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn set_long_term(
        &self,
        instance: &InstanceName,
        database: &DatabaseRow,
        policy: &LongTermPolicy,
        now: Timestamp,
    ) -> Result<(), CatalogError> {
        if policy.is_off() {
            sqlx::query("DELETE FROM long_term_policies WHERE instance = $1 AND oid = $2 AND created_us = $3")
                .bind(instance.as_str())
                .bind(i64::from(database.oid))
                .bind(microseconds(database.created_at))
                .execute(&self.pool)
                .await?;
            return Ok(());
        }
        let (yearly, week) = match policy.yearly() {
            Some((period, week)) => (period, Some(i64::from(week.get()))),
            None => (Period::NONE, None),
        };
        sqlx::query("INSERT INTO long_term_policies (instance, oid, created_us, weekly, monthly, yearly, week_of_year, considered_us) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (instance, oid, created_us) DO UPDATE SET weekly = excluded.weekly, monthly = excluded.monthly, yearly = excluded.yearly, week_of_year = excluded.week_of_year")
            .bind(instance.as_str())
            .bind(i64::from(database.oid))
            .bind(microseconds(database.created_at))
            .bind(policy.weekly().to_string())
            .bind(policy.monthly().to_string())
            .bind(yearly.to_string())
            .bind(week)
            .bind(microseconds(now))
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Notes that a database's full backups up to a moment were copied, or passed over, and for which periods
    /// the last of them was copied.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn note_considered(
        &self,
        instance: &InstanceName,
        row: &LongTermRow,
        considered: Timestamp,
        copied_for: &[CopyReason],
    ) -> Result<(), CatalogError> {
        let last = |reason| {
            copied_for
                .contains(&reason)
                .then(|| microseconds(considered))
        };
        sqlx::query("UPDATE long_term_policies SET considered_us = $1, last_weekly_us = COALESCE($2, last_weekly_us), last_monthly_us = COALESCE($3, last_monthly_us), last_yearly_us = COALESCE($4, last_yearly_us) WHERE instance = $5 AND oid = $6 AND created_us = $7")
            .bind(microseconds(considered))
            .bind(last(CopyReason::Weekly))
            .bind(last(CopyReason::Monthly))
            .bind(last(CopyReason::Yearly))
            .bind(instance.as_str())
            .bind(i64::from(row.oid))
            .bind(microseconds(row.created_at))
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// The revision of an instance's policies that this catalog wrote to the repository last.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn policy_revision(
        &self,
        instance: &InstanceName,
    ) -> Result<Option<u32>, CatalogError> {
        let row = sqlx::query("SELECT revision FROM policy_documents WHERE instance = $1")
            .bind(instance.as_str())
            .fetch_optional(&self.pool)
            .await?;
        let number = row
            .map(|row| row.try_get::<i64, _>("revision"))
            .transpose()?;
        let value = |number: i64| {
            u32::try_from(number).map_err(|_| CatalogError::Value {
                what: "a revision",
                value: number.to_string(),
            })
        };
        number.map(value).transpose()
    }

    /// Notes the revision of an instance's policies in the repository.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn note_policy_revision(
        &self,
        instance: &InstanceName,
        revision: u32,
    ) -> Result<(), CatalogError> {
        sqlx::query("INSERT INTO policy_documents (instance, revision) VALUES ($1, $2) ON CONFLICT (instance) DO UPDATE SET revision = excluded.revision")
            .bind(instance.as_str())
            .bind(i64::from(revision))
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}

fn long_term(row: &SqliteRow) -> Result<LongTermRow, CatalogError> {
    let value = |what, value: String| CatalogError::Value { what, value };
    let period = |column| {
        let text: String = row.try_get(column)?;
        Period::parse(&text).map_err(|_| value("a period", text))
    };
    let week: Option<i64> = row.try_get("week_of_year")?;
    let week = week
        .map(|week| WeekOfYear::new(week).map_err(|_| value("a week", week.to_string())))
        .transpose()?;
    let yearly = period("yearly")?;
    let policy = LongTermPolicy::new(period("weekly")?, period("monthly")?, yearly, week);
    let mut last = Vec::new();
    for (column, reason) in [
        ("last_weekly_us", CopyReason::Weekly),
        ("last_monthly_us", CopyReason::Monthly),
        ("last_yearly_us", CopyReason::Yearly),
    ] {
        if let Some(taken) = row.try_get::<Option<i64>, _>(column)? {
            last.push(EarlierCopy {
                taken: time(taken)?,
                reasons: vec![reason],
            });
        }
    }
    let oid: i64 = row.try_get("oid")?;
    Ok(LongTermRow {
        last,
        oid: u32::try_from(oid).map_err(|_| value("an OID", oid.to_string()))?,
        created_at: time(row.try_get("created_us")?)?,
        policy: policy.map_err(|_| value("a yearly period", yearly.to_string()))?,
        considered: time(row.try_get("considered_us")?)?,
    })
}
