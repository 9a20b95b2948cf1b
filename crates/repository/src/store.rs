//! The edge to where objects lie: a directory now, object stores by the same calls.
//!
//! Nothing is ever overwritten: a name that is taken is an error of its own kind. A write that
//! returned has reached the disk (files and their directories are synced).

use std::{
    io,
    ops::Range,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use bytes::Bytes;
use everpoint_pgformat::ByteCount;
use futures_util::TryStreamExt;
use jiff::Timestamp;
use object_store::{
    MultipartUpload, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
    local::LocalFileSystem, path::Path, prefix::PrefixStore,
};
use url::Url;

use crate::local_upload::LocalUpload;

/// Bytes at the most that [`Store::get`] takes into memory: manifests' tails, keys and documents are
/// far smaller.
pub const MAX_WHOLE_OBJECT_BYTES: u64 = 256 << 20;

/// Bytes of a part of an upload. S3 wants at least 5 MiB and at most 10,000 parts an object.
pub const PART_BYTES: usize = 8 << 20;

/// Where objects lie.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<dyn ObjectStore>,
    url: Url,
    local_root: Option<PathBuf>,
    fetched: Arc<Counts>,
}

/// Bytes that were read, by the kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Contents of data files.
    pub packs: ByteCount,
    /// Log backups.
    pub log: ByteCount,
    /// Summaries of log.
    pub summaries: ByteCount,
    /// Manifests and all else.
    pub others: ByteCount,
}

impl Fetched {
    /// All of them.
    pub fn total(&self) -> ByteCount {
        let parts = [self.packs, self.log, self.summaries, self.others];
        ByteCount::new(parts.iter().map(|part| part.get()).sum())
    }
}

#[derive(Debug, Default)]
struct Counts {
    packs: AtomicU64,
    log: AtomicU64,
    summaries: AtomicU64,
    others: AtomicU64,
}

/// What a listing says of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its name, from the repository's root.
    pub path: String,
    /// Its size in bytes.
    pub size: u64,
    /// When it was last written, by the store's clock.
    pub modified: Timestamp,
}

/// The store refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Not a URL of a store that is understood.
    #[error("`{url}` is no repository address. Give `file:///absolute/path` or an absolute path")]
    BadUrl {
        /// As given.
        url: String,
    },
    /// The directory cannot be made or opened.
    #[error("the repository's directory {} cannot be opened", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is no such object.
    #[error("object `{path}` is missing from the repository")]
    Missing {
        /// Its name.
        path: String,
    },
    /// An object of that name exists already.
    #[error("object `{path}` exists already and is never overwritten")]
    Exists {
        /// Its name.
        path: String,
    },
    /// An object is larger than anything that was written under such a name.
    #[error(
        "object `{path}` has {size} bytes, more than the {MAX_WHOLE_OBJECT_BYTES} that are read at once"
    )]
    TooLarge {
        /// Its name.
        path: String,
        /// Its size.
        size: u64,
    },
    /// A file of a store that is a directory; worth a retry when the cause is passing.
    #[error("the repository could not {action} `{path}`")]
    File {
        /// What was tried.
        action: &'static str,
        /// On which object.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// Anything else; worth a retry when the cause is passing.
    #[error("the repository could not {action} `{path}`")]
    Failed {
        /// What was tried.
        action: &'static str,
        /// On which object.
        path: String,
        /// Why.
        source: object_store::Error,
    },
}

impl Store {
    /// Opens the store at `address`: a `file://` URL or an absolute path. With [`Missing::Create`] a
    /// directory that is not there is made.
    ///
    /// # Errors
    /// When the address is not understood or the directory cannot be opened.
    pub fn open(address: &str, missing: Missing) -> Result<Self, StoreError> {
        let bad = || StoreError::BadUrl {
            url: address.to_owned(),
        };
        let path = if address.starts_with('/') {
            PathBuf::from(address)
        } else {
            let url = Url::parse(address).map_err(|_| bad())?;
            if url.scheme() != "file" {
                return Err(bad());
            }
            url.to_file_path().map_err(|()| bad())?
        };
        let url = Url::from_file_path(&path).map_err(|()| bad())?;
        let directory = |source| StoreError::Directory {
            path: path.clone(),
            source,
        };
        if let Missing::Create = missing {
            std::fs::create_dir_all(&path).map_err(directory)?;
        }
        let root = path.canonicalize().map_err(directory)?;
        let inner = LocalFileSystem::new_with_prefix(&root)
            .map_err(|source| StoreError::Failed {
                action: "open",
                path: address.to_owned(),
                source,
            })?
            .with_fsync(true);
        Ok(Self {
            inner: Arc::new(inner),
            url,
            local_root: Some(root),
            fetched: Arc::default(),
        })
    }

