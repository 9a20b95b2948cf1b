//! A repository: made, opened, and what it holds.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    backup::{Backup, Pack},
    document,
    frame::{FrameEncoder, FrameError},
    ids::{BackupId, CopyId, InstanceName, ObjectId},
    keys::{KeyError, KeyRing, KeySlot, RecoveryKey, RootKey, SealedDataKey, Secret},
    layout,
    log::{GapDocument, LogIndex, LogStretch, MarkDocument, TimelineDocument},
    manifest::ManifestReader,
    object::{ObjectError, ObjectIdentity, ObjectKind, SealedObject},
    plain,
    store::{Store, StoreError},
};
use everpoint_pgformat::{Lsn, TimelineId, timeline::TimelineHistory};

/// The repository format that is written, and the newest that is read.
pub const REPOSITORY_VERSION: u32 = 1;

/// An opened repository.
#[derive(Clone, Debug)]
pub struct Repository {
    store: Store,
    keys: std::sync::Arc<KeyRing>,
    id: Uuid,
}

/// A repository cannot be made, opened or used.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// There is none at the address.
    #[error("there is no repository at {url}. `everpoint init --repository {url}` makes one")]
    None {
        /// The address.
        url: String,
    },
    /// There is one already.
    #[error("there is a repository at {url} already, made {created}. It was left as it is")]
    Exists {
        /// The address.
        url: String,
        /// When it was made.
        created: Timestamp,
    },
    /// Something else lies there.
    #[error(
        "{url} holds something that is no repository (`{found}`). Give an empty place; nothing was written"
    )]
    Foreign {
        /// The address.
        url: String,
        /// An object that was found.
        found: String,
    },
    /// Its marker is unreadable.
    #[error(
        "`{}` at {url} is damaged. Restore it from a copy: it is small and never changes",
        layout::MARKER
    )]
    DamagedMarker {
        /// The address.
        url: String,
    },
    /// Made by a newer Everpoint.
    #[error(
        "the repository at {url} has format {version}, by its everpoint.json; this everpoint reads up to {REPOSITORY_VERSION}. Use a newer one"
    )]
    Newer {
        /// The address.
        url: String,
        /// Its format.
        version: u32,
    },
    /// There is no such instance.
    #[error("there is no instance `{name}` in the repository. {}", known_instances(.known))]
    UnknownInstance {
        /// As asked for.
        name: InstanceName,
        /// Those there are.
        known: Vec<String>,
    },
    /// There is no such backup.
    #[error(
        "instance `{name}` has no backup `{backup}`. `everpoint backups {name}` lists those there are"
    )]
    UnknownBackup {
        /// The instance.
        name: InstanceName,
        /// As asked for.
        backup: BackupId,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Keys.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// An object cannot be written or read.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// The codec cannot be set up.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

impl RepositoryError {
    /// Whether an object is at fault, and not the store.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Object(error) if error.is_damage())
    }
}

fn known_instances(names: &[String]) -> String {
    match names {
        [] => "It holds none yet; `everpoint instance add` adds one".to_owned(),
        names => format!("It holds: {}", names.join(", ")),
    }
}

/// What makes a folder a repository.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Marker {
    what: String,
    version: u32,
    id: Uuid,
    created: Timestamp,
}

const WHAT: &str = "everpoint repository";

impl Repository {
    /// Makes a repository in an empty store, opened by any of `secrets`.
    ///
    /// # Errors
    /// When something lies there already, a secret is too weak, or the store fails.
    pub async fn create(
        store: Store,
        secrets: &[Secret],
        now: Timestamp,
    ) -> Result<Self, RepositoryError> {
        let url = store.url().to_string();
        refuse_taken(&store, &url).await?;
        let id = Uuid::new_v4();
        let root = RootKey::random(id)?;
        // Everything that can be refused comes before the first write.
        let slots = secrets
            .iter()
            .map(|secret| root.slot(secret))
            .collect::<Result<Vec<_>, _>>()?;
        let data_key = root.new_data_key()?;
        let keys = root.ring(std::slice::from_ref(&data_key))?;
        for slot in &slots {
            put_json(
                &store,
                format!("{}/{}.json", layout::KEY_SLOTS, ObjectId::random()),
                slot,
            )
            .await?;
        }
        let first = format!("{}/{:08x}-{}.json", layout::DATA_KEYS, 0, data_key.id);
        put_json(&store, first, &data_key).await?;
        let marker = Marker {
            what: WHAT.to_owned(),
            version: REPOSITORY_VERSION,
            id,
            created: now,
        };
        put_json(&store, layout::MARKER.to_owned(), &marker).await?;
        Ok(Self {
            store,
            keys: keys.into(),
            id,
        })
    }

