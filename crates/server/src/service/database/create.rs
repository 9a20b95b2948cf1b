//! Making an empty database.

use std::time::Duration;

use everpoint_engine::transplant::name::OperationId;
use everpoint_instance::grant::{quote_identifier, quote_literal};
use everpoint_pgformat::Oid;

use uuid::Uuid;

use super::work::Teller;
use crate::{
    catalog::DatabaseOperation,
    service::{Observed, Service, operations::Failure},
};

/// A template that somebody is connected to cannot be copied; so often it is tried again.
const ATTEMPTS: u32 = 10;
const PAUSE: Duration = Duration::from_secs(1);
/// SQLSTATE: somebody is connected to the template.
const OBJECT_IN_USE: &str = "55006";
/// SQLSTATE: the name has a database.
const DUPLICATE_DATABASE: &str = "42P04";
/// SQLSTATE: it got the name in this moment.
const UNIQUE_VIOLATION: &str = "23505";
/// SQLSTATE: there is no such locale.
const WRONG_OBJECT_TYPE: &str = "42809";

impl Service {
    /// Makes it. Its owner is the superuser of the instance.
    pub(super) async fn create(
        &self,
        operation: &DatabaseOperation,
        collation: Option<&str>,
        teller: &Teller,
    ) -> Result<(), Failure> {
        let observed = self.instance_of(operation)?;
        // By its number it is known again, should this end before it is written down that it was made.
        if let Some(made) = operation.made
            && self.is_made_after_all(&observed, operation, made).await?
        {
            return self.made(&observed, teller).await;
        }
        // A server that crashed may have left the directory of the last one.
        let id = operation
            .row
            .id
            .as_u128()
            .wrapping_add(operation.attempts.into());
        let oid = OperationId::from(Uuid::from_u128(id)).hidden_number();
        let set = self.catalog.set_made(operation, oid).await;
        let is_wanted = set.map_err(|error| Failure {
            code: "CreateFailed",
            text: crate::chain(&error),
        })?;
        if !is_wanted {
            return Err(Failure {
                code: "OperationCancelled",
                text: "it was begun anew elsewhere".to_owned(),
            });
        }
        let session = self.admin_session(&observed, &operation.name).await?;
        let sql = statement(&operation.name, oid, collation);
        teller.progress.phase("creating", 0);
        let mut attempts = 1;
        loop {
            let Err(error) = session.batch_execute(&sql).await else {
                break;
            };
            let code = error.code().map(|code| code.code().to_owned());
            match code.as_deref() {
                Some(OBJECT_IN_USE) if attempts < ATTEMPTS => {
                    attempts += 1;
                    teller.say("the template is in use; trying again");
                    tokio::time::sleep(PAUSE).await;
                }
                // What an earlier attempt began may have come to its end since.
                Some(DUPLICATE_DATABASE | UNIQUE_VIOLATION)
                    if let Some(made) = operation.made
                        && self.is_registered(&observed, operation, made).await? =>
                {
                    break;
                }
                code => return Err(failure(&operation.name, collation, code, &error)),
            }
        }
        self.made(&observed, teller).await
    }

    async fn made(&self, observed: &Observed, teller: &Teller) -> Result<(), Failure> {
        teller.say("made");
        self.look_at_server(&observed.name).await;
        Ok(())
    }

    /// Whether an attempt that the service's end interrupted made it. The server may be about to.
    async fn is_made_after_all(
        &self,
        observed: &Observed,
        operation: &DatabaseOperation,
        made: Oid,
    ) -> Result<bool, Failure> {
        for _ in 0..ATTEMPTS {
            if self.is_registered(observed, operation, made).await? {
                return Ok(true);
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(false)
    }
}

/// Another collation than the template's needs the template that holds nothing.
fn statement(name: &str, oid: Oid, collation: Option<&str>) -> String {
    let (name, oid) = (quote_identifier(name), oid.get());
    match collation {
        None => format!("CREATE DATABASE {name} OID {oid}"),
        Some(collation) => {
            let collation = quote_literal(collation);
            format!(
                "CREATE DATABASE {name} OID {oid} TEMPLATE template0 LC_COLLATE {collation} LC_CTYPE {collation}"
            )
        }
    }
}

fn failure(
    name: &str,
    collation: Option<&str>,
    code: Option<&str>,
    error: &tokio_postgres::Error,
) -> Failure {
    let said = error
        .as_db_error()
        .map_or_else(|| crate::chain(error), |said| said.message().to_owned());
    match (code, collation) {
        (Some(DUPLICATE_DATABASE), _) => Failure {
            code: "ManagedDatabaseNameInUse",
            text: format!("database `{name}` exists. Choose another name"),
        },
        (Some(WRONG_OBJECT_TYPE), Some(collation)) => Failure {
            code: "InvalidParameterValue",
            text: format!(
                "the server has no collation `{collation}` for a database ({said}). Leave it out, or give one of the server's locales, as `locale -a` lists them there"
            ),
        },
        _ => Failure {
            code: "CreateFailed",
            text: format!("the server did not make database `{name}`: {said}"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_collations_are_quoted() {
        let oid = Oid::new(7);
        assert_eq!(
            statement("a\"b", oid, None),
            "CREATE DATABASE \"a\"\"b\" OID 7"
        );
        assert_eq!(
            statement("x", oid, Some("C' ; DROP")),
            "CREATE DATABASE \"x\" OID 7 TEMPLATE template0 LC_COLLATE 'C'' ; DROP' LC_CTYPE 'C'' ; DROP'"
        );
    }
}
