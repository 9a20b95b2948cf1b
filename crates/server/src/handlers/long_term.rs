//! Long-term retention: policies of databases, and the backups that are kept by them.

use everpoint_api::{
    ApiError, Code, List, Resource,
    list::PAGE_ITEMS,
    retention::{
        LONG_TERM_BACKUP_TYPE, LONG_TERM_TYPE, LongTermBackupProperties, LongTermProperties,
        LongTermUpdate, LongTermWish, NAME,
    },
    time::{WireTime, long_term_name, parse_long_term_name},
};
use everpoint_engine::long_term::LongTermError;
use everpoint_repository::{InstanceName, long_term::LongTermCopy};
use jiff::Timestamp;

use super::{
    database,
    restore::READ_BACKUPS,
    retention::{check_name, only, path},
};
use crate::{
    access::{Action, Scope, segment},
    catalog::{DatabaseRow, OperationKind},
    http::{Answer, Parameters, decoded_segments},
    policy::{LongTermPolicy, Period, WeekOfYear},
    service::{Caller, Hold, Service},
};

const READ: Action = Action::new(
    "Microsoft.Sql/locations/longTermRetentionManagedInstances/longTermRetentionDatabases/longTermRetentionManagedInstanceBackups/read",
);

pub async fn policies(service: &Service, caller: &Caller<'_>) -> Result<Answer, ApiError> {
    let policy = policy(service, caller).await?;
    Ok(only(policy_resource(caller, &policy)))
}

pub async fn get_policy(service: &Service, caller: &Caller<'_>) -> Result<Answer, ApiError> {
    check_name(caller)?;
    let policy = policy(service, caller).await?;
    Ok(Answer::ok(&policy_resource(caller, &policy)))
}

pub async fn put_policy(service: &Service, caller: &Caller<'_>) -> Result<Answer, ApiError> {
    check_name(caller)?;
    let wish: LongTermUpdate = caller.json()?;
    let policy = wanted(&wish.properties)?;
    set_policy(service, caller, &policy).await?;
    Ok(Answer::ok(&policy_resource(caller, &policy)))
}

pub async fn delete_policy(service: &Service, caller: &Caller<'_>) -> Result<Answer, ApiError> {
    check_name(caller)?;
    set_policy(service, caller, &LongTermPolicy::default()).await?;
    Ok(Answer::empty(200))
}

async fn set_policy(
    service: &Service,
    caller: &Caller<'_>,
    policy: &LongTermPolicy,
) -> Result<(), ApiError> {
    let (observed, row) = database::living(service, caller).await?;
    let now = Timestamp::now();
    let set = service
        .catalog()
        .set_long_term(&observed.name, &row, policy, now);
    set.await.map_err(|error| super::internal(&error))?;
    service.store_policies(&observed.name).await;
    service.wake_copies();
    let what = format!(
        "long-term retention of `{}`: weekly {}, monthly {}, yearly {}",
        row.name,
        policy.weekly(),
        policy.monthly(),
        policy.yearly().map_or(Period::NONE, |(period, _)| period)
    );
    let actor = super::database_write::actor(caller)?;
    service
        .note_done(OperationKind::PolicyChange, &observed.name, actor, &what)
        .await;
    Ok(())
}

async fn policy(service: &Service, caller: &Caller<'_>) -> Result<LongTermPolicy, ApiError> {
    let (observed, row) = database::living(service, caller).await?;
    let rows = service.catalog().long_term_policies(&observed.name).await;
    let rows = rows.map_err(|error| super::internal(&error))?;
    let own = rows.iter().find(|found| found.is_of(&row));
    Ok(own.map(|found| found.policy).unwrap_or_default())
}

