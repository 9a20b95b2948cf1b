//! Messages over a transport, both ways.
//!
//! Source: "Message Formats" in PostgreSQL's documentation. postgres-protocol parses them, but knows no
//! CopyBothResponse.

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use postgres_protocol::message::backend::{Header, Message};
use tokio::io::{AsyncReadExt, AsyncWrite};

use crate::connect::Transport;

/// How much is read ahead. Several of the server's largest messages (128 kB of WAL each) fit, so that
/// little has to be moved when a message straddles two buffers.
const READ_BUFFER_BYTES: usize = 1 << 20;
/// The longest message that is taken. WAL comes in messages of 128 kB; timeline histories and errors are
/// smaller.
const MAX_MESSAGE_BYTES: usize = 4 << 20;
/// With less room than this left, a new buffer is begun.
const LEAST_READ_BYTES: usize = 64 << 10;
const COPY_BOTH_TAG: u8 = b'W';

/// A message from the server.
pub(super) enum Incoming {
    /// The stream begins, in both directions.
    CopyBoth,
    /// Anything else.
    Message(Message),
}

/// A transport with its buffers. Every method may be dropped while it waits, and called again: what was
/// read or has to be written is kept here.
#[derive(Debug)]
pub(super) struct Framed {
    transport: Transport,
    incoming: BytesMut,
    outgoing: BytesMut,
    flushed: Flushed,
}

/// Whether everything written has left the TLS layer too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flushed {
    Yes,
    No,
}

impl Framed {
    pub(super) fn new(transport: Transport) -> Self {
        Self {
            transport,
            incoming: BytesMut::new(),
            outgoing: BytesMut::new(),
            flushed: Flushed::Yes,
        }
    }

    pub(super) fn transport(&self) -> &Transport {
        &self.transport
    }

    /// What is to be written next; [`Framed::flush`] and [`Framed::next`] write it.
    pub(super) fn outgoing(&mut self) -> &mut BytesMut {
        &mut self.outgoing
    }

    /// Writes everything that waits to be written.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// The next message; `None` when the server closed the connection between two messages.
    pub(super) async fn next(&mut self) -> io::Result<Option<Incoming>> {
        loop {
            if let Some(message) = self.parse()? {
                return Ok(Some(message));
            }
            if self.fill().await? == 0 {
                return match self.incoming.is_empty() {
                    true => Ok(None),
                    false => Err(io::ErrorKind::UnexpectedEof.into()),
                };
            }
        }
    }

    /// Takes a message off the buffer if it is whole. The message's bytes stay where they were read to.
    fn parse(&mut self) -> io::Result<Option<Incoming>> {
        let Some(header) = Header::parse(&self.incoming)? else {
            return Ok(None);
        };
        let len = usize::try_from(header.len()).unwrap_or(usize::MAX);
        if len > MAX_MESSAGE_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("a message of {len} bytes, longer than the {MAX_MESSAGE_BYTES} allowed"),
            ));
        }
        if header.tag() == COPY_BOTH_TAG {
            if self.incoming.len() <= len {
                return Ok(None);
            }
            // Formats of columns, which physical replication has none of.
            self.incoming.advance(len + 1);
            return Ok(Some(Incoming::CopyBoth));
        }
        Ok(Message::parse(&mut self.incoming)?.map(Incoming::Message))
    }

    /// Reads once, and writes what waits to be written while at it.
    async fn fill(&mut self) -> io::Result<usize> {
        let missing = match Header::parse(&self.incoming)? {
            Some(header) => usize::try_from(header.len())
                .unwrap_or(0)
                .min(MAX_MESSAGE_BYTES)
                .saturating_add(1)
                .saturating_sub(self.incoming.len()),
            None => 0,
        };
        let room = self.incoming.capacity() - self.incoming.len();
        if room < missing.max(LEAST_READ_BYTES) {
            self.incoming.reserve(READ_BUFFER_BYTES.max(missing));
        }
        poll_fn(|cx| {
            if let Poll::Ready(Err(error)) = self.poll_flush(cx) {
                return Poll::Ready(Err(error));
            }
            // The future holds nothing of its own, so a new one at every poll goes on where the last was.
            pin!(self.transport.read_buf(&mut self.incoming)).poll(cx)
        })
        .await
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.is_empty() {
            self.flushed = Flushed::No;
            match ready!(Pin::new(&mut self.transport).poll_write(cx, &self.outgoing)) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(written) => self.outgoing.advance(written),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        if self.flushed == Flushed::No {
            ready!(Pin::new(&mut self.transport).poll_flush(cx))?;
            self.flushed = Flushed::Yes;
        }
        Poll::Ready(Ok(()))
    }
}
