//! SQL sessions.

use std::{
    collections::VecDeque,
    future::poll_fn,
    ops::{Deref, DerefMut},
};

use tokio::sync::mpsc;
use tokio_postgres::{
    AsyncMessage, CancelToken, Client, Config, Connection, Notification,
    config::{ChannelBinding, SslMode, SslNegotiation},
    tls::TlsConnect,
};

use super::{
    endpoint::Endpoint,
    error::ConnectError,
    passfile::password_for,
    settings::{ChannelBindingUse, WantedServer},
    spec::ConnectionSpec,
    transport::Transport,
    user::role,
};

/// Settings that a role or database may carry and that would end a long, mostly idle session.
const SESSION_SETTINGS: &str = "SELECT pg_catalog.set_config(name, value, false) \
    FROM (VALUES ('statement_timeout', '0'), ('lock_timeout', '0'), \
        ('idle_in_transaction_session_timeout', '0'), ('idle_session_timeout', '0'), \
        ('transaction_timeout', '0'), ('search_path', 'pg_catalog'), ('DateStyle', 'ISO, YMD'), \
        ('client_min_messages', 'warning')) AS wanted (name, value) \
    WHERE pg_catalog.current_setting(name, true) IS NOT NULL";

/// Notifications that wait to be taken; further ones are dropped, as one says as much as many.
pub(crate) const NOTIFICATION_QUEUE: usize = 64;

/// A session. It behaves as a [`Client`], and its connection is driven by a task of its own.
///
/// The session has no time limits of its own and finds PostgreSQL's objects only (`search_path` is
/// `pg_catalog`). Dropping it ends the session, and with it locks and an unfinished backup.
#[derive(Debug)]
pub struct SqlClient {
    client: Client,
    place: Place,
}

/// Where and as whom a session was opened.
#[derive(Clone, Debug)]
struct Place {
    spec: ConnectionSpec,
    endpoint: Endpoint,
}

/// A pending cancel: ends the session's running statement when dropped, unless disarmed. For statements
/// that must not go on when nobody waits for them.
pub(crate) struct CancelOnDrop {
    armed: Option<(CancelToken, Place)>,
}

impl SqlClient {
    /// Where the server was reached.
    pub fn endpoint(&self) -> &Endpoint {
        &self.place.endpoint
    }

    pub(crate) fn cancel_on_drop(&self) -> CancelOnDrop {
        CancelOnDrop {
            armed: Some((self.client.cancel_token(), self.place.clone())),
        }
    }
}

impl Deref for SqlClient {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl DerefMut for SqlClient {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

impl CancelOnDrop {
    pub(crate) fn disarm(mut self) {
        self.armed = None;
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        let Some((token, place)) = self.armed.take() else {
            return;
        };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        runtime.spawn(async move {
            let cancel = async {
                let transport = Transport::open(&place.spec, &place.endpoint).await?;
                token.cancel_query_raw(transport, Established).await?;
                Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
            };
            if let Err(error) = cancel.await {
                tracing::debug!(endpoint = %place.endpoint, error, "statement is left running");
            }
        });
    }
}

/// Opens a session in `database` on the first endpoint that will do.
///
/// # Errors
/// See [`ConnectError`].
pub async fn connect_sql(spec: &ConnectionSpec, database: &str) -> Result<SqlClient, ConnectError> {
    connect(spec, database, None).await
}

/// As [`connect_sql`], with the session's notifications sent to `notifications`.
pub(crate) async fn connect(
    spec: &ConnectionSpec,
    database: &str,
    notifications: Option<mpsc::Sender<Notification>>,
) -> Result<SqlClient, ConnectError> {
    let mut attempts = Attempts::new(spec);
    while let Some((endpoint, wanted)) = attempts.next() {
        match connect_to(spec, &endpoint, database, wanted, notifications.clone()).await {
            Ok(client) => {
                return Ok(SqlClient {
                    client,
                    place: Place {
                        spec: spec.clone(),
                        endpoint,
                    },
                });
            }
            Err(error) => attempts.failed(error),
        }
    }
    Err(attempts.into_error())
}

/// Which endpoint to try next, until one will do.
pub(crate) struct Attempts {
    left: VecDeque<(usize, Endpoint, WantedServer)>,
    round: usize,
    failures: Vec<ConnectError>,
}

impl Attempts {
    pub(crate) fn new(spec: &ConnectionSpec) -> Self {
        let rounds: &[WantedServer] = match spec.wanted_server() {
            WantedServer::PreferStandby => &[WantedServer::Standby, WantedServer::Any],
            WantedServer::Any => &[WantedServer::Any],
            WantedServer::ReadWrite => &[WantedServer::ReadWrite],
            WantedServer::ReadOnly => &[WantedServer::ReadOnly],
            WantedServer::Primary => &[WantedServer::Primary],
            WantedServer::Standby => &[WantedServer::Standby],
        };
        let mut left = VecDeque::new();
        for (round, wanted) in rounds.iter().enumerate() {
            let endpoints = spec.endpoints().iter().cloned();
            left.extend(endpoints.map(|endpoint| (round, endpoint, *wanted)));
        }
        Self {
            left,
            round: 0,
            failures: Vec::new(),
        }
    }

