//! `everpoint init`.

use std::{
    fs::OpenOptions,
    io::{ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use anyhow::Context;
use everpoint_repository::{
    Repository,
    keys::{RecoveryKey, Secret},
    store::Missing,
};
use jiff::Timestamp;
use serde::Serialize;

use crate::{
    args::{Global, Init},
    exit::{Exit, Refusal},
    output, repository,
};

#[derive(Serialize)]
struct Made {
    repository: String,
    id: String,
    recovery_key: String,
}

pub async fn run(global: &Global, args: &Init) -> anyhow::Result<Exit> {
    if global.recovery_key {
        let text = "init makes a recovery key; --recovery-key opens a repository with it";
        return Err(Refusal(text.to_owned()).into());
    }
    let store = repository::store(global, Missing::Create)?;
    Repository::check_vacant(&store).await?;
    if let (true, Some(path)) = (args.generate_key_file, &global.key_file) {
        generate(path)?;
    }
    let secret = repository::new_secret(global)?;
    let recovery = Repository::new_recovery_key()?;
    let recovery_text = recovery.text();
    let secrets = [secret, Secret::Recovery(recovery)];
    let made = Repository::create(store, &secrets, Timestamp::now()).await?;
    let value = Made {
        repository: made.store().url().to_string(),
        id: made.id().to_string(),
        recovery_key: recovery_text.to_string(),
    };
    output::one(global.output, &value, || {
        format!(
            "made repository {}\n\n\
             Recovery key (shown this once; keep it where the repository is not):\n\n    {}\n\n\
             Whoever has it can read every backup; without it and without the {} nobody can.",
            value.repository,
            value.recovery_key,
            if global.key_file.is_some() {
                "key file"
            } else {
                "passphrase"
            },
        )
    })?;
    Ok(Exit::Success)
}

fn generate(path: &Path) -> anyhow::Result<()> {
    let key = RecoveryKey::random()?.text();
    let opened = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    let mut file = match opened {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let text = format!(
                "{} exists already and is never overwritten. Leave --generate-key-file out to use it",
                path.display()
            );
            return Err(Refusal(text).into());
        }
        opened => opened.with_context(|| format!("cannot make the key file {}", path.display()))?,
    };
    file.write_all(key.as_bytes())?;
    file.sync_all()?;
    Ok(())
}
