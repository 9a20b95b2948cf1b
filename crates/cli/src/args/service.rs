//! Arguments of the commands about the service.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use everpoint_server::audit::Head;

#[derive(Debug, Args)]
pub struct ConfigFile {
    /// The service's configuration
    #[arg(
        long,
        env = "EVERPOINT_CONFIG",
        value_name = "FILE",
        default_value = "/etc/everpoint/everpoint.toml"
    )]
    pub config: PathBuf,
}

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Check the service's configuration, and change nothing
    Check(ConfigFile),
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
