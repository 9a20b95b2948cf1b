//! Keys: what opens a repository, and what seals an object.
//!
//! ```text
//! passphrase ── Argon2id ─┐
//! key file ──── HKDF ─────┼─ slot key ── opens ─► root key ── opens ─► data keys
//! recovery key ─ HKDF ────┘                                             │ HKDF(object id)
//!                                                                       ▼
//!                                                                  object key (AES-256-GCM)
//! ```
//!
//! A slot or a data key can be added at any time; nothing that is stored has to be written again.
//! Every object has a key of its own, derived from a data key and the object's random identifier, so
//! that counting nonces within it can never repeat one. Specified in `docs/format/keys.md`.

use std::{collections::BTreeMap, fmt};

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    hkdf::{HKDF_SHA256, KeyType, Salt},
    rand,
};
use data_encoding::{BASE32_NOPAD, HEXLOWER};
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::ids::ObjectId;

/// Bytes in every key.
pub const KEY_BYTES: usize = 32;
/// Bytes at the least in a key file; fewer are refused as guessable.
pub const KEY_FILE_MIN_BYTES: usize = 32;
/// Bytes at the most that are read of a key file.
pub const KEY_FILE_MAX_BYTES: usize = 64 << 10;
/// Characters at the least in a passphrase.
pub const PASSPHRASE_MIN_CHARACTERS: usize = 12;
/// Memory that Argon2id takes for a passphrase, in KiB, at the most that a reader grants a slot.
const ARGON2_MAX_MEMORY_KIB: u32 = 1 << 20;
const ARGON2_MEMORY_KIB: u32 = 64 << 10;
const ARGON2_PASSES: u32 = 3;

type Key = Zeroizing<[u8; KEY_BYTES]>;

/// What a person opens a repository with.
pub enum Secret {
    /// A passphrase.
    Passphrase(Zeroizing<String>),
    /// The contents of a key file.
    KeyFile(Zeroizing<Vec<u8>>),
    /// The recovery key that `init` printed.
    Recovery(RecoveryKey),
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Passphrase(_) => "Passphrase",
            Self::KeyFile(_) => "KeyFile",
            Self::Recovery(_) => "Recovery",
        })
    }
}

/// Keys could not be made, read or opened.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// None of the repository's slots opens with the secret given.
    #[error(
        "the {given} given opens none of the repository's {slots} key slots. Check that it belongs to this repository"
    )]
    Wrong {
        /// The kind of secret.
        given: &'static str,
        /// How many slots of that kind there are.
        slots: usize,
    },
    /// A secret is too weak to be used.
    #[error("the {what} is too short: it has {has}, at least {least} are needed")]
    Weak {
        /// The kind of secret.
        what: &'static str,
        /// Its length.
        has: usize,
        /// The least length.
        least: usize,
    },
    /// The text is no recovery key.
    #[error(
        "this is no recovery key: it has 11 groups of 5 letters and digits, and its last characters check the others. Look for a mistyped character"
    )]
    MalformedRecoveryKey,
    /// An object was sealed with a data key that the repository does not hold.
    #[error("data key {id} is missing from the repository")]
    UnknownDataKey {
        /// Which.
        id: ObjectId,
    },
    /// A key object was altered or belongs to another repository.
    #[error("key object `{name}` is damaged or belongs to another repository")]
    Damaged {
        /// Which.
        name: String,
    },
    /// The cryptographic library failed, which does not depend on the input.
    #[error("the cryptographic library failed to {0}")]
    Library(&'static str),
}

/// A recovery key: 32 random bytes, written as 11 groups of 5 characters.
pub struct RecoveryKey(Key);

