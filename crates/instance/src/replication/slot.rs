//! Physical replication slots.

use std::fmt;

use everpoint_pgformat::{Lsn, TimelineId};
use serde::{Deserialize, Serialize};

use super::error::ReplicationError;

/// `NAMEDATALEN` less its terminating zero (`src/include/pg_config_manual.h`).
const MAX_NAME_BYTES: usize = 63;

/// The name of a replication slot: 1 to 63 of `a-z`, `0-9` and `_` (`ReplicationSlotValidateName`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SlotName(String);

/// How long a slot lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotLifetime {
    /// Until it is dropped.
    Persistent,
    /// Until the connection that made it ends.
    Temporary,
}

/// What to do about a slot that a receiver still streams from, when it is to be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropActive {
    /// Refuse.
    Refuse,
    /// Wait until the receiver is gone.
    Wait,
}

/// What a slot holds back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotPosition {
    /// The oldest WAL that is kept; `None` when nothing was reserved, or the slot is invalidated.
    pub restart_lsn: Option<Lsn>,
    /// The timeline of that position.
    pub timeline: Option<TimelineId>,
}

impl SlotName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SlotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for SlotName {
    type Err = ReplicationError;

    fn from_str(name: &str) -> Result<Self, ReplicationError> {
        Self::try_from(name.to_owned())
    }
}

impl TryFrom<String> for SlotName {
    type Error = ReplicationError;

    fn try_from(name: String) -> Result<Self, ReplicationError> {
        let good = (1..=MAX_NAME_BYTES).contains(&name.len())
            && name
                .bytes()
                .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
        if good {
            Ok(Self(name))
        } else {
            Err(ReplicationError::BadSlotName { name })
        }
    }
}

impl From<SlotName> for String {
    fn from(name: SlotName) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slot_names_are_those_postgresql_takes() {
        assert!("everpoint_1".parse::<SlotName>().is_ok());
        let long = "x".repeat(64);
        for name in ["", "Upper", "a-b", "a\"b", long.as_str()] {
            assert!(name.parse::<SlotName>().is_err(), "{name}");
        }
    }
}
