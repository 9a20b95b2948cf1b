//! Any stored summary, its checksum made right, is read or refused; what is read is stored the same way again.
#![no_main]

use everpoint_pgformat::{
    wal::crc32c,
    wal_summary::{
        WalSummary,
        format::{FORMAT_VERSION, MAGIC},
    },
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let _ = WalSummary::decode(body);
    let mut stored = MAGIC.to_vec();
    stored.extend(FORMAT_VERSION.to_le_bytes());
    stored.extend(body);
    stored.extend(crc32c(&stored).to_le_bytes());
    if let Ok(summary) = WalSummary::decode(&stored) {
        assert_eq!(summary.encode(), stored);
        summary.databases.dropped();
    }
});
