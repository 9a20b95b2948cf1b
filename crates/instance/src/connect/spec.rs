//! How to reach a PostgreSQL server.

use std::{fmt, path::Path, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use zeroize::Zeroizing;

use super::{
    endpoint::{Endpoint, endpoints},
    parameters::{ParameterError, Parameters},
    settings::{ChannelBindingUse, Keepalive, WantedServer, choice, keepalive, number, seconds},
    tls::TlsSettings,
};

/// How long to wait for a connection unless `connect_timeout` says otherwise.
pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

const APPLICATION_NAME: &str = "everpoint";

/// Names that mean something here.
const KNOWN: [&str; 22] = [
    "host",
    "hostaddr",
    "port",
    "user",
    "password",
    "passfile",
    "dbname",
    "options",
    "application_name",
    "connect_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
    "target_session_attrs",
    "channel_binding",
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "sslnegotiation",
];
/// Names of libpq that may be left out without changing what the connection does here.
const IGNORED: [&str; 6] = [
    "client_encoding",
    "fallback_application_name",
    "gssencmode",
    "load_balance_hosts",
    "sslcompression",
    "sslsni",
];

/// How to reach a server: where it listens, who to be, and how far to trust the network.
///
/// Read from a libpq connection string (a `postgresql://` URL or `key=value` text). `Display` never
/// shows the password; [`ConnectionSpec::to_text`] and serde do, so that a specification can be stored.
#[derive(Clone, PartialEq, Eq)]
pub struct ConnectionSpec {
    parameters: Parameters,
    endpoints: Vec<Endpoint>,
    password: Option<Zeroizing<String>>,
    tls: TlsSettings,
    connect_timeout: Option<Duration>,
    keepalive: Option<Keepalive>,
    tcp_user_timeout: Option<Duration>,
    wanted_server: WantedServer,
    channel_binding: ChannelBindingUse,
}

/// A connection string cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// Not a connection string.
    #[error(transparent)]
    Syntax(#[from] ParameterError),
    /// A parameter that is not known.
    #[error(
        "connection parameter `{name}` is not known. Leave it out; known are {}",
        KNOWN.join(", ")
    )]
    Unknown {
        /// The parameter.
        name: String,
    },
    /// A parameter with a value it cannot have.
    #[error("connection parameter `{name}` cannot be `{value}`. It must be {expected}")]
    Value {
        /// The parameter.
        name: &'static str,
        /// The value.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
    /// Several hosts, and not as many ports or addresses.
    #[error(
        "connection parameter `{name}` has {found} entries and there are {hosts} hosts. Give one entry, or one for each host"
    )]
    Count {
        /// The parameter.
        name: &'static str,
        /// Its entries.
        found: usize,
        /// The hosts.
        hosts: usize,
    },
}

impl ConnectionSpec {
    /// How to reach a server of this machine through its socket.
    ///
    /// # Errors
    /// When the port is 0.
    pub fn local(socket_directory: &Path, port: u16, user: &str) -> Result<Self, SpecError> {
        let mut parameters = Parameters::default();
        parameters.set("host", &socket_directory.to_string_lossy());
        parameters.set("port", &port.to_string());
        parameters.set("user", user);
        Self::from_parameters(parameters)
    }

    /// Where to try, in this order.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// The role to be; `None` means the operating system's user name.
    pub fn user(&self) -> Option<&str> {
        self.parameters.get("user").filter(|user| !user.is_empty())
    }

    /// The database that sessions without a database of their own use: the one named, else `postgres`.
    ///
    /// Advisory locks and notifications belong to one database, so those who are to meet must use the same.
    pub fn database(&self) -> &str {
        self.parameters
            .get("dbname")
            .filter(|name| !name.is_empty())
            .unwrap_or("postgres")
    }

    /// The password given in the text, not one from a file or the environment.
    pub(super) fn password(&self) -> Option<&str> {
        self.password.as_ref().map(|password| password.as_str())
    }

    pub(super) fn passfile(&self) -> Option<&Path> {
        self.parameters.get("passfile").map(Path::new)
    }

