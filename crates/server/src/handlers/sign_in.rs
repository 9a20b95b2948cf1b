//! Signing in: whether somebody has the secret or password of a principal.

use jiff::Timestamp;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::token::Refusal;
use crate::{
    catalog::{PrincipalKind, PrincipalRow},
    identity::SecretHash,
    service::Service,
};

/// Longer names are no user's.
const MAX_NAME_CHARS: usize = 128;

/// Who somebody says to be.
#[derive(Clone, Copy, Debug)]
pub enum Claimed<'a> {
    /// A service principal, by its client id, if it is one at all.
    Client(Option<Uuid>),
    /// A user, by name.
    User(&'a str),
}

impl Claimed<'_> {
    fn is(self, row: &PrincipalRow) -> bool {
        match self {
            Self::Client(client) => {
                row.kind == PrincipalKind::ServicePrincipal && Some(row.client_id) == client
            }
            Self::User(name) => {
                row.kind == PrincipalKind::User && row.name.to_lowercase() == name.to_lowercase()
            }
        }
    }

    /// For the audit log, and to count attempts under.
    fn text(self) -> String {
        match self {
            Self::Client(Some(id)) => format!("client {id}"),
            Self::Client(None) => "a client without an id".to_owned(),
            Self::User(name) => {
                let short: String = name.chars().take(MAX_NAME_CHARS).collect();
                format!("user {}", short.to_lowercase())
            }
        }
    }
}

/// Who has this identifier and secret. The same words for an unknown one, a disabled one and a wrong secret, after
/// the same work.
pub async fn sign_in(
    service: &Service,
    claimed: Claimed<'_>,
    secret: Zeroizing<String>,
) -> Result<PrincipalRow, Refusal> {
    let wrong = match claimed {
        Claimed::Client(_) => (
            401,
            "invalid_client",
            "the client id or its secret is wrong",
        ),
        Claimed::User(_) => (400, "invalid_grant", "the name or the password is wrong"),
    };
    let text = claimed.text();
    if !service.may_try(&text) {
        return Err(too_many(service, &text));
    }
    let now = Timestamp::now();
    let principals = service.principals();
    let principal = principals
        .iter()
        .find(|row| claimed.is(row) && row.is_enabled());
    let valid = principal.iter().flat_map(|row| &row.secrets);
    let mut hashes: Vec<String> = valid
        .filter(|secret| secret.is_valid(now))
        .map(|secret| secret.hash.clone())
        .collect();
    let known = !hashes.is_empty();
    if !known {
        let any = principals.iter().find_map(|row| row.secrets.first());
        hashes.extend(any.map(|secret| secret.hash.clone()));
    }
    let busy = (503, "temporarily_unavailable", "the service is ending");
    let permit = service
        .checking_secrets()
        .acquire()
        .await
        .map_err(|_| busy)?;
    // Others may have failed while this one waited for its turn.
    if !service.may_try(&text) {
        return Err(too_many(service, &text));
    }
    let check = move || {
        let mut hashes = hashes.into_iter().map(SecretHash::from_text);
        hashes.any(|hash| hash.matches(&secret))
    };
    let matches = tokio::task::spawn_blocking(check).await.unwrap_or(false);
    let principal = principal.filter(|_| matches && known);
    if principal.is_none() {
        service.note_failed_attempt(&text);
    }
    drop(permit);
    let written = service.audit_sign_in(&text, principal.map(|row| row.id));
    let principal = principal.ok_or(wrong)?;
    match written {
        true => Ok(principal.clone()),
        false => {
            let text = "the audit log cannot be written, so nobody signs in. See the service's log";
            Err((503, "temporarily_unavailable", text))
        }
    }
}

fn too_many(service: &Service, claimed: &str) -> Refusal {
    service.audit_sign_in(claimed, None);
    let text = "too many attempts failed. Wait a minute";
    (429, "temporarily_unavailable", text)
}