    /// Opens the repository in a store.
    ///
    /// # Errors
    /// When there is none, it is of a newer format, or the secret does not fit.
    pub async fn open(store: Store, secret: &Secret) -> Result<Self, RepositoryError> {
        let url = store.url().to_string();
        let marker = match read_marker(&store, &url).await? {
            Some(marker) => marker,
            None => {
                return Err(match store.list("").await?.into_iter().next() {
                    Some(found) => RepositoryError::Foreign {
                        url,
                        found: found.path,
                    },
                    None => RepositoryError::None { url },
                });
            }
        };
        let root = open_root(&store, marker.id, secret).await?;
        let mut data_keys = Vec::new();
        for info in store.list(layout::DATA_KEYS).await? {
            data_keys.push(get_json::<SealedDataKey>(&store, &info.path).await?);
        }
        let keys = root.ring(&data_keys)?;
        Ok(Self {
            store,
            keys: keys.into(),
            id: marker.id,
        })
    }

    /// Refuses a place that cannot become a repository; writes nothing but may remove what an
    /// interrupted `create` left.
    ///
    /// # Errors
    /// As [`Repository::create`].
    pub async fn check_vacant(store: &Store) -> Result<(), RepositoryError> {
        refuse_taken(store, store.url().as_str()).await
    }

    /// Adds a key slot: from then on `new` opens the repository, too.
    ///
    /// # Errors
    /// When `secret` does not fit or `new` is too weak.
    pub async fn add_slot(&self, secret: &Secret, new: &Secret) -> Result<(), RepositoryError> {
        let root = open_root(&self.store, self.id, secret).await?;
        let slot = root.slot(new)?;
        let path = format!("{}/{}.json", layout::KEY_SLOTS, ObjectId::random());
        put_json(&self.store, path, &slot).await
    }

    /// A new recovery key, to be given to [`Repository::create`].
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn new_recovery_key() -> Result<RecoveryKey, KeyError> {
        RecoveryKey::random()
    }

    /// What is wrong with the marker and the key objects, which hold whole or not what they were written
    /// with: their number, and the name and the error of each damaged one.
    ///
    /// # Errors
    /// When the store cannot list.
    pub async fn check_keys(
        &self,
    ) -> Result<(u64, Vec<(String, RepositoryError)>), RepositoryError> {
        let mut damaged = Vec::new();
        let marker = layout::MARKER.to_owned();
        let url = self.store.url().to_string();
        match read_marker(&self.store, &url).await {
            Ok(Some(_)) => {}
            Ok(None) => damaged.push((marker, RepositoryError::None { url })),
            Err(error) => damaged.push((marker, error)),
        }
        let slots = self.store.list(layout::KEY_SLOTS).await?;
        let data_keys = self.store.list(layout::DATA_KEYS).await?;
        let looked_at = 1 + slots.len() + data_keys.len();
        for info in slots {
            if let Err(error) = get_json::<KeySlot>(&self.store, &info.path).await {
                damaged.push((info.path, error));
            }
        }
        for info in data_keys {
            if let Err(error) = get_json::<SealedDataKey>(&self.store, &info.path).await {
                damaged.push((info.path, error));
            }
        }
        Ok((looked_at as u64, damaged))
    }

    /// Its identifier.
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// Where its objects lie.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Its data keys.
    pub fn keys(&self) -> &KeyRing {
        &self.keys
    }

    /// A long-term copy as a repository of its own, with these keys. It holds one instance, under the name of
    /// the one it was made of, so that all that reads backups reads a copy, too.
    pub fn long_term(&self, name: &InstanceName, copy: CopyId) -> Self {
        Self {
            store: self.store.below(&layout::copy(name, copy)),
            ..self.clone()
        }
    }

