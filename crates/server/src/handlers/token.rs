//! Tokens: for service principals by the client credentials grant, for users by the password grant (RFC 6749,
//! sections 4.4 and 4.3).

use everpoint_api::{
    ApiError,
    discovery::{TokenAnswer, TokenError},
};
use jiff::Timestamp;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::sign_in::{Claimed, sign_in};
use crate::{
    catalog::PrincipalRow,
    http::{Answer, query_pairs},
    identity::TOKEN_LIFETIME,
    service::{Caller, Service},
};

pub async fn token(service: &Service, caller: &Caller<'_>) -> Answer {
    match grant(service, caller).await {
        Ok(answer) => Answer::ok(&answer),
        Err(refusal) => refused(refusal),
    }
}

/// A status, an error of OAuth 2.0, and a text.
pub type Refusal = (u16, &'static str, &'static str);

pub fn refused((status, error, text): Refusal) -> Answer {
    let body = TokenError {
        error: error.to_owned(),
        error_description: text.to_owned(),
    };
    let answer = Answer::json(status, &body);
    match status {
        429 | 503 => answer.with("retry-after", "5"),
        _ => answer,
    }
}

async fn grant(service: &Service, caller: &Caller<'_>) -> Result<TokenAnswer, Refusal> {
    let text = std::str::from_utf8(caller.body);
    let form = query_pairs(text.map_err(|_| (400, "invalid_request", "the form is not UTF-8"))?);
    let field = |name: &str| {
        let mut found = form.iter().filter(|(key, _)| key == name);
        found.next().map_or("", |(_, value)| value.as_str())
    };
    if !is_tenant(service, caller) {
        return Err((400, "invalid_request", "there is no such tenant"));
    }
    let (claimed, secret) = match field("grant_type") {
        "client_credentials" => {
            let client = Uuid::try_parse(field("client_id")).ok();
            (Claimed::Client(client), field("client_secret"))
        }
        "password" => (Claimed::User(field("username")), field("password")),
        _ => {
            let text = "only grant_type=client_credentials and password are served";
            return Err((400, "unsupported_grant_type", text));
        }
    };
    // What speaks the older protocol names the resource itself.
    let scope = field("scope")
        .split_whitespace()
        .find_map(|scope| scope.strip_suffix("/.default"))
        .or(Some(field("resource")));
    let Some(audience) = scope.filter(|audience| service.signer().serves(audience)) else {
        let text = "the scope is the service's public URL followed by /.default";
        return Err((400, "invalid_scope", text));
    };
    let secret = Zeroizing::new(secret.to_owned());
    let principal = sign_in(service, claimed, secret).await?;
    issue(service, &principal, audience)
}

/// A token for an audience that the service is.
pub fn issue(
    service: &Service,
    principal: &PrincipalRow,
    audience: &str,
) -> Result<TokenAnswer, Refusal> {
    let now = Timestamp::now();
    let signed = service
        .signer()
        .sign(principal.id, principal.client_id, audience, now);
    let access_token = signed.map_err(|_| (500, "server_error", "the token cannot be signed"))?;
    let seconds = TOKEN_LIFETIME.as_secs();
    Ok(TokenAnswer {
        token_type: "Bearer".to_owned(),
        expires_in: seconds,
        ext_expires_in: seconds,
        access_token,
    })
}

/// Paths of ADFS' form name no tenant: there is one.
fn is_tenant(service: &Service, caller: &Caller<'_>) -> bool {
    let Some(tenant) = caller.parameters.find("tenant") else {
        return true;
    };
    Uuid::try_parse(tenant).is_ok_and(|asked| asked == service.tenant())
}

fn check_tenant(service: &Service, caller: &Caller<'_>) -> Result<(), ApiError> {
    match is_tenant(service, caller) {
        true => Ok(()),
        false => Err(super::not_found("tenant", caller.parameters.get("tenant"))),
    }
}

/// OpenID Connect Discovery 1.0, as far as clients with a secret or a password need it.
pub fn openid(service: &Service, caller: &Caller<'_>) -> Result<Answer, ApiError> {
    check_tenant(service, caller)?;
    let place = format!("{}/{}", service.config().base_url(), service.tenant());
    Ok(Answer::ok(&serde_json::json!({
        "issuer": service.signer().issuer(),
        "token_endpoint": format!("{place}/oauth2/v2.0/token"),
        "authorization_endpoint": format!("{place}/oauth2/v2.0/authorize"),
        "jwks_uri": format!("{place}/discovery/v2.0/keys"),
        "token_endpoint_auth_methods_supported": ["client_secret_post"],
        "grant_types_supported": ["client_credentials", "password"],
        "response_types_supported": ["token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    })))
}

/// The same for clients that take the service for ADFS.
pub fn adfs(service: &Service) -> Answer {
    let place = format!("{}/adfs", service.config().base_url());
    Answer::ok(&serde_json::json!({
        "issuer": service.signer().issuer(),
        "token_endpoint": format!("{place}/oauth2/token"),
        "authorization_endpoint": format!("{place}/oauth2/authorize"),
        "jwks_uri": format!("{place}/discovery/keys"),
        "token_endpoint_auth_methods_supported": ["client_secret_post"],
        "grant_types_supported": ["client_credentials", "password"],
        "response_types_supported": ["token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    }))
}

pub fn key_set(service: &Service, caller: &Caller<'_>) -> Result<Answer, ApiError> {
    check_tenant(service, caller)?;
    Ok(Answer::ok(&service.signer().key_set()))
}