    /// A part of the store as a store of its own: every name is taken below `folder`.
    pub fn below(&self, folder: &str) -> Self {
        let mut url = self.url.clone();
        if let Ok(mut parts) = url.path_segments_mut() {
            parts.pop_if_empty().extend(folder.split('/'));
        }
        Self {
            inner: Arc::new(PrefixStore::new(self.inner.clone(), folder)),
            url,
            local_root: self.local_root.as_ref().map(|root| root.join(folder)),
            fetched: self.fetched.clone(),
        }
    }

    /// Bytes of objects that were read so far, by this store and all its clones.
    pub fn fetched(&self) -> Fetched {
        let of = |count: &AtomicU64| ByteCount::new(count.load(Ordering::Relaxed));
        Fetched {
            packs: of(&self.fetched.packs),
            log: of(&self.fetched.log),
            summaries: of(&self.fetched.summaries),
            others: of(&self.fetched.others),
        }
    }

    fn count(&self, path: &str, bytes: Bytes) -> Bytes {
        let count = match path.split('/').nth(2) {
            Some("packs") => &self.fetched.packs,
            Some("log") => &self.fetched.log,
            Some("summaries") => &self.fetched.summaries,
            _ => &self.fetched.others,
        };
        let len = u64::try_from(bytes.len()).unwrap_or_default();
        count.fetch_add(len, Ordering::Relaxed);
        bytes
    }

    /// The address, as a URL.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The directory, where the store is one.
    pub fn local_root(&self) -> Option<&std::path::Path> {
        self.local_root.as_deref()
    }

    /// Writes a new object.
    ///
    /// # Errors
    /// [`StoreError::Exists`] when the name is taken.
    pub async fn put_new(&self, path: &str, bytes: impl Into<Bytes>) -> Result<(), StoreError> {
        let options = PutOptions {
            mode: PutMode::Create,
            ..PutOptions::default()
        };
        let payload = PutPayload::from_bytes(bytes.into());
        self.inner
            .put_opts(&Path::from(path), payload, options)
            .await
            .map(|_| ())
            .map_err(|source| failed("write", path, source))
    }

    /// Reads a whole object of at most [`MAX_WHOLE_OBJECT_BYTES`].
    ///
    /// # Errors
    /// [`StoreError::Missing`] when it is not there.
    pub async fn get(&self, path: &str) -> Result<Bytes, StoreError> {
        let result = self
            .inner
            .get(&Path::from(path))
            .await
            .map_err(|source| failed("read", path, source))?;
        let size = result.meta.size;
        if size > MAX_WHOLE_OBJECT_BYTES {
            return Err(StoreError::TooLarge {
                path: path.to_owned(),
                size,
            });
        }
        result
            .bytes()
            .await
            .map(|bytes| self.count(path, bytes))
            .map_err(|source| failed("read", path, source))
    }

    /// Reads some bytes of an object.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when it is not there, [`StoreError::Failed`] when it is too short.
    pub async fn get_range(&self, path: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.inner
            .get_range(&Path::from(path), range)
            .await
            .map(|bytes| self.count(path, bytes))
            .map_err(|source| failed("read", path, source))
    }

