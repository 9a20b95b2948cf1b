//! A stream of WAL.
//!
//! Messages inside the stream, all big-endian (`walsender.c`):
//! - `w`: start u64, end of the server's WAL u64, send time i64, then the WAL;
//! - `k`: end of the server's WAL u64, send time i64, whether a reply is asked for u8;
//! - `r` (ours): written u64, flushed u64, applied u64, send time i64, whether a reply is asked for u8.
//!
//! Times are microseconds since 2000-01-01 UTC.

use bytes::{Buf, BufMut, Bytes};
use everpoint_pgformat::{Lsn, TimelineId, timestamp::PgTimestamp};
use jiff::Timestamp;
use postgres_protocol::message::{backend::Message, frontend};

use super::{
    client::{ReplicationClient, text, timeline},
    error::{Context, ReplicationError},
    framed::Incoming,
    message::columns,
};

const STATUS_BYTES: u32 = 34;

/// WAL as it comes from the server.
#[derive(Debug)]
pub struct WalStream {
    client: ReplicationClient,
    context: Context,
    phase: Phase,
}

/// How the server began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StreamBegin {
    Copying,
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Copying,
    /// The timeline is over; where it goes on is on its way.
    Ending(Option<(TimelineId, Lsn)>),
    /// The connection takes commands again.
    Ended,
    /// Nothing comes any more.
    Over,
}

/// What comes out of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamEvent {
    /// WAL.
    Data {
        /// The position of the first byte.
        start: Lsn,
        /// The end of what the server has flushed.
        server_end: Lsn,
        /// The server's clock when it sent this.
        sent_at: Timestamp,
        /// The WAL: at most 128 kB, and never over the end of a segment.
        bytes: Bytes,
    },
    /// Nothing new, or a question.
    KeepAlive {
        /// The end of what the server has sent.
        server_end: Lsn,
        /// The server's clock when it sent this.
        sent_at: Timestamp,
        /// Whether the server waits for [`WalStream::send_status`]: without it, it ends the session after
        /// `wal_sender_timeout`. A server that stops cleanly asks too, and **does not stop** until
        /// everything it sent is reported as flushed.
        reply_requested: bool,
    },
    /// The timeline ends; everything on it was sent. [`WalStream::into_client`] gives the connection back.
    TimelineEnd {
        /// The timeline that follows.
        next_timeline: TimelineId,
        /// The first position that lies on it.
        switch_at: Lsn,
    },
    /// The server stopped cleanly; everything was sent and reported as flushed.
    ServerStopped,
}

/// How far the receiver has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiverStatus {
    /// Received.
    pub written: Lsn,
    /// Safe: a slot lets go of WAL before this.
    pub flushed: Lsn,
    /// Applied; the same as flushed for a receiver that applies nothing.
    pub applied: Lsn,
}

/// Whether the server shall answer a status with a keepalive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyWanted {
    /// At once.
    Yes,
    /// Not needed.
    No,
}

impl WalStream {
    pub(super) fn new(client: ReplicationClient, context: Context, begin: StreamBegin) -> Self {
        Self {
            client,
            context,
            phase: match begin {
                StreamBegin::Copying => Phase::Copying,
                StreamBegin::Ended => Phase::Ending(None),
            },
        }
    }

    /// The next event. May be dropped while it waits without losing anything.
    ///
    /// # Errors
    /// [`ReplicationError::WalRemoved`], [`ReplicationError::ShuttingDown`], [`ReplicationError::Closed`],
    /// [`ReplicationError::Io`] and others; the stream is over after any of them.
    pub async fn next(&mut self) -> Result<StreamEvent, ReplicationError> {
        let result = self.advance().await;
        if result.is_err() {
            self.phase = Phase::Over;
        }
        result
    }

    async fn advance(&mut self) -> Result<StreamEvent, ReplicationError> {
        loop {
            if matches!(self.phase, Phase::Ended | Phase::Over) {
                return Err(ReplicationError::Closed);
            }
            let Incoming::Message(message) = self.client.receive(&self.context).await? else {
                return Err(self.context.protocol("a second stream"));
            };
            match (message, self.phase) {
                (Message::CopyData(body), Phase::Copying) => {
                    if let Some(event) = self.copy_data(body.into_bytes())? {
                        return Ok(event);
                    }
                }
                (Message::ParameterStatus(_), _) => {}
                (Message::CopyDone, Phase::Copying) => {
                    frontend::copy_done(self.client.framed.outgoing());
                    self.phase = Phase::Ending(None);
                }
                // The answer to a status that was on its way when the server ended the stream.
                (Message::CopyData(_), Phase::Ending(None)) => {}
                // A server that stops says that the command is complete and goes.
                (Message::CommandComplete(_), Phase::Copying) => {
                    self.phase = Phase::Over;
                    return Ok(StreamEvent::ServerStopped);
                }
                (Message::RowDescription(_) | Message::CommandComplete(_), Phase::Ending(_)) => {}
                (Message::DataRow(row), Phase::Ending(None)) => {
                    let row = columns(&row).map_err(ReplicationError::Io)?;
                    let next = timeline(&self.context, &row, 0)?
                        .ok_or_else(|| self.context.protocol("no next timeline"))?;
                    let switch_at = text(&self.context, &row, 1)?
                        .parse()
                        .map_err(|_| self.context.protocol("no position of the switch"))?;
                    self.phase = Phase::Ending(Some((next, switch_at)));
                }
                (Message::ReadyForQuery(_), Phase::Ending(Some((next_timeline, switch_at)))) => {
                    self.phase = Phase::Ended;
                    return Ok(StreamEvent::TimelineEnd {
                        next_timeline,
                        switch_at,
                    });
                }
                _ => return Err(self.context.protocol("an unexpected message")),
            }
        }
    }

