//! Arguments about single databases.

use std::{path::PathBuf, str::FromStr};

use clap::Args;
use everpoint_engine::{
    database::choose::DropTime, history::event::EventId, transplant::name::DatabaseName as NewName,
};
use everpoint_instance::ConnectionSpec;
use everpoint_pgformat::Lsn;
use everpoint_repository::{CopyId, InstanceName};

/// A database of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseName {
    pub instance: InstanceName,
    pub database: String,
}

/// A dropped database of an instance, and perhaps when it was dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletedName {
    pub name: DatabaseName,
    pub dropped: Option<DropTime>,
}

#[derive(Debug, Args)]
#[group(id = "which", required = true, multiple = false, args = ["source", "deleted", "long_term"])]
pub struct RestoreDatabase {
    /// The database, as INSTANCE/DATABASE, by its name at the target
    #[arg(value_name = "NAME/DB")]
    pub source: Option<DatabaseName>,
    /// A database that was dropped, as of just before; with the time of its drop where several had the name
    #[arg(long, value_name = "NAME/DB[@TIME]")]
    pub deleted: Option<DeletedName>,
    // A copy holds one moment, so no target goes with it.
    /// Out of a long-term copy, which `everpoint long-term list` lists
    #[arg(
        long,
        value_name = "ID",
        value_parser = super::long_term::copy_id,
        conflicts_with = "DatabaseTarget"
    )]
    pub long_term: Option<CopyId>,
    #[command(flatten)]
    pub target: DatabaseTarget,
    /// Follow this timeline instead of the latest
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    pub timeline: Option<u32>,
    #[command(flatten)]
    pub purpose: Purpose,
    #[command(flatten)]
    pub into: Move,
    /// Where that server keeps its files [default: /var/lib/everpoint/scratch for root, else
    /// ~/.cache/everpoint/scratch]
    #[arg(long, env = "EVERPOINT_SCRATCH", value_name = "DIRECTORY")]
    pub scratch: Option<PathBuf>,
    /// Threads that restore [default: the processors]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub jobs: Option<u16>,
    /// Where PostgreSQL's programs are, when not in the usual places
    #[arg(long, value_name = "DIRECTORY")]
    pub bin_directory: Option<PathBuf>,
    /// Who runs that server, when restoring as root
    #[arg(long, default_value = "postgres")]
    pub owner: String,
}

/// Where scratch servers keep their files.
#[derive(Debug, Args)]
pub struct Repair {
    /// Where their files are [default: /var/lib/everpoint/scratch for root, else ~/.cache/everpoint/scratch]
    #[arg(long, env = "EVERPOINT_SCRATCH", value_name = "DIRECTORY")]
    pub scratch: Option<PathBuf>,
}

/// The database is recovered in a server of its own, which is removed in the end.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct Purpose {
    /// Put it into the running server under this name
    #[arg(long, value_name = "NEWNAME", conflicts_with_all = ["inspect", "exec"])]
    pub to: Option<NewName>,
    /// Say how that server is reached, and remove it when interrupted
    #[arg(long, conflicts_with_all = ["exec", "dry_run"])]
    pub inspect: bool,
    /// Run a command of the shell there, with PGHOST, PGPORT, PGUSER, PGDATABASE and PGOPTIONS set, and
    /// remove the server when it ends
    #[arg(long, value_name = "COMMAND", conflicts_with = "dry_run")]
    pub exec: Option<String>,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// How a database's contents get into the running server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum MoveMethod {
    /// Definitions by `pg_dump`, rows from server to server, indexes built anew
    Copy,
    /// The recovered database's files
    Files,
}

