//! Varints and lists.

use crate::{Lsn, bytes::Reader};

use super::SummaryFormatError;
use crate::wal_summary::Coverage;

/// Bytes being written.
#[derive(Default)]
pub(super) struct Output {
    bytes: Vec<u8>,
}

impl Output {
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn byte(&mut self, byte: u8) {
        self.bytes.push(byte);
    }

    pub(super) fn number(&mut self, number: u64) {
        let mut rest = number;
        while rest >= 0x80 {
            self.bytes
                .push(u8::try_from(rest & 0x7F).unwrap_or(0) | 0x80);
            rest >>= 7;
        }
        self.bytes.push(u8::try_from(rest).unwrap_or(0));
    }

    pub(super) fn signed(&mut self, number: i64) {
        let folded = (number << 1) ^ (number >> 63);
        self.number(u64::from_ne_bytes(folded.to_ne_bytes()));
    }

    pub(super) fn count(&mut self, count: usize) {
        self.number(u64::try_from(count).unwrap_or(u64::MAX));
    }

    /// Bytes with their length in front.
    pub(super) fn text(&mut self, text: &[u8]) {
        self.count(text.len());
        self.bytes(text);
    }

    pub(super) fn coverage(&mut self, coverage: Coverage) {
        self.byte(match coverage {
            Coverage::Whole => 0,
            Coverage::Partial => 1,
        });
    }

    /// All bytes and their checksum.
    pub(super) fn finish(mut self) -> Vec<u8> {
        let crc = crate::wal::crc32c(&self.bytes);
        self.bytes(&crc.to_le_bytes());
        self.bytes
    }
}

/// Bytes being read.
pub(super) struct Input<'a> {
    reader: Reader<'a>,
    part: &'static str,
}

impl<'a> Input<'a> {
    pub(super) fn new(bytes: &'a [u8], part: &'static str) -> Self {
        Self {
            reader: Reader::new(bytes),
            part,
        }
    }

    /// Names the part that is read from here on.
    pub(super) fn enter(&mut self, part: &'static str) {
        self.part = part;
    }

    pub(super) fn malformed(&self) -> SummaryFormatError {
        SummaryFormatError::Malformed { part: self.part }
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], SummaryFormatError> {
        self.reader.array().ok_or_else(|| self.malformed())
    }

    pub(super) fn byte(&mut self) -> Result<u8, SummaryFormatError> {
        self.reader.u8().ok_or_else(|| self.malformed())
    }

    pub(super) fn flag(&mut self) -> Result<bool, SummaryFormatError> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.malformed()),
        }
    }

    /// A varint that fits the type. Longer forms than needed are refused.
    pub(super) fn number<T: TryFrom<u64>>(&mut self) -> Result<T, SummaryFormatError> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7F);
            let is_last = byte & 0x80 == 0;
            let fits = shift < 63 || bits <= 1;
            let is_shortest = shift == 0 || !is_last || bits != 0;
            if !fits || !is_shortest {
                break;
            }
            number |= bits << shift;
            if is_last {
                return T::try_from(number).map_err(|_| self.malformed());
            }
        }
        Err(self.malformed())
    }

    pub(super) fn signed(&mut self) -> Result<i64, SummaryFormatError> {
        let folded = self.number::<u64>()?;
        let half = i64::from_ne_bytes((folded >> 1).to_ne_bytes());
        Ok(if folded & 1 == 0 { half } else { !half })
    }

    /// The length of a list of at most `limit` items, each of which takes a byte or more.
    pub(super) fn count(&mut self, limit: usize) -> Result<usize, SummaryFormatError> {
        let count = self.number::<usize>()?;
        if count <= limit && count <= self.reader.remaining() {
            Ok(count)
        } else {
            Err(self.malformed())
        }
    }

    pub(super) fn text(&mut self, limit: usize) -> Result<Vec<u8>, SummaryFormatError> {
        let len = self.count(limit)?;
        let text = self.reader.take(len).ok_or_else(|| self.malformed())?;
        Ok(text.to_vec())
    }

    pub(super) fn coverage(&mut self) -> Result<Coverage, SummaryFormatError> {
        match self.byte()? {
            0 => Ok(Coverage::Whole),
            1 => Ok(Coverage::Partial),
            _ => Err(self.malformed()),
        }
    }

    /// The position a distance behind another.
    pub(super) fn lsn_behind(&mut self, before: Lsn) -> Result<Lsn, SummaryFormatError> {
        let distance = self.number::<u64>()?;
        let position = before.get().checked_add(distance);
        position.map(Lsn::new).ok_or_else(|| self.malformed())
    }

    /// The position a distance in front of another.
    pub(super) fn lsn_in_front(&mut self, behind: Lsn) -> Result<Lsn, SummaryFormatError> {
        let distance = self.number::<u64>()?;
        let position = behind.get().checked_sub(distance);
        position.map(Lsn::new).ok_or_else(|| self.malformed())
    }

    /// Refuses bytes that are left.
    pub(super) fn end(&self) -> Result<(), SummaryFormatError> {
        match self.reader.remaining() {
            0 => Ok(()),
            _ => Err(SummaryFormatError::Malformed { part: "end" }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive_a_round_trip_in_their_shortest_form_only() {
        for number in [
            0,
            1,
            127,
            128,
            300,
            u64::from(u32::MAX),
            u64::MAX - 1,
            u64::MAX,
        ] {
            let mut output = Output::default();
            output.number(number);
            assert_eq!(Input::new(&output.bytes, "test").number(), Ok(number));
        }
        for number in [0, -1, 1, i64::MIN, i64::MAX] {
            let mut output = Output::default();
            output.signed(number);
            assert_eq!(Input::new(&output.bytes, "test").signed(), Ok(number));
        }
        for bytes in [&[0x80, 0][..], &[0x80], &[0xFF; 10], &[]] {
            assert!(Input::new(bytes, "test").number::<u64>().is_err());
        }
        assert!(Input::new(&[0x80, 2], "test").number::<u8>().is_err());
    }
}
