//! The command line.

pub mod database;
pub mod long_term;
pub mod principals;
pub mod remote;
pub mod service;
pub mod table;

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use everpoint_pgformat::Lsn;
use everpoint_repository::InstanceName;

/// Back up PostgreSQL servers and restore them to any second.
///
/// Exit codes: 0 done; 1 failed; 2 wrong usage; 3 refused before anything was done; 4 done, and damage was
/// found.
#[derive(Debug, Parser)]
#[command(
    version,
    propagate_version = true,
    arg_required_else_help = true,
    max_term_width = 100
)]
pub struct Arguments {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Args)]
pub struct Global {
    /// Where the repository is: file:///path or an absolute path
    #[arg(long, env = "EVERPOINT_REPOSITORY", global = true, value_name = "URL")]
    pub repository: Option<String>,
    /// The file that opens the repository; without it the passphrase is taken from
    /// EVERPOINT_PASSPHRASE or asked for
    #[arg(long, env = "EVERPOINT_KEY_FILE", global = true, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// Open the repository with its recovery key, from EVERPOINT_RECOVERY_KEY or asked for
    #[arg(long, global = true)]
    pub recovery_key: bool,
    #[command(flatten)]
    pub server: remote::Server,
    /// How results are printed
    #[arg(long, global = true, value_enum, default_value = "table")]
    pub output: OutputFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// For people
    Table,
    /// For programs
    Json,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a repository
    Init(Init),
    /// Add and list the servers that are backed up
    #[command(subcommand)]
    Instance(InstanceCommand),
    /// Take a backup
    Backup(Backup),
    /// Receive or push write-ahead log
    #[command(subcommand)]
    Wal(WalCommand),
    /// Restore
    #[command(subcommand)]
    Restore(RestoreCommand),
    /// List backups
    Backups(OneInstance),
    /// Tell what happened: drops, truncates, large transactions, and how to go back before them
    Log(crate::history_args::Log),
    /// Show for each database from when to when it can be restored
    Window(crate::history_args::Window),
    /// List dropped databases, and up to where each can be restored
    Deleted(OneInstance),
    /// Show what can be restored, and what is amiss
    Status(Status),
    /// Check that everything stored is there and authentic
    Verify(Verify),
    /// Forget what no point inside the retention needs
    Expire(Expire),
    /// Copies of single databases that outlive everything else
    #[command(subcommand)]
    LongTerm(long_term::LongTermCommand),
    /// Run the service: backups by themselves, policies, roles, and the managed-instance API
    Serve(service::ServiceConfig),
    /// The service's configuration
    #[command(subcommand)]
    Config(service::ConfigCommand),
    /// The service's catalog
    #[command(subcommand)]
    Catalog(service::CatalogCommand),
    /// People who sign in to the service
    #[command(subcommand)]
    User(principals::UserCommand),
    /// Programs that sign in to the service
    #[command(subcommand)]
    ServicePrincipal(principals::ServicePrincipalCommand),
    /// The service's audit log
    #[command(subcommand)]
    Audit(service::AuditCommand),
    /// Sign in to a service, which --server names
    Login(remote::Login),
    /// Forget a sign-in
    Logout,
    /// Databases of a service's instances
    #[command(subcommand)]
    Database(remote::DatabaseCommand),
    /// What a service does and did
    #[command(subcommand)]
    Operation(remote::OperationCommand),
    /// How long a service keeps a database's backups
    #[command(subcommand)]
    Retention(remote::RetentionCommand),
}

#[derive(Debug, Args)]
pub struct Init {
    /// Make the key file, which must not exist yet, with a random key
    #[arg(long, requires = "key_file")]
    pub generate_key_file: bool,
}

#[derive(Debug, Subcommand)]
pub enum InstanceCommand {
    /// Check a server and add it
    Add(InstanceAdd),
    /// List the instances in the repository
    List,
    /// Print the SQL that makes a role with the least rights
    GrantScript(GrantScript),
}

#[derive(Debug, Args)]
pub struct InstanceAdd {
    /// A name for it: lower-case letters, digits, `-` and `_`
    pub name: InstanceName,
    /// How it is reached, as libpq takes it: a URL or key=value pairs
    #[arg(long, value_name = "CONNECTION")]
    pub connection: String,
    /// Its data directory on this machine; asked from the server when not given
    #[arg(long, value_name = "DIRECTORY")]
    pub data_directory: Option<PathBuf>,
    /// How its log comes into the repository
    #[arg(long, value_enum, default_value = "stream")]
    pub wal: WalChoice,
    /// The replication slot to stream from [default: everpoint_NAME]
    #[arg(long, value_name = "SLOT")]
    pub slot: Option<String>,
    /// Only check, add nothing
    #[arg(long)]
    pub check_only: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WalChoice {
    /// `everpoint wal receive`, through a replication slot
    Stream,
    /// The server's archive_command, `everpoint wal push`
    Push,
}

#[derive(Debug, Args)]
pub struct GrantScript {
    /// The role
    #[arg(long, default_value = "everpoint")]
    pub role: String,
    /// The database it connects to
    #[arg(long, default_value = "postgres")]
    pub database: String,
}

#[derive(Debug, Args)]
pub struct OneInstance {
    /// The instance
    pub name: InstanceName,
}

#[derive(Debug, Args)]
pub struct Backup {
    /// The instance
    pub name: InstanceName,
    /// What to take
    #[arg(long = "type", value_enum, default_value = "full")]
    pub kind: BackupType,
    /// Share nothing with earlier backups (full backups only)
    #[arg(long)]
    pub independent: bool,
    /// Threads that read and compress [default: half the processors]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub jobs: Option<u16>,
    /// For a differential: read everything, and report what changed without the log saying so
    #[arg(long)]
    pub check_changes: bool,
    /// Let the server spread the checkpoint at the start over minutes instead of making it at once
    #[arg(long)]
    pub spread_checkpoint: bool,
    /// How long to wait for the log that the backup needs
    #[arg(long, value_parser = crate::time::duration, default_value = "10min", value_name = "TIME")]
    pub log_wait: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BackupType {
    /// Everything; what did not change since the last full backup is not stored twice
    Full,
    /// What changed since the last full backup
    Differential,
}

#[derive(Debug, Subcommand)]
pub enum WalCommand {
    /// Stream log from the server into log backups until told to stop
    Receive(Receive),
    /// Store one file of pg_wal; for archive_command: everpoint wal push NAME %p
    Push(Push),
    /// Make summaries of stored log where they are missing or damaged
    Summarize(Summarize),
}

#[derive(Debug, Args)]
pub struct Receive {
    /// The instance
    pub name: InstanceName,
    /// The longest that received log waits before it is stored (at least 1s)
    #[arg(long, value_parser = crate::time::duration, default_value = "5min", value_name = "TIME")]
    pub interval: Duration,
    /// Log of this size is stored without waiting, in MiB
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024), default_value = "64")]
    pub cut_mib: u16,
}

