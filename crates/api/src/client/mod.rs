//! A client of the API: signs in, asks, follows pages, waits for operations.
//!
//! It keeps no state but its connections; tokens are its caller's to keep.

mod error;
mod wait;

use std::time::Duration;

use reqwest::{Certificate, Method, Response, StatusCode};
use serde::{Serialize, de::DeserializeOwned};
use url::Url;
use zeroize::Zeroizing;

pub use error::{ClientError, Failed};
pub use wait::Begun;

use crate::{
    discovery::{TokenAnswer, TokenError},
    error::ErrorBody,
    list::List,
};

/// The version of the API that is asked for.
pub const API_VERSION: &str = "2023-08-01";
/// The longest answer that is read.
const MAX_ANSWER_BYTES: usize = 32 << 20;
/// Pages of a list that are followed; a page has up to [`crate::list::PAGE_ITEMS`] items.
const MAX_PAGES: usize = 1000;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// How somebody signs in.
pub enum Grant<'a> {
    /// A program, by its client id and secret.
    Client {
        /// Its identifier.
        id: &'a str,
        /// Its secret.
        secret: &'a str,
    },
    /// A person, by name and password.
    User {
        /// Their name.
        name: &'a str,
        /// Their password.
        password: &'a str,
    },
}

/// A client of one server.
pub struct Client {
    http: reqwest::Client,
    base: Url,
    token: Option<Zeroizing<String>>,
}

impl Client {
    /// A client of the server at `base`. `authority` are PEM certificates that are trusted besides the system's.
    ///
    /// # Errors
    /// [`ClientError::Address`] when the address is none of HTTPS, [`ClientError::Authority`] when the
    /// certificates are none.
    pub fn new(base: &Url, authority: Option<&[u8]>) -> Result<Self, ClientError> {
        if base.scheme() != "https" || base.host_str().is_none() {
            return Err(ClientError::Address { url: base.clone() });
        }
        let mut http = reqwest::Client::builder()
            .timeout(PATIENCE)
            .redirect(reqwest::redirect::Policy::none())
            .https_only(true);
        if let Some(pem) = authority {
            let certificates = Certificate::from_pem_bundle(pem)
                .map_err(|source| ClientError::Authority { source })?;
            if certificates.is_empty() {
                return Err(ClientError::NoAuthority);
            }
            for certificate in certificates {
                http = http.add_root_certificate(certificate);
            }
        }
        let http = http
            .build()
            .map_err(|source| ClientError::Authority { source })?;
        Ok(Self {
            http,
            base: base.clone(),
            token: None,
        })
    }

    /// The same, with a token.
    #[must_use]
    pub fn with_token(mut self, token: Zeroizing<String>) -> Self {
        self.token = Some(token);
        self
    }

    /// The server's address.
    pub fn base(&self) -> &Url {
        &self.base
    }

