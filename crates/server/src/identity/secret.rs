//! Client secrets: 32 random bytes, of which argon2id hashes are kept.

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::{constant_time, rand};
use data_encoding::BASE64URL_NOPAD;
use zeroize::Zeroizing;

const SECRET_BYTES: usize = 32;
const SALT_BYTES: usize = 16;
const HASH_BYTES: usize = 32;
/// Memory, passes and lanes of a hash (OWASP's least for argon2id).
const COST: (u32, u32, u32) = (19 * 1024, 2, 1);
/// Longer ones are not looked at.
const MAX_SECRET_BYTES: usize = 256;

/// A secret in the clear, shown once.
pub struct ClientSecret(Zeroizing<String>);

impl ClientSecret {
    /// A new one. None when the system has no randomness.
    pub fn random() -> Option<Self> {
        let mut bytes = Zeroizing::new([0; SECRET_BYTES]);
        rand::fill(bytes.as_mut_slice()).ok()?;
        Some(Self(Zeroizing::new(
            BASE64URL_NOPAD.encode(bytes.as_slice()),
        )))
    }

    /// Its text.
    pub fn text(&self) -> &str {
        &self.0
    }
}

/// A hash as it is kept: `argon2id$salt$hash`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretHash(String);

impl SecretHash {
    /// Of a secret. None when the system has no randomness or memory.
    pub fn of(secret: &str) -> Option<Self> {
        let mut salt = [0; SALT_BYTES];
        rand::fill(&mut salt).ok()?;
        let hash = hash(secret, &salt)?;
        let (salt, hash) = (BASE64URL_NOPAD.encode(&salt), BASE64URL_NOPAD.encode(&hash));
        Some(Self(format!("argon2id${salt}${hash}")))
    }

    /// As it was kept.
    pub fn from_text(text: String) -> Self {
        Self(text)
    }

    /// As it is kept.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// Whether it is the secret's. Takes tens of milliseconds of a processor.
    pub fn matches(&self, secret: &str) -> bool {
        let mut parts = self.0.split('$');
        let (Some("argon2id"), Some(salt), Some(kept), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return false;
        };
        let decode = |text: &str| BASE64URL_NOPAD.decode(text.as_bytes()).ok();
        let (Some(salt), Some(kept)) = (decode(salt), decode(kept)) else {
            return false;
        };
        hash(secret, &salt)
            .is_some_and(|found| constant_time::verify_slices_are_equal(&found, &kept).is_ok())
    }
}

fn hash(secret: &str, salt: &[u8]) -> Option<[u8; HASH_BYTES]> {
    if secret.len() > MAX_SECRET_BYTES {
        return None;
    }
    let parameters = Params::new(COST.0, COST.1, COST.2, Some(HASH_BYTES)).ok()?;
    let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, parameters);
    let mut found = [0; HASH_BYTES];
    argon
        .hash_password_into(secret.as_bytes(), salt, &mut found)
        .ok()?;
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_matches_its_own_hash_alone() {
        let secret = ClientSecret::random().unwrap();
        let hash = SecretHash::of(secret.text()).unwrap();
        let kept = SecretHash::from_text(hash.text().to_owned());
        assert!(kept.matches(secret.text()));
        assert!(!kept.matches("") && !kept.matches(&"x".repeat(10_000)));
        assert!(!kept.matches(ClientSecret::random().unwrap().text()));
        assert_ne!(hash, SecretHash::of(secret.text()).unwrap(), "salted");
        assert!(!SecretHash::from_text("argon2id$$".to_owned()).matches(""));
        assert!(!hash.text().contains(secret.text()));
    }
}