fn wanted(wish: &LongTermWish) -> Result<LongTermPolicy, ApiError> {
    let refused = |target: &str, text: String| {
        ApiError::new(Code::InvalidBackupRetentionPeriod, text).about(target)
    };
    let period = |name: &str, text: &Option<String>| match text {
        None => Ok(Period::NONE),
        Some(text) => Period::parse(text).map_err(|error| refused(name, error.to_string())),
    };
    let week = match wish.week_of_year {
        None | Some(0) => None,
        Some(number) => {
            let week = WeekOfYear::new(number);
            Some(week.map_err(|error| refused("weekOfYear", error.to_string()))?)
        }
    };
    LongTermPolicy::new(
        period("weeklyRetention", &wish.weekly_retention)?,
        period("monthlyRetention", &wish.monthly_retention)?,
        period("yearlyRetention", &wish.yearly_retention)?,
        week,
    )
    .map_err(|error| refused("weekOfYear", error.to_string()))
}

fn policy_resource(caller: &Caller<'_>, policy: &LongTermPolicy) -> Resource<LongTermProperties> {
    let yearly = policy.yearly();
    Resource {
        id: path(caller),
        name: NAME.to_owned(),
        kind: LONG_TERM_TYPE.to_owned(),
        location: None,
        tags: None,
        properties: LongTermProperties {
            weekly_retention: policy.weekly().to_string(),
            monthly_retention: policy.monthly().to_string(),
            yearly_retention: yearly
                .map_or(Period::NONE, |(period, _)| period)
                .to_string(),
            week_of_year: yearly.map_or(0, |(_, week)| week.get().into()),
        },
    }
}

/// The backups of all instances, of one, or of one database, as far as they may be seen.
pub async fn backups(service: &Service, caller: &Caller<'_>) -> Result<Answer, ApiError> {
    check_location(service, &caller.parameters)?;
    let instances = match source(&caller.parameters) {
        Some(text) => text.to_ascii_lowercase().parse().into_iter().collect(),
        None => service
            .repository()
            .instances_with_copies()
            .await
            .map_err(|error| super::internal(&error))?,
    };
    let (state, latest) = (State::of(caller)?, is_latest_only(caller)?);
    let visible = service.visible(caller, READ);
    let database = database_of(&caller.parameters);
    let mut found = Vec::new();
    let is_asked_for = |instance: &InstanceName| {
        let scope = service.instance_scope(instance);
        caller.scope.contains(&scope) || scope.contains(&caller.scope)
    };
    for instance in instances.into_iter().filter(is_asked_for) {
        let rows = rows(service, &instance).await?;
        let copies = service.copies(&instance).await;
        let copies = copies.map_err(|error| super::internal(&error))?;
        let mut seen: Vec<LongTermCopy> = copies
            .into_iter()
            .filter(|copy| database.is_none_or(|name| copy.database.eq_ignore_ascii_case(name)))
            .filter(|copy| state.takes(row_of(&rows, copy)))
            .filter(|copy| {
                let scope = scope(service, copy);
                caller.scope.contains(&scope) && visible(&scope)
            })
            .collect();
        if latest {
            keep_latest(&mut seen);
        }
        let resources = seen.iter().map(|copy| resource(service, copy, &rows));
        found.extend(resources);
    }
    page(service, caller, found)
}

pub async fn get_backup(service: &Service, caller: &Caller<'_>) -> Result<Answer, ApiError> {
    let copy = named(service, caller).await?;
    let rows = rows(service, &copy.instance).await?;
    Ok(Answer::ok(&resource(service, &copy, &rows)))
}

pub async fn delete_backup(service: &Service, caller: &Caller<'_>) -> Result<Answer, ApiError> {
    let copy = named(service, caller).await?;
    let read = service.copies_being_restored().await;
    if read
        .map_err(|error| super::internal(&error))?
        .contains(&copy.id)
    {
        let name = caller.parameters.find("backup").unwrap_or_default();
        let text = format!(
            "a restore of long-term backup `{name}` is queued or runs. Wait for its end, or cancel it, and delete the backup then"
        );
        return Err(ApiError::new(Code::ConflictingDatabaseOperation, text).about(name));
    }
    let deleted = service.delete_copy(&copy.instance, copy.id).await;
    deleted.map_err(|error| failed(caller, &error))?;
    note(
        service,
        caller,
        OperationKind::LongTermDelete,
        &copy,
        "deleted",
    )
    .await?;
    Ok(Answer::empty(200))
}