    /// Command-line options for the server process.
    pub(crate) fn options(&self) -> Option<&str> {
        self.parameters.get("options")
    }

    /// The name that the server shows for the sessions.
    pub fn application_name(&self) -> &str {
        self.parameters
            .get("application_name")
            .unwrap_or(APPLICATION_NAME)
    }

    /// How far to trust the network.
    pub fn tls(&self) -> &TlsSettings {
        &self.tls
    }

    /// How long to wait for each address; `None` means as long as the operating system does.
    pub fn connect_timeout(&self) -> Option<Duration> {
        self.connect_timeout
    }

    /// TCP keepalive; `None` when turned off.
    pub fn keepalive(&self) -> Option<Keepalive> {
        self.keepalive
    }

    pub(super) fn tcp_user_timeout(&self) -> Option<Duration> {
        self.tcp_user_timeout
    }

    /// Which of several servers will do.
    pub fn wanted_server(&self) -> WantedServer {
        self.wanted_server
    }

    /// Whether the password exchange must be bound to the TLS connection.
    pub fn channel_binding(&self) -> ChannelBindingUse {
        self.channel_binding
    }

    /// The same with another application name, which the server shows for its sessions.
    #[must_use]
    pub fn with_application_name(&self, name: &str) -> Self {
        let mut spec = self.clone();
        spec.parameters.set("application_name", name);
        spec
    }

    /// The same with more command-line options for the server process, such as `-c synchronous_commit=off`.
    /// They hold against settings of the role and the database.
    #[must_use]
    pub fn with_options(&self, more: &str) -> Self {
        let mut spec = self.clone();
        let options = match self.options() {
            Some(options) => format!("{options} {more}"),
            None => more.to_owned(),
        };
        spec.parameters.set("options", &options);
        spec
    }

    /// As `key=value` text for libpq, for one endpoint and without the password.
    pub(super) fn libpq_text(&self, endpoint: &Endpoint, database: &str, user: &str) -> String {
        let mut parameters = self.parameters.clone();
        // Which of several servers will do was decided when the endpoint was found.
        for name in ["host", "hostaddr", "target_session_attrs"] {
            parameters.remove(name);
        }
        match endpoint {
            Endpoint::Unix { directory, .. } => {
                parameters.set("host", &directory.to_string_lossy());
            }
            Endpoint::Tcp { host, address, .. } => {
                parameters.set("host", host);
                if let Some(address) = address {
                    parameters.set("hostaddr", &address.to_string());
                }
            }
        }
        parameters.set("port", &endpoint.port().to_string());
        parameters.set("user", user);
        parameters.set("dbname", database);
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = parameters.write(&mut text, |_| true);
        text
    }

    /// The same with another role, and without the password of the former.
    #[must_use]
    pub fn with_user(&self, user: &str) -> Self {
        let mut spec = self.clone();
        spec.parameters.set("user", user);
        spec.parameters.remove("password");
        spec.password = None;
        spec
    }

    /// The same with a password.
    #[must_use]
    pub fn with_password(&self, password: &str) -> Self {
        let mut spec = self.clone();
        spec.password = Some(Zeroizing::new(password.to_owned()));
        spec
    }

    /// The same with another database for sessions without one of their own.
    #[must_use]
    pub fn with_database(&self, database: &str) -> Self {
        let mut spec = self.clone();
        spec.parameters.set("dbname", database);
        spec
    }

    /// The whole specification as `key=value` text, with the password if it has one. Reading the text
    /// gives the same specification.
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut parameters = self.parameters.clone();
        if let Some(password) = &self.password {
            parameters.set("password", password);
        }
        let mut text = Zeroizing::new(String::new());
        // Writing to a string does not fail.
        let _ = parameters.write(&mut *text, |_| true);
        text
    }
}

impl FromStr for ConnectionSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        Self::from_parameters(Parameters::parse(text)?)
    }
}

