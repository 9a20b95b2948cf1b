//! Tokens for programs that find them as Azure's managed identities do: they know an address and a secret, from
//! `IDENTITY_ENDPOINT` and `IDENTITY_HEADER` in their environment (the protocol of App Service, version 2019-08-01).
//!
//! The header holds a service principal's secret; who it is comes as `client_id`, or in front of the secret,
//! divided by a colon.

use everpoint_api::discovery::IdentityToken;
use jiff::Timestamp;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::token::{Refusal, issue, refused, sign_in};
use crate::{
    http::Answer,
    identity::TOKEN_LIFETIME,
    service::{Caller, Service},
};

pub async fn token(service: &Service, caller: &Caller<'_>) -> Answer {
    match grant(service, caller).await {
        Ok(answer) => Answer::ok(&answer),
        Err(refusal) => refused(refusal),
    }
}

async fn grant(service: &Service, caller: &Caller<'_>) -> Result<IdentityToken, Refusal> {
    let resource = caller.query("resource").unwrap_or_default();
    if !service.signer().serves(resource) {
        return Err((
            400,
            "invalid_resource",
            "the resource is the service's public URL",
        ));
    }
    let header = caller.identity_header.unwrap_or_default();
    let (client, secret) = match caller.query("client_id") {
        Some(client) => (client, header),
        None => header.split_once(':').unwrap_or((header, "")),
    };
    let client = Uuid::try_parse(client).ok();
    let principal = sign_in(service, client, Zeroizing::new(secret.to_owned())).await?;
    let answer = issue(service, &principal, resource)?;
    let lifetime = i64::try_from(TOKEN_LIFETIME.as_secs()).unwrap_or(0);
    Ok(IdentityToken {
        access_token: answer.access_token,
        client_id: principal.client_id,
        expires_on: (Timestamp::now().as_second() + lifetime).to_string(),
        resource: resource.to_owned(),
        token_type: answer.token_type,
    })
}
