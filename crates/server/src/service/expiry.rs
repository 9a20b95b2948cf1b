//! Forgetting what no policy wants, always by a plan.

use everpoint_api::{ApiError, Code};
use everpoint_engine::expire;
use everpoint_instance::{InstanceLock, LockKind, connect_sql, lock::LockError};
use everpoint_repository::{
    InstanceName,
    retention::{self, ExpirePlan},
};
use jiff::{SignedDuration, Timestamp};

use super::{Observed, Service, operations::Failure};
use crate::{
    catalog::{DatabaseRow, OperationKind},
    policy::{RetentionDays, instance_retention},
};

/// Deleted databases are remembered so much longer than any policy wants something of them.
const REMEMBERED: SignedDuration = SignedDuration::from_hours(7 * 24);

/// How far back databases want to be restored: living ones, and those that were deleted at a moment.
fn wanted(
    databases: impl Iterator<Item = (RetentionDays, Option<Timestamp>)> + Clone,
    now: Timestamp,
) -> Option<RetentionDays> {
    let living = databases.clone().filter(|(_, deleted)| deleted.is_none());
    let deleted = databases.filter_map(|(days, deleted)| Some((days, deleted?)));
    instance_retention(living.map(|(days, _)| days), deleted, now)
}

impl Service {
    /// What of an instance no database's policy wants any more. None when it is not known what its databases
    /// want: then nothing may go.
    async fn expire_plan(&self, instance: &InstanceName) -> Result<Option<ExpirePlan>, Failure> {
        let plan = self.plan_with(instance, |row| row.retention).await?;
        Ok(plan.filter(|plan| !plan.backups.is_empty() || !plan.logs.is_empty()))
    }

    /// What the next expiry would forget if a database had another retention.
    ///
    /// # Errors
    /// When the catalog or the repository fails.
    pub async fn expire_plan_if(
        &self,
        instance: &InstanceName,
        changed: &DatabaseRow,
        days: RetentionDays,
    ) -> Result<ExpirePlan, ApiError> {
        let is_it =
            |row: &DatabaseRow| (row.oid, row.created_at) == (changed.oid, changed.created_at);
        let plan = self.plan_with(instance, |row| match is_it(row) {
            true => days,
            false => row.retention,
        });
        let plan = plan.await.map_err(|failure| {
            tracing::error!(%instance, "what would expire cannot be told: {}", failure.text);
            let text = "what would be forgotten cannot be told. The service's log says why";
            ApiError::new(Code::InternalServerError, text)
        })?;
        Ok(plan.unwrap_or_default())
    }

    async fn plan_with(
        &self,
        instance: &InstanceName,
        retention_of: impl Fn(&DatabaseRow) -> RetentionDays,
    ) -> Result<Option<ExpirePlan>, Failure> {
        let failed = |error: &dyn std::error::Error| Failure {
            code: "ExpiryFailed",
            text: crate::chain(error),
        };
        let now = Timestamp::now();
        let databases = self
            .catalog
            .databases(instance)
            .await
            .map_err(|e| failed(&e))?;
        let own = databases
            .iter()
            .map(|row| (retention_of(row), row.deleted_at));
        let Some(own) = wanted(own, now) else {
            return Ok(None);
        };
        let others = self.policies_of_others(instance).await;
        let others = others.map_err(|error| failed(error.as_ref()))?;
        let others = others.iter().map(|policy| {
            let days = i64::from(policy.short_term_days);
            let known = RetentionDays::of_deleted(days, RetentionDays::LONGEST);
            (known.unwrap_or(RetentionDays::LONGEST), policy.deleted_at)
        });
        let retention = wanted(others, now).map_or(own, |others| others.max(own));
        let backups = self
            .repository
            .backups(instance)
            .await
            .map_err(|e| failed(&e))?;
        let index = self
            .repository
            .log_index(instance)
            .await
            .map_err(|e| failed(&e))?;
        Ok(Some(retention::plan(
            &backups,
            &index,
            retention.window_start(now),
            now,
        )))
    }

