//! Long-term copies: one database out of one full backup, with everything its restore needs and nothing that
//! belongs to another. Specified in `docs/format/long-term.md`.
//!
//! A copy is laid out as a repository that holds one instance with one backup
//! ([`Repository::long_term`]). It exists from the moment its first state is stored, last of all; a folder
//! without a state is what an interrupted copy left.

use everpoint_pgformat::{MajorVersion, Oid, SystemIdentifier};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    document,
    ids::{BackupId, CopyId, InstanceName, ObjectId},
    layout,
    object::ObjectError,
    repository::{Repository, RepositoryError},
    store::StoreError,
};

/// A long-term copy, and how long it stays: what its latest state says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LongTermCopy {
    /// Its identifier.
    pub id: CopyId,
    /// The instance that the database was in.
    pub instance: InstanceName,
    /// The database.
    pub oid: Oid,
    /// Its name when the backup ended.
    pub database: String,
    /// The cluster.
    pub system_identifier: SystemIdentifier,
    /// The server's version.
    pub version: MajorVersion,
    /// The full backup that it was taken from.
    pub backup: BackupId,
    /// When that backup ended, by the server's clock. The copy holds the state at the backup's stop position,
    /// which lies a moment before.
    pub backup_time: Timestamp,
    /// When the copy was finished.
    pub copied_at: Timestamp,
    /// What it was made for; none when somebody asked for it.
    pub reasons: Vec<CopyReason>,
    /// From when on it may go; `None` is never.
    pub expires_at: Option<Timestamp>,
    /// Since when it is held: it stays, whatever its time says.
    pub held_since: Option<Timestamp>,
    /// Somebody is deleting it: it cannot be held any more, and goes with the next expiry if that was interrupted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleting: bool,
    /// Bytes of its files as restored.
    pub restored_bytes: u64,
    /// Bytes that its files and log take in the repository.
    pub stored_bytes: u64,
}

/// The periods a copy can stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CopyReason {
    /// The first full backup of its week.
    Weekly,
    /// The first full backup of its month.
    Monthly,
    /// The full backup of the chosen week of its year.
    Yearly,
}

impl CopyReason {
    /// As a person reads it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
            Self::Yearly => "yearly",
        }
    }
}

impl LongTermCopy {
    /// Whether it may go at `now`.
    pub fn has_expired(&self, now: Timestamp) -> bool {
        self.deleting || (self.held_since.is_none() && self.expires_at.is_some_and(|at| at <= now))
    }
}

/// The copies that may go at `now`, in their order.
pub fn expired(copies: &[LongTermCopy], now: Timestamp) -> Vec<&LongTermCopy> {
    let gone = copies.iter().filter(|copy| copy.has_expired(now));
    gone.collect()
}

/// What was said of a copy at some time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyState {
    /// The object's name.
    pub path: String,
    /// What it says.
    pub copy: LongTermCopy,
}

/// The long-term copies of an instance.
#[derive(Debug, Default)]
pub struct FoundCopies {
    /// Those whose state can be read, the earliest backup first.
    pub copies: Vec<LongTermCopy>,
    /// Those whose state is damaged. They are left alone.
    pub unreadable: Vec<(CopyId, RepositoryError)>,
    /// What interrupted copies left. A copy that is being made looks the same.
    pub unfinished: Vec<CopyId>,
}

