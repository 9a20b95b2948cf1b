//! Which relation a file of the data directory belongs to.
//!
//! Names are those of `src/common/relpath.c`: `global/1262`, `base/5/16384_vm.2`,
//! `pg_tblspc/16400/PG_15_202209061/5/16384_init`.

use serde::{Deserialize, Serialize};

use crate::{BlockNumber, MajorVersion, Oid};

/// `DEFAULTTABLESPACE_OID`: the tablespace of `base/`.
pub const DEFAULT_TABLESPACE: Oid = Oid::new(1663);
/// `GLOBALTABLESPACE_OID`: the tablespace of `global/`.
pub const GLOBAL_TABLESPACE: Oid = Oid::new(1664);

/// A fork of a relation, in PostgreSQL's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fork {
    /// The contents.
    Main,
    /// The free space map.
    FreeSpaceMap,
    /// The visibility map.
    VisibilityMap,
    /// What an unlogged relation is reset to after a crash.
    Init,
}

impl Fork {
    /// From a fork number in write-ahead log.
    pub fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Main,
            1 => Self::FreeSpaceMap,
            2 => Self::VisibilityMap,
            3 => Self::Init,
            _ => return None,
        })
    }

    fn from_suffix(suffix: &str) -> Option<Self> {
        Some(match suffix {
            "fsm" => Self::FreeSpaceMap,
            "vm" => Self::VisibilityMap,
            "init" => Self::Init,
            _ => return None,
        })
    }
}

/// A relation's storage: where its files lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RelationId {
    /// Its tablespace.
    pub tablespace: Oid,
    /// Its database; 0 for relations of the whole cluster.
    pub database: Oid,
    /// Its relfilenode.
    pub relfilenode: Oid,
}

/// One file of a relation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelationFile {
    /// The relation.
    pub relation: RelationId,
    /// The fork.
    pub fork: Fork,
    /// The segment file's number, counted from 0.
    pub segment: u32,
}

impl RelationFile {
    /// From a file's name in a database's directory, such as `16384_vm.2`. Its tablespace and database are not told
    /// by it, and 0. `None` for whatever is not clearly a relation's file.
    pub fn in_database_directory(name: &str) -> Option<Self> {
        match relation(name, Oid::new(0), Oid::new(0)) {
            Some(DataPath::Relation(file)) => Some(file),
            _ => None,
        }
    }

    /// The block with which this file begins, when a segment holds `blocks_per_segment` blocks
    /// (131072 unless PostgreSQL was built otherwise).
    pub fn first_block(&self, blocks_per_segment: u32) -> Option<BlockNumber> {
        self.segment
            .checked_mul(blocks_per_segment)
            .map(BlockNumber::new)
    }
}

/// What a path of the data directory, relative to it and with `/` between its parts, belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataPath {
    /// A file of a relation.
    Relation(RelationFile),
    /// Another file in a database's directory, such as `PG_VERSION` or `pg_filenode.map`.
    Database {
        /// The tablespace of the directory.
        tablespace: Oid,
        /// The database.
        database: Oid,
    },
    /// A file of the whole cluster.
    Cluster,
}

impl DataPath {
    /// Classifies a path. Everything that is not clearly a relation's file is not one.
    pub fn classify(path: &str, version: MajorVersion) -> Self {
        let mut parts = path.split('/');
        match parts.next() {
            Some("global") => {
                let (Some(name), None) = (parts.next(), parts.next()) else {
                    return Self::Cluster;
                };
                relation(name, GLOBAL_TABLESPACE, Oid::new(0)).unwrap_or(Self::Cluster)
            }
            Some("base") => in_database(parts, DEFAULT_TABLESPACE),
            Some("pg_tblspc") => {
                let Some(tablespace) = parts.next().and_then(parse_oid) else {
                    return Self::Cluster;
                };
                if parts.next() != Some(tablespace_version_directory(version).as_str()) {
                    return Self::Cluster;
                }
                in_database(parts, tablespace)
            }
            _ => Self::Cluster,
        }
    }

    /// The database the path belongs to; `None` for files of the whole cluster.
    pub fn database(&self) -> Option<Oid> {
        match self {
            Self::Relation(file) if file.relation.database.get() == 0 => None,
            Self::Relation(file) => Some(file.relation.database),
            Self::Database { database, .. } => Some(*database),
            Self::Cluster => None,
        }
    }
}

/// The directory in a tablespace that belongs to one major version, such as `PG_15_202209061`.
pub fn tablespace_version_directory(version: MajorVersion) -> String {
    format!("PG_{}_{}", version, version.row().catalog_version)
}

fn in_database<'a>(mut parts: impl Iterator<Item = &'a str>, tablespace: Oid) -> DataPath {
    let Some(database) = parts.next().and_then(parse_oid) else {
        return DataPath::Cluster;
    };
    let whole = DataPath::Database {
        tablespace,
        database,
    };
    match (parts.next(), parts.next()) {
        (Some(name), None) => relation(name, tablespace, database).unwrap_or(whole),
        _ => whole,
    }
}

fn relation(name: &str, tablespace: Oid, database: Oid) -> Option<DataPath> {
    let (name, segment) = match name.split_once('.') {
        Some((name, number)) => (name, parse_oid(number).filter(|n| n.get() > 0)?.get()),
        None => (name, 0),
    };
    let (number, fork) = match name.split_once('_') {
        Some((number, suffix)) => (number, Fork::from_suffix(suffix)?),
        None => (name, Fork::Main),
    };
    let relation = RelationId {
        tablespace,
        database,
        relfilenode: parse_oid(number)?,
    };
    Some(DataPath::Relation(RelationFile {
        relation,
        fork,
        segment,
    }))
}

/// A decimal number as PostgreSQL prints one: no sign, no leading zero.
fn parse_oid(text: &str) -> Option<Oid> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    plain.then(|| text.parse().ok()).flatten().map(Oid::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classify(path: &str) -> DataPath {
        DataPath::classify(path, MajorVersion::try_from(15).unwrap())
    }

    #[test]
    fn relation_files_are_recognised_in_every_place() {
        let DataPath::Relation(file) = classify("base/5/16384_vm.2") else {
            panic!()
        };
        assert_eq!((file.fork, file.segment), (Fork::VisibilityMap, 2));
        assert_eq!(file.relation.database.get(), 5);
        let DataPath::Relation(file) = classify("global/1262") else {
            panic!()
        };
        assert_eq!(file.relation.tablespace, GLOBAL_TABLESPACE);
        let DataPath::Relation(file) = classify("pg_tblspc/16400/PG_15_202209061/5/16384_init")
        else {
            panic!()
        };
        assert_eq!(
            (file.relation.tablespace.get(), file.fork),
            (16400, Fork::Init)
        );
    }

    #[test]
    fn other_files_are_not_taken_for_relations() {
        let in_database = DataPath::Database {
            tablespace: DEFAULT_TABLESPACE,
            database: Oid::new(5),
        };
        for name in [
            "PG_VERSION",
            "pg_filenode.map",
            "t3_16384",
            "16384.0",
            "16384.x",
            "016384",
            "1_x",
        ] {
            assert_eq!(classify(&format!("base/5/{name}")), in_database, "{name}");
        }
        for path in [
            "global/pg_control",
            "pg_xact/0000",
            "base",
            "pg_tblspc/1/PG_16_202307071/5/1",
        ] {
            assert_eq!(classify(path), DataPath::Cluster, "{path}");
        }
    }
}
