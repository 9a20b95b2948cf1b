//! The error that all readers of records' contents share.

use crate::Lsn;

use super::record::Record;

/// A record whose checksum is right does not have the contents its kind must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the {kind} record at {at} has no readable {field}. It is damaged, or of a PostgreSQL that is not supported"
)]
pub struct PayloadError {
    at: Lsn,
    kind: &'static str,
    field: &'static str,
}

impl PayloadError {
    /// Where the record begins.
    pub fn at(&self) -> Lsn {
        self.at
    }
}

/// Names the kind of a record for the errors of its fields.
#[derive(Clone, Copy)]
pub(super) struct Context {
    at: Lsn,
    kind: &'static str,
}

impl Context {
    pub(super) fn new(record: &Record<'_>, kind: &'static str) -> Self {
        Self {
            at: record.start(),
            kind,
        }
    }

    /// The value of a field, or the error that it is missing.
    pub(super) fn field<T>(self, field: &'static str, value: Option<T>) -> Result<T, PayloadError> {
        value.ok_or(PayloadError {
            at: self.at,
            kind: self.kind,
            field,
        })
    }
}
