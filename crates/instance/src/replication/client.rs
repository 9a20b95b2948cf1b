//! Commands of the replication protocol.
//!
//! Source: "Streaming Replication Protocol" in PostgreSQL's documentation, `src/backend/replication/walsender.c`.

use std::collections::HashMap;

use bytes::Bytes;
use everpoint_pgformat::{
    Lsn, MajorVersion, SystemIdentifier, TimelineId,
    timeline::{TimelineHistory, TimelineHistoryError},
};
use postgres_protocol::message::{
    backend::{DataRowBody, Message},
    frontend,
};

use super::{
    error::{Context, ReplicationError},
    framed::{Framed, Incoming},
    login::log_in,
    message::{columns, server_message},
    slot::{DropActive, SlotLifetime, SlotName, SlotPosition},
    stream::{StreamBegin, WalStream},
};
use crate::connect::{Attempts, ConnectionSpec, Endpoint};

/// A replication connection that takes commands.
#[derive(Debug)]
pub struct ReplicationClient {
    pub(super) framed: Framed,
    endpoint: Endpoint,
    pub(super) user: String,
    parameters: HashMap<String, String>,
}

/// What `IDENTIFY_SYSTEM` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SystemIdentity {
    /// Which cluster this is.
    pub system_identifier: SystemIdentifier,
    /// The timeline it is on; of a standby, the one it replays.
    pub timeline: TimelineId,
    /// The end of what is flushed (of a standby: received or replayed) and can be streamed.
    pub flushed: Lsn,
}

/// A timeline's history file, as the server keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryFile {
    /// Its name, such as `00000002.history`.
    pub name: String,
    /// Its bytes.
    pub contents: Bytes,
    /// What it says.
    pub history: TimelineHistory,
}

/// Where streaming begins.
#[derive(Clone, Debug)]
pub struct StreamStart {
    /// The slot whose position follows what is reported as flushed.
    pub slot: Option<SlotName>,
    /// The first byte.
    pub from: Lsn,
    /// The timeline, which must hold that position.
    pub timeline: TimelineId,
}

type Row = Vec<Option<Bytes>>;

impl ReplicationClient {
    /// Connects to the first endpoint that will do. The role needs the attribute REPLICATION and
    /// `pg_hba.conf` a line with the database `replication`.
    ///
    /// # Errors
    /// [`ReplicationError::Connect`], [`ReplicationError::NotAllowed`].
    pub async fn connect(spec: &ConnectionSpec) -> Result<Self, ReplicationError> {
        let mut attempts = Attempts::new(spec);
        while let Some((endpoint, wanted)) = attempts.next() {
            match log_in(spec, &endpoint, wanted).await {
                Ok(session) => {
                    return Ok(Self {
                        framed: session.framed,
                        endpoint,
                        user: session.user,
                        parameters: session.parameters,
                    });
                }
                Err(error) => attempts.failed(error),
            }
        }
        Err(match attempts.into_error() {
            crate::ConnectError::Refused { message, .. } if message.code() == "42501" => {
                ReplicationError::NotAllowed {
                    user: spec.user().unwrap_or("CURRENT_USER").to_owned(),
                    message,
                }
            }
            other => ReplicationError::Connect(other),
        })
    }

    /// Where the server was reached.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// What the server reported of itself, such as `server_version`.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    /// The server's major version, by what it reported.
    ///
    /// # Errors
    /// When it is not supported.
    pub fn version(&self) -> Result<MajorVersion, everpoint_pgformat::version::UnsupportedVersion> {
        let text = self.parameter("server_version").unwrap_or_default();
        let digits = text.split(|c: char| !c.is_ascii_digit()).next();
        let major: u32 = digits.and_then(|digits| digits.parse().ok()).unwrap_or(0);
        MajorVersion::from_version_num(major.saturating_mul(10_000)).map_err(|_| {
            everpoint_pgformat::version::UnsupportedVersion {
                found: text.to_owned(),
            }
        })
    }

    /// Which cluster this is, and how far its WAL goes.
    ///
    /// # Errors
    /// See [`ReplicationError`].
    pub async fn identify_system(&mut self) -> Result<SystemIdentity, ReplicationError> {
        let context = self.context("IDENTIFY_SYSTEM");
        let row = self.one_row(&context).await?;
        let flushed = text(&context, &row, 2)?;
        Ok(SystemIdentity {
            system_identifier: SystemIdentifier::new(parse(&context, &row, 0)?),
            timeline: timeline(&context, &row, 1)?
                .ok_or_else(|| context.protocol("no timeline"))?,
            flushed: flushed
                .parse()
                .map_err(|_| context.protocol("no position"))?,
        })
    }

