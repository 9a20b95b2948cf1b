//! Names of relations out of backups' catalogs, for what the log does not name.

use std::collections::HashMap;

use everpoint_pgformat::{
    Lsn, Oid,
    catalog::{CLASS_CATALOG, NAMESPACE_CATALOG, RelationNames},
    ids::BLOCK_SIZE,
    page::Page,
    relation::{DataPath, Fork},
    wal::relation_map::RelationMap,
};
use everpoint_repository::{BackupId, InstanceName, Repository, backup::Backup};

use super::{
    digest::shown,
    event::{Change, Event, Object, ObjectKind},
    known::{KnownRelation, usual_namespace},
};
use crate::backup_files::{BackupFile, BackupFileError, BackupFiles};

/// A catalog larger than this is not read.
const MAX_CATALOG_BYTES: u64 = 512 << 20;
/// The most catalogs that are read for one listing.
const MAX_CATALOGS: usize = 64;

/// The catalogs of backups, read when they are needed.
pub struct BackupCatalogs<'a> {
    repository: &'a Repository,
    instance: &'a InstanceName,
    backups: &'a [Backup],
    read: HashMap<(BackupId, Oid), Option<RelationNames>>,
    /// What could not be read, for a person.
    pub troubles: Vec<String>,
}

impl<'a> BackupCatalogs<'a> {
    /// Nothing read yet. The backups are in the order of their positions.
    pub fn new(
        repository: &'a Repository,
        instance: &'a InstanceName,
        backups: &'a [Backup],
    ) -> Self {
        Self {
            repository,
            instance,
            backups,
            read: HashMap::new(),
            troubles: Vec::new(),
        }
    }

    /// Names what the log did not name in an event, and leaves out what turns out to belong to a table that
    /// is named.
    pub async fn name(&mut self, event: &mut Event) {
        let lsn = event.id.lsn;
        let objects = match &mut event.change {
            Change::Objects { objects, .. } | Change::Rows { tables: objects } => objects,
            _ => return,
        };
        for object in objects.iter_mut() {
            if let Some(file) = object.file
                && (object.name.is_none() || object.schema.is_none())
                && let Some(found) = self.relation(lsn, file.database, file.relfilenode).await
            {
                object.kind = ObjectKind::Relation(found.kind);
                object.schema = object.schema.take().or(found.schema);
                object.name = object.name.take().or(Some(found.name));
            }
        }
        for object in objects.iter_mut() {
            if let Some((database, namespace)) = object.namespace
                && object.schema.is_none()
            {
                object.schema = self.namespace(lsn, database, namespace).await;
            }
        }
        tidy(objects);
    }

    async fn namespace(&mut self, lsn: Lsn, database: Oid, namespace: Oid) -> Option<String> {
        let backups = self.backups;
        let before = backups.iter().rfind(|backup| backup.stop_lsn <= lsn)?;
        let names = self.names(before, database).await?;
        names.namespace(namespace).map(shown)
    }

    async fn relation(
        &mut self,
        lsn: Lsn,
        database: Oid,
        relfilenode: Oid,
    ) -> Option<KnownRelation> {
        let backups = self.backups;
        let before = backups.iter().rfind(|backup| backup.stop_lsn <= lsn)?;
        let names = self.names(before, database).await?;
        let found = names.of_file(relfilenode)?;
        let schema = names.namespace(found.namespace).map(shown);
        Some(KnownRelation {
            oid: found.oid,
            kind: found.kind,
            schema: schema.or_else(|| usual_namespace(found.namespace).map(str::to_owned)),
            name: shown(&found.name),
        })
    }

    async fn names(&mut self, backup: &Backup, database: Oid) -> Option<&RelationNames> {
        let key = (backup.id.clone(), database);
        if !self.read.contains_key(&key) && self.read.len() < MAX_CATALOGS {
            let read = read(
                self.repository,
                self.instance,
                self.backups,
                backup,
                database,
            )
            .await;
            let names = match read {
                Ok(names) => names,
                Err(error) => {
                    let id = &backup.id;
                    let text =
                        format!("names of tables could not be read from backup {id}: {error}");
                    self.troubles.push(text);
                    None
                }
            };
            self.read.insert(key.clone(), names);
        }
        self.read.get(&key)?.as_ref()
    }
}

