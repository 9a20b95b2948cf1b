//! Decisions.

use uuid::Uuid;

use super::{
    action::Action,
    role::{Role, RoleId},
    scope::Scope,
};

/// Who: a service principal or user.
pub type PrincipalId = Uuid;
/// An assignment's name.
pub type AssignmentId = Uuid;

/// A role, given to a principal at a scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Its name.
    pub id: AssignmentId,
    /// To whom.
    pub principal: PrincipalId,
    /// What.
    pub role: RoleId,
    /// Where, and below.
    pub scope: Scope,
}

/// Nothing allows it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the client with object id '{principal}' does not have authorization to perform action '{action}' over scope '{scope}'. Ask an owner of the scope for a role that allows it; a role assigned just now takes effect at the next request"
)]
pub struct Denied {
    /// Who.
    pub principal: PrincipalId,
    /// What.
    pub action: Action,
    /// Where.
    pub scope: Scope,
}

/// Decides whether a principal may do something somewhere. Names the assignment that allows it.
///
/// # Errors
/// When no assignment does.
pub fn decide<'a>(
    assignments: impl IntoIterator<Item = &'a Assignment>,
    principal: PrincipalId,
    action: Action,
    scope: &Scope,
) -> Result<&'a Assignment, Denied> {
    assignments
        .into_iter()
        .filter(|found| found.principal == principal && found.scope.contains(scope))
        .find(|found| Role::by_id(found.role).is_some_and(|role| role.allows(action)))
        .ok_or_else(|| Denied {
            principal,
            action,
            scope: scope.clone(),
        })
}

/// Whether a scope shows up in a principal's lists: it may read there, or somewhere below.
pub fn may_see<'a>(
    assignments: impl IntoIterator<Item = &'a Assignment>,
    principal: PrincipalId,
    action: Action,
    scope: &Scope,
) -> bool {
    assignments
        .into_iter()
        .filter(|found| found.principal == principal)
        .filter(|found| found.scope.contains(scope) || scope.contains(&found.scope))
        .any(|found| Role::by_id(found.role).is_some_and(|role| role.allows(action)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: Action = Action::new("Microsoft.Sql/managedInstances/databases/read");
    const WRITE: Action = Action::new("Microsoft.Sql/managedInstances/databases/write");

    fn assignment(principal: u128, role: &str, scope: &Scope) -> Assignment {
        Assignment {
            id: Uuid::from_u128(99),
            principal: Uuid::from_u128(principal),
            role: Role::by_name(role).unwrap().id,
            scope: scope.clone(),
        }
    }

    #[test]
    fn nothing_is_allowed_that_no_assignment_allows() {
        let subscription = Scope::subscription(Uuid::from_u128(1));
        let instance = subscription.below("group").below("one");
        let (database, beside) = (instance.below("app"), instance.below("other"));
        let given = [
            assignment(1, "Reader", &subscription),
            assignment(2, "Owner", &database),
        ];
        let may = |principal, action, scope| {
            decide(&given, Uuid::from_u128(principal), action, scope).is_ok()
        };
        assert!(may(1, READ, &database) && !may(1, WRITE, &database));
        assert!(may(2, WRITE, &database) && !may(2, READ, &beside) && !may(2, READ, &instance));
        assert!(!may(3, READ, &subscription));
        assert!(decide(&[], Uuid::from_u128(1), READ, &database).is_err());
        let seen = |scope| may_see(&given, Uuid::from_u128(2), READ, scope);
        assert!(seen(&instance) && seen(&database) && !seen(&beside));
    }

    #[test]
    fn a_refusal_names_who_what_and_where() {
        let scope = Scope::subscription(Uuid::from_u128(1)).below("Prod");
        let denied = decide(&[], Uuid::from_u128(7), WRITE, &scope).unwrap_err();
        let text = denied.to_string();
        for part in [
            "00000000-0000-0000-0000-000000000007",
            "Microsoft.Sql/managedInstances/databases/write",
            "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/Prod",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn an_assignment_of_an_unknown_role_allows_nothing() {
        let scope = Scope::subscription(Uuid::from_u128(1));
        let mut given = assignment(1, "Owner", &scope);
        given.role = Uuid::nil();
        assert!(decide([&given], Uuid::from_u128(1), READ, &scope).is_err());
    }
}
