//! The database that files are put into, and the one that is made of it.

use everpoint_instance::grant::{quote_identifier, quote_literal};

use crate::transplant::{
    MoveError, MovePlan, create,
    server::{Server, Session},
};

/// How `DROP DATABASE` marks what it has begun to remove (`DATCONNLIMIT_INVALID_DB`,
/// `src/include/catalog/pg_database.h`).
const INVALID: i32 = -2;
/// For nobody but superusers.
const NOBODY: i32 = 0;

/// Makes the vessel and marks it as invalid. By file copy, since the other way leaves its pages in buffers.
pub(super) async fn create(plan: &MovePlan, working: &Server) -> Result<(), MoveError> {
    let session = working.connect_any().await?;
    let operation = plan.operation();
    let name = operation.vessel_name();
    let quoted = quote_identifier(&name);
    let sql = format!(
        "CREATE DATABASE {quoted} TEMPLATE template0 STRATEGY file_copy OID {} ALLOW_CONNECTIONS false \
         CONNECTION LIMIT {NOBODY} {}",
        operation.vessel_number(),
        create::options(&plan.locale, plan.target_version.get())
    );
    session.run("create the database for files", &sql).await?;
    mark(&session, &name, INVALID).await?;
    // Somebody may have got in between: autovacuum, when template0 is near the end of its transactions' numbers.
    create::end_sessions_in(&session, &name).await?;
    let sql = format!(
        "COMMENT ON DATABASE {quoted} IS {}",
        quote_literal(&operation.marker())
    );
    session.run("describe the database for files", &sql).await
}

async fn mark(session: &Session, name: &str, limit: i32) -> Result<(), MoveError> {
    let sql = format!(
        "UPDATE pg_catalog.pg_database SET datconnlimit = {limit} WHERE datname = {}",
        quote_literal(name)
    );
    session.run("mark the database for files", &sql).await
}

/// Every page goes into the log whole. Where the server can compress that with little work, it is to: there is less to
/// write, to send to standbys, and to back up.
async fn compress_log(session: &Session) -> Result<(), MoveError> {
    let sql = "SELECT count(*) FROM pg_settings \
        WHERE name = 'wal_compression' AND setting = 'off' AND 'lz4' = ANY (enumvals)";
    let count: i64 = session.value("ask for compression", sql, &[]).await?;
    match count {
        0 => Ok(()),
        _ => {
            session
                .run("set compression", "SET wal_compression = lz4")
                .await
        }
    }
}

/// Makes the hidden database of the vessel, whose files are in place.
pub(super) async fn copy(plan: &MovePlan, working: &Server) -> Result<(), MoveError> {
    let session = working.connect_any().await?;
    let operation = plan.operation();
    let vessel = operation.vessel_name();
    mark(&session, &vessel, NOBODY).await?;
    compress_log(&session).await?;
    let sql = format!(
        "CREATE DATABASE {} TEMPLATE {} STRATEGY wal_log OID {} CONNECTION LIMIT {NOBODY} TABLESPACE {}",
        quote_identifier(&plan.hidden),
        quote_identifier(&vessel),
        operation.hidden_number(),
        quote_identifier(&plan.locale.tablespace)
    );
    session.run("create the database", &sql).await?;
    mark(&session, &vessel, INVALID).await?;
    create::hide(&session, plan).await
}
