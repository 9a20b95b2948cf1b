//! How far to trust the network: libpq's `sslmode` and what belongs to it, by rustls.
//!
//! `require` encrypts and checks nothing about the server, as libpq does, unless a root certificate is
//! named; then it checks as `verify-ca` does.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    CertificateError, ClientConfig, Error as RustlsError,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
};

use super::{parameters::Parameters, settings::choice, spec::SpecError, verifier::ServerVerifier};

/// Where distributions keep the roots that the system trusts (`sslrootcert=system`).
const SYSTEM_ROOTS: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
];

/// What to ask of TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// Whether to use TLS, and what to check.
    pub mode: TlsMode,
    /// How TLS begins.
    pub negotiation: TlsNegotiation,
    root_file: Option<PathBuf>,
    client_certificate: Option<PathBuf>,
    client_key: Option<PathBuf>,
}

/// libpq's `sslmode`. TCP only: a Unix-domain socket is never encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsMode {
    /// Never.
    Disable,
    /// When the server can (`allow` is read as this too).
    Prefer,
    /// A server that cannot is refused; its certificate is not checked.
    Require,
    /// The server's certificate must be signed by a root.
    VerifyCa,
    /// And it must carry the host's name.
    VerifyFull,
}

/// libpq's `sslnegotiation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsNegotiation {
    /// The server is asked first.
    Postgres,
    /// TLS begins with the first byte (PostgreSQL 17 and later).
    Direct,
}

/// TLS cannot be set up as asked.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A certificate or key file cannot be read.
    #[error("{what} `{path}` cannot be read")]
    File {
        /// What the file holds.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// No root certificate where one is needed.
    #[error(
        "sslmode={mode} needs the certificate that signed the server's, and there is none at `{path}`. Name its file by sslrootcert=FILE"
    )]
    NoRoots {
        /// The mode.
        mode: &'static str,
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A certificate without its key, or the other way round.
    #[error("a client certificate needs both sslcert=FILE and sslkey=FILE")]
    HalfClientCertificate,
    /// The home directory is not known.
    #[error("the home directory is not known, so sslrootcert has no default. Set it")]
    NoHome,
    /// Not a name a certificate can carry.
    #[error(
        "`{host}` is neither a host name nor an address, so no certificate can be checked for it"
    )]
    BadServerName {
        /// The host.
        host: String,
    },
    /// rustls refuses the certificates or the settings.
    #[error("TLS cannot be set up with these certificates")]
    Setup(#[source] RustlsError),
    /// The server has no TLS.
    #[error(
        "the server has no TLS. Turn it on (ssl = on in postgresql.conf, with a certificate), or connect with sslmode=disable if the network between is trusted"
    )]
    NotOffered,
    /// The handshake failed.
    #[error("the TLS handshake failed{}", hint(source))]
    Handshake {
        /// Why.
        source: io::Error,
    },
}

fn hint(error: &io::Error) -> &'static str {
    let cause = error
        .get_ref()
        .and_then(|cause| cause.downcast_ref::<RustlsError>());
    match cause {
        Some(RustlsError::InvalidCertificate(problem)) => match problem {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                ". The server's certificate is not signed by a root of sslrootcert; name the file of the one that signed it"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                ". The server's certificate does not carry this host name among its subject alternative names; connect by a name it carries, or use sslmode=verify-ca"
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                ". The server's certificate has expired; renew it"
            }
            _ => "",
        },
        _ => "",
    }
}

