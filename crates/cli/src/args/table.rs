//! Arguments about single tables.

use std::path::PathBuf;

use clap::Args;
use everpoint_engine::{database::choose::Wanted, transplant::table::name::TableName};
use everpoint_instance::ConnectionSpec;
use everpoint_repository::InstanceName;

use super::database::{DatabaseName, DatabaseTarget, DeletedName};

#[derive(Debug, Args)]
pub struct RestoreTable {
    /// The database, as INSTANCE/DATABASE (not with --deleted), and its tables, as SCHEMA.TABLE in PostgreSQL's
    /// spelling, by their names at the target
    #[arg(required = true, value_name = "NAME/DB SCHEMA.TABLE")]
    pub names: Vec<String>,
    /// Take them from a database that was dropped, as of just before; with the time of its drop where several had
    /// the name
    #[arg(long, value_name = "NAME/DB[@TIME]")]
    pub deleted: Option<DeletedName>,
    #[command(flatten)]
    pub target: DatabaseTarget,
    /// Follow this timeline instead of the latest
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    pub timeline: Option<u32>,
    #[command(flatten)]
    pub place: Place,
    /// Put them into this instance's server instead
    #[arg(long, value_name = "TARGET")]
    pub instance: Option<InstanceName>,
    /// How that server is reached as a superuser, when the instance's role is none
    #[arg(long, value_name = "CONNECTION")]
    pub admin_connection: Option<ConnectionSpec>,
    /// Create roles that are missing, without passwords and without the right to log in
    #[arg(long)]
    pub create_roles: bool,
    /// Put everything into the default tablespace
    #[arg(long)]
    pub no_tablespaces: bool,
    /// Wait for this replica, by its application name, even if it is not connected
    #[arg(long = "replica", value_name = "NAME")]
    pub replicas: Vec<String>,
    /// How long to wait for replicas before going on without them [default: until they have it]
    #[arg(long, value_parser = crate::time::duration, value_name = "TIME")]
    pub wait_replicas: Option<std::time::Duration>,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Where the server that recovers them keeps its files [default: /var/lib/everpoint/scratch for root, else
    /// ~/.cache/everpoint/scratch]
    #[arg(long, env = "EVERPOINT_SCRATCH", value_name = "DIRECTORY")]
    pub scratch: Option<PathBuf>,
    /// Threads that restore, and streams that copy [default: the processors]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub jobs: Option<u16>,
    /// Where PostgreSQL's programs are, when not in the usual places
    #[arg(long, value_name = "DIRECTORY")]
    pub bin_directory: Option<PathBuf>,
    /// Who runs that server, when restoring as root
    #[arg(long, default_value = "postgres")]
    pub owner: String,
}

/// Where they go.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct Place {
    /// The name for the one table: in the database of its own name, or with --into in that one
    #[arg(long = "as", value_name = "SCHEMA.TABLE")]
    pub new_name: Option<TableName>,
    /// The database to put them into; under their own names if there is no --as
    #[arg(long, value_name = "DB")]
    pub into: Option<String>,
}

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct Asked {
    pub instance: InstanceName,
    pub wanted: Wanted,
    /// The database's name.
    pub database: String,
    pub tables: Vec<TableName>,
}

impl RestoreTable {
    /// Which tables of which database; or what is wrong with the words.
    pub fn asked(&self) -> Result<Asked, String> {
        let (instance, database, wanted, tables) = match (&self.deleted, self.names.split_first()) {
            (Some(deleted), _) => {
                let name = deleted.name.clone();
                let wanted = Wanted::Deleted {
                    name: name.database.clone(),
                    dropped: deleted.dropped,
                };
                (name.instance, name.database, wanted, self.names.as_slice())
            }
            (None, Some((first, tables))) => {
                let name: DatabaseName = first
                    .parse()
                    .map_err(|error| format!("the database, `{first}`: {error}"))?;
                let wanted = Wanted::Named(name.database.clone());
                (name.instance, name.database, wanted, tables)
            }
            (None, None) => return Err("which database? Give INSTANCE/DATABASE".to_owned()),
        };
        if tables.is_empty() {
            return Err("which tables? Give them behind the database, as SCHEMA.TABLE".to_owned());
        }
        let tables = tables
            .iter()
            .map(|text| text.parse::<TableName>().map_err(|error| error.to_string()))
            .collect::<Result<Vec<_>, String>>()?;
        Ok(Asked {
            instance,
            wanted,
            database,
            tables,
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: RestoreTable,
    }

    fn asked(words: &str) -> Result<Asked, String> {
        let words = std::iter::once("table").chain(words.split(' '));
        Command::try_parse_from(words)
            .map_err(|error| error.to_string())?
            .args
            .asked()
    }

    #[test]
    fn tables_stand_behind_their_database_or_alone_when_that_was_dropped() {
        let found = asked("main/shop public.A \"x\".\"B\" --into spare").unwrap();
        assert_eq!(found.wanted, Wanted::Named("shop".to_owned()));
        let names: Vec<String> = found.tables.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["public.a", "x.\"B\""]);
        let found = asked("--deleted main/shop public.a --as public.b").unwrap();
        assert_eq!((found.database.as_str(), found.tables.len()), ("shop", 1));
    }

    #[test]
    fn what_cannot_be_meant_is_said() {
        assert!(
            asked("main/shop --into x")
                .unwrap_err()
                .contains("which tables")
        );
        assert!(
            asked("shop public.a --into x")
                .unwrap_err()
                .contains("INSTANCE/DATABASE")
        );
        assert!(
            asked("main/shop a --into x")
                .unwrap_err()
                .contains("SCHEMA.TABLE")
        );
        assert!(asked("main/shop public.a").unwrap_err().contains("--as"));
    }
}
