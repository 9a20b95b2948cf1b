//! Any stored summary, its checksum made right, is read or refused; what is read is stored the same way again.

use everpoint_pgformat::{
    wal::crc32c,
    wal_summary::{
        WalSummary,
        format::{FORMAT_VERSION, MAGIC},
    },
};

/// How many forks it names, and one for itself.
pub(crate) fn run(body: &[u8]) -> usize {
    let _ = WalSummary::decode(body);
    let mut stored = MAGIC.to_vec();
    stored.extend(FORMAT_VERSION.to_le_bytes());
    stored.extend(body);
    stored.extend(crc32c(&stored).to_le_bytes());
    let Ok(summary) = WalSummary::decode(&stored) else {
        return 0;
    };
    assert_eq!(summary.encode(), stored);
    summary.databases.dropped();
    1 + summary.changes.forks().len()
}
