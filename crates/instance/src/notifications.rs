//! Calls between sessions of one database, by LISTEN and NOTIFY.
//!
//! A running receiver listens, so that anybody with a session can ask it to cut a log backup now. Only
//! primaries carry notifications.

use tokio::sync::mpsc;
use tokio_postgres::Client;

use crate::connect::{
    ConnectError, ConnectionSpec, NOTIFICATION_QUEUE, QueryError, SqlClient, connect,
};

/// The channel that Everpoint's processes call each other on.
pub const CHANNEL: &str = "everpoint";
/// The longest payload (`NOTIFY_PAYLOAD_MAX_LENGTH` less 1, `src/backend/commands/async.c`).
pub const MAX_PAYLOAD_BYTES: usize = 7999;

/// A session that listens.
#[derive(Debug)]
pub struct Notifications {
    client: SqlClient,
    queue: mpsc::Receiver<tokio_postgres::Notification>,
}

/// A call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// The server process of the session that called.
    pub sender_pid: i32,
    /// What it said.
    pub payload: String,
}

/// Listening failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotificationError {
    /// No session.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The server refuses; a standby does.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// The session ended.
    #[error("the session that listens ended. Listen again")]
    Ended,
}

impl NotificationError {
    /// Whether the server takes no such statement, as a standby takes none.
    pub fn is_read_only(&self) -> bool {
        const READ_ONLY_SQL_TRANSACTION: &str = "25006";
        matches!(self, Self::Query(error) if error.code() == Some(READ_ONLY_SQL_TRANSACTION))
    }
}

impl Notifications {
    /// Listens on [`CHANNEL`] with a session of its own in [`ConnectionSpec::database`]. Only sessions in
    /// the same database are heard.
    ///
    /// # Errors
    /// See [`NotificationError`].
    pub async fn listen(spec: &ConnectionSpec) -> Result<Self, NotificationError> {
        let (sender, queue) = mpsc::channel(NOTIFICATION_QUEUE);
        let client = connect(spec, spec.database(), Some(sender)).await?;
        client
            .batch_execute(&format!("LISTEN {CHANNEL}"))
            .await
            .map_err(QueryError::when("listen for notifications"))?;
        Ok(Self { client, queue })
    }

    /// The next call. May be dropped while it waits without losing one.
    ///
    /// # Errors
    /// [`NotificationError::Ended`] when the session is lost.
    pub async fn next(&mut self) -> Result<Notification, NotificationError> {
        let notification = self.queue.recv().await.ok_or(NotificationError::Ended)?;
        Ok(Notification {
            sender_pid: notification.process_id(),
            payload: notification.payload().to_owned(),
        })
    }

    /// The session, for other statements.
    pub fn client(&self) -> &SqlClient {
        &self.client
    }
}

/// Calls whoever listens on [`CHANNEL`] in the session's database.
///
/// # Errors
/// See [`QueryError`].
pub async fn notify(client: &Client, payload: &str) -> Result<(), QueryError> {
    client
        .execute("SELECT pg_notify($1, $2)", &[&CHANNEL, &payload])
        .await
        .map_err(QueryError::when("send a notification"))?;
    Ok(())
}
