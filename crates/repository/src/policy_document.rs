//! The policies of an instance's databases, kept beside its backups: a service whose catalog is lost reads
//! them back. Specified in `docs/format/policies.md`.
//!
//! A document holds the databases of one instance, living and deleted, whole. Each change is a new document
//! with the next revision; the highest holds. What the values may be is the service's to judge.

use std::collections::BTreeMap;

use everpoint_pgformat::Oid;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    document,
    ids::{InstanceName, ObjectId},
    layout,
    repository::{Repository, RepositoryError},
};

/// Documents of an instance that stay, the latest ones, to be looked at after a mistake.
pub const KEPT_POLICY_DOCUMENTS: usize = 10;

/// The databases of an instance and their policies, as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyDocument {
    /// When it was written, by the writer's clock.
    pub written_at: Timestamp,
    /// The databases, living and deleted.
    pub databases: Vec<DatabasePolicy>,
}

/// One database and its policies, as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabasePolicy {
    /// Its OID.
    pub oid: Oid,
    /// Its name, the last one of a deleted database.
    pub name: String,
    /// Its collation.
    pub collation: String,
    /// When it was made, as far as that was known.
    pub created_at: Timestamp,
    /// When it was found to be gone; `None` of a living one.
    pub deleted_at: Option<Timestamp>,
    /// Days of short-term retention: 1 to 35, of a deleted one 0 to 35.
    pub short_term_days: u8,
    /// Names and values that users put on it. Absent in what older versions wrote.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// Long-term retention; `None` when no copies are kept.
    pub long_term: Option<LongTermPeriods>,
}

/// A long-term policy, as stored: ISO 8601 durations of date units, `PT0S` for none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LongTermPeriods {
    /// How long the first full backup of each week is kept.
    pub weekly: String,
    /// How long the first full backup of each month is kept.
    pub monthly: String,
    /// How long the full backup of one week of each year is kept.
    pub yearly: String,
    /// That week, 1 to 52; `None` when nothing is kept yearly.
    pub week_of_year: Option<u8>,
}

impl Repository {
    /// Writes the next policies of an instance, and deletes all but the latest few; returns the revision.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn write_policies(
        &self,
        name: &InstanceName,
        policies: &PolicyDocument,
    ) -> Result<u32, RepositoryError> {
        let before = self.policy_objects(name).await?;
        let revision = before
            .last()
            .map_or(0, |(revision, ..)| revision.saturating_add(1));
        let path = |id| layout::policy(name, revision, id);
        document::write(self.store(), self.keys(), path, policies).await?;
        let superfluous = (before.len() + 1).saturating_sub(KEPT_POLICY_DOCUMENTS);
        for (_, path, _) in before.iter().take(superfluous) {
            self.store().delete(path).await?;
        }
        Ok(revision)
    }

    /// The policies of an instance that hold, with their revision; `None` when none were ever written.
    ///
    /// # Errors
    /// When the store fails, or the document is damaged.
    pub async fn policies(
        &self,
        name: &InstanceName,
    ) -> Result<Option<(u32, PolicyDocument)>, RepositoryError> {
        let Some((revision, path, id)) = self.policy_objects(name).await?.pop() else {
            return Ok(None);
        };
        let policies = document::read(self.store(), self.keys(), &path, id).await?;
        Ok(Some((revision, policies)))
    }

    /// Revision, name and identifier of each document, the latest last.
    async fn policy_objects(
        &self,
        name: &InstanceName,
    ) -> Result<Vec<(u32, String, ObjectId)>, RepositoryError> {
        let objects = self.store().list(&layout::policies(name)).await?;
        let parse = |path: String| {
            let (fields, id) = layout::parse_last(&path)?;
            let [revision] = fields.try_into().ok()?;
            Some((u32::try_from(revision).ok()?, path, id))
        };
        Ok(objects
            .into_iter()
            .filter_map(|info| parse(info.path))
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        keys::Secret,
        store::{Missing, Store},
    };

    async fn repository(directory: &tempfile::TempDir) -> Repository {
        let store = Store::open(directory.path().to_str().unwrap(), Missing::Refuse).unwrap();
        let secret = Secret::KeyFile(vec![1; 32].into());
        Repository::create(store, &[secret], Timestamp::UNIX_EPOCH)
            .await
            .unwrap()
    }

    fn policies(days: u8) -> PolicyDocument {
        PolicyDocument {
            written_at: Timestamp::UNIX_EPOCH,
            databases: vec![DatabasePolicy {
                oid: Oid::new(16_384),
                name: "shop".to_owned(),
                collation: "C".to_owned(),
                created_at: Timestamp::UNIX_EPOCH,
                deleted_at: None,
                short_term_days: days,
                tags: BTreeMap::from([("env".to_owned(), "test".to_owned())]),
                long_term: Some(LongTermPeriods {
                    weekly: "P4W".to_owned(),
                    monthly: "PT0S".to_owned(),
                    yearly: "P10Y".to_owned(),
                    week_of_year: Some(1),
                }),
            }],
        }
    }

    #[tokio::test]
    async fn the_policies_written_last_hold_and_old_ones_go() {
        let directory = tempfile::tempdir().unwrap();
        let repository = repository(&directory).await;
        let shop = "shop".parse().unwrap();
        assert_eq!(repository.policies(&shop).await.unwrap(), None);
        for days in 1..=15 {
            let revision = repository.write_policies(&shop, &policies(days)).await;
            assert_eq!(revision.unwrap(), u32::from(days) - 1);
        }
        let held = repository.policies(&shop).await.unwrap();
        assert_eq!(held, Some((14, policies(15))));
        let all = repository.policy_objects(&shop).await.unwrap();
        assert_eq!(all.len(), KEPT_POLICY_DOCUMENTS);
        let other = "other".parse().unwrap();
        assert_eq!(repository.policies(&other).await.unwrap(), None);
    }
}
