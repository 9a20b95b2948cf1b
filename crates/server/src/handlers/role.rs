//! Roles and their assignments.

use everpoint_api::{
    ApiError, Code, List, Resource,
    role::{
        ASSIGNMENT_TYPE, AssignmentProperties, AssignmentWish, DEFINITION_TYPE,
        DefinitionProperties, Permission,
    },
    time::WireTime,
};
use jiff::Timestamp;
use uuid::Uuid;

use crate::{
    access::{Action, ActionPattern, Assignment, BUILT_IN, Role, Scope, SubscriptionId},
    catalog::PrincipalKind,
    http::Answer,
    service::{Caller, Service},
};

const READ: Action = Action::new("Microsoft.Authorization/roleAssignments/read");

pub fn definitions(caller: &Caller<'_>) -> Result<Answer, ApiError> {
    // `roleName eq 'Reader'`; other filters, such as `atScope()`, leave all built-in roles in.
    let name = caller.query("$filter").and_then(|filter| {
        let (field, value) = filter.split_once(" eq ")?;
        let value = value.trim().strip_prefix('\'')?.strip_suffix('\'')?;
        field
            .trim()
            .eq_ignore_ascii_case("roleName")
            .then_some(value)
    });
    let wanted = |role: &&Role| name.is_none_or(|name| role.name.eq_ignore_ascii_case(name));
    let seen = BUILT_IN.iter().filter(wanted);
    Ok(Answer::ok(&List {
        value: seen
            .map(|role| definition_of(caller.scope.subscription_id(), role))
            .collect(),
        next_link: None,
    }))
}

pub fn definition(caller: &Caller<'_>) -> Result<Answer, ApiError> {
    let text = caller.parameters.get("role");
    Uuid::try_parse(text)
        .ok()
        .and_then(Role::by_id)
        .map(|role| Answer::ok(&definition_of(caller.scope.subscription_id(), role)))
        .ok_or_else(|| super::not_found("role definition", text))
}

/// Assignments that hold at the scope or below it, or, with `atScope()`, at the scope itself and above; and
/// those of one principal, with `principalId eq '…'` or `assignedTo('…')`.
pub fn assignments(service: &Service, caller: &Caller<'_>) -> Result<Answer, ApiError> {
    let filter = caller
        .query("$filter")
        .unwrap_or_default()
        .to_ascii_lowercase();
    let at_scope = filter.contains("atscope()");
    let principal = ["principalid eq '", "assignedto('"]
        .iter()
        .find_map(|start| filter.split_once(start))
        .and_then(|(_, rest)| rest.split('\'').next())
        .map(str::to_owned);
    if !filter.trim().is_empty() && !at_scope && principal.is_none() {
        let text = format!(
            "`{filter}` is no filter of role assignments. It is atScope(), principalId eq 'ID' or assignedTo('ID')"
        );
        return Err(ApiError::new(Code::InvalidParameterValue, text).about("$filter"));
    }
    let permitted = service.permitted(caller, READ);
    let all = service.assignments();
    let seen = all.iter().filter(|(assignment, _)| {
        let place = match at_scope {
            true => assignment.scope.contains(&caller.scope),
            false => {
                assignment.scope.contains(&caller.scope) || caller.scope.contains(&assignment.scope)
            }
        };
        let whose = principal
            .as_ref()
            .is_none_or(|wanted| assignment.principal.to_string() == *wanted);
        place && whose && permitted(&assignment.scope)
    });
    let seen = seen.map(|(found, since)| assignment_of(service, found, *since));
    super::page(service, caller, seen.collect())
}

pub fn assignment(service: &Service, caller: &Caller<'_>) -> Result<Answer, ApiError> {
    let (found, since) = named(service, caller)?
        .ok_or_else(|| super::not_found("role assignment", caller.parameters.get("assignment")))?;
    Ok(Answer::ok(&assignment_of(service, &found, since)))
}

pub async fn put(service: &Service, caller: &Caller<'_>) -> Result<Answer, ApiError> {
    let wish: AssignmentWish = caller.json()?;
    let id = name(caller)?;
    let wished = &wish.properties.role_definition_id;
    let role = wished
        .rsplit('/')
        .next()
        .and_then(|id| Uuid::try_parse(id).ok());
    let role = role.and_then(Role::by_id).ok_or_else(|| {
        let text = format!("there is no role definition `{wished}`");
        ApiError::new(Code::RoleDefinitionDoesNotExist, text).about("roleDefinitionId")
    })?;
    let principal = wish.properties.principal_id;
    if !service.principals().iter().any(|row| row.id == principal) {
        let text = format!("there is no principal {principal}");
        return Err(ApiError::new(Code::PrincipalNotFound, text).about("principalId"));
    }
    let wanted = Assignment {
        id,
        principal,
        role: role.id,
        scope: caller.scope.clone(),
    };
    let _held = service.changing_assignments().lock().await;
    let all = service.assignments();
    if let Some((same, since)) = all.iter().find(|(found, _)| found.id == id) {
        // Put twice, for instance by a client that lost the answer.
        return match *same == wanted {
            true => Ok(Answer::ok(&assignment_of(service, same, *since))),
            false => Err(ApiError::new(
                Code::RoleAssignmentUpdateNotPermitted,
                "the assignment is there with another role, principal or scope. Delete it first",
            )),
        };
    }
    let equal = |found: &Assignment| {
        found.principal == principal && found.role == role.id && found.scope == wanted.scope
    };
    if let Some((same, _)) = all.iter().find(|(found, _)| equal(found)) {
        let text = format!(
            "the principal has the role at this scope already, by {}",
            same.id
        );
        return Err(ApiError::new(Code::RoleAssignmentExists, text));
    }
    let now = Timestamp::now();
    let added = service.catalog().add_assignment(&wanted, now).await;
    added.map_err(|error| super::internal(&error))?;
    let reloaded = service.reload_access().await;
    reloaded.map_err(|error| super::internal(&error))?;
    audit(service, caller, "assigned", &wanted);
    Ok(Answer::json(201, &assignment_of(service, &wanted, now)))
}

