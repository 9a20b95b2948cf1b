//! The first start: one owner, whose secret is shown once.

use jiff::Timestamp;
use uuid::Uuid;

use crate::{
    access::{Assignment, Role, Scope, SubscriptionId},
    catalog::{Catalog, CatalogError, PrincipalRow, SecretRow},
    identity::{ClientSecret, SecretHash},
};

/// The owner that the first start makes.
pub struct Owner {
    /// What it signs in with.
    pub client_id: Uuid,
    /// Its secret.
    pub secret: ClientSecret,
}

/// Makes the owner when there is no principal yet. None when there is one, or no randomness.
///
/// # Errors
/// When the catalog fails.
pub async fn ensure_owner(
    catalog: &Catalog,
    subscription: SubscriptionId,
    now: Timestamp,
) -> Result<Option<Owner>, CatalogError> {
    let principals = catalog.principals().await?;
    // A first start that was interrupted between the two steps left a principal that nobody has the secret of.
    let assignments = catalog.assignments().await?;
    if !assignments.is_empty() {
        return Ok(None);
    }
    let (Some(secret), Some(role)) = (ClientSecret::random(), Role::by_name("Owner")) else {
        return Ok(None);
    };
    let Some(hash) = SecretHash::of(secret.text()) else {
        return Ok(None);
    };
    let name = match principals.len() {
        0 => "owner".to_owned(),
        more => format!("owner {}", more + 1),
    };
    let kept = SecretRow::new(hash.text(), now, None);
    let principal = PrincipalRow::service(Uuid::new_v4(), Uuid::new_v4(), name, Some(kept), now);
    let assignment = Assignment {
        id: Uuid::new_v4(),
        principal: principal.id,
        role: role.id,
        scope: Scope::subscription(subscription),
    };
    // Another server may have been faster.
    let added = catalog
        .add_first_owner(&principal, &assignment, now)
        .await?;
    Ok(added.then_some(Owner {
        client_id: principal.client_id,
        secret,
    }))
}