impl Repository {
    /// The instances that there are long-term copies of; some may not be backed up any more.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn instances_with_copies(&self) -> Result<Vec<InstanceName>, RepositoryError> {
        let names = self.store().folders(layout::LONG_TERM).await?;
        Ok(names
            .into_iter()
            .filter_map(|name| name.parse().ok())
            .collect())
    }

    /// The long-term copies of an instance's databases.
    ///
    /// # Errors
    /// When the store fails; a damaged state is no error.
    pub async fn copies(&self, name: &InstanceName) -> Result<FoundCopies, RepositoryError> {
        let mut found = FoundCopies::default();
        for folder in self.store().folders(&layout::copies(name)).await? {
            let Ok(id) = folder.parse() else { continue };
            match self.copy_state(name, id).await {
                Ok(Some((_, copy))) => found.copies.push(copy),
                Ok(None) => found.unfinished.push(id),
                Err(error @ RepositoryError::Object(ObjectError::Store(_))) => return Err(error),
                Err(error @ RepositoryError::Store(_)) => return Err(error),
                Err(error) => found.unreadable.push((id, error)),
            }
        }
        found.copies.sort_by(|a, b| {
            let (a, b) = (
                (a.backup_time, &a.database, a.id),
                (b.backup_time, &b.database, b.id),
            );
            a.cmp(&b)
        });
        Ok(found)
    }

    /// A copy's latest state and its revision; `None` when there is none.
    ///
    /// # Errors
    /// When the store fails, or the state is damaged or another copy's.
    pub async fn copy_state(
        &self,
        name: &InstanceName,
        id: CopyId,
    ) -> Result<Option<(u32, LongTermCopy)>, RepositoryError> {
        let Some((revision, path, object)) = self.state_objects(name, id).await?.pop() else {
            return Ok(None);
        };
        let copy: LongTermCopy = document::read(self.store(), self.keys(), &path, object).await?;
        if copy.id != id || copy.instance != *name {
            let what = "it is the state of another copy";
            return Err(ObjectError::Damaged { path, what }.into());
        }
        Ok(Some((revision, copy)))
    }

    /// All states of a copy, the latest last.
    ///
    /// # Errors
    /// When the store fails, or a state is damaged.
    pub async fn copy_states(
        &self,
        name: &InstanceName,
        id: CopyId,
    ) -> Result<Vec<CopyState>, RepositoryError> {
        let mut states = Vec::new();
        for (_, path, object) in self.state_objects(name, id).await? {
            match document::read(self.store(), self.keys(), &path, object).await {
                Ok(copy) => states.push(CopyState { path, copy }),
                // Whoever wrote it took it back, or the copy is being deleted.
                Err(ObjectError::Store(StoreError::Missing { .. })) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(states)
    }

    /// Writes the next state of a copy. Returns its name, to take it back by.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn write_copy_state(&self, copy: &LongTermCopy) -> Result<String, RepositoryError> {
        let before = self.state_objects(&copy.instance, copy.id).await?;
        let revision = before
            .last()
            .map_or(0, |(revision, ..)| revision.saturating_add(1));
        let path = |id| layout::copy_state(&copy.instance, copy.id, revision, id);
        let id = document::write(self.store(), self.keys(), path, copy).await?;
        Ok(path(id))
    }

    /// Deletes a copy, or what an interrupted one left. Its latest state, which says that it is being deleted, goes last,
    /// and the earlier ones first.
    ///
    /// # Errors
    /// When the store fails; called again, it goes on.
    pub async fn delete_copy(
        &self,
        name: &InstanceName,
        id: CopyId,
    ) -> Result<(), RepositoryError> {
        let mut states = self.state_objects(name, id).await?;
        let latest = states.pop();
        for (_, path, _) in &states {
            self.store().delete(path).await?;
        }
        let folder = layout::copy(name, id);
        let is_latest = |path: &str| latest.as_ref().is_some_and(|(_, latest, _)| latest == path);
        for info in self.store().list(&folder).await? {
            if !is_latest(&info.path) {
                self.store().delete(&info.path).await?;
            }
        }
        if let Some((_, path, _)) = &latest {
            self.store().delete(path).await?;
        }
        self.store().sweep_staged(&folder)?;
        self.store().remove_empty_folders(&folder)?;
        Ok(())
    }

    /// Revision, name and identifier of each state, the latest last.
    async fn state_objects(
        &self,
        name: &InstanceName,
        id: CopyId,
    ) -> Result<Vec<(u32, String, ObjectId)>, RepositoryError> {
        let objects = self.store().list(&layout::copy_states(name, id)).await?;
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

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn copy(expires_at: Option<i64>, held_since: Option<i64>) -> LongTermCopy {
        LongTermCopy {
            id: CopyId::random(),
            instance: "shop".parse().unwrap(),
            oid: Oid::new(16_384),
            database: "orders".to_owned(),
            system_identifier: SystemIdentifier::new(7),
            version: MajorVersion::try_from(17).unwrap(),
            backup: BackupId::new(at(0), "full", 1),
            backup_time: at(10),
            copied_at: at(20),
            reasons: vec![CopyReason::Weekly],
            expires_at: expires_at.map(at),
            held_since: held_since.map(at),
            deleting: false,
            restored_bytes: 1,
            stored_bytes: 1,
        }
    }

    #[test]
    fn a_copy_goes_when_its_time_is_over_and_never_while_it_is_held() {
        let copies = [
            copy(Some(100), None),
            copy(Some(101), None),
            copy(Some(50), Some(10)),
            copy(None, None),
        ];
        let gone = expired(&copies, at(100));
        assert_eq!(gone, [&copies[0]]);
    }

    #[tokio::test]
    async fn the_last_state_of_a_copy_holds_until_it_is_deleted() {
        let directory = tempfile::tempdir().unwrap();
        let repository = repository(&directory).await;
        let mut copy = copy(Some(100), None);
        let shop = copy.instance.clone();
        let inside = repository.long_term(&shop, copy.id);
        let object = "instances/shop/packs/x/1";
        inside.store().put_new(object, "pack").await.unwrap();
        let found = repository.copies(&shop).await.unwrap();
        assert_eq!((found.copies, found.unfinished), (vec![], vec![copy.id]));
        repository.write_copy_state(&copy).await.unwrap();
        copy.held_since = Some(at(30));
        repository.write_copy_state(&copy).await.unwrap();
        let found = repository.copies(&shop).await.unwrap();
        assert_eq!(
            (&found.copies, found.unfinished),
            (&vec![copy.clone()], vec![])
        );
        repository.delete_copy(&shop, copy.id).await.unwrap();
        let found = repository.copies(&shop).await.unwrap();
        assert_eq!((found.copies, found.unfinished), (vec![], vec![]));
        assert_eq!(repository.store().list("long-term").await.unwrap(), []);
    }

    #[tokio::test]
    async fn a_state_in_the_place_of_another_copys_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let repository = repository(&directory).await;
        let (one, other) = (copy(Some(100), None), copy(None, None));
        repository.write_copy_state(&one).await.unwrap();
        let states = layout::copy_states(&one.instance, one.id);
        let info = repository.store().list(&states).await.unwrap().remove(0);
        let moved = info
            .path
            .replace(&one.id.to_string(), &other.id.to_string());
        let bytes = repository.store().get(&info.path).await.unwrap();
        repository.store().put_new(&moved, bytes).await.unwrap();
        let found = repository.copies(&one.instance).await.unwrap();
        assert_eq!(found.copies, [one]);
        assert_eq!(found.unreadable[0].0, other.id);
    }
}
