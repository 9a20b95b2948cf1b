//! CRC-32C (Castagnoli), as PostgreSQL computes it over WAL records and the control file
//! (`src/include/port/pg_crc32c.h`).

use crc_fast::{CrcAlgorithm, Digest};

/// The CRC-32C of `bytes`.
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// The CRC-32C of `first` and `second` in a row.
pub(super) fn crc32c_of_two(first: &[u8], second: &[u8]) -> u32 {
    let mut crc = Crc::default();
    crc.update(first);
    crc.update(second);
    crc.finish()
}

/// The CRC-32C of bytes that come one after the other.
pub(super) struct Crc(Digest);

impl Default for Crc {
    fn default() -> Self {
        Self(Digest::new(CrcAlgorithm::Crc32Iscsi))
    }
}

impl Crc {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(super) fn finish(&self) -> u32 {
        u32::try_from(self.0.finalize()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_is_castagnolis_and_does_not_depend_on_where_it_is_cut() {
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        for cut in 0..=9 {
            let (first, second) = b"123456789".split_at(cut);
            assert_eq!(crc32c_of_two(first, second), 0xE306_9283);
        }
    }
}
