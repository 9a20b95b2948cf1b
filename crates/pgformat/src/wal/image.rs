//! Page images turned back into pages (`RestoreBlockImage` in
//! `src/backend/access/transam/xlogreader.c`).
//!
//! The decompressors of PGLZ (`src/common/pg_lzcompress.c`) and of LZ4's block format never write past
//! their output, which is never longer than a page.

use crate::{ids::BLOCK_SIZE, page::Page};

use super::block::{ImageCompression, PageImage};

/// A page image cannot be turned back into a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a page image of {len} bytes (compression: {compression:?}) does not unpack to a page")]
pub struct ImageError {
    len: usize,
    compression: Option<ImageCompression>,
}

impl PageImage<'_> {
    /// Writes the page into `page`, whose contents are of no account after an error.
    ///
    /// # Errors
    /// When the image does not have the length of a page without its hole.
    pub fn restore(&self, page: &mut Page) -> Result<(), ImageError> {
        let error = || ImageError {
            len: self.bytes.len(),
            compression: self.compression,
        };
        let offset = usize::from(self.hole_offset);
        let hole = usize::from(self.hole_length);
        let packed_len = BLOCK_SIZE.checked_sub(hole).ok_or_else(error)?;
        let start = page.get_mut(..packed_len).ok_or_else(error)?;
        let unpacked = match self.compression {
            None if self.bytes.len() == packed_len => {
                start.copy_from_slice(self.bytes);
                true
            }
            None => false,
            Some(ImageCompression::Pglz) => unpack_pglz(self.bytes, start).is_some(),
            Some(ImageCompression::Lz4) => unpack_lz4(self.bytes, start).is_some(),
            Some(ImageCompression::Zstd) => zstd::bulk::decompress_to_buffer(self.bytes, start)
                .is_ok_and(|len| len == packed_len),
        };
        if !unpacked || offset > packed_len {
            return Err(error());
        }
        page.copy_within(offset..packed_len, offset + hole);
        if let Some(zeros) = page.get_mut(offset..offset + hole) {
            zeros.fill(0);
        }
        Ok(())
    }
}

/// Output being written, from which earlier bytes can be repeated.
struct Output<'a> {
    bytes: &'a mut [u8],
    len: usize,
}

impl Output<'_> {
    fn literals(&mut self, literals: &[u8]) -> Option<()> {
        let end = self.len.checked_add(literals.len())?;
        self.bytes.get_mut(self.len..end)?.copy_from_slice(literals);
        self.len = end;
        Some(())
    }

    /// Repeats `len` bytes from `distance` back; the two may overlap.
    fn repeat(&mut self, distance: usize, len: usize) -> Option<()> {
        if distance == 0 {
            return None;
        }
        let from = self.len.checked_sub(distance)?;
        let mut left = len;
        while left > 0 {
            // What is there to repeat doubles with every turn.
            let step = left.min(self.len - from);
            let end = self.len.checked_add(step)?;
            if end > self.bytes.len() {
                return None;
            }
            self.bytes.copy_within(from..from + step, self.len);
            self.len = end;
            left -= step;
        }
        Some(())
    }

    /// `Some` when the output is full.
    fn full(self) -> Option<()> {
        (self.len == self.bytes.len()).then_some(())
    }
}

/// PGLZ: a byte of eight flags, lowest first; a set one means a repeat of two or three bytes, an unset
/// one a literal byte.
fn unpack_pglz(packed: &[u8], bytes: &mut [u8]) -> Option<()> {
    let mut output = Output { bytes, len: 0 };
    let mut input = packed.iter().copied();
    while let Some(flags) = input.next() {
        for bit in 0..8 {
            if output.len == output.bytes.len() {
                break;
            }
            let Some(first) = input.next() else { break };
            if flags >> bit & 1 == 0 {
                output.literals(&[first])?;
                continue;
            }
            let distance = usize::from(first & 0xF0) << 4 | usize::from(input.next()?);
            let mut len = usize::from(first & 0x0F) + 3;
            if len == 18 {
                len += usize::from(input.next()?);
            }
            let room = output.bytes.len() - output.len;
            output.repeat(distance, len.min(room))?;
        }
        if output.len == output.bytes.len() {
            break;
        }
    }
    if input.next().is_some() {
        return None;
    }
    output.full()
}

