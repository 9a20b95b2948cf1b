//! What became of databases: made, renamed, dropped.

use std::collections::BTreeMap;

use everpoint_pgformat::{Lsn, Oid};
use everpoint_repository::backup::Backup;
use jiff::Timestamp;

use super::digest::shown;
use crate::transplant::name::OperationId;

/// A database from its making to its drop, as far as both are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseLife {
    /// Its OID, which no other database gets while it lives.
    pub oid: Oid,
    /// Its names, the last one last.
    pub names: Vec<String>,
    /// When it was made, or got its name, if it was filled under a hidden one: behind the record of its transaction's
    /// end. Absent when that was before the log.
    pub created: Option<(Lsn, Timestamp)>,
    /// When it was dropped.
    pub dropped: Option<Drop>,
}

/// A database's end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drop {
    /// Recovery up to here, exclusive, has it whole.
    pub undo: Lsn,
    /// When its drop was committed; absent for a drop that never ended.
    pub at: Option<Timestamp>,
}

impl DatabaseLife {
    fn of(oid: Oid) -> Self {
        Self {
            oid,
            names: Vec::new(),
            created: None,
            dropped: None,
        }
    }

    /// Its last name.
    pub fn name(&self) -> Option<&str> {
        self.names.last().map(String::as_str)
    }
}

/// The lives of all databases. OIDs can be used again, after a drop.
#[derive(Clone, Debug, Default)]
pub struct DatabaseLives {
    lives: BTreeMap<Oid, Vec<DatabaseLife>>,
}

impl DatabaseLives {
    /// The databases that a backup holds.
    pub fn of_backup(backup: &Backup) -> Self {
        let mut lives = Self::default();
        for database in &backup.databases {
            if let Some(life) = lives.current(database.oid) {
                life.names.push(shown(database.name.as_bytes()));
            }
        }
        lives
    }

    /// All lives, by OID and then in their order.
    pub fn all(&self) -> impl Iterator<Item = &DatabaseLife> {
        self.lives.values().flatten()
    }

    /// The name that a database has now.
    pub fn name(&self, oid: Oid) -> Option<&str> {
        self.lives.get(&oid)?.last()?.name()
    }

    /// The life that a database leads now; a new one when the last is over.
    fn current(&mut self, oid: Oid) -> Option<&mut DatabaseLife> {
        let lives = self.lives.entry(oid).or_default();
        if lives.last().is_none_or(|life| life.dropped.is_some()) {
            lives.push(DatabaseLife::of(oid));
        }
        lives.last_mut()
    }

    /// A database was made.
    pub fn created(&mut self, oid: Oid, name: String, end: Lsn, at: Timestamp) {
        let lives = self.lives.entry(oid).or_default();
        // A backup that was under way lists it, too. Any other was dropped meanwhile, which shows only at
        // the end of the log that is read.
        let is_listed = lives
            .last()
            .is_some_and(|life| life.created.is_none() && life.name() == Some(&name));
        if !is_listed {
            lives.push(DatabaseLife::of(oid));
        }
        if let Some(life) = lives.last_mut() {
            life.names = vec![name];
            life.created = Some((end, at));
        }
    }

    /// A database got another name.
    pub fn renamed(&mut self, oid: Oid, name: String, end: Lsn, at: Timestamp) {
        let Some(life) = self.current(oid) else {
            return;
        };
        if life.name().is_some_and(OperationId::is_hidden) {
            // Before, it was nobody's.
            life.names = vec![name];
            life.created = Some((end, at));
        } else if life.name() != Some(&name) {
            life.names.push(name);
        }
    }

    /// A database was dropped: the life that was led at the position ends.
    pub fn dropped(&mut self, oid: Oid, name: Option<String>, undo: Lsn, at: Option<Timestamp>) {
        let lives = self.lives.entry(oid).or_default();
        let led = lives.iter_mut().rfind(|life| {
            life.dropped.is_none() && life.created.is_none_or(|(created, _)| created <= undo)
        });
        let drop = Some(Drop { undo, at });
        match led {
            Some(life) => {
                life.dropped = drop;
                if let Some(name) = name
                    && life.name() != Some(&name)
                {
                    life.names.push(name);
                }
            }
            None => lives.push(DatabaseLife {
                names: name.into_iter().collect(),
                dropped: drop,
                ..DatabaseLife::of(oid)
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restored_database_begins_with_its_name_and_never_had_the_hidden_one() {
        let (oid, hidden) = (Oid::new(5), OperationId::new().hidden_name());
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut lives = DatabaseLives::default();
        lives.created(oid, hidden, Lsn::new(10), at(1));
        lives.renamed(oid, "shop".to_owned(), Lsn::new(20), at(2));
        lives.renamed(oid, "store".to_owned(), Lsn::new(30), at(3));
        let life = lives.all().next().unwrap();
        assert_eq!(life.names, ["shop", "store"]);
        assert_eq!(life.created, Some((Lsn::new(20), at(2))));
    }
}