    /// The size of an object; `None` when it is not there.
    ///
    /// # Errors
    /// When the store cannot say.
    pub async fn size(&self, path: &str) -> Result<Option<u64>, StoreError> {
        match self.inner.head(&Path::from(path)).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(failed("look up", path, source)),
        }
    }

    /// The objects below a prefix (a folder's name without its last `/`; empty for all), sorted by name.
    ///
    /// # Errors
    /// When the store cannot list.
    pub async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        let folder = (!prefix.is_empty()).then(|| Path::from(prefix));
        let mut objects: Vec<ObjectInfo> = self
            .inner
            .list(folder.as_ref())
            .map_ok(|meta| ObjectInfo {
                path: meta.location.to_string(),
                size: meta.size,
                modified: Timestamp::from_second(meta.last_modified.timestamp())
                    .unwrap_or_default(),
            })
            .try_collect()
            .await
            .map_err(|source| failed("list", prefix, source))?;
        objects.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(objects)
    }

    /// The names of the folders directly below a prefix, sorted.
    ///
    /// # Errors
    /// When the store cannot list.
    pub async fn folders(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let folder = (!prefix.is_empty()).then(|| Path::from(prefix));
        let listing = self
            .inner
            .list_with_delimiter(folder.as_ref())
            .await
            .map_err(|source| failed("list", prefix, source))?;
        let mut names: Vec<String> = listing
            .common_prefixes
            .iter()
            .filter_map(|path| path.filename().map(str::to_owned))
            .collect();
        names.sort();
        Ok(names)
    }

    /// Deletes an object. One that is not there counts as deleted.
    ///
    /// # Errors
    /// When the store refuses.
    pub async fn delete(&self, path: &str) -> Result<(), StoreError> {
        match self.inner.delete(&Path::from(path)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(source) => Err(failed("delete", path, source)),
        }
    }

    /// Begins an object that is written in parts and appears when it is finished.
    ///
    /// # Errors
    /// When the store refuses.
    pub async fn upload(&self, path: &str) -> Result<Upload, StoreError> {
        if let Some(root) = &self.local_root {
            let target = root.join(path);
            let begun = in_background("begin", path, move || LocalUpload::begin(target)).await?;
            return Ok(Upload {
                path: path.to_owned(),
                means: Means::Local(Some(begun)),
            });
        }
        let upload = self
            .inner
            .put_multipart(&Path::from(path))
            .await
            .map_err(|source| failed("begin", path, source))?;
        Ok(Upload {
            path: path.to_owned(),
            means: Means::Remote(upload),
        })
    }

    /// Removes the folders below and including `prefix` that hold no objects. Only a directory has any.
    ///
    /// # Errors
    /// When the directory cannot be changed.
    pub fn remove_empty_folders(&self, prefix: &str) -> Result<(), StoreError> {
        let Some(root) = &self.local_root else {
            return Ok(());
        };
        let folder = root.join(prefix);
        remove_empty(&folder).map_err(|source| StoreError::Directory {
            path: folder,
            source,
        })
    }

    /// Removes what interrupted writes below `prefix` left beside the objects, and returns how many
    /// there were. Only a directory has such remains that can be seen; object stores end abandoned
    /// uploads by a rule of the bucket. Call it only while no other writer is at work below `prefix`.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn sweep_staged(&self, prefix: &str) -> Result<u64, StoreError> {
        self.sweep_staged_if(prefix, |_| Ok(true))
    }

    /// The same of what was written last before a moment, by the file system's clock: others may be at work.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn sweep_staged_before(&self, prefix: &str, moment: SystemTime) -> Result<u64, StoreError> {
        let is_old = |entry: &std::fs::DirEntry| match entry.metadata() {
            Ok(metadata) => Ok(metadata.modified()? < moment),
            // Finished meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        };
        self.sweep_staged_if(prefix, is_old)
    }

    fn sweep_staged_if(
        &self,
        prefix: &str,
        is_abandoned: impl Fn(&std::fs::DirEntry) -> io::Result<bool>,
    ) -> Result<u64, StoreError> {
        let Some(root) = &self.local_root else {
            return Ok(0);
        };
        let mut removed = 0;
        let mut folders = vec![root.join(prefix)];
        while let Some(folder) = folders.pop() {
            let error = |source| StoreError::Directory {
                path: folder.clone(),
                source,
            };
            let entries = match std::fs::read_dir(&folder) {
                Ok(entries) => entries,
                Err(source) if source.kind() == std::io::ErrorKind::NotFound => continue,
                Err(source) => return Err(error(source)),
            };
            for entry in entries {
                let entry = entry.map_err(error)?;
                let kind = entry.file_type().map_err(error)?;
                if kind.is_dir() {
                    folders.push(entry.path());
                } else if entry.file_name().to_string_lossy().contains('#')
                    && is_abandoned(&entry).map_err(error)?
                {
                    std::fs::remove_file(entry.path()).map_err(error)?;
                    removed += 1;
                }
            }
        }
        Ok(removed)
    }
}

/// Removes what of a tree of folders holds no files.
fn remove_empty(folder: &std::path::Path) -> io::Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_empty(&entry.path())?;
        }
    }
    match std::fs::remove_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::DirectoryNotEmpty => Err(error),
        _ => Ok(()),
    }
}

/// What [`Store::open`] does about a directory that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Makes it.
    Create,
    /// Fails.
    Refuse,
}

/// An object being written in parts.
#[derive(Debug)]
pub struct Upload {
    path: String,
    means: Means,
}

#[derive(Debug)]
enum Means {
    /// A directory. It is gone once a part failed.
    Local(Option<LocalUpload>),
    Remote(Box<dyn MultipartUpload>),
}

impl Upload {
    /// Writes the next part. All but the last have [`PART_BYTES`].
    ///
    /// # Errors
    /// When the store fails; the upload is then of no more use.
    pub async fn part(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        match &mut self.means {
            Means::Local(upload) => {
                let Some(mut local) = upload.take() else {
                    return Err(ended_early("write", &self.path));
                };
                let write = move || local.part(&bytes).map(|()| local);
                *upload = Some(in_background("write", &self.path, write).await?);
                Ok(())
            }
            Means::Remote(upload) => {
                let part = upload.put_part(PutPayload::from_bytes(bytes));
                part.await
                    .map_err(|source| failed("write", &self.path, source))
            }
        }
    }

