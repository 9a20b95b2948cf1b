//! Arguments of the commands that speak to a service.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use everpoint_repository::InstanceName;
use everpoint_server::policy::Period;

use super::{database::DatabaseName, long_term::keep};

/// Where the service is.
#[derive(Debug, Args)]
pub struct Server {
    /// Speak to the service at this address instead of working on the repository
    #[arg(long, env = "EVERPOINT_SERVER", global = true, value_name = "URL")]
    pub server: Option<url::Url>,
}

#[derive(Debug, Args)]
pub struct Login {
    #[command(flatten)]
    pub who: Who,
    /// The certificates of the authority that the service's certificate comes from, as PEM; the system's are
    /// trusted besides
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Who {
    /// Sign in as this service principal; its secret is taken from EVERPOINT_CLIENT_SECRET or asked for
    #[arg(long, value_name = "ID")]
    pub client_id: Option<String>,
    /// Sign in as this user; the password is taken from EVERPOINT_PASSWORD or asked for
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum DatabaseCommand {
    /// List the living databases of an instance, with what each can be restored to
    List(Instance),
    /// Create an empty database
    Create(Database),
    /// Delete a database; its log is stored first, so that it can be had back to its last transaction
    Delete(Database),
}

#[derive(Debug, Subcommand)]
pub enum OperationCommand {
    /// List the operations of an instance, newest first
    List(Instance),
    /// Show an operation and what happened in it
    Show(Operation),
    /// Ask an operation to end
    Cancel(Operation),
}

#[derive(Debug, Subcommand)]
pub enum RetentionCommand {
    /// Show how long a database's backups are kept
    Show(Database),
    /// Keep every point of the last days restorable
    Set(RetentionSet),
    /// Which full backups are kept for long, as copies
    #[command(subcommand)]
    LongTerm(LongTermPolicyCommand),
}

#[derive(Debug, Subcommand)]
pub enum LongTermPolicyCommand {
    /// Show how long a database's copies are kept
    Show(Database),
    /// Keep copies of full backups from now on; what is left out is not copied any more. Copies that there are stay
    Set(LongTermSet),
}

#[derive(Debug, Args)]
pub struct Instance {
    /// The instance
    pub name: InstanceName,
}

#[derive(Debug, Args)]
pub struct Database {
    /// The database, as INSTANCE/DATABASE
    #[arg(value_name = "NAME/DB")]
    pub name: DatabaseName,
}

#[derive(Debug, Args)]
pub struct Operation {
    /// The instance
    pub name: InstanceName,
    /// The operation, which `operation list` names
    pub id: uuid::Uuid,
}

#[derive(Debug, Args)]
pub struct RetentionSet {
    /// The database, as INSTANCE/DATABASE
    #[arg(value_name = "NAME/DB")]
    pub name: DatabaseName,
    /// 1 to 35; points that are older are lost at once, and do not come back
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=35))]
    pub days: u16,
    /// Say what would be lost, and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Debug, Args)]
pub struct LongTermSet {
    /// The database, as INSTANCE/DATABASE
    #[arg(value_name = "NAME/DB")]
    pub name: DatabaseName,
    #[command(flatten)]
    pub periods: Periods,
    /// The week whose first full backup is the year's, 1 to 52
    #[arg(
        long,
        value_name = "N",
        requires = "yearly",
        value_parser = clap::value_parser!(u8).range(1..=52)
    )]
    pub week_of_year: Option<u8>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct Periods {
    /// Keep the first full backup of each week so long: 12w, 6m, 1y, or as ISO 8601 has it
    #[arg(long, value_name = "TIME", value_parser = keep)]
    pub weekly: Option<Period>,
    /// Keep the first of each month so long
    #[arg(long, value_name = "TIME", value_parser = keep)]
    pub monthly: Option<Period>,
    /// Keep one of each year so long
    #[arg(long, value_name = "TIME", value_parser = keep, requires = "week_of_year")]
    pub yearly: Option<Period>,
    /// Make no more copies
    #[arg(long, conflicts_with_all = ["weekly", "monthly", "yearly"])]
    pub none: bool,
}
