//! What `az` asks a directory, in the shape of Microsoft Graph.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// Somebody who can have roles.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Principal {
    /// `#microsoft.graph.servicePrincipal`.
    #[serde(rename = "@odata.type")]
    pub kind: String,
    /// As role assignments name it.
    pub id: Uuid,
    /// As it signs in.
    pub app_id: Uuid,
    /// For a person.
    pub display_name: String,
}

/// A wish for several of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct IdsWish {
    /// Which.
    pub ids: Vec<Uuid>,
}
