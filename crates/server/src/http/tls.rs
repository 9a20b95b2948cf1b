//! The server's certificate: its owner's, or one by an authority that is made at the first start.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use crate::config::Config;

/// Days that generated certificates are valid: the authority's ten years, the server's, which is made anew at
/// each start, 397.
const AUTHORITY_DAYS: i64 = 3650;
const SERVER_DAYS: i64 = 397;

/// TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls::pki_types::pem::Error,
    },
    /// A file cannot be read or written.
    #[error("cannot read or write {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A certificate cannot be made.
    #[error("cannot make a certificate")]
    Make(#[from] rcgen::Error),
    /// Certificate and key do not go together.
    #[error("the certificate and its key cannot be used")]
    Use(#[from] rustls::Error),
}

/// What the listener needs, and the authority's certificate when it was generated.
pub struct Tls {
    /// For connections.
    pub server: Arc<ServerConfig>,
    /// The generated authority's certificate, as PEM.
    pub authority: Option<String>,
}

impl Tls {
    /// Reads the configured certificate, or makes one that the generated authority signs.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn new(config: &Config) -> Result<Self, TlsError> {
        if let Some(own) = &config.tls {
            let read = |path: &Path| {
                let path = path.to_owned();
                move |source| TlsError::Read { path, source }
            };
            let chain = CertificateDer::pem_file_iter(&own.certificate)
                .and_then(Iterator::collect)
                .map_err(read(&own.certificate))?;
            let key = PrivateKeyDer::from_pem_file(&own.key).map_err(read(&own.key))?;
            let server = server_config(chain, key)?;
            return Ok(Self {
                server,
                authority: None,
            });
        }
        let directory = config.state_directory.join("tls");
        let (pem, issuer) = authority(&directory)?;
        let host = config.public_url.host_str().unwrap_or("localhost");
        let mut names = vec![host.trim_matches(['[', ']']).to_owned()];
        for name in ["localhost", "127.0.0.1", "::1"] {
            if !names.iter().any(|found| found == name) {
                names.push(name.to_owned());
            }
        }
        let mut wish = CertificateParams::new(names)?;
        wish.distinguished_name.push(DnType::CommonName, host);
        wish.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        wish.use_authority_key_identifier_extension = true;
        valid_for(&mut wish, SERVER_DAYS);
        let key = KeyPair::generate()?;
        let certificate = wish.signed_by(&key, &issuer)?;
        let secret = PrivateKeyDer::try_from(key.serialize_der())
            .map_err(|text| rustls::Error::General(text.to_owned()))?;
        let server = server_config(vec![certificate.der().clone()], secret)?;
        Ok(Self {
            server,
            authority: Some(pem),
        })
    }
}

fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(server))
}

/// The authority of this state directory, made when there is none.
fn authority(directory: &Path) -> Result<(String, Issuer<'static, KeyPair>), TlsError> {
    let (certificate, key) = (directory.join("ca.pem"), directory.join("ca.key"));
    let file = |path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::File { path, source }
    };
    // Name and key usages are always the same, so they need not be read from the certificate again.
    let mut wish = CertificateParams::default();
    wish.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    wish.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let name = "Everpoint certificate authority";
    wish.distinguished_name.push(DnType::CommonName, name);
    valid_for(&mut wish, AUTHORITY_DAYS);
    if !certificate.exists() {
        fs::create_dir_all(directory).map_err(file(directory))?;
        let pair = KeyPair::generate()?;
        let made = wish.self_signed(&pair)?;
        // The certificate goes last: where it is, the key is.
        write(&key, 0o600, &pair.serialize_pem()).map_err(file(&key))?;
        write(&certificate, 0o644, &made.pem()).map_err(file(&certificate))?;
    }
    let pem = fs::read_to_string(&certificate).map_err(file(&certificate))?;
    let pair = KeyPair::from_pem(&fs::read_to_string(&key).map_err(file(&key))?)?;
    let issuer = Issuer::new(wish, pair);
    Ok((pem, issuer))
}

fn write(path: &Path, mode: u32, text: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn valid_for(wish: &mut CertificateParams, days: i64) {
    // A day back, for clocks that are behind.
    let now = jiff::Timestamp::now()
        .to_zoned(jiff::tz::TimeZone::UTC)
        .date();
    let date = |days: i64| {
        let span = jiff::Span::new().days(days);
        let date = now.saturating_add(span);
        let part = |number: i8| u8::try_from(number).unwrap_or(1);
        rcgen::date_time_ymd(date.year().into(), part(date.month()), part(date.day()))
    };
    wish.not_before = date(-1);
    wish.not_after = date(days);
}