/// Keeps what users mean by tables, where there is some of it.
fn tidy(objects: &mut Vec<Object>) {
    if objects.iter().any(|object| object.kind.is_prominent()) {
        objects.retain(|object| object.kind.is_prominent());
    }
    let mut seen: Vec<(Option<String>, Option<String>)> = Vec::new();
    objects.retain(|object| {
        let name = (object.schema.clone(), object.name.clone());
        let is_new = object.name.is_none() || !seen.contains(&name);
        seen.push(name);
        is_new
    });
}

/// The names in a database's catalogs as of a backup; `None` when it has no such database.
async fn read(
    repository: &Repository,
    instance: &InstanceName,
    backups: &[Backup],
    backup: &Backup,
    database: Oid,
) -> Result<Option<RelationNames>, BackupFileError> {
    let version = backup.version;
    let mut files = BackupFiles::new(repository, instance, backup, backups)?;
    let usual = [CLASS_CATALOG, NAMESPACE_CATALOG];
    let is_map = |path: &str| path.ends_with("/pg_filenode.map");
    let is_of = |path: &str, catalogs: &[Oid]| match DataPath::classify(path, version) {
        DataPath::Relation(file) => {
            file.relation.database == database
                && file.fork == Fork::Main
                && catalogs.contains(&file.relation.relfilenode)
        }
        DataPath::Database { database: of, .. } => of == database && is_map(path),
        DataPath::Cluster => false,
    };
    let mut found = files.find(|path| is_of(path, &usual)).await?;
    let Some(map) = found
        .iter()
        .find_map(|(path, file)| is_map(path).then_some(file))
    else {
        return Ok(None);
    };
    let mut bytes = Vec::new();
    files
        .read(map, |part| bytes.extend_from_slice(part))
        .await?;
    let mapped = RelationMap::parse(&bytes).and_then(|map| map.relfilenode(CLASS_CATALOG));
    let class = mapped.unwrap_or(CLASS_CATALOG);
    if class != CLASS_CATALOG {
        found = files
            .find(|path| is_of(path, &[class, NAMESPACE_CATALOG]))
            .await?;
    }
    let mut names = RelationNames::default();
    let in_order = |catalog: Oid, found: &std::collections::BTreeMap<String, BackupFile>| {
        let mut of: Vec<(u32, String)> = found
            .keys()
            .filter_map(|path| match DataPath::classify(path, version) {
                DataPath::Relation(file) if file.relation.relfilenode == catalog => {
                    Some((file.segment, path.clone()))
                }
                _ => None,
            })
            .collect();
        of.sort_unstable();
        of
    };
    for (_, path) in in_order(class, &found) {
        read_pages(&mut files, &found, &path, |page| {
            names.add_class_page(page, version).is_ok()
        })
        .await?;
    }
    let namespace = names
        .relations()
        .find(|relation| relation.oid == NAMESPACE_CATALOG)
        .map_or(NAMESPACE_CATALOG, |relation| relation.relfilenode);
    if namespace != NAMESPACE_CATALOG {
        found = files.find(|path| is_of(path, &[namespace])).await?;
    }
    for (_, path) in in_order(namespace, &found) {
        read_pages(&mut files, &found, &path, |page| {
            names.add_namespace_page(page).is_ok()
        })
        .await?;
    }
    Ok(Some(names))
}

async fn read_pages(
    files: &mut BackupFiles<'_>,
    found: &std::collections::BTreeMap<String, BackupFile>,
    path: &str,
    mut visit: impl FnMut(&Page) -> bool,
) -> Result<(), BackupFileError> {
    let Some(file) = found
        .get(path)
        .filter(|file| file.size() <= MAX_CATALOG_BYTES)
    else {
        return Ok(());
    };
    let mut is_whole = true;
    files
        .read(file, |part| {
            for page in part.as_chunks::<BLOCK_SIZE>().0 {
                is_whole &= visit(page);
            }
        })
        .await?;
    match is_whole {
        true => Ok(()),
        false => Err(BackupFileError::Damaged {
            path: path.to_owned(),
            what: "it has more rows than are read",
        }),
    }
}
