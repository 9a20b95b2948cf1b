//! Opening the repository that the command line names.

use std::{fs, io::Read, path::Path};

use anyhow::Context;
use everpoint_repository::{
    Repository, Store,
    keys::{KEY_FILE_MAX_BYTES, RecoveryKey, Secret},
    store::Missing,
};
use zeroize::Zeroizing;

use crate::{args::Global, exit::Refusal};

const PASSPHRASE: &str = "EVERPOINT_PASSPHRASE";
const RECOVERY_KEY: &str = "EVERPOINT_RECOVERY_KEY";
const SECRET_HINT: &str = "Give --key-file FILE or set EVERPOINT_PASSPHRASE";
const RECOVERY_HINT: &str = "Set EVERPOINT_RECOVERY_KEY";

/// The store at the address that was given.
pub fn store(global: &Global, missing: Missing) -> anyhow::Result<Store> {
    let address = global.repository.as_deref().ok_or_else(|| {
        Refusal("which repository? Give --repository URL or set EVERPOINT_REPOSITORY".to_owned())
    })?;
    Ok(Store::open(address, missing)?)
}

/// Opens the repository.
pub async fn open(global: &Global) -> anyhow::Result<Repository> {
    let store = store(global, Missing::Refuse)?;
    Ok(Repository::open(store, &secret(global)?).await?)
}

fn secret(global: &Global) -> anyhow::Result<Secret> {
    if global.recovery_key {
        let text = from_environment(RECOVERY_KEY)
            .map_or_else(|| ask("Recovery key: ", RECOVERY_HINT), Ok)?;
        return Ok(Secret::Recovery(RecoveryKey::parse(&text)?));
    }
    if let Some(path) = &global.key_file {
        return key_file(path);
    }
    let text = from_environment(PASSPHRASE).map_or_else(|| ask("Passphrase: ", SECRET_HINT), Ok)?;
    Ok(Secret::Passphrase(text))
}

/// The secret for a new repository: a passphrase that is asked for is asked for twice.
pub fn new_secret(global: &Global) -> anyhow::Result<Secret> {
    if let Some(path) = &global.key_file {
        return key_file(path);
    }
    if let Some(text) = from_environment(PASSPHRASE) {
        return Ok(Secret::Passphrase(text));
    }
    let text = ask("New passphrase (at least 12 characters): ", SECRET_HINT)?;
    if *ask("Once more: ", SECRET_HINT)? != *text {
        return Err(Refusal("the passphrases differ; nothing was written".to_owned()).into());
    }
    Ok(Secret::Passphrase(text))
}

/// A secret from the environment; an empty one is none.
pub fn from_environment(name: &str) -> Option<Zeroizing<String>> {
    std::env::var(name)
        .ok()
        .filter(|text| !text.is_empty())
        .map(Zeroizing::new)
}

/// Asks on the terminal; where there is none, `hint` says what else serves.
pub fn ask(prompt: &str, hint: &str) -> anyhow::Result<Zeroizing<String>> {
    let text = rpassword::prompt_password(prompt)
        .map_err(|_| Refusal(format!("there is no terminal to ask on. {hint}")))?;
    Ok(Zeroizing::new(text))
}

/// Reads a key file. Its bytes are the secret, so an editor's newline would be part of it.
fn key_file(path: &Path) -> anyhow::Result<Secret> {
    let file = fs::File::open(path)
        .with_context(|| format!("cannot open the key file {}", path.display()))?;
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(KEY_FILE_MAX_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("cannot read the key file {}", path.display()))?;
    if bytes.len() > KEY_FILE_MAX_BYTES {
        let text = format!(
            "{} is larger than {KEY_FILE_MAX_BYTES} bytes and hardly a key file",
            path.display()
        );
        return Err(Refusal(text).into());
    }
    Ok(Secret::KeyFile(bytes))
}
