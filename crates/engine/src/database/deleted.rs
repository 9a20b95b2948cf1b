//! Databases that were dropped, in all the log that is stored.

use std::sync::Arc;

use everpoint_pgformat::{Lsn, Oid, TransactionId};
use everpoint_repository::{InstanceName, Repository};
use jiff::Timestamp;
use serde::Serialize;

use super::{choose::ChooseError, events::lives_between, life::Life};
use crate::{
    restore::{Stored, target::to_timestamp},
    window::usable,
};

/// A database that was dropped, with the stretch of log in which it was found.
#[derive(Clone, Debug)]
pub struct Past {
    /// Its life, which has an end.
    pub life: Life,
    /// The earliest point of that stretch that can be restored.
    pub earliest: Timestamp,
    /// Its position.
    pub earliest_lsn: Lsn,
    /// The lives of all databases in that stretch, so that it need not be read again.
    pub lives: Arc<[Life]>,
}

/// A dropped database, for a person or a program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeletedDatabase {
    /// Its OID.
    pub oid: Oid,
    /// Its last name.
    pub name: String,
    /// When it was created, if that is in the log that is stored.
    pub created: Option<Timestamp>,
    /// When the drop committed; of a failed drop, about when it began.
    pub dropped: Option<Timestamp>,
    /// Behind the commit of the drop; absent when it failed.
    pub dropped_lsn: Option<Lsn>,
    /// The transaction that dropped it; absent when that failed.
    pub transaction: Option<TransactionId>,
    /// The drop failed and left the database invalid.
    pub failed: bool,
    /// The earliest point that it can be restored to.
    pub restorable_from: Option<Timestamp>,
    /// The position up to which it can be restored, exclusive: where the drop began. Absent when no backup
    /// ended before.
    pub restorable_to: Option<Lsn>,
}

/// Databases that were dropped, or whose drop failed, up to a position, by the position of the drop.
///
/// # Errors
/// When log is missing or damaged.
pub async fn past(
    repository: &Repository,
    instance: &InstanceName,
    stored: &Stored,
    until: Lsn,
) -> Result<Vec<Past>, ChooseError> {
    let mut found: Vec<Past> = Vec::new();
    let mut searched = Lsn::INVALID;
    for backup in usable(&stored.backups, &stored.index, stored.timeline) {
        let complete = stored
            .index
            .complete_until(stored.timeline, backup.start_lsn);
        let end = complete.min(until);
        if backup.start_lsn >= end || end <= searched {
            continue;
        }
        searched = end;
        let lives = lives_between(repository, instance, stored, backup, end).await?;
        let lives: Arc<[Life]> = lives.into();
        for life in lives.iter() {
            let undo = |life: &Life| life.dropped.as_ref().map(|dropped| dropped.undo);
            let same = |known: &Past| {
                known.life.database == life.database && undo(&known.life) == undo(life)
            };
            if life.dropped.is_some() && !found.iter().any(same) {
                found.push(Past {
                    life: life.clone(),
                    earliest: backup.stopped_at,
                    earliest_lsn: backup.stop_lsn,
                    lives: lives.clone(),
                });
            }
        }
    }
    found.sort_by_key(|past| past.life.dropped.as_ref().map(|dropped| dropped.undo));
    Ok(found)
}

/// The last position that is stored in the history that is followed.
pub fn latest_position(stored: &Stored) -> Lsn {
    usable(&stored.backups, &stored.index, stored.timeline)
        .iter()
        .map(|backup| {
            stored
                .index
                .complete_until(stored.timeline, backup.start_lsn)
        })
        .max()
        .unwrap_or(Lsn::INVALID)
}

/// All databases of an instance that were dropped, the earliest drop first.
///
/// # Errors
/// When the repository cannot be read, or log is damaged.
pub async fn deleted(
    repository: &Repository,
    instance: &InstanceName,
) -> Result<Vec<DeletedDatabase>, ChooseError> {
    let stored = Stored::read(repository, instance, None).await?;
    deleted_of(repository, instance, &stored).await
}

/// As [`deleted`], of what was read before. [`Stored::sources`] has notes then.
///
/// # Errors
/// When the repository cannot be read, or log is damaged.
pub async fn deleted_of(
    repository: &Repository,
    instance: &InstanceName,
    stored: &Stored,
) -> Result<Vec<DeletedDatabase>, ChooseError> {
    let all = past(repository, instance, stored, latest_position(stored)).await?;
    Ok(all.iter().filter_map(describe).collect())
}

fn describe(past: &Past) -> Option<DeletedDatabase> {
    let life = &past.life;
    let dropped = life.dropped.as_ref()?;
    let created = life.created.map(|created| to_timestamp(created.time));
    let is_restorable = past.earliest_lsn <= dropped.undo;
    Some(DeletedDatabase {
        oid: life.database,
        name: life.name_before_drop()?.to_owned(),
        created,
        dropped: dropped.time.map(to_timestamp),
        dropped_lsn: dropped.committed.map(|commit| commit.lsn),
        transaction: dropped.committed.map(|commit| commit.transaction),
        failed: dropped.committed.is_none(),
        restorable_from: is_restorable.then(|| created.unwrap_or(past.earliest).max(past.earliest)),
        restorable_to: is_restorable.then_some(dropped.undo),
    })
}
