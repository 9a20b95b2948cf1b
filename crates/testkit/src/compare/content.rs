//! Contents, boiled down.

use std::{collections::BTreeMap, fmt};

/// Rows in whatever order: how many, and the sum of their hashes (`hashtextextended` of each as text).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// How many.
    pub count: u64,
    /// The sum of their hashes, a decimal number.
    pub checksum: String,
}

impl fmt::Display for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rows with checksum {}", self.count, self.checksum)
    }
}

/// Where a sequence stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SequenceState {
    /// The last value given out; `None` before the first.
    pub last: Option<i64>,
    /// The step.
    pub increment: i64,
}

impl fmt::Display for SequenceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.last {
            Some(last) => write!(f, "{last}"),
            None => f.write_str("not begun"),
        }
    }
}

/// What a database holds, as far as it survives a crash: no unlogged or temporary tables. Names are quoted as SQL
/// wants them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DatabaseContent {
    /// Tables, partitions and materialized views by `schema.name`, without system catalogs.
    pub tables: BTreeMap<String, Rows>,
    /// Sequences by `schema.name`.
    pub sequences: BTreeMap<String, SequenceState>,
    /// The large objects' pages, and their owners and permissions.
    pub large_objects: Rows,
}

/// What a cluster holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint {
    /// Databases that take connections, by name.
    pub databases: BTreeMap<String, DatabaseContent>,
    /// What all databases share: roles, memberships, tablespaces, databases and settings.
    pub shared: BTreeMap<String, Rows>,
}
