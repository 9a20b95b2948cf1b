//! What a request to restore a database names: which one, and as of when.

use std::sync::Arc;

use everpoint_api::{
    ApiError, Code, Resource,
    restore::{DETAILS_TYPE, DatabaseRequestProperties as Wish},
    time::WireTime,
};
use everpoint_pgformat::Oid;
use jiff::{Timestamp, civil::DateTime, tz::TimeZone};

use super::{database, dropped, instance, long_term};
use crate::{
    access::{Action, Scope},
    catalog::{DatabaseRow, RestoreRequest, RestoreSource},
    http::{Answer, Parameters, decoded_segments},
    service::{Caller, Observed, Service, details},
};

/// Reading a database's backups to make another one of them.
pub(super) const READ_BACKUPS: Action =
    Action::new("Microsoft.Sql/managedInstances/databases/readBackups/action");
const SOURCE: &str = "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Sql/managedInstances/{instance}/databases/{database}";
const DROPPED: &str = "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Sql/managedInstances/{instance}/restorableDroppedDatabases/{database}";
const RECOVERABLE: &str = "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Sql/managedInstances/{instance}/recoverableDatabases/{database}";
const INSTANCE: &str = "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Sql/managedInstances/{instance}";

/// A restore as of a moment, of a database that lives or was deleted.
pub async fn point_in_time(
    service: &Service,
    caller: &Caller<'_>,
    target: &Observed,
    wish: &Wish,
) -> Result<RestoreRequest, ApiError> {
    check_target(service, target, wish)?;
    let point = wish
        .restore_point_in_time
        .as_deref()
        .map(moment)
        .transpose()?;
    let living = wish
        .source_database_id
        .as_deref()
        .or(wish.cross_subscription_source_database_id.as_deref());
    let dropped = wish.restorable_dropped_database_id.as_deref().or(wish
        .cross_subscription_restorable_dropped_database_id
        .as_deref());
    match (living, dropped) {
        (Some(_), Some(_)) => {
            let text = "sourceDatabaseId and restorableDroppedDatabaseId are both given. Give the one of the database that is meant";
            let code = Code::RestorableDroppedDatabaseIdGivenForRestoreWithSourceDatabaseId;
            Err(ApiError::new(code, text))
        }
        (None, None) => {
            let text = "which database? Give sourceDatabaseId, or restorableDroppedDatabaseId of one that was deleted";
            Err(ApiError::new(Code::MissingSourceDatabaseId, text))
        }
        (Some(id), None) => of_living(service, caller, id, point).await,
        (None, Some(id)) => of_dropped(service, caller, id, point).await,
    }
}

async fn of_living(
    service: &Service,
    caller: &Caller<'_>,
    id: &str,
    point: Option<Timestamp>,
) -> Result<RestoreRequest, ApiError> {
    let place = Place::read(id, SOURCE, Code::InvalidSourceDatabaseId)?;
    let name = place.name();
    let source = place.instance(service, caller, name)?;
    let row = database::find(service, &source, name)
        .await?
        .ok_or_else(|| no_source(id))?;
    let point = point.ok_or_else(|| {
        let text = format!(
            "restorePointInTime is missing. {}",
            range(&source, &row).unwrap_or_else(|| "Nothing can be restored yet".to_owned())
        );
        ApiError::new(Code::MissingRestorePointInTime, text).about("restorePointInTime")
    })?;
    let source = service.with_log_of(source, &row, point).await;
    check_point(&source, &row, point)?;
    Ok(RestoreRequest {
        instance: source.name.clone(),
        source: RestoreSource::Living {
            oid: Some(row.oid),
            name: row.name,
        },
        point: Some(point),
    })
}

async fn of_dropped(
    service: &Service,
    caller: &Caller<'_>,
    id: &str,
    point: Option<Timestamp>,
) -> Result<RestoreRequest, ApiError> {
    let invalid = Code::InvalidRestorableDroppedDatabaseId;
    let place = Place::read(id, DROPPED, invalid)?;
    let full = place.name();
    let Some((name, _)) = everpoint_api::time::parse_dropped_name(full) else {
        let text = format!(
            "`{full}` is no deleted database's name. It is NAME,FILETIME, as their list has it"
        );
        return Err(ApiError::new(invalid, text).about(id));
    };
    let mut source = place.instance(service, caller, name)?;
    let row = dropped::find(service, &source, full)
        .await?
        .ok_or_else(|| no_source(id))?;
    let Some(deleted_at) = row.deleted_at else {
        return Err(no_source(id));
    };
    // Its deletion date, to the digits that clients have of it, means just before its drop, however much log is stored.
    let point = point.filter(|point| WireTime::new(*point) != WireTime::new(deleted_at));
    if let Some(point) = point {
        source = service.with_log_of(source, &row, point).await;
        check_point(&source, &row, point)?;
    }
    Ok(RestoreRequest {
        instance: source.name.clone(),
        source: RestoreSource::Deleted {
            oid: row.oid,
            name: row.name,
            deleted_at,
        },
        point,
    })
}

