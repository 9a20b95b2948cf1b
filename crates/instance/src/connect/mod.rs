//! Reaching a server: connection strings, passwords, TLS, sessions.

mod channel_binding;
mod endpoint;
mod error;
mod libpq;
mod parameters;
mod passfile;
mod query;
mod settings;
mod spec;
mod sql;
mod tls;
mod transport;
mod user;
mod verifier;

pub use endpoint::Endpoint;
pub use error::{ConnectError, ServerMessage};
pub use libpq::LibpqConnection;
pub use parameters::ParameterError;
pub use query::QueryError;
pub use settings::{
    ChannelBindingUse, DEFAULT_KEEPALIVES_COUNT, DEFAULT_KEEPALIVES_IDLE,
    DEFAULT_KEEPALIVES_INTERVAL, Keepalive, WantedServer,
};
pub use spec::{ConnectionSpec, DEFAULT_CONNECT_TIMEOUT, SpecError};
pub use sql::{SqlClient, connect_sql};
pub use tls::{TlsError, TlsMode, TlsNegotiation, TlsSettings};

pub(crate) use error::Fields;
pub(crate) use passfile::password_for;
pub(crate) use sql::{Attempts, NOTIFICATION_QUEUE, check_kind, connect};
pub(crate) use transport::Transport;
pub(crate) use user::role;
