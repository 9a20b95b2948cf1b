//! Rows from server to server.

use std::pin::pin;

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};

use super::{
    error::{MoveError, Side},
    formats::Format,
    server::Session,
    tables::Piece,
};
use crate::progress::Progress;

/// Rows that are gathered before they are handed on. A stream holds at most twice as many bytes, and one row.
const GATHERED_BYTES: usize = 64 << 10;

/// Copies a piece. Returns the number of rows, which both servers agree on.
pub(super) async fn copy(
    source: &Session,
    target: &Session,
    piece: &Piece,
    progress: &Progress,
) -> Result<u64, MoveError> {
    let name = &piece.table.name;
    let read = || Side::Source.failed(format!("read {name}"));
    let write = || Side::Target.failed(format!("write {name}"));
    let rows = source
        .client
        .copy_out(&piece.copy_out())
        .await
        .map_err(read())?;
    let sink = target
        .client
        .copy_in::<_, Bytes>(&piece.copy_in())
        .await
        .map_err(write())?;
    let (mut rows, mut sink) = (pin!(rows), pin!(sink));
    let mut messages = 0_u64;
    let mut gathered = BytesMut::with_capacity(GATHERED_BYTES);
    while let Some(row) = rows.next().await {
        let row = row.map_err(read())?;
        messages += 1;
        if gathered.len() + row.len() > GATHERED_BYTES && !gathered.is_empty() {
            progress.add_bytes(gathered.len() as u64);
            sink.send(gathered.split().freeze())
                .await
                .map_err(write())?;
            gathered.reserve(GATHERED_BYTES);
        }
        if row.len() >= GATHERED_BYTES {
            progress.add_bytes(row.len() as u64);
            sink.send(row).await.map_err(write())?;
        } else {
            gathered.extend_from_slice(&row);
        }
    }
    progress.add_bytes(gathered.len() as u64);
    sink.send(gathered.freeze()).await.map_err(write())?;
    let found = sink.finish().await.map_err(write())?;
    // A message is a row ("COPY-out" in the protocol's description); binary ends with a message of its own.
    let expected = match piece.table.format {
        Format::Binary => messages.saturating_sub(1),
        Format::Text => messages,
    };
    if expected != found {
        return Err(MoveError::Differs {
            what: format!("rows of {name}"),
            expected: expected.to_string(),
            found: found.to_string(),
        });
    }
    Ok(found)
}