/// LZ4: a token of two lengths, literals, then a repeat of at least four bytes; the last sequence has
/// literals only.
fn unpack_lz4(packed: &[u8], bytes: &mut [u8]) -> Option<()> {
    let mut output = Output { bytes, len: 0 };
    let mut rest = packed;
    loop {
        let (&token, tail) = rest.split_first()?;
        rest = tail;
        let literal_len = lz4_length(usize::from(token >> 4), &mut rest)?;
        let (literals, tail) = rest.split_at_checked(literal_len)?;
        output.literals(literals)?;
        rest = tail;
        if rest.is_empty() {
            return output.full();
        }
        let (distance, tail) = rest.split_first_chunk::<2>()?;
        rest = tail;
        let len = lz4_length(usize::from(token & 0x0F), &mut rest)?.checked_add(4)?;
        output.repeat(usize::from(u16::from_le_bytes(*distance)), len)?;
    }
}

/// A length that goes on in further bytes when it is 15, as long as they are 255.
fn lz4_length(start: usize, rest: &mut &[u8]) -> Option<usize> {
    let mut length = start;
    if start == 15 {
        loop {
            let (&more, tail) = rest.split_first()?;
            *rest = tail;
            length = length.checked_add(usize::from(more))?;
            if more != 255 {
                break;
            }
        }
    }
    Some(length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn image(
        bytes: &[u8],
        hole: (u16, u16),
        compression: Option<ImageCompression>,
    ) -> PageImage<'_> {
        PageImage {
            bytes,
            hole_offset: hole.0,
            hole_length: hole.1,
            compression,
            applied: true,
        }
    }

    #[test]
    fn hole_comes_back_as_zeros() {
        let bytes: Vec<u8> = (0..8000_u32)
            .map(|n| u8::try_from(n % 250 + 1).unwrap())
            .collect();
        let mut page = [9; BLOCK_SIZE];
        image(&bytes, (100, 192), None).restore(&mut page).unwrap();
        assert_eq!(page[..100], bytes[..100]);
        assert_eq!(page[100..292], [0; 192]);
        assert_eq!(page[292..], bytes[100..]);
        assert!(image(&bytes, (100, 191), None).restore(&mut page).is_err());
    }

    #[test]
    fn repeats_may_overlap_what_they_write() {
        // PGLZ: two literals, then 18 + 2 bytes from two back.
        let mut bytes = [0; 22];
        assert!(unpack_pglz(&[0b100, b'a', b'b', 0x0F, 2, 2], &mut bytes).is_some());
        assert_eq!(&bytes, b"ababababababababababab");
        // LZ4: two literals, a repeat of 15 + 4 + 0 from one back, one literal.
        let mut bytes = [0; 22];
        assert!(unpack_lz4(&[0x2F, b'a', b'b', 1, 0, 0, 0x10, b'c'], &mut bytes).is_some());
        assert_eq!(&bytes, b"abbbbbbbbbbbbbbbbbbbbc");
    }

    #[test]
    fn packed_bytes_that_are_too_short_or_too_long_are_refused() {
        let mut bytes = [0; 4];
        assert!(unpack_pglz(&[0, b'a', b'b', b'c'], &mut bytes).is_none());
        assert!(unpack_pglz(&[0, b'a', b'b', b'c', b'd', b'e'], &mut bytes).is_none());
        assert!(unpack_pglz(&[1, 0x00, 5], &mut bytes).is_none());
        assert!(unpack_lz4(&[0x30, b'a', b'b', b'c'], &mut bytes).is_none());
        assert!(unpack_lz4(&[0x50, b'a', b'b', b'c', b'd', b'e'], &mut bytes).is_none());
        assert!(unpack_lz4(&[0x10, b'a', 2, 0, 0x10, b'b'], &mut bytes).is_none());
        assert!(unpack_lz4(&[], &mut bytes).is_none());
    }

    #[test]
    fn zstandard_images_are_unpacked() {
        let plain = [7; BLOCK_SIZE];
        let packed = zstd::bulk::compress(&plain, 1).unwrap();
        let mut page = [0; BLOCK_SIZE];
        let zstd = Some(ImageCompression::Zstd);
        image(&packed, (0, 0), zstd).restore(&mut page).unwrap();
        assert_eq!(page, plain);
        assert!(
            image(&packed[1..], (0, 0), zstd)
                .restore(&mut page)
                .is_err()
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_unpacked_or_refused_without_panic(
            packed in prop::collection::vec(any::<u8>(), 0..300),
            hole in (any::<u16>(), any::<u16>()),
        ) {
            let mut page = [0; BLOCK_SIZE];
            for compression in [
                None,
                Some(ImageCompression::Pglz),
                Some(ImageCompression::Lz4),
                Some(ImageCompression::Zstd),
            ] {
                let _ = image(&packed, hole, compression).restore(&mut page);
            }
        }
    }
}
