//! Operations that go on after their request was answered.

use std::time::Duration;

use reqwest::Response;

use super::{Client, ClientError, Failed, decode, read};
use crate::operation::AsyncStatus;

/// How often an operation is asked for unless the server says otherwise.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause that a server is followed in.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begun {
    /// It is done.
    Done,
    /// An operation goes on; here it can be asked for.
    Operation {
        /// The address.
        address: String,
        /// How often.
        pause: Duration,
    },
}

impl Begun {
    pub(super) async fn of(client: &Client, response: Response) -> Result<Self, ClientError> {
        let header = |name: &str| {
            let value = response.headers().get(name)?.to_str().ok()?;
            Some(value.to_owned())
        };
        let address = header("azure-asyncoperation");
        let pause = header("retry-after").and_then(|text| text.parse().ok());
        let pause = pause.map_or(PAUSE, Duration::from_secs).min(MAX_PAUSE);
        read(response).await?;
        match address {
            None => Ok(Self::Done),
            Some(address) => {
                client.own(&address)?;
                Ok(Self::Operation { address, pause })
            }
        }
    }

    /// Waits until it has ended. `tell` gets what is known each time it was asked for.
    ///
    /// # Errors
    /// [`ClientError::Failed`] when it failed or was cancelled.
    pub async fn wait(
        self,
        client: &Client,
        mut tell: impl FnMut(&AsyncStatus),
    ) -> Result<(), ClientError> {
        let Self::Operation { address, pause } = self else {
            return Ok(());
        };
        loop {
            let response = client
                .send::<()>(reqwest::Method::GET, client.own(&address)?, None)
                .await?;
            let status: AsyncStatus = decode(&read(response).await?)?;
            tell(&status);
            match status.status.as_str() {
                "Succeeded" => return Ok(()),
                "Failed" | "Canceled" => {
                    let failed = status.error.map_or_else(
                        || Failed {
                            status: None,
                            code: status.status.clone(),
                            text: "the operation did not succeed".to_owned(),
                        },
                        Failed::from,
                    );
                    return Err(failed.into());
                }
                _ => tokio::time::sleep(pause).await,
            }
        }
    }
}
