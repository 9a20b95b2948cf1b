//! Arguments of the commands about the service.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use everpoint_server::audit::Head;

#[derive(Debug, Args)]
pub struct ServiceConfig {
    /// The service's configuration
    #[arg(
        long,
        env = "EVERPOINT_CONFIG",
        value_name = "FILE",
        default_value = "/etc/everpoint/everpoint.toml"
    )]
    pub config: PathBuf,
    /// The catalog, postgres://USER@HOST:PORT/DATABASE, instead of the one in the configuration
    #[arg(long, env = "EVERPOINT_CATALOG", value_name = "URL")]
    pub catalog: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Check the service's configuration, and change nothing
    Check(ServiceConfig),
}

#[derive(Debug, Subcommand)]
pub enum CatalogCommand {
    /// Make a lost catalog anew from what the repository keeps: databases, policies, principals, assignments
    Rebuild(CatalogRebuild),
}

#[derive(Debug, Args)]
pub struct CatalogRebuild {
    /// Do it though there is a catalog with something in it, which is kept as a copy
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub config: ServiceConfig,
}

#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Check that no line of the audit log was changed, left out, put in or moved
    Verify(AuditVerify),
}

#[derive(Debug, Args)]
pub struct AuditVerify {
    /// The audit log: audit.jsonl in the service's state directory
    pub file: PathBuf,
    /// A head that was noted earlier, as LINES:HASH: the log must still hold it
    #[arg(long, value_name = "HEAD")]
    pub head: Option<Head>,
}
