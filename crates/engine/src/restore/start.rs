//! Starting the server on a restored directory: it recovers while log is supplied, and is promoted.

use std::{fs, path::Path};

use everpoint_instance::{
    data_directory::{ReadControlError, control_file},
    process::{
        Milestone, PgBinaries, ProcessError, ServerProcess, StartOptions, start_for_recovery,
    },
};
use everpoint_repository::Repository;

use super::{
    MARKER, RestoreError, RestorePlan, failed,
    files::write_file,
    recovery::{self, Supplier},
};
use crate::progress::Progress;

/// How the server is started.
#[derive(Clone, Debug)]
pub struct StartPlan {
    /// PostgreSQL's programs, of the backup's version.
    pub binaries: PgBinaries,
    /// The port, when it is not the configured one.
    pub port: Option<u16>,
    /// The socket's directory, when it is not the configured one.
    pub socket_directory: Option<std::path::PathBuf>,
}

/// The server did not recover.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The directory or the log.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// The server.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The control file that was just written.
    #[error(transparent)]
    Control(#[from] ReadControlError),
}

/// Starts the server and waits until it has been promoted. It is left running.
///
/// # Errors
/// See [`RecoverError`]. The directory is then still marked as unfinished: the same restore, run again,
/// goes on with it.
pub async fn start(
    repository: &Repository,
    plan: &RestorePlan,
    start: &StartPlan,
    progress: &Progress,
) -> Result<ServerProcess, RecoverError> {
    let root = &plan.request.to;
    progress.phase("recovering", plan.log_bytes.get());
    let supplier = Supplier::new(repository, plan)?;
    let options = options(plan, start)?;
    let mut server = start_for_recovery(&start.binaries, root, &options).await?;
    let supply = async {
        supplier.run(progress).await?;
        // Recovery goes on when all log is there; it is the server that ends the wait.
        std::future::pending::<Result<(), RestoreError>>().await
    };
    tokio::select! {
        supplied = supply => supplied?,
        promoted = server.wait_until(Milestone::Promoted, None) => promoted?,
    }
    recovery::remove_settings(plan)?;
    let marker = root.join(MARKER);
    fs::remove_file(&marker).map_err(failed("remove", &marker))?;
    Ok(server)
}

fn options(plan: &RestorePlan, start: &StartPlan) -> Result<StartOptions, RecoverError> {
    let root = &plan.request.to;
    // A configuration that was copied along may name the directories of its origin.
    let mut options = StartOptions::as_configured()
        .setting("data_directory", root.display().to_string())
        .setting("external_pid_file", "");
    if !root.join("postgresql.conf").exists() {
        write_configuration(plan, root)?;
    }
    for (setting, file) in [("hba_file", "pg_hba.conf"), ("ident_file", "pg_ident.conf")] {
        let path = root.join(file);
        if path.exists() {
            options = options.setting(setting, path.display().to_string());
        }
    }
    if let Some(port) = start.port {
        options = options.setting("port", port.to_string());
    }
    if let Some(directory) = &start.socket_directory {
        options = options.setting("unix_socket_directories", directory.display().to_string());
    }
    Ok(options)
}

/// Where the origin kept its configuration outside the data directory, as Debian does, a minimal one is
/// written: recovery needs limits at least as large as the origin's.
fn write_configuration(plan: &RestorePlan, root: &Path) -> Result<(), RecoverError> {
    let owner = plan.request.owner;
    let limits = control_file(root)?.limits;
    let text = format!(
        "# Written by everpoint: the backup holds no postgresql.conf, as its origin kept it elsewhere.\n\
         max_connections = {}\nmax_worker_processes = {}\nmax_wal_senders = {}\n\
         max_prepared_transactions = {}\nmax_locks_per_transaction = {}\nlisten_addresses = ''\n",
        limits.max_connections,
        limits.max_worker_processes,
        limits.max_wal_senders,
        limits.max_prepared_transactions,
        limits.max_locks_per_transaction,
    );
    write_file(&root.join("postgresql.conf"), text.as_bytes(), owner)?;
    let hba = root.join("pg_hba.conf");
    if !hba.exists() {
        let text = "# Written by everpoint: only the system's own users, over the socket.\n\
                    local all all peer\n";
        write_file(&hba, text.as_bytes(), owner)?;
    }
    Ok(())
}
