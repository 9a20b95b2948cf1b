//! Deleting a database, so that it can be had back to its last transaction.

use everpoint_instance::grant::quote_identifier;
use everpoint_pgformat::Oid;

use super::{stored::position, work::Teller};
use crate::{
    audit::Outcome,
    catalog::{DatabaseOperation, DatabaseRequest, OperationId},
    service::{Service, operations::Failure},
};

/// Sessions in a database, for a person.
const SESSIONS: &str = "SELECT format('%s of %s, from %s', pid, coalesce(usename, 'nobody'), \
    coalesce(nullif(application_name, ''), client_addr::text, 'this machine')) \
    FROM pg_stat_activity WHERE datname = $1 ORDER BY pid LIMIT 100";
const EXISTS: &str = "SELECT oid FROM pg_database WHERE datname = $1";

impl Service {
    /// Stores the log up to now, drops the database with the sessions in it, and stores the log of that, too.
    pub(super) async fn delete(
        &self,
        operation: &DatabaseOperation,
        teller: &Teller,
    ) -> Result<(), Failure> {
        let observed = self.instance_of(operation)?;
        let name = &operation.name;
        let session = self.admin_session(&observed, name).await?;
        let failed = |error: tokio_postgres::Error| failure(name, &crate::chain(&error));
        let asked = match &operation.request {
            DatabaseRequest::Delete {
                instead_of: Some(id),
                ..
            } => match self.made_by(*id).await? {
                Some(made) => Some(made.get()),
                // Whatever has the name is somebody else's.
                None => {
                    teller.say("it was not made");
                    return Ok(());
                }
            },
            DatabaseRequest::Delete { oid, .. } => *oid,
            _ => None,
        };
        let is_there = async || -> Result<bool, Failure> {
            let found = session.query_opt(EXISTS, &[name]).await.map_err(failed)?;
            let found: Option<u32> = match found {
                None => None,
                Some(row) => Some(row.try_get(0).map_err(failed)?),
            };
            Ok(match found {
                // An earlier attempt came so far, or somebody else was faster.
                None => {
                    teller.say("it is not there any more");
                    false
                }
                Some(found) if asked.is_some_and(|asked| asked != found) => {
                    teller
                        .say("it is not there any more; another database has its name, and stays");
                    false
                }
                Some(_) => true,
            })
        };
        if !is_there().await? {
            self.look_at_server(&observed.name).await;
            return Ok(());
        }
        teller.progress.phase("backing up the tail of the log", 0);
        let tail = position(&session, &observed).await.map_err(failed)?;
        self.store_log_until(&observed, tail, teller).await?;
        teller.say(format!("the log is stored up to {tail}"));
        // That may have taken minutes. When another server took this over, it is cancelled here.
        if teller.progress.is_cancelled() {
            return Err(failure(name, "it was cancelled"));
        }
        if !is_there().await? {
            self.look_at_server(&observed.name).await;
            return Ok(());
        }
        for row in session.query(SESSIONS, &[name]).await.map_err(failed)? {
            let who: String = row.try_get(0).unwrap_or_default();
            teller.say(format!("ends session {who}"));
            self.audit_database(operation, Outcome::Done, &format!("ends session {who}"));
        }
        teller.progress.phase("dropping", 0);
        let sql = format!(
            "DROP DATABASE IF EXISTS {} WITH (FORCE)",
            quote_identifier(name)
        );
        if let Err(error) = session.batch_execute(&sql).await {
            let said = error
                .as_db_error()
                .map_or_else(|| crate::chain(&error), |said| said.message().to_owned());
            return Err(failure(name, &said));
        }
        teller.say("dropped");
        self.look_at_server(&observed.name).await;
        teller.progress.phase("backing up the log of the drop", 0);
        let end = position(&session, &observed).await.map_err(failed)?;
        if let Err(failure) = self.store_log_until(&observed, end, teller).await {
            // It is gone, and what it held is stored.
            teller.say(format!(
                "the log of the drop is not stored yet: {}",
                failure.text
            ));
        }
        self.look_at_repository(&observed.name).await;
        Ok(())
    }
}

impl Service {
    /// The database that an operation made, or was about to give its name.
    async fn made_by(&self, id: OperationId) -> Result<Option<Oid>, Failure> {
        let found = self.catalog.database_operation(id).await;
        let found = found.map_err(|error| Failure {
            code: "DeleteFailed",
            text: crate::chain(&error),
        })?;
        Ok(found.and_then(|found| found.made))
    }
}

fn failure(name: &str, said: &str) -> Failure {
    Failure {
        code: "DeleteFailed",
        text: format!("database `{name}` was not deleted: {said}"),
    }
}
