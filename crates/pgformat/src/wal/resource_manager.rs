//! Resource managers: the parts of PostgreSQL that write WAL records
//! (`src/include/access/rmgrlist.h`, the same numbers in PostgreSQL 15 to 18).

use std::{borrow::Cow, fmt};

/// The resource manager of a record (`xl_rmid`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceManager(u8);

/// Names as `pg_waldump` prints them, in the order of their numbers.
const NAMES: [&str; 22] = [
    "XLOG",
    "Transaction",
    "Storage",
    "CLOG",
    "Database",
    "Tablespace",
    "MultiXact",
    "RelMap",
    "Standby",
    "Heap2",
    "Heap",
    "Btree",
    "Hash",
    "Gin",
    "Gist",
    "Sequence",
    "SPGist",
    "BRIN",
    "CommitTs",
    "ReplicationOrigin",
    "Generic",
    "LogicalMessage",
];

/// The first number that extensions may take (`RM_MIN_CUSTOM_ID`).
const FIRST_CUSTOM: u8 = 128;

impl ResourceManager {
    /// Checkpoints, segment switches, full-page images and other matters of the log itself.
    pub const XLOG: Self = Self(0);
    /// Commits and aborts.
    pub const TRANSACTION: Self = Self(1);
    /// Files of relations: created, truncated.
    pub const STORAGE: Self = Self(2);
    /// Databases: created, dropped.
    pub const DATABASE: Self = Self(4);
    /// Tablespaces: created, dropped.
    pub const TABLESPACE: Self = Self(5);
    /// The map from system catalogs to their files.
    pub const RELATION_MAP: Self = Self(7);
    /// What standby servers must know: locks, running transactions.
    pub const STANDBY: Self = Self(8);
    /// Heap operations, the second set.
    pub const HEAP2: Self = Self(9);
    /// Heap operations.
    pub const HEAP: Self = Self(10);
    /// B-trees.
    pub const BTREE: Self = Self(11);
    /// GiST indexes.
    pub const GIST: Self = Self(14);
    /// Messages for logical decoding.
    pub const LOGICAL_MESSAGE: Self = Self(21);

    /// From `xl_rmid`; `None` for a number that no resource manager can have.
    pub const fn new(raw: u8) -> Option<Self> {
        if (raw as usize) < NAMES.len() || raw >= FIRST_CUSTOM {
            Some(Self(raw))
        } else {
            None
        }
    }

    /// The number.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// Whether it belongs to an extension.
    pub const fn is_custom(self) -> bool {
        self.0 >= FIRST_CUSTOM
    }

    /// Its name as `pg_waldump` prints it.
    pub fn name(self) -> Cow<'static, str> {
        match NAMES.get(usize::from(self.0)) {
            Some(name) => Cow::Borrowed(name),
            None => Cow::Owned(format!("custom{:03}", self.0)),
        }
    }
}

impl fmt::Display for ResourceManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

impl fmt::Debug for ResourceManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_and_custom_resource_managers_are_told_from_impossible_ones() {
        assert_eq!(ResourceManager::new(10), Some(ResourceManager::HEAP));
        assert_eq!(ResourceManager::new(21).unwrap().name(), "LogicalMessage");
        assert_eq!(ResourceManager::new(22), None);
        assert_eq!(ResourceManager::new(127), None);
        assert!(ResourceManager::new(128).unwrap().is_custom());
    }
}