/// How the database gets into the running server.
#[derive(Debug, Args)]
pub struct Move {
    /// Put it into this instance's server instead
    #[arg(long, requires = "to", value_name = "TARGET")]
    pub instance: Option<InstanceName>,
    /// How that server is reached as a superuser, when the instance's role is none
    #[arg(long, requires = "to", value_name = "CONNECTION")]
    pub admin_connection: Option<ConnectionSpec>,
    /// How its contents get there: row by row, or by its files, which is faster and takes the cluster that was
    /// backed up, on this machine
    #[arg(long, requires = "to", value_enum, default_value_t = MoveMethod::Copy, value_name = "METHOD")]
    pub method: MoveMethod,
    /// Take the place of the living database of that name, which is kept as NAME_before_restore_TIME
    #[arg(long, requires = "to")]
    pub replace: bool,
    /// End the sessions that are open in the living database
    #[arg(long, requires = "replace")]
    pub end_sessions: bool,
    /// Create roles that are missing, without passwords and without the right to log in
    #[arg(long, requires = "to")]
    pub create_roles: bool,
    /// Put everything into the default tablespace
    #[arg(long, requires = "to")]
    pub no_tablespaces: bool,
    /// Wait for this replica, by its application name, even if it is not connected
    #[arg(long = "replica", requires = "to", value_name = "NAME")]
    pub replicas: Vec<String>,
    /// How long to wait for replicas before going on without them [default: until they have it]
    #[arg(long, requires = "to", value_parser = crate::time::duration, value_name = "TIME")]
    pub wait_replicas: Option<std::time::Duration>,
}

#[derive(Debug, Args)]
#[group(multiple = false)]
pub struct DatabaseTarget {
    /// As of this moment, with its zone: 2026-11-22T21:30:00+01:00 or '2026-11-22 21:30 Europe/Berlin'
    #[arg(long, value_name = "TIME", value_parser = crate::time::instant)]
    pub at: Option<jiff::Timestamp>,
    /// With everything that ends at or before this position
    #[arg(long)]
    pub lsn: Option<Lsn>,
    /// As of just before this event, which `everpoint log` lists
    #[arg(long, value_name = "EVENT")]
    pub before: Option<EventId>,
    /// As of a named restore point
    #[arg(long, value_name = "POINT")]
    pub restore_point: Option<String>,
    /// As late as possible (the default)
    #[arg(long)]
    pub latest: bool,
}

impl FromStr for DatabaseName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let form = || "it is written as INSTANCE/DATABASE".to_owned();
        let (instance, database) = text.split_once('/').ok_or_else(form)?;
        if database.is_empty() {
            return Err(form());
        }
        Ok(Self {
            instance: instance
                .parse()
                .map_err(|error| format!("`{instance}`: {error}"))?,
            database: database.to_owned(),
        })
    }
}

impl FromStr for DeletedName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // A name may have an `@` in it.
        if let Some((name, time)) = text.rsplit_once('@')
            && let Ok((from, to)) = crate::time::span(time)
        {
            let dropped = Some(DropTime { from, to });
            return name.parse().map(|name| Self { name, dropped });
        }
        let name = text.parse()?;
        Ok(Self {
            name,
            dropped: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_databases_may_hold_what_divides_them() {
        let name: DatabaseName = "main/a/b@c".parse().unwrap();
        assert_eq!(
            (name.instance.to_string().as_str(), name.database.as_str()),
            ("main", "a/b@c")
        );
        for text in ["main", "main/", "/shop", "No Name/x"] {
            assert!(text.parse::<DatabaseName>().is_err(), "{text}");
        }
        let deleted: DeletedName = "main/shop@office".parse().unwrap();
        assert_eq!(
            (deleted.name.database.as_str(), deleted.dropped),
            ("shop@office", None)
        );
        let deleted: DeletedName = "main/shop@office@2026-11-24T02:50:25.5Z".parse().unwrap();
        assert_eq!(deleted.name.database, "shop@office");
        let dropped = deleted.dropped.unwrap();
        assert_eq!(dropped.from.to_string(), "2026-11-24T02:50:25.5Z");
        assert_eq!(dropped.to.to_string(), "2026-11-24T02:50:25.6Z");
    }
}
