//! Policies kept in the repository, too, so that a catalog that is lost can be made anew.

use std::{collections::HashMap, error::Error};

use everpoint_pgformat::Oid;
use everpoint_repository::{
    InstanceName,
    policy_document::{DatabasePolicy, LongTermPeriods, PolicyDocument},
};
use jiff::Timestamp;
use tokio::sync::Mutex;

use super::Service;
use crate::{
    catalog::{DatabaseRow, LongTermRow, Term},
    policy::{LongTermPolicy, Period},
};

/// What was written of each instance last.
#[derive(Debug, Default)]
pub struct WrittenPolicies {
    /// In which term of scheduling: in another server's they may have been written otherwise.
    known: Mutex<HashMap<InstanceName, (Term, Vec<DatabasePolicy>)>>,
}

impl Service {
    /// Writes an instance's policies into the repository, if they are others than those there. Where another server
    /// schedules, that one does it when it looks at the instance next. What fails is told, and tried again when the
    /// server is looked at next.
    pub async fn store_policies(&self, instance: &InstanceName) {
        if let Err(error) = self.try_store_policies(instance).await {
            let error = crate::chain(error.as_ref());
            tracing::error!(%instance, error, "the policies cannot be written into the repository");
        }
    }

    /// Policies that the repository holds and this catalog did not write: what a catalog that was lost, or put back as it
    /// was earlier, wanted kept is still wanted.
    pub(super) async fn policies_of_others(
        &self,
        instance: &InstanceName,
    ) -> Result<Vec<DatabasePolicy>, Box<dyn Error + Send + Sync>> {
        let there = self.repository().policies(instance).await?;
        let written = self.catalog().policy_revision(instance).await?;
        let others = there.filter(|(revision, _)| !is_own(written, *revision));
        Ok(others.map_or_else(Vec::new, |(_, document)| document.databases))
    }

    async fn try_store_policies(
        &self,
        instance: &InstanceName,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let Some(term) = self.term() else {
            return Ok(());
        };
        // One after the other, so that an older reading does not come behind a newer one.
        let mut known = self.written_policies.known.lock().await;
        let databases = self.catalog().databases(instance).await?;
        let long_term = self.catalog().long_term_policies(instance).await?;
        let policies = policies(&databases, &long_term);
        if databases.is_empty() || is_known(known.get(instance), term, &policies) {
            return Ok(());
        }
        let there = self.repository().policies(instance).await?;
        let written = self.catalog().policy_revision(instance).await?;
        let next = there
            .as_ref()
            .map_or(0, |(revision, _)| revision.saturating_add(1));
        if let Some((revision, document)) = there {
            if document.databases == policies {
                self.catalog()
                    .note_policy_revision(instance, revision)
                    .await?;
                known.insert(instance.clone(), (term, policies));
                return Ok(());
            }
            if !is_own(written, revision) {
                // They may be all that is left of a catalog that was lost.
                tracing::warn!(
                    %instance,
                    "the repository holds policies that this catalog did not write; they stay. To take them over: everpoint catalog rebuild"
                );
                return Ok(());
            }
        }
        let document = PolicyDocument {
            written_at: Timestamp::now(),
            databases: policies,
        };
        // Before it is there, so that it is not taken for another catalog's if that is all that comes to pass.
        self.catalog().note_policy_revision(instance, next).await?;
        let revision = self
            .repository()
            .write_policies(instance, &document)
            .await?;
        if revision != next {
            self.catalog()
                .note_policy_revision(instance, revision)
                .await?;
        }
        known.insert(instance.clone(), (term, document.databases));
        Ok(())
    }
}

/// Whether a catalog wrote a revision: the last one that it noted, or the one before that, if the last was noted and not
/// written any more.
fn is_own(noted: Option<u32>, revision: u32) -> bool {
    noted.is_some_and(|noted| noted == revision || noted == revision.saturating_add(1))
}

fn is_known(
    known: Option<&(Term, Vec<DatabasePolicy>)>,
    term: Term,
    policies: &[DatabasePolicy],
) -> bool {
    known.is_some_and(|(then, known)| *then == term && known == policies)
}

fn policies(databases: &[DatabaseRow], long_term: &[LongTermRow]) -> Vec<DatabasePolicy> {
    let policy = |database: &DatabaseRow| {
        let long_term = long_term.iter().find(|row| row.is_of(database));
        DatabasePolicy {
            oid: Oid::new(database.oid),
            name: database.name.clone(),
            collation: database.collation.clone(),
            created_at: database.created_at,
            deleted_at: database.deleted_at,
            short_term_days: database.retention.get(),
            tags: database.tags.get().clone(),
            long_term: long_term.map(|row| periods(&row.policy)),
        }
    };
    databases.iter().map(policy).collect()
}

fn periods(policy: &LongTermPolicy) -> LongTermPeriods {
    let yearly = policy.yearly();
    LongTermPeriods {
        weekly: policy.weekly().to_string(),
        monthly: policy.monthly().to_string(),
        yearly: yearly
            .map_or(Period::NONE, |(period, _)| period)
            .to_string(),
        week_of_year: yearly.map(|(_, week)| week.get()),
    }
}
