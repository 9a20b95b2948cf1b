//! What clients ask first: which cloud this is, which subscriptions and groups there are; and tokens.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// A subscription.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Subscription {
    /// Its path.
    pub id: String,
    /// Its identifier.
    pub subscription_id: Uuid,
    /// The tenant it belongs to.
    pub tenant_id: Uuid,
    /// For a person.
    pub display_name: String,
    /// `Enabled`.
    pub state: String,
}

/// What a resource group is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct GroupProperties {
    /// `Succeeded`.
    pub provisioning_state: String,
}

/// A tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tenant {
    /// Its path.
    pub id: String,
    /// Its identifier.
    pub tenant_id: Uuid,
    /// For a person.
    pub display_name: String,
}

/// What a client sends for a token, as a form.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenWish {
    /// `client_credentials`.
    pub grant_type: String,
    /// Who.
    pub client_id: String,
    /// Their secret.
    pub client_secret: String,
    /// The service's public URL, followed by `/.default`.
    pub scope: String,
}

/// An access token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenAnswer {
    /// `Bearer`.
    pub token_type: String,
    /// Seconds it is valid.
    pub expires_in: u64,
    /// The same.
    pub ext_expires_in: u64,
    /// It.
    pub access_token: String,
}

/// An access token as managed identities get it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct IdentityToken {
    /// It.
    pub access_token: String,
    /// Whose.
    pub client_id: Uuid,
    /// Until when it is valid, in seconds since 1970.
    pub expires_on: String,
    /// What it is for.
    pub resource: String,
    /// `Bearer`.
    pub token_type: String,
}

/// Why there is no token, as OAuth 2.0 has it (RFC 6749, section 5.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenError {
    /// Its code.
    pub error: String,
    /// For a person.
    pub error_description: String,
}