    /// What a long-term copy reads may not go: the lock of those who make them, None while one does.
    async fn copying_lock(&self, observed: &Observed) -> Result<Option<InstanceLock>, Failure> {
        let failed = |error: &dyn std::error::Error| Failure {
            code: "ExpiryFailed",
            text: crate::chain(error),
        };
        let connection = &observed.connection;
        let session = connect_sql(connection, connection.database()).await;
        let session = session.map_err(|error| failed(&error))?;
        let name = observed.name.as_str();
        match InstanceLock::try_acquire(session, LockKind::LongTerm, name).await {
            Ok(lock) => Ok(Some(lock)),
            Err(LockError::Held { .. } | LockError::Contended { .. }) => Ok(None),
            Err(error) => Err(failed(&error)),
        }
    }

    /// Forgets databases that were deleted so long ago that no policy can want anything of them, but those that there are
    /// long-term copies of.
    async fn forget_databases(&self, instance: &InstanceName) {
        let forgetting = async {
            let limit = RetentionDays::LONGEST.window_start(Timestamp::now() - REMEMBERED);
            let rows = self.catalog.databases(instance).await;
            let rows = rows.map_err(|error| crate::chain(&error))?;
            let copies = self.copies(instance).await;
            let copies = copies.map_err(|error| crate::chain(&error))?;
            let has_copies =
                |row: &DatabaseRow| copies.iter().any(|copy| copy.oid.get() == row.oid);
            let gone: Vec<DatabaseRow> = rows
                .into_iter()
                .filter(|row| row.deleted_at.is_some_and(|at| at < limit) && !has_copies(row))
                .collect();
            let forgotten = self.catalog.forget_databases(instance, &gone).await;
            forgotten.map_err(|error| crate::chain(&error))
        };
        if let Err(error) = forgetting.await {
            tracing::warn!(%instance, "deleted databases are not forgotten: {error}");
        }
    }

    /// Forgets what may go, while no backup runs.
    pub(super) async fn expire(&self, instance: &InstanceName) {
        if !self.clock.is_believed() {
            return;
        }
        self.forget_databases(instance).await;
        match self.expire_plan(instance).await {
            Ok(None) => return,
            Ok(Some(_)) => {}
            Err(failure) => {
                // A damaged manifest, for example: nothing goes until somebody has looked.
                tracing::warn!(%instance, "nothing is expired: {}", failure.text);
                return;
            }
        }
        let Some(observed) = self.instance(instance) else {
            return;
        };
        // What a restore reads stays until that has ended.
        match self.is_restored_from(instance).await {
            Ok(false) => {}
            Ok(true) => {
                tracing::info!(%instance, "nothing is expired before the next backup, for a restore reads it");
                return;
            }
            Err(error) => {
                tracing::warn!(%instance, error = %crate::chain(&error), "nothing is expired");
                return;
            }
        }
        self.operate(OperationKind::Expiry, instance, async |_, say| {
            let failed = |error: &dyn std::error::Error| Failure {
                code: "ExpiryFailed",
                text: crate::chain(error),
            };
            let connection = &observed.connection;
            let session = connect_sql(connection, connection.database())
                .await
                .map_err(|error| failed(&error))?;
            let lock = InstanceLock::try_acquire(session, LockKind::Writer, instance.as_str())
                .await
                .map_err(|error| failed(&error))?;
            let copying = match self.copying_lock(&observed).await {
                Ok(copying) => copying,
                Err(failure) => {
                    lock.give_up().await;
                    return Err(failure);
                }
            };
            let result = async {
                if copying.is_none() {
                    say("a long-term copy is being made: nothing is forgotten before the next backup".to_owned());
                    return Ok(());
                }
                let read = self.is_restored_from(instance).await;
                if read.map_err(|error| failed(&error))? {
                    say("a restore reads it: nothing is forgotten before the next backup".to_owned());
                    return Ok(());
                }
                // Anew, now that nobody else writes.
                let Some(plan) = self.expire_plan(instance).await? else {
                    return Ok(());
                };
                for id in &plan.backups {
                    say(format!("forgets {id}"));
                }
                say(format!("forgets {} log backups", plan.logs.len()));
                expire::execute(&self.repository, instance, &plan, Some(&lock))
                    .await
                    .map(|_| ())
                    .map_err(|error| failed(&error))
            }
            .await;
            for lock in copying.into_iter().chain([lock]) {
                lock.give_up().await;
            }
            result
        })
        .await;
    }
}