    /// The next endpoint, and what it has to be; `None` when all have been tried.
    pub(crate) fn next(&mut self) -> Option<(Endpoint, WantedServer)> {
        let (round, endpoint, wanted) = self.left.pop_front()?;
        if round != self.round {
            self.round = round;
            self.failures.clear();
        }
        Some((endpoint, wanted))
    }

    pub(crate) fn failed(&mut self, error: ConnectError) {
        self.failures.push(error);
    }

    /// Why none will do: what the last round found.
    pub(crate) fn into_error(mut self) -> ConnectError {
        match self.failures.pop() {
            Some(only) if self.failures.is_empty() => only,
            Some(last) => {
                self.failures.push(last);
                ConnectError::NoneOf {
                    failures: self.failures,
                }
            }
            None => ConnectError::NoneOf {
                failures: self.failures,
            },
        }
    }
}

/// Checks what a server reported of itself when the session began (`in_hot_standby` and
/// `default_transaction_read_only`, which PostgreSQL 14 and later report) against what is wanted.
pub(crate) fn check_kind<'a>(
    endpoint: &Endpoint,
    wanted: WantedServer,
    parameter: impl Fn(&str) -> Option<&'a str>,
) -> Result<(), ConnectError> {
    let on = |name| parameter(name) == Some("on");
    let standby = on("in_hot_standby");
    let read_only = standby || on("default_transaction_read_only");
    let (will_do, name) = match wanted {
        WantedServer::Any | WantedServer::PreferStandby => (true, "any"),
        WantedServer::ReadWrite => (!read_only, "read-write"),
        WantedServer::ReadOnly => (read_only, "read-only"),
        WantedServer::Primary => (!standby, "primary"),
        WantedServer::Standby => (standby, "standby"),
    };
    if will_do {
        return Ok(());
    }
    Err(ConnectError::OtherKind {
        endpoint: endpoint.to_string(),
        found: match (standby, read_only) {
            (true, _) => "a standby",
            (false, true) => "a primary that is read-only by default",
            (false, false) => "a primary",
        },
        wanted: name,
    })
}

async fn connect_to(
    spec: &ConnectionSpec,
    endpoint: &Endpoint,
    database: &str,
    wanted: WantedServer,
    notifications: Option<mpsc::Sender<Notification>>,
) -> Result<Client, ConnectError> {
    let user = role(spec)?;
    let transport = Transport::open(spec, endpoint).await?;
    let mut config = Config::new();
    config
        .user(&user)
        .dbname(database)
        .application_name(spec.application_name())
        // The transport is encrypted already where it is to be; tokio-postgres takes it as it is.
        .ssl_mode(SslMode::Require)
        .ssl_negotiation(SslNegotiation::Direct)
        .channel_binding(match spec.channel_binding() {
            ChannelBindingUse::Disable => ChannelBinding::Disable,
            ChannelBindingUse::Prefer => ChannelBinding::Prefer,
            ChannelBindingUse::Require => ChannelBinding::Require,
        });
    if let Some(options) = spec.options() {
        config.options(options);
    }
    let has_password = match password_for(spec, endpoint, database, &user) {
        Some(password) => {
            config.password(password.as_bytes());
            true
        }
        None => false,
    };
    let sort = |error: tokio_postgres::Error| {
        // tokio-postgres finds the missing password only when the server asks for it.
        let missing = "invalid configuration: password missing";
        if !has_password && full_text(&error) == missing {
            return ConnectError::NoPassword {
                endpoint: endpoint.to_string(),
                user: user.clone(),
            };
        }
        ConnectError::from_sql(endpoint.to_string(), &user, database, error)
    };
    let (client, connection) = config
        .connect_raw(transport, Established)
        .await
        .map_err(sort)?;
    check_kind(endpoint, wanted, |name| connection.parameter(name))?;
    tokio::spawn(drive(connection, notifications));
    client.batch_execute(SESSION_SETTINGS).await.map_err(sort)?;
    Ok(client)
}

fn full_text(error: &tokio_postgres::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// Moves bytes for a session until it ends.
async fn drive(
    mut connection: Connection<Transport, Transport>,
    notifications: Option<mpsc::Sender<Notification>>,
) {
    while let Some(message) = poll_fn(|cx| connection.poll_message(cx)).await {
        match message {
            Ok(AsyncMessage::Notification(notification)) => {
                if let Some(queue) = &notifications {
                    // A full queue holds the same call already.
                    let _ = queue.try_send(notification);
                }
            }
            Ok(AsyncMessage::Notice(notice)) => {
                tracing::debug!(code = notice.code().code(), "{}", notice.message());
            }
            Ok(_) => {}
            Err(error) => {
                // Whoever waits for an answer of this session gets an error and handles it.
                tracing::debug!(%error, "session ended");
                return;
            }
        }
    }
}

/// Hands tokio-postgres a transport that needs nothing more.
#[derive(Clone, Copy, Debug)]
struct Established;

impl TlsConnect<Transport> for Established {
    type Stream = Transport;
    type Error = std::convert::Infallible;
    type Future = std::future::Ready<Result<Transport, Self::Error>>;

    fn connect(self, stream: Transport) -> Self::Future {
        std::future::ready(Ok(stream))
    }
}