    /// The names of its instances.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn instances(&self) -> Result<Vec<InstanceName>, RepositoryError> {
        let names = self.store.folders(layout::INSTANCES).await?;
        Ok(names
            .into_iter()
            .filter_map(|name| name.parse().ok())
            .collect())
    }

    /// Writes the next description of an instance; `revision` must be one more than the last read.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn write_description<T: Serialize>(
        &self,
        name: &InstanceName,
        revision: u32,
        description: &T,
    ) -> Result<(), RepositoryError> {
        let path = |id| layout::description(name, revision, id);
        document::write(&self.store, &self.keys, path, description).await?;
        Ok(())
    }

    /// The latest description of an instance and its revision.
    ///
    /// # Errors
    /// [`RepositoryError::UnknownInstance`] when there is none.
    pub async fn description<T: serde::de::DeserializeOwned>(
        &self,
        name: &InstanceName,
    ) -> Result<(u32, T), RepositoryError> {
        let objects = self.store.list(&layout::descriptions(name)).await?;
        let latest = objects.iter().rev().find_map(|info| {
            let (fields, id) = layout::parse_last(&info.path)?;
            let [revision] = fields.try_into().ok()?;
            Some((u32::try_from(revision).ok()?, id, info))
        });
        let Some((revision, id, info)) = latest else {
            let known = self
                .instances()
                .await?
                .iter()
                .map(ToString::to_string)
                .collect();
            return Err(RepositoryError::UnknownInstance {
                name: name.clone(),
                known,
            });
        };
        let description = document::read(&self.store, &self.keys, &info.path, id).await?;
        Ok((revision, description))
    }

    /// The finished backups of an instance, oldest first.
    ///
    /// # Errors
    /// When a manifest is damaged; it is named.
    pub async fn backups(&self, name: &InstanceName) -> Result<Vec<Backup>, RepositoryError> {
        let mut backups = Vec::new();
        for (_, path, id) in self.manifests(name).await? {
            backups.push(self.read_metadata(&path, id).await?.0);
        }
        backups.sort_by(|a, b| a.started_at.cmp(&b.started_at).then(a.id.cmp(&b.id)));
        Ok(backups)
    }

    /// As [`Repository::backups`], but damaged manifests are set apart instead of failing everything.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn readable_backups(
        &self,
        name: &InstanceName,
    ) -> Result<FoundBackups, RepositoryError> {
        let mut found = FoundBackups {
            backups: Vec::new(),
            unreadable: Vec::new(),
        };
        for (backup, path, id) in self.manifests(name).await? {
            match self.read_metadata(&path, id).await {
                Ok((metadata, _)) => found.backups.push(metadata),
                Err(error) => found.unreadable.push((backup, error)),
            }
        }
        found
            .backups
            .sort_by(|a, b| a.started_at.cmp(&b.started_at).then(a.id.cmp(&b.id)));
        Ok(found)
    }

    /// The manifests of an instance: the backup, the object's name and its identifier.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn manifests(
        &self,
        name: &InstanceName,
    ) -> Result<Vec<(BackupId, String, ObjectId)>, RepositoryError> {
        let objects = self.store.list(&layout::backups(name)).await?;
        let parse = |path: String| {
            let mut parts = path.rsplit('/');
            let id = ObjectId::parse(parts.next()?.strip_prefix("manifest-")?)?;
            let backup = parts.next()?.parse().ok()?;
            Some((backup, path, id))
        };
        Ok(objects
            .into_iter()
            .filter_map(|info| parse(info.path))
            .collect())
    }

    /// Opens a backup's manifest: its metadata, and a reader of its files.
    ///
    /// # Errors
    /// When there is no such backup, or its manifest is damaged.
    pub async fn manifest(
        &self,
        name: &InstanceName,
        backup: &BackupId,
    ) -> Result<(Backup, ManifestReader), RepositoryError> {
        let manifests = self.manifests(name).await?;
        let (_, path, id) = manifests
            .into_iter()
            .find(|(id, ..)| id == backup)
            .ok_or_else(|| RepositoryError::UnknownBackup {
                name: name.clone(),
                backup: backup.clone(),
            })?;
        let (metadata, object) = self.read_metadata(&path, id).await?;
        Ok((metadata, ManifestReader::new(object)?))
    }

    /// Opens the manifest at a known name.
    ///
    /// # Errors
    /// When it is missing or damaged.
    pub async fn read_metadata(
        &self,
        path: &str,
        id: ObjectId,
    ) -> Result<(Backup, SealedObject), RepositoryError> {
        let object =
            SealedObject::open(&self.store, &self.keys, path, ObjectKind::Manifest, id).await?;
        let damaged = || ObjectError::Damaged {
            path: path.to_owned(),
            what: "its metadata is not a backup's, or is a newer everpoint's",
        };
        let backup: Backup = serde_json::from_slice(object.metadata()).map_err(|_| damaged())?;
        let folder = path.rsplit('/').nth(1);
        if folder != Some(backup.id.as_str()) {
            return Err(damaged().into());
        }
        Ok((backup, object))
    }

    /// All log backups and timeline histories of an instance.
    ///
    /// # Errors
    /// When the store fails or a history is damaged.
    pub async fn log_index(&self, name: &InstanceName) -> Result<LogIndex, RepositoryError> {
        let objects = self.store.list(&layout::logs(name)).await?;
        let stretches = objects.iter().filter_map(LogStretch::parse).collect();
        let mut histories = Vec::new();
        for info in self.store.list(&layout::timelines(name)).await? {
            let Some((_, id)) = layout::parse_last(&info.path) else {
                continue;
            };
            let stored: TimelineDocument =
                document::read(&self.store, &self.keys, &info.path, id).await?;
            let history = TimelineHistory::parse(stored.timeline, &stored.text).map_err(|_| {
                ObjectError::Damaged {
                    path: info.path.clone(),
                    what: "its text is no history",
                }
            })?;
            histories.push(history);
        }
        Ok(LogIndex::new(stretches, histories))
    }

    /// The text of every stored timeline history.
    ///
    /// # Errors
    /// When the store fails or a history is damaged.
    pub async fn timeline_documents(
        &self,
        name: &InstanceName,
    ) -> Result<Vec<TimelineDocument>, RepositoryError> {
        let mut documents = Vec::new();
        for info in self.store.list(&layout::timelines(name)).await? {
            let Some((_, id)) = layout::parse_last(&info.path) else {
                continue;
            };
            documents.push(document::read(&self.store, &self.keys, &info.path, id).await?);
        }
        Ok(documents)
    }

    /// Stores a timeline's history, unless the same is stored already.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn write_timeline(
        &self,
        name: &InstanceName,
        history: &TimelineDocument,
    ) -> Result<(), RepositoryError> {
        if self.timeline_documents(name).await?.contains(history) {
            return Ok(());
        }
        let path = |id| layout::timeline(name, history.timeline, id);
        document::write(&self.store, &self.keys, path, history).await?;
        Ok(())
    }

    /// Stores a mark; older ones of its timeline are of no more use and go.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn write_mark(
        &self,
        name: &InstanceName,
        mark: &MarkDocument,
    ) -> Result<(), RepositoryError> {
        let before = self.store.list(&layout::marks(name)).await?;
        let time_us = u64::try_from(mark.complete_at.as_microsecond()).unwrap_or(0);
        let path = |id| layout::mark(name, mark.timeline, mark.lsn, time_us, id);
        document::write(&self.store, &self.keys, path, mark).await?;
        for old in before {
            let timeline =
                layout::parse_last(&old.path).and_then(|(fields, _)| fields.first().copied());
            if timeline == Some(u64::from(mark.timeline.get())) {
                self.store.delete(&old.path).await?;
            }
        }
        Ok(())
    }

    /// The latest moment at which the log of `timeline` was known to end at `lsn`, by the marks.
    ///
    /// # Errors
    /// When the store fails or a mark is damaged.
    pub async fn marked_complete_at(
        &self,
        name: &InstanceName,
        timeline: TimelineId,
        lsn: Lsn,
    ) -> Result<Option<Timestamp>, RepositoryError> {
        let mut latest = None;
        let mut left = self.store.list(&layout::marks(name)).await?;
        let mut seen = BTreeSet::new();
        while let Some(info) = left.pop() {
            let Some((_, id)) = layout::parse_last(&info.path) else {
                continue;
            };
            let read = document::read(&self.store, &self.keys, &info.path, id).await;
            if let Err(ObjectError::Store(StoreError::Missing { .. })) = &read
                && seen.insert(info.path)
            {
                // A later one took its place.
                left = self.store.list(&layout::marks(name)).await?;
                continue;
            }
            let mark: MarkDocument = read?;
            if mark.timeline == timeline && mark.lsn == lsn {
                latest = latest.max(Some(mark.complete_at));
            }
        }
        Ok(latest)
    }

    /// Records that write-ahead log is lost.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn write_gap(
        &self,
        name: &InstanceName,
        gap: &GapDocument,
    ) -> Result<(), RepositoryError> {
        let path = |id| layout::gap(name, gap.timeline, gap.from, gap.to, id);
        document::write(&self.store, &self.keys, path, gap).await?;
        Ok(())
    }

    /// The recorded gaps of an instance.
    ///
    /// # Errors
    /// When the store fails or a document is damaged.
    pub async fn gaps(&self, name: &InstanceName) -> Result<Vec<GapDocument>, RepositoryError> {
        let mut gaps = Vec::new();
        for info in self.store.list(&layout::gaps(name)).await? {
            let Some((_, id)) = layout::parse_last(&info.path) else {
                continue;
            };
            gaps.push(document::read(&self.store, &self.keys, &info.path, id).await?);
        }
        Ok(gaps)
    }

    /// Packs of an instance that none of `living` backups refers to: the names and sizes. Packs of
    /// unfinished backups are among them, so nobody may be writing one.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn unreferenced_packs(
        &self,
        name: &InstanceName,
        living: &[Backup],
    ) -> Result<Vec<crate::store::ObjectInfo>, RepositoryError> {
        let referenced: std::collections::HashSet<String> = living
            .iter()
            .flat_map(|backup| &backup.packs)
            .map(|pack| layout::pack(name, &pack.backup, pack.id))
            .collect();
        let objects = self.store.list(&layout::packs(name)).await?;
        Ok(objects
            .into_iter()
            .filter(|info| !referenced.contains(&info.path))
            .collect())
    }

    /// A frame encoder with the repository's compression level.
    ///
    /// # Errors
    /// When zstd cannot be set up.
    pub fn encoder(&self) -> Result<FrameEncoder, FrameError> {
        FrameEncoder::new(DEFAULT_ZSTD_LEVEL)
    }
}

