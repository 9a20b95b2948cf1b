//! Databases that are made, changed and deleted.

use std::collections::BTreeMap;

use everpoint_api::{ApiError, Code, restore::DatabaseRequest as Body};
use everpoint_engine::transplant::name::{DatabaseName, NameError};
use uuid::Uuid;

use super::{asynchronous::accepted, database, instance, restore};
use crate::{
    catalog::{
        DatabaseOperation, DatabaseRequest, DatabaseRow, OperationKind, OperationState, Tags,
    },
    http::Answer,
    service::{Caller, Observed, Service},
};

/// So many characters of tags are written down with the change of them.
const SHOWN_TAGS: usize = 500;

/// How a database is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreateMode {
    /// Empty.
    Default,
    /// As another one was.
    PointInTimeRestore,
    /// As the last backup has it.
    Recovery,
    /// From a copy that is kept for long.
    LongTerm,
    /// From files of elsewhere.
    External,
}

impl CreateMode {
    const ALL: [(&'static str, Self); 5] = [
        ("Default", Self::Default),
        ("PointInTimeRestore", Self::PointInTimeRestore),
        ("Recovery", Self::Recovery),
        ("RestoreLongTermRetentionBackup", Self::LongTerm),
        ("RestoreExternalBackup", Self::External),
    ];

    fn parse(text: &str) -> Result<Self, ApiError> {
        let found = Self::ALL
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(text));
        found.map(|(_, mode)| *mode).ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|(name, _)| *name).collect();
            let message = format!(
                "`{text}` is no createMode. It is one of {}",
                names.join(", ")
            );
            ApiError::new(Code::InvalidParameterValue, message).about("createMode")
        })
    }
}

/// Who asks. Nobody comes here without a token.
pub fn actor(caller: &Caller<'_>) -> Result<Uuid, ApiError> {
    caller.principal.ok_or_else(|| {
        let text = "the request carries no bearer token. Get one from the token endpoint";
        ApiError::new(Code::AuthenticationFailed, text)
    })
}

/// Makes or restores a database that is not there. Of one that is there nothing but its tags can be changed this way,
/// and a PUT without `createMode` restores nothing.
pub async fn put(service: &Service, caller: &Caller<'_>) -> Result<Answer, ApiError> {
    let observed = instance::known(service, caller)?;
    let name = caller.parameters.get("database");
    let body: Body = match caller.body.is_empty() {
        true => Body::default(),
        false => caller.json()?,
    };
    let tags = checked(body.tags)?;
    let wish = body.properties.unwrap_or_default();
    let mode = wish
        .create_mode
        .as_deref()
        .map(CreateMode::parse)
        .transpose()?;
    let mode = mode.unwrap_or(CreateMode::Default);
    if let Some(making) = database::making(service, &observed, name).await? {
        return Err(conflict(&making));
    }
    match (mode, database::find(service, &observed, name).await?) {
        (CreateMode::Default, Some(row)) => {
            let row = with_tags(service, caller, &observed, row, tags).await?;
            return Ok(database::answer(service, &observed, &row));
        }
        (_, Some(row)) => {
            let text = format!(
                "database `{}` exists. Restore under another name, or delete it first",
                row.name
            );
            return Err(ApiError::new(Code::ManagedDatabaseNameInUse, text).about(name));
        }
        (_, None) => check_new_name(name)?,
    }
    let request = match mode {
        CreateMode::Default => DatabaseRequest::Create {
            collation: wish.collation.filter(|collation| !collation.is_empty()),
        },
        CreateMode::PointInTimeRestore => DatabaseRequest::Restore(
            restore::point_in_time(service, caller, &observed, &wish).await?,
        ),
        CreateMode::Recovery => {
            DatabaseRequest::Restore(restore::recovery(service, caller, &wish).await?)
        }
        CreateMode::LongTerm => {
            DatabaseRequest::Restore(restore::long_term(service, caller, &wish).await?)
        }
        CreateMode::External => {
            let text = "files of other products cannot be restored: createMode RestoreExternalBackup is not offered. Restore from the instance's own backups: PointInTimeRestore";
            return Err(
                ApiError::new(Code::ManagementServiceFeatureDisabled, text).about("createMode")
            );
        }
    };
    let tags = tags.unwrap_or_default();
    let row = service
        .enqueue(actor(caller)?, &observed.name, name, request, tags)
        .await?;
    Ok(accepted(service, caller, &row))
}

/// Sets the tags of a database; nothing else of it can be changed this way.
pub async fn patch(service: &Service, caller: &Caller<'_>) -> Result<Answer, ApiError> {
    let (observed, row) = database::living(service, caller).await?;
    let body: Body = match caller.body.is_empty() {
        true => Body::default(),
        false => caller.json()?,
    };
    let tags = checked(body.tags)?;
    let row = with_tags(service, caller, &observed, row, tags).await?;
    Ok(database::answer(service, &observed, &row))
}

fn checked(tags: Option<BTreeMap<String, String>>) -> Result<Option<Tags>, ApiError> {
    let tags = tags.map(Tags::new).transpose();
    tags.map_err(|error| {
        ApiError::new(Code::InvalidParameterValue, error.to_string()).about("tags")
    })
}

