//! Why a request had no answer that is of use.

use reqwest::StatusCode;
use url::Url;

use crate::error::ErrorDetail;

/// A request failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Tokens are not sent where others can read them.
    #[error("`{url}` is no address of a server. It begins with https://")]
    Address {
        /// The address.
        url: Url,
    },
    /// The certificates cannot be read.
    #[error("the certificate authority cannot be used")]
    Authority {
        /// Why.
        source: reqwest::Error,
    },
    /// There is none.
    #[error(
        "the file holds no certificate. It is the service's tls/ca.pem, or its https://…/ca.pem"
    )]
    NoAuthority,
    /// There is no answer.
    #[error("the server does not answer")]
    Unreachable {
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The server's certificate is not trusted.
    #[error(
        "the server's certificate is not trusted. Give its authority with --ca FILE: tls/ca.pem in the service's state directory"
    )]
    Untrusted {
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It is some other server.
    #[error("the server is not Everpoint's service")]
    NotEverpoint,
    /// A link leads away from the server.
    #[error("the server names an address that is not its own: {address}")]
    Elsewhere {
        /// The address.
        address: String,
    },
    /// No token, or one that is over.
    #[error("not signed in, or not any more. Sign in with `everpoint login`")]
    NotSignedIn,
    /// A token is refused.
    #[error("{text}")]
    SignIn {
        /// Why.
        text: String,
    },
    /// The server refused, or failed.
    #[error(transparent)]
    Failed(#[from] Failed),
    /// The answer is not what it should be.
    #[error("the server's answer cannot be read")]
    Json {
        /// Why.
        source: serde_json::Error,
    },
    /// The answer has no end.
    #[error("the server's answer is too long")]
    TooLong,
}

/// What the server says of a request that it refused, or of an operation that failed.
#[derive(Debug, thiserror::Error)]
#[error("{text} ({code})")]
pub struct Failed {
    /// The status; none of an operation that failed later.
    pub status: Option<u16>,
    /// The published code.
    pub code: String,
    /// What happened and what to do.
    pub text: String,
}

impl Failed {
    /// Whether it was refused before anything was done.
    pub fn is_refusal(&self) -> bool {
        self.status
            .is_some_and(|status| (400..500).contains(&status))
    }
}

impl From<ErrorDetail> for Failed {
    fn from(error: ErrorDetail) -> Self {
        Self {
            status: None,
            code: error.code,
            text: error.message,
        }
    }
}

impl ClientError {
    pub(super) fn unreachable(error: reqwest::Error) -> Self {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        let mut untrusted = false;
        while let Some(found) = cause {
            untrusted |= found.to_string().contains("certificate");
            cause = found.source();
        }
        let source = Box::new(error.without_url());
        match untrusted {
            true => Self::Untrusted { source },
            false => Self::Unreachable { source },
        }
    }

    pub(super) fn failed(status: StatusCode, body: &[u8]) -> Self {
        let failed = match super::published(body) {
            Some(body) => Failed::from(body.error),
            None => Failed {
                status: None,
                code: "none".to_owned(),
                text: format!("the server answers {status}"),
            },
        };
        Self::Failed(Failed {
            status: Some(status.as_u16()),
            ..failed
        })
    }
}
