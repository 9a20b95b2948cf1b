//! `everpoint user` and `everpoint service-principal`: on the catalog itself, whether or not the service runs.

use everpoint_server::{
    access::Role,
    catalog::{PrincipalKind, PrincipalRow},
    service::{Directory, DirectoryError, Grant, SignIn},
};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use zeroize::Zeroizing;

use super::service::read;
use crate::{
    args::{
        Global,
        principals::{Place, ServicePrincipalCommand, UserCommand},
        service::ServiceConfig,
    },
    exit::{Exit, Refusal},
    output,
};

/// Where a user's password may come from.
const PASSWORD: &str = "EVERPOINT_USER_PASSWORD";

fn grant(role: Option<&'static Role>, scope: &Option<Place>) -> Option<Grant<'static>> {
    let scope = scope.as_ref().map(|Place(scope)| scope.clone());
    role.map(|role| Grant { role, scope })
}

pub async fn user(global: &Global, command: &UserCommand) -> anyhow::Result<Exit> {
    let kind = PrincipalKind::User;
    match command {
        UserCommand::Add(args) => {
            let directory = open(&args.config).await?;
            let password;
            let sign_in = match &args.external {
                Some(value) => SignIn::External(value),
                None => {
                    password = new_password()?;
                    SignIn::Password(&password)
                }
            };
            let row = directory
                .add_user(&args.name, sign_in, grant(args.role, &args.scope))
                .await;
            let row = row.map_err(refused)?;
            println!("added user {} with object id {}", row.name, row.id);
        }
        UserCommand::List(config) => list(global, config, kind).await?,
        UserCommand::Password(args) => {
            let directory = open(&args.config).await?;
            let password = new_password()?;
            let set = directory.set_password(&args.name, &password).await;
            set.map_err(refused)?;
            println!(
                "{} has another password; tokens that were given out hold for up to an hour",
                args.name
            );
        }
        UserCommand::Disable(args) => disable(&args.config, kind, &args.name).await?,
        UserCommand::Enable(args) => enable(&args.config, kind, &args.name).await?,
        UserCommand::Remove(args) => remove(&args.config, kind, &args.name).await?,
    }
    Ok(Exit::Success)
}

pub async fn service_principal(
    global: &Global,
    command: &ServicePrincipalCommand,
) -> anyhow::Result<Exit> {
    let kind = PrincipalKind::ServicePrincipal;
    match command {
        ServicePrincipalCommand::Add(args) => {
            let directory = open(&args.config).await?;
            let expires = expiry(args.expires_in_days)?;
            let added = directory
                .add_program(&args.name, grant(args.role, &args.scope), expires)
                .await;
            let (row, secret) = added.map_err(refused)?;
            let made = Made {
                object_id: Some(row.id.to_string()),
                client_id: Some(row.client_id.to_string()),
                secret_name: row.secrets.iter().map(|s| s.id.to_string()).collect(),
                secret: secret.text(),
                expires_at: expires,
            };
            show(global, &made)?;
        }
        ServicePrincipalCommand::List(config) => list(global, config, kind).await?,
        ServicePrincipalCommand::AddSecret(args) => {
            let directory = open(&args.config).await?;
            let expires = expiry(args.expires_in_days)?;
            let added = directory.add_secret(&args.name, expires).await;
            let (id, secret) = added.map_err(refused)?;
            let made = Made {
                object_id: None,
                client_id: None,
                secret_name: id.to_string(),
                secret: secret.text(),
                expires_at: expires,
            };
            show(global, &made)?;
        }
        ServicePrincipalCommand::RemoveSecret(args) => {
            let directory = open(&args.config).await?;
            let removed = directory.remove_secret(&args.name, args.secret).await;
            removed.map_err(refused)?;
            println!(
                "secret {} of {} is of no use any more",
                args.secret, args.name
            );
        }
        ServicePrincipalCommand::Disable(args) => disable(&args.config, kind, &args.name).await?,
        ServicePrincipalCommand::Enable(args) => enable(&args.config, kind, &args.name).await?,
        ServicePrincipalCommand::Delete(args) => remove(&args.config, kind, &args.name).await?,
    }
    Ok(Exit::Success)
}

async fn open(config: &ServiceConfig) -> anyhow::Result<Directory> {
    let config = read(config)?;
    Directory::open(&config).await.map_err(refused)
}

async fn disable(config: &ServiceConfig, kind: PrincipalKind, name: &str) -> anyhow::Result<()> {
    let done = open(config).await?.disable(kind, name).await;
    done.map_err(refused)?;
    println!("{name} is let in no more");
    Ok(())
}

async fn enable(config: &ServiceConfig, kind: PrincipalKind, name: &str) -> anyhow::Result<()> {
    let done = open(config).await?.enable(kind, name).await;
    done.map_err(refused)?;
    println!("{name} is let in again");
    Ok(())
}

async fn remove(config: &ServiceConfig, kind: PrincipalKind, name: &str) -> anyhow::Result<()> {
    let done = open(config).await?.remove(kind, name).await;
    done.map_err(refused)?;
    println!("{name} is removed, with all assignments");
    Ok(())
}

/// What of a principal is shown: of secrets their names alone.
#[derive(Serialize)]
struct Shown {
    name: String,
    object_id: String,
    client_id: String,
    state: &'static str,
    external: Option<String>,
    secrets: Vec<ShownSecret>,
}

#[derive(Serialize)]
struct ShownSecret {
    name: String,
    created_at: Timestamp,
    expires_at: Option<Timestamp>,
}

impl From<PrincipalRow> for Shown {
    fn from(row: PrincipalRow) -> Self {
        let state = match row.is_enabled() {
            true => "enabled",
            false => "disabled",
        };
        let secrets = row.secrets.into_iter().map(|secret| ShownSecret {
            name: secret.id.to_string(),
            created_at: secret.created_at,
            expires_at: secret.expires_at,
        });
        Self {
            name: row.name,
            object_id: row.id.to_string(),
            client_id: row.client_id.to_string(),
            state,
            external: row.external,
            secrets: secrets.collect(),
        }
    }
}

async fn list(global: &Global, config: &ServiceConfig, kind: PrincipalKind) -> anyhow::Result<()> {
    let rows = open(config).await?.list(kind).await.map_err(refused)?;
    let shown: Vec<Shown> = rows.into_iter().map(Shown::from).collect();
    let header = ["NAME", "OBJECT ID", "CLIENT ID", "STATE", "SIGNS IN WITH"];
    let cells = |row: &Shown| {
        let secrets = row.secrets.iter().map(|secret| match secret.expires_at {
            None => secret.name.clone(),
            Some(end) => format!("{} until {end}", secret.name),
        });
        let with = match (&row.external, kind) {
            (Some(value), _) => format!("another issuer, as {value}"),
            (None, PrincipalKind::User) => "password".to_owned(),
            (None, PrincipalKind::ServicePrincipal) => secrets.collect::<Vec<_>>().join(", "),
        };
        vec![
            row.name.clone(),
            row.object_id.clone(),
            row.client_id.clone(),
            row.state.to_owned(),
            with,
        ]
    };
    output::list(global.output, &shown, &header, cells, "none")
}

/// A secret that was just made, with whose it is.
#[derive(Serialize)]
struct Made<'a> {
    object_id: Option<String>,
    client_id: Option<String>,
    secret_name: String,
    secret: &'a str,
    expires_at: Option<Timestamp>,
}

