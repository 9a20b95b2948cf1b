//! What the restore of a database notes in its scratch directory, so that whoever comes after a crash knows
//! what there is to clean up.

use everpoint_instance::ConnectionSpec;
use everpoint_pgformat::Oid;
use everpoint_repository::InstanceName;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{DatabasePlan, state::State};
use crate::transplant::{OpenSessions, name::DatabaseName};

/// The journal of one operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    /// The instance the database was in.
    pub instance: InstanceName,
    /// The database.
    pub database: Oid,
    /// Its name at the target.
    pub name: String,
    /// When the operation began, by this machine's clock.
    pub started_at: Timestamp,
    /// Its process.
    pub process: u32,
    /// How far it is. From moving on the move's own journal tells more.
    pub state: State,
    /// What whoever asked for it calls it.
    #[serde(default)]
    pub operation: Option<String>,
    /// Where it is moved to, if it is.
    #[serde(default)]
    pub destination: Option<Destination>,
    /// Where some of its tables are moved to, if they are.
    #[serde(default)]
    pub tables: Option<TablesDestination>,
}

/// What it takes to reach the server that tables are moved to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TablesDestination {
    /// How the server is reached.
    pub reach: Reach,
    /// What they are to be called there, for a person.
    pub names: String,
}

/// What it takes to reach the server that a database is moved to, and to finish the move there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destination {
    /// How the server is reached.
    pub reach: Reach,
    /// What the database is to be called there.
    pub name: DatabaseName,
    /// What if sessions are open in the database that it replaces.
    pub sessions: OpenSessions,
}

/// How a server is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reach {
    /// As the repository says of this instance.
    Instance(InstanceName),
    /// As the operator said, with the password if one was given: nobody else may read the journal.
    Connection(Box<ConnectionSpec>),
}

impl Journal {
    /// Of an operation that has not begun.
    pub fn new(plan: &DatabasePlan, destination: Option<Destination>) -> Self {
        Self {
            instance: plan.request.instance.clone(),
            database: plan.chosen.database,
            name: plan.chosen.name.clone(),
            started_at: Timestamp::now(),
            process: std::process::id(),
            state: State::Queued,
            operation: None,
            destination,
            tables: None,
        }
    }

    /// The name under which the database is online in the server that it went into, if it came so far.
    pub fn online_as(&self) -> Option<&DatabaseName> {
        let destination = self.destination.as_ref()?;
        (self.state == State::Online).then_some(&destination.name)
    }

    /// The names of tables that are online in the server that they went into, if they came so far.
    pub fn tables_online_as(&self) -> Option<&str> {
        let tables = self.tables.as_ref()?;
        (self.state == State::Online).then_some(&tables.names)
    }
}
