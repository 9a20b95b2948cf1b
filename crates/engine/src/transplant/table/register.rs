//! The last step: the tables go from their hidden schemas to where they are to be, in one transaction.

use everpoint_instance::grant::quote_identifier;
use serde::{Deserialize, Serialize};

use super::{
    arrange::keyword,
    hidden,
    name::{TableName, quoted},
    plan::TablesPlan,
};
use crate::transplant::{
    error::MoveError,
    name::OperationId,
    server::{Server, Session},
};

const WHAT: &str = "register the tables";
/// How long a foreign key waits for the table that it points to. Whoever wants to write there waits behind it.
const KEY_PATIENCE: &str = "lock_timeout = '3s'";
/// `ERRCODE_LOCK_NOT_AVAILABLE`.
const NO_LOCK: &str = "55P03";
/// `ERRCODE_DUPLICATE_TABLE`, `ERRCODE_DUPLICATE_OBJECT`, `ERRCODE_DUPLICATE_SCHEMA`.
const DUPLICATES: [&str; 3] = ["42P07", "42710", "42P06"];

/// What registering does, whole: it stands in the journal, so that a later start can do it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableRegistration {
    /// The operation.
    pub operation: OperationId,
    /// The database.
    pub database: String,
    /// What is asked for, by its new names.
    pub tables: Vec<TableName>,
    /// What makes schemas that are missing.
    pub schemas: Vec<String>,
    /// Everything that goes to another schema.
    pub moves: Vec<String>,
    /// The schemas that are empty then.
    pub hidden: Vec<String>,
    /// Keys to tables that were not moved.
    pub foreign_keys: Vec<ForeignKey>,
    /// Roles that were made for them.
    pub new_roles: Vec<String>,
}

/// A foreign key to a table of the target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignKey {
    /// The table that has it, by its new name.
    pub table: TableName,
    /// Its name.
    pub name: String,
    /// What comes behind the name.
    pub definition: String,
    /// Whether rows are looked at after it was made, when nobody has to wait for that.
    pub validate_later: bool,
}

impl TableRegistration {
    pub(super) fn of(plan: &TablesPlan) -> Self {
        let hidden = plan.hidden();
        let moving = plan.placed.iter().filter(|placed| !placed.follows);
        let moves = moving.filter_map(|placed| {
            let schema = hidden.get(placed.hidden)?;
            Some(format!(
                "ALTER {} {} SET SCHEMA {}",
                keyword(placed.kind),
                quoted(schema, &placed.to.table),
                quote_identifier(&placed.to.schema)
            ))
        });
        Self {
            operation: plan.operation(),
            database: plan.request.place.database.clone(),
            tables: plan.roots().map(|placed| placed.to.clone()).collect(),
            schemas: plan.schema_statements.clone(),
            moves: moves.collect(),
            hidden,
            foreign_keys: plan.foreign_keys.clone(),
            new_roles: plan.new_roles.clone(),
        }
    }

    /// What they are called, for a person.
    pub fn names(&self) -> String {
        let names: Vec<String> = self.tables.iter().map(TableName::to_string).collect();
        names.join(", ")
    }

    /// What must succeed.
    fn statements(&self) -> Vec<String> {
        let mut statements = self.schemas.clone();
        statements.extend(self.moves.iter().cloned());
        // Without CASCADE: if anything is left in there, something is wrong.
        statements.extend(
            self.hidden
                .iter()
                .map(|schema| format!("DROP SCHEMA {}", quote_identifier(schema))),
        );
        statements.extend(
            self.new_roles
                .iter()
                .map(|role| format!("COMMENT ON ROLE {} IS NULL", quote_identifier(role))),
        );
        statements
    }
}

impl ForeignKey {
    fn constraint(&self, action: &str) -> String {
        format!(
            "ALTER TABLE {} {action} CONSTRAINT {}",
            self.table.quoted(),
            quote_identifier(&self.name)
        )
    }

    /// As it is said that it could not be had: what, why, and how to have it.
    fn lost(&self, why: impl std::fmt::Display) -> String {
        format!(
            "foreign key `{}` of {}: {why}. To make it: {} {}",
            self.name,
            self.table,
            self.constraint("ADD"),
            self.definition
        )
    }
}

