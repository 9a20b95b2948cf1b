//! Retention policies.

use everpoint_api::{
    ApiError, Code, List, Resource,
    retention::{
        DROPPED_SHORT_TERM_TYPE, NAME, SHORT_TERM_TYPE, ShortTermChangeProperties,
        ShortTermProperties, ShortTermUpdate,
    },
    time::WireTime,
};
use jiff::Timestamp;

use super::{database, dropped};
use crate::{
    catalog::{DatabaseRow, OperationKind},
    http::Answer,
    policy::{RetentionDays, ShortTermChange, ShortTermError},
    service::{Caller, Observed, Service},
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
    if is_dry_run(caller)? {
        return preview(service, caller, &observed, &row, SHORT_TERM_TYPE, days).await;
    }
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
    if is_dry_run(caller)? {
        let kind = DROPPED_SHORT_TERM_TYPE;
        return preview(service, caller, &observed, &row, kind, days).await;
    }
    set(service, caller, &observed.name, &row, days).await?;
    Ok(Answer::ok(&short(caller, DROPPED_SHORT_TERM_TYPE, days)))
}

async fn set(
    service: &Service,
    caller: &Caller<'_>,
    instance: &everpoint_repository::InstanceName,
    row: &DatabaseRow,
    days: RetentionDays,
) -> Result<(), ApiError> {
    let done = service.catalog().set_retention(instance, row, days).await;
    if !done.map_err(|error| super::internal(&error))? {
        return Err(super::not_found("database", &row.name));
    }
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
    service.store_policies(instance).await;
    Ok(())
}

/// Whether only what a change would do is asked for: `dryRun=true`, which Azure's API does not have.
fn is_dry_run(caller: &Caller<'_>) -> Result<bool, ApiError> {
    match caller.query("dryRun") {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(text) => {
            let message = format!("dryRun is true or false, not `{text}`");
            Err(ApiError::new(Code::InvalidParameterValue, message).about("dryRun"))
        }
    }
}

/// What a change of retention would lose; nothing is changed.
async fn preview(
    service: &Service,
    caller: &Caller<'_>,
    observed: &Observed,
    row: &DatabaseRow,
    kind: &str,
    days: RetentionDays,
) -> Result<Answer, ApiError> {
    let now = Timestamp::now();
    let change = ShortTermChange {
        from: row.retention,
        to: days,
    };
    let points = observed.points(row, now);
    let lost = points.and_then(|points| change.loses(points.earliest, now));
    // Of a deleted database nothing lies behind its deletion.
    let lost_to = |to: Timestamp| match points {
        Some(points) => to.min(points.latest),
        None => to,
    };
    let plan = service.expire_plan_if(&observed.name, row, days).await?;
    Ok(Answer::ok(&Resource {
        id: path(caller),
        name: NAME.to_owned(),
        kind: kind.to_owned(),
        location: None,
        tags: None,
        properties: ShortTermChangeProperties {
            retention_days: days.get().into(),
            current_retention_days: row.retention.get().into(),
            dry_run: true,
            lost_from: lost.map(|lost| WireTime::new(lost.from)),
            lost_to: lost.map(|lost| WireTime::new(lost_to(lost.to))),
            forgotten_backups: plan.backups.iter().map(ToString::to_string).collect(),
            forgotten_log_backups: plan.logs.len(),
        },
    }))
}

fn refused(error: ShortTermError) -> ApiError {
    ApiError::new(Code::InvalidBackupRetentionPeriod, error.to_string()).about("retentionDays")
}

/// There is only one policy of each kind.
pub(super) fn check_name(caller: &Caller<'_>) -> Result<(), ApiError> {
    let name = caller.parameters.get("policy");
    match name.eq_ignore_ascii_case(NAME) {
        true => Ok(()),
        false => Err(super::not_found("policy", name)),
    }
}

pub(super) fn only<T: serde::Serialize>(resource: Resource<T>) -> Answer {
    Answer::ok(&List {
        value: vec![resource],
        next_link: None,
    })
}

/// The path that was asked for, up to the policies, and the only name.
pub(super) fn path(caller: &Caller<'_>) -> String {
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
        tags: None,
        properties: ShortTermProperties {
            retention_days: days.get().into(),
        },
    }
}