    /// One message of the stream; `None` for a kind that is not known.
    fn copy_data(&mut self, mut bytes: Bytes) -> Result<Option<StreamEvent>, ReplicationError> {
        let short = |context: &Context| context.protocol("a message of the stream is too short");
        let kind = bytes.try_get_u8().map_err(|_| short(&self.context))?;
        match kind {
            b'w' => {
                let start = Lsn::new(bytes.try_get_u64().map_err(|_| short(&self.context))?);
                let server_end = Lsn::new(bytes.try_get_u64().map_err(|_| short(&self.context))?);
                let sent_at = self.time(bytes.try_get_i64().map_err(|_| short(&self.context))?)?;
                if let Some((position, _)) = &mut self.context.position {
                    *position = start.advance(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
                }
                Ok(Some(StreamEvent::Data {
                    start,
                    server_end,
                    sent_at,
                    bytes,
                }))
            }
            b'k' => {
                let server_end = Lsn::new(bytes.try_get_u64().map_err(|_| short(&self.context))?);
                let sent_at = self.time(bytes.try_get_i64().map_err(|_| short(&self.context))?)?;
                let reply_requested = bytes.try_get_u8().map_err(|_| short(&self.context))? != 0;
                Ok(Some(StreamEvent::KeepAlive {
                    server_end,
                    sent_at,
                    reply_requested,
                }))
            }
            _ => Ok(None),
        }
    }

    fn time(&self, raw: i64) -> Result<Timestamp, ReplicationError> {
        Timestamp::from_microsecond(PgTimestamp::from_raw(raw).unix_microseconds())
            .map_err(|_| self.context.protocol("an impossible time"))
    }

    /// Tells the server how far the receiver has got. May be dropped while it waits; what is not written
    /// yet goes out with the next call of [`WalStream::next`].
    ///
    /// # Errors
    /// [`ReplicationError::Io`] when the connection broke.
    pub async fn send_status(
        &mut self,
        status: ReceiverStatus,
        reply: ReplyWanted,
    ) -> Result<(), ReplicationError> {
        if self.phase != Phase::Copying {
            return Ok(());
        }
        let now = PgTimestamp::from_unix_microseconds(Timestamp::now().as_microsecond()).raw();
        let outgoing = self.client.framed.outgoing();
        outgoing.put_u8(b'd');
        outgoing.put_u32(4 + STATUS_BYTES);
        outgoing.put_u8(b'r');
        outgoing.put_u64(status.written.get());
        outgoing.put_u64(status.flushed.get());
        outgoing.put_u64(status.applied.get());
        outgoing.put_i64(now);
        outgoing.put_u8(u8::from(reply == ReplyWanted::Yes));
        self.client
            .framed
            .flush()
            .await
            .map_err(ReplicationError::Io)
    }

    /// The connection, after [`StreamEvent::TimelineEnd`]; `None` before.
    pub fn into_client(self) -> Option<ReplicationClient> {
        (self.phase == Phase::Ended).then_some(self.client)
    }

    /// Ends the stream and gives the connection back. WAL on its way is thrown away.
    ///
    /// # Errors
    /// See [`ReplicationError`].
    pub async fn stop(mut self) -> Result<ReplicationClient, ReplicationError> {
        match self.phase {
            Phase::Ended => return Ok(self.client),
            Phase::Over => return Err(ReplicationError::Closed),
            Phase::Copying => {
                frontend::copy_done(self.client.framed.outgoing());
                self.client
                    .framed
                    .flush()
                    .await
                    .map_err(ReplicationError::Io)?;
            }
            Phase::Ending(_) => {}
        }
        loop {
            let incoming = self.client.receive(&self.context).await?;
            if let Incoming::Message(Message::ReadyForQuery(_)) = incoming {
                return Ok(self.client);
            }
        }
    }
}
