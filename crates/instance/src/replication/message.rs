//! Messages of the server as values.

use std::io;

use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::{DataRowBody, ErrorFields};

use crate::connect::{Fields, ServerMessage};

/// The fields of an error or notice.
pub(super) fn server_message(mut fields: ErrorFields<'_>) -> io::Result<ServerMessage> {
    let mut message = Fields::default();
    while let Some(field) = fields.next()? {
        // Before login a message may be in the server's own encoding.
        let value = String::from_utf8_lossy(field.value_bytes()).into_owned();
        match field.type_() {
            b'C' => message.code = value,
            b'M' => message.message = value,
            b'D' => message.detail = Some(value),
            b'H' => message.hint = Some(value),
            b'R' => message.routine = Some(value),
            _ => {}
        }
    }
    Ok(ServerMessage::new(message))
}

/// A row's columns as bytes; `None` is SQL's NULL.
pub(super) fn columns(row: &DataRowBody) -> io::Result<Vec<Option<bytes::Bytes>>> {
    row.ranges()
        .map(|range| Ok(range.map(|range| row.buffer_bytes().slice(range))))
        .collect()
}