impl RecoveryKey {
    /// A new random key.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn random() -> Result<Self, KeyError> {
        random_key().map(Self)
    }

    /// Reads what [`RecoveryKey::text`] printed; spaces, dashes and case do not matter.
    ///
    /// # Errors
    /// When characters are missing, impossible or mistyped.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let malformed = || KeyError::MalformedRecoveryKey;
        let plain: String = text
            .chars()
            .filter(|c| !c.is_whitespace() && *c != '-')
            .map(|c| c.to_ascii_uppercase())
            .collect();
        let bytes = Zeroizing::new(
            BASE32_NOPAD
                .decode(plain.as_bytes())
                .map_err(|_| malformed())?,
        );
        let (key, check) = bytes
            .split_first_chunk::<KEY_BYTES>()
            .ok_or_else(malformed)?;
        let key = Zeroizing::new(*key);
        if check != recovery_check(&key) {
            return Err(malformed());
        }
        Ok(Self(key))
    }

    /// The text a person keeps.
    pub fn text(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new(self.0.to_vec());
        bytes.extend_from_slice(&recovery_check(&self.0));
        let plain = Zeroizing::new(BASE32_NOPAD.encode(&bytes));
        let mut text = Zeroizing::new(String::new());
        for (index, character) in plain.chars().enumerate() {
            if index > 0 && index % 5 == 0 {
                text.push('-');
            }
            text.push(character);
        }
        text
    }
}

/// Two bytes that find a mistyped recovery key: with 32 bytes of key they fill 55 characters.
fn recovery_check(key: &[u8; KEY_BYTES]) -> [u8; 2] {
    let hash = blake3::derive_key("everpoint 2026 recovery key check", key);
    let [a, b, ..] = hash;
    [a, b]
}

/// A key slot as stored: the root key, sealed by one secret.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeySlot {
    /// How the slot key comes from the secret.
    pub derivation: Derivation,
    /// Salt, in hexadecimal.
    salt: String,
    /// The sealed root key, in hexadecimal.
    sealed: String,
}

/// How a slot key is derived from a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", deny_unknown_fields)]
pub enum Derivation {
    /// From a passphrase, by Argon2id version 0x13.
    Passphrase {
        /// Memory in KiB.
        memory_kib: u32,
        /// Passes over the memory.
        passes: u32,
    },
    /// From a key file, by HKDF-SHA-256.
    KeyFile,
    /// From a recovery key, by HKDF-SHA-256.
    Recovery,
}

/// A data key as stored: sealed by the root key.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedDataKey {
    /// Which data key.
    pub id: ObjectId,
    /// The sealed key, in hexadecimal.
    sealed: String,
}

/// The key that opens the data keys.
pub struct RootKey {
    repository: Uuid,
    key: Key,
}

