//! `everpoint serve`, `everpoint config` and `everpoint audit`.

use std::io::IsTerminal;

use everpoint_server::{
    audit::{AuditFile, AuditFileError},
    config::{Config, ConfigError},
    service,
};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::{
    args::service::{AuditVerify, ConfigFile},
    exit::{Exit, Refusal},
};

/// Which lines of the log are shown, as tracing-subscriber has it.
const LOG: &str = "EVERPOINT_LOG";

pub async fn serve(args: &ConfigFile) -> anyhow::Result<Exit> {
    let filter = EnvFilter::try_from_env(LOG).unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    let config = read(args)?;
    let url = config.base_url().to_owned();
    let mut terminate = signal(SignalKind::terminate())?;
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
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
    running.stop().await;
    Ok(Exit::Success)
}

pub fn check(args: &ConfigFile) -> anyhow::Result<Exit> {
    let config = read(args)?;
    config.repository.secret.read()?;
    for instance in config.instances.values() {
        instance.admin_connection()?;
    }
    println!("{} is in order", args.config.display());
    Ok(Exit::Success)
}

fn read(args: &ConfigFile) -> anyhow::Result<Config> {
    Config::read(&args.config).map_err(|error| match error {
        ConfigError::Read { .. } => error.into(),
        refused => Refusal(everpoint_server::chain(&refused)).into(),
    })
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
