//! Which cloud this is, who is well, which subscription and group there are.

use everpoint_api::{
    ApiError, Code, List, Resource,
    discovery::{GroupProperties, Subscription, Tenant},
};

use crate::{
    access::{Action, Scope, SubscriptionId},
    chain,
    http::Answer,
    service::{Caller, Scheduling, Service},
};

/// Whether requests can be answered and backups taken, who schedules them, and whether all log is received.
pub async fn ready(service: &Service) -> Answer {
    let catalog = service.scheduling().await.map_err(|error| chain(&error));
    let repository = service.repository().instances().await;
    let repository = repository.map_err(|error| chain(&error));
    // Anybody may ask: why something fails stands in the log alone.
    for (what, error) in [
        ("catalog", catalog.as_ref().err()),
        ("repository", repository.as_ref().err()),
    ] {
        if let Some(error) = error {
            tracing::error!("not ready: the {what} failed: {error}");
        }
    }
    let word = |well: bool| if well { "ok" } else { "failed" };
    let scheduling = match &catalog {
        Ok(Scheduling::Here) => "here",
        Ok(Scheduling::Elsewhere) => "elsewhere",
        Ok(Scheduling::Nowhere) => "nowhere",
        Err(_) => "unknown",
    };
    let ready = catalog.is_ok() && repository.is_ok();
    let log = match (&catalog, service.not_received()) {
        (Ok(Scheduling::Here), 0) => "ok".to_owned(),
        (Ok(Scheduling::Here), count) => format!("not received of {count} instances"),
        _ => scheduling.to_owned(),
    };
    let text = format!(
        "{}\ncatalog {}\nrepository {}\nscheduling {scheduling}\nlog {log}\n",
        if ready { "ready" } else { "not ready" },
        word(catalog.is_ok()),
        word(repository.is_ok()),
    );
    Answer::plain(if ready { 200 } else { 503 }, "text/plain", &text)
}

pub fn authority(service: &Service) -> Result<Answer, ApiError> {
    match service.authority() {
        Some(pem) => Ok(Answer::plain(200, "application/x-pem-file", pem)),
        None => {
            let text = "the certificate is its owner's own, and so is its authority";
            Err(ApiError::new(Code::ResourceNotFound, text))
        }
    }
}

const READ_GROUPS: Action = Action::new("Microsoft.Resources/subscriptions/resourceGroups/read");
/// The version of cloud metadata from which on one cloud tells of itself. Earlier ones list clouds.
const ONE_CLOUD: &str = "2022-09-01";

/// What `az cloud register` reads.
pub fn cloud(service: &Service, caller: &Caller<'_>) -> Answer {
    let base = service.config().base_url();
    let cloud = serde_json::json!({
        "name": "Everpoint",
        "resourceManager": format!("{base}/"),
        "portal": base,
        "graph": base,
        "microsoftGraphResourceId": base,
        "batch": base,
        "gallery": base,
        "authentication": {
            "loginEndpoint": base,
            "audiences": [base, format!("{base}/")],
            "tenant": service.tenant(),
            "identityProvider": "AAD",
        },
        "media": base,
        "suffixes": {},
    });
    // They are dates.
    match caller.query("api-version") {
        Some(version) if version >= ONE_CLOUD => Answer::ok(&cloud),
        _ => Answer::ok(&[cloud]),
    }
}

pub fn tenants(service: &Service) -> Answer {
    let tenant = Tenant {
        id: format!("/tenants/{}", service.tenant()),
        tenant_id: service.tenant(),
        display_name: "Everpoint".to_owned(),
    };
    Answer::ok(&List {
        value: vec![tenant],
        next_link: None,
    })
}

pub fn subscriptions(service: &Service, caller: &Caller<'_>) -> Answer {
    let all = service.assignments();
    let is_visible = |id: &SubscriptionId| {
        all.iter().any(|(assignment, _)| {
            Some(assignment.principal) == caller.principal
                && assignment.scope.subscription_id() == *id
        })
    };
    let seen = service.subscriptions().into_iter().filter(is_visible);
    Answer::ok(&List {
        value: seen.map(|id| described(service, id)).collect(),
        next_link: None,
    })
}

pub fn subscription(service: &Service, caller: &Caller<'_>) -> Answer {
    Answer::ok(&described(service, caller.scope.subscription_id()))
}

fn described(service: &Service, id: SubscriptionId) -> Subscription {
    Subscription {
        id: Scope::subscription(id).to_string(),
        subscription_id: id,
        tenant_id: service.tenant(),
        display_name: match id == service.subscription() {
            true => "Everpoint".to_owned(),
            false => format!("Everpoint {id}"),
        },
        state: "Enabled".to_owned(),
    }
}

pub fn groups(service: &Service, caller: &Caller<'_>) -> Answer {
    let visible = service.visible(caller, READ_GROUPS);
    let all = service.groups().into_iter();
    let seen = all.filter(|group| caller.scope.contains(group) && visible(group));
    Answer::ok(&List {
        value: seen.map(|group| described_group(service, &group)).collect(),
        next_link: None,
    })
}

pub fn group(service: &Service, caller: &Caller<'_>) -> Answer {
    Answer::ok(&described_group(service, &caller.scope))
}

fn described_group(service: &Service, group: &Scope) -> Resource<GroupProperties> {
    Resource {
        id: group.to_string(),
        name: group.name().unwrap_or_default().to_owned(),
        kind: "Microsoft.Resources/resourceGroups".to_owned(),
        location: Some(service.config().location.clone()),
        tags: None,
        properties: GroupProperties {
            provisioning_state: "Succeeded".to_owned(),
        },
    }
}