impl RootKey {
    /// A new random root key for a repository.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn random(repository: Uuid) -> Result<Self, KeyError> {
        Ok(Self {
            repository,
            key: random_key()?,
        })
    }

    /// Opens the root key with the first slot that the secret fits.
    ///
    /// # Errors
    /// [`KeyError::Wrong`] when it fits none.
    pub fn open<'a>(
        repository: Uuid,
        slots: impl IntoIterator<Item = &'a KeySlot>,
        secret: &Secret,
    ) -> Result<Self, KeyError> {
        let mut tried = 0;
        for slot in slots {
            let Ok(Some(slot_key)) = slot_key(&slot.derivation, &slot.salt, secret) else {
                continue;
            };
            tried += 1;
            let context = slot_context(repository);
            if let Some(key) = unseal_key(&slot_key, &context, &slot.sealed) {
                return Ok(Self { repository, key });
            }
        }
        let given = match secret {
            Secret::Passphrase(_) => "passphrase",
            Secret::KeyFile(_) => "key file",
            Secret::Recovery(_) => "recovery key",
        };
        Err(KeyError::Wrong {
            given,
            slots: tried,
        })
    }

    /// Seals the root key for a secret.
    ///
    /// # Errors
    /// [`KeyError::Weak`] when the secret is too short.
    pub fn slot(&self, secret: &Secret) -> Result<KeySlot, KeyError> {
        check_strength(secret)?;
        let derivation = match secret {
            Secret::Passphrase(_) => Derivation::Passphrase {
                memory_kib: ARGON2_MEMORY_KIB,
                passes: ARGON2_PASSES,
            },
            Secret::KeyFile(_) => Derivation::KeyFile,
            Secret::Recovery(_) => Derivation::Recovery,
        };
        let salt = HEXLOWER.encode(&*random_key()?);
        let slot_key =
            slot_key(&derivation, &salt, secret)?.ok_or(KeyError::Library("derive a key"))?;
        let sealed = seal_key(&slot_key, &slot_context(self.repository), &self.key)?;
        Ok(KeySlot {
            derivation,
            salt,
            sealed,
        })
    }

    /// Makes a new data key.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn new_data_key(&self) -> Result<SealedDataKey, KeyError> {
        let id = ObjectId::random();
        let key = random_key()?;
        let sealed = seal_key(&self.key, &data_key_context(self.repository, id), &key)?;
        Ok(SealedDataKey { id, sealed })
    }

    /// Opens the data keys. The last one seals new objects.
    ///
    /// # Errors
    /// [`KeyError::Damaged`] when one cannot be opened.
    pub fn ring(&self, data_keys: &[SealedDataKey]) -> Result<KeyRing, KeyError> {
        let mut keys = BTreeMap::new();
        for sealed in data_keys {
            let context = data_key_context(self.repository, sealed.id);
            let key = unseal_key(&self.key, &context, &sealed.sealed).ok_or_else(|| {
                KeyError::Damaged {
                    name: format!("data key {}", sealed.id),
                }
            })?;
            keys.insert(sealed.id, key);
        }
        let current = data_keys
            .last()
            .ok_or_else(|| KeyError::Damaged {
                name: "data keys (there are none)".into(),
            })?
            .id;
        Ok(KeyRing {
            repository: self.repository,
            keys,
            current,
        })
    }
}

/// The opened data keys of a repository.
pub struct KeyRing {
    repository: Uuid,
    keys: BTreeMap<ObjectId, Key>,
    current: ObjectId,
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRing")
            .field("current", &self.current)
            .finish_non_exhaustive()
    }
}

impl KeyRing {
    /// The data key that seals new objects.
    pub fn current(&self) -> ObjectId {
        self.current
    }

    /// The key of one object.
    ///
    /// # Errors
    /// When the data key is not in the repository.
    pub fn object_key(&self, data_key: ObjectId, object: ObjectId) -> Result<ObjectKey, KeyError> {
        let key = self
            .keys
            .get(&data_key)
            .ok_or(KeyError::UnknownDataKey { id: data_key })?;
        let derived = derive(
            object.as_bytes(),
            &**key,
            &[b"everpoint object v1", self.repository.as_bytes()],
        )?;
        Ok(ObjectKey {
            key: cipher(&derived)?,
        })
    }
}

/// The key that seals the frames of one object. The nonce of a frame is its ordinal.
pub struct ObjectKey {
    key: LessSafeKey,
}

/// Bytes that sealing adds to a frame.
pub const TAG_BYTES: usize = 16;

impl ObjectKey {
    /// Seals `bytes` in place and returns the tag to store behind them. An ordinal must be used once.
    ///
    /// # Errors
    /// When the cryptographic library fails.
    pub fn seal(
        &self,
        ordinal: u32,
        context: &[u8],
        bytes: &mut [u8],
    ) -> Result<[u8; TAG_BYTES], KeyError> {
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce(ordinal), Aad::from(context), bytes)
            .map_err(|_| KeyError::Library("seal a frame"))?;
        tag.as_ref()
            .try_into()
            .map_err(|_| KeyError::Library("make a tag"))
    }

    /// Opens sealed bytes with their tag behind them, in place; `None` when they are not authentic.
    pub fn open<'a>(
        &self,
        ordinal: u32,
        context: &[u8],
        sealed: &'a mut [u8],
    ) -> Option<&'a mut [u8]> {
        self.key
            .open_in_place(nonce(ordinal), Aad::from(context), sealed)
            .ok()
    }
}

