//! An issuer's keys.

use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse},
};
use serde::Deserialize;
use url::Url;

use super::fetch::{FetchError, Fetcher, read_file};
use crate::config::{OidcConfig, OidcKeys};

/// The most keys of a set that are looked at.
const MAX_KEYS: usize = 100;

/// A key that can verify.
#[derive(Clone)]
pub(super) struct Key {
    id: Option<String>,
    /// The only algorithm it is used with.
    pub(super) algorithm: Algorithm,
    pub(super) decoding: DecodingKey,
}

/// The keys that can be used.
#[derive(Default)]
pub(super) struct KeySet(Vec<Key>);

impl KeySet {
    /// Those of a JSON Web Key Set. Keys of other kinds, and secrets above all, are left out.
    pub(super) fn parse(text: &[u8], place: &str) -> Result<Self, FetchError> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<serde_json::Value>,
        }
        let set: Set = serde_json::from_slice(text).map_err(|_| FetchError::Content {
            place: place.to_owned(),
            what: "a JSON Web Key Set",
        })?;
        let keys = set.keys.into_iter().take(MAX_KEYS);
        let keys: Vec<Key> = keys
            .filter_map(|value| key(&serde_json::from_value(value).ok()?))
            .collect();
        match keys.is_empty() {
            true => Err(FetchError::Content {
                place: place.to_owned(),
                what: "a JSON Web Key Set with a key for RS256, ES256 or EdDSA",
            }),
            false => Ok(Self(keys)),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The key of a token. One without a key's name is taken if there is one key alone for its algorithm.
    pub(super) fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Option<Key> {
        let mut fitting = self.0.iter().filter(|key| key.algorithm == algorithm);
        match id {
            Some(id) => fitting.find(|key| key.id.as_deref() == Some(id)).cloned(),
            None => fitting.next().filter(|_| fitting.next().is_none()).cloned(),
        }
    }
}

fn key(jwk: &Jwk) -> Option<Key> {
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P256 => {
            Algorithm::ES256
        }
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
            Algorithm::EdDSA
        }
        _ => return None,
    };
    let common = &jwk.common;
    let named = common.key_algorithm;
    if named.is_some_and(|named| named.to_string().parse().ok() != Some(algorithm)) {
        return None;
    }
    let for_signatures = [None, Some(PublicKeyUse::Signature)];
    if !for_signatures.contains(&common.public_key_use) {
        return None;
    }
    Some(Key {
        id: common.key_id.clone(),
        algorithm,
        decoding: DecodingKey::from_jwk(jwk).ok()?,
    })
}

/// Gets the keys from where the configuration says.
pub(super) async fn load(config: &OidcConfig) -> Result<KeySet, FetchError> {
    match &config.keys {
        OidcKeys::File(path) => {
            let text = read_file(path)?;
            KeySet::parse(&text, &path.display().to_string())
        }
        OidcKeys::Url(url) => fetch(&Fetcher::new(config.ca_file.as_deref())?, url).await,
        OidcKeys::Discovery => {
            let fetcher = Fetcher::new(config.ca_file.as_deref())?;
            let url = discover(&fetcher, &config.issuer).await?;
            fetch(&fetcher, &url).await
        }
    }
}

async fn fetch(fetcher: &Fetcher, url: &Url) -> Result<KeySet, FetchError> {
    let text = fetcher.get(url).await?;
    KeySet::parse(&text, url.as_str())
}

/// Where the issuer's keys are (OpenID Connect Discovery 1.0, section 4).
async fn discover(fetcher: &Fetcher, issuer: &str) -> Result<Url, FetchError> {
    #[derive(Deserialize)]
    struct Found {
        issuer: String,
        jwks_uri: String,
    }
    let place = format!(
        "{}/.well-known/openid-configuration",
        issuer.trim_end_matches('/')
    );
    let content = |what| FetchError::Content {
        place: place.clone(),
        what,
    };
    let url = Url::parse(&place).map_err(|_| content("an address"))?;
    let text = fetcher.get(&url).await?;
    let found: Found = serde_json::from_slice(&text)
        .map_err(|_| content("an OpenID configuration with issuer and jwks_uri"))?;
    match found.issuer == issuer {
        true => Url::parse(&found.jwks_uri)
            .map_err(|_| content("a configuration with an address as jwks_uri")),
        false => Err(content(
            "the configuration of the issuer that is configured",
        )),
    }
}
