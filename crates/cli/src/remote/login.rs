//! Signing in to a service, and what is kept of it.
//!
//! Below `~/.config/everpoint/logins` (or `XDG_CONFIG_HOME`) each service has a file that its user alone can read:
//! a token, which is good for an hour, and where and as whom it was got. Secrets and passwords are not kept.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::Context;
use everpoint_api::{
    Resource,
    client::{Client, ClientError, Grant},
    discovery::{GroupProperties, Subscription},
    instance::InstanceProperties,
};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use url::Url;
use zeroize::Zeroizing;

use crate::{
    args::remote::Login,
    exit::{Exit, Refusal},
    repository::{ask, from_environment},
};

/// The largest file that is read, and the largest authority.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// A token is not used in its last moments.
const MARGIN: SignedDuration = SignedDuration::from_secs(30);

/// What is kept of a sign-in.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    server: String,
    who: String,
    authority: Option<String>,
    token: String,
    expires_at: Timestamp,
}

/// A service that somebody is signed in to.
pub struct Session {
    /// Who asks it.
    pub client: Client,
    /// The subscriptions that one may see something of.
    pub subscriptions: Vec<Subscription>,
    /// The resource groups in them; never none.
    pub groups: Vec<Resource<GroupProperties>>,
    /// The instances in those.
    pub instances: Vec<Resource<InstanceProperties>>,
}

/// Signs in.
pub async fn login(server: &Url, args: &Login) -> anyhow::Result<Exit> {
    let authority = args.ca.as_deref().map(small_file).transpose()?;
    let client = Client::new(server, authority.as_ref().map(|pem| pem.as_bytes()))?;
    let tenant = client.tenant().await?;
    let (who, answer) = match (&args.who.client_id, &args.who.user) {
        (Some(id), _) => {
            let secret = secret("EVERPOINT_CLIENT_SECRET", "Client secret: ")?;
            let grant = Grant::Client {
                id,
                secret: &secret,
            };
            (id, client.sign_in(&tenant, grant).await?)
        }
        (None, Some(name)) => {
            let password = secret("EVERPOINT_PASSWORD", "Password: ")?;
            let grant = Grant::User {
                name,
                password: &password,
            };
            (name, client.sign_in(&tenant, grant).await?)
        }
        (None, None) => {
            return Err(Refusal("as whom? Give --client-id or --user".to_owned()).into());
        }
    };
    let lifetime = i64::try_from(answer.expires_in).unwrap_or(0);
    let token = Zeroizing::new(answer.access_token);
    let client = client.with_token(token.clone());
    if client
        .list::<Subscription>("/subscriptions")
        .await?
        .is_empty()
    {
        let text = format!("`{who}` may sign in and may see nothing: no role is assigned to it");
        return Err(Refusal(text).into());
    }
    let kept = Kept {
        server: server.to_string(),
        who: who.clone(),
        authority,
        token: token.to_string(),
        expires_at: Timestamp::now() + SignedDuration::from_secs(lifetime),
    };
    let path = place(server)?;
    write(&path, &kept)?;
    eprintln!(
        "signed in to {server} as {who} until {}",
        crate::output::time(kept.expires_at)
    );
    Ok(Exit::Success)
}

/// Forgets a sign-in.
pub fn logout(server: &Url) -> anyhow::Result<Exit> {
    let path = place(server)?;
    match fs::remove_file(&path) {
        Ok(()) => Ok(Exit::Success),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Exit::Success),
        Err(error) => Err(error).with_context(|| format!("cannot remove {}", path.display())),
    }
}

