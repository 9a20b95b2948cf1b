//! Which database is meant, and where its replay ends.
//!
//! A name can have been given to several databases one after the other. And a target can lie behind the
//! beginning of a database's drop: from there on it is not whole any more, wherever replay ends. Then the
//! position before the drop is taken instead, and said.

use std::{collections::BTreeSet, sync::Arc};

use everpoint_pgformat::{Lsn, Oid};
use everpoint_repository::{InstanceName, Repository, RepositoryError};
use jiff::Timestamp;

use super::{
    deleted::{Past, latest_position, past},
    events::lives_between,
    life::{Dropped, Life, with_sources},
};
use crate::{
    restore::{
        RestoreError, Stored,
        target::{Resolved, Target, TargetError, to_timestamp},
    },
    summary::SummaryReadError,
    transplant::name::OperationId,
};

/// Which database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The one that has this name at the target.
    Named(String),
    /// This one, whatever its name was. Of one that is gone at the target, as of just before its drop.
    Database {
        /// Its OID.
        oid: Oid,
        /// Its name, for a person.
        name: String,
    },
    /// One that was dropped, by its last name.
    Deleted {
        /// The name.
        name: String,
        /// When it was dropped: needed where several were. Compared down to what was written of it.
        dropped: Option<DropTime>,
    },
}

/// A time of a drop as written: what it leaves out is not compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropTime {
    /// The earliest moment that was written like this.
    pub from: Timestamp,
    /// The first one behind that is written otherwise.
    pub to: Timestamp,
}

/// The database that is restored, and where its replay ends.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// The database.
    pub database: Oid,
    /// Its name there.
    pub name: String,
    /// Where that is.
    pub resolved: Resolved,
    /// The databases whose files and log are needed: it, and what it is a copy of.
    pub needed: BTreeSet<Oid>,
    /// Where the drop begins that the target lay behind; replay ends before it.
    pub undone_drop: Option<Dropped>,
}

