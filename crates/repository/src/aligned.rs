//! A buffer whose first byte lies where direct writes want it.

use std::ops::{Deref, DerefMut};

/// What direct writes want memory, offsets and lengths to be multiples of; enough for every disk whose
/// blocks are no larger.
pub const ALIGNMENT: usize = 4096;

/// A buffer that begins at a multiple of [`ALIGNMENT`]. It grows and never shrinks.
#[derive(Debug, Default)]
pub struct AlignedBuffer {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl AlignedBuffer {
    /// Makes it `len` bytes long. What it held is of no more meaning.
    pub fn set_len(&mut self, len: usize) {
        if self.bytes.len() < len + ALIGNMENT {
            self.bytes.resize(len + ALIGNMENT, 0);
            self.start = self.bytes.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        }
        self.len = len;
    }

    /// Cuts it to `len` bytes, which stay as they are.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }
}

impl Deref for AlignedBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes
            .get(self.start..self.start + self.len)
            .unwrap_or_default()
    }
}

impl DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.bytes
            .get_mut(self.start..self.start + self.len)
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffer_stays_aligned_while_it_grows() {
        let mut buffer = AlignedBuffer::default();
        for len in [1, 4096, 100_000, 5, 4 << 20] {
            buffer.set_len(len);
            assert_eq!(buffer.len(), len);
            assert_eq!(buffer.as_ptr() as usize % ALIGNMENT, 0);
        }
    }
}
