//! The header and checksum of a relation's page, and the rows on a heap's page.
//!
//! Layout: `src/include/storage/bufpage.h`, `src/include/storage/itemid.h` and
//! `src/include/access/htup_details.h`. Checksum: `src/include/storage/checksum_impl.h`, 32
//! parallel FNV-1a lanes, mixed with the block number.

use crate::{BlockNumber, Lsn, TransactionId, bytes::Reader, ids::BLOCK_SIZE};

/// A page's bytes.
pub type Page = [u8; BLOCK_SIZE];

const LANES: usize = 32;
const ROWS: usize = BLOCK_SIZE / 4 / LANES;
const FNV_PRIME: u32 = 16_777_619;
const CHECKSUM_OFFSET: usize = 8;
/// `pd_lower`: where the line pointers end.
const LOWER_OFFSET: usize = 12;
const PAGE_HEADER_SIZE: usize = 24;
/// Bytes of a tuple's header up to and with `t_hoff`, which ends with its whole length.
const TUPLE_HEADER_SIZE: usize = 23;
/// Bits of `t_infomask`.
const XMAX_LOCK_ONLY: u16 = 0x0080;
const XMIN_COMMITTED: u16 = 0x0100;
const XMIN_INVALID: u16 = 0x0200;
const XMIN_FROZEN: u16 = XMIN_COMMITTED | XMIN_INVALID;
const XMAX_INVALID: u16 = 0x0800;
/// Left by `VACUUM FULL` before 9.0: a transaction's number lies elsewhere in the header.
const MOVED: u16 = 0xC000;
/// Transactions with lower numbers are visible to all (`FirstNormalTransactionId`).
const FIRST_NORMAL_TRANSACTION: u32 = 3;

const LANE_OFFSETS: [u32; LANES] = [
    0x5B1F_36E9,
    0xB852_5960,
    0x02AB_50AA,
    0x1DE6_6D2A,
    0x79FF_467A,
    0x9BB9_F8A3,
    0x217E_7CD2,
    0x83E1_3D2C,
    0xF8D4_474F,
    0xE39E_B970,
    0x42C6_AE16,
    0x9932_16FA,
    0x7B09_3B5D,
    0x98DA_FF3C,
    0xF718_902A,
    0x0B1C_9CDB,
    0xE58F_764B,
    0x1876_36BC,
    0x5D7B_3BB1,
    0xE73D_E7DE,
    0x92BE_C979,
    0xCCA6_C0B2,
    0x304A_0979,
    0x85AA_43D4,
    0x7831_25BB,
    0x6CA8_EAA2,
    0xE407_EAC6,
    0x4B5C_FC3E,
    0x9FBF_8C76,
    0x15CA_20BE,
    0xF2CA_9FD3,
    0x959B_D756,
];

/// A row's place on its page: the number of its line pointer, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinePointer(u16);

impl LinePointer {
    /// From `OffsetNumber`.
    pub const fn new(raw: u16) -> Self {
        Self(raw)
    }

    /// The number.
    pub const fn get(self) -> u16 {
        self.0
    }
}

/// What reading a page's header and checksum says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageState {
    /// All zero: allocated and never written.
    New,
    /// The checksum in the header is right, or was not asked for.
    Valid,
    /// The checksum in the header is not that of the contents.
    BadChecksum {
        /// From the header.
        stored: u16,
        /// From the contents.
        computed: u16,
    },
}

/// The LSN of the last change to the page (`pd_lsn`), high half first.
pub fn page_lsn(page: &Page) -> Lsn {
    let [a, b, c, d, e, f, g, h, ..] = *page;
    let high = u32::from_le_bytes([a, b, c, d]);
    let low = u32::from_le_bytes([e, f, g, h]);
    Lsn::new(u64::from(high) << 32 | u64::from(low))
}

/// Whether the page was never initialised (`PageIsNew`: `pd_upper` is 0).
pub fn is_new(page: &Page) -> bool {
    matches!(page.get(14..16), Some([0, 0]))
}

/// Whether every byte is 0.
pub fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<8>();
    let zero = |chunk: &[[u8; 8]]| {
        chunk
            .iter()
            .fold(0, |all, word| all | u64::from_le_bytes(*word))
            == 0
    };
    words.chunks(64).all(zero) && rest.iter().all(|byte| *byte == 0)
}

/// The rows of a heap's page: their places and their contents behind the tuple header. Rows that do not
/// lie whole on the page are left out.
pub fn rows(page: &Page) -> impl Iterator<Item = (LinePointer, &[u8])> {
    tuples(page).map(|tuple| (tuple.place, tuple.contents))
}

