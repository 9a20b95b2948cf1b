//! Tokens of another issuer (OpenID Connect Core 1.0), known by its key set (RFC 7517).
//!
//! A token holds when one of the issuer's keys signed it, with an algorithm that is allowed and that is the key's
//! own, for this service's audience, and it is valid now. Nothing of the token chooses the key's place: headers such
//! as `jku` and `jwk` are not looked at.

mod fetch;
mod key_set;

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use jsonwebtoken::{DecodingKey, Validation};
use tokio::time::Instant;
use uuid::Uuid;

pub use fetch::FetchError;
use key_set::{Key, KeySet};

use crate::{
    access::PrincipalId,
    config::{Claim, OidcConfig},
};

/// How long a key set is used without asking for a newer one.
const FRESH: Duration = Duration::from_secs(3600);
/// How long it is used when the issuer does not answer: a key that was withdrawn must not hold for ever.
const USABLE: Duration = Duration::from_secs(24 * 3600);
/// The least time between two requests to the issuer, whatever tokens come.
const PAUSE: Duration = Duration::from_secs(10);
/// How far clocks may be apart, in seconds.
const LEEWAY_S: u64 = 60;
/// Longer tokens are not looked at.
const MAX_TOKEN_BYTES: usize = 16 << 10;

/// Who another issuer says that somebody is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct External {
    /// The principal's object id: the claim's value where that is a UUID, else one that follows from issuer and
    /// value.
    pub id: PrincipalId,
    /// The claim's value.
    pub value: String,
}

/// Another issuer.
pub struct Issuer {
    config: OidcConfig,
    keys: RwLock<Held>,
    /// One request to the issuer at a time. When the last one was made.
    asking: tokio::sync::Mutex<Option<Instant>>,
    pause: Duration,
}

#[derive(Default)]
struct Held {
    keys: Arc<KeySet>,
    since: Option<Instant>,
}

impl Issuer {
    /// By its configuration. It is asked for its keys when the first token comes.
    pub fn new(config: OidcConfig) -> Self {
        Self {
            config,
            keys: RwLock::default(),
            asking: tokio::sync::Mutex::default(),
            pause: PAUSE,
        }
    }

    /// Its configuration.
    pub fn config(&self) -> &OidcConfig {
        &self.config
    }

    /// Asks for the keys now. Returns how many of them can be used.
    ///
    /// # Errors
    /// When the issuer does not answer, or answers something else.
    pub async fn ask(&self) -> Result<usize, FetchError> {
        let keys = key_set::load(&self.config).await?;
        let count = keys.len();
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Held {
            keys: Arc::new(keys),
            since: Some(Instant::now()),
        };
        Ok(count)
    }

    /// Whose token it is, if it is one of the issuer's and valid now.
    pub async fn external(&self, token: &str) -> Option<External> {
        if token.len() > MAX_TOKEN_BYTES {
            return None;
        }
        let header = jsonwebtoken::decode_header(token).ok()?;
        if header.crit.is_some() || !self.config.algorithms.iter().any(|a| a.is(header.alg)) {
            return None;
        }
        let find = |keys: &KeySet| keys.find(header.kid.as_deref(), header.alg);
        let (keys, age) = self.held();
        let known = find(&keys).filter(|_| age < USABLE);
        let key = match known {
            Some(key) if age < FRESH => key,
            known => {
                self.refresh(&keys).await;
                let (keys, age) = self.held();
                find(&keys).filter(|_| age < USABLE).or(known)?
            }
        };
        let claims = self.claims(token, &key)?;
        let value = claims.get(self.config.claim.name())?.as_str()?;
        let value = Some(value).filter(|text| !text.is_empty() && text.len() <= 255)?;
        Some(external(&self.config.issuer, value))
    }

    fn held(&self) -> (Arc<KeySet>, Duration) {
        let held = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let age = held.since.map_or(Duration::MAX, |since| since.elapsed());
        (held.keys.clone(), age)
    }

    /// Asks the issuer anew, unless that was done a moment ago, or while this waited.
    async fn refresh(&self, before: &Arc<KeySet>) {
        let mut last = self.asking.lock().await;
        let meanwhile = !Arc::ptr_eq(before, &self.held().0);
        if meanwhile || last.is_some_and(|last| last.elapsed() < self.pause) {
            return;
        }
        *last = Some(Instant::now());
        if let Err(error) = self.ask().await {
            let issuer = &self.config.issuer;
            tracing::warn!(%issuer, error = %crate::chain(&error), "no keys from the issuer");
        }
    }

    fn claims(&self, token: &str, key: &Key) -> Option<serde_json::Map<String, serde_json::Value>> {
        let mut validation = Validation::new(key.algorithm);
        validation.set_issuer(&[&self.config.issuer]);
        validation.set_audience(&self.config.audience);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        validation.validate_nbf = true;
        validation.leeway = LEEWAY_S;
        let decoding: &DecodingKey = &key.decoding;
        jsonwebtoken::decode(token, decoding, &validation)
            .ok()
            .map(|data| data.claims)
    }
}

/// The principal that a value of an issuer's claim means.
pub fn external(issuer: &str, value: &str) -> External {
    let id = Uuid::try_parse(value).unwrap_or_else(|_| {
        let mut hasher = blake3::Hasher::new_derive_key("everpoint external principal v1");
        hasher.update(issuer.as_bytes());
        hasher.update(&[0]);
        hasher.update(value.as_bytes());
        let mut bytes = [0; 16];
        hasher.finalize_xof().fill(&mut bytes);
        uuid::Builder::from_custom_bytes(bytes).into_uuid()
    });
    External {
        id,
        value: value.to_owned(),
    }
}

impl Claim {
    /// The claim's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Oid => "oid",
            Self::Sub => "sub",
        }
    }
}

#[cfg(test)]
mod tests;
