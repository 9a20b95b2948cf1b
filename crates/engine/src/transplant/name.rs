//! Names that databases have while they are moved, and afterwards.

use std::fmt;

use everpoint_pgformat::Oid;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The longest name in bytes (`NAMEDATALEN` less its closing zero, `src/include/pg_config_manual.h`).
pub const MAX_NAME_BYTES: usize = 63;
/// What hidden databases' names begin with.
const HIDDEN_PREFIX: &str = "everpoint_restoring_";
/// Numbers of databases from here on are given by us: far from where a server counts, and below those that some
/// tools take for negative.
const FIRST_NUMBER: u32 = 1_000_000_000;
/// So many pairs of them are given.
const NUMBERS: u32 = 500_000_000;
/// Names that a database must not be given: `initdb` makes them, and tools expect them.
const RESERVED: [&str; 3] = ["postgres", "template0", "template1"];

/// A name that a new database may have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DatabaseName(String);

/// The text cannot name a new database.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing.
    #[error("a database needs a name. Give one of 1 to {MAX_NAME_BYTES} bytes")]
    Empty,
    /// PostgreSQL would cut it off.
    #[error(
        "`{name}` is {} bytes long, and PostgreSQL takes {MAX_NAME_BYTES}. Give a shorter name",
        .name.len()
    )]
    TooLong {
        /// The name.
        name: String,
    },
    /// Line breaks and their like.
    #[error("`{}` holds a control character, which PostgreSQL's tools cannot cope with. Give another name", .name.escape_debug())]
    Control {
        /// The name.
        name: String,
    },
    /// PostgreSQL's own, or ours.
    #[error("`{name}` is a reserved name. Give another one")]
    Reserved {
        /// The name.
        name: String,
    },
}

/// The identifier of one move. It names the hidden database, so that a later start finds what was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OperationId(Uuid);

impl DatabaseName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for DatabaseName {
    type Error = NameError;

    fn try_from(name: String) -> Result<Self, NameError> {
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        if name.len() > MAX_NAME_BYTES {
            return Err(NameError::TooLong { name });
        }
        if name.chars().any(char::is_control) {
            return Err(NameError::Control { name });
        }
        if RESERVED.contains(&name.as_str()) || name.starts_with(HIDDEN_PREFIX) {
            return Err(NameError::Reserved { name });
        }
        Ok(Self(name))
    }
}

impl std::str::FromStr for DatabaseName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        Self::try_from(name.to_owned())
    }
}

impl From<DatabaseName> for String {
    fn from(name: DatabaseName) -> Self {
        name.0
    }
}

impl fmt::Display for DatabaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl OperationId {
    /// A new identifier; later ones sort behind earlier ones.
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }

    /// The database that is filled under this name, where nobody looks for it.
    pub fn hidden_name(self) -> String {
        format!("{HIDDEN_PREFIX}{self}")
    }

    /// The empty database that the files method puts files into.
    pub fn vessel_name(self) -> String {
        format!("{HIDDEN_PREFIX}{self}_files")
    }

    /// The number that a database is given which is to be known again: by the files method to the hidden one, so that
    /// its directory is known even if a crash leaves nothing else of it.
    pub fn hidden_number(self) -> Oid {
        let random = u32::try_from(self.0.as_u128() % u128::from(NUMBERS)).unwrap_or_default();
        Oid::new(FIRST_NUMBER + 2 * random)
    }

    /// The number that it gives the vessel.
    pub fn vessel_number(self) -> Oid {
        Oid::new(self.hidden_number().get() + 1)
    }

    /// Whether a database of this name is being filled, and nobody's yet.
    pub fn is_hidden(name: &str) -> bool {
        name.starts_with(HIDDEN_PREFIX)
    }

    /// One of the schemas that tables are filled in, within a database that others use.
    pub fn hidden_schema(self, number: usize) -> String {
        format!("{HIDDEN_PREFIX}{self}_{number}")
    }

    /// The operation that a hidden database or schema belongs to, by its name.
    pub fn of_hidden(name: &str) -> Option<Self> {
        let id = name.strip_prefix(HIDDEN_PREFIX)?;
        match id.split_once('_') {
            None => id.parse().ok(),
            Some((id, "files")) => id.parse().ok(),
            Some((id, number)) => number.parse::<usize>().ok().and(id.parse().ok()),
        }
    }

    /// The comment that hidden databases carry.
    pub fn marker(self) -> String {
        format!(
            "being restored by Everpoint, operation {self}; drop it if no such operation is running"
        )
    }
}

impl From<Uuid> for OperationId {
    fn from(id: Uuid) -> Self {
        Self(id)
    }
}

impl Default for OperationId {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.simple(), f)
    }
}

impl std::str::FromStr for OperationId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        Uuid::try_parse(text).map(Self)
    }
}

/// What the living database is called once another has taken its name:
/// `NAME_before_restore_20261124T030405Z`, with NAME cut at a character so that it fits.
pub fn kept_name(name: &str, time: Timestamp) -> String {
    let suffix = format!("_before_restore_{}", time.strftime("%Y%m%dT%H%M%SZ"));
    let mut room = MAX_NAME_BYTES.saturating_sub(suffix.len()).min(name.len());
    while !name.is_char_boundary(room) {
        room -= 1;
    }
    format!("{}{suffix}", name.get(..room).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(name: &str) -> String {
        name.parse::<DatabaseName>().unwrap_err().to_string()
    }

    #[test]
    fn names_that_postgresql_or_others_would_stumble_over_are_refused() {
        assert!(error("").contains("needs a name"));
        assert!(error(&"x".repeat(64)).contains("64 bytes"));
        assert!(error(&"ü".repeat(32)).contains("64 bytes"));
        assert!(error("a\nb").contains("a\\nb"));
        for reserved in ["postgres", "template0", "template1"] {
            assert!(error(reserved).contains("reserved"));
        }
        assert!(error(&OperationId::new().hidden_name()).contains("reserved"));
        assert_eq!(
            "Größe 100%".parse::<DatabaseName>().unwrap().as_str(),
            "Größe 100%"
        );
        assert!("x".repeat(63).parse::<DatabaseName>().is_ok());
    }

    #[test]
    fn hidden_names_fit_and_lead_back_to_their_operation() {
        let id = OperationId::new();
        for name in [id.hidden_name(), id.vessel_name(), id.hidden_schema(9999)] {
            assert!(name.len() <= MAX_NAME_BYTES, "{name}");
            assert_eq!(OperationId::of_hidden(&name), Some(id));
        }
        assert_eq!(OperationId::of_hidden("everpoint_restoring_by_hand"), None);
    }

    #[test]
    fn numbers_of_databases_are_an_operations_own_and_fit() {
        for _ in 0..100 {
            let id = OperationId::new();
            let (hidden, vessel) = (id.hidden_number(), id.vessel_number());
            assert_eq!(hidden.get() % 2, 0);
            assert_eq!(vessel.get(), hidden.get() + 1);
            assert!((1_000_000_000..2_000_000_000).contains(&vessel.get()));
            assert_ne!(OperationId::new().hidden_number(), hidden);
        }
    }

    #[test]
    fn kept_names_fit_whatever_the_length() {
        let time: Timestamp = "2026-11-24T03:04:05Z".parse().unwrap();
        assert_eq!(
            kept_name("shop", time),
            "shop_before_restore_20261124T030405Z"
        );
        let long = kept_name(&"ü".repeat(31), time);
        assert_eq!(
            long,
            format!("{}_before_restore_20261124T030405Z", "ü".repeat(15))
        );
        assert!(long.len() <= MAX_NAME_BYTES);
    }
}