/// A row with its tuple header (`HeapTupleHeaderData`).
#[derive(Clone, Copy, Debug)]
pub struct Tuple<'a> {
    place: LinePointer,
    header: &'a [u8; TUPLE_HEADER_SIZE],
    contents: &'a [u8],
}

impl<'a> Tuple<'a> {
    /// Its place on the page.
    pub fn place(&self) -> LinePointer {
        self.place
    }

    /// Its columns.
    pub fn contents(&self) -> &'a [u8] {
        self.contents
    }

    /// The transaction that wrote it (`t_xmin`).
    pub fn inserted_by(&self) -> TransactionId {
        let [a, b, c, d, ..] = *self.header;
        TransactionId::new(u32::from_le_bytes([a, b, c, d]))
    }

    /// Whether a transaction deleted or replaced it; that transaction may have been rolled back.
    pub fn is_deleted(&self) -> bool {
        let [_, _, _, _, a, b, c, d, ..] = *self.header;
        let deleted_by = u32::from_le_bytes([a, b, c, d]);
        deleted_by != 0 && self.flags() & (XMAX_INVALID | XMAX_LOCK_ONLY) == 0
    }

    /// Whether it is known to be older than all transactions under way.
    pub fn is_frozen(&self) -> bool {
        self.flags() & XMIN_FROZEN == XMIN_FROZEN
    }

    /// Whether it means the same whatever transactions are called, and which of them were committed: it is frozen,
    /// and nobody has deleted, replaced or locked it.
    pub fn names_no_transaction(&self) -> bool {
        let [_, _, _, _, a, b, c, d, ..] = *self.header;
        let inserted = self.is_frozen() || self.inserted_by().get() < FIRST_NORMAL_TRANSACTION;
        let ended = self.flags() & XMAX_INVALID == 0 && u32::from_le_bytes([a, b, c, d]) != 0;
        inserted && !ended && self.flags() & MOVED == 0
    }

    /// Whether the transaction that wrote it is known to have been rolled back.
    pub fn is_aborted(&self) -> bool {
        self.flags() & XMIN_FROZEN == XMIN_INVALID
    }

    fn flags(&self) -> u16 {
        let [.., low, high, _] = *self.header;
        u16::from_le_bytes([low, high])
    }
}

/// The rows of a heap's page with their headers. Rows that do not lie whole on the page are left out.
pub fn tuples(page: &Page) -> impl Iterator<Item = Tuple<'_>> {
    let lower = Reader::at(page, LOWER_OFFSET).and_then(|mut reader| reader.u16());
    let pointers = page
        .get(PAGE_HEADER_SIZE..usize::from(lower.unwrap_or(0)))
        .unwrap_or_default();
    (1..)
        .zip(pointers.as_chunks::<4>().0)
        .filter_map(|(number, pointer)| {
            let pointer = u32::from_le_bytes(*pointer);
            let offset = usize::try_from(pointer & 0x7FFF).ok()?;
            let len = usize::try_from(pointer >> 17).ok()?;
            let is_normal = pointer >> 15 & 3 == 1;
            let tuple = page.get(offset..offset + len).filter(|_| is_normal)?;
            let header = tuple.first_chunk::<TUPLE_HEADER_SIZE>()?;
            let [.., header_len] = *header;
            Some(Tuple {
                place: LinePointer(number),
                header,
                contents: tuple.get(usize::from(header_len)..)?,
            })
        })
}

/// Checks a page at `block` of its fork: new, valid or damaged.
///
/// A new page has no checksum; PostgreSQL wants it all zero (`PageIsVerified`).
pub fn verify(page: &Page, block: BlockNumber) -> PageState {
    if is_new(page) && is_zero(page) {
        return PageState::New;
    }
    let stored = match page.get(CHECKSUM_OFFSET..CHECKSUM_OFFSET + 2) {
        Some([low, high]) => u16::from_le_bytes([*low, *high]),
        _ => 0,
    };
    let computed = checksum(page, block);
    if stored == computed {
        PageState::Valid
    } else {
        PageState::BadChecksum { stored, computed }
    }
}

/// The checksum PostgreSQL would write into the page's header (`pg_checksum_page`). Never 0.
pub fn checksum(page: &Page, block: BlockNumber) -> u16 {
    let mut lanes = LANE_OFFSETS;
    let (rows, _) = page.as_chunks::<{ LANES * 4 }>();
    debug_assert_eq!(rows.len(), ROWS);
    for (index, row) in rows.iter().enumerate() {
        let mut values = row_values(row);
        if index == 0 {
            // The checksum field itself counts as 0: the low half of the word at byte 8.
            if let Some(word) = values.get_mut(CHECKSUM_OFFSET / 4) {
                *word &= 0xFFFF_0000;
            }
        }
        mix(&mut lanes, &values);
    }
    let zeros = [0; LANES];
    mix(&mut lanes, &zeros);
    mix(&mut lanes, &zeros);
    let folded = lanes.iter().fold(0, |all, lane| all ^ lane) ^ block.get();
    u16::try_from(folded % 65_535 + 1).unwrap_or(u16::MAX)
}

