//! What each command does.

mod backup;
mod database;
mod expire;
mod init;
mod instance;
mod into;
mod listing;
mod log;
mod long_term;
mod restore;
mod service;
mod status;
mod table;
mod verify;
mod wal;
mod window;

use everpoint_engine::instance_record::InstanceRecord;
use everpoint_instance::ConnectionSpec;
use everpoint_repository::{InstanceName, Repository};

use crate::{
    args::{
        Arguments, Command, InstanceCommand, RestoreCommand, WalCommand,
        service::{AuditCommand, ConfigCommand},
    },
    exit::Exit,
    remote,
    repository::open,
};

/// Runs a command.
pub async fn run(arguments: Arguments) -> anyhow::Result<Exit> {
    let global = arguments.global;
    if let Some(server) = &global.server.server {
        return remote::run(server, &global, arguments.command).await;
    }
    match arguments.command {
        Command::Init(args) => init::run(&global, &args).await,
        Command::Instance(InstanceCommand::Add(args)) => instance::add(&global, args).await,
        Command::Instance(InstanceCommand::List) => instance::list(&global).await,
        Command::Instance(InstanceCommand::GrantScript(args)) => {
            print!(
                "{}",
                everpoint_instance::grant_script(&args.role, &args.database)
            );
            Ok(Exit::Success)
        }
        Command::Backup(args) => backup::run(&open(&global).await?, &global, &args).await,
        Command::Wal(WalCommand::Receive(args)) => wal::receive(&open(&global).await?, &args).await,
        Command::Wal(WalCommand::Push(args)) => wal::push(&open(&global).await?, &args).await,
        Command::Wal(WalCommand::Summarize(args)) => {
            wal::summarize(&open(&global).await?, &global, &args).await
        }
        Command::Restore(RestoreCommand::Instance(args)) => {
            restore::instance(&open(&global).await?, &global, *args).await
        }
        Command::Restore(RestoreCommand::Database(args)) => {
            database::restore(&open(&global).await?, &global, *args).await
        }
        Command::Restore(RestoreCommand::Table(args)) => {
            table::restore(&open(&global).await?, &global, *args).await
        }
        Command::Restore(RestoreCommand::Repair(args)) => {
            database::repair(&open(&global).await?, &args).await
        }
        Command::Deleted(args) => {
            database::list_deleted(&open(&global).await?, &global, &args).await
        }
        Command::Backups(args) => listing::backups(&open(&global).await?, &global, &args).await,
        Command::Log(args) => log::run(&open(&global).await?, &global, &args).await,
        Command::Window(args) => window::run(&open(&global).await?, &global, &args).await,
        Command::Status(args) => status::run(&open(&global).await?, &global, &args).await,
        Command::Verify(args) => verify::run(&open(&global).await?, &global, &args).await,
        Command::Expire(args) => expire::run(&open(&global).await?, &global, &args).await,
        Command::LongTerm(command) => long_term::run(&open(&global).await?, &global, command).await,
        Command::Serve(args) => service::serve(&args).await,
        Command::Config(ConfigCommand::Check(args)) => service::check(&args),
        Command::Audit(AuditCommand::Verify(args)) => service::verify_audit(&args),
        Command::Login(_)
        | Command::Logout
        | Command::Database(_)
        | Command::Operation(_)
        | Command::Retention(_) => Err(remote::without_server()),
    }
}

/// What is known of an instance, and how its server is reached.
async fn known(
    repository: &Repository,
    name: &InstanceName,
) -> anyhow::Result<(InstanceRecord, ConnectionSpec)> {
    let (_, record) = repository.description::<InstanceRecord>(name).await?;
    let connection = record.connection.parse()?;
    Ok((record, connection))
}

/// The instances asked for: one, or all.
async fn chosen(
    repository: &Repository,
    name: Option<&InstanceName>,
) -> anyhow::Result<Vec<InstanceName>> {
    match name {
        Some(name) => {
            repository.description::<InstanceRecord>(name).await?;
            Ok(vec![name.clone()])
        }
        None => Ok(repository.instances().await?),
    }
}

/// Processors of this machine.
fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
