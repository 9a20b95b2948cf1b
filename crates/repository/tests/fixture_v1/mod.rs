//! What the fixture of format version 1 holds: written by `examples/make_fixture.rs` once, and expected
//! by `tests/format_v1.rs` for ever.

#![allow(
    clippy::unwrap_used,
    reason = "the example that shares this file is run by hand"
)]

use everpoint_repository::{BackupId, InstanceName};

/// The contents of the key file.
pub(crate) const KEY_FILE: &[u8] =
    b"the key of the fixture of format version 1; it protects nothing\n";
/// The passphrase.
pub(crate) const PASSPHRASE: &str = "the passphrase of the fixture";
/// Bytes of a page.
pub(crate) const PAGE: usize = 8192;
/// The history of timeline 2.
pub(crate) const HISTORY: &str = "1\t0/3004000\tno recovery target specified\n";

/// The instance.
pub(crate) fn instance() -> InstanceName {
    "shop".parse().unwrap()
}

/// The full backup.
pub(crate) fn full() -> BackupId {
    "20261122T213000Z-full-0000000a".parse().unwrap()
}

/// The differential one on it.
pub(crate) fn differential() -> BackupId {
    "20261123T093000Z-differential-0000000b".parse().unwrap()
}

/// A page of text, which zstd makes smaller.
pub(crate) fn page(block: u32, generation: u32) -> Vec<u8> {
    let line = format!("block {block} generation {generation}; ");
    line.bytes().cycle().take(PAGE).collect()
}

/// Bytes that zstd cannot make smaller.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    let step = |_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        state.to_le_bytes()[7]
    };
    (0..len).map(step).collect()
}

/// Write-ahead log, or what stands for it: the byte at every position follows from the position.
pub(crate) fn log(timeline: u32, start: u64, end: u64) -> Vec<u8> {
    let byte = |at: u64| {
        (at / 64)
            .wrapping_mul(31)
            .wrapping_add(u64::from(timeline))
            .to_le_bytes()[0]
    };
    (start..end).map(byte).collect()
}

/// A stretch of log in the fixture: timeline, start, end, and the sizes of its frames.
pub(crate) type Stretch = (u32, u64, u64, &'static [usize]);

/// The log backups: two that follow each other, one that overlaps the second, a hole, one behind it, and
/// one of timeline 2.
pub(crate) const STRETCHES: [Stretch; 5] = [
    (1, 0x0300_0028, 0x0300_1000, &[0x0FD8]),
    (1, 0x0300_1000, 0x0300_2800, &[0x1000, 0x0800]),
    (1, 0x0300_2000, 0x0300_3000, &[0x1000]),
    (1, 0x0300_3800, 0x0300_4000, &[0x0800]),
    (2, 0x0300_4000, 0x0300_4100, &[0x0100]),
];

/// The files of the full backup, by path, with their modes and contents.
pub(crate) fn full_files() -> Vec<(&'static str, u32, Vec<u8>)> {
    vec![
        ("PG_VERSION", 0o600, b"17\n".to_vec()),
        (
            "base/16384/16390",
            0o600,
            (0..4).flat_map(|block| page(block, 1)).collect(),
        ),
        ("base/16384/16391", 0o600, vec![0; 2 * PAGE]),
        ("base/16384/16392", 0o640, noise(7, PAGE)),
        ("base/16384/16393", 0o600, Vec::new()),
        ("global/1262", 0o600, page(0, 1)),
        (
            "pg_tblspc/16400/PG_17_202406281/16384/16401",
            0o600,
            page(9, 1),
        ),
    ]
}

/// The blocks of `base/16384/16390` that changed until the differential backup: the file grew by one.
pub(crate) const CHANGED_BLOCKS: [u32; 3] = [1, 3, 4];
