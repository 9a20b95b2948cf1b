//! Transactions that were prepared and not ended, in a copy that nobody will end them in.

use crate::connect::{QueryError, SqlClient};

const WHAT: &str = "roll back prepared transactions";
const PREPARED: &str = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database() \
    ORDER BY prepared";

/// Rolls back all that were prepared in the session's database, and gives their names. They would hold
/// their locks, and keep rows from being frozen. What was prepared in other databases can only be ended there.
///
/// # Errors
/// When one cannot be rolled back.
pub async fn roll_back_prepared(session: &SqlClient) -> Result<Vec<String>, QueryError> {
    let rows = session
        .query(PREPARED, &[])
        .await
        .map_err(QueryError::when(WHAT))?;
    let mut names = Vec::new();
    for row in rows {
        let name: String = row
            .try_get(0)
            .map_err(|error| QueryError::answer(WHAT, error))?;
        let statement = format!("ROLLBACK PREPARED '{}'", name.replace('\'', "''"));
        session
            .batch_execute(&statement)
            .await
            .map_err(QueryError::when(WHAT))?;
        names.push(name);
    }
    Ok(names)
}