    /// The tenant, which anybody may ask for.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn tenant(&self) -> Result<String, ClientError> {
        let clouds: serde_json::Value = self.get("/metadata/endpoints").await?;
        let cloud = clouds.get(0).unwrap_or(&clouds);
        let tenant = cloud
            .get("authentication")
            .and_then(|found| found.get("tenant")?.as_str());
        tenant.map(str::to_owned).ok_or(ClientError::NotEverpoint)
    }

    /// Asks for a token.
    ///
    /// # Errors
    /// [`ClientError::SignIn`] when it is refused.
    pub async fn sign_in(
        &self,
        tenant: &str,
        grant: Grant<'_>,
    ) -> Result<TokenAnswer, ClientError> {
        let scope = format!("{}/.default", self.base.as_str().trim_end_matches('/'));
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.append_pair("scope", &scope);
        match grant {
            Grant::Client { id, secret } => form
                .append_pair("grant_type", "client_credentials")
                .append_pair("client_id", id)
                .append_pair("client_secret", secret),
            Grant::User { name, password } => form
                .append_pair("grant_type", "password")
                .append_pair("username", name)
                .append_pair("password", password),
        };
        let url = self.url(&format!("/{tenant}/oauth2/v2.0/token"))?;
        let kind = "application/x-www-form-urlencoded";
        let request = self
            .http
            .post(url)
            .header("content-type", kind)
            .body(form.finish());
        let response = request.send().await.map_err(ClientError::unreachable)?;
        let status = response.status();
        let body = read(response).await?;
        if status.is_success() {
            return decode(&body);
        }
        match serde_json::from_slice::<TokenError>(&body) {
            Ok(error) => Err(ClientError::SignIn {
                text: error.error_description,
            }),
            Err(_) => Err(ClientError::failed(status, &body)),
        }
    }

    /// Reads one thing.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let response = self.send::<()>(Method::GET, self.url(path)?, None).await?;
        decode(&read(response).await?)
    }

    /// Reads all pages of a list.
    ///
    /// # Errors
    /// See [`ClientError`]; [`ClientError::TooLong`] for a list without end.
    pub async fn list<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<T>, ClientError> {
        let mut url = self.url(path)?;
        let mut all = Vec::new();
        for _ in 0..MAX_PAGES {
            let response = self.send::<()>(Method::GET, url, None).await?;
            let page: List<T> = decode(&read(response).await?)?;
            all.extend(page.value);
            match page.next_link {
                None => return Ok(all),
                // The token goes to this server alone.
                Some(next) => url = self.own(&next)?,
            }
        }
        Err(ClientError::TooLong)
    }

    /// Changes something, at once or as an operation.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn put<B: Serialize>(&self, path: &str, body: &B) -> Result<Begun, ClientError> {
        let response = self.send(Method::PUT, self.url(path)?, Some(body)).await?;
        Begun::of(self, response).await
    }

    /// Asks what a change would do, which `path` says in its query.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn try_put<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, ClientError> {
        let response = self.send(Method::PUT, self.url(path)?, Some(body)).await?;
        decode(&read(response).await?)
    }

    /// Has something done.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn post(&self, path: &str) -> Result<Begun, ClientError> {
        let response = self.send::<()>(Method::POST, self.url(path)?, None).await?;
        Begun::of(self, response).await
    }

    /// Deletes something, at once or as an operation.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn delete(&self, path: &str) -> Result<Begun, ClientError> {
        let response = self
            .send::<()>(Method::DELETE, self.url(path)?, None)
            .await?;
        Begun::of(self, response).await
    }

    /// An address below the server's own; paths of resources get the version that is asked for.
    fn url(&self, path: &str) -> Result<Url, ClientError> {
        let mut url = self.own(path)?;
        let has_version = url.query_pairs().any(|(name, _)| name == "api-version");
        if path.starts_with("/subscriptions") && !has_version {
            url.query_pairs_mut()
                .append_pair("api-version", API_VERSION);
        }
        Ok(url)
    }

    fn own(&self, address: &str) -> Result<Url, ClientError> {
        let url = self
            .base
            .join(address)
            .ok()
            .filter(|url| url.origin() == self.base.origin());
        url.ok_or_else(|| ClientError::Elsewhere {
            address: address.to_owned(),
        })
    }

    async fn send<B: Serialize>(
        &self,
        method: Method,
        url: Url,
        body: Option<&B>,
    ) -> Result<Response, ClientError> {
        let mut request = self.http.request(method, url);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.as_str());
        }
        if let Some(body) = body {
            let body = serde_json::to_vec(body).map_err(|source| ClientError::Json { source })?;
            request = request
                .header("content-type", "application/json")
                .body(body);
        }
        let response = request.send().await.map_err(ClientError::unreachable)?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        if status == StatusCode::UNAUTHORIZED {
            return Err(ClientError::NotSignedIn);
        }
        let body = read(response).await?;
        Err(ClientError::failed(status, &body))
    }
}

/// Reads a body up to the limit.
async fn read(mut response: Response) -> Result<Vec<u8>, ClientError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(ClientError::unreachable)? {
        if body.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Err(ClientError::TooLong);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(body).map_err(|source| ClientError::Json { source })
}

/// One part of a path: what divides paths is written as its number.
pub fn segment(name: &str) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~'
                if name != "." && name != ".." =>
            {
                text.push(char::from(byte));
            }
            // Writing into a text does not fail.
            _ => drop(write!(text, "%{byte:02X}")),
        }
    }
    text
}

fn published(body: &[u8]) -> Option<ErrorBody> {
    serde_json::from_slice(body).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_place_in_a_path() {
        assert_eq!(segment("shop"), "shop");
        assert_eq!(segment("a/b c,1?x#é"), "a%2Fb%20c%2C1%3Fx%23%C3%A9");
        assert_eq!(segment(".."), "%2E%2E");
    }

    #[test]
    fn neither_pages_nor_operations_lead_to_another_server() {
        let base = Url::parse("https://backup.example.com:8443").unwrap();
        let client = Client::new(&base, None).unwrap();
        assert!(
            client
                .own("https://backup.example.com:8443/x?$skip=1")
                .is_ok()
        );
        for elsewhere in [
            "https://backup.example.com/x",
            "http://backup.example.com:8443/x",
            "//elsewhere.example/x",
        ] {
            assert!(
                matches!(client.own(elsewhere), Err(ClientError::Elsewhere { .. })),
                "{elsewhere}"
            );
        }
        let url = client.url("/subscriptions/1?x=y").unwrap();
        assert_eq!(url.query(), Some("x=y&api-version=2023-08-01"));
        let plain = Url::parse("http://backup.example.com").unwrap();
        assert!(matches!(
            Client::new(&plain, None),
            Err(ClientError::Address { .. })
        ));
    }
}