impl TlsSettings {
    pub(super) fn from_parameters(parameters: &Parameters) -> Result<Self, SpecError> {
        let path = |name| {
            parameters
                .get(name)
                .filter(|value: &&str| !value.is_empty())
                .map(PathBuf::from)
        };
        let root_file = path("sslrootcert");
        let system = root_file.as_deref() == Some(Path::new("system"));
        let mode = choice(
            parameters,
            "sslmode",
            "disable, allow, prefer, require, verify-ca or verify-full",
            &[
                ("disable", TlsMode::Disable),
                ("allow", TlsMode::Prefer),
                ("prefer", TlsMode::Prefer),
                ("require", TlsMode::Require),
                ("verify-ca", TlsMode::VerifyCa),
                ("verify-full", TlsMode::VerifyFull),
            ],
        )?;
        let mode = match mode {
            // libpq: the system's roots sign everybody, so only the name tells servers apart.
            None if system => TlsMode::VerifyFull,
            None => TlsMode::Prefer,
            Some(TlsMode::Require) if root_file.is_some() => TlsMode::VerifyCa,
            Some(mode) => mode,
        };
        if system && mode != TlsMode::VerifyFull {
            return Err(SpecError::Value {
                name: "sslrootcert",
                value: "system".to_owned(),
                expected: "a file unless sslmode=verify-full",
            });
        }
        let negotiation = choice(
            parameters,
            "sslnegotiation",
            "postgres or direct",
            &[
                ("postgres", TlsNegotiation::Postgres),
                ("direct", TlsNegotiation::Direct),
            ],
        )?
        .unwrap_or(TlsNegotiation::Postgres);
        if negotiation == TlsNegotiation::Direct && mode < TlsMode::Require {
            return Err(SpecError::Value {
                name: "sslnegotiation",
                value: "direct".to_owned(),
                expected: "postgres unless sslmode is require, verify-ca or verify-full",
            });
        }
        Ok(Self {
            mode,
            negotiation,
            root_file,
            client_certificate: path("sslcert"),
            client_key: path("sslkey"),
        })
    }

    /// What rustls needs, with every file read.
    pub(super) fn client_config(&self) -> Result<ClientConfig, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = ServerVerifier::new(self, Arc::clone(&provider))?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Setup)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match (&self.client_certificate, &self.client_key) {
            (None, None) => builder.with_no_client_auth(),
            (Some(certificate), Some(key)) => {
                let chain = certificates("client certificate", certificate)?;
                let key = PrivateKeyDer::from_pem_file(key).map_err(|source| TlsError::File {
                    what: "client key",
                    path: key.clone(),
                    source,
                })?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(TlsError::Setup)?
            }
            _ => return Err(TlsError::HalfClientCertificate),
        };
        // PostgreSQL 17 demands the name for direct negotiation and accepts it otherwise.
        config.alpn_protocols = vec![b"postgresql".to_vec()];
        Ok(config)
    }

    pub(super) fn roots(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let path = match &self.root_file {
            Some(path) if path == Path::new("system") => SYSTEM_ROOTS
                .iter()
                .map(PathBuf::from)
                .find(|path| path.exists())
                .unwrap_or_else(|| path.clone()),
            Some(path) => path.clone(),
            None => env::home_dir()
                .ok_or(TlsError::NoHome)?
                .join(".postgresql/root.crt"),
        };
        if !fs::exists(&path).unwrap_or(false) {
            let mode = if self.mode == TlsMode::VerifyFull {
                "verify-full"
            } else {
                "verify-ca"
            };
            return Err(TlsError::NoRoots { mode, path });
        }
        certificates("root certificate", &path)
    }
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|source| TlsError::File {
            what,
            path: path.to_owned(),
            source,
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connect::ConnectionSpec;

    fn mode(text: &str) -> TlsMode {
        text.parse::<ConnectionSpec>().unwrap().tls().mode
    }

    #[test]
    fn modes_follow_libpq() {
        assert_eq!(mode("host=a"), TlsMode::Prefer);
        assert_eq!(mode("host=a sslmode=require"), TlsMode::Require);
        assert_eq!(
            mode("host=a sslmode=require sslrootcert=/x"),
            TlsMode::VerifyCa
        );
        assert_eq!(mode("host=a sslrootcert=system"), TlsMode::VerifyFull);
        for text in [
            "sslrootcert=system sslmode=require",
            "sslnegotiation=direct sslmode=prefer",
        ] {
            assert!(text.parse::<ConnectionSpec>().is_err(), "{text}");
        }
    }

    #[test]
    fn missing_root_certificate_is_said_with_its_place() {
        let spec: ConnectionSpec = "sslmode=verify-ca sslrootcert=/nowhere/root.crt"
            .parse()
            .unwrap();
        let error = spec.tls().client_config().unwrap_err().to_string();
        assert!(error.contains("/nowhere/root.crt") && error.contains("sslrootcert="));
    }
}
