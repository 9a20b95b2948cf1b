//! PostgreSQL's single-user mode: one session, without a server, which gets into a database that takes no connections
//! (`CheckMyDatabase`, `src/backend/utils/init/postinit.c`).

use std::{io, path::Path, process::Stdio};

use tokio::io::AsyncWriteExt;

use super::{
    PgBinaries, StartOptions,
    error::ProcessError,
    server::{Prepared, io_error, prepare_aside},
};

/// Runs a statement in a database of a stopped server, as the bootstrap superuser.
///
/// One that fails is told in the log alone: look afterwards whether it did what it should.
///
/// # Errors
/// See [`ProcessError`]; [`ProcessError::SingleUser`] when it does not get into the database.
pub async fn run_single_user(
    binaries: &PgBinaries,
    root: &Path,
    options: &StartOptions,
    database: &str,
    statement: &str,
) -> Result<(), ProcessError> {
    let Prepared {
        account,
        settings,
        log,
        log_path,
    } = prepare_aside(binaries, root, options).await?;
    let mut command = binaries.command("postgres", account)?;
    command.arg("--single").arg("-D").arg(root).arg("-j");
    for (name, value) in settings.iter().chain(&options.settings) {
        command.arg("-c").arg(format!("{name}={value}"));
    }
    let again = log
        .try_clone()
        .map_err(|error| io_error("open", log_path.clone(), error))?;
    command.arg(database).process_group(0).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(log).stderr(again);
    let program = binaries.directory().join("postgres");
    let failed = |error| io_error("run", program.clone(), error);
    let mut child = command.spawn().map_err(failed)?;
    if let Some(mut input) = child.stdin.take() {
        let text = format!("{statement};\n\n");
        match input.write_all(text.as_bytes()).await {
            // It ended before it read it, and says why by how it ended.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(failed(error)),
            _ => {}
        }
    }
    let status = child.wait().await.map_err(failed)?;
    match status.success() {
        true => Ok(()),
        false => Err(ProcessError::SingleUser {
            root: root.to_owned(),
            status,
            log_tail: super::log::tail(&log_path),
        }),
    }
}
