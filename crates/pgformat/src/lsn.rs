//! Log sequence numbers: byte positions in the write-ahead log.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A byte position in the write-ahead log (`XLogRecPtr`). Printed as PostgreSQL prints it: `1A/2B3C4D5E`.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(u64);

impl Lsn {
    /// No position (`InvalidXLogRecPtr`).
    pub const INVALID: Self = Self(0);
    /// The largest position that can be written.
    pub const MAX: Self = Self(u64::MAX);

    /// Wraps a byte position.
    pub const fn new(position: u64) -> Self {
        Self(position)
    }

    /// The byte position.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Whether this is a real position.
    pub const fn is_valid(self) -> bool {
        self.0 != 0
    }

    /// The position `bytes` further on, at most [`Lsn::MAX`].
    #[must_use]
    pub const fn advance(self, bytes: u64) -> Self {
        Self(self.0.saturating_add(bytes))
    }

    /// Bytes from `earlier` up to here; 0 when `earlier` is not earlier.
    pub const fn bytes_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not an LSN.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not an LSN. It is written as two hexadecimal numbers of up to 8 digits, such as `1A/2B3C4D5E`"
)]
pub struct ParseLsnError {
    text: String,
}

impl FromStr for Lsn {
    type Err = ParseLsnError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseLsnError {
            text: text.to_owned(),
        };
        let half = |digits: &str| {
            let plain = (1..=8).contains(&digits.len())
                && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            plain
                .then(|| u64::from_str_radix(digits, 16).ok())
                .flatten()
        };
        let (high, low) = text.split_once('/').ok_or_else(error)?;
        let high = half(high).ok_or_else(error)?;
        let low = half(low).ok_or_else(error)?;
        Ok(Self(high << 32 | low))
    }
}

impl Serialize for Lsn {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Lsn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lsn_text_is_read_and_printed_as_postgresql_does() {
        let lsn: Lsn = "1A/2B3C4D5E".parse().unwrap();
        assert_eq!(lsn.get(), 0x1A_2B3C_4D5E);
        assert_eq!(lsn.to_string(), "1A/2B3C4D5E");
        assert_eq!("0/0".parse::<Lsn>().unwrap(), Lsn::INVALID);
    }

    #[test]
    fn malformed_lsn_text_is_refused() {
        for text in [
            "",
            "/",
            "1",
            "1/",
            "/1",
            "123456789/0",
            "0/123456789",
            "+1/1",
            "g/0",
            "1/1/1",
        ] {
            assert!(text.parse::<Lsn>().is_err(), "{text}");
        }
    }
}
