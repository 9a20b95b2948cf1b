//! What opens the repository: always a file or an environment variable, never in the configuration itself.

use std::path::{Path, PathBuf};

use everpoint_repository::keys::{KEY_FILE_MAX_BYTES, Secret};
use serde::Deserialize;
use zeroize::Zeroizing;

/// Where the secret is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RepositorySecret {
    /// A key file, whose bytes are the secret.
    KeyFile(PathBuf),
    /// A file whose first line is the passphrase.
    PassphraseFile(PathBuf),
    /// An environment variable that holds the passphrase.
    PassphraseEnvironment(String),
}

/// The secret is not there.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Its file cannot be read.
    #[error("the secret in {} cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Its file is too large for one.
    #[error("{} is larger than {KEY_FILE_MAX_BYTES} bytes and hardly a secret", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// Its variable is not set, or its file is empty.
    #[error("{place} holds no passphrase")]
    Empty {
        /// Where it was to be.
        place: String,
    },
    /// The same of a connection string.
    #[error("{place} does not say how the server is reached. Write a connection string there")]
    NoConnection {
        /// Where it was to be.
        place: String,
    },
}

impl RepositorySecret {
    /// Reads it.
    ///
    /// # Errors
    /// See [`SecretError`].
    pub fn read(&self) -> Result<Secret, SecretError> {
        match self {
            Self::KeyFile(path) => Ok(Secret::KeyFile(bytes(path)?)),
            Self::PassphraseFile(path) => {
                let bytes = bytes(path)?;
                let text = Zeroizing::new(String::from_utf8_lossy(&bytes).into_owned());
                let line = text.lines().next().unwrap_or_default();
                passphrase(line, || path.display().to_string())
            }
            Self::PassphraseEnvironment(name) => {
                let text = Zeroizing::new(std::env::var(name).unwrap_or_default());
                passphrase(&text, || format!("the environment variable {name}"))
            }
        }
    }
}

/// A connection string, from the first line of a file or an environment variable.
pub(super) fn connection(
    file: Option<&Path>,
    environment: Option<&str>,
) -> Result<Option<Zeroizing<String>>, SecretError> {
    let (text, place) = match (file, environment) {
        (Some(path), _) => {
            let bytes = bytes(path)?;
            let text = Zeroizing::new(String::from_utf8_lossy(&bytes).into_owned());
            (text, path.display().to_string())
        }
        (None, Some(name)) => {
            let text = Zeroizing::new(std::env::var(name).unwrap_or_default());
            (text, format!("the environment variable {name}"))
        }
        (None, None) => return Ok(None),
    };
    match text.lines().next().map(str::trim) {
        Some(line) if !line.is_empty() => Ok(Some(Zeroizing::new(line.to_owned()))),
        _ => Err(SecretError::NoConnection { place }),
    }
}

fn passphrase(text: &str, place: impl FnOnce() -> String) -> Result<Secret, SecretError> {
    match text.is_empty() {
        true => Err(SecretError::Empty { place: place() }),
        false => Ok(Secret::Passphrase(Zeroizing::new(text.to_owned()))),
    }
}

fn bytes(path: &Path) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let path = path.to_owned();
    let read = || -> std::io::Result<Zeroizing<Vec<u8>>> {
        let mut bytes = Zeroizing::new(Vec::new());
        let limit = u64::try_from(KEY_FILE_MAX_BYTES).unwrap_or(u64::MAX);
        let file = std::fs::File::open(&path)?;
        std::io::Read::read_to_end(&mut std::io::Read::take(file, limit + 1), &mut bytes)?;
        Ok(bytes)
    };
    match read() {
        Ok(bytes) if bytes.len() > KEY_FILE_MAX_BYTES => Err(SecretError::TooLarge { path }),
        Ok(bytes) => Ok(bytes),
        Err(source) => Err(SecretError::Read { path, source }),
    }
}
