//! What speaks against a move, found before anything is begun.

use std::fmt;

use everpoint_pgformat::{ByteCount, MajorVersion};

/// One thing that speaks against a move, with what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The name has a database.
    #[error("database `{name}` exists. Choose another name, or let it be replaced: --replace")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// There is nothing to be replaced.
    #[error("there is no database `{name}` to be replaced. Leave out --replace")]
    NothingToReplace {
        /// The name.
        name: String,
    },
    /// The role's rights do not suffice.
    #[error(
        "role `{role}` of the target is no superuser, and things can be given to their owners, extensions made and \
         settings kept by a superuser alone. Name a connection of one: --admin-connection"
    )]
    NoSuperuser {
        /// The role.
        role: String,
    },
    /// A standby takes no databases.
    #[error("the target is a standby. Name the connection of its primary")]
    Standby,
    /// Databases do not go back to an older version.
    #[error(
        "the target runs PostgreSQL {target}, older than the {source_version} of the database. Choose a target of \
         version {source_version} or later"
    )]
    OlderTarget {
        /// The target's version.
        target: MajorVersion,
        /// The source's.
        source_version: MajorVersion,
    },
    /// The programs do not fit the servers.
    #[error(
        "pg_dump {found} does not fit: it must be of version {at_least} to {at_most}. Install postgresql-client-{at_most}, \
         or name its directory: --bin-directory"
    )]
    Programs {
        /// The programs' version.
        found: MajorVersion,
        /// The source's version.
        at_least: MajorVersion,
        /// The target's version.
        at_most: MajorVersion,
    },
    /// Owners or grantees are missing.
    #[error(
        "the target lacks roles that own or may use things in the database: {}. Create them, or let them be created \
         without passwords and without the right to log in: --create-roles",
        .roles.join(", ")
    )]
    MissingRoles {
        /// Their names.
        roles: Vec<String>,
    },
    /// Extensions are not installed.
    #[error(
        "the target's installation lacks files of extensions: {}. Install the packages they come from",
        .extensions.join(", ")
    )]
    MissingExtensions {
        /// Names and versions.
        extensions: Vec<String>,
    },
    /// Tablespaces are not there.
    #[error(
        "the target lacks tablespaces: {}. Create them, or let everything go to pg_default: --no-tablespaces",
        .tablespaces.join(", ")
    )]
    MissingTablespaces {
        /// Their names.
        tablespaces: Vec<String>,
    },
    /// The locale is not there.
    #[error(
        "the target's machine cannot sort and classify text as the database does ({fault}). Install the locale, or \
         choose a target that has it"
    )]
    Locale {
        /// What PostgreSQL says.
        fault: String,
    },
    /// Collations that users have made are not there.
    #[error(
        "the target's machine lacks locales of collations in the database: {}. Install the locales, or choose a target \
         that has them",
        .collations.join(", ")
    )]
    Collations {
        /// Their names, and what PostgreSQL says.
        collations: Vec<String>,
    },
    /// No room.
    #[error(
        "tablespace {tablespace} of the target has room for {available} bytes besides the scratch server and what is \
         left to the server, and the database takes about {needed}. Free space there"
    )]
    NoRoom {
        /// The tablespace.
        tablespace: String,
        /// What there is.
        available: ByteCount,
        /// What is needed.
        needed: ByteCount,
    },
    /// Sessions are open in the database to be replaced.
    #[error(
        "database `{name}` is in use by {}. End these sessions, or let them be ended: --end-sessions",
        .sessions.join("; ")
    )]
    OpenSessions {
        /// The database.
        name: String,
        /// The sessions.
        sessions: Vec<String>,
    },
    /// Prepared transactions are open in the database to be replaced.
    #[error(
        "database `{name}` has prepared transactions, and cannot be renamed until they end: {}. In that database: \
         COMMIT PREPARED or ROLLBACK PREPARED",
        .gids.join(", ")
    )]
    PreparedTransactions {
        /// The database.
        name: String,
        /// Their names.
        gids: Vec<String>,
    },
    /// There is no such table at the target moment.
    #[error(
        "there was no table {table} at that moment{}. `everpoint log` tells when tables were made, renamed and dropped",
        hint(.near)
    )]
    NoSuchTable {
        /// The table.
        table: String,
        /// Names like it.
        near: Vec<String>,
    },
    /// It cannot be restored by itself.
    #[error("{table} {reason}. Name tables")]
    NotATable {
        /// What was named.
        table: String,
        /// What it is.
        reason: &'static str,
    },
    /// One name for several tables.
    #[error(
        "{count} tables cannot be given one name. Restore them one by one, or with their own names: --into DATABASE"
    )]
    OneName {
        /// How many there are.
        count: usize,
    },
    /// There is no database to put them into.
    #[error(
        "the target has no database `{database}` to put tables into. Create it, or name another one: --into DATABASE"
    )]
    NoDatabase {
        /// Its name.
        database: String,
    },
    /// The name is in use. Nothing is ever overwritten.
    #[error("{table} exists there already. Give the restored one another name: --as SCHEMA.TABLE")]
    TableTaken {
        /// The name.
        table: String,
    },
    /// The schema is nowhere.
    #[error(
        "there is no schema `{schema}`, neither there nor in what is restored. Create it: CREATE SCHEMA"
    )]
    NoSchema {
        /// Its name.
        schema: String,
    },
    /// The schema is the system's.
    #[error("schema `{schema}` is the system's. Choose another one")]
    ReservedSchema {
        /// Its name.
        schema: String,
    },
    /// What the tables cannot be without.
    #[error(
        "database `{database}` lacks what the tables are made of: {}. Create these first, as they were;          `everpoint restore database --inspect` shows them",
        .objects.join(", ")
    )]
    MissingObjects {
        /// The database.
        database: String,
        /// What it lacks.
        objects: Vec<String>,
    },
    /// What goes by the same names and is something else.
    #[error(
        "types that the tables are made of are other ones now: {}. Put the tables into a database that has them as          they were: --into DATABASE",
        .objects.join(", ")
    )]
    OtherObjects {
        /// What differs.
        objects: Vec<String>,
    },
    /// A condition of the files method does not hold.
    #[error("{reason}. Leave out --method files")]
    NotByFiles {
        /// Which.
        reason: String,
    },
}

/// Everything that speaks against a move. Nothing was begun.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Refusals(pub Vec<Refusal>);

impl fmt::Display for Refusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for refusal in &self.0 {
            write!(f, "{separator}{refusal}")?;
            separator = "\n";
        }
        Ok(())
    }
}

fn hint(near: &[String]) -> String {
    match near.is_empty() {
        true => String::new(),
        false => format!(", but {}", near.join(", ")),
    }
}
