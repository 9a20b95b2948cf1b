//! Why a statement failed.

use super::error::ServerMessage;

/// A statement failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// The role lacks a right.
    #[error("the role may not {what}. Run the script of `everpoint grant` as a superuser")]
    NotAllowed {
        /// What was asked for.
        what: &'static str,
        /// What the server said.
        #[source]
        message: ServerMessage,
    },
    /// The server refuses.
    #[error("the server failed to {what}")]
    Refused {
        /// What was asked for.
        what: &'static str,
        /// What the server said.
        #[source]
        message: ServerMessage,
    },
    /// The session ended.
    #[error("the session ended while it was to {what}. Connect again; the server's log says why")]
    Lost {
        /// What was asked for.
        what: &'static str,
        /// Why.
        source: tokio_postgres::Error,
    },
    /// The answer has another shape than PostgreSQL's.
    #[error("the server's answer is not understood when it was to {what}")]
    Answer {
        /// What was asked for.
        what: &'static str,
        /// What is wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl QueryError {
    /// For `map_err`: says what was being done.
    pub(crate) fn when(what: &'static str) -> impl Fn(tokio_postgres::Error) -> Self + Copy {
        move |error| match error.as_db_error().map(ServerMessage::from) {
            Some(message) if message.code() == "42501" => Self::NotAllowed { what, message },
            // The server says goodbye: the session is over, not the statement wrong.
            Some(message) if !message.code().starts_with("57P") => Self::Refused { what, message },
            None if error.code().is_none() && !error.is_closed() && is_shape(&error) => {
                Self::Answer {
                    what,
                    source: Box::new(error),
                }
            }
            _ => Self::Lost {
                what,
                source: error,
            },
        }
    }

    pub(crate) fn answer(
        what: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Answer {
            what,
            source: source.into(),
        }
    }

    /// The server's SQLSTATE, when it was the server that refused.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::NotAllowed { message, .. } | Self::Refused { message, .. } => {
                Some(message.code())
            }
            Self::Lost { source, .. } => source.code().map(|code| code.code()),
            Self::Answer { .. } => None,
        }
    }
}

/// Whether the error is about the shape of an answer and not about the connection.
fn is_shape(error: &tokio_postgres::Error) -> bool {
    let cause = std::error::Error::source(error);
    !cause.is_some_and(|cause| cause.is::<std::io::Error>())
}
