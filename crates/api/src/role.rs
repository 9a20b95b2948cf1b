//! Role definitions and assignments.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::time::WireTime;

/// The type of an assignment.
pub const ASSIGNMENT_TYPE: &str = "Microsoft.Authorization/roleAssignments";
/// The type of a definition.
pub const DEFINITION_TYPE: &str = "Microsoft.Authorization/roleDefinitions";

/// What an assignment is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AssignmentProperties {
    /// The role's definition, as a path.
    pub role_definition_id: String,
    /// Who has it.
    pub principal_id: Uuid,
    /// `ServicePrincipal`.
    pub principal_type: String,
    /// Where.
    pub scope: String,
    /// Since when.
    pub created_on: WireTime,
    /// Since when, the same: an assignment is never changed.
    pub updated_on: WireTime,
}

/// A wish for an assignment.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
pub struct AssignmentWish {
    /// It.
    pub properties: AssignmentWishProperties,
}

/// What is wished for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AssignmentWishProperties {
    /// The role's definition, as a path whose last part is its identifier.
    pub role_definition_id: String,
    /// Who shall have it.
    pub principal_id: Uuid,
}

/// What a definition is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DefinitionProperties {
    /// Its name.
    pub role_name: String,
    /// `BuiltInRole`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What it is for.
    pub description: String,
    /// Where it can be assigned.
    pub assignable_scopes: Vec<String>,
    /// What it allows.
    pub permissions: Vec<Permission>,
}

/// Actions that are allowed but for some.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Permission {
    /// Allowed.
    pub actions: Vec<String>,
    /// But for these.
    pub not_actions: Vec<String>,
    /// Actions on data: there are none.
    pub data_actions: Vec<String>,
    /// But for these.
    pub not_data_actions: Vec<String>,
}
