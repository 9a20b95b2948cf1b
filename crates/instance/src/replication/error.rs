//! What goes wrong with replication connections.

use std::io;

use everpoint_pgformat::{Lsn, TimelineId};

use crate::connect::{ConnectError, ServerMessage};

/// A replication command or stream failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplicationError {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The role may not replicate.
    #[error(
        "role `{user}` may not use replication. As a superuser: ALTER ROLE \"{user}\" REPLICATION"
    )]
    NotAllowed {
        /// The role.
        user: String,
        /// What the server said.
        #[source]
        message: ServerMessage,
    },
    /// No such slot.
    #[error(
        "replication slot `{slot}` does not exist. If it was dropped, WAL since then may be lost: make the slot anew and take a full backup"
    )]
    SlotMissing {
        /// The slot.
        slot: String,
        /// What the server said.
        #[source]
        message: ServerMessage,
    },
    /// Another receiver streams from the slot.
    #[error(
        "replication slot `{slot}` is in use by another receiver. See who: SELECT active_pid FROM pg_replication_slots WHERE slot_name = '{slot}'"
    )]
    SlotInUse {
        /// The slot.
        slot: String,
        /// What the server said.
        #[source]
        message: ServerMessage,
    },
    /// A slot of that name is there already.
    #[error("replication slot `{slot}` exists already")]
    SlotExists {
        /// The slot.
        slot: String,
        /// What the server said.
        #[source]
        message: ServerMessage,
    },
    /// The slot cannot be streamed from: invalidated, or a logical one. PostgreSQL 15 to 17 accept an
    /// invalidated slot and then raise [`ReplicationError::WalRemoved`].
    #[error(
        "replication slot `{slot}` cannot be used. If it was invalidated (see wal_status in pg_replication_slots), drop it, make it anew and take a full backup; a larger max_slot_wal_keep_size prevents it"
    )]
    SlotUnusable {
        /// The slot.
        slot: String,
        /// What the server said.
        #[source]
        message: ServerMessage,
    },
    /// Every slot is taken.
    #[error(
        "every replication slot is taken. Raise max_replication_slots (needs a restart), or drop one that is not used"
    )]
    NoFreeSlot {
        /// What the server said.
        #[source]
        message: ServerMessage,
    },
    /// WAL that is needed is gone from the server.
    #[error(
        "WAL from {from} on timeline {timeline} is gone from the server, so the chain of log backups ends there. Take a full backup; a replication slot prevents it"
    )]
    WalRemoved {
        /// Where streaming was to begin, or had got to.
        from: Lsn,
        /// The timeline.
        timeline: TimelineId,
        /// What the server said.
        #[source]
        message: ServerMessage,
    },
    /// The position is not on this timeline in the server's history, or lies past its WAL.
    #[error(
        "the server cannot stream from {from} on timeline {timeline}: its history does not hold that position. It may be another copy of the cluster, or one restored to an earlier time"
    )]
    NotInHistory {
        /// Where streaming was to begin.
        from: Lsn,
        /// The timeline.
        timeline: TimelineId,
        /// What the server said.
        #[source]
        message: ServerMessage,
    },
    /// The server ends its sessions.
    #[error("the server is shutting down, or ended this session. Connect again when it is back")]
    ShuttingDown {
        /// What the server said.
        #[source]
        message: ServerMessage,
    },
    /// The server refuses a command for another reason.
    #[error("the server refuses `{command}`")]
    Refused {
        /// The command.
        command: String,
        /// What the server said.
        #[source]
        message: ServerMessage,
    },
    /// The connection ended without a word.
    #[error("the server closed the replication connection. Connect again; its log says why")]
    Closed,
    /// The connection broke.
    #[error("the replication connection broke. Connect again")]
    Io(#[source] io::Error),
    /// An answer that makes no sense.
    #[error(
        "the server's answer to `{command}` is not understood: {what}. Check that nothing but PostgreSQL is between"
    )]
    Protocol {
        /// The command.
        command: String,
        /// What is wrong.
        what: String,
    },
    /// A slot name that PostgreSQL would not take.
    #[error(
        "`{name}` is no name for a replication slot. It must be 1 to 63 of the characters a-z, 0-9 and _"
    )]
    BadSlotName {
        /// The name.
        name: String,
    },
}

impl ReplicationError {
    /// Whether connecting again may mend it without anybody's help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect(error) => error.is_transient(),
            Self::SlotInUse { .. } | Self::ShuttingDown { .. } | Self::Closed | Self::Io(_) => true,
            _ => false,
        }
    }
}

/// What a command was about, for sorting the server's errors.
#[derive(Clone, Debug, Default)]
pub(super) struct Context {
    pub(super) command: String,
    pub(super) slot: Option<String>,
    pub(super) position: Option<(Lsn, TimelineId)>,
    pub(super) user: String,
}

impl Context {
    /// Sorts an error by SQLSTATE and source function, which do not depend on the server's language.
    pub(super) fn sort(&self, message: ServerMessage) -> ReplicationError {
        let slot = self.slot.clone();
        let routine = message.routine().unwrap_or_default().to_owned();
        let code = message.code().to_owned();
        match (code.as_str(), slot, self.position) {
            ("42501", ..) => ReplicationError::NotAllowed {
                user: self.user.clone(),
                message,
            },
            ("57P01" | "57P02" | "57P03" | "57P05", ..) => {
                ReplicationError::ShuttingDown { message }
            }
            ("53400", ..) => ReplicationError::NoFreeSlot { message },
            ("42704", Some(slot), _) => ReplicationError::SlotMissing { slot, message },
            ("42710", Some(slot), _) => ReplicationError::SlotExists { slot, message },
            ("55006", Some(slot), _) => ReplicationError::SlotInUse { slot, message },
            ("58P01", _, Some((from, timeline))) => ReplicationError::WalRemoved {
                from,
                timeline,
                message,
            },
            ("XX000", _, Some((from, timeline))) if routine == "StartReplication" => {
                ReplicationError::NotInHistory {
                    from,
                    timeline,
                    message,
                }
            }
            ("55000", Some(slot), _) => ReplicationError::SlotUnusable { slot, message },
            _ => ReplicationError::Refused {
                command: self.command.clone(),
                message,
            },
        }
    }

    pub(super) fn protocol(&self, what: impl Into<String>) -> ReplicationError {
        ReplicationError::Protocol {
            command: self.command.clone(),
            what: what.into(),
        }
    }
}
