//! Which cloud this is, who is well, which subscription and group there are.

use everpoint_api::{
    ApiError, Code, List, Resource,
    discovery::{GroupProperties, Subscription, Tenant},
};

use crate::{
    access::Scope,
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
    let mut given = all.iter().map(|(assignment, _)| Some(assignment.principal));
    let visible = given.any(|principal| principal == caller.principal);
    Answer::ok(&List {
        value: visible
            .then(|| the_subscription(service))
            .into_iter()
            .collect(),
        next_link: None,
    })
}

pub fn subscription(service: &Service) -> Answer {
    Answer::ok(&the_subscription(service))
}

fn the_subscription(service: &Service) -> Subscription {
    Subscription {
        id: Scope::subscription(service.subscription()).to_string(),
        subscription_id: service.subscription(),
        tenant_id: service.tenant(),
        display_name: "Everpoint".to_owned(),
        state: "Enabled".to_owned(),
    }
}

pub fn groups(service: &Service) -> Answer {
    Answer::ok(&List {
        value: vec![the_group(service)],
        next_link: None,
    })
}

pub fn group(service: &Service) -> Answer {
    Answer::ok(&the_group(service))
}

fn the_group(service: &Service) -> Resource<GroupProperties> {
    Resource {
        id: service.group_scope().to_string(),
        name: service.config().resource_group.clone(),
        kind: "Microsoft.Resources/resourceGroups".to_owned(),
        location: Some(service.config().location.clone()),
        tags: None,
        properties: GroupProperties {
            provisioning_state: "Succeeded".to_owned(),
        },
    }
}
