//! Definitions, carried by PostgreSQL's own `pg_dump` and `pg_restore`.

use std::{path::Path, process::Stdio};

use everpoint_instance::{PgBinaries, connect::LibpqConnection, process::Account};

use super::{TablespaceUse, error::MoveError, server::Session};

/// Of what a program said, so many lines are told, the first error's on.
const TOLD_LINES: usize = 8;

/// A part of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Section {
    /// What has to be there before rows come.
    PreData,
    /// Indexes, constraints, triggers, rules, policies, publications and the like.
    PostData,
}

/// Writes the definitions, as a snapshot sees them, to an archive.
pub(super) async fn dump(
    binaries: &PgBinaries,
    source: &LibpqConnection,
    snapshot: &str,
    archive: &Path,
    more: &[String],
) -> Result<(), MoveError> {
    let mut arguments = vec![
        "--format=custom".to_owned(),
        "--compress=0".to_owned(),
        "--schema-only".to_owned(),
        "--no-sync".to_owned(),
        format!("--snapshot={snapshot}"),
        format!("--file={}", archive.display()),
    ];
    arguments.extend_from_slice(more);
    run(binaries, "pg_dump", source, &arguments).await
}

/// Makes a section of an archive in a database. Stops at the first error.
pub(super) async fn restore(
    binaries: &PgBinaries,
    target: &LibpqConnection,
    archive: &Path,
    section: Section,
    jobs: usize,
    more: &[String],
) -> Result<(), MoveError> {
    let mut arguments = vec!["--exit-on-error".to_owned()];
    match section {
        Section::PreData => arguments.push("--section=pre-data".to_owned()),
        Section::PostData => {
            arguments.push("--section=post-data".to_owned());
            arguments.push(format!("--jobs={jobs}"));
        }
    }
    arguments.extend_from_slice(more);
    arguments.push(archive.display().to_string());
    run(binaries, "pg_restore", target, &arguments).await
}

/// What restoring is told about tablespaces.
pub(super) fn tablespace_options(tablespaces: TablespaceUse) -> Vec<String> {
    match tablespaces {
        TablespaceUse::AsItWas => Vec::new(),
        TablespaceUse::Default => vec!["--no-tablespaces".to_owned()],
    }
}

/// How many connections build indexes. One, where partitions have partitions with indexes: an index becomes
/// valid when the last of its partitions' is attached, and two that are attached at one time, on two levels,
/// do not see each other (`validatePartitionedIndex`, `src/backend/commands/tablecmds.c`), so that the
/// topmost stays invalid.
pub(super) async fn index_builders(source: &Session, jobs: usize) -> Result<usize, MoveError> {
    let sql = "SELECT EXISTS (SELECT FROM pg_class c JOIN pg_inherits i ON i.inhrelid = c.oid \
               WHERE c.relkind = 'I')";
    let nested: bool = source
        .value("look for partitioned indexes", sql, &[])
        .await?;
    Ok(if nested { 1 } else { jobs })
}

async fn run(
    binaries: &PgBinaries,
    program: &'static str,
    connection: &LibpqConnection,
    arguments: &[String],
) -> Result<(), MoveError> {
    let mut command = binaries.command(program, Account::Own)?;
    connection.apply(&mut command);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let output = command
        .spawn()
        .map_err(|source| MoveError::Run { program, source })?;
    let output = output
        .wait_with_output()
        .await
        .map_err(|source| MoveError::Run { program, source })?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        if !said.trim().is_empty() {
            tracing::debug!(program, "{}", said.trim());
        }
        return Ok(());
    }
    Err(MoveError::Program {
        program,
        said: told(&said),
    })
}

/// What a person needs to know of it: an error comes before the statement that it is about, which may be long; without
/// one the end tells most.
fn told(said: &str) -> String {
    let lines: Vec<&str> = said
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let end = lines.len().saturating_sub(TOLD_LINES);
    let first = lines.iter().position(|line| line.contains("error:"));
    let told = lines.iter().skip(first.unwrap_or(end)).take(TOLD_LINES);
    told.copied().collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_however_long_their_statement_is() {
        let statement = "CREATE TABLE a (b int);\n".repeat(20);
        let said = format!("warning\npg_restore: error: no lz4\nCommand was: {statement}");
        let found = told(&said);
        assert!(
            found.starts_with("pg_restore: error: no lz4; Command was"),
            "{found}"
        );
        assert_eq!(found.lines().count(), 1);
        assert!(told(&"a\nb\n".repeat(9)).ends_with("a; b"));
    }
}