pub async fn delete(service: &Service, caller: &Caller<'_>) -> Result<Answer, ApiError> {
    let _held = service.changing_assignments().lock().await;
    let Some((found, since)) = named(service, caller)? else {
        return Ok(Answer::empty(204));
    };
    let is_owner = found.scope == Scope::subscription(service.subscription())
        && Role::by_id(found.role).is_some_and(|role| role.name == "Owner");
    let removed = match is_owner {
        true => {
            service
                .catalog()
                .remove_assignment_but_the_last(&found)
                .await
        }
        false => service
            .catalog()
            .remove_assignment(found.id)
            .await
            .map(|()| true),
    };
    if !removed.map_err(|error| super::internal(&error))? {
        let text = "nobody else who can sign in is the subscription's owner. Assign the role to somebody else first";
        return Err(ApiError::new(Code::LastOwnerAssignment, text));
    }
    let reloaded = service.reload_access().await;
    reloaded.map_err(|error| super::internal(&error))?;
    audit(service, caller, "taken away", &found);
    Ok(Answer::ok(&assignment_of(service, &found, since)))
}

/// Writes down whose rights changed.
fn audit(service: &Service, caller: &Caller<'_>, what: &str, assignment: &Assignment) {
    let role = Role::by_id(assignment.role).map_or("an unknown role", |role| role.name);
    let detail = format!(
        "{role} {what}: principal {}, assignment {}",
        assignment.principal, assignment.id
    );
    let actor = caller
        .principal
        .map_or_else(String::new, |id| id.to_string());
    service.audit_done(
        &actor,
        ASSIGNMENT_TYPE,
        &assignment.scope.to_string(),
        detail,
    );
}

fn name(caller: &Caller<'_>) -> Result<Uuid, ApiError> {
    let text = caller.parameters.get("assignment");
    Uuid::try_parse(text).map_err(|_| {
        let message = format!("`{text}` is no name of a role assignment, which is a GUID");
        ApiError::new(Code::InvalidParameterValue, message).about(text)
    })
}

/// The assignment that the path names, if it is at the path's scope.
fn named(
    service: &Service,
    caller: &Caller<'_>,
) -> Result<Option<(Assignment, Timestamp)>, ApiError> {
    let id = name(caller)?;
    let all = service.assignments();
    let found = all
        .iter()
        .find(|(found, _)| found.id == id && found.scope == caller.scope);
    Ok(found.cloned())
}

fn definition_path(subscription: SubscriptionId, role: Uuid) -> String {
    let scope = Scope::subscription(subscription);
    format!("{scope}/providers/{DEFINITION_TYPE}/{role}")
}

fn definition_of(subscription: SubscriptionId, role: &Role) -> Resource<DefinitionProperties> {
    let texts = |patterns: &[ActionPattern]| {
        let texts = patterns.iter().map(|pattern| pattern.as_str().to_owned());
        texts.collect::<Vec<_>>()
    };
    Resource {
        id: definition_path(subscription, role.id),
        name: role.id.to_string(),
        kind: DEFINITION_TYPE.to_owned(),
        location: None,
        tags: None,
        properties: DefinitionProperties {
            role_name: role.name.to_owned(),
            kind: "BuiltInRole".to_owned(),
            description: role.description.to_owned(),
            assignable_scopes: vec!["/".to_owned()],
            permissions: vec![Permission {
                actions: texts(role.actions),
                not_actions: texts(role.not_actions),
                data_actions: Vec::new(),
                not_data_actions: Vec::new(),
            }],
        },
    }
}

/// One that was removed counts as a program.
fn principal_type(service: &Service, id: Uuid) -> &'static str {
    let principals = service.principals();
    let row = principals.iter().find(|row| row.id == id);
    row.map_or(PrincipalKind::ServicePrincipal, |row| row.kind)
        .as_str()
}

fn assignment_of(
    service: &Service,
    assignment: &Assignment,
    since: Timestamp,
) -> Resource<AssignmentProperties> {
    let scope = assignment.scope.to_string();
    Resource {
        id: format!("{scope}/providers/{ASSIGNMENT_TYPE}/{}", assignment.id),
        name: assignment.id.to_string(),
        kind: ASSIGNMENT_TYPE.to_owned(),
        location: None,
        tags: None,
        properties: AssignmentProperties {
            role_definition_id: definition_path(
                assignment.scope.subscription_id(),
                assignment.role,
            ),
            principal_id: assignment.principal,
            principal_type: principal_type(service, assignment.principal).to_owned(),
            scope,
            created_on: WireTime::new(since),
            updated_on: WireTime::new(since),
        },
    }
}