fn show(global: &Global, made: &Made<'_>) -> anyhow::Result<()> {
    output::one(global.output, made, || {
        let line = |name, value: &Option<String>| match value {
            Some(value) => format!("{name}{value}\n"),
            None => String::new(),
        };
        let end = match made.expires_at {
            None => "It does not expire.".to_owned(),
            Some(end) => format!("It expires at {end}."),
        };
        format!(
            "{}{}client secret {}\nThe secret is shown this once. {end}",
            line("object id     ", &made.object_id),
            line("client id     ", &made.client_id),
            made.secret
        )
    })
}

fn expiry(days: Option<u16>) -> anyhow::Result<Option<Timestamp>> {
    let hours = days.map(|days| SignedDuration::from_hours(24 * i64::from(days)));
    let end = hours.map(|hours| Timestamp::now().checked_add(hours));
    Ok(end.transpose()?)
}

fn new_password() -> anyhow::Result<Zeroizing<String>> {
    if let Ok(text) = std::env::var(PASSWORD) {
        return Ok(Zeroizing::new(text));
    }
    let hint = format!("there is no terminal to ask on. Put the password into {PASSWORD}");
    let ask = |prompt| match rpassword::prompt_password(prompt) {
        Ok(text) => Ok(Zeroizing::new(text)),
        Err(_) => Err(Refusal(hint.clone())),
    };
    let first = ask("New password: ")?;
    match *first == *ask("The same again: ")? {
        true => Ok(first),
        false => Err(Refusal("the two are not the same".to_owned()).into()),
    }
}

/// What is wrong with the request is a refusal, what fails is not.
fn refused(error: DirectoryError) -> anyhow::Error {
    match error {
        DirectoryError::Secret(_) | DirectoryError::Catalog(_) | DirectoryError::Randomness => {
            error.into()
        }
        refusal => Refusal(refusal.to_string()).into(),
    }
}
