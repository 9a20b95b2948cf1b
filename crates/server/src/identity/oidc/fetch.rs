//! Getting small documents over HTTPS, within limits. Redirections are not followed.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;
use url::Url;

/// The largest document.
const MAX_BYTES: usize = 256 << 10;
/// How long getting one may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A document was not got.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The certificates of authorities cannot be used.
    #[error("no certificate authority in {place} can be used")]
    Authorities {
        /// Where.
        place: String,
    },
    /// Only HTTPS is spoken.
    #[error("{url} is no https address")]
    Scheme {
        /// The address.
        url: String,
    },
    /// It cannot be reached.
    #[error("cannot reach {url}")]
    Connect {
        /// The address.
        url: String,
        /// Why.
        source: std::io::Error,
    },
    /// It does not speak HTTP as it should.
    #[error("{url} does not answer properly")]
    Http {
        /// The address.
        url: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It takes too long.
    #[error("{url} does not answer within {} s", PATIENCE.as_secs())]
    Time {
        /// The address.
        url: String,
    },
    /// It answers with an error.
    #[error("{url} answers with status {status}")]
    Status {
        /// The address.
        url: String,
        /// The status.
        status: u16,
    },
    /// It is something else.
    #[error("{place} is not {what}")]
    Content {
        /// Where.
        place: String,
        /// What it should be.
        what: &'static str,
    },
}

/// Gets documents from servers whose certificates certain authorities signed.
pub(super) struct Fetcher {
    connector: TlsConnector,
}

impl Fetcher {
    /// Trusts the authorities of a PEM file, or those of the system.
    pub(super) fn new(authorities: Option<&Path>) -> Result<Self, FetchError> {
        let mut roots = RootCertStore::empty();
        let place = match authorities {
            Some(path) => {
                let text = read_file(path)?;
                let found = CertificateDer::pem_slice_iter(&text).flatten();
                roots.add_parsable_certificates(found);
                path.display().to_string()
            }
            None => {
                let found = rustls_native_certs::load_native_certs().certs;
                roots.add_parsable_certificates(found);
                "the system's store".to_owned()
            }
        };
        if roots.is_empty() {
            return Err(FetchError::Authorities { place });
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|_| FetchError::Authorities { place })?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            connector: TlsConnector::from(Arc::new(config)),
        })
    }

    /// Gets one.
    pub(super) async fn get(&self, url: &Url) -> Result<Bytes, FetchError> {
        let got = timeout(PATIENCE, self.request(url)).await;
        got.unwrap_or_else(|_| {
            Err(FetchError::Time {
                url: url.to_string(),
            })
        })
    }

    async fn request(&self, url: &Url) -> Result<Bytes, FetchError> {
        let scheme = || FetchError::Scheme {
            url: url.to_string(),
        };
        let host = url.host_str().filter(|_| url.scheme() == "https");
        let host = host.ok_or_else(scheme)?.trim_matches(['[', ']']);
        let name = ServerName::try_from(host.to_owned()).map_err(|_| scheme())?;
        let connect = |source| FetchError::Connect {
            url: url.to_string(),
            source,
        };
        let port = url.port_or_known_default().unwrap_or(443);
        let stream = TcpStream::connect((host, port)).await.map_err(connect)?;
        let stream = self
            .connector
            .connect(name, stream)
            .await
            .map_err(connect)?;
        let http = |source: Box<dyn std::error::Error + Send + Sync>| FetchError::Http {
            url: url.to_string(),
            source,
        };
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| http(error.into()))?;
        let path = match url.query() {
            None => url.path().to_owned(),
            Some(query) => format!("{}?{query}", url.path()),
        };
        let authority = url
            .port()
            .map_or(host.to_owned(), |port| format!("{host}:{port}"));
        let request = Request::get(path)
            .header(header::HOST, authority)
            .header(header::ACCEPT, "application/json")
            .body(Empty::<Bytes>::new())
            .map_err(|error| http(error.into()))?;
        let answering = async {
            let answer = sender.send_request(request).await;
            let answer = answer.map_err(|error| http(error.into()))?;
            let status = answer.status().as_u16();
            if status != 200 {
                let url = url.to_string();
                return Err(FetchError::Status { url, status });
            }
            let body = Limited::new(answer.into_body(), MAX_BYTES).collect().await;
            Ok(body.map_err(http)?.to_bytes())
        };
        let mut answering = std::pin::pin!(answering);
        tokio::select! {
            answer = answering.as_mut() => answer,
            // What went wrong with the connection, the answer says.
            _ = connection => answering.await,
        }
    }
}

/// Reads a small file.
pub(super) fn read_file(path: &Path) -> Result<Vec<u8>, FetchError> {
    let read = || {
        let mut bytes = Vec::new();
        let limit = u64::try_from(MAX_BYTES).unwrap_or(u64::MAX);
        File::open(path)?.take(limit).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|source| FetchError::File {
        path: path.to_owned(),
        source,
    })
}
