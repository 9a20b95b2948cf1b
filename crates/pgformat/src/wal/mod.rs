//! Write-ahead log: segments, pages, records.

pub mod segment;

/// CRC-32C (Castagnoli), as PostgreSQL computes it over WAL records and the control file
/// (`src/include/port/pg_crc32c.h`).
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}
