//! Newtypes for PostgreSQL's numbers.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name($inner);

        impl $name {
            /// Wraps the raw number.
            pub const fn new(raw: $inner) -> Self {
                Self(raw)
            }

            /// The raw number.
            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl From<$inner> for $name {
            fn from(raw: $inner) -> Self {
                Self(raw)
            }
        }
    };
}

number! {
    /// An object identifier: of a database, a tablespace, a relation's file.
    Oid(u32)
}
number! {
    /// The position of a block within a relation fork, counted from 0 over all its segment files.
    BlockNumber(u32)
}
number! {
    /// A transaction's number (`TransactionId`), 32 bits wide as WAL records carry it. 0 is no transaction.
    TransactionId(u32)
}
number! {
    /// The local number of a replication origin (`RepOriginId`).
    ReplicationOriginId(u16)
}
number! {
    /// A number of bytes.
    ByteCount(u64)
}
number! {
    /// The random identifier that `initdb` gives a cluster; every copy of the cluster carries it.
    SystemIdentifier(u64)
}

impl TransactionId {
    /// No transaction (`InvalidTransactionId`).
    pub const INVALID: Self = Self::new(0);

    /// Whether this is a real transaction.
    pub const fn is_valid(self) -> bool {
        self.get() != 0
    }

    /// Whether it is older than another. Numbers come round: older is what lies at most half of them behind.
    pub const fn is_before(self, other: Self) -> bool {
        self.get().wrapping_sub(other.get()) >= 1 << 31
    }
}

/// Bytes in a page of a relation. Other sizes are refused when a control file is read.
pub const BLOCK_SIZE: usize = 8192;
