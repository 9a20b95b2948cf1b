//! Names and identifiers of stored things.

use std::{fmt, str::FromStr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The identifier of a sealed object: 16 random bytes, the last part of its name in hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ObjectId(Uuid);

impl ObjectId {
    /// A new random identifier.
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// From its 16 bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// Its 16 bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// Reads the 32 hexadecimal digits it is printed as.
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == 32)
            .then(|| Uuid::try_parse(text).ok())
            .flatten()
            .map(Self)
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.simple(), f)
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The name a user gives an instance: 1 to 63 lower-case letters, digits, `-` and `_`, beginning with a
/// letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InstanceName(String);

/// The text is no instance name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is no instance name. It has 1 to 63 lower-case letters, digits, `-` or `_`, and begins with a letter or digit"
)]
pub struct InstanceNameError {
    text: String,
}

impl InstanceName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for InstanceName {
    type Error = InstanceNameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let valid = (1..=63).contains(&text.len())
            && text
                .bytes()
                .all(|byte| plain(byte) || matches!(byte, b'-' | b'_'))
            && text.bytes().next().is_some_and(plain);
        if valid {
            Ok(Self(text))
        } else {
            Err(InstanceNameError { text })
        }
    }
}

impl FromStr for InstanceName {
    type Err = InstanceNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::try_from(text.to_owned())
    }
}

impl From<InstanceName> for String {
    fn from(name: InstanceName) -> Self {
        name.0
    }
}

impl fmt::Display for InstanceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A backup's identifier, which sorts by the time it began: `20261122T213000Z-full-1f2e3d4c`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BackupId(String);

/// The text is no backup identifier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no backup. `everpoint backups` lists those there are")]
pub struct BackupIdError {
    text: String,
}

impl BackupId {
    /// A new identifier for a backup of `kind` (`full` or `differential`) that begins at `started`.
    pub fn new(started: Timestamp, kind: &str, random: u32) -> Self {
        let time = started.strftime("%Y%m%dT%H%M%SZ");
        Self(format!("{time}-{kind}-{random:08x}"))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for BackupId {
    type Error = BackupIdError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let mut parts = text.split('-');
        let valid = matches!(
            (parts.next(), parts.next(), parts.next(), parts.next()),
            (Some(time), Some(kind), Some(random), None)
                if time.len() == 16
                    && time.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'T' | b'Z'))
                    && !kind.is_empty()
                    && kind.bytes().all(|b| b.is_ascii_lowercase())
                    && random.len() == 8
                    && random.bytes().all(|b| b.is_ascii_hexdigit())
        );
        if valid {
            Ok(Self(text))
        } else {
            Err(BackupIdError { text })
        }
    }
}

impl FromStr for BackupId {
    type Err = BackupIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::try_from(text.to_owned())
    }
}

impl From<BackupId> for String {
    fn from(id: BackupId) -> Self {
        id.0
    }
}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The identifier of a long-term copy: a random UUID, printed with hyphens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CopyId(Uuid);

/// The text is no identifier of a long-term copy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no long-term copy. `everpoint long-term list` lists those there are")]
pub struct CopyIdError {
    text: String,
}

impl CopyId {
    /// A new random identifier.
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }
}

impl FromStr for CopyId {
    type Err = CopyIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || CopyIdError {
            text: text.chars().take(80).collect(),
        };
        // Other ways to write a UUID are not taken: each copy has one name.
        let plain = text.len() == 36 && !text.bytes().any(|byte| byte.is_ascii_uppercase());
        let parsed = plain.then(|| Uuid::try_parse(text).ok()).flatten();
        parsed.map(Self).ok_or_else(error)
    }
}

impl fmt::Display for CopyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.hyphenated(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_their_folder_are_refused() {
        for text in ["", "A", "-a", "a/b", "..", ".", "a b", "ä", &"a".repeat(64)] {
            assert!(text.parse::<InstanceName>().is_err(), "{text}");
        }
        assert!("prod-1_a".parse::<InstanceName>().is_ok());
    }

    #[test]
    fn backup_ids_sort_by_time_and_survive_a_round_trip() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let early = BackupId::new(at("2026-11-22T21:30:00Z"), "full", 0xFFFF_FFFF);
        let late = BackupId::new(at("2026-11-22T21:30:01Z"), "differential", 1);
        assert!(early < late);
        assert_eq!(late.as_str(), "20261122T213001Z-differential-00000001");
        assert_eq!(late.as_str().parse::<BackupId>().unwrap(), late);
        assert!("../x".parse::<BackupId>().is_err());
    }
}
