//! Who may do what, kept in the repository: a service whose catalog is lost reads it back. Specified in
//! `docs/format/access.md`.
//!
//! A document holds all principals and assignments whole. Each change is a new document with a greater number; the
//! greatest holds. Of secrets it has hashes alone. What the values may be is the service's to judge.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    document,
    ids::ObjectId,
    layout,
    repository::{Repository, RepositoryError},
};

/// Documents that stay, the latest ones, to be looked at after a mistake.
pub const KEPT_ACCESS_DOCUMENTS: usize = 10;

/// Who may do what, as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessDocument {
    /// When it was written, by the writer's clock.
    pub written_at: Timestamp,
    /// The identifier of the one tenant.
    pub tenant: Uuid,
    /// The identifier of the one subscription.
    pub subscription: Uuid,
    /// Principals.
    pub principals: Vec<StoredPrincipal>,
    /// Role assignments.
    pub assignments: Vec<StoredAssignment>,
}

/// A principal, as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredPrincipal {
    /// Its object id.
    pub id: Uuid,
    /// What it signs in with; of a user, its object id.
    pub client_id: Uuid,
    /// Its name.
    pub name: String,
    /// `ServicePrincipal` or `User`.
    pub kind: String,
    /// What another issuer calls it.
    pub external: Option<String>,
    /// Since when it may not sign in.
    pub disabled_at: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Its secrets, or its password.
    pub secrets: Vec<StoredSecret>,
}

/// A secret's hash, as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredSecret {
    /// Its name.
    pub id: Uuid,
    /// `argon2id$salt$hash`.
    pub hash: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on it is of no use.
    pub expires_at: Option<Timestamp>,
}

/// A role assignment, as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredAssignment {
    /// Its name.
    pub id: Uuid,
    /// The principal's object id.
    pub principal: Uuid,
    /// The role definition's name.
    pub role: Uuid,
    /// Where it holds, as a path.
    pub scope: String,
    /// Since when.
    pub created_at: Timestamp,
}

impl Repository {
    /// Writes a document with a number greater than all before, and deletes all but the latest few.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn write_access(
        &self,
        number: u64,
        access: &AccessDocument,
    ) -> Result<(), RepositoryError> {
        let path = |id| layout::access(number, id);
        document::write(self.store(), self.keys(), path, access).await?;
        let all = self.access_objects().await?;
        let superfluous = all.len().saturating_sub(KEPT_ACCESS_DOCUMENTS);
        for (_, path, _) in all.iter().take(superfluous) {
            self.store().delete(path).await?;
        }
        Ok(())
    }

    /// The number of the document that holds.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn access_number(&self) -> Result<Option<u64>, RepositoryError> {
        let last = self.access_objects().await?.pop();
        Ok(last.map(|(number, ..)| number))
    }

    /// The document that holds, with its number; `None` when none was ever written.
    ///
    /// # Errors
    /// When the store fails, or the document is damaged.
    pub async fn access(&self) -> Result<Option<(u64, AccessDocument)>, RepositoryError> {
        let Some((number, path, id)) = self.access_objects().await?.pop() else {
            return Ok(None);
        };
        let access = document::read(self.store(), self.keys(), &path, id).await?;
        Ok(Some((number, access)))
    }

    /// How many documents there are, and the name and the error of each damaged one.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn check_access(
        &self,
    ) -> Result<(u64, Vec<(String, RepositoryError)>), RepositoryError> {
        let objects = self.access_objects().await?;
        let mut damaged = Vec::new();
        let looked_at = objects.len() as u64;
        for (_, path, id) in objects {
            let read = document::read::<AccessDocument>(self.store(), self.keys(), &path, id).await;
            if let Err(error) = read {
                damaged.push((path, error.into()));
            }
        }
        Ok((looked_at, damaged))
    }

    /// Number, name and identifier of each document, the latest last.
    async fn access_objects(&self) -> Result<Vec<(u64, String, ObjectId)>, RepositoryError> {
        let objects = self.store().list(layout::ACCESS).await?;
        let parse = |path: String| {
            let (fields, id) = layout::parse_last(&path)?;
            let [number] = fields.try_into().ok()?;
            Some((number, path, id))
        };
        let all = objects.into_iter().filter_map(|info| parse(info.path));
        Ok(all.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        keys::Secret,
        store::{Missing, Store},
    };

    fn access(name: &str) -> AccessDocument {
        let (id, at) = (Uuid::from_u128(7), Timestamp::UNIX_EPOCH);
        AccessDocument {
            written_at: at,
            tenant: Uuid::from_u128(1),
            subscription: Uuid::from_u128(2),
            principals: vec![StoredPrincipal {
                id,
                client_id: Uuid::from_u128(8),
                name: name.to_owned(),
                kind: "ServicePrincipal".to_owned(),
                external: None,
                disabled_at: None,
                created_at: at,
                secrets: vec![StoredSecret {
                    id,
                    hash: "argon2id$c2FsdA$aGFzaA".to_owned(),
                    created_at: at,
                    expires_at: Some(at),
                }],
            }],
            assignments: vec![StoredAssignment {
                id,
                principal: id,
                role: id,
                scope: "/subscriptions/x".to_owned(),
                created_at: at,
            }],
        }
    }

    #[tokio::test]
    async fn the_document_with_the_greatest_number_holds_and_old_ones_go() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_str().unwrap();
        let store = Store::open(path, Missing::Refuse).unwrap();
        let secret = Secret::KeyFile(vec![1; 32].into());
        let repository = Repository::create(store, &[secret], Timestamp::UNIX_EPOCH)
            .await
            .unwrap();
        assert_eq!(repository.access().await.unwrap(), None);
        for number in (5..=40).step_by(2) {
            let document = access(&number.to_string());
            repository.write_access(number, &document).await.unwrap();
        }
        let held = repository.access().await.unwrap();
        assert_eq!(held, Some((39, access("39"))));
        assert_eq!(repository.access_number().await.unwrap(), Some(39));
        let all = repository.access_objects().await.unwrap();
        assert_eq!(all.len(), KEPT_ACCESS_DOCUMENTS);
    }
}