    /// What a slot holds back; `None` when there is no such slot.
    ///
    /// # Errors
    /// See [`ReplicationError`].
    pub async fn read_slot(
        &mut self,
        slot: &SlotName,
    ) -> Result<Option<SlotPosition>, ReplicationError> {
        let context = self.slot_context(format!("READ_REPLICATION_SLOT {slot}"), slot);
        let row = self.one_row(&context).await?;
        if field(&row, 0).is_none() {
            return Ok(None);
        }
        let restart_lsn = match field(&row, 1) {
            None => None,
            Some(_) => Some(
                text(&context, &row, 1)?
                    .parse()
                    .map_err(|_| context.protocol("no position"))?,
            ),
        };
        Ok(Some(SlotPosition {
            restart_lsn,
            timeline: timeline(&context, &row, 2)?,
        }))
    }

    /// Makes a physical slot that keeps WAL from now on.
    ///
    /// # Errors
    /// [`ReplicationError::SlotExists`], [`ReplicationError::NoFreeSlot`] and others.
    pub async fn create_slot(
        &mut self,
        slot: &SlotName,
        lifetime: SlotLifetime,
    ) -> Result<SlotPosition, ReplicationError> {
        let temporary = match lifetime {
            SlotLifetime::Persistent => "",
            SlotLifetime::Temporary => " TEMPORARY",
        };
        let command = format!("CREATE_REPLICATION_SLOT {slot}{temporary} PHYSICAL (RESERVE_WAL)");
        let context = self.slot_context(command, slot);
        self.one_row(&context).await?;
        self.read_slot(slot)
            .await?
            .ok_or_else(|| context.protocol("the slot is not there"))
    }

    /// Drops a slot.
    ///
    /// # Errors
    /// [`ReplicationError::SlotMissing`], [`ReplicationError::SlotInUse`] and others.
    pub async fn drop_slot(
        &mut self,
        slot: &SlotName,
        active: DropActive,
    ) -> Result<(), ReplicationError> {
        let wait = match active {
            DropActive::Refuse => "",
            DropActive::Wait => " WAIT",
        };
        let context = self.slot_context(format!("DROP_REPLICATION_SLOT {slot}{wait}"), slot);
        self.command(&context).await.map(drop)
    }

    /// A timeline's history file; `None` for the first timeline, which has none.
    ///
    /// # Errors
    /// See [`ReplicationError`].
    pub async fn timeline_history(
        &mut self,
        timeline: TimelineId,
    ) -> Result<Option<HistoryFile>, ReplicationError> {
        if timeline == TimelineId::FIRST {
            return Ok(None);
        }
        let context = self.context(format!("TIMELINE_HISTORY {timeline}"));
        let row = self.one_row(&context).await?;
        let contents = field(&row, 1)
            .ok_or_else(|| context.protocol("no contents"))?
            .clone();
        let history = TimelineHistory::parse(timeline, &String::from_utf8_lossy(&contents))
            .map_err(|error: TimelineHistoryError| context.protocol(error.to_string()))?;
        Ok(Some(HistoryFile {
            name: text(&context, &row, 0)?.to_owned(),
            contents,
            history,
        }))
    }

    /// The value of a setting.
    ///
    /// # Errors
    /// See [`ReplicationError`].
    pub async fn show(&mut self, setting: &str) -> Result<String, ReplicationError> {
        let quoted = setting.replace('"', "\"\"");
        let context = self.context(format!("SHOW \"{quoted}\""));
        let row = self.one_row(&context).await?;
        Ok(text(&context, &row, 0)?.to_owned())
    }

    /// Begins to stream WAL.
    ///
    /// # Errors
    /// [`ReplicationError::SlotMissing`], [`ReplicationError::SlotInUse`],
    /// [`ReplicationError::SlotUnusable`], [`ReplicationError::WalRemoved`],
    /// [`ReplicationError::NotInHistory`] and others.
    pub async fn start(mut self, start: &StreamStart) -> Result<WalStream, ReplicationError> {
        let slot = start
            .slot
            .as_ref()
            .map(|slot| format!("SLOT {slot} "))
            .unwrap_or_default();
        let command = format!(
            "START_REPLICATION {slot}PHYSICAL {} TIMELINE {}",
            start.from, start.timeline
        );
        let mut context = self.context(command);
        context.slot = start.slot.as_ref().map(|slot| slot.as_str().to_owned());
        context.position = Some((start.from, start.timeline));
        self.send(&context).await?;
        loop {
            match self.receive(&context).await? {
                Incoming::CopyBoth => {
                    return Ok(WalStream::new(self, context, StreamBegin::Copying));
                }
                // The timeline ends at this very position: where it goes on follows at once.
                Incoming::Message(Message::RowDescription(_)) => {
                    return Ok(WalStream::new(self, context, StreamBegin::Ended));
                }
                Incoming::Message(Message::ParameterStatus(_)) => {}
                Incoming::Message(_) => return Err(context.protocol("no stream")),
            }
        }
    }

