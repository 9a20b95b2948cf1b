//! Other processes' calls for a log backup now.

use std::time::Duration;

use everpoint_instance::{
    ConnectionSpec,
    notifications::{NotificationError, Notifications},
};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep_until},
};

use super::receive::CUT_REQUEST;

/// When listening is begun again after it ended.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// A session that listens, which is opened again when it is lost.
#[derive(Debug)]
pub(super) struct Calls {
    connection: ConnectionSpec,
    session: Option<Notifications>,
    opening: Option<JoinHandle<Result<Notifications, NotificationError>>>,
    due: Instant,
    /// Nobody can call: standbys carry no notifications.
    refused: bool,
}

impl Calls {
    /// Begins with listening at once.
    pub(super) async fn listen(connection: ConnectionSpec) -> Self {
        let mut calls = Self {
            connection,
            session: None,
            opening: None,
            due: Instant::now() + RETRY_INTERVAL,
            refused: false,
        };
        let opened = Notifications::listen(&calls.connection).await;
        calls.opened(opened);
        calls
    }

    fn opened(&mut self, opened: Result<Notifications, NotificationError>) {
        match opened {
            Ok(session) => self.session = Some(session),
            Err(error) => {
                tracing::debug!(%error, "nobody's calls for log backups are heard");
                self.refused = error.is_read_only();
            }
        }
    }

    /// Ends with each call, and when listening goes on after it was lost, because somebody may have called meanwhile.
    /// May be dropped at any time.
    pub(super) async fn next(&mut self) {
        loop {
            if let Some(session) = &mut self.session {
                match session.next().await {
                    Ok(call) if call.payload == CUT_REQUEST => return,
                    Ok(_) => continue,
                    Err(_) => self.session = None,
                }
            }
            if self.refused {
                std::future::pending::<()>().await;
            }
            if let Some(opening) = &mut self.opening {
                let opened = opening.await.unwrap_or(Err(NotificationError::Ended));
                self.opening = None;
                self.opened(opened);
                match self.session {
                    Some(_) => return,
                    None => continue,
                }
            }
            sleep_until(self.due).await;
            self.due = Instant::now() + RETRY_INTERVAL;
            let connection = self.connection.clone();
            self.opening = Some(tokio::spawn(async move {
                Notifications::listen(&connection).await
            }));
        }
    }
}
