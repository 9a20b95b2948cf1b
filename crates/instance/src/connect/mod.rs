//! Reaching a server: connection strings, passwords, TLS, sessions.

mod channel_binding;
mod error;
mod parameters;
mod passfile;
mod query;
mod spec;
mod sql;
mod tls;
mod transport;
mod user;

pub use error::{ConnectError, ServerMessage};
pub use parameters::ParameterError;
pub use query::QueryError;
pub use spec::{
    ChannelBindingUse, ConnectionSpec, DEFAULT_CONNECT_TIMEOUT, DEFAULT_KEEPALIVES_COUNT,
    DEFAULT_KEEPALIVES_IDLE, DEFAULT_KEEPALIVES_INTERVAL, Endpoint, Keepalive, SpecError,
    WantedServer,
};
pub use sql::{SqlClient, connect_sql};
pub use tls::{TlsError, TlsMode, TlsNegotiation, TlsSettings};

pub(crate) use error::Fields;
pub(crate) use passfile::password_for;
pub(crate) use sql::{NOTIFICATION_QUEUE, check_kind, connect, first_of};
pub(crate) use transport::Transport;
pub(crate) use user::role;
