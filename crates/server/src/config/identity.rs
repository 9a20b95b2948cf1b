//! Other issuers of tokens.

use std::path::PathBuf;

use jsonwebtoken::Algorithm;
use serde::{Deserialize, Deserializer};
use url::Url;

use super::ConfigError;

/// Who else may sign people in.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IdentityConfig {
    /// An OpenID Connect issuer.
    pub oidc: Option<OidcConfig>,
}

/// An OpenID Connect issuer.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OidcConfig {
    /// Its name, exactly as in its tokens' `iss`.
    pub issuer: String,
    /// Which of its tokens are for this service: one of their `aud` is one of these.
    #[serde(deserialize_with = "one_or_more")]
    pub audience: Vec<String>,
    /// Where its keys are.
    #[serde(default, deserialize_with = "keys")]
    pub keys: OidcKeys,
    /// Certificates of the authorities that its server's certificate is by; the system's when not given.
    pub ca_file: Option<PathBuf>,
    /// What of a token says who it is.
    #[serde(default)]
    pub claim: Claim,
    /// How its tokens may be signed.
    #[serde(default = "all_algorithms")]
    pub algorithms: Vec<OidcAlgorithm>,
}

/// Where an issuer's keys are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum OidcKeys {
    /// Where its OpenID configuration says, below its name.
    #[default]
    Discovery,
    /// At an https address.
    Url(Url),
    /// In a file.
    File(PathBuf),
}

/// A claim that says who a token is of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Claim {
    /// The object id of a directory.
    Oid,
    /// The subject.
    #[default]
    Sub,
}

/// How a token may be signed. Never by a shared secret, and never not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the names are those of RFC 7518")]
pub enum OidcAlgorithm {
    RS256,
    ES256,
    EdDSA,
}

impl OidcAlgorithm {
    /// Whether it is the one of a token's header.
    pub fn is(self, algorithm: Algorithm) -> bool {
        match self {
            Self::RS256 => algorithm == Algorithm::RS256,
            Self::ES256 => algorithm == Algorithm::ES256,
            Self::EdDSA => algorithm == Algorithm::EdDSA,
        }
    }
}

fn all_algorithms() -> Vec<OidcAlgorithm> {
    use OidcAlgorithm::{ES256, EdDSA, RS256};
    vec![RS256, ES256, EdDSA]
}

fn one_or_more<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Texts {
        One(String),
        More(Vec<String>),
    }
    Ok(match Texts::deserialize(deserializer)? {
        Texts::One(text) => vec![text],
        Texts::More(texts) => texts,
    })
}

fn keys<'de, D: Deserializer<'de>>(deserializer: D) -> Result<OidcKeys, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.starts_with('/') {
        return Ok(OidcKeys::File(text.into()));
    }
    let error = || serde::de::Error::custom("keys is an https address or an absolute path");
    let url = Url::parse(&text).map_err(|_| error())?;
    match url.scheme() {
        "https" => Ok(OidcKeys::Url(url)),
        "file" => url.to_file_path().map(OidcKeys::File).map_err(|()| error()),
        _ => Err(error()),
    }
}

impl OidcConfig {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let value = |key, found: &str, wanted| {
            Err(ConfigError::Value {
                key,
                found: format!("`{found}`"),
                wanted,
            })
        };
        if self.keys == OidcKeys::Discovery && !self.issuer.starts_with("https://") {
            let wanted = "Without keys it is an https address, below which the keys are found";
            return value("identity.oidc.issuer", &self.issuer, wanted);
        }
        if self.issuer.is_empty() {
            return value("identity.oidc.issuer", "", "It is the iss of the tokens");
        }
        if self.audience.is_empty() || self.audience.iter().any(String::is_empty) {
            let wanted = "It is at least one audience";
            return value("identity.oidc.audience", "", wanted);
        }
        if self.algorithms.is_empty() {
            let wanted = "It is at least one of RS256, ES256 and EdDSA";
            return value("identity.oidc.algorithms", "", wanted);
        }
        Ok(())
    }
}
