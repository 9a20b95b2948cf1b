//! Why a server cannot be reached.

use std::{fmt, io, time::Duration};

use tokio_postgres::error::DbError;

use super::tls::TlsError;

/// What a server said in an error or notice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerMessage(Box<Fields>);

/// The fields of a message that are kept. Boxed, so that errors stay small.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fields {
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) detail: Option<String>,
    pub(crate) hint: Option<String>,
    pub(crate) routine: Option<String>,
}

impl ServerMessage {
    pub(crate) fn new(fields: Fields) -> Self {
        Self(Box::new(fields))
    }

    /// SQLSTATE: five characters.
    pub fn code(&self) -> &str {
        &self.0.code
    }

    /// The message, in the server's language.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// More about it.
    pub fn detail(&self) -> Option<&str> {
        self.0.detail.as_deref()
    }

    /// The server's own advice.
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// The function in PostgreSQL's source that raised it, which does not depend on the language.
    pub fn routine(&self) -> Option<&str> {
        self.0.routine.as_deref()
    }
}

impl fmt::Display for ServerMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (SQLSTATE {})", self.message(), self.code())?;
        if let Some(detail) = self.detail() {
            write!(f, ": {detail}")?;
        }
        if let Some(hint) = self.hint() {
            write!(f, ". {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ServerMessage {}

impl From<&DbError> for ServerMessage {
    fn from(error: &DbError) -> Self {
        Self::new(Fields {
            code: error.code().code().to_owned(),
            message: error.message().to_owned(),
            detail: error.detail().map(str::to_owned),
            hint: error.hint().map(str::to_owned),
            routine: error.routine().map(str::to_owned),
        })
    }
}

/// No session could be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// Nothing answers.
    #[error("no server answers at {endpoint}. Check that it runs, its port, and listen_addresses")]
    Unreachable {
        /// Where.
        endpoint: String,
        /// Why.
        source: io::Error,
    },
    /// Nothing answers in time.
    #[error(
        "the server at {endpoint} does not answer within {limit:?}. Check the network and firewalls, or raise connect_timeout"
    )]
    TimedOut {
        /// Where.
        endpoint: String,
        /// The time limit.
        limit: Duration,
    },
    /// No encrypted connection.
    #[error("no TLS connection to {endpoint}")]
    Tls {
        /// Where.
        endpoint: String,
        /// Why.
        source: TlsError,
    },
    /// No role named, and the operating system's user has no name.
    #[error("no role to connect as. Add user=NAME to the connection string")]
    NoUser,
    /// A password is asked for and there is none.
    #[error(
        "{endpoint} asks for a password of role `{user}` and there is none. Give it by password=, PGPASSWORD, or a line `{endpoint}:*:{user}:PASSWORD` in ~/.pgpass (mode 0600)"
    )]
    NoPassword {
        /// Where.
        endpoint: String,
        /// The role.
        user: String,
    },
    /// Wrong password, no such role, or no line in `pg_hba.conf`.
    #[error(
        "{endpoint} refuses role `{user}`. Check the password, and that pg_hba.conf has a line for this role, {database} and this machine; `SELECT pg_reload_conf()` makes a new line count"
    )]
    Authentication {
        /// Where.
        endpoint: String,
        /// The role.
        user: String,
        /// What was to be reached: a database or replication.
        database: String,
        /// What the server said.
        #[source]
        message: ServerMessage,
    },
    /// An authentication method that is not spoken here.
    #[error(
        "{endpoint} asks for authentication by {method}, which is not supported. Use scram-sha-256, or cert, peer or trust, in pg_hba.conf"
    )]
    UnsupportedMethod {
        /// Where.
        endpoint: String,
        /// The method.
        method: &'static str,
    },
    /// The server's proof of knowing the password is wrong, or the binding to TLS is not to be had.
    #[error("password authentication with {endpoint} failed on this side")]
    Handshake {
        /// Where.
        endpoint: String,
        /// Why.
        source: io::Error,
    },
    /// It starts up, shuts down, or recovers.
    #[error(
        "the server at {endpoint} takes no connections at this moment. Wait, or look at its log"
    )]
    NotReady {
        /// Where.
        endpoint: String,
        /// What the server said.
        #[source]
        message: ServerMessage,
    },
    /// No free connection.
    #[error(
        "the server at {endpoint} has no free connection. Raise max_connections or max_wal_senders, or end other sessions"
    )]
    Full {
        /// Where.
        endpoint: String,
        /// What the server said.
        #[source]
        message: ServerMessage,
    },
    /// The server refuses for another reason.
    #[error("the server at {endpoint} refuses the connection")]
    Refused {
        /// Where.
        endpoint: String,
        /// What the server said.
        #[source]
        message: ServerMessage,
    },
    /// The connection broke, or the answer is not PostgreSQL's.
    #[error(
        "the connection to {endpoint} broke while it was set up. Check that it is a PostgreSQL server and not a pooler"
    )]
    Broken {
        /// Where.
        endpoint: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Reached, but it is not the kind of server wanted.
    #[error(
        "the server at {endpoint} is {found}, and target_session_attrs={wanted} is asked for. Add the other server's host to the connection string"
    )]
    OtherKind {
        /// Where.
        endpoint: String,
        /// What it is.
        found: &'static str,
        /// What is asked for.
        wanted: &'static str,
    },
    /// None of several addresses will do.
    #[error("none of {} addresses will do: {}", .failures.len(), list(.failures))]
    NoneOf {
        /// Why each of them does not.
        failures: Vec<ConnectError>,
    },
}

fn list(failures: &[ConnectError]) -> String {
    let texts: Vec<String> = failures.iter().map(ToString::to_string).collect();
    texts.join("; ")
}

impl ConnectError {
    /// The SQLSTATE by which the server refused the session, if it was the server and for no reason that has a
    /// variant of its own.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused { message, .. } => Some(message.code()),
            _ => None,
        }
    }

    /// Sorts what a server said while a session was set up.
    pub(crate) fn from_server(
        endpoint: String,
        user: &str,
        database: &str,
        message: ServerMessage,
    ) -> Self {
        match message.code() {
            code if code.starts_with("28") => Self::Authentication {
                endpoint,
                user: user.to_owned(),
                database: database.to_owned(),
                message,
            },
            "57P03" | "57P01" | "57P02" => Self::NotReady { endpoint, message },
            code if code.starts_with("53") => Self::Full { endpoint, message },
            _ => Self::Refused { endpoint, message },
        }
    }

    /// Sorts an error of tokio-postgres.
    pub(crate) fn from_sql(
        endpoint: String,
        user: &str,
        database: &str,
        error: tokio_postgres::Error,
    ) -> Self {
        match error.as_db_error() {
            Some(message) => Self::from_server(endpoint, user, database, message.into()),
            // tokio-postgres tells its errors apart by their texts only.
            None if error.to_string() == "authentication error" => Self::Handshake {
                endpoint,
                source: io::Error::other(error),
            },
            None => Self::Broken {
                endpoint,
                source: Box::new(error),
            },
        }
    }

    /// Whether the same attempt may succeed later without anybody changing a setting.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::TimedOut { .. }
            | Self::NotReady { .. }
            | Self::Full { .. }
            | Self::Broken { .. }
            | Self::OtherKind { .. } => true,
            Self::NoneOf { failures } => failures.iter().any(Self::is_transient),
            _ => false,
        }
    }
}
