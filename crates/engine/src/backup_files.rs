//! Single files out of a backup, read into memory.

use std::collections::{BTreeMap, HashMap};

use everpoint_pgformat::ids::BLOCK_SIZE;
use everpoint_repository::{
    InstanceName, Repository, RepositoryError,
    backup::{Backup, Pack},
    frame::FrameDecoder,
    layout,
    manifest::{Content, FileEntry, StoredFrame},
    object::{ObjectKind, SealedObject},
};

use crate::restore::units::{self, Layer, MissingBase, RestoreUnit};

/// The most files that are looked for at a time.
const MAX_FILES: usize = 1 << 12;

/// A file of a backup cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BackupFileError {
    /// The repository cannot be read, or holds damaged data.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// A differential without its base's file.
    #[error(transparent)]
    MissingBase(#[from] MissingBase),
    /// The manifest contradicts itself or the pack.
    #[error("`{path}` cannot be read from the backup: {what}")]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong.
        what: &'static str,
    },
}

/// Reads files of one backup.
pub struct BackupFiles<'a> {
    repository: &'a Repository,
    instance: &'a InstanceName,
    backup: &'a Backup,
    base: Option<&'a Backup>,
    decoder: FrameDecoder,
    packs: HashMap<(Layer, u32), SealedObject>,
}

/// A file of a backup, and of the full backup that a differential builds on.
pub struct BackupFile {
    entry: FileEntry,
    base: Option<FileEntry>,
}

impl BackupFile {
    /// Its size.
    pub fn size(&self) -> u64 {
        self.entry.size
    }
}

impl<'a> BackupFiles<'a> {
    /// For a backup out of `backups`, which has its base, too.
    ///
    /// # Errors
    /// When the codec cannot be set up.
    pub fn new(
        repository: &'a Repository,
        instance: &'a InstanceName,
        backup: &'a Backup,
        backups: &'a [Backup],
    ) -> Result<Self, BackupFileError> {
        let base = backup.kind.base();
        Ok(Self {
            repository,
            instance,
            backup,
            base: base.and_then(|id| backups.iter().find(|backup| backup.id == *id)),
            decoder: FrameDecoder::new().map_err(RepositoryError::from)?,
            packs: HashMap::new(),
        })
    }

    /// The files whose paths are wanted, at most 4096 of them.
    ///
    /// # Errors
    /// When a manifest cannot be read.
    pub async fn find(
        &self,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<BTreeMap<String, BackupFile>, BackupFileError> {
        let mut files = BTreeMap::new();
        let store = self.repository.store();
        let (_, mut manifest) = self
            .repository
            .manifest(self.instance, &self.backup.id)
            .await?;
        while let Some(entry) = manifest.next(store).await.map_err(RepositoryError::from)? {
            if wanted(&entry.path) && files.len() < MAX_FILES {
                files.insert(entry.path.clone(), BackupFile { entry, base: None });
            }
        }
        let needs_base = |file: &BackupFile| matches!(file.entry.content, Content::Blocks { .. });
        if let Some(base) = self.base
            && files.values().any(needs_base)
        {
            let (_, mut manifest) = self.repository.manifest(self.instance, &base.id).await?;
            while let Some(entry) = manifest.next(store).await.map_err(RepositoryError::from)? {
                if let Some(file) = files.get_mut(&entry.path) {
                    file.base = Some(entry);
                }
            }
        }
        Ok(files)
    }

    /// Reads a file, some MiB at a time.
    ///
    /// # Errors
    /// When the repository fails, or holds damaged data.
    pub async fn read(
        &mut self,
        file: &BackupFile,
        mut visit: impl FnMut(&[u8]),
    ) -> Result<(), BackupFileError> {
        for unit in units::cut(&file.entry, file.base.as_ref())? {
            visit(&self.unit(&unit).await?);
        }
        Ok(())
    }

    async fn unit(&mut self, unit: &RestoreUnit) -> Result<Vec<u8>, BackupFileError> {
        let mut contents = vec![0; unit.len];
        for laid in &unit.laid {
            let frame = self
                .frame(&unit.file.path, laid.layer, &laid.stored)
                .await?;
            let room = contents.get_mut(laid.at..).unwrap_or_default();
            for (to, from) in room.iter_mut().zip(frame) {
                *to = from;
            }
        }
        for overlay in &unit.overlays {
            let path = &unit.file.path;
            let frame = self.frame(path, Layer::Top, &overlay.stored).await?;
            for (from, to) in &overlay.pages {
                let page = frame.get(*from..from + BLOCK_SIZE);
                let place = contents.get_mut(*to..to + BLOCK_SIZE);
                if let (Some(page), Some(place)) = (page, place) {
                    place.copy_from_slice(page);
                }
            }
        }
        Ok(contents)
    }

    async fn frame(
        &mut self,
        path: &str,
        layer: Layer,
        stored: &StoredFrame,
    ) -> Result<Vec<u8>, BackupFileError> {
        let damaged = |what| BackupFileError::Damaged {
            path: path.to_owned(),
            what,
        };
        let packs = match (layer, self.base) {
            (Layer::Top, _) => &self.backup.packs,
            (Layer::Base, Some(base)) => &base.packs,
            (Layer::Base, None) => return Err(damaged("its full backup is missing")),
        };
        let store = self.repository.store();
        let key = (layer, stored.pack);
        if !self.packs.contains_key(&key) {
            let pack: Option<&Pack> = usize::try_from(stored.pack)
                .ok()
                .and_then(|number| packs.get(number));
            let pack = pack.ok_or_else(|| damaged("its pack is not listed"))?;
            let place = layout::pack(self.instance, &pack.backup, pack.id);
            let keys = self.repository.keys();
            let object = SealedObject::open(store, keys, &place, ObjectKind::Pack, pack.id);
            let object = object.await.map_err(RepositoryError::from)?;
            self.packs.insert(key, object);
        }
        let Some(object) = self.packs.get(&key) else {
            return Err(damaged("its pack is not listed"));
        };
        let read = object.read(store, &stored.frame, &mut self.decoder).await;
        let contents = read.map_err(RepositoryError::from)?;
        if *blake3::hash(&contents).as_bytes() != stored.hash {
            return Err(damaged("its contents are not what the manifest says"));
        }
        Ok(contents)
    }
}
