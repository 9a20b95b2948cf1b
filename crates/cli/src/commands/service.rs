//! `everpoint serve`, `everpoint config`, `everpoint catalog` and `everpoint audit`.

use std::io::IsTerminal;

use everpoint_server::{
    audit::{AuditFile, AuditFileError},
    config::{Config, ConfigError},
    service::{self, Existing, RebuildError},
};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::{
    EnvFilter, Registry, fmt, layer::SubscriberExt, reload, util::SubscriberInitExt,
};

use crate::{
    args::service::{AuditVerify, CatalogRebuild, ServiceConfig},
    exit::{Exit, Refusal},
};

/// Which lines of the log are shown, as tracing-subscriber has it.
const LOG: &str = "EVERPOINT_LOG";

pub async fn serve(args: &ServiceConfig) -> anyhow::Result<Exit> {
    let config = read(args)?;
    let (filter, filtering) = reload::Layer::new(filter(&config)?);
    let lines = fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .init();
    let url = config.base_url().to_owned();
    // Before it says that it runs: a signal that comes then must not end it at once.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let running = service::start(config).await?;
    let known = running.service();
    println!(
        "everpoint serves {url}\n  listens on    {}\n  tenant        {}\n  subscription  {}",
        running.address(),
        known.tenant(),
        known.subscription()
    );
    if let Some(owner) = running.owner() {
        println!(
            "\nThe owner (shown this once; whoever has the secret may do everything):\n  \
             client id     {}\n  client secret {}",
            owner.client_id,
            owner.secret.text()
        );
    }
    loop {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => break,
            _ = terminate.recv() => break,
            _ = hang_up.recv() => take_up(args, &running, &filtering),
        }
    }
    running.stop().await;
    Ok(Exit::Success)
}

/// Takes up the configuration as it is now. One that cannot be used changes nothing.
fn take_up(
    args: &ServiceConfig,
    running: &service::Running,
    filtering: &reload::Handle<EnvFilter, Registry>,
) {
    let taken = || -> anyhow::Result<service::Reloaded> {
        let config = read(args)?;
        let filter = filter(&config)?;
        let reloaded = running.service().reload(config)?;
        filtering.reload(filter)?;
        Ok(reloaded)
    };
    match taken() {
        Ok(reloaded) => {
            let changed = match reloaded.changed.is_empty() {
                true => "nothing changed".to_owned(),
                false => format!("changed: {}", reloaded.changed.join(", ")),
            };
            tracing::info!("the configuration was read again; {changed}");
            if !reloaded.waiting.is_empty() {
                tracing::warn!(
                    "these hold only when the service is started again: {}",
                    reloaded.waiting.join(", ")
                );
            }
        }
        Err(error) => tracing::error!(
            "the configuration cannot be used, and the earlier one still holds: {error:#}"
        ),
    }
}

/// What is logged: as the environment says, or else the configuration.
fn filter(config: &Config) -> anyhow::Result<EnvFilter> {
    let from_environment = std::env::var(LOG).ok();
    let wanted = from_environment.as_deref().or(config.log.as_deref());
    let wanted = wanted.unwrap_or("info");
    EnvFilter::try_new(wanted)
        .map_err(|error| Refusal(format!("`log` is `{wanted}`: {error}")).into())
}

/// Checks all that can be checked without a server or a repository being reachable: values, secrets, certificates,
/// keys of another issuer that lie in a file.
pub async fn check(args: &ServiceConfig) -> anyhow::Result<Exit> {
    let config = read(args)?;
    filter(&config)?;
    service::check(&config)
        .await
        .map_err(|error| Refusal(everpoint_server::chain(&error)))?;
    println!("{} is in order", args.config.display());
    Ok(Exit::Success)
}

pub async fn rebuild(args: &CatalogRebuild) -> anyhow::Result<Exit> {
    let config = read(&args.config)?;
    let existing = match args.force {
        true => Existing::SetAside,
        false => Existing::Refuse,
    };
    let rebuilt = service::rebuild(&config, existing)
        .await
        .map_err(|error| match error {
            RebuildError::NotEmpty { .. } | RebuildError::InUse { .. } => {
                Refusal(error.to_string()).into()
            }
            error => anyhow::Error::from(error),
        })?;
    if let Some(place) = &rebuilt.set_aside {
        println!("the earlier catalog is kept as {place}");
    }
    println!(
        "made a catalog with {} principals, {} assignments and {} databases",
        rebuilt.principals, rebuilt.assignments, rebuilt.databases
    );
    if rebuilt.principals == 0 {
        println!("the repository keeps no principals: the service's next start makes a new owner");
    }
    Ok(Exit::Success)
}

pub fn read(args: &ServiceConfig) -> anyhow::Result<Config> {
    let refused = |error: ConfigError| match error {
        ConfigError::Read { .. } => error.into(),
        refused => anyhow::Error::from(Refusal(everpoint_server::chain(&refused))),
    };
    let config = Config::read(&args.config).map_err(refused)?;
    match &args.catalog {
        None => Ok(config),
        Some(catalog) => config.with_catalog(catalog).map_err(refused),
    }
}

pub fn verify_audit(args: &AuditVerify) -> anyhow::Result<Exit> {
    match AuditFile::check(&args.file, args.head) {
        Ok(head) => {
            println!("{} lines, none changed; head {head}", head.lines());
            Ok(Exit::Success)
        }
        Err(error @ AuditFileError::Chain { .. }) => {
            eprintln!("{}", everpoint_server::chain(&error));
            Ok(Exit::Damage)
        }
        Err(error) => Err(error.into()),
    }
}