pub async fn hold_backup(service: &Service, caller: &Caller<'_>) -> Result<Answer, ApiError> {
    change_hold(service, caller, Hold::Set).await
}

pub async fn release_backup(service: &Service, caller: &Caller<'_>) -> Result<Answer, ApiError> {
    change_hold(service, caller, Hold::Removed).await
}

async fn change_hold(
    service: &Service,
    caller: &Caller<'_>,
    hold: Hold,
) -> Result<Answer, ApiError> {
    let copy = named(service, caller).await?;
    let changed = service.set_hold(&copy.instance, copy.id, hold).await;
    let changed = changed.map_err(|error| failed(caller, &error))?;
    if changed.held_since != copy.held_since {
        let what = match hold {
            Hold::Set => "held",
            Hold::Removed => "held no more",
        };
        note(service, caller, OperationKind::PolicyChange, &copy, what).await?;
    }
    let rows = rows(service, &changed.instance).await?;
    Ok(Answer::ok(&resource(service, &changed, &rows)))
}

async fn note(
    service: &Service,
    caller: &Caller<'_>,
    kind: OperationKind,
    copy: &LongTermCopy,
    what: &str,
) -> Result<(), ApiError> {
    let what = format!(
        "long-term backup {} of `{}`: {what}",
        copy.id, copy.database
    );
    let actor = super::database_write::actor(caller)?;
    service.note_done(kind, &copy.instance, actor, &what).await;
    Ok(())
}

fn failed(caller: &Caller<'_>, error: &LongTermError) -> ApiError {
    match error {
        LongTermError::Held { since, .. } => {
            let name = caller.parameters.find("backup").unwrap_or_default();
            let text = format!(
                "long-term backup `{name}` is held since {since:.0} and stays. Remove its legal hold first"
            );
            ApiError::new(Code::LongTermBackupHeld, text).about(name)
        }
        LongTermError::Unknown { .. } | LongTermError::BeingDeleted { .. } => {
            not_there(&caller.parameters)
        }
        other => super::internal(other),
    }
}

/// The backup that the path names.
async fn named(service: &Service, caller: &Caller<'_>) -> Result<LongTermCopy, ApiError> {
    check_location(service, &caller.parameters)?;
    found(service, caller, &caller.parameters).await
}

/// With and without a resource group, as the lists name them.
const IDENTIFIERS: [&str; 2] = [
    "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Sql/locations/{location}/longTermRetentionManagedInstances/{instance}/longTermRetentionDatabases/{database}/longTermRetentionManagedInstanceBackups/{backup}",
    "/subscriptions/{subscription}/providers/Microsoft.Sql/locations/{location}/longTermRetentionManagedInstances/{instance}/longTermRetentionDatabases/{database}/longTermRetentionManagedInstanceBackups/{backup}",
];

/// The backup that has this identifier, if it may be read.
pub async fn of_identifier(
    service: &Service,
    caller: &Caller<'_>,
    id: &str,
) -> Result<LongTermCopy, ApiError> {
    let no_such = || {
        let text = format!("there is no long-term backup `{id}`");
        ApiError::new(Code::LTRBackupNotExists, text).about("longTermRetentionBackupResourceId")
    };
    let segments = decoded_segments(id).ok_or_else(no_such)?;
    let read = |pattern| Parameters::of(pattern, &segments);
    let parameters = IDENTIFIERS.into_iter().find_map(read).ok_or_else(no_such)?;
    check_location(service, &parameters)?;
    let copy = found(service, caller, &parameters).await?;
    let place = scope(service, &copy);
    service.require(caller, READ, &place)?;
    service.require(caller, READ_BACKUPS, &place)?;
    Ok(copy)
}

