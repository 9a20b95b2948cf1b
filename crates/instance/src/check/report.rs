//! The outcome of a check: what is well, what is not, and what mends it.

use std::fmt;

/// What was found, check by check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    checks: Vec<Check>,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was looked at.
    pub name: CheckName,
    /// What was found.
    pub outcome: Outcome,
}

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum CheckName {
    /// A session can be had.
    Reachable,
    /// The version is supported.
    Version,
    /// The role may read settings and catalogs.
    Facts,
    /// A replication connection can be had.
    Replication,
    /// The SQL session, the replication connection and the data directory are of one cluster.
    SameCluster,
    /// The role may begin and end backups.
    BackupFunctions,
    /// Enough goes into WAL.
    WalLevel,
    /// The replication slot, or room for it.
    ReplicationSlot,
    /// Room for a replication connection.
    WalSenders,
    /// How much WAL a slot may hold back.
    SlotLimit,
    /// Pages are logged whole after checkpoints.
    FullPageWrites,
    /// Pages carry checksums.
    Checksums,
    /// Blocks have the usual sizes.
    BlockSizes,
    /// The data directory can be read.
    DataDirectory,
    /// The data directory is the one that the server runs on.
    SameDirectory,
    /// The tablespaces can be read.
    Tablespaces,
    /// The server's clock agrees with ours.
    Clock,
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As it should be.
    Ok {
        /// What is there.
        found: String,
    },
    /// Backups work, and something about them could be better.
    Warning {
        /// What is wrong.
        cause: String,
        /// The command or setting that mends it.
        mend: String,
    },
    /// Backups do not work.
    Failed {
        /// What is wrong.
        cause: String,
        /// The command or setting that mends it.
        mend: String,
    },
}

impl Outcome {
    pub(super) fn ok(found: impl Into<String>) -> Self {
        Self::Ok {
            found: found.into(),
        }
    }

    pub(super) fn warning(cause: impl Into<String>, mend: impl Into<String>) -> Self {
        Self::Warning {
            cause: cause.into(),
            mend: mend.into(),
        }
    }

    pub(super) fn failed(cause: impl Into<String>, mend: impl Into<String>) -> Self {
        Self::Failed {
            cause: cause.into(),
            mend: mend.into(),
        }
    }
}

impl CheckReport {
    pub(super) fn add(&mut self, name: CheckName, outcome: Outcome) {
        self.checks.push(Check { name, outcome });
    }

    pub(super) fn append(&mut self, other: Self) {
        self.checks.extend(other.checks);
    }

    /// Whether nothing failed. Warnings do not count.
    pub fn is_ok(&self) -> bool {
        self.failed().next().is_none()
    }

    /// Every check, in the order they were made.
    pub fn checks(&self) -> &[Check] {
        &self.checks
    }

    /// What failed.
    pub fn failed(&self) -> impl Iterator<Item = &Check> {
        self.checks
            .iter()
            .filter(|check| matches!(check.outcome, Outcome::Failed { .. }))
    }

    /// The outcome of one check; `None` when it was not made, because one before it failed or it does not
    /// apply.
    pub fn outcome(&self, name: CheckName) -> Option<&Outcome> {
        self.checks
            .iter()
            .find(|check| check.name == name)
            .map(|check| &check.outcome)
    }
}

impl fmt::Display for CheckName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reachable => "server reachable",
            Self::Version => "version supported",
            Self::Facts => "settings readable",
            Self::Replication => "replication connection",
            Self::SameCluster => "one and the same cluster",
            Self::BackupFunctions => "right to back up",
            Self::WalLevel => "wal_level",
            Self::ReplicationSlot => "replication slot",
            Self::WalSenders => "replication connections",
            Self::SlotLimit => "limit of retained WAL",
            Self::FullPageWrites => "full_page_writes",
            Self::Checksums => "data checksums",
            Self::BlockSizes => "block sizes",
            Self::DataDirectory => "data directory readable",
            Self::SameDirectory => "the server's own data directory",
            Self::Tablespaces => "tablespaces readable",
            Self::Clock => "clock",
        })
    }
}

/// A line for each check, and one more for what mends it.
impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for check in &self.checks {
            let name = check.name;
            match &check.outcome {
                Outcome::Ok { found } => writeln!(f, "ok       {name}: {found}")?,
                Outcome::Warning { cause, mend } => {
                    writeln!(f, "warning  {name}: {cause}\n         {mend}")?;
                }
                Outcome::Failed { cause, mend } => {
                    writeln!(f, "failed   {name}: {cause}\n         {mend}")?;
                }
            }
        }
        Ok(())
    }
}
