//! Where a server may listen.

use std::{
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
};

use super::{parameters::Parameters, spec::SpecError};

const DEFAULT_PORT: u16 = 5432;
/// Where distributions' servers, and PostgreSQL's own builds, put their socket.
const SOCKET_DIRECTORIES: [&str; 2] = ["/var/run/postgresql", "/tmp"];

/// One address a server may listen at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// The directory of a Unix-domain socket.
    Unix {
        /// The directory.
        directory: PathBuf,
        /// The port, which is part of the socket's name.
        port: u16,
    },
    /// A TCP address.
    Tcp {
        /// The name, which a certificate must carry.
        host: String,
        /// The address to use in place of looking the name up.
        address: Option<IpAddr>,
        /// The port.
        port: u16,
    },
}

/// Every endpoint that the parameters name.
pub(super) fn endpoints(parameters: &Parameters) -> Result<Vec<Endpoint>, SpecError> {
    let list = |name| -> Vec<&str> {
        parameters
            .get(name)
            .filter(|value: &&str| !value.is_empty())
            .map(|value| value.split(',').collect())
            .unwrap_or_default()
    };
    let (hosts, addresses, ports) = (list("host"), list("hostaddr"), list("port"));
    let count = hosts.len().max(addresses.len()).max(1);
    for (name, found) in [("host", hosts.len()), ("hostaddr", addresses.len())] {
        if found != 0 && found != count {
            return Err(SpecError::Count {
                name,
                found,
                hosts: count,
            });
        }
    }
    if ports.len() > 1 && ports.len() != count {
        return Err(SpecError::Count {
            name: "port",
            found: ports.len(),
            hosts: count,
        });
    }
    (0..count)
        .map(|index| {
            let port = ports.get(index).or(ports.first()).copied();
            endpoint(
                hosts.get(index).copied().unwrap_or_default(),
                addresses.get(index).copied().unwrap_or_default(),
                port.unwrap_or_default(),
            )
        })
        .collect()
}

fn endpoint(host: &str, address: &str, port: &str) -> Result<Endpoint, SpecError> {
    let port = match port {
        "" => DEFAULT_PORT,
        text => text
            .parse()
            .ok()
            .filter(|&port: &u16| port > 0)
            .ok_or_else(|| SpecError::Value {
                name: "port",
                value: text.to_owned(),
                expected: "a number from 1 to 65535",
            })?,
    };
    if address.is_empty() && (host.is_empty() || host.starts_with('/')) {
        let directory = if host.is_empty() {
            default_socket_directory()
        } else {
            PathBuf::from(host)
        };
        return Ok(Endpoint::Unix { directory, port });
    }
    let parsed = (!address.is_empty())
        .then(|| {
            address.parse().map_err(|_| SpecError::Value {
                name: "hostaddr",
                value: address.to_owned(),
                expected: "an IP address",
            })
        })
        .transpose()?;
    let host = if host.is_empty() { address } else { host };
    Ok(Endpoint::Tcp {
        host: host.to_owned(),
        address: parsed,
        port,
    })
}

fn default_socket_directory() -> PathBuf {
    let [first, last] = SOCKET_DIRECTORIES;
    let directory = if Path::new(first).is_dir() {
        first
    } else {
        last
    };
    PathBuf::from(directory)
}

impl Endpoint {
    /// The port.
    pub fn port(&self) -> u16 {
        match self {
            Self::Unix { port, .. } | Self::Tcp { port, .. } => *port,
        }
    }

    /// What a password file calls the host.
    pub(super) fn passfile_host(&self) -> &str {
        match self {
            Self::Unix { directory, .. }
                if SOCKET_DIRECTORIES
                    .iter()
                    .any(|default| directory == Path::new(default)) =>
            {
                "localhost"
            }
            Self::Unix { directory, .. } => directory.to_str().unwrap_or_default(),
            Self::Tcp { host, .. } => host,
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix { directory, port } => {
                write!(f, "{}/.s.PGSQL.{port}", directory.display())
            }
            Self::Tcp { host, port, .. } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port, .. } => write!(f, "{host}:{port}"),
        }
    }
}