async fn found(
    service: &Service,
    caller: &Caller<'_>,
    parameters: &Parameters,
) -> Result<LongTermCopy, ApiError> {
    let not_there = || not_there(parameters);
    let (id, time) = parameters
        .find("backup")
        .and_then(parse_long_term_name)
        .ok_or_else(not_there)?;
    let id = id.to_ascii_lowercase().parse().map_err(|_| not_there())?;
    let instance: InstanceName = source(parameters)
        .and_then(|text| text.to_ascii_lowercase().parse().ok())
        .ok_or_else(not_there)?;
    let copy = find(service, &instance, id).await?.ok_or_else(not_there)?;
    let right_database =
        database_of(parameters).is_some_and(|name| copy.database.eq_ignore_ascii_case(name));
    let visible = service.visible(caller, READ);
    if !right_database
        || WireTime::new(copy.backup_time) != time
        || !place_of(parameters).is_some_and(|place| place.contains(&scope(service, &copy)))
        || !visible(&scope(service, &copy))
    {
        return Err(not_there());
    }
    Ok(copy)
}

/// A copy by its identifier, as its state says now.
pub async fn find(
    service: &Service,
    instance: &InstanceName,
    id: everpoint_repository::CopyId,
) -> Result<Option<LongTermCopy>, ApiError> {
    let state = service.repository().copy_state(instance, id).await;
    let state = state.map_err(|error| super::internal(&error))?;
    Ok(state.map(|(_, copy)| copy))
}

fn not_there(parameters: &Parameters) -> ApiError {
    let name = parameters.find("backup").unwrap_or_default();
    let text = format!("there is no long-term backup `{name}`");
    ApiError::new(Code::LTRBackupNotExists, text).about(name)
}

/// The instance that a path names. One without a resource group names it otherwise, for rights are asked for
/// at the subscription there.
fn source(parameters: &Parameters) -> Option<&str> {
    parameters.find("instance").or(parameters.find("source"))
}

/// The subscription or the group that a path names.
fn place_of(parameters: &Parameters) -> Option<Scope> {
    let subscription = uuid::Uuid::try_parse(parameters.find("subscription")?).ok()?;
    let subscription = Scope::subscription(subscription);
    Some(match parameters.find("group") {
        Some(group) => subscription.below(group),
        None => subscription,
    })
}

fn database_of(parameters: &Parameters) -> Option<&str> {
    parameters
        .find("database")
        .or(parameters.find("sourceDatabase"))
}

/// There is one location. Clients write its name with and without blanks.
fn check_location(service: &Service, parameters: &Parameters) -> Result<(), ApiError> {
    let asked = parameters.find("location").unwrap_or_default();
    let plain = |text: &str| text.replace(' ', "").to_ascii_lowercase();
    match plain(asked) == plain(&service.config().location) {
        true => Ok(()),
        false => Err(super::not_found("location", asked)),
    }
}

fn scope(service: &Service, copy: &LongTermCopy) -> Scope {
    service.instance_scope(&copy.instance).below(&copy.database)
}

async fn rows(service: &Service, instance: &InstanceName) -> Result<Vec<DatabaseRow>, ApiError> {
    let rows = service.catalog().databases(instance).await;
    rows.map_err(|error| super::internal(&error))
}

/// The database that a copy is of, as far as it is known.
fn row_of<'a>(rows: &'a [DatabaseRow], copy: &LongTermCopy) -> Option<&'a DatabaseRow> {
    let same = |row: &&DatabaseRow| {
        row.oid == copy.oid.get() && row.deleted_at.is_none_or(|at| at >= copy.backup_time)
    };
    rows.iter()
        .filter(same)
        .min_by_key(|row| (row.deleted_at.is_none(), row.deleted_at))
}

/// Whose backups are asked for.
#[derive(Clone, Copy)]
enum State {
    All,
    Live,
    Deleted,
}

impl State {
    fn of(caller: &Caller<'_>) -> Result<Self, ApiError> {
        let text = caller.query("databaseState").unwrap_or("All");
        [
            ("all", Self::All),
            ("live", Self::Live),
            ("deleted", Self::Deleted),
        ]
        .into_iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(text))
        .map(|(_, state)| state)
        .ok_or_else(|| {
            let message = format!("databaseState is All, Live or Deleted, not `{text}`");
            ApiError::new(Code::InvalidParameterValue, message).about("databaseState")
        })
    }

    fn takes(self, row: Option<&DatabaseRow>) -> bool {
        let lives = row.is_some_and(|row| row.deleted_at.is_none());
        match self {
            Self::All => true,
            Self::Live => lives,
            Self::Deleted => !lives,
        }
    }
}

