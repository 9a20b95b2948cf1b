//! Commands that are given to a service with `--server`: the same words, another way.

mod databases;
mod login;
mod long_term;
mod operations;
mod restore;
mod retention;

use url::Url;

use crate::{
    args::{Command, Global, InstanceCommand, RestoreCommand},
    exit::{Exit, Refusal},
};

/// Runs a command by the service at `server`.
pub async fn run(server: &Url, global: &Global, command: Command) -> anyhow::Result<Exit> {
    match command {
        Command::Login(args) => return login::login(server, &args).await,
        Command::Logout => return login::logout(server),
        _ => {}
    }
    let session = login::session(server).await?;
    match command {
        Command::Instance(InstanceCommand::List) => databases::instances(&session, global).await,
        Command::Database(command) => databases::run(&session, global, command).await,
        Command::Window(args) => databases::list(&session, global, &args.name).await,
        Command::Deleted(args) => databases::deleted(&session, global, &args.name).await,
        Command::Operation(command) => operations::run(&session, global, command).await,
        Command::Retention(command) => retention::run(&session, global, command).await,
        Command::LongTerm(command) => long_term::run(&session, global, command).await,
        Command::Restore(RestoreCommand::Database(args)) => {
            restore::database(&session, &args).await
        }
        _ => {
            let text = "the service does not do that: give the command without --server (and without \
                        EVERPOINT_SERVER), on a machine that reaches the repository";
            Err(Refusal(text.to_owned()).into())
        }
    }
}

/// What only a service does.
pub fn without_server() -> anyhow::Error {
    Refusal(
        "this is done by a service: which? Give --server URL or set EVERPOINT_SERVER".to_owned(),
    )
    .into()
}
