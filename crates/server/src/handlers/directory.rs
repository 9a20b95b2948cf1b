//! What `az` asks a directory: who has an identifier.
//!
//! Everybody may look up themselves; others are seen by those who may read role assignments anywhere.

use everpoint_api::{
    ApiError,
    directory::{IdsWish, Principal},
};

use crate::{
    access::{Action, Scope},
    catalog::{PrincipalKind, PrincipalRow},
    http::Answer,
    service::{Caller, Service},
};

const READ: Action = Action::new("Microsoft.Authorization/roleAssignments/read");
/// The most that one request may ask for.
const MAX_IDS: usize = 1000;

pub fn by_ids(service: &Service, caller: &Caller<'_>) -> Result<Answer, ApiError> {
    let wish: IdsWish = caller.json()?;
    let ids = wish.ids.get(..MAX_IDS).unwrap_or(&wish.ids);
    let asked = |row: &PrincipalRow| ids.contains(&row.id);
    super::page(service, caller, list(service, caller, asked))
}

/// `$filter` holds the identifier of a client or a principal somewhere between quotes:
/// `servicePrincipalNames/any(c:c eq '…')`, `appId eq '…'`.
pub fn service_principals(service: &Service, caller: &Caller<'_>) -> Result<Answer, ApiError> {
    let filter = caller.query("$filter").map(str::to_ascii_lowercase);
    let named = |row: &PrincipalRow| {
        filter.as_ref().is_none_or(|filter| {
            let mut quoted = filter.split('\'').skip(1).step_by(2);
            quoted.any(|text| {
                let has = |name: &str| text == name.to_ascii_lowercase();
                has(&row.client_id.to_string()) || has(&row.id.to_string()) || has(&row.name)
            })
        })
    };
    let asked = |row: &PrincipalRow| row.kind == PrincipalKind::ServicePrincipal && named(row);
    super::page(service, caller, list(service, caller, asked))
}

fn list(
    service: &Service,
    caller: &Caller<'_>,
    asked: impl Fn(&PrincipalRow) -> bool,
) -> Vec<Principal> {
    let visible = service.visible(caller, READ);
    let mut subscriptions = service.subscriptions().into_iter();
    let sees_others = subscriptions.any(|id| visible(&Scope::subscription(id)));
    let principals = service.principals();
    let seen = principals
        .iter()
        .filter(|row| asked(row) && (sees_others || Some(row.id) == caller.principal));
    seen.map(of).collect()
}

fn of(row: &PrincipalRow) -> Principal {
    let (kind, app_id) = match row.kind {
        PrincipalKind::ServicePrincipal => {
            ("#microsoft.graph.servicePrincipal", Some(row.client_id))
        }
        PrincipalKind::User => ("#microsoft.graph.user", None),
    };
    Principal {
        kind: kind.to_owned(),
        id: row.id,
        app_id,
        display_name: row.name.clone(),
    }
}
