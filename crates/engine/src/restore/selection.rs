//! What of a backup is restored: the cluster, or what a server needs to open some of its databases.
//!
//! Files that are left out cost nothing: they are not made, and their part of the manifest is not read. A
//! server starts all the same, as long as nobody asks it for those databases and the log that it replays
//! does not change them ([`Selection::replayed`]). Configuration, keys and logs of the source stay out.

use std::collections::BTreeSet;

use everpoint_pgformat::{
    MajorVersion, Oid,
    relation::{DataPath, tablespace_version_directory},
    wal::filter::Databases,
};
use everpoint_repository::backup::Backup;

/// What of a backup is restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// Everything.
    Cluster,
    /// These databases, in all their tablespaces, and what all databases share.
    Databases(BTreeSet<Oid>),
}

/// What a server needs besides its databases: shared catalogs, maps, status of transactions.
const SHARED: [&str; 7] = [
    "PG_VERSION",
    "global/",
    "pg_commit_ts/",
    "pg_logical/replorigin_checkpoint",
    "pg_multixact/",
    "pg_twophase/",
    "pg_xact/",
];

/// Files of a backup, told by how their paths begin; `None` are all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths(Option<Vec<String>>);

impl Selection {
    /// The databases whose log is replayed.
    pub fn replayed(&self) -> Databases {
        match self {
            Self::Cluster => Databases::All,
            Self::Databases(databases) => Databases::Only(databases.clone()),
        }
    }

    /// Its files in a backup.
    pub fn paths(&self, backup: &Backup) -> Paths {
        let Self::Databases(databases) = self else {
            return Paths(None);
        };
        let mut prefixes: Vec<String> = SHARED.iter().map(|&path| path.to_owned()).collect();
        let version = tablespace_version_directory(backup.version);
        for database in databases {
            prefixes.push(format!("base/{database}/"));
            for tablespace in &backup.tablespaces {
                let tablespace = tablespace.oid;
                prefixes.push(format!("pg_tblspc/{tablespace}/{version}/{database}/"));
            }
        }
        Paths(Some(prefixes))
    }

    /// Whether a directory of the data directory is made.
    pub fn takes_directory(&self, path: &str, version: MajorVersion) -> bool {
        match self {
            Self::Cluster => true,
            Self::Databases(databases) => {
                let inside = format!("{path}/PG_VERSION");
                match DataPath::classify(&inside, version).database() {
                    None => true,
                    Some(database) => databases.contains(&database),
                }
            }
        }
    }
}

impl Paths {
    /// Whether a file is one of them.
    pub fn contain(&self, path: &str) -> bool {
        match &self.0 {
            None => true,
            Some(prefixes) => prefixes
                .iter()
                .any(|prefix| path.starts_with(prefix.as_str())),
        }
    }

    /// The sections of a manifest that may hold one of them, by number. Each begins with the path in
    /// `firsts`; paths ascend.
    pub fn sections(&self, firsts: &[String]) -> BTreeSet<usize> {
        let may_hold = |number: &usize| {
            let Some(prefixes) = &self.0 else { return true };
            let first = firsts.get(*number).map_or("", String::as_str);
            let next = firsts.get(number + 1);
            prefixes.iter().any(|prefix| {
                let begins_before_the_next = next.is_none_or(|next| prefix < next);
                let ends_behind_the_first = first < prefix.as_str() || first.starts_with(prefix);
                begins_before_the_next && ends_behind_the_first
            })
        };
        (0..firsts.len()).filter(may_hold).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(prefixes: &[&str]) -> Paths {
        Paths(Some(prefixes.iter().map(|&path| path.to_owned()).collect()))
    }

    #[test]
    fn only_sections_that_may_hold_a_wanted_file_are_read() {
        let firsts: Vec<String> = [
            "PG_VERSION",
            "base/1/9",
            "base/16400/1",
            "base/16400/7",
            "base/5/1",
            "global/1",
        ]
        .map(str::to_owned)
        .to_vec();
        let read = |prefixes: &[&str]| {
            paths(prefixes)
                .sections(&firsts)
                .into_iter()
                .collect::<Vec<_>>()
        };
        assert_eq!(read(&["base/16400/"]), [1, 2, 3]);
        assert_eq!(read(&["base/1/"]), [0, 1]);
        assert_eq!(read(&["base/2/"]), [3]);
        assert_eq!(read(&["PG_VERSION", "pg_xact/"]), [0, 5]);
        assert_eq!(Paths(None).sections(&firsts).len(), 6);
    }

    #[test]
    fn directories_of_other_databases_are_left_out() {
        let version = MajorVersion::try_from(15).unwrap();
        let one = Selection::Databases([Oid::new(16_400)].into());
        for (path, taken) in [
            ("base", true),
            ("base/16400", true),
            ("base/1", false),
            ("pg_tblspc/17000", true),
            ("pg_tblspc/17000/PG_15_202209061", true),
            ("pg_tblspc/17000/PG_15_202209061/16400", true),
            ("pg_tblspc/17000/PG_15_202209061/5", false),
            ("pg_logical/mappings", true),
        ] {
            assert_eq!(one.takes_directory(path, version), taken, "{path}");
            assert!(Selection::Cluster.takes_directory(path, version));
        }
    }
}
