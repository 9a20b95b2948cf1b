//! A byte stream to a server: a Unix-domain socket, TCP, or TLS over TCP.

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpStream, UnixStream},
    time::timeout,
};
use tokio_postgres::tls::{ChannelBinding, TlsStream as TlsIdentity};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    channel_binding::certificate_digest,
    endpoint::Endpoint,
    error::ConnectError,
    spec::ConnectionSpec,
    tls::{TlsError, TlsMode, TlsNegotiation},
};

/// A connected byte stream.
#[derive(Debug)]
pub(crate) enum Transport {
    Unix(UnixStream),
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// What a server that speaks TLS answers to the request for it.
const TLS_ACCEPTED: u8 = b'S';
/// `SSLRequest`: its length and the number 80877103 (`src/include/libpq/pqcomm.h`).
const TLS_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xD2, 0x16, 0x2F];

impl Transport {
    /// Connects to one endpoint, with TLS as the specification asks, within its time limit.
    pub(crate) async fn open(
        spec: &ConnectionSpec,
        endpoint: &Endpoint,
    ) -> Result<Self, ConnectError> {
        match endpoint {
            Endpoint::Unix { directory, port } => {
                let path: PathBuf = directory.join(format!(".s.PGSQL.{port}"));
                let stream = limited(spec, endpoint, UnixStream::connect(path)).await?;
                Ok(Self::Unix(stream))
            }
            Endpoint::Tcp { host, .. } => {
                let stream = tcp(spec, endpoint).await?;
                if spec.tls().mode == TlsMode::Disable {
                    return Ok(Self::Tcp(stream));
                }
                let handshake = async { Ok(encrypt(spec, host, stream).await) };
                limited(spec, endpoint, handshake)
                    .await?
                    .map_err(|source| ConnectError::Tls {
                        endpoint: endpoint.to_string(),
                        source,
                    })
            }
        }
    }

    /// What binds a password exchange to this connection; `None` without TLS.
    pub(crate) fn certificate_digest(&self) -> Option<Vec<u8>> {
        match self {
            Self::Unix(_) | Self::Tcp(_) => None,
            Self::Tls(stream) => stream
                .get_ref()
                .1
                .peer_certificates()
                .and_then(<[_]>::first)
                .and_then(|certificate| certificate_digest(certificate)),
        }
    }
}

/// Runs one step of connecting within the time limit.
async fn limited<T>(
    spec: &ConnectionSpec,
    endpoint: &Endpoint,
    step: impl Future<Output = io::Result<T>>,
) -> Result<T, ConnectError> {
    let result = match spec.connect_timeout() {
        None => step.await,
        Some(limit) => match timeout(limit, step).await {
            Ok(result) => result,
            Err(_) => {
                return Err(ConnectError::TimedOut {
                    endpoint: endpoint.to_string(),
                    limit,
                });
            }
        },
    };
    result.map_err(|source| ConnectError::Unreachable {
        endpoint: endpoint.to_string(),
        source,
    })
}

/// Tries each address of a name in turn.
async fn tcp(spec: &ConnectionSpec, endpoint: &Endpoint) -> Result<TcpStream, ConnectError> {
    let Endpoint::Tcp {
        host,
        address,
        port,
    } = endpoint
    else {
        return Err(ConnectError::Unreachable {
            endpoint: endpoint.to_string(),
            source: io::ErrorKind::Unsupported.into(),
        });
    };
    let addresses: Vec<SocketAddr> = match address {
        Some(address) => vec![SocketAddr::new(*address, *port)],
        None => {
            let lookup = tokio::net::lookup_host((host.as_str(), *port));
            limited(spec, endpoint, lookup).await?.collect()
        }
    };
    let mut failure = None;
    for address in addresses {
        match limited(spec, endpoint, TcpStream::connect(address)).await {
            Ok(stream) => {
                set_options(spec, &stream).map_err(|source| ConnectError::Unreachable {
                    endpoint: endpoint.to_string(),
                    source,
                })?;
                return Ok(stream);
            }
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.unwrap_or_else(|| ConnectError::Unreachable {
        endpoint: endpoint.to_string(),
        source: io::Error::new(io::ErrorKind::NotFound, "the name has no address"),
    }))
}

fn set_options(spec: &ConnectionSpec, stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    if let Some(keepalive) = spec.keepalive() {
        socket.set_tcp_keepalive(
            &TcpKeepalive::new()
                .with_time(keepalive.idle)
                .with_interval(keepalive.interval)
                .with_retries(keepalive.count),
        )?;
    }
    if let Some(limit) = spec.tcp_user_timeout() {
        socket.set_tcp_user_timeout(Some(limit))?;
    }
    Ok(())
}

/// Begins TLS, as far as the server can and the specification demands.
async fn encrypt(
    spec: &ConnectionSpec,
    host: &str,
    mut stream: TcpStream,
) -> Result<Transport, TlsError> {
    let settings = spec.tls();
    if settings.negotiation == TlsNegotiation::Postgres {
        let answer = async {
            stream.write_all(&TLS_REQUEST).await?;
            // One byte exactly: anything behind it would be from before encryption, and not be trusted.
            stream.read_u8().await
        };
        let answer = answer
            .await
            .map_err(|source| TlsError::Handshake { source })?;
        if answer != TLS_ACCEPTED {
            return match settings.mode {
                TlsMode::Disable | TlsMode::Prefer => Ok(Transport::Tcp(stream)),
                _ => Err(TlsError::NotOffered),
            };
        }
    }
    let name = ServerName::try_from(host.to_owned()).map_err(|_| TlsError::BadServerName {
        host: host.to_owned(),
    })?;
    let connector = TlsConnector::from(Arc::new(settings.client_config()?));
    let stream = connector
        .connect(name, stream)
        .await
        .map_err(|source| TlsError::Handshake { source })?;
    Ok(Transport::Tls(Box::new(stream)))
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}

/// For tokio-postgres, which asks its TLS stream for the binding.
impl TlsIdentity for Transport {
    fn channel_binding(&self) -> ChannelBinding {
        match self.certificate_digest() {
            Some(digest) => ChannelBinding::tls_server_end_point(digest),
            None => ChannelBinding::none(),
        }
    }
}
