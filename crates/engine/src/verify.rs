//! Verifying a repository: that everything it needs is there, authentic, and says what it said.

mod missing;

use std::collections::{BTreeMap, HashMap, HashSet};

use everpoint_pgformat::timeline::TimelineHistory;
use everpoint_repository::{
    InstanceName, Repository, RepositoryError,
    backup::Backup,
    document,
    frame::{Codec, FrameDecoder},
    layout,
    log::{GapDocument, LogIndex, LogMetadata, LogStretch, MarkDocument, TimelineDocument},
    manifest::StoredFrame,
    object::{ObjectKind, SealedObject},
    policy_document::PolicyDocument,
    summary::StoredSummary,
};
use serde::Serialize;

use crate::progress::Progress;

/// How much is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Presence, size, and everything that is small: manifests, documents, the ends of log backups.
    Presence,
    /// Every byte: decrypted, unpacked, and compared with its hash.
    Contents,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// The instance; `None` when the object is one of the whole repository.
    pub instance: Option<InstanceName>,
    /// The object.
    pub object: String,
    /// What is wrong with it.
    pub what: String,
    /// The backups that need it; empty for log.
    pub backups: Vec<String>,
    /// Files of those backups that are affected, as far as they were looked up.
    pub files: Vec<String>,
}

/// What verifying found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Objects looked at.
    pub objects: u64,
    /// Bytes of contents compared with their hashes.
    pub verified_bytes: u64,
    /// Damage.
    pub damage: Vec<Damage>,
}

/// Names of affected files listed for each damaged object at the most.
const LISTED_FILES: usize = 20;

/// Verifies what all instances have in common: the marker, the keys, and who may do what.
///
/// # Errors
/// When the store cannot be listed; damage is no error, it is in the report.
pub async fn verify_keys(repository: &Repository) -> Result<Report, RepositoryError> {
    let (objects, damaged) = repository.check_keys().await?;
    let (documents, damaged_documents) = repository.check_access().await?;
    let objects = objects + documents;
    let damage = damaged
        .into_iter()
        .chain(damaged_documents)
        .map(|(object, error)| Damage {
            instance: None,
            object,
            what: chain(&error),
            backups: Vec::new(),
            files: Vec::new(),
        });
    Ok(Report {
        objects,
        verified_bytes: 0,
        damage: damage.collect(),
    })
}

/// Verifies one instance.
///
/// # Errors
/// When the store cannot be listed or the codec not set up; damage is no error, it is in the report.
pub async fn verify(
    repository: &Repository,
    instance: &InstanceName,
    depth: Depth,
    progress: &Progress,
) -> Result<Report, RepositoryError> {
    let mut verifier = Verifier {
        repository,
        instance,
        depth,
        progress,
        decoder: FrameDecoder::new()?,
        report: Report::default(),
        packs: HashMap::new(),
        pack_ends: HashMap::new(),
        frames: HashMap::new(),
        living: HashSet::new(),
        readable: Vec::new(),
        log: Vec::new(),
        histories: Vec::new(),
        gaps: Vec::new(),
    };
    verifier.backups().await?;
    verifier.logs().await?;
    verifier.summaries().await?;
    verifier.documents().await?;
    verifier.missing_log();
    Ok(verifier.report)
}

/// Verifies the long-term copies of an instance's databases.
///
/// # Errors
/// When the store cannot be listed or the codec not set up; damage is no error, it is in the report.
pub async fn verify_copies(
    repository: &Repository,
    instance: &InstanceName,
    depth: Depth,
    progress: &Progress,
) -> Result<Report, RepositoryError> {
    let found = repository.copies(instance).await?;
    let mut total = Report::default();
    for (id, error) in found.unreadable {
        total.objects += 1;
        total.damage.push(Damage {
            instance: Some(instance.clone()),
            object: layout::copy_states(instance, id),
            what: chain(&error),
            backups: Vec::new(),
            files: Vec::new(),
        });
    }
    for copy in found.copies {
        let inside = repository.long_term(instance, copy.id);
        let mut report = verify(&inside, instance, depth, progress).await?;
        let place = layout::copy(instance, copy.id);
        let there = inside.manifests(instance).await?;
        if !there.iter().any(|(id, ..)| *id == copy.backup) {
            report.damage.push(Damage {
                instance: Some(instance.clone()),
                object: layout::backups(instance),
                what: format!("the manifest of backup {} is missing", copy.backup),
                backups: vec![copy.backup.to_string()],
                files: Vec::new(),
            });
        }
        for damage in &mut report.damage {
            damage.object = format!("{place}/{}", damage.object);
        }
        total.objects += report.objects + 1;
        total.verified_bytes += report.verified_bytes;
        total.damage.extend(report.damage);
    }
    Ok(total)
}