fn nonce(ordinal: u32) -> Nonce {
    let [a, b, c, d] = ordinal.to_le_bytes();
    Nonce::assume_unique_for_key([a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0])
}

fn check_strength(secret: &Secret) -> Result<(), KeyError> {
    let (what, has, least) = match secret {
        Secret::Passphrase(text) => (
            "passphrase",
            text.chars().count(),
            PASSPHRASE_MIN_CHARACTERS,
        ),
        Secret::KeyFile(bytes) => ("key file", bytes.len(), KEY_FILE_MIN_BYTES),
        Secret::Recovery(_) => return Ok(()),
    };
    if has < least {
        Err(KeyError::Weak { what, has, least })
    } else {
        Ok(())
    }
}

/// The slot key for a secret; `None` when the slot is for another kind of secret.
fn slot_key(derivation: &Derivation, salt: &str, secret: &Secret) -> Result<Option<Key>, KeyError> {
    let damaged = || KeyError::Damaged {
        name: "key slot".into(),
    };
    let salt = HEXLOWER.decode(salt.as_bytes()).map_err(|_| damaged())?;
    let key = match (derivation, secret) {
        (Derivation::Passphrase { memory_kib, passes }, Secret::Passphrase(text)) => {
            if *memory_kib > ARGON2_MAX_MEMORY_KIB || *passes > 100 {
                return Err(damaged());
            }
            let params =
                Params::new(*memory_kib, *passes, 1, Some(KEY_BYTES)).map_err(|_| damaged())?;
            let mut key = Zeroizing::new([0; KEY_BYTES]);
            Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
                .hash_password_into(text.as_bytes(), &salt, &mut *key)
                .map_err(|_| KeyError::Library("derive a key from a passphrase"))?;
            key
        }
        (Derivation::KeyFile, Secret::KeyFile(bytes)) => {
            derive(&salt, bytes, &[b"everpoint key file v1"])?
        }
        (Derivation::Recovery, Secret::Recovery(key)) => {
            derive(&salt, &*key.0, &[b"everpoint recovery key v1"])?
        }
        _ => return Ok(None),
    };
    Ok(Some(key))
}

fn slot_context(repository: Uuid) -> Vec<u8> {
    [b"everpoint key slot v1".as_slice(), repository.as_bytes()].concat()
}

fn data_key_context(repository: Uuid, id: ObjectId) -> Vec<u8> {
    [
        b"everpoint data key v1".as_slice(),
        repository.as_bytes(),
        id.as_bytes(),
    ]
    .concat()
}

struct KeyLength;

impl KeyType for KeyLength {
    fn len(&self) -> usize {
        KEY_BYTES
    }
}

fn derive(salt: &[u8], secret: &[u8], info: &[&[u8]]) -> Result<Key, KeyError> {
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    Salt::new(HKDF_SHA256, salt)
        .extract(secret)
        .expand(info, KeyLength)
        .and_then(|okm| okm.fill(&mut *key))
        .map_err(|_| KeyError::Library("derive a key"))?;
    Ok(key)
}

fn cipher(key: &Key) -> Result<LessSafeKey, KeyError> {
    UnboundKey::new(&AES_256_GCM, &**key)
        .map(LessSafeKey::new)
        .map_err(|_| KeyError::Library("set up the cipher"))
}

/// Seals a key under another: a random nonce, the ciphertext and the tag, in hexadecimal.
fn seal_key(under: &Key, context: &[u8], key: &Key) -> Result<String, KeyError> {
    let mut nonce = [0; 12];
    rand::fill(&mut nonce).map_err(|_| KeyError::Library("get random bytes"))?;
    let mut sealed = key.to_vec();
    cipher(under)?
        .seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(context),
            &mut sealed,
        )
        .map_err(|_| KeyError::Library("seal a key"))?;
    Ok(HEXLOWER.encode(&[nonce.as_slice(), &sealed].concat()))
}