fn is_latest_only(caller: &Caller<'_>) -> Result<bool, ApiError> {
    match caller.query("onlyLatestPerDatabase") {
        None => Ok(false),
        Some(text) if text.eq_ignore_ascii_case("true") => Ok(true),
        Some(text) if text.eq_ignore_ascii_case("false") => Ok(false),
        Some(text) => {
            let message = format!("onlyLatestPerDatabase is true or false, not `{text}`");
            let error = ApiError::new(Code::InvalidParameterValue, message);
            Err(error.about("onlyLatestPerDatabase"))
        }
    }
}

/// Keeps of each database the last copy; they come by their moments.
fn keep_latest(copies: &mut Vec<LongTermCopy>) {
    let key = |copy: &LongTermCopy| (copy.oid, copy.database.clone());
    let mut seen = std::collections::BTreeSet::new();
    copies.reverse();
    copies.retain(|copy| seen.insert(key(copy)));
    copies.reverse();
}

fn resource(
    service: &Service,
    copy: &LongTermCopy,
    rows: &[DatabaseRow],
) -> Resource<LongTermBackupProperties> {
    let backup_time = WireTime::new(copy.backup_time);
    let name = long_term_name(&copy.id.to_string(), backup_time);
    let (group, location) = (service.group_of(&copy.instance), &service.config().location);
    let (instance, database) = (&copy.instance, &copy.database);
    let expires = copy.expires_at.filter(|_| copy.held_since.is_none());
    Resource {
        id: format!(
            "{group}/providers/Microsoft.Sql/locations/{location}/longTermRetentionManagedInstances/{instance}/longTermRetentionDatabases/{}/longTermRetentionManagedInstanceBackups/{name}",
            segment(database)
        ),
        name,
        kind: LONG_TERM_BACKUP_TYPE.to_owned(),
        location: None,
        tags: None,
        properties: LongTermBackupProperties {
            managed_instance_name: instance.to_string(),
            database_name: database.clone(),
            database_deletion_time: row_of(rows, copy)
                .and_then(|row| row.deleted_at)
                .map(WireTime::new),
            backup_time,
            backup_expiration_time: expires.map(WireTime::new),
            backup_storage_redundancy: "Local".to_owned(),
            is_backup_immutable: copy.held_since.is_some(),
            legal_hold_immutability: match copy.held_since {
                Some(_) => "Enabled".to_owned(),
                None => "Disabled".to_owned(),
            },
        },
    }
}

/// The page that `$skip` and `$top` ask for.
fn page(
    service: &Service,
    caller: &Caller<'_>,
    all: Vec<Resource<LongTermBackupProperties>>,
) -> Result<Answer, ApiError> {
    let number = |name: &'static str| match caller.query(name) {
        None => Ok(None),
        Some(text) => text.parse::<usize>().map(Some).map_err(|_| {
            let message = format!("`{text}` is no number of items");
            ApiError::new(Code::InvalidParameterValue, message).about(name)
        }),
    };
    let (skip, top) = (number("$skip")?.unwrap_or(0), number("$top")?);
    let taken = top.unwrap_or(PAGE_ITEMS).min(PAGE_ITEMS);
    let next = skip.saturating_add(taken);
    // Who asks for a number of items that fits on a page gets those and no more.
    let whole = top.is_some_and(|top| top <= PAGE_ITEMS) || all.len() <= next;
    let next_link = (!whole).then(|| {
        let mut numbers = vec![("$skip", next)];
        numbers.extend(top.map(|top| ("$top", top - taken)));
        super::link(service, caller, &numbers)
    });
    Ok(Answer::ok(&List {
        value: all.into_iter().skip(skip).take(taken).collect(),
        next_link,
    }))
}
