//! Answers.

use everpoint_api::{ApiError, Code};
use serde::Serialize;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Headers besides those that every answer has.
    pub headers: Vec<(&'static str, String)>,
    /// What it carries.
    pub body: Vec<u8>,
}

impl Answer {
    /// A value as JSON.
    pub fn json<T: Serialize>(status: u16, value: &T) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => Self {
                status,
                headers: vec![("content-type", "application/json; charset=utf-8".to_owned())],
                body,
            },
            Err(_) => Self::plain(500, "text/plain", "the answer cannot be written"),
        }
    }

    /// 200 and a value.
    pub fn ok<T: Serialize>(value: &T) -> Self {
        Self::json(200, value)
    }

    /// A text.
    pub fn plain(status: u16, kind: &str, text: &str) -> Self {
        Self {
            status,
            headers: vec![("content-type", kind.to_owned())],
            body: text.as_bytes().to_vec(),
        }
    }

    /// Nothing.
    pub fn empty(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    /// The same with a header.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

impl From<ApiError> for Answer {
    fn from(error: ApiError) -> Self {
        let answer = Self::json(error.code.status(), &error.body());
        match error.code {
            Code::AuthenticationFailed => {
                answer.with("www-authenticate", "Bearer error=\"invalid_token\"")
            }
            Code::TooManyRequests | Code::ServiceUnavailable => answer.with("retry-after", "1"),
            _ => answer,
        }
    }
}