/// The backups of an instance, and those whose manifests are damaged.
#[derive(Debug)]
pub struct FoundBackups {
    /// Finished backups, oldest first.
    pub backups: Vec<Backup>,
    /// Backups that cannot be used, and why.
    pub unreadable: Vec<(BackupId, RepositoryError)>,
}

/// The zstd level of everything stored: higher ones cost twice the time for 3 % less space.
pub const DEFAULT_ZSTD_LEVEL: i32 = 1;

impl Pack {
    /// Its identity as an object.
    pub fn identity(&self) -> ObjectIdentity {
        ObjectIdentity {
            kind: ObjectKind::Pack,
            id: self.id,
            data_key: self.data_key,
        }
    }
}

async fn open_root(store: &Store, id: Uuid, secret: &Secret) -> Result<RootKey, RepositoryError> {
    let mut slots = Vec::new();
    let mut damaged = None;
    for info in store.list(layout::KEY_SLOTS).await? {
        // One damaged slot must not lock out those who hold the key of another.
        match get_json::<KeySlot>(store, &info.path).await {
            Ok(slot) => slots.push(slot),
            Err(error) => damaged = Some(error),
        }
    }
    match (RootKey::open(id, &slots, secret), damaged) {
        (Ok(root), _) => Ok(root),
        (Err(_), Some(damaged)) => Err(damaged),
        (Err(error), None) => Err(error.into()),
    }
}

