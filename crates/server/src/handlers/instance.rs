//! Instances.

use std::sync::Arc;

use everpoint_api::{
    ApiError, Resource,
    instance::{InstanceProperties, TYPE},
};

use crate::{
    access::Action,
    http::Answer,
    service::{Caller, Observed, Service},
};

const READ: Action = Action::new("Microsoft.Sql/managedInstances/read");

pub fn list(service: &Service, caller: &Caller<'_>) -> Result<Answer, ApiError> {
    let permitted = service.permitted(caller, READ);
    let all = service.instances();
    let seen = all
        .iter()
        .filter(|observed| {
            let scope = service.instance_scope(&observed.name);
            caller.scope.contains(&scope) && permitted(&scope)
        })
        .map(|observed| resource(service, observed))
        .collect();
    super::page(service, caller, seen)
}

pub fn get(service: &Service, caller: &Caller<'_>) -> Result<Answer, ApiError> {
    Ok(Answer::ok(&resource(service, &*known(service, caller)?)))
}

/// The instance that the path names.
pub fn known(service: &Service, caller: &Caller<'_>) -> Result<Arc<Observed>, ApiError> {
    let name = caller.instance_name()?;
    service
        .instance(&name)
        .ok_or_else(|| super::not_found("instance", name.as_str()))
}

fn resource(service: &Service, observed: &Observed) -> Resource<InstanceProperties> {
    let redundancy = "Local".to_owned();
    let endpoint = observed.connection.endpoints().first();
    Resource {
        id: service.instance_scope(&observed.name).to_string(),
        name: observed.name.to_string(),
        kind: TYPE.to_owned(),
        location: Some(service.config().location.clone()),
        tags: None,
        properties: InstanceProperties {
            provisioning_state: "Succeeded".to_owned(),
            state: match observed.server {
                Ok(_) => "Ready".to_owned(),
                Err(_) => "Stopped".to_owned(),
            },
            fully_qualified_domain_name: endpoint.map(ToString::to_string).unwrap_or_default(),
            administrator_login: observed.connection.user().map(str::to_owned),
            server_version: observed
                .server
                .as_ref()
                .ok()
                .map(|version| version.0.clone()),
            system_identifier: observed.record.system_identifier.to_string(),
            current_backup_storage_redundancy: redundancy.clone(),
            requested_backup_storage_redundancy: redundancy,
        },
    }
}