/// A restore as late as possible, wherever the instance is.
pub async fn recovery(
    service: &Service,
    caller: &Caller<'_>,
    wish: &Wish,
) -> Result<RestoreRequest, ApiError> {
    let id = wish.recoverable_database_id.as_deref().ok_or_else(|| {
        let text = "which database? Give recoverableDatabaseId, as recoverableDatabases lists it";
        ApiError::new(Code::MissingSourceDatabaseId, text).about("recoverableDatabaseId")
    })?;
    let place = Place::read(id, RECOVERABLE, Code::InvalidSourceDatabaseId)?;
    let source = place.instance(service, caller, place.name())?;
    let row = database::find(service, &source, place.name())
        .await?
        .filter(|row| source.restorable_from(row, Timestamp::now()).is_some())
        .ok_or_else(|| no_source(id))?;
    Ok(RestoreRequest {
        instance: source.name.clone(),
        source: RestoreSource::Living {
            oid: Some(row.oid),
            name: row.name,
        },
        point: None,
    })
}

/// A restore of a copy that is kept for long.
pub async fn long_term(
    service: &Service,
    caller: &Caller<'_>,
    wish: &Wish,
) -> Result<RestoreRequest, ApiError> {
    let id = wish.long_term_retention_backup_resource_id.as_deref();
    let id = id.ok_or_else(|| {
        let text = "which backup? Give longTermRetentionBackupResourceId, the id of a long-term backup in their list";
        ApiError::new(Code::LTRBackupNotExists, text).about("longTermRetentionBackupResourceId")
    })?;
    let copy = long_term::of_identifier(service, caller, id).await?;
    Ok(RestoreRequest {
        instance: copy.instance,
        source: RestoreSource::LongTerm {
            copy: copy.id,
            name: copy.database,
        },
        point: None,
    })
}

/// What is told of the restore that made a database, or makes it.
pub async fn get_details(service: &Service, caller: &Caller<'_>) -> Result<Answer, ApiError> {
    const NAME: &str = "Default";
    let asked = caller.parameters.get("details");
    if !asked.eq_ignore_ascii_case(NAME) {
        return Err(super::not_found("restore details", asked));
    }
    let observed = instance::known(service, caller)?;
    let asked = caller.parameters.get("database");
    let (name, oid) = match database::making(service, &observed, asked).await? {
        Some(making) => (making.name, None),
        None => {
            let row = database::living(service, caller).await?.1;
            (row.name, Some(Oid::new(row.oid)))
        }
    };
    let found = service.catalog().last_restore(&observed.name, &name).await;
    let (operation, kept) = found
        .map_err(|error| super::internal(&error))?
        // An earlier one of that name may have been restored, or be about to be.
        .filter(|(found, _)| match oid {
            Some(oid) => found.made == Some(oid),
            None => found.row.ended_at.is_none(),
        })
        .ok_or_else(|| {
            let text = format!("database `{name}` was not made by a restore");
            ApiError::new(Code::ResourceNotFound, text).about(&*name)
        })?;
    let scope = service.instance_scope(&observed.name).below(&name);
    Ok(Answer::ok(&Resource {
        id: format!("{scope}/restoreDetails/{NAME}"),
        name: NAME.to_owned(),
        kind: DETAILS_TYPE.to_owned(),
        location: None,
        tags: None,
        properties: details(&operation, kept.as_deref()),
    }))
}

/// What an identifier names, and in which group.
struct Place(Parameters, Scope);

impl Place {
    /// Reads an identifier that has the form of `pattern`.
    fn read(id: &str, pattern: &'static str, code: Code) -> Result<Self, ApiError> {
        let invalid = || {
            let text = format!("`{id}` is no identifier of this kind. It is {pattern}");
            ApiError::new(code, text).about(id)
        };
        let segments = decoded_segments(id).ok_or_else(invalid)?;
        let found = Parameters::of(pattern, &segments).ok_or_else(invalid)?;
        let subscription = uuid::Uuid::try_parse(found.get("subscription"));
        let subscription = subscription.map_err(|_| invalid())?;
        let group = Scope::subscription(subscription).below(found.get("group"));
        Ok(Self(found, group))
    }

