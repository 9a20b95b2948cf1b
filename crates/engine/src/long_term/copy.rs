//! Making a long-term copy: files, log, manifest, and the state last of all.

use std::{collections::BTreeSet, sync::Arc};

use everpoint_instance::InstanceLock;
use everpoint_pgformat::Oid;
use everpoint_repository::{
    BackupId, CopyId, InstanceName, Repository, RepositoryError,
    backup::{Backup, BackupKind, Totals},
    layout,
    log::LogIndex,
    long_term::{CopyReason, LongTermCopy},
    manifest::ManifestWriter,
    object::{ObjectBuilder, ObjectKind, ObjectSink},
};
use jiff::Timestamp;
use tokio::runtime::Handle;

use super::{LongTermError, frames, log};
use crate::{
    backup::{
        check,
        pack_writer::{PackTable, PackTarget},
        pipeline::ManifestTarget,
    },
    database::{
        events::lives_between,
        life::{Life, with_sources},
    },
    progress::Progress,
    restore::{Stored, pack_reader::PackSource, selection::Selection},
    window::usable,
};

/// Which copy to make.
#[derive(Clone, Debug)]
pub struct CopyRequest {
    /// The instance.
    pub instance: InstanceName,
    /// The database.
    pub database: CopiedDatabase,
    /// The full backup; the latest one when absent.
    pub backup: Option<BackupId>,
    /// What it is made for.
    pub reasons: Vec<CopyReason>,
    /// From when on it may go; `None` is never.
    pub expires_at: Option<Timestamp>,
    /// Worker threads.
    pub jobs: usize,
}

/// Which database is copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopiedDatabase {
    /// The one that has this name when the backup ends.
    Named(String),
    /// The one with this OID.
    Oid(Oid),
}

/// What is copied.
#[derive(Clone, Debug)]
pub struct CopyPlan {
    /// As asked for.
    pub request: CopyRequest,
    /// The full backup.
    pub backup: Backup,
    /// The database.
    pub database: Oid,
    /// Its name when the backup ends.
    pub name: String,
    /// Bytes of the files that are copied, as restored.
    pub file_bytes: u64,
    /// The databases whose files and log are needed: it, and what it was being copied from meanwhile.
    needed: BTreeSet<Oid>,
    /// The log.
    index: LogIndex,
}

/// Makes a plan, or says why not. Writes nothing.
///
/// # Errors
/// See [`LongTermError`].
pub async fn plan(
    repository: &Repository,
    request: CopyRequest,
) -> Result<CopyPlan, LongTermError> {
    let instance = &request.instance;
    let mut stored = Stored::read(repository, instance, None).await?;
    let backup = full_backup(&stored, &request)?;
    stored.timeline = backup.timeline;
    let stop = backup.stop_lsn;
    let lives = lives_between(repository, instance, &stored, &backup, stop).await?;
    let life = whole_database(&lives, &request.database, &backup)?;
    let (database, name) = (
        life.database,
        life.name_at(stop).unwrap_or_default().to_owned(),
    );
    let needed = with_sources(&lives, database, backup.start_lsn, stop);
    let paths = Selection::Databases(needed.clone()).paths(&backup);
    let (_, mut manifest) = repository.manifest(instance, &backup.id).await?;
    manifest.keep_sections(&paths.sections(&backup.sections));
    let mut file_bytes = 0;
    while let Some(entry) = manifest
        .next(repository.store())
        .await
        .map_err(RepositoryError::from)?
    {
        if paths.contain(&entry.path) {
            file_bytes += entry.size;
        }
    }
    Ok(CopyPlan {
        database,
        name,
        needed,
        request,
        backup,
        file_bytes,
        index: stored.index,
    })
}

/// The life of the database that is asked for, if the backup holds all of it.
fn whole_database<'a>(
    lives: &'a [Life],
    wanted: &CopiedDatabase,
    backup: &Backup,
) -> Result<&'a Life, LongTermError> {
    let stop = backup.stop_lsn;
    let is_it = |life: &&Life| match wanted {
        CopiedDatabase::Named(name) => life.name_at(stop) == Some(name),
        CopiedDatabase::Oid(oid) => life.database == *oid,
    };
    let whole = |life: &&Life| life.whole_at(stop) && life.name_at(stop) != Some("template0");
    if let Some(life) = lives.iter().filter(is_it).find(whole) {
        return Ok(life);
    }
    let known = lives
        .iter()
        .filter(whole)
        .filter_map(|life| life.name_at(stop));
    Err(LongTermError::NoDatabase {
        database: match wanted {
            CopiedDatabase::Named(name) => name.clone(),
            CopiedDatabase::Oid(oid) => format!("with OID {oid}"),
        },
        backup: backup.id.clone(),
        known: known.collect::<Vec<_>>().join(", "),
    })
}

/// The backup that is asked for, or the latest full one that log makes consistent.
fn full_backup(stored: &Stored, request: &CopyRequest) -> Result<Backup, LongTermError> {
    let instance = &request.instance;
    let Some(id) = &request.backup else {
        let all = usable(&stored.backups, &stored.index, stored.timeline);
        let full = all
            .into_iter()
            .rfind(|backup| backup.kind == BackupKind::Full);
        return full.cloned().ok_or_else(|| LongTermError::NoFullBackup {
            instance: instance.clone(),
        });
    };
    let found = stored.backups.iter().find(|backup| backup.id == *id);
    let backup = found.ok_or_else(|| RepositoryError::UnknownBackup {
        name: instance.clone(),
        backup: id.clone(),
    })?;
    match backup.kind {
        BackupKind::Full => Ok(backup.clone()),
        BackupKind::Differential { .. } => Err(LongTermError::NotFull { backup: id.clone() }),
    }
}