    /// Makes the object appear.
    ///
    /// # Errors
    /// When the store fails; the object is then not there.
    pub async fn finish(self) -> Result<(), StoreError> {
        match self.means {
            Means::Local(Some(local)) => {
                in_background("finish", &self.path, move || local.finish()).await
            }
            Means::Local(None) => Err(ended_early("finish", &self.path)),
            Means::Remote(mut upload) => match upload.complete().await {
                Ok(_) => Ok(()),
                Err(source) => Err(failed("finish", &self.path, source)),
            },
        }
    }

    /// Gives up; nothing appears.
    pub async fn abort(self) {
        if let Means::Remote(mut upload) = self.means {
            // What cannot be taken back now is swept later.
            let _ = upload.abort().await;
        }
    }
}

/// Runs work on files in a thread that may wait for the disk.
async fn in_background<T: Send + 'static>(
    action: &'static str,
    path: &str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(source)) if source.kind() == io::ErrorKind::AlreadyExists => {
            let path = path.to_owned();
            Err(StoreError::Exists { path })
        }
        Ok(Err(source)) => {
            let path = path.to_owned();
            Err(StoreError::File {
                action,
                path,
                source,
            })
        }
        Err(_) => Err(ended_early(action, path)),
    }
}

/// A part before failed, or the runtime ends.
fn ended_early(action: &'static str, path: &str) -> StoreError {
    StoreError::File {
        action,
        path: path.to_owned(),
        source: io::Error::other("its writing was ended early"),
    }
}

fn failed(action: &'static str, path: &str, source: object_store::Error) -> StoreError {
    let path = path.to_owned();
    match source {
        object_store::Error::NotFound { .. } => StoreError::Missing { path },
        object_store::Error::AlreadyExists { .. } => StoreError::Exists { path },
        source => StoreError::Failed {
            action,
            path,
            source,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().to_str().unwrap(), Missing::Refuse).unwrap();
        (directory, store)
    }

    #[tokio::test]
    async fn an_object_is_never_overwritten() {
        let (_directory, store) = store();
        store.put_new("a/b", "one").await.unwrap();
        let second = store.put_new("a/b", "two").await;
        assert!(matches!(second, Err(StoreError::Exists { .. })));
        assert_eq!(store.get("a/b").await.unwrap(), "one");
    }

    #[tokio::test]
    async fn a_part_of_a_store_sees_its_own_objects_alone() {
        let (_directory, store) = store();
        let part = store.below("far/away");
        store.put_new("x/1", "outside").await.unwrap();
        part.put_new("x/1", "inside").await.unwrap();
        let mut upload = part.upload("x/2").await.unwrap();
        upload.part("in parts".into()).await.unwrap();
        upload.finish().await.unwrap();
        assert_eq!(part.get("x/1").await.unwrap(), "inside");
        let names = |objects: Vec<ObjectInfo>| -> Vec<String> {
            objects.into_iter().map(|info| info.path).collect()
        };
        assert_eq!(names(part.list("x").await.unwrap()), ["x/1", "x/2"]);
        assert_eq!(part.folders("").await.unwrap(), ["x"]);
        let below = ["far/away/x/1", "far/away/x/2"];
        assert_eq!(names(store.list("far").await.unwrap()), below);
        part.delete("x/1").await.unwrap();
        assert_eq!(store.get("x/1").await.unwrap(), "outside");
        assert!(part.url().as_str().ends_with("/far/away"));
    }

    #[tokio::test]
    async fn an_upload_appears_only_when_finished_and_its_remains_are_swept() {
        let (directory, store) = store();
        let mut upload = store.upload("p/x").await.unwrap();
        upload.part("half".into()).await.unwrap();
        assert_eq!(store.list("p").await.unwrap(), vec![]);
        std::mem::forget(upload);
        assert_eq!(
            std::fs::read_dir(directory.path().join("p"))
                .unwrap()
                .count(),
            1
        );
        let hour = std::time::Duration::from_secs(3600);
        let (before, behind) = (SystemTime::now() - hour, SystemTime::now() + hour);
        assert_eq!(store.sweep_staged_before("p", before).unwrap(), 0);
        assert_eq!(store.sweep_staged("p").unwrap(), 1);
        assert_eq!(store.sweep_staged_before("p", behind).unwrap(), 0);
        assert_eq!(
            std::fs::read_dir(directory.path().join("p"))
                .unwrap()
                .count(),
            0
        );
    }

    #[test]
    fn addresses_that_are_no_store_are_refused() {
        for address in [
            "",
            "relative/path",
            "s3://bucket",
            "file://host/x",
            "http://x",
        ] {
            assert!(Store::open(address, Missing::Refuse).is_err(), "{address}");
        }
    }
}