    fn name(&self) -> &str {
        self.0.get("database")
    }

    /// The instance, once it is certain that whoever asks may read backups of `database` there.
    fn instance(
        &self,
        service: &Service,
        caller: &Caller<'_>,
        database: &str,
    ) -> Result<Arc<Observed>, ApiError> {
        let text = self.0.get("instance");
        let scope = self.1.below(text).below(database);
        service.require(caller, READ_BACKUPS, &scope)?;
        service.known_group(self.1.subscription_id(), self.1.name())?;
        let name = text.to_ascii_lowercase().parse().ok();
        let name = name.filter(|name| service.group_of(name) == self.1);
        name.and_then(|name| service.instance(&name))
            .ok_or_else(|| no_source(text))
    }
}

fn no_source(id: &str) -> ApiError {
    let text = format!(
        "there is no database to restore at `{id}`. The lists of databases and of restorableDroppedDatabases show those there are"
    );
    ApiError::new(Code::RestoreSourceDatabaseNotFound, text).about(id)
}

/// That the request is for this instance.
fn check_target(service: &Service, target: &Observed, wish: &Wish) -> Result<(), ApiError> {
    let Some(id) = wish
        .cross_subscription_target_managed_instance_id
        .as_deref()
    else {
        return Ok(());
    };
    let place = Place::read(id, INSTANCE, Code::InvalidParameterValue)?;
    match place.1.below(place.0.get("instance")) == service.instance_scope(&target.name) {
        true => Ok(()),
        false => {
            let text = format!(
                "`{id}` is not the instance `{}` that the path names",
                target.name
            );
            Err(ApiError::new(Code::InvalidParameterValue, text)
                .about("crossSubscriptionTargetManagedInstanceId"))
        }
    }
}

/// A moment with its offset; without one it is in UTC.
fn moment(text: &str) -> Result<Timestamp, ApiError> {
    let naive = || {
        let time: DateTime = text.parse().ok()?;
        Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp())
    };
    text.parse().ok().or_else(naive).ok_or_else(|| {
        let message = format!("`{text}` is no moment. Write it as 2026-11-25T22:30:00.123Z");
        ApiError::new(Code::PitrPointInTimeInvalid, message).about("restorePointInTime")
    })
}

/// From when to when a database can be restored, for a person.
fn range(source: &Observed, row: &DatabaseRow) -> Option<String> {
    let points = source.points(row, Timestamp::now())?;
    let (earliest, latest) = (
        database::earliest(points.earliest),
        WireTime::new(points.latest),
    );
    Some(format!(
        "`{}` can be restored from {earliest} to {latest}",
        row.name
    ))
}

fn check_point(source: &Observed, row: &DatabaseRow, point: Timestamp) -> Result<(), ApiError> {
    let Some(points) = source.points(row, Timestamp::now()) else {
        let text = format!(
            "nothing of `{}` can be restored: there is no backup yet whose log is complete. The instance's operations show its backups",
            row.name
        );
        return Err(ApiError::new(Code::BackupSetNotFound, text).about(&*row.name));
    };
    if point < points.earliest || point > points.latest {
        let text = format!(
            "{point} lies outside of what can be restored: {}",
            range(source, row).unwrap_or_default()
        );
        return Err(ApiError::new(Code::PitrPointInTimeInvalid, text).about("restorePointInTime"));
    }
    match source.gap_at(point) {
        None => Ok(()),
        Some((before, after)) => {
            let text = format!(
                "{point} lies where log is missing. The nearest points that can be restored are {before} and {after}"
            );
            let code = Code::BrokenRestorePlanGapInLogBackups;
            Err(ApiError::new(code, text).about("restorePointInTime"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_taken_to_the_microsecond_and_in_utc_unless_they_say_otherwise() {
        let expected: Timestamp = "2026-11-25T22:30:00.123456Z".parse().unwrap();
        for text in [
            "2026-11-25T22:30:00.123456Z",
            "2026-11-25T23:30:00.123456+01:00",
            "2026-11-25T22:30:00.123456",
        ] {
            assert_eq!(moment(text).unwrap(), expected, "{text}");
        }
        let three: Timestamp = "2026-11-25T22:30:00.123Z".parse().unwrap();
        assert_eq!(moment("2026-11-25T22:30:00.123Z").unwrap(), three);
        assert_eq!(
            moment("yesterday").unwrap_err().code,
            Code::PitrPointInTimeInvalid
        );
    }
}
