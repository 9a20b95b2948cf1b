//! Checking a server's certificate, as far as the mode asks for.

use std::sync::Arc;

use rustls::{
    CertificateError, DigitallySignedStruct, Error as RustlsError, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};

use super::tls::{TlsError, TlsMode, TlsSettings};

/// Checks of the server's certificate what the mode asks for. The handshake's signature is checked always.
#[derive(Debug)]
pub(super) struct ServerVerifier {
    provider: Arc<CryptoProvider>,
    chain: Option<ChainCheck>,
    name: NameCheck,
}

#[derive(Debug)]
struct ChainCheck {
    roots: Vec<CertificateDer<'static>>,
    webpki: Arc<WebPkiServerVerifier>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NameCheck {
    Skipped,
    Done,
}

impl ServerVerifier {
    pub(super) fn new(
        settings: &TlsSettings,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        let (chain, name) = match settings.mode {
            TlsMode::Disable | TlsMode::Prefer | TlsMode::Require => (None, NameCheck::Skipped),
            TlsMode::VerifyCa => (Some(settings.roots()?), NameCheck::Skipped),
            TlsMode::VerifyFull => (Some(settings.roots()?), NameCheck::Done),
        };
        let chain = chain
            .map(|roots| {
                let mut store = RootCertStore::empty();
                store.add_parsable_certificates(roots.iter().cloned());
                let webpki = WebPkiServerVerifier::builder_with_provider(
                    Arc::new(store),
                    Arc::clone(&provider),
                )
                .build()
                .map_err(|error| TlsError::Setup(RustlsError::General(error.to_string())))?;
                Ok(ChainCheck { roots, webpki })
            })
            .transpose()?;
        Ok(Self {
            provider,
            chain,
            name,
        })
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, RustlsError> {
        let Some(chain) = &self.chain else {
            return Ok(ServerCertVerified::assertion());
        };
        // A self-signed server certificate that is itself named as the root: OpenSSL, and so libpq, takes
        // it; webpki would not, when it is marked as an authority's.
        if !chain.roots.iter().any(|root| root == end_entity) {
            let result = chain.webpki.verify_server_cert(
                end_entity,
                intermediates,
                server_name,
                ocsp_response,
                now,
            );
            // The name is looked at last, so an error about it says that the chain is good.
            match result {
                Err(RustlsError::InvalidCertificate(
                    CertificateError::NotValidForName
                    | CertificateError::NotValidForNameContext { .. },
                )) if self.name == NameCheck::Skipped => {}
                other => {
                    other?;
                }
            }
        }
        if self.name == NameCheck::Done {
            verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
