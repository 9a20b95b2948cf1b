//! Bytes put in the place of a record, which keeps its length, its transaction and its link.

use crate::{
    Lsn, TransactionId,
    wal::{
        crc::{Crc, crc32c},
        page::{LONG_HEADER_SIZE, SHORT_HEADER_SIZE, WAL_PAGE_SIZE},
        record::{MAIN_DATA_LONG, MAIN_DATA_SHORT, RECORD_HEADER_SIZE, Record, record_crc},
        segment::SegmentSize,
    },
};

use super::{Piece, judge::DOES_NOTHING};

/// Where a record's link to the one before lies in it (`xl_prev` of `XLogRecord`).
const PREVIOUS: std::ops::Range<usize> = 8..16;
/// Where its checksum lies (`xl_crc`).
const CRC: std::ops::Range<usize> = 20..24;
/// The longest head of a record that does nothing: its header, and that of main data.
const MAX_HEAD: usize = RECORD_HEADER_SIZE + 5;
const ZEROS: [u8; 4096] = [0; 4096];

/// What is written over a record: `head`, then zeros up to its length.
#[derive(Debug)]
pub(super) struct Edit {
    pub(super) start: Lsn,
    head: Head,
    total_len: usize,
}

#[derive(Debug)]
enum Head {
    Short([u8; MAX_HEAD], usize),
    Whole(Vec<u8>),
}

impl Edit {
    /// Whether a record that does nothing can have this length.
    pub(super) fn can_do_nothing(total_len: u32) -> bool {
        // Main data has a head of two bytes.
        usize::try_from(total_len).is_ok_and(|len| len != RECORD_HEADER_SIZE + 1)
    }

    /// A record that does nothing; `None` when none has its length.
    pub(super) fn does_nothing(
        start: Lsn,
        total_len: u32,
        transaction: TransactionId,
        previous: Lsn,
    ) -> Option<Self> {
        let length = total_len;
        let total_len = usize::try_from(total_len).ok()?;
        let body = total_len.checked_sub(RECORD_HEADER_SIZE)?;
        let mut bytes = [0; MAX_HEAD];
        let mut at = 0;
        let mut put = |field: &[u8]| {
            if let Some(place) = bytes.get_mut(at..at + field.len()) {
                place.copy_from_slice(field);
            }
            at += field.len();
        };
        put(&length.to_le_bytes());
        put(&transaction.get().to_le_bytes());
        put(&previous.get().to_le_bytes());
        put(&DOES_NOTHING);
        // Padding, and the checksum, which comes last.
        put(&[0; 6]);
        match (body, body.checked_sub(2).map(u8::try_from)) {
            (0, _) => {}
            (1, _) | (_, None) => return None,
            (_, Some(Ok(len))) => put(&[MAIN_DATA_SHORT, len]),
            (_, Some(Err(_))) => {
                put(&[MAIN_DATA_LONG]);
                put(&u32::try_from(body - 5).ok()?.to_le_bytes());
            }
        }
        let mut crc = Crc::default();
        crc.update(bytes.get(RECORD_HEADER_SIZE..at).unwrap_or_default());
        let mut zeros = total_len - at;
        while zeros > 0 {
            let some = zeros.min(ZEROS.len());
            crc.update(ZEROS.get(..some).unwrap_or_default());
            zeros -= some;
        }
        crc.update(bytes.get(..CRC.start).unwrap_or_default());
        put_at(&mut bytes, CRC, &crc.finish().to_le_bytes());
        Some(Self {
            start,
            head: Head::Short(bytes, at),
            total_len,
        })
    }

    /// A record as it is, linked to one at `previous`.
    ///
    /// Its checksum is over its contents and then its header, which ends, the checksum itself left out, four bytes
    /// behind the link. So the difference that the link makes is that of these twelve bytes, whatever lies before.
    pub(super) fn link(record: &Record<'_>, previous: Lsn) -> Self {
        let header = record.header();
        let mut difference = [0; 12];
        let changed = header.previous.get() ^ previous.get();
        for (slot, byte) in difference.iter_mut().zip(changed.to_le_bytes()) {
            *slot = byte;
        }
        let crc = header.crc ^ crc32c(&difference) ^ crc32c(&[0; 12]);
        let mut bytes = [0; MAX_HEAD];
        let own = record.bytes().get(..RECORD_HEADER_SIZE);
        for (slot, byte) in bytes.iter_mut().zip(own.unwrap_or_default()) {
            *slot = *byte;
        }
        put_at(&mut bytes, PREVIOUS, &previous.get().to_le_bytes());
        put_at(&mut bytes, CRC, &crc.to_le_bytes());
        Self {
            start: record.start(),
            head: Head::Short(bytes, RECORD_HEADER_SIZE),
            total_len: RECORD_HEADER_SIZE,
        }
    }

    /// The record with its main data set to zero from `offset` on, linked to one at `previous`.
    pub(super) fn without_main_data(record: &Record<'_>, offset: usize, previous: Lsn) -> Self {
        let mut bytes = record.bytes().to_vec();
        put_at(&mut bytes, PREVIOUS, &previous.get().to_le_bytes());
        let from = (bytes.len() - record.main_data().len()).saturating_add(offset);
        if let Some(rest) = bytes.get_mut(from..) {
            rest.fill(0);
        }
        let crc = record_crc(&bytes).to_le_bytes();
        put_at(&mut bytes, CRC, &crc);
        Self {
            start: record.start(),
            total_len: bytes.len(),
            head: Head::Whole(bytes),
        }
    }

    /// Writes it into the pieces, around the headers of pages.
    pub(super) fn apply(&self, size: SegmentSize, pieces: &mut [Piece]) {
        let head = match &self.head {
            Head::Short(bytes, len) => bytes.get(..*len).unwrap_or_default(),
            Head::Whole(bytes) => bytes,
        };
        let mut at = self.start;
        let mut done = 0;
        while done < self.total_len {
            let in_page = usize::try_from(at.get() % PAGE_SIZE).unwrap_or_default();
            if in_page == 0 {
                let header = match size.floor(at) == at {
                    true => LONG_HEADER_SIZE,
                    false => SHORT_HEADER_SIZE,
                };
                at = at.advance(as_u64(header));
                continue;
            }
            let Some(piece) = pieces
                .iter_mut()
                .find(|piece| piece.start <= at && at < piece.end())
            else {
                return;
            };
            let offset = usize::try_from(at.bytes_since(piece.start)).unwrap_or(usize::MAX);
            let place = piece.bytes.get_mut(offset..).unwrap_or_default();
            let len = (self.total_len - done)
                .min(WAL_PAGE_SIZE - in_page)
                .min(place.len());
            let place = place.get_mut(..len).unwrap_or_default();
            let head = head.get(done..).unwrap_or_default();
            let (from_head, zeros) = place.split_at_mut(head.len().min(len));
            from_head.copy_from_slice(head.get(..from_head.len()).unwrap_or_default());
            zeros.fill(0);
            done += len;
            at = at.advance(as_u64(len));
        }
    }
}

fn put_at(bytes: &mut [u8], place: std::ops::Range<usize>, field: &[u8]) {
    if let Some(place) = bytes.get_mut(place) {
        place.copy_from_slice(field);
    }
}

/// Bytes in a page.
pub(super) const PAGE_SIZE: u64 = 8192;
const _: () = assert!(PAGE_SIZE == WAL_PAGE_SIZE as u64);

fn as_u64(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
