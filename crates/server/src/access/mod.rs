//! Who may do what: roles assigned to principals at scopes. Nothing is allowed that no assignment allows.

mod action;
mod decision;
mod role;
mod scope;

pub use action::{Action, ActionPattern};
pub use decision::{Assignment, AssignmentId, Denied, PrincipalId, decide, may_see};
pub use role::{BUILT_IN, Role, RoleId};
pub use scope::{Scope, ScopeError, SubscriptionId, segment};
