//! A client of PostgreSQL's physical replication protocol.
//!
//! It does what `pg_receivewal` does on the wire, and nothing with the WAL: the caller stores it and says
//! what is safe by [`WalStream::send_status`].

mod client;
mod error;
mod framed;
mod login;
mod message;
mod slot;
mod stream;

pub use client::{HistoryFile, ReplicationClient, StreamStart, SystemIdentity};
pub use error::ReplicationError;
pub use slot::{DropActive, SlotLifetime, SlotName, SlotPosition};
pub use stream::{ReceiverStatus, ReplyWanted, StreamEvent, WalStream};