/// The session that is kept of a sign-in.
pub async fn session(server: &Url) -> anyhow::Result<Session> {
    let again = |why: &str| {
        Refusal(format!(
            "{why}. Sign in with `everpoint login --server {server}`"
        ))
    };
    let path = place(server)?;
    let kept = match read(&path) {
        Ok(kept) => kept,
        Err(error) if is_missing(&error) => return Err(again("not signed in").into()),
        Err(error) => return Err(error),
    };
    if kept.server != server.as_str() {
        return Err(again("not signed in").into());
    }
    if kept.expires_at - MARGIN <= Timestamp::now() {
        return Err(again("the sign-in is over").into());
    }
    let client = Client::new(server, kept.authority.as_ref().map(|pem| pem.as_bytes()))?;
    let client = client.with_token(Zeroizing::new(kept.token));
    let subscriptions = client.list::<Subscription>("/subscriptions").await?;
    let (mut groups, mut instances) = (Vec::new(), Vec::new());
    for Subscription { id, .. } in &subscriptions {
        groups.extend(client.list(&format!("{id}/resourceGroups")).await?);
        let path = format!("{id}/providers/Microsoft.Sql/managedInstances");
        match client.list(&path).await {
            Ok(found) => instances.extend(found),
            // Whoever has rights on a single database may not ask.
            Err(ClientError::Failed(failed)) if failed.is_refusal() => {}
            Err(error) => return Err(error.into()),
        }
    }
    if groups.is_empty() {
        return Err(again("no role is assigned to you any more").into());
    }
    Ok(Session {
        client,
        subscriptions,
        groups,
        instances,
    })
}

fn is_missing(error: &anyhow::Error) -> bool {
    let found = error.downcast_ref::<std::io::Error>();
    found.is_some_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

fn secret(variable: &str, prompt: &str) -> anyhow::Result<Zeroizing<String>> {
    match from_environment(variable) {
        Some(text) => Ok(text),
        None => ask(prompt, &format!("Set {variable}")),
    }
}

fn place(server: &Url) -> anyhow::Result<PathBuf> {
    let directory = match (
        std::env::var_os("XDG_CONFIG_HOME"),
        std::env::var_os("HOME"),
    ) {
        (Some(home), _) if !home.is_empty() => PathBuf::from(home),
        (_, Some(home)) => Path::new(&home).join(".config"),
        (_, None) => return Err(Refusal("there is no HOME to keep a sign-in in".to_owned()).into()),
    };
    let host = server.host_str().unwrap_or_default();
    // A colon is none of a host's name, and an address in brackets is harmless in a file's.
    let name = format!(
        "{host}:{}.json",
        server.port_or_known_default().unwrap_or(443)
    );
    Ok(directory.join("everpoint/logins").join(name))
}

/// Writes the file anew under another name first, so that there is a whole one at any moment.
fn write(path: &Path, kept: &Kept) -> anyhow::Result<()> {
    let context = || format!("cannot write {}", path.display());
    let directory = path.parent().unwrap_or(Path::new("/"));
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .with_context(context)?;
    let text = Zeroizing::new(serde_json::to_vec_pretty(kept)?);
    let new = path.with_extension(format!("{}.new", std::process::id()));
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)
        .with_context(context)?;
    let written = file.write_all(&text).and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written.with_context(context)
}

/// Reads the file, unless others can.
fn read(path: &Path) -> anyhow::Result<Kept> {
    let file = File::open(path)?;
    let found = file.metadata()?;
    if found.permissions().mode() & 0o077 != 0 || found.uid() != rustix::process::geteuid().as_raw()
    {
        let text = format!(
            "{} can be read by others, so it is not used. Remove it, and sign in again",
            path.display()
        );
        return Err(Refusal(text).into());
    }
    let mut text = Zeroizing::new(String::new());
    file.take(MAX_FILE_BYTES).read_to_string(&mut text)?;
    serde_json::from_str(&text)
        .with_context(|| format!("{} cannot be read. Sign in again", path.display()))
}

fn small_file(path: &Path) -> anyhow::Result<String> {
    let context = || format!("cannot read {}", path.display());
    let mut text = String::new();
    let file = File::open(path).with_context(context)?;
    file.take(MAX_FILE_BYTES)
        .read_to_string(&mut text)
        .with_context(context)?;
    Ok(text)
}