fn row_values(row: &[u8; LANES * 4]) -> [u32; LANES] {
    let mut values = [0_u32; LANES];
    let (words, _) = row.as_chunks::<4>();
    for (value, word) in values.iter_mut().zip(words) {
        *value = u32::from_le_bytes(*word);
    }
    values
}

#[inline(always)]
fn mix(lanes: &mut [u32; LANES], values: &[u32; LANES]) {
    for (lane, value) in lanes.iter_mut().zip(values) {
        let mixed = *lane ^ value;
        *lane = mixed.wrapping_mul(FNV_PRIME) ^ (mixed >> 17);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_page_is_new_and_a_stray_bit_makes_it_damaged() {
        let mut page = [0; BLOCK_SIZE];
        assert_eq!(verify(&page, BlockNumber::new(7)), PageState::New);
        page[5000] = 1;
        assert!(matches!(
            verify(&page, BlockNumber::new(7)),
            PageState::BadChecksum { .. }
        ));
    }

    #[test]
    fn checksum_ignores_its_own_field_and_depends_on_the_block() {
        let mut page: Page = std::array::from_fn(|i| u8::try_from(i % 251).unwrap());
        let sum = checksum(&page, BlockNumber::new(3));
        page[8..10].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(verify(&page, BlockNumber::new(3)), PageState::Valid);
        assert!(matches!(
            verify(&page, BlockNumber::new(4)),
            PageState::BadChecksum { .. }
        ));
    }

    #[test]
    fn rows_are_found_and_dead_or_broken_line_pointers_left_out() {
        let mut page = [0; BLOCK_SIZE];
        let pointer = |offset: u32, state: u32, len: u32| offset | state << 15 | len << 17;
        let pointers = [
            pointer(8000, 1, 30),
            pointer(0, 0, 0),
            pointer(3, 2, 0),
            pointer(8180, 1, 30),
            pointer(8100, 1, 26),
        ];
        page[12..14].copy_from_slice(&(24_u16 + 20).to_le_bytes());
        for (index, pointer) in pointers.iter().enumerate() {
            page[24 + index * 4..28 + index * 4].copy_from_slice(&pointer.to_le_bytes());
        }
        page[8022] = 24;
        page[8024..8030].fill(7);
        page[8122] = 200;
        let found: Vec<_> = rows(&page).collect();
        assert_eq!(found, [(LinePointer::new(1), &[7; 6][..])]);
        assert_eq!(rows(&[0xFF; BLOCK_SIZE]).count(), 0);
    }

    #[test]
    fn only_frozen_rows_that_nobody_has_ended_name_no_transaction() {
        let names_none = |xmin: u32, xmax: u32, flags: u16| {
            let mut page = [0; BLOCK_SIZE];
            page[12..14].copy_from_slice(&28_u16.to_le_bytes());
            page[24..28].copy_from_slice(&(8000_u32 | 1 << 15 | 32 << 17).to_le_bytes());
            page[8000..8004].copy_from_slice(&xmin.to_le_bytes());
            page[8004..8008].copy_from_slice(&xmax.to_le_bytes());
            page[8020..8022].copy_from_slice(&flags.to_le_bytes());
            page[8022] = 24;
            tuples(&page).next().unwrap().names_no_transaction()
        };
        assert!(names_none(700, 0, XMIN_FROZEN | XMAX_INVALID));
        assert!(names_none(700, 0, XMIN_FROZEN));
        assert!(names_none(700, 9, XMIN_FROZEN | XMAX_INVALID));
        assert!(names_none(1, 0, XMAX_INVALID));
        assert!(!names_none(700, 0, XMIN_COMMITTED | XMAX_INVALID));
        assert!(!names_none(700, 9, XMIN_FROZEN));
        assert!(!names_none(700, 9, XMIN_FROZEN | XMAX_LOCK_ONLY));
        assert!(!names_none(700, 0, XMIN_FROZEN | 0x4000));
    }

    #[test]
    fn page_lsn_has_its_high_half_first() {
        let mut page = [0; BLOCK_SIZE];
        page[0..4].copy_from_slice(&0x1A_u32.to_le_bytes());
        page[4..8].copy_from_slice(&0x2B_u32.to_le_bytes());
        assert_eq!(page_lsn(&page).to_string(), "1A/2B");
    }
}
