//! The built-in roles, with their identifiers and action strings as Azure publishes them.

use uuid::{Uuid, uuid};

use super::action::{Action, ActionPattern};

/// A role's identifier, the same in every installation.
pub type RoleId = Uuid;

/// A set of actions under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Role {
    /// Its identifier.
    pub id: RoleId,
    /// Its name.
    pub name: &'static str,
    /// What it is for.
    pub description: &'static str,
    /// What it allows.
    pub actions: &'static [ActionPattern],
    /// What it does not allow of that.
    pub not_actions: &'static [ActionPattern],
}

impl Role {
    /// Whether it allows the action.
    pub fn allows(&self, action: Action) -> bool {
        let any = |patterns: &[ActionPattern]| patterns.iter().any(|found| found.covers(action));
        any(self.actions) && !any(self.not_actions)
    }

    /// The role of this identifier.
    pub fn by_id(id: RoleId) -> Option<&'static Self> {
        BUILT_IN.iter().find(|role| role.id == id)
    }

    /// The role of this name, in any case.
    pub fn by_name(name: &str) -> Option<&'static Self> {
        BUILT_IN
            .iter()
            .find(|role| role.name.eq_ignore_ascii_case(name))
    }
}

const fn pattern(text: &'static str) -> ActionPattern {
    ActionPattern::new(text)
}

/// All roles there are.
pub const BUILT_IN: &[Role] = &[
    Role {
        id: uuid!("8e3af657-a8ff-443c-a75c-2fe8c4bcb635"),
        name: "Owner",
        description: "Full access to all resources, including the right to assign roles.",
        actions: &[pattern("*")],
        not_actions: &[],
    },
    Role {
        id: uuid!("b24988ac-6180-42a0-ab88-20f7382dd24c"),
        name: "Contributor",
        description: "Full access to all resources, without the right to assign roles.",
        actions: &[pattern("*")],
        not_actions: &[
            pattern("Microsoft.Authorization/*/Delete"),
            pattern("Microsoft.Authorization/*/Write"),
            pattern("Microsoft.Authorization/elevateAccess/Action"),
            pattern("Microsoft.Blueprint/blueprintAssignments/write"),
            pattern("Microsoft.Blueprint/blueprintAssignments/delete"),
            pattern("Microsoft.Compute/galleries/share/action"),
            pattern("Microsoft.Purview/consents/write"),
            pattern("Microsoft.Purview/consents/delete"),
        ],
    },
    Role {
        id: uuid!("acdd72a7-3385-48ef-bd42-f606fba81ae7"),
        name: "Reader",
        description: "May see all resources and change none.",
        actions: &[pattern("*/read")],
        not_actions: &[],
    },
    Role {
        id: uuid!("4939a1f6-9ae0-4e48-a1e0-f2cbe897382d"),
        name: "SQL Managed Instance Contributor",
        description: "May manage instances and their databases, but not give others access to them.",
        actions: &[
            pattern("Microsoft.Resources/deployments/*"),
            pattern("Microsoft.Resources/subscriptions/resourceGroups/read"),
            pattern("Microsoft.Insights/alertRules/*"),
            pattern("Microsoft.Support/*"),
            pattern("Microsoft.Network/networkSecurityGroups/*"),
            pattern("Microsoft.Network/routeTables/*"),
            pattern("Microsoft.Sql/locations/*/read"),
            pattern("Microsoft.Sql/locations/instanceFailoverGroups/*"),
            pattern("Microsoft.Sql/managedInstances/*"),
            pattern("Microsoft.Network/virtualNetworks/subnets/*"),
            pattern("Microsoft.Network/virtualNetworks/*"),
            pattern("Microsoft.Authorization/*/read"),
            pattern("Microsoft.Insights/metrics/read"),
            pattern("Microsoft.Insights/metricDefinitions/read"),
        ],
        not_actions: &[
            pattern("Microsoft.Sql/managedInstances/azureADOnlyAuthentications/delete"),
            pattern("Microsoft.Sql/managedInstances/azureADOnlyAuthentications/write"),
        ],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_allows_what_it_is_known_for() {
        let table = [
            ("Microsoft.Sql/managedInstances/databases/read", "OCRS"),
            ("Microsoft.Sql/managedInstances/databases/write", "OC-S"),
            ("Microsoft.Authorization/roleAssignments/read", "OCRS"),
            ("Microsoft.Authorization/roleAssignments/write", "O---"),
            ("Microsoft.Authorization/roleAssignments/delete", "O---"),
            (
                "Microsoft.Sql/locations/longTermRetentionManagedInstances/longTermRetentionDatabases/longTermRetentionManagedInstanceBackups/delete",
                "OC--",
            ),
            (
                "Microsoft.Sql/locations/longTermRetentionManagedInstances/longTermRetentionDatabases/longTermRetentionManagedInstanceBackups/read",
                "OCRS",
            ),
            (
                "Microsoft.Resources/subscriptions/resourceGroups/read",
                "OCRS",
            ),
        ];
        for (action, expected) in table {
            let found: String = BUILT_IN
                .iter()
                .map(|role| match role.allows(Action::new(action)) {
                    true => role.name.chars().next().unwrap(),
                    false => '-',
                })
                .collect();
            assert_eq!(found, expected, "{action}");
        }
    }

    #[test]
    fn roles_are_found_by_name_in_any_case() {
        assert_eq!(Role::by_name("reader").unwrap().name, "Reader");
        assert_eq!(Role::by_id(BUILT_IN[0].id).unwrap().name, "Owner");
        assert!(Role::by_name("king").is_none());
    }
}