impl ConnectionSpec {
    fn from_parameters(mut parameters: Parameters) -> Result<Self, SpecError> {
        if let Some(name) = parameters
            .names()
            .find(|name| !KNOWN.contains(name) && !IGNORED.contains(name))
        {
            return Err(SpecError::Unknown {
                name: name.to_owned(),
            });
        }
        let password = parameters
            .get("password")
            .filter(|password| !password.is_empty())
            .map(|password| Zeroizing::new(password.to_owned()));
        parameters.remove("password");
        Ok(Self {
            endpoints: endpoints(&parameters)?,
            password,
            tls: TlsSettings::from_parameters(&parameters)?,
            connect_timeout: match seconds(&parameters, "connect_timeout")? {
                None => Some(DEFAULT_CONNECT_TIMEOUT),
                Some(timeout) => Some(timeout).filter(|timeout| !timeout.is_zero()),
            },
            keepalive: keepalive(&parameters)?,
            tcp_user_timeout: number(&parameters, "tcp_user_timeout")?
                .filter(|&wait_ms| wait_ms > 0)
                .map(|wait_ms| Duration::from_millis(u64::from(wait_ms))),
            wanted_server: choice(
                &parameters,
                "target_session_attrs",
                "any, read-write, read-only, primary, standby or prefer-standby",
                &[
                    ("any", WantedServer::Any),
                    ("read-write", WantedServer::ReadWrite),
                    ("read-only", WantedServer::ReadOnly),
                    ("primary", WantedServer::Primary),
                    ("standby", WantedServer::Standby),
                    ("prefer-standby", WantedServer::PreferStandby),
                ],
            )?
            .unwrap_or(WantedServer::Any),
            channel_binding: choice(
                &parameters,
                "channel_binding",
                "disable, prefer or require",
                &[
                    ("disable", ChannelBindingUse::Disable),
                    ("prefer", ChannelBindingUse::Prefer),
                    ("require", ChannelBindingUse::Require),
                ],
            )?
            .unwrap_or(ChannelBindingUse::Prefer),
            parameters,
        })
    }
}

/// `key=value` text with the password left out.
impl fmt::Display for ConnectionSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parameters.write(f, |_| true)
    }
}

impl fmt::Debug for ConnectionSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnectionSpec({self})")
    }
}

impl Serialize for ConnectionSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_text())
    }
}

impl<'de> Deserialize<'de> for ConnectionSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(text: &str) -> ConnectionSpec {
        text.parse().unwrap()
    }

    #[test]
    fn passwords_are_stored_but_never_shown() {
        let spec = spec("postgresql://alice:sec%20ret@db:5433/app?sslmode=require");
        for shown in [spec.to_string(), format!("{spec:?}")] {
            assert!(!shown.contains("sec ret"), "{shown}");
            assert!(shown.contains("user=alice"), "{shown}");
        }
        let stored = spec.to_text();
        assert!(stored.contains("password='sec ret'"));
        assert_eq!(stored.parse::<ConnectionSpec>().unwrap(), spec);
    }

    #[test]
    fn defaults_are_those_of_a_local_server() {
        let spec = spec("");
        assert!(matches!(
            spec.endpoints(),
            [Endpoint::Unix { port: 5432, .. }]
        ));
        assert_eq!(spec.database(), "postgres");
        assert_eq!(spec.application_name(), "everpoint");
        assert_eq!(spec.connect_timeout(), Some(DEFAULT_CONNECT_TIMEOUT));
    }

    #[test]
    fn several_hosts_take_their_own_ports() {
        let spec = spec("host=a,/run/pg,::1 port=1,2,3 connect_timeout=0 keepalives=0");
        let shown: Vec<String> = spec.endpoints().iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["a:1", "/run/pg/.s.PGSQL.2", "[::1]:3"]);
        assert_eq!(spec.connect_timeout(), None);
        assert_eq!(spec.keepalive(), None);
        assert!("host=a,b port=1,2,3".parse::<ConnectionSpec>().is_err());
    }

    #[test]
    fn unknown_and_impossible_parameters_are_named() {
        let error = |text: &str| text.parse::<ConnectionSpec>().unwrap_err().to_string();
        assert!(error("service=x").contains("`service`"));
        assert!(error("port=0").contains("`port`"));
        assert!(error("target_session_attrs=maybe").contains("read-write"));
        assert!(error("sslmode=maybe").contains("verify-full"));
    }
}