struct Verifier<'a> {
    repository: &'a Repository,
    instance: &'a InstanceName,
    depth: Depth,
    progress: &'a Progress,
    decoder: FrameDecoder,
    report: Report,
    /// Packs found damaged: by name, their place in the report.
    packs: HashMap<String, usize>,
    /// Packs whose headers and indexes were looked at: by name, the damage found there.
    pack_ends: HashMap<String, Option<usize>>,
    /// Damaged frames of packs: by name and ordinal.
    frames: HashMap<(String, u32), usize>,
    /// Backups that there are.
    living: HashSet<String>,
    /// Manifests that can be read.
    readable: Vec<Backup>,
    /// Log backups, by their names.
    log: Vec<LogStretch>,
    /// Timelines' histories that can be read.
    histories: Vec<TimelineHistory>,
    /// Gaps that can be read.
    gaps: Vec<GapDocument>,
}

impl Verifier<'_> {
    fn damage(&mut self, object: &str, what: String) -> usize {
        self.report.damage.push(Damage {
            instance: Some(self.instance.clone()),
            object: object.to_owned(),
            what,
            backups: Vec::new(),
            files: Vec::new(),
        });
        self.report.damage.len() - 1
    }

    fn affects(&mut self, damage: usize, backup: &str, file: Option<&str>) {
        if let Some(damage) = self.report.damage.get_mut(damage) {
            if !damage.backups.iter().any(|known| known == backup) {
                damage.backups.push(backup.to_owned());
            }
            if let Some(file) = file
                && damage.files.len() < LISTED_FILES
                && !damage.files.iter().any(|known| known == file)
            {
                damage.files.push(file.to_owned());
            }
        }
    }

    async fn backups(&mut self) -> Result<(), RepositoryError> {
        self.progress.phase("verifying backups", 0);
        let mut sizes: BTreeMap<String, u64> = BTreeMap::new();
        for info in self
            .repository
            .store()
            .list(&layout::packs(self.instance))
            .await?
        {
            sizes.insert(info.path, info.size);
        }
        let manifests = self.repository.manifests(self.instance).await?;
        self.living = manifests.iter().map(|(id, ..)| id.to_string()).collect();
        let mut backups = Vec::new();
        for (id, path, object_id) in manifests {
            self.report.objects += 1;
            match self.repository.read_metadata(&path, object_id).await {
                Ok((backup, _)) => backups.push((backup, path)),
                Err(error) => {
                    let damage = self.damage(&path, chain(&error));
                    self.affects(damage, id.as_str(), None);
                }
            }
        }
        // What a backup shares with an earlier one was looked at with that.
        backups.sort_by(|(a, _), (b, _)| a.started_at.cmp(&b.started_at).then(a.id.cmp(&b.id)));
        for (backup, path) in backups {
            if let Some(base) = backup.kind.base()
                && !self.living.contains(base.as_str())
            {
                let damage = self.damage(&path, format!("its base, backup {base}, is missing"));
                self.affects(damage, backup.id.as_str(), None);
            }
            self.presence(&backup, &sizes);
            if self.depth == Depth::Contents {
                self.pack_ends(&backup).await;
            }
            self.files(&backup, &path).await?;
            self.readable.push(backup);
        }
        Ok(())
    }

    /// That the packs are there and have the length they were written with.
    fn presence(&mut self, backup: &Backup, sizes: &BTreeMap<String, u64>) {
        for pack in &backup.packs {
            let path = layout::pack(self.instance, &pack.backup, pack.id);
            self.report.objects += 1;
            let what = match sizes.get(&path) {
                Some(size) if *size == pack.size.get() => continue,
                Some(size) => format!("it has {size} bytes instead of {}", pack.size),
                None => "it is missing".to_owned(),
            };
            let damage = match self.packs.get(&path) {
                Some(known) => *known,
                None => {
                    let damage = self.damage(&path, what);
                    self.packs.insert(path, damage);
                    damage
                }
            };
            self.affects(damage, backup.id.as_str(), None);
        }
    }

    /// That the packs' headers and indexes are those that were written. Restores do without, as manifests
    /// say where each frame lies; so no file is affected.
    async fn pack_ends(&mut self, backup: &Backup) {
        let (store, keys) = (self.repository.store(), self.repository.keys());
        for pack in &backup.packs {
            let path = layout::pack(self.instance, &pack.backup, pack.id);
            if self.packs.contains_key(&path) {
                continue;
            }
            let damage = match self.pack_ends.get(&path) {
                Some(known) => *known,
                None => {
                    let opened =
                        SealedObject::open(store, keys, &path, ObjectKind::Pack, pack.id).await;
                    let damage = opened.err().map(|error| self.damage(&path, chain(&error)));
                    self.pack_ends.insert(path, damage);
                    damage
                }
            };
            if let Some(damage) = damage {
                self.affects(damage, backup.id.as_str(), None);
            }
        }
    }

    /// That the list of files is whole, which files damaged packs belong to, and, in depth, every frame.
    async fn files(&mut self, backup: &Backup, manifest: &str) -> Result<(), RepositoryError> {
        let (_, mut reader) = self.repository.manifest(self.instance, &backup.id).await?;
        let store = self.repository.store();
        loop {
            let entry = match reader.next(store).await {
                Ok(Some(entry)) => entry,
                Ok(None) => return Ok(()),
                Err(error) => {
                    let damage = self.damage(manifest, chain(&error));
                    self.affects(damage, backup.id.as_str(), None);
                    return Ok(());
                }
            };
            for stored in entry.frames() {
                if stored.frame.codec == Codec::Zero {
                    continue;
                }
                self.frame(backup, manifest, &entry.path, stored).await?;
            }
        }
    }

    async fn frame(
        &mut self,
        backup: &Backup,
        manifest: &str,
        file: &str,
        stored: &StoredFrame,
    ) -> Result<(), RepositoryError> {
        let Some(pack) = backup.packs.get(stored.pack as usize) else {
            let what = format!("it names pack {} and lists no such pack", stored.pack);
            let damage = self.damage(manifest, what);
            self.affects(damage, backup.id.as_str(), Some(file));
            return Ok(());
        };
        let path = layout::pack(self.instance, &pack.backup, pack.id);
        if let Some(damage) = self.packs.get(&path).copied() {
            self.affects(damage, backup.id.as_str(), Some(file));
            return Ok(());
        }
        let place = (path, stored.frame.ordinal);
        if let Some(damage) = self.frames.get(&place).copied() {
            self.affects(damage, backup.id.as_str(), Some(file));
            return Ok(());
        }
        let path = &place.0;
        // A frame that an earlier backup wrote was looked at with that backup, while it lives.
        let others = pack.backup != backup.id && self.living.contains(pack.backup.as_str());
        if self.depth == Depth::Presence || others {
            return Ok(());
        }
        let identity = pack.identity();
        let key = self
            .repository
            .keys()
            .object_key(identity.data_key, identity.id)?;
        let frame = &stored.frame;
        let range = frame.offset..frame.offset + u64::from(frame.stored);
        let mut contents = vec![0; frame.raw as usize];
        let read = self.repository.store().get_range(path, range).await;
        let what = match read {
            Err(error) => Some(chain(&error)),
            Ok(bytes) => {
                let mut bytes = bytes.to_vec();
                let header = identity.header();
                match self
                    .decoder
                    .decode(frame, &header, &key, &mut bytes, &mut contents)
                {
                    Err(error) => Some(chain(&error)),
                    Ok(()) if *blake3::hash(&contents).as_bytes() != stored.hash => Some(format!(
                        "frame {} has other contents than its hash",
                        frame.ordinal
                    )),
                    Ok(()) => None,
                }
            }
        };
        self.report.verified_bytes += u64::from(frame.raw);
        self.progress.add_bytes(u64::from(frame.raw));
        if let Some(what) = what {
            let damage = self.damage(path, what);
            self.affects(damage, backup.id.as_str(), Some(file));
            self.frames.insert(place, damage);
        }
        Ok(())
    }

    async fn logs(&mut self) -> Result<(), RepositoryError> {
        self.progress.phase("verifying log", 0);
        let (store, keys) = (self.repository.store(), self.repository.keys());
        for info in store.list(&layout::logs(self.instance)).await? {
            self.report.objects += 1;
            let Some(stretch) = LogStretch::parse(&info) else {
                self.damage(&info.path, "its name is not a log backup's".to_owned());
                continue;
            };
            self.log.push(stretch.clone());
            let opened =
                SealedObject::open(store, keys, &info.path, ObjectKind::Log, stretch.id).await;
            let object = match opened {
                Ok(object) => object,
                Err(error) => {
                    self.damage(&info.path, chain(&error));
                    continue;
                }
            };
            let metadata: Option<LogMetadata> = serde_json::from_slice(object.metadata()).ok();
            let Some(metadata) = metadata.filter(|metadata| metadata.is_of(&stretch)) else {
                self.damage(
                    &info.path,
                    "it holds other log than its name says".to_owned(),
                );
                continue;
            };
            let raw: u64 = object
                .frames()
                .iter()
                .map(|frame| u64::from(frame.raw))
                .sum();
            if raw != stretch.end.bytes_since(stretch.start) {
                self.damage(
                    &info.path,
                    "it holds more or less log than its name says".to_owned(),
                );
                continue;
            }
            if self.depth == Depth::Presence {
                continue;
            }
            let mut hasher = blake3::Hasher::new();
            let mut whole = true;
            for frame in object.frames() {
                match object.read(store, frame, &mut self.decoder).await {
                    Ok(bytes) => {
                        hasher.update(&bytes);
                        self.report.verified_bytes += bytes.len() as u64;
                        self.progress.add_bytes(bytes.len() as u64);
                    }
                    Err(error) => {
                        self.damage(&info.path, chain(&error));
                        whole = false;
                        break;
                    }
                }
            }
            if whole && hasher.finalize().to_hex().as_str() != metadata.hash {
                self.damage(
                    &info.path,
                    "its log is not the one that was stored".to_owned(),
                );
            }
        }
        Ok(())
    }

    /// That summaries can be read. One that cannot is no loss: the log says the same.
    async fn summaries(&mut self) -> Result<(), RepositoryError> {
        self.progress.phase("verifying summaries of log", 0);
        let folder = layout::summaries(self.instance);
        for info in self.repository.store().list(&folder).await? {
            self.report.objects += 1;
            let what = match StoredSummary::parse(&info) {
                None => "its name is not a summary's".to_owned(),
                Some(stored) => match self.repository.read_summary(&stored, None).await {
                    Ok(_) => continue,
                    Err(error) => chain(&error),
                },
            };
            let remedy = format!(
                "no data is lost: `everpoint wal summarize {}` makes it anew",
                self.instance
            );
            self.damage(&info.path, format!("{what}; {remedy}"));
        }
        Ok(())
    }

    /// That log joins on, and that each backup has what it needs.
    fn missing_log(&mut self) {
        let log = std::mem::take(&mut self.log);
        let histories = std::mem::take(&mut self.histories);
        let index = LogIndex::new(log, histories);
        for missing in missing::missing_log(&index, &self.gaps, &self.readable) {
            let folder = layout::log_folder(self.instance, missing.timeline);
            let what = format!("log from {} to {} is missing", missing.from, missing.to);
            let damage = self.damage(&folder, what);
            for backup in missing.backups {
                self.affects(damage, backup.as_str(), None);
            }
        }
    }

    async fn documents(&mut self) -> Result<(), RepositoryError> {
        self.progress.phase("verifying documents", 0);
        let (store, keys) = (self.repository.store(), self.repository.keys());
        let folders = [
            layout::descriptions(self.instance),
            layout::timelines(self.instance),
            layout::gaps(self.instance),
            layout::marks(self.instance),
            layout::policies(self.instance),
        ];
        for (kind, folder) in folders.iter().enumerate() {
            for info in store.list(folder).await? {
                self.report.objects += 1;
                let Some((_, id)) = layout::parse_last(&info.path) else {
                    self.damage(&info.path, "its name is not a document's".to_owned());
                    continue;
                };
                let read = match kind {
                    0 => document::read::<serde_json::Value>(store, keys, &info.path, id)
                        .await
                        .map(drop),
                    1 => document::read::<TimelineDocument>(store, keys, &info.path, id)
                        .await
                        .map(|stored| {
                            let read = TimelineHistory::parse(stored.timeline, &stored.text);
                            self.histories.extend(read);
                        }),
                    3 => document::read::<MarkDocument>(store, keys, &info.path, id)
                        .await
                        .map(drop),
                    4 => document::read::<PolicyDocument>(store, keys, &info.path, id)
                        .await
                        .map(drop),
                    _ => document::read::<GapDocument>(store, keys, &info.path, id)
                        .await
                        .map(|gap| self.gaps.push(gap)),
                };
                if let Err(error) = read {
                    self.damage(&info.path, chain(&error));
                }
            }
        }
        Ok(())
    }
}

/// An error with all that caused it, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let more = source.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        next = source.source();
    }
    text
}