/// Makes the copy. `lock` is the instance's for long-term copies, so that what is copied does not expire meanwhile, and
/// a copy at work is not taken for remains; none where it is known that there is no server.
///
/// # Errors
/// See [`LongTermError`]; what was written by then is removed, or swept later where it cannot be now.
pub async fn execute(
    repository: &Repository,
    plan: &CopyPlan,
    lock: Option<&InstanceLock>,
    progress: &Progress,
) -> Result<LongTermCopy, LongTermError> {
    let id = CopyId::random();
    let made = make(repository, plan, id, lock, progress).await;
    if made.is_err() {
        // The first error is the one to tell; the next copy sweeps what stays.
        let _ = repository.delete_copy(&plan.request.instance, id).await;
    }
    made
}

async fn make(
    repository: &Repository,
    plan: &CopyPlan,
    id: CopyId,
    lock: Option<&InstanceLock>,
    progress: &Progress,
) -> Result<LongTermCopy, LongTermError> {
    let instance = &plan.request.instance;
    let inside = repository.long_term(instance, id);
    progress.phase("copying files", plan.file_bytes);
    let (totals, table, manifest) = copy_files(repository, &inside, plan, progress).await?;
    progress.phase("copying log", 0);
    let log = log::copy(repository, &inside, plan.into(), progress).await;
    let log_bytes = match log {
        Ok(bytes) => bytes,
        Err(error) => {
            manifest.sink.abort().await;
            return Err(error);
        }
    };
    progress.phase("writing the manifest", 0);
    let stored_bytes = totals.stored_bytes + log_bytes;
    finish_manifest(plan, totals, &table, manifest).await?;
    let backup = &plan.backup;
    let copy = LongTermCopy {
        id,
        instance: instance.clone(),
        oid: plan.database,
        database: plan.name.clone(),
        system_identifier: backup.system_identifier,
        version: backup.version,
        backup: backup.id.clone(),
        backup_time: backup.stopped_at,
        copied_at: Timestamp::now(),
        reasons: plan.request.reasons.clone(),
        expires_at: plan.request.expires_at,
        held_since: None,
        deleting: false,
        restored_bytes: totals.restored_bytes,
        stored_bytes,
    };
    // Without it somebody may have removed what was written as remains.
    check(lock).await?;
    repository.write_copy_state(&copy).await?;
    Ok(copy)
}

async fn copy_files(
    repository: &Repository,
    inside: &Repository,
    plan: &CopyPlan,
    progress: &Progress,
) -> Result<(Totals, PackTable, ManifestTarget), LongTermError> {
    let (instance, backup) = (&plan.request.instance, &plan.backup);
    let object =
        ObjectBuilder::new(ObjectKind::Manifest, inside.keys()).map_err(RepositoryError::from)?;
    let path = layout::manifest(instance, &backup.id, object.identity().id);
    let encoder = inside.encoder().map_err(RepositoryError::from)?;
    let mut manifest = ManifestTarget {
        writer: ManifestWriter::new(object, encoder),
        sink: ObjectSink::new(inside.store(), path),
    };
    let table = PackTable::default();
    let source = PackSource {
        repository: repository.clone(),
        instance: instance.clone(),
        top: Arc::new(backup.packs.clone()),
        base: Arc::default(),
        runtime: Handle::current(),
    };
    let target = PackTarget {
        repository: inside.clone(),
        instance: instance.clone(),
        backup: backup.id.clone(),
        table: table.clone(),
        runtime: Handle::current(),
    };
    let paths = Selection::Databases(plan.needed.clone()).paths(backup);
    let jobs = plan.request.jobs;
    let copied = frames::copy(
        source,
        target,
        backup,
        &paths,
        jobs,
        &mut manifest,
        progress,
    );
    match copied.await {
        Ok(totals) => Ok((totals, table, manifest)),
        Err(error) => {
            manifest.sink.abort().await;
            Err(error)
        }
    }
}

/// The manifest appears: the backup as it was, without what belongs to other databases.
async fn finish_manifest(
    plan: &CopyPlan,
    totals: Totals,
    table: &PackTable,
    manifest: ManifestTarget,
) -> Result<(), RepositoryError> {
    let selection = Selection::Databases(plan.needed.clone());
    let (object, sections) = manifest.writer.finish()?;
    let mut backup = plan.backup.clone();
    let (version, paths) = (backup.version, selection.paths(&backup));
    backup
        .databases
        .retain(|database| plan.needed.contains(&database.oid));
    backup.directories.retain(|directory| {
        directory.path.is_empty() || selection.takes_directory(&directory.path, version)
    });
    backup
        .damaged_pages
        .retain(|file| paths.contain(&file.path));
    backup.packs = table.take();
    backup.sections = sections;
    backup.totals = totals;
    env!("CARGO_PKG_VERSION").clone_into(&mut backup.written_by);
    let text = serde_json::to_vec(&backup).unwrap_or_default();
    let finished = object.finish(&text)?;
    Ok(manifest.sink.finish(finished.rest).await?)
}

impl<'a> From<&'a CopyPlan> for log::LogSource<'a> {
    fn from(plan: &'a CopyPlan) -> Self {
        Self {
            instance: &plan.request.instance,
            backup: &plan.backup,
            index: &plan.index,
            databases: &plan.needed,
        }
    }
}