async fn refuse_taken(store: &Store, url: &str) -> Result<(), RepositoryError> {
    if let Some(marker) = read_marker(store, url).await? {
        return Err(RepositoryError::Exists {
            url: url.to_owned(),
            created: marker.created,
        });
    }
    // Keys without a marker are what an interrupted `init` left: nothing was ever sealed with them.
    let foreign = store
        .list("")
        .await?
        .into_iter()
        .find(|info| !info.path.starts_with("keys/"));
    if let Some(found) = foreign {
        return Err(RepositoryError::Foreign {
            url: url.to_owned(),
            found: found.path,
        });
    }
    for leftover in store.list("keys").await? {
        store.delete(&leftover.path).await?;
    }
    Ok(())
}

async fn read_marker(store: &Store, url: &str) -> Result<Option<Marker>, RepositoryError> {
    let bytes = match store.get(layout::MARKER).await {
        Ok(bytes) => bytes,
        Err(StoreError::Missing { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let damaged = || RepositoryError::DamagedMarker {
        url: url.to_owned(),
    };
    let marker: serde_json::Value = serde_json::from_slice(&bytes).map_err(|_| damaged())?;
    let version = marker
        .get("version")
        .and_then(serde_json::Value::as_u64)
        .ok_or_else(damaged)?;
    if marker.get("what").and_then(|what| what.as_str()) != Some(WHAT) {
        return Err(damaged());
    }
    match u32::try_from(version) {
        Ok(REPOSITORY_VERSION) => plain::read(&bytes).map(Some).ok_or_else(damaged),
        version => {
            let version = version.unwrap_or(u32::MAX);
            Err(RepositoryError::Newer {
                url: url.to_owned(),
                version,
            })
        }
    }
}

async fn put_json<T: Serialize>(
    store: &Store,
    path: String,
    value: &T,
) -> Result<(), RepositoryError> {
    let text = plain::text(value).ok_or_else(|| KeyError::Damaged { name: path.clone() })?;
    store.put_new(&path, text).await?;
    Ok(())
}

async fn get_json<T: serde::de::DeserializeOwned>(
    store: &Store,
    path: &str,
) -> Result<T, RepositoryError> {
    let bytes = store.get(path).await?;
    plain::read(&bytes).ok_or_else(|| {
        KeyError::Damaged {
            name: path.to_owned(),
        }
        .into()
    })
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;
    use crate::store::Missing;

    fn key_file(byte: u8) -> Secret {
        Secret::KeyFile(Zeroizing::new(vec![byte; 32]))
    }

    fn store(directory: &tempfile::TempDir) -> Store {
        Store::open(directory.path().to_str().unwrap(), Missing::Refuse).unwrap()
    }

    #[tokio::test]
    async fn a_repository_is_made_once_and_opened_only_with_its_key() {
        let directory = tempfile::tempdir().unwrap();
        let now = Timestamp::UNIX_EPOCH;
        let none = Repository::open(store(&directory), &key_file(1)).await;
        assert!(matches!(none, Err(RepositoryError::None { .. })));
        let made = Repository::create(store(&directory), &[key_file(1)], now)
            .await
            .unwrap();
        let again = Repository::create(store(&directory), &[key_file(1)], now).await;
        assert!(matches!(again, Err(RepositoryError::Exists { .. })));
        let opened = Repository::open(store(&directory), &key_file(1))
            .await
            .unwrap();
        assert_eq!(opened.id(), made.id());
        let wrong = Repository::open(store(&directory), &key_file(2)).await;
        assert!(matches!(
            wrong,
            Err(RepositoryError::Key(KeyError::Wrong { .. }))
        ));
        opened.add_slot(&key_file(1), &key_file(2)).await.unwrap();
        assert!(
            Repository::open(store(&directory), &key_file(2))
                .await
                .is_ok()
        );
    }

    #[tokio::test]
    async fn foreign_folders_and_newer_formats_are_refused_untouched() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("letter.txt"), "dear").unwrap();
        let foreign =
            Repository::create(store(&directory), &[key_file(1)], Timestamp::UNIX_EPOCH).await;
        assert!(matches!(foreign, Err(RepositoryError::Foreign { .. })));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
        let marker = r#"{"what":"everpoint repository","version":2,"id":"x","created":"y"}"#;
        std::fs::write(directory.path().join(layout::MARKER), marker).unwrap();
        for result in [
            Repository::create(store(&directory), &[key_file(1)], Timestamp::UNIX_EPOCH).await,
            Repository::open(store(&directory), &key_file(1)).await,
        ] {
            assert!(matches!(
                result,
                Err(RepositoryError::Newer { version: 2, .. })
            ));
        }
    }

    #[tokio::test]
    async fn an_interrupted_init_can_be_run_again() {
        let directory = tempfile::tempdir().unwrap();
        let now = Timestamp::UNIX_EPOCH;
        Repository::create(store(&directory), &[key_file(1)], now)
            .await
            .unwrap();
        std::fs::remove_file(directory.path().join(layout::MARKER)).unwrap();
        Repository::create(store(&directory), &[key_file(2)], now)
            .await
            .unwrap();
        assert!(
            Repository::open(store(&directory), &key_file(2))
                .await
                .is_ok()
        );
    }
}
