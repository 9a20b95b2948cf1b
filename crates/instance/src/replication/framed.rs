//! Messages over a transport, both ways.
//!
//! Source: "Message Formats" in PostgreSQL's documentation. postgres-protocol parses them, but knows no
//! CopyBothResponse.

use std::{
    fmt,
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
pub(super) struct Framed {
    transport: Transport,
    incoming: BytesMut,
    outgoing: BytesMut,
    flushed: Flushed,
}

/// Without the buffers, which hold others' data.
impl fmt::Debug for Framed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Framed")
            .field("transport", &self.transport)
            .field("read_ahead_bytes", &self.incoming.len())
            .finish_non_exhaustive()
    }
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{io::AsyncWriteExt, net::UnixStream};

    use super::*;

    /// A connection and the server's end of it.
    fn pair() -> (Framed, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Framed::new(Transport::Unix(ours)), theirs)
    }

    fn copy_data(bytes: &[u8]) -> Vec<u8> {
        let len = u32::try_from(bytes.len() + 4).unwrap();
        [&[b'd'][..], &len.to_be_bytes(), bytes].concat()
    }

    #[tokio::test]
    async fn waiting_may_be_given_up_at_any_byte() {
        let (mut framed, mut server) = pair();
        let messages: Vec<Vec<u8>> = (1..40_u8).map(|n| vec![n; usize::from(n) * 37]).collect();
        let bytes: Vec<u8> = messages
            .iter()
            .flat_map(|message| copy_data(message))
            .collect();
        let send = async move {
            for chunk in bytes.chunks(11) {
                server.write_all(chunk).await.unwrap();
                tokio::task::yield_now().await;
            }
            server
        };
        let receive = async {
            let mut received = Vec::new();
            while received.len() < messages.len() {
                let next = tokio::time::timeout(Duration::ZERO, framed.next()).await;
                if let Ok(next) = next {
                    let Some(Incoming::Message(Message::CopyData(body))) = next.unwrap() else {
                        panic!("another message");
                    };
                    received.push(body.data().to_vec());
                }
                tokio::task::yield_now().await;
            }
            received
        };
        let (received, server) = tokio::join!(receive, send);
        assert!(received == messages);
        drop(server);
        assert!(framed.next().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn impossible_lengths_are_refused_before_anything_is_allocated() {
        for len in [0_u32, 3, 0x7FFF_FFFF, 0xFFFF_FFFF] {
            let (mut framed, mut server) = pair();
            let message = [&[b'd'][..], &len.to_be_bytes(), &[0; 64]].concat();
            server.write_all(&message).await.unwrap();
            assert!(framed.next().await.is_err(), "{len}");
            assert!(framed.incoming.capacity() <= 2 * READ_BUFFER_BYTES);
        }
    }

    #[tokio::test]
    async fn end_in_the_middle_of_a_message_is_an_error() {
        let (mut framed, mut server) = pair();
        server.write_all(&copy_data(b"abc")[..6]).await.unwrap();
        drop(server);
        let error = framed.next().await.err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn what_has_to_be_written_goes_out_while_waiting_for_messages() {
        let (mut framed, mut server) = pair();
        // More than fits the socket, so that writing takes several turns.
        framed.outgoing().resize(1 << 20, b'x');
        let answer = async move {
            let mut received = vec![0; 1 << 20];
            server.read_exact(&mut received).await.unwrap();
            server.write_all(&copy_data(b"answer")).await.unwrap();
        };
        let (message, ()) = tokio::join!(framed.next(), answer);
        assert!(matches!(message.unwrap(), Some(Incoming::Message(_))));
    }
}