/// No database can be chosen. Nothing was fetched.
#[derive(Debug, thiserror::Error)]
pub enum ChooseError {
    /// None had the name.
    #[error(
        "there is no database `{name}` at {target}, and none of that name was dropped before. There are: {known}"
    )]
    NoDatabase {
        /// As asked for.
        name: String,
        /// As asked for.
        target: Target,
        /// Those there are.
        known: String,
    },
    /// None of that name was dropped.
    #[error(
        "no dropped database `{name}` is known{when}. List them with: everpoint deleted {instance}"
    )]
    NotDeleted {
        /// The instance.
        instance: InstanceName,
        /// As asked for.
        name: String,
        /// The time asked for, for a person.
        when: String,
    },
    /// Several were.
    #[error(
        "several databases `{name}` were dropped: {all}. Say which: --deleted {instance}/{name}@TIME"
    )]
    SeveralDeleted {
        /// The instance.
        instance: InstanceName,
        /// As asked for.
        name: String,
        /// When.
        all: String,
    },
    /// The target lies outside its life.
    #[error("{target} lies outside the life of database `{name}`: it can be restored {window}")]
    OutsideLife {
        /// As asked for.
        target: Target,
        /// The database.
        name: String,
        /// From when to when.
        window: String,
    },
    /// The databases of the server's own.
    #[error(
        "`{name}` belongs to every cluster and holds nothing of yours. Restore another database"
    )]
    Reserved {
        /// As asked for.
        name: String,
    },
    /// What happened to databases.
    #[error(transparent)]
    Events(#[from] SummaryReadError),
    /// The target.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// What is stored.
    #[error(transparent)]
    Stored(#[from] RestoreError),
    /// The repository.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
}

/// Chooses.
///
/// # Errors
/// See [`ChooseError`].
pub async fn choose(
    repository: &Repository,
    instance: &InstanceName,
    stored: &Stored,
    wanted: &Wanted,
    target: Option<&Target>,
) -> Result<Chosen, ChooseError> {
    let resolver = stored.resolver(repository, instance);
    let all = target.cloned().unwrap_or(Target::Latest);
    let found = match wanted {
        Wanted::Named(name) if name == "template0" => {
            return Err(ChooseError::Reserved { name: name.clone() });
        }
        Wanted::Named(name) => {
            let resolved = resolver.resolve(&all).await?;
            let until = resolved.log_until;
            let lives =
                lives_between(repository, instance, stored, &resolved.backup, until).await?;
            let alive = lives
                .iter()
                .find(|life| life.whole_at(until) && life.name_at(until) == Some(name));
            match alive {
                Some(life) => return Ok(chosen(life, resolved, &lives, None)),
                None => {
                    let earlier = past(repository, instance, stored, until).await?;
                    let last = earlier
                        .into_iter()
                        .filter(|past| past.life.name_before_drop() == Some(name.as_str()))
                        .max_by_key(|past| past.life.dropped.as_ref().map(|dropped| dropped.undo));
                    last.ok_or_else(|| ChooseError::NoDatabase {
                        name: name.clone(),
                        target: all,
                        known: names_at(&lives, until),
                    })?
                }
            }
        }
        Wanted::Database { oid, name } => {
            let resolved = resolver.resolve(&all).await?;
            let until = resolved.log_until;
            let lives =
                lives_between(repository, instance, stored, &resolved.backup, until).await?;
            let life = lives.iter().find(|life| life.database == *oid);
            let is_there = |life: &&Life| {
                let name = life.name_at(until);
                life.whole_at(until) && !name.is_some_and(OperationId::is_hidden)
            };
            if let Some(life) = life.filter(is_there) {
                return Ok(chosen(life, resolved, &lives, None));
            }
            let earlier = past(repository, instance, stored, until).await?;
            let last = earlier
                .into_iter()
                .filter(|past| past.life.database == *oid)
                .max_by_key(|past| past.life.dropped.as_ref().map(|dropped| dropped.undo));
            last.ok_or_else(|| ChooseError::OutsideLife {
                target: all,
                name: name.clone(),
                window: life.map_or_else(|| "later than that only".to_owned(), life_window),
            })?
        }
        Wanted::Deleted { name, dropped } => {
            let end = latest_position(stored);
            let earlier = past(repository, instance, stored, end).await?;
            let found = one_deleted(instance, earlier, name, *dropped)?;
            let Some(target) = target else {
                return before_drop(repository, instance, stored, &found).await;
            };
            let life = &found.life;
            let undo = life.dropped.as_ref().map_or(end, |dropped| dropped.undo);
            let resolved = resolver.resolve(target).await?;
            let at = resolved.log_until;
            let under_way = matches!((target, &life.dropped), (Target::Time(time), Some(dropped))
                if dropped.time.is_some_and(|dropped| *time < to_timestamp(dropped)));
            if life.begun_at(at) && at <= undo {
                let lives = lives_of(repository, instance, stored, &found, &resolved).await?;
                return Ok(chosen(life, resolved, &lives, None));
            }
            if !life.begun_at(at) || !under_way {
                return Err(ChooseError::OutsideLife {
                    target: target.clone(),
                    name: name.clone(),
                    window: life_window(life),
                });
            }
            // Others committed while it was being dropped.
            found
        }
    };
    before_drop(repository, instance, stored, &found).await
}

/// Up to where the drop begins, exclusive.
async fn before_drop(
    repository: &Repository,
    instance: &InstanceName,
    stored: &Stored,
    found: &Past,
) -> Result<Chosen, ChooseError> {
    let resolver = stored.resolver(repository, instance);
    let dropped = found.life.dropped.clone();
    let at = match &dropped {
        Some(dropped) => dropped.undo,
        None => latest_position(stored),
    };
    let resolved = resolver.resolve(&Target::Lsn(at)).await?;
    let lives = lives_of(repository, instance, stored, found, &resolved).await?;
    Ok(chosen(&found.life, resolved, &lives, dropped))
}

/// The lives of databases since the backup: known from the search that found the database, unless the backup
/// lies before what was searched.
async fn lives_of(
    repository: &Repository,
    instance: &InstanceName,
    stored: &Stored,
    found: &Past,
    resolved: &Resolved,
) -> Result<Arc<[Life]>, ChooseError> {
    if resolved.backup.stop_lsn >= found.earliest_lsn {
        return Ok(found.lives.clone());
    }
    let (backup, until) = (&resolved.backup, resolved.log_until);
    let lives = lives_between(repository, instance, stored, backup, until).await?;
    Ok(lives.into())
}

fn chosen(life: &Life, resolved: Resolved, lives: &[Life], undone_drop: Option<Dropped>) -> Chosen {
    let until = resolved.log_until;
    let from = resolved.backup.start_lsn;
    // The log since the backup knows renames that a longer search may have seen too.
    let near = lives.iter().find(|near| near.database == life.database);
    let name = near.unwrap_or(life).name_at(until);
    Chosen {
        database: life.database,
        name: name.or(life.last_name()).unwrap_or_default().to_owned(),
        needed: with_sources(lives, life.database, from, until),
        resolved,
        undone_drop,
    }
}

impl Life {
    /// Its name when its drop began.
    pub fn name_before_drop(&self) -> Option<&str> {
        let dropped = self.dropped.as_ref()?;
        self.name_at(dropped.undo).or(self.last_name())
    }
}

fn one_deleted(
    instance: &InstanceName,
    past: Vec<Past>,
    name: &str,
    when: Option<DropTime>,
) -> Result<Past, ChooseError> {
    let at = |life: &Life| {
        life.dropped
            .as_ref()
            .and_then(|dropped| dropped.time)
            .map(to_timestamp)
    };
    let fits = |past: &Past| {
        let life = &past.life;
        let in_time = when
            .is_none_or(|when| at(life).is_some_and(|time| time >= when.from && time < when.to));
        life.name_before_drop() == Some(name) && in_time
    };
    let mut fitting: Vec<Past> = past.into_iter().filter(fits).collect();
    let name = name.to_owned();
    let instance = instance.clone();
    match fitting.len() {
        0 => Err(ChooseError::NotDeleted {
            instance,
            name,
            when: when.map_or_else(String::new, |when| {
                format!(" that was dropped at {}", when.from)
            }),
        }),
        1 => Ok(fitting.remove(0)),
        _ => {
            let all: Vec<String> = fitting
                .iter()
                .map(|past| {
                    at(&past.life)
                        .map_or_else(|| "at an unknown time".to_owned(), |time| time.to_string())
                })
                .collect();
            let all = all.join(", ");
            Err(ChooseError::SeveralDeleted {
                instance,
                name,
                all,
            })
        }
    }
}

fn names_at(lives: &[Life], at: Lsn) -> String {
    let names: Vec<&str> = lives
        .iter()
        .filter(|life| life.whole_at(at))
        .filter_map(|life| life.name_at(at))
        .filter(|name| *name != "template0")
        .collect();
    names.join(", ")
}

fn life_window(life: &Life) -> String {
    let from = match life.shown {
        Some(created) => format!("from {} (LSN {})", to_timestamp(created.time), created.lsn),
        None => "from the earliest point that is stored".to_owned(),
    };
    match &life.dropped {
        None => from,
        Some(dropped) => {
            let time = dropped.time.map(to_timestamp);
            let time = time.map_or_else(String::new, |time| format!("{time}, "));
            format!("{from} up to its drop ({time}LSN {})", dropped.undo)
        }
    }
}
