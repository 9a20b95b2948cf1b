//! Retention policies.

use everpoint_api::{
    ApiError, Code, List, Resource,
    retention::{
        DROPPED_SHORT_TERM_TYPE, LONG_TERM_TYPE, LongTermProperties, NAME, SHORT_TERM_TYPE,
        ShortTermProperties, ShortTermUpdate,
    },
};

use super::{database, dropped, instance};
use crate::{
    catalog::{DatabaseRow, OperationKind},
    http::Answer,
    policy::{Period, RetentionDays, ShortTermError},
    service::{Caller, Service},
};

type Short = Resource<ShortTermProperties>;

pub async fn short_list(service: &Service, caller: &Caller<'_>) -> Result<Answer, ApiError> {
    let (_, row) = database::living(service, caller).await?;
    Ok(only(short(caller, SHORT_TERM_TYPE, row.retention)))
}

pub async fn short_get(service: &Service, caller: &Caller<'_>) -> Result<Answer, ApiError> {
    check_name(caller)?;
    let (_, row) = database::living(service, caller).await?;
    Ok(Answer::ok(&short(caller, SHORT_TERM_TYPE, row.retention)))
}

pub async fn short_put(service: &Service, caller: &Caller<'_>) -> Result<Answer, ApiError> {
    check_name(caller)?;
    let wish: ShortTermUpdate = caller.json()?;
    let (observed, row) = database::living(service, caller).await?;
    let days = RetentionDays::of_living(wish.properties.retention_days).map_err(refused)?;
    set(service, caller, &observed.name, &row, days).await?;
    Ok(Answer::ok(&short(caller, SHORT_TERM_TYPE, days)))
}

pub async fn dropped_list(service: &Service, caller: &Caller<'_>) -> Result<Answer, ApiError> {
    let (_, row) = dropped::dropped(service, caller).await?;
    Ok(only(short(caller, DROPPED_SHORT_TERM_TYPE, row.retention)))
}

pub async fn dropped_get(service: &Service, caller: &Caller<'_>) -> Result<Answer, ApiError> {
    check_name(caller)?;
    let (_, row) = dropped::dropped(service, caller).await?;
    Ok(Answer::ok(&short(
        caller,
        DROPPED_SHORT_TERM_TYPE,
        row.retention,
    )))
}

pub async fn dropped_put(service: &Service, caller: &Caller<'_>) -> Result<Answer, ApiError> {
    check_name(caller)?;
    let wish: ShortTermUpdate = caller.json()?;
    let (observed, row) = dropped::dropped(service, caller).await?;
    let days = RetentionDays::of_deleted(wish.properties.retention_days, row.retention);
    let days = days.map_err(refused)?;
    set(service, caller, &observed.name, &row, days).await?;
    Ok(Answer::ok(&short(caller, DROPPED_SHORT_TERM_TYPE, days)))
}

/// No copies are kept for the long term by this build, and that is what the policy says.
pub async fn long_list(service: &Service, caller: &Caller<'_>) -> Result<Answer, ApiError> {
    database::living(service, caller).await?;
    Ok(only(long(caller)))
}

pub async fn long_get(service: &Service, caller: &Caller<'_>) -> Result<Answer, ApiError> {
    check_name(caller)?;
    database::living(service, caller).await?;
    Ok(Answer::ok(&long(caller)))
}

pub async fn long_put(service: &Service, caller: &Caller<'_>) -> Result<Answer, ApiError> {
    instance::known(service, caller)?;
    Err(super::not_in_this_build("long-term retention"))
}

async fn set(
    service: &Service,
    caller: &Caller<'_>,
    instance: &everpoint_repository::InstanceName,
    row: &DatabaseRow,
    days: RetentionDays,
) -> Result<(), ApiError> {
    let done = service.catalog().set_retention(instance, row, days).await;
    done.map_err(|error| super::internal(&error))?;
    let what = format!(
        "short-term retention of `{}`: {} days instead of {}",
        row.name,
        days.get(),
        row.retention.get()
    );
    let actor = super::database_write::actor(caller)?;
    service
        .note_done(OperationKind::PolicyChange, instance, actor, &what)
        .await;
    Ok(())
}

fn refused(error: ShortTermError) -> ApiError {
    ApiError::new(Code::InvalidBackupRetentionPeriod, error.to_string()).about("retentionDays")
}

/// There is only one policy of each kind.
fn check_name(caller: &Caller<'_>) -> Result<(), ApiError> {
    let name = caller.parameters.get("policy");
    match name.eq_ignore_ascii_case(NAME) {
        true => Ok(()),
        false => Err(super::not_found("policy", name)),
    }
}

fn only<T: serde::Serialize>(resource: Resource<T>) -> Answer {
    Answer::ok(&List {
        value: vec![resource],
        next_link: None,
    })
}

/// The path that was asked for, up to the policies, and the only name.
fn path(caller: &Caller<'_>) -> String {
    let path = caller.path.trim_end_matches('/');
    match caller.parameters.find("policy") {
        Some(_) => path.to_owned(),
        None => format!("{path}/{NAME}"),
    }
}

fn short(caller: &Caller<'_>, kind: &str, days: RetentionDays) -> Short {
    Resource {
        id: path(caller),
        name: NAME.to_owned(),
        kind: kind.to_owned(),
        location: None,
        properties: ShortTermProperties {
            retention_days: days.get().into(),
        },
    }
}

fn long(caller: &Caller<'_>) -> Resource<LongTermProperties> {
    let none = Period::NONE.to_string();
    Resource {
        id: path(caller),
        name: NAME.to_owned(),
        kind: LONG_TERM_TYPE.to_owned(),
        location: None,
        properties: LongTermProperties {
            weekly_retention: none.clone(),
            monthly_retention: none.clone(),
            yearly_retention: none,
            week_of_year: 0,
        },
    }
}
