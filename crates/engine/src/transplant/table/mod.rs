//! The move of single tables from a recovered scratch server into a database of a running one, where others work.
//!
//! The source is changed: tables get there the names and the place they are to have, so that definitions fit
//! as `pg_dump` writes them. They are filled in hidden schemas that nobody may enter, and go from there to where
//! they are to be in one transaction. Nothing that is there is ever overwritten. The journal is the move's own;
//! [`super::repair`] reads it.

mod arrange;
mod check;
pub(super) mod hidden;
mod loosen;
pub mod name;
pub mod plan;
pub mod register;
pub(super) mod repair;
mod run;
mod source;
mod target;

use std::path::PathBuf;

use everpoint_instance::{ConnectionSpec, PgBinaries};
use everpoint_pgformat::MajorVersion;

pub use plan::{Placed, TablesPlan};
pub use repair::clear;
pub use run::execute;
pub use source::ItemKind;

use self::{
    loosen::loosen,
    name::TableName,
    plan::Facts,
    source::{SourceTables, refuse},
    target::TargetDatabase,
};
use super::{
    MissingRoles, MoveError, Refusal, Side, TablespaceUse,
    name::OperationId,
    plan::refuse_server,
    replicas::{ReplicaPolicy, Seeded},
    server::Server,
};

/// What is asked for.
#[derive(Clone, Debug)]
pub struct TablesRequest {
    /// The operation's identifier.
    pub operation: OperationId,
    /// The server that the tables come from, as a superuser. It is changed.
    pub source: ConnectionSpec,
    /// The database there.
    pub source_database: String,
    /// The server that they go to, as a superuser.
    pub target: ConnectionSpec,
    /// The tables; partitions come with them.
    pub tables: Vec<TableName>,
    /// Where they go.
    pub place: Place,
    /// What if roles are missing.
    pub missing_roles: MissingRoles,
    /// Which tablespaces they lie in.
    pub tablespaces: TablespaceUse,
    /// Replicas that are to have them, by their application names, besides those that are connected.
    pub replicas: Vec<String>,
    /// What if replicas do not keep up.
    pub replica_policy: ReplicaPolicy,
    /// `pg_dump` and `pg_restore`: not older than the source, not newer than the target.
    pub binaries: PgBinaries,
    /// Streams at a time.
    pub jobs: usize,
    /// A directory of this operation's own, for definitions and the journal.
    pub work_directory: PathBuf,
}

/// Where tables go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The database, which is there.
    pub database: String,
    /// Another name for the one table.
    pub new_name: Option<TableName>,
}

/// A move that was carried out.
#[derive(Clone, Debug, PartialEq)]
pub struct TablesMoved {
    /// The tables, by their new names.
    pub tables: Vec<TableName>,
    /// What could not be had: what, why, and how to have it.
    pub not_taken: Vec<String>,
    /// Rows that were copied.
    pub rows: u64,
    /// Which replicas have them.
    pub replicas: Seeded,
}

/// Looks at the target alone, for what speaks against any tables of these names and this version. What depends on
/// what they are made of is found by [`plan()`], when there is a source.
///
/// # Errors
/// As for [`plan()`].
pub async fn check_target(
    target: &ConnectionSpec,
    tables: &[TableName],
    place: &Place,
    source_version: MajorVersion,
) -> Result<(), MoveError> {
    let server = Server::new(Side::Target, target);
    let mut refusals = Vec::new();
    if let (Some(_), 2..) = (&place.new_name, tables.len()) {
        refusals.push(Refusal::OneName {
            count: tables.len(),
        });
    }
    let Some(session) = target::connect(&server, &place.database).await? else {
        refusals.push(Refusal::NoDatabase {
            database: place.database.clone(),
        });
        return Ok(refuse(refusals)?);
    };
    let names = place.new_name.as_ref().map_or(tables, std::slice::from_ref);
    let schemas: Vec<String> = names.iter().map(|name| name.schema.clone()).collect();
    let facts = TargetDatabase::read(&session, &schemas).await?;
    refuse_server(source_version, &facts.server, &mut refusals);
    for name in names.iter().filter(|name| facts.has(name)) {
        refusals.push(Refusal::TableTaken {
            table: name.to_string(),
        });
    }
    Ok(refuse(refusals)?)
}

/// Looks at both servers. Nothing is changed in the target; in the source the tables are taken out of what is around
/// them.
///
/// # Errors
/// [`MoveError::Refused`] with everything that speaks against the move, and others when a server cannot be asked.
pub async fn plan(request: TablesRequest) -> Result<TablesPlan, MoveError> {
    let source = Server::new(Side::Source, &request.source);
    let source = source.connect(&request.source_database).await?;
    let version = super::source::version(&source).await?;
    check_target(&request.target, &request.tables, &request.place, version).await?;
    let quiet = "SET search_path = ''";
    source.run("prepare a session", quiet).await?;
    let mut refusals = Vec::new();
    let roots = source::find(&source, &request.tables, &mut refusals).await?;
    refuse(refusals)?;
    let loosened = loosen(&source, &roots).await?;
    let tables = SourceTables::read(&source, &roots).await?;
    let server = Server::new(Side::Target, &request.target);
    let target = server.connect(&request.place.database).await?;
    target.run("prepare a session", quiet).await?;
    let schemas: Vec<String> = match &request.place.new_name {
        Some(name) => vec![name.schema.clone()],
        None => tables
            .items
            .iter()
            .map(|item| item.name.schema.clone())
            .collect(),
    };
    let referenced: Vec<TableName> = tables
        .foreign_keys
        .iter()
        .map(|key| key.referenced.clone())
        .collect();
    let facts = Facts {
        answers: target::answers(&target, &tables.needs).await?,
        referenced: target::existing(&target, &referenced).await?,
        target: TargetDatabase::read(&target, &schemas).await?,
        source: tables,
        loosened,
    };
    Ok(plan::make(request, facts)?)
}
