//! Where instances are: each in a resource group of a subscription, by the configuration. What it says of an instance
//! that is known is changed by the service's start alone.

use everpoint_repository::InstanceName;

use super::Service;
use crate::access::{Scope, SubscriptionId};

impl Service {
    /// The subscription that instances are in of which nothing else is said.
    pub fn subscription(&self) -> SubscriptionId {
        self.subscription
    }

    /// All subscriptions, the service's own first.
    pub fn subscriptions(&self) -> Vec<SubscriptionId> {
        let mut all: Vec<_> = self.groups().iter().map(Scope::subscription_id).collect();
        all.dedup();
        all
    }

    /// The resource group that instances are in of which nothing else is said.
    pub fn group_scope(&self) -> Scope {
        Scope::subscription(self.subscription).below(&self.config.resource_group)
    }

    /// The resource group of an instance. One of which nothing is known is in the service's own.
    pub fn group_of(&self, instance: &InstanceName) -> Scope {
        let settings = self.settings();
        let own = settings.instances.get(instance.as_str());
        let subscription = own.and_then(|own| own.subscription);
        let group = own.and_then(|own| own.resource_group.as_deref());
        Scope::subscription(subscription.unwrap_or(self.subscription))
            .below(group.unwrap_or(&self.config.resource_group))
    }

    /// All resource groups, the service's own first, and those of one subscription beside each other.
    pub fn groups(&self) -> Vec<Scope> {
        let mut all = vec![self.group_scope()];
        let settings = self.settings();
        let placed = settings.instances.iter();
        let placed =
            placed.filter(|(_, own)| own.subscription.is_some() || own.resource_group.is_some());
        for (name, _) in placed {
            let Ok(name) = name.parse() else { continue };
            let group = self.group_of(&name);
            if !all.contains(&group) {
                all.push(group);
            }
        }
        let own = self.subscription;
        all.sort_by_key(|group| (group.subscription_id() != own, group.subscription_id()));
        all
    }

    /// The scope of an instance.
    pub fn instance_scope(&self, instance: &InstanceName) -> Scope {
        self.group_of(instance).below(instance.as_str())
    }
}