#[derive(Debug, Args)]
pub struct Push {
    /// The instance
    pub name: InstanceName,
    /// The file
    pub path: PathBuf,
}

#[derive(Debug, Args)]
pub struct Summarize {
    /// The instance
    pub name: InstanceName,
    /// Make all of them anew, also sound ones
    #[arg(long)]
    pub rebuild: bool,
    /// Only of log from this position on
    #[arg(long, value_name = "LSN")]
    pub from: Option<Lsn>,
}

#[derive(Debug, Subcommand)]
pub enum RestoreCommand {
    /// Restore a whole instance into an empty directory
    Instance(Box<RestoreInstance>),
    /// Restore one database of many
    Database(Box<database::RestoreDatabase>),
    /// Restore one or several tables of a database into a running server
    Table(Box<table::RestoreTable>),
    /// Finish or undo what restores of databases left that were killed; the next one does so too
    Repair(database::Repair),
}

#[derive(Debug, Args)]
pub struct RestoreInstance {
    /// The instance
    pub name: InstanceName,
    /// The new data directory: empty, or not there yet
    #[arg(long, value_name = "DIRECTORY")]
    pub to: PathBuf,
    #[command(flatten)]
    pub target: TargetChoice,
    /// Follow this timeline instead of the latest
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    pub timeline: Option<u32>,
    /// Put the tablespace that was at OLD to NEW
    #[arg(long = "tablespace", value_name = "OLD=NEW", value_parser = mapping)]
    pub tablespaces: Vec<(PathBuf, PathBuf)>,
    /// Threads that restore [default: the processors]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub jobs: Option<u16>,
    /// Start the server, let it recover, and promote it
    #[arg(long)]
    pub start: bool,
    /// Where PostgreSQL's programs are, when not in the usual places
    #[arg(long, value_name = "DIRECTORY")]
    pub bin_directory: Option<PathBuf>,
    /// The port of the started server
    #[arg(long, requires = "start")]
    pub port: Option<u16>,
    /// The directory of the started server's socket
    #[arg(long, requires = "start", value_name = "DIRECTORY")]
    pub socket_directory: Option<PathBuf>,
    /// Who the files shall belong to, when restoring as root
    #[arg(long, default_value = "postgres")]
    pub owner: String,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Debug, Args)]
#[group(multiple = false)]
pub struct TargetChoice {
    /// To this moment, with its zone: 2026-11-22T21:30:00+01:00 or '2026-11-22 21:30 Europe/Berlin'
    #[arg(long, value_name = "TIME", value_parser = crate::time::instant)]
    pub at: Option<jiff::Timestamp>,
    /// To everything that ends at or before this position
    #[arg(long)]
    pub lsn: Option<Lsn>,
    /// To a named restore point
    #[arg(long, value_name = "NAME")]
    pub restore_point: Option<String>,
    /// To just before an event that everpoint log lists
    #[arg(long, value_name = "EVENT")]
    pub before: Option<everpoint_engine::history::event::EventId>,
    /// To the last moment that is stored (the default)
    #[arg(long)]
    pub latest: bool,
}

#[derive(Debug, Args)]
pub struct Status {
    /// The instance; all when absent
    pub name: Option<InstanceName>,
}

#[derive(Debug, Args)]
pub struct Verify {
    /// The instance; all when absent
    pub name: Option<InstanceName>,
    /// Read and check every byte
    #[arg(long)]
    pub full: bool,
}

#[derive(Debug, Args)]
pub struct Expire {
    /// The instance
    pub name: InstanceName,
    /// Keep every point of the last N days restorable [default: what the policies of the service want that serves
    /// the instance]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=3650))]
    pub retention_days: Option<u16>,
    /// Say what would be deleted, and delete nothing
    #[arg(long)]
    pub dry_run: bool,
    /// The server is gone for good: do not ask it whether a backup is running
    #[arg(long)]
    pub without_server: bool,
    /// Delete also what the policies of the service that serves the instance want to be kept
    #[arg(long)]
    pub against_policies: bool,
}

fn mapping(text: &str) -> Result<(PathBuf, PathBuf), String> {
    match text.split_once('=') {
        Some((old, new)) if !old.is_empty() && !new.is_empty() => Ok((old.into(), new.into())),
        _ => Err("it is written as OLD=NEW, two absolute paths".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_of_all_commands_fit_together() {
        Arguments::command().debug_assert();
    }
}