fn unseal_key(under: &Key, context: &[u8], sealed: &str) -> Option<Key> {
    let bytes = HEXLOWER.decode(sealed.as_bytes()).ok()?;
    let (nonce, sealed) = bytes.split_first_chunk::<12>()?;
    let mut sealed = Zeroizing::new(sealed.to_vec());
    let opened = cipher(under)
        .ok()?
        .open_in_place(
            Nonce::assume_unique_for_key(*nonce),
            Aad::from(context),
            &mut sealed,
        )
        .ok()?;
    Some(Zeroizing::new(<[u8; KEY_BYTES]>::try_from(&*opened).ok()?))
}

fn random_key() -> Result<Key, KeyError> {
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    rand::fill(&mut *key).map_err(|_| KeyError::Library("get random bytes"))?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passphrase(text: &str) -> Secret {
        Secret::Passphrase(Zeroizing::new(text.to_owned()))
    }

    #[test]
    fn every_kind_of_secret_opens_its_own_slot_and_no_other() {
        let repository = Uuid::new_v4();
        let root = RootKey::random(repository).unwrap();
        let recovery = RecoveryKey::random().unwrap();
        let text = recovery.text();
        let key_file = || Secret::KeyFile(Zeroizing::new(vec![7; 32]));
        let slots = [
            root.slot(&passphrase("correct horse battery")).unwrap(),
            root.slot(&key_file()).unwrap(),
            root.slot(&Secret::Recovery(recovery)).unwrap(),
        ];
        let recovery = Secret::Recovery(RecoveryKey::parse(&text.to_lowercase()).unwrap());
        for secret in [passphrase("correct horse battery"), key_file(), recovery] {
            let opened = RootKey::open(repository, &slots, &secret).unwrap();
            assert_eq!(*opened.key, *root.key);
            assert!(RootKey::open(Uuid::new_v4(), &slots, &secret).is_err());
        }
        let wrong = RootKey::open(repository, &slots, &passphrase("incorrect horse battery"));
        assert!(matches!(wrong, Err(KeyError::Wrong { slots: 1, .. })));
    }

    #[test]
    fn weak_secrets_and_mistyped_recovery_keys_are_refused() {
        let root = RootKey::random(Uuid::new_v4()).unwrap();
        assert!(matches!(
            root.slot(&passphrase("short")),
            Err(KeyError::Weak { .. })
        ));
        let short = Secret::KeyFile(Zeroizing::new(vec![1; 31]));
        assert!(matches!(root.slot(&short), Err(KeyError::Weak { .. })));
        let text = RecoveryKey::random().unwrap().text();
        assert_eq!(text.len(), 55 + 10);
        let first = if text.starts_with('A') { "B" } else { "A" };
        let mistyped = format!("{first}{}", &text[1..]);
        assert!(RecoveryKey::parse(&mistyped).is_err());
        assert!(RecoveryKey::parse("").is_err());
    }

    #[test]
    fn a_frame_opens_only_in_its_own_place() {
        let root = RootKey::random(Uuid::new_v4()).unwrap();
        let ring = root.ring(&[root.new_data_key().unwrap()]).unwrap();
        let object = ObjectId::random();
        let key = ring.object_key(ring.current(), object).unwrap();
        let mut sealed = b"page".to_vec();
        let tag = key.seal(3, b"context", &mut sealed).unwrap();
        sealed.extend_from_slice(&tag);
        assert!(key.open(4, b"context", &mut sealed.clone()).is_none());
        assert!(key.open(3, b"other", &mut sealed.clone()).is_none());
        let other = ring.object_key(ring.current(), ObjectId::random()).unwrap();
        assert!(other.open(3, b"context", &mut sealed.clone()).is_none());
        assert_eq!(key.open(3, b"context", &mut sealed).unwrap(), b"page");
    }
}
