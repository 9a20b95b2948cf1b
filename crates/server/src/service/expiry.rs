//! Forgetting what no policy wants, always by a plan.

use everpoint_engine::expire;
use everpoint_instance::{InstanceLock, LockKind, connect_sql};
use everpoint_repository::{
    InstanceName,
    retention::{self, ExpirePlan},
};
use jiff::Timestamp;

use super::{Service, operations::Failure};
use crate::{catalog::OperationKind, policy::instance_retention};

impl Service {
    /// What of an instance no database's policy wants any more. None when it is not known what its databases
    /// want: then nothing may go.
    async fn expire_plan(&self, instance: &InstanceName) -> Result<Option<ExpirePlan>, Failure> {
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
        let living = databases.iter().filter(|row| row.deleted_at.is_none());
        let deleted = databases
            .iter()
            .filter_map(|row| Some((row.retention, row.deleted_at?)));
        let kept = instance_retention(living.map(|row| row.retention), deleted, now);
        let Some(retention) = kept else {
            return Ok(None);
        };
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
        let plan = retention::plan(&backups, &index, retention.window_start(now));
        Ok(Some(plan).filter(|plan| !plan.backups.is_empty() || !plan.logs.is_empty()))
    }

    /// Forgets what may go, while no backup runs.
    pub(super) async fn expire(&self, instance: &InstanceName) {
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
            Ok(true) => return,
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
            let result = async {
                // Anew, now that nobody else writes.
                let Some(plan) = self.expire_plan(instance).await? else {
                    return Ok(());
                };
                for id in &plan.backups {
                    say(format!("forgets {id}"));
                }
                say(format!("forgets {} log backups", plan.logs.len()));
                expire::execute(&self.repository, instance, &plan)
                    .await
                    .map(|_| ())
                    .map_err(|error| failed(&error))
            }
            .await;
            lock.give_up().await;
            result
        })
        .await;
    }
}