/// A database with these tags instead of its own, if there are any given.
async fn with_tags(
    service: &Service,
    caller: &Caller<'_>,
    observed: &Observed,
    row: DatabaseRow,
    tags: Option<Tags>,
) -> Result<DatabaseRow, ApiError> {
    let Some(tags) = tags.filter(|tags| *tags != row.tags) else {
        return Ok(row);
    };
    let (instance, name) = (&observed.name, &row.name);
    let set = service.catalog().set_tags(instance, name, &tags).await;
    if !set.map_err(|error| super::internal(&error))? {
        return Err(super::not_found("database", name));
    }
    let shown = match tags.is_empty() {
        true => "none".to_owned(),
        false => tags.to_string().chars().take(SHOWN_TAGS).collect(),
    };
    let what = format!("tags of `{name}`: {shown}");
    service
        .note_done(OperationKind::TagChange, instance, actor(caller)?, &what)
        .await;
    service.store_policies(instance).await;
    Ok(DatabaseRow { tags, ..row })
}

/// Deletes a database, or ends its being made.
pub async fn delete(service: &Service, caller: &Caller<'_>) -> Result<Answer, ApiError> {
    let observed = instance::known(service, caller)?;
    let name = caller.parameters.get("database");
    if let Some(making) = database::making(service, &observed, name).await? {
        return end_making(service, caller, &observed, &making).await;
    }
    let Some(row) = database::find(service, &observed, name).await? else {
        return Ok(Answer::empty(204));
    };
    check_name(&row.name)?;
    let request = DatabaseRequest::Delete {
        instead_of: None,
        oid: Some(row.oid),
    };
    let row = service
        .enqueue(
            actor(caller)?,
            &observed.name,
            &row.name,
            request,
            Tags::default(),
        )
        .await?;
    Ok(accepted(service, caller, &row))
}

/// Deleting a database that is being made cancels that. Where that comes too late the database is deleted.
async fn end_making(
    service: &Service,
    caller: &Caller<'_>,
    observed: &Observed,
    making: &DatabaseOperation,
) -> Result<Answer, ApiError> {
    let actor = actor(caller)?;
    let request = DatabaseRequest::Delete {
        instead_of: Some(making.row.id),
        oid: None,
    };
    let row = service
        .enqueue(
            actor,
            &observed.name,
            &making.name,
            request,
            Tags::default(),
        )
        .await?;
    match service.cancel_asked(&making.row, actor).await {
        // It has ended in this moment, or cannot be cancelled: then it ends, and the database goes behind that.
        Err(error) if error.code != Code::CannotCancelOperation => Err(error),
        _ => Ok(accepted(service, caller, &row)),
    }
}

pub(super) fn conflict(making: &DatabaseOperation) -> ApiError {
    let what = match (making.row.kind, making.row.state) {
        (OperationKind::Create, _) => "being created",
        (_, OperationState::Pending) => "waiting to be restored",
        _ => "being restored",
    };
    let text = format!(
        "database `{}` is {what} by operation {}. Wait for its end, or delete the database to cancel it",
        making.name, making.row.id
    );
    ApiError::new(Code::ConflictingDatabaseOperation, text).about(&*making.name)
}

/// What no name has in Azure, and what paths would need to be written otherwise.
const RESERVED: &str = "<>*%&:\\/?#";

/// That a new database may be called so. One that is there may be called otherwise, too: SQL allows it.
fn check_new_name(name: &str) -> Result<(), ApiError> {
    check_name(name)?;
    if name.contains(|letter| RESERVED.contains(letter)) || name.ends_with('.') {
        let text = format!(
            "the name `{name}` has one of {RESERVED}, or ends with a dot. Choose another one; SQL can make such a database, which is then backed up like others"
        );
        return Err(ApiError::new(Code::InvalidParameterValue, text).about(name));
    }
    Ok(())
}

/// That a database may be called so.
fn check_name(name: &str) -> Result<(), ApiError> {
    if name.ends_with(char::is_whitespace) {
        let text = format!("the name `{name}` ends with white space. Leave that out");
        return Err(
            ApiError::new(Code::CannotUseTrailingWhitespacesInDatabaseName, text).about(name),
        );
    }
    let code = match name.parse::<DatabaseName>() {
        Ok(_) => return Ok(()),
        Err(error @ NameError::Reserved { .. }) => (Code::CannotUseReservedDatabaseName, error),
        Err(error) => (Code::InvalidParameterValue, error),
    };
    Err(ApiError::new(code.0, code.1.to_string()).about(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_refused_by_the_published_codes() {
        let code = |name: &str| check_name(name).unwrap_err().code;
        for name in [
            "postgres",
            "template0",
            "template1",
            "everpoint_restoring_x",
        ] {
            assert_eq!(code(name), Code::CannotUseReservedDatabaseName, "{name}");
        }
        assert_eq!(code("a "), Code::CannotUseTrailingWhitespacesInDatabaseName);
        assert_eq!(code(&"x".repeat(64)), Code::InvalidParameterValue);
        assert!(check_new_name("Größe 1").is_ok());
        for name in ["a/b", "x%41", "..", "a?"] {
            assert!(
                check_name(name).is_ok() && check_new_name(name).is_err(),
                "{name}"
            );
        }
    }

    #[test]
    fn create_modes_are_read_in_any_case_and_others_named() {
        assert_eq!(CreateMode::parse("recovery").unwrap(), CreateMode::Recovery);
        let error = CreateMode::parse("Copy").unwrap_err();
        assert!(error.message.contains("PointInTimeRestore"), "{error}");
    }
}
