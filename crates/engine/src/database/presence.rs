//! Since when databases are there.
//!
//! A database that the earliest backup lists was there before all that can be restored. Another one came between two
//! backups, or behind the last one, and the log behind the earlier of the two tells when.

use std::collections::BTreeMap;

use everpoint_pgformat::Oid;
use everpoint_repository::{InstanceName, Repository, backup::Backup};
use jiff::Timestamp;

use super::{choose::ChooseError, events::lives_between, life::Life};
use crate::{
    restore::{Stored, target::to_timestamp},
    summary::SummaryReadError,
    transplant::name::OperationId,
    window::usable,
};

/// Since when databases can be restored, by the server's clock: from the commit on that made them, or gave them their
/// names if they were filled under hidden ones. Of one that is older than all backups, the end of the earliest. Those of
/// which nothing is stored yet are left out, and while a backup cannot be read those that it may hold. Where log
/// cannot be read, points behind it count alone.
///
/// # Errors
/// When the repository cannot be read.
pub async fn there_since(
    repository: &Repository,
    instance: &InstanceName,
    databases: &[Oid],
) -> Result<BTreeMap<Oid, Timestamp>, ChooseError> {
    let mut found = BTreeMap::new();
    if databases.is_empty() {
        return Ok(found);
    }
    // What cannot be read now may be read later, and what is said here is kept.
    let all_read = repository
        .readable_backups(instance)
        .await?
        .unreadable
        .is_empty();
    let stored = Stored::read(repository, instance, None).await?;
    let usable = usable(&stored.backups, &stored.index, stored.timeline);
    let Some(earliest) = usable.first() else {
        return Ok(found);
    };
    // By the last backup that does not list them.
    let mut later: BTreeMap<usize, Vec<Oid>> = BTreeMap::new();
    for oid in databases {
        match usable.iter().position(|backup| lists(backup, *oid)) {
            Some(0) if all_read => {
                found.insert(*oid, earliest.stopped_at);
            }
            Some(0) => {}
            Some(place) => later.entry(place - 1).or_default().push(*oid),
            None => later.entry(usable.len() - 1).or_default().push(*oid),
        }
    }
    for (place, oids) in later {
        let Some(backup) = usable.get(place) else {
            continue;
        };
        let next = usable.get(place + 1);
        let complete = stored
            .index
            .complete_until(stored.timeline, backup.start_lsn);
        let until = next.map_or(complete, |next| complete.min(next.stop_lsn));
        let lives: Vec<Life> = match until > backup.start_lsn {
            true => {
                match lives_between(repository, instance, &stored, backup, until).await {
                    Ok(lives) => lives,
                    // It may be read another time.
                    Err(SummaryReadError::Repository(error)) if !error.is_damage() => {
                        return Err(error.into());
                    }
                    Err(_) => Vec::new(),
                }
            }
            false => Vec::new(),
        };
        for oid in oids {
            let life = lives.iter().find(|life| life.database == oid);
            let shown = life.and_then(|life| life.shown);
            // Where the log between them is missing, the later backup is the first that has it.
            let since = shown
                .map(|shown| to_timestamp(shown.time).max(earliest.stopped_at))
                .or(next.filter(|_| all_read).map(|next| next.stopped_at));
            found.extend(since.map(|since| (oid, since)));
        }
    }
    Ok(found)
}

fn lists(backup: &Backup, oid: Oid) -> bool {
    backup
        .databases
        .iter()
        .any(|database| database.oid == oid && !OperationId::is_hidden(&database.name))
}
