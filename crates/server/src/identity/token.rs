//! Access tokens: JSON Web Tokens (RFC 7519), signed with ECDSA on P-256 (ES256).

use std::time::Duration;

use aws_lc_rs::{
    encoding::AsDer,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use data_encoding::{BASE64, BASE64URL_NOPAD};
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::access::PrincipalId;

/// How long a token is valid.
pub const TOKEN_LIFETIME: Duration = Duration::from_secs(3600);

/// Signs tokens, and knows its own again.
pub struct Signer {
    encoding: EncodingKey,
    decoding: DecodingKey,
    key_id: String,
    x: String,
    y: String,
    issuer: String,
    tenant: Uuid,
    validation: Validation,
}

/// The key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SignerError {
    /// It is no such key.
    #[error("the catalog's signing key is damaged")]
    Key,
    /// The library refuses.
    #[error("a token cannot be signed")]
    Sign(#[from] jsonwebtoken::errors::Error),
}

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: String,
    oid: String,
    appid: String,
    tid: String,
    iat: i64,
    nbf: i64,
    exp: i64,
    ver: String,
}

impl Signer {
    /// A new key, as text to keep. None when the system has no randomness.
    pub fn new_key() -> Option<String> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).ok()?;
        let key = pair.to_pkcs8v1().ok()?;
        Some(BASE64.encode(key.as_ref()))
    }

    /// From a kept key. Tokens are of `tenant` and for the service at `base_url`.
    ///
    /// # Errors
    /// When it is no such key.
    pub fn new(kept: &str, tenant: Uuid, base_url: &str) -> Result<Self, SignerError> {
        let der = BASE64
            .decode(kept.as_bytes())
            .map_err(|_| SignerError::Key)?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der)
            .map_err(|_| SignerError::Key)?;
        // The uncompressed point: 4, x, y.
        let point = pair.public_key().as_ref().get(1..).unwrap_or_default();
        let (Some(x), Some(y), 64) = (point.get(..32), point.get(32..), point.len()) else {
            return Err(SignerError::Key);
        };
        let (x, y) = (BASE64URL_NOPAD.encode(x), BASE64URL_NOPAD.encode(y));
        let public = pair.public_key().as_der().map_err(|_| SignerError::Key)?;
        let key_id = blake3::hash(public.as_ref())
            .to_hex()
            .chars()
            .take(32)
            .collect();
        let issuer = format!("{base_url}/{tenant}/v2.0");
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_issuer(&[&issuer]);
        // Clients make the audience from the scope they ask for; the command line leaves two slashes.
        validation.set_audience(&[base_url, &format!("{base_url}/")]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub", "nbf"]);
        validation.validate_nbf = true;
        validation.leeway = 5;
        Ok(Self {
            encoding: EncodingKey::from_ec_der(&der),
            decoding: DecodingKey::from_ec_components(&x, &y)?,
            key_id,
            x,
            y,
            issuer,
            tenant,
            validation,
        })
    }

    /// A token for a principal that signed in with `client_id` at `now`, for the audience it asked for.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn sign(
        &self,
        principal: PrincipalId,
        client_id: Uuid,
        audience: &str,
        now: Timestamp,
    ) -> Result<String, SignerError> {
        let lifetime_s = i64::try_from(TOKEN_LIFETIME.as_secs()).unwrap_or(0);
        let claims = Claims {
            iss: self.issuer.clone(),
            aud: audience.to_owned(),
            sub: principal.to_string(),
            oid: principal.to_string(),
            appid: client_id.to_string(),
            tid: self.tenant.to_string(),
            iat: now.as_second(),
            nbf: now.as_second(),
            exp: now.as_second() + lifetime_s,
            ver: "2.0".to_owned(),
        };
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(self.key_id.clone());
        Ok(jsonwebtoken::encode(&header, &claims, &self.encoding)?)
    }

    /// Whose token it is, if it is one of ours and valid now.
    pub fn principal(&self, token: &str) -> Option<PrincipalId> {
        let data = jsonwebtoken::decode::<Claims>(token, &self.decoding, &self.validation).ok()?;
        Uuid::try_parse(&data.claims.oid).ok()
    }

    /// Whether tokens for this audience are given.
    pub fn serves(&self, audience: &str) -> bool {
        self.validation
            .aud
            .as_ref()
            .is_some_and(|all| all.contains(audience))
    }

    /// Who gives the tokens.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The public key, as a JSON Web Key set (RFC 7517).
    pub fn key_set(&self) -> serde_json::Value {
        serde_json::json!({"keys": [{
            "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig",
            "kid": self.key_id, "x": self.x, "y": self.y,
        }]})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "https://localhost:8443";

    fn signer() -> Signer {
        Signer::new(&Signer::new_key().unwrap(), Uuid::from_u128(1), BASE).unwrap()
    }

    #[test]
    fn only_own_tokens_that_are_valid_now_are_known_again() {
        let signer = signer();
        let (who, now) = (Uuid::from_u128(7), Timestamp::now());
        let sign = |audience: &str, at| signer.sign(who, Uuid::nil(), audience, at).unwrap();
        let good = sign(BASE, now);
        assert_eq!(signer.principal(&good), Some(who));
        assert_eq!(signer.principal(&sign(&format!("{BASE}/"), now)), Some(who));
        assert_eq!(signer.principal(&sign("https://elsewhere", now)), None);
        let hours = jiff::SignedDuration::from_hours(2);
        assert_eq!(signer.principal(&sign(BASE, now - hours)), None, "too old");
        assert_eq!(signer.principal(&sign(BASE, now + hours)), None, "not yet");
        assert_eq!(super::tests::signer().principal(&good), None, "another key");
        let mut parts: Vec<&str> = good.split('.').collect();
        let unsigned = BASE64URL_NOPAD.encode(br#"{"alg":"none","typ":"JWT"}"#);
        parts[0] = &unsigned;
        assert_eq!(signer.principal(&parts.join(".")), None);
        parts[2] = "";
        assert_eq!(signer.principal(&parts.join(".")), None);
        for text in ["", ".", "..", "a.b.c"] {
            assert_eq!(signer.principal(text), None);
        }
    }

    #[test]
    fn a_kept_key_is_the_same_key_and_damaged_ones_are_refused() {
        let key = Signer::new_key().unwrap();
        let one = Signer::new(&key, Uuid::from_u128(1), BASE).unwrap();
        let two = Signer::new(&key, Uuid::from_u128(1), BASE).unwrap();
        let token = one
            .sign(Uuid::nil(), Uuid::nil(), BASE, Timestamp::now())
            .unwrap();
        assert!(two.principal(&token).is_some());
        assert_eq!(one.key_set(), two.key_set());
        assert!(Signer::new("AAAA", Uuid::nil(), BASE).is_err());
    }
}
