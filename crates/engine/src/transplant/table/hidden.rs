//! The hidden schemas: made, filled by us alone, and removed.

use everpoint_instance::grant::{quote_identifier, quote_literal};

use super::target;
use crate::transplant::{
    create,
    error::MoveError,
    name::OperationId,
    server::{Server, Session},
};

/// Tables dropped by one statement. Each is locked, with its indexes, until that has ended.
const DROPPED_AT_ONCE: usize = 50;

/// Makes the hidden schemas, which nobody may enter, whatever default privileges say.
pub(super) async fn make_hidden(
    target: &Session,
    hidden: &[String],
    operation: OperationId,
) -> Result<(), MoveError> {
    let what = "make the hidden schemas";
    let mut sql = "BEGIN".to_owned();
    for schema in hidden {
        let name = quote_identifier(schema);
        let marker = quote_literal(&operation.marker());
        sql.push_str(&format!(
            "; CREATE SCHEMA {name}; COMMENT ON SCHEMA {name} IS {marker}"
        ));
    }
    target.run(what, &sql).await?;
    let sql = "SELECT DISTINCT format('REVOKE ALL ON SCHEMA %I FROM %s', n.nspname, \
            coalesce((SELECT quote_ident(rolname) FROM pg_roles WHERE oid = g.grantee), 'PUBLIC')) \
        FROM pg_namespace n, aclexplode(n.nspacl) g WHERE n.nspname::text = ANY ($1) AND g.grantee <> n.nspowner";
    let mut statements: Vec<String> = target.column(what, sql, &[&hidden]).await?;
    statements.push("COMMIT".to_owned());
    target.run(what, &statements.join(";")).await
}

/// Removes whatever an operation has made in the database and has not registered. Does nothing when there is nothing.
pub(in crate::transplant) async fn remove(
    server: &Server,
    database: &str,
    operation: OperationId,
) -> Result<(), MoveError> {
    let any = server.connect_any().await?;
    create::end_sessions(&any, operation).await?;
    if let Some(session) = target::connect(server, database).await? {
        drop_schemas(&session, operation).await?;
    }
    create::drop_roles(&any, operation).await
}

async fn drop_schemas(session: &Session, operation: OperationId) -> Result<(), MoveError> {
    let what = "drop the hidden schemas";
    let schemas = of_operation(session, operation).await?;
    // Partitions first, and not all in one transaction: there may be more than locks.
    let sql = "SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
        WHERE n.nspname::text = ANY ($1) AND c.relkind = 'r' ORDER BY NOT c.relispartition, c.oid";
    let tables: Vec<String> = session.column(what, sql, &[&schemas]).await?;
    for tables in tables.chunks(DROPPED_AT_ONCE) {
        let sql = format!("DROP TABLE IF EXISTS {} CASCADE", tables.join(", "));
        session.run(what, &sql).await?;
    }
    for schema in schemas {
        let sql = format!(
            "DROP SCHEMA IF EXISTS {} CASCADE",
            quote_identifier(&schema)
        );
        session.run(what, &sql).await?;
    }
    Ok(())
}

/// The hidden schemas of an operation that are there.
pub(super) async fn of_operation(
    session: &Session,
    operation: OperationId,
) -> Result<Vec<String>, MoveError> {
    let all = all(session).await?;
    let own = all
        .into_iter()
        .filter(|name| OperationId::of_hidden(name) == Some(operation));
    Ok(own.collect())
}

/// All hidden schemas of a database.
pub(super) async fn all(session: &Session) -> Result<Vec<String>, MoveError> {
    let sql = "SELECT nspname::text FROM pg_namespace WHERE nspname LIKE 'everpoint\\_restoring\\_%' ORDER BY 1";
    session.column("look for hidden schemas", sql, &[]).await
}