/// Registers. Returns what could not be had.
pub(in crate::transplant) async fn register(
    server: &Server,
    registration: &TableRegistration,
) -> Result<Vec<String>, MoveError> {
    let session = server.connect(&registration.database).await?;
    let mut lost = match in_one_transaction(&session, registration).await {
        Ok(lost) => lost,
        Err(MoveError::Lost { side, what, source }) => {
            // A session that breaks during the commit does not tell whether it came about; the server does.
            let session = server.connect(&registration.database).await?;
            match is_done(&session, registration).await? {
                true => Vec::new(),
                false => return Err(MoveError::Lost { side, what, source }),
            }
        }
        Err(error) if error.code().is_some_and(|code| DUPLICATES.contains(&code)) => {
            return Err(MoveError::NameTaken {
                name: registration.names(),
            });
        }
        Err(error) => return Err(error),
    };
    lost.extend(validate(server, registration).await?);
    Ok(lost)
}

/// Whether they were registered: the hidden schemas go in the same transaction.
pub(in crate::transplant) async fn is_done(
    session: &Session,
    registration: &TableRegistration,
) -> Result<bool, MoveError> {
    let left = hidden::of_operation(session, registration.operation).await?;
    Ok(left.is_empty())
}

/// It is on disk, and where replication is synchronous also there, when this returns.
async fn in_one_transaction(
    session: &Session,
    registration: &TableRegistration,
) -> Result<Vec<String>, MoveError> {
    let mut lost = Vec::new();
    session
        .run(WHAT, "BEGIN; SET LOCAL search_path = ''")
        .await?;
    for statement in registration.statements() {
        session.run(WHAT, &statement).await?;
    }
    let patience = format!("SET LOCAL {KEY_PATIENCE}");
    session.run(WHAT, &patience).await?;
    for key in &registration.foreign_keys {
        let sql = format!("{} {}", key.constraint("ADD"), key.definition);
        session.run(WHAT, "SAVEPOINT foreign_key").await?;
        match session.run(WHAT, &sql).await {
            Ok(()) => session.run(WHAT, "RELEASE foreign_key").await?,
            Err(MoveError::Statement { message, .. }) => {
                session.run(WHAT, "ROLLBACK TO foreign_key").await?;
                lost.push(key.lost(message));
            }
            Err(error) => return Err(error),
        }
    }
    session.run(WHAT, "COMMIT").await?;
    Ok(lost)
}

/// Looks whether all rows fit the foreign keys, while others read and write; takes those away that they do not fit. May
/// be done again. Returns what was taken away, or could not be looked at.
pub(in crate::transplant) async fn validate(
    server: &Server,
    registration: &TableRegistration,
) -> Result<Vec<String>, MoveError> {
    let mut lost = Vec::new();
    let session = server.connect(&registration.database).await?;
    session.run(WHAT, &format!("SET {KEY_PATIENCE}")).await?;
    let later = registration.foreign_keys.iter();
    for key in later.filter(|key| key.validate_later) {
        if is_unvalidated(&session, key).await? {
            lost.extend(validate_one(&session, key).await?);
        }
    }
    Ok(lost)
}

async fn validate_one(session: &Session, key: &ForeignKey) -> Result<Option<String>, MoveError> {
    let message = match session.run(WHAT, &key.constraint("VALIDATE")).await {
        Ok(()) => return Ok(None),
        Err(MoveError::Statement { message, .. }) => message,
        Err(error) => return Err(error),
    };
    let dropped = match message.code() {
        NO_LOCK => false,
        _ => match session.run(WHAT, &key.constraint("DROP")).await {
            Ok(()) => true,
            Err(MoveError::Statement { .. }) => false,
            Err(error) => return Err(error),
        },
    };
    Ok(Some(match dropped {
        true => key.lost(message),
        false => format!(
            "rows of foreign key `{}` of {} for valid: {message}. It stays NOT VALID, and holds for what is written from \
             now on. To look again: {}",
            key.name,
            key.table,
            key.constraint("VALIDATE")
        ),
    }))
}

/// Whether the key is there, and nobody has looked yet.
async fn is_unvalidated(session: &Session, key: &ForeignKey) -> Result<bool, MoveError> {
    let sql = "SELECT EXISTS (SELECT FROM pg_constraint WHERE conrelid = to_regclass($1) AND conname::text = $2 \
        AND contype = 'f' AND NOT convalidated)";
    let table = key.table.quoted();
    session.value(WHAT, sql, &[&table, &key.name]).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_cannot_be_had_is_said_with_what_makes_it() {
        let key = ForeignKey {
            table: "public.\"Old\"".parse().unwrap(),
            name: "of customer".to_owned(),
            definition: "FOREIGN KEY (c) REFERENCES public.customers(id) NOT VALID".to_owned(),
            validate_later: true,
        };
        let text = key.lost("no such row");
        assert!(text.ends_with(
            "To make it: ALTER TABLE \"public\".\"Old\" ADD CONSTRAINT \"of customer\" \
             FOREIGN KEY (c) REFERENCES public.customers(id) NOT VALID"
        ));
    }
}
