//! Something that happened, as a person looks for it.

use std::{fmt, str::FromStr};

use everpoint_pgformat::{
    Lsn, Oid, TimelineId, TransactionId, catalog::RelationKind, relation::RelationId,
    wal_summary::activity::RowCounts,
};
use jiff::Timestamp;

/// The name of an event: where its record begins. It never changes and needs nothing but the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId {
    /// The timeline its record is on.
    pub timeline: TimelineId,
    /// The start of the record that counts: that which begins a drop of a database, else the end of the
    /// transaction.
    pub lsn: Lsn,
}

/// A text is not the name of an event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an event. Events are named as in 1-0/3A2B1C8; everpoint log lists them")]
pub struct EventIdError {
    text: String,
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.timeline, self.lsn)
    }
}

impl FromStr for EventId {
    type Err = EventIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (timeline, lsn) = text.split_once('-')?;
            Some(Self {
                timeline: TimelineId::new(timeline.parse().ok()?)?,
                lsn: lsn.parse().ok()?,
            })
        };
        parse().ok_or_else(|| EventIdError {
            text: text.to_owned(),
        })
    }
}

/// What kind of thing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventKind {
    /// A database, a table or a schema was dropped.
    Drop,
    /// A table was emptied by `TRUNCATE`.
    Truncate,
    /// A transaction touched unusually many blocks.
    Bulk,
    /// A definition was changed.
    Ddl,
    /// A database, a table or a schema was made.
    Create,
    /// A database, a table or a schema got another name.
    Rename,
    /// A database moved to another tablespace.
    Move,
    /// Somebody made a restore point.
    RestorePoint,
    /// The server's clock went back.
    Clock,
    /// The server was promoted.
    Timeline,
    /// Log is missing.
    Gap,
}

impl EventKind {
    /// All kinds.
    pub const ALL: [Self; 11] = [
        Self::Drop,
        Self::Truncate,
        Self::Bulk,
        Self::Ddl,
        Self::Create,
        Self::Rename,
        Self::Move,
        Self::RestorePoint,
        Self::Clock,
        Self::Timeline,
        Self::Gap,
    ];

    /// As a user writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Truncate => "truncate",
            Self::Bulk => "bulk",
            Self::Ddl => "ddl",
            Self::Create => "create",
            Self::Rename => "rename",
            Self::Move => "move",
            Self::RestorePoint => "restore-point",
            Self::Clock => "clock",
            Self::Timeline => "timeline",
            Self::Gap => "gap",
        }
    }
}

/// A database as an event names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventDatabase {
    /// Its OID.
    pub oid: Oid,
    /// Its name at the time, when known.
    pub name: Option<String>,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its name.
    pub id: EventId,
    /// Its kind.
    pub kind: EventKind,
    /// When, by the server's clock; that of the commit for what a transaction did.
    pub time: Option<Timestamp>,
    /// The transaction.
    pub transaction: Option<TransactionId>,
    /// The database it happened in or to.
    pub database: Option<EventDatabase>,
    /// What happened.
    pub change: Change,
    /// What the transaction wrote.
    pub size: Option<TransactionSize>,
}

/// How much a transaction wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransactionSize {
    /// Start of its first record.
    pub first: Lsn,
    /// Bytes of log.
    pub log_bytes: u64,
    /// Block references.
    pub blocks: u64,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A database was dropped.
    DatabaseDropped,
    /// A drop of a database was begun and never ended: it cannot be used any more.
    DatabaseSpoilt,
    /// A database was made.
    DatabaseCreated,
    /// A database got another name.
    DatabaseRenamed {
        /// The name before.
        from: Option<String>,
    },
    /// A database moved between tablespaces.
    DatabaseMoved {
        /// The tablespace before.
        from: Oid,
        /// The tablespace after.
        to: Oid,
    },
    /// Something was done to relations and schemas.
    Objects {
        /// To which.
        objects: Vec<Object>,
        /// To how many besides.
        more: u64,
    },
    /// Definitions were changed that belong to no relation.
    Definitions {
        /// What they define.
        nouns: Vec<&'static str>,
    },
    /// Rows were written.
    Rows {
        /// Where, the most rows first.
        tables: Vec<Object>,
    },
    /// A restore point.
    RestorePoint {
        /// Its name.
        name: String,
    },
    /// The clock went back.
    ClockBack {
        /// The latest time before.
        from: Timestamp,
        /// The time after.
        to: Timestamp,
    },
    /// The server went on on this timeline.
    Promoted {
        /// The timeline before.
        from: TimelineId,
    },
    /// Log is missing from here to there.
    Lost {
        /// The first position that is there again.
        to: Lsn,
        /// Why.
        reason: Option<String>,
    },
}

/// A relation or a schema that something was done to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// What was done to it.
    pub action: ObjectAction,
    /// What it is, when known.
    pub kind: ObjectKind,
    /// Its schema's name, when known.
    pub schema: Option<String>,
    /// Its name, when known.
    pub name: Option<String>,
    /// The name before, for what was renamed.
    pub renamed_from: Option<String>,
    /// Its database and its schema's OID, by which a backup's catalog names the schema.
    pub namespace: Option<(Oid, Oid)>,
    /// The file it had before, by which a backup's catalog names it.
    pub file: Option<RelationId>,
    /// Rows written.
    pub rows: RowCounts,
    /// Block references.
    pub blocks: u64,
}

/// What was done to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ObjectAction {
    /// It was dropped.
    Dropped,
    /// It was emptied.
    Truncated,
    /// It was made.
    Created,
    /// It got another name.
    Renamed,
    /// It was changed.
    Altered,
    /// Rows were written to it.
    Written,
}

impl ObjectAction {
    /// As a person says it.
    pub fn verb(self) -> &'static str {
        match self {
            Self::Dropped => "dropped",
            Self::Truncated => "truncated",
            Self::Created => "created",
            Self::Renamed => "renamed",
            Self::Altered => "changed",
            Self::Written => "wrote to",
        }
    }
}

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectKind {
    /// A relation of a kind.
    Relation(RelationKind),
    /// A schema.
    Schema,
    /// Some file of a relation.
    File,
}

impl ObjectKind {
    /// As a person calls it.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Relation(kind) => kind.noun(),
            Self::Schema => "schema",
            Self::File => "relation",
        }
    }

    /// Whether it is what users mean by a table, or a schema.
    pub fn is_prominent(self) -> bool {
        match self {
            Self::Relation(kind) => kind.holds_rows(),
            Self::Schema => true,
            Self::File => false,
        }
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.schema, &self.name, &self.file) {
            (Some(schema), Some(name), _) => write!(f, "{schema}.{name}"),
            (None, Some(name), _) => f.write_str(name),
            (_, None, Some(file)) => write!(f, "of file {}", file.relfilenode),
            (_, None, None) => f.write_str("of unknown name"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_events_are_read_as_they_are_written() {
        let id = EventId {
            timeline: TimelineId::FIRST,
            lsn: Lsn::new(0x1_03A2_B1C8),
        };
        assert_eq!(id.to_string(), "1-1/3A2B1C8");
        assert_eq!(id.to_string().parse(), Ok(id));
        for wrong in ["", "1", "1-", "0-0/1", "x-0/1", "1-0", "1/0-1"] {
            assert!(wrong.parse::<EventId>().is_err(), "{wrong}");
        }
    }
}