    pub(super) fn context(&self, command: impl Into<String>) -> Context {
        Context {
            command: command.into(),
            user: self.user.clone(),
            ..Context::default()
        }
    }

    fn slot_context(&self, command: String, slot: &SlotName) -> Context {
        Context {
            slot: Some(slot.as_str().to_owned()),
            ..self.context(command)
        }
    }

    async fn send(&mut self, context: &Context) -> Result<(), ReplicationError> {
        frontend::query(&context.command, self.framed.outgoing()).map_err(ReplicationError::Io)?;
        self.framed.flush().await.map_err(ReplicationError::Io)
    }

    /// The next message that is neither a notice nor an error.
    pub(super) async fn receive(
        &mut self,
        context: &Context,
    ) -> Result<Incoming, ReplicationError> {
        loop {
            match self.framed.next().await.map_err(ReplicationError::Io)? {
                None => return Err(ReplicationError::Closed),
                Some(Incoming::Message(Message::NoticeResponse(_))) => {}
                Some(Incoming::Message(Message::ErrorResponse(body))) => {
                    let message = server_message(body.fields()).map_err(ReplicationError::Io)?;
                    return Err(context.sort(message));
                }
                Some(incoming) => return Ok(incoming),
            }
        }
    }

    /// Runs a command to its end. An error leaves the connection usable.
    async fn command(
        &mut self,
        context: &Context,
    ) -> Result<Option<DataRowBody>, ReplicationError> {
        self.send(context).await?;
        let mut row = None;
        let mut failure = None;
        loop {
            match self.receive(context).await {
                Ok(Incoming::Message(Message::ReadyForQuery(_))) => break,
                Ok(Incoming::Message(Message::DataRow(body))) => row = row.or(Some(body)),
                Ok(Incoming::Message(
                    Message::RowDescription(_)
                    | Message::CommandComplete(_)
                    | Message::EmptyQueryResponse
                    | Message::ParameterStatus(_),
                )) => {}
                Ok(_) => return Err(context.protocol("an unexpected message")),
                Err(
                    error @ (ReplicationError::Io(_)
                    | ReplicationError::Closed
                    | ReplicationError::ShuttingDown { .. }),
                ) => {
                    return Err(failure.unwrap_or(error));
                }
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        match failure {
            Some(error) => Err(error),
            None => Ok(row),
        }
    }

    async fn one_row(&mut self, context: &Context) -> Result<Row, ReplicationError> {
        let row = self
            .command(context)
            .await?
            .ok_or_else(|| context.protocol("no row"))?;
        columns(&row).map_err(ReplicationError::Io)
    }
}

pub(super) fn field(row: &[Option<Bytes>], index: usize) -> Option<&Bytes> {
    row.get(index).and_then(Option::as_ref)
}

pub(super) fn text<'a>(
    context: &Context,
    row: &'a [Option<Bytes>],
    index: usize,
) -> Result<&'a str, ReplicationError> {
    field(row, index)
        .and_then(|bytes| std::str::from_utf8(bytes).ok())
        .ok_or_else(|| context.protocol(format!("column {} is not there", index + 1)))
}

pub(super) fn parse<T: std::str::FromStr>(
    context: &Context,
    row: &[Option<Bytes>],
    index: usize,
) -> Result<T, ReplicationError> {
    text(context, row, index)?
        .parse()
        .map_err(|_| context.protocol(format!("column {} is malformed", index + 1)))
}

/// A timeline column; `None` for NULL.
pub(super) fn timeline(
    context: &Context,
    row: &[Option<Bytes>],
    index: usize,
) -> Result<Option<TimelineId>, ReplicationError> {
    if field(row, index).is_none() {
        return Ok(None);
    }
    TimelineId::new(parse(context, row, index)?)
        .map(Some)
        .ok_or_else(|| context.protocol("timeline 0"))
}
