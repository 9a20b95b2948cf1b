//! Files written by real servers are read as their own tools read them.

use everpoint_pgformat::{
    BlockNumber,
    control::{Checksums, ClusterState, ControlFile, ControlFileError},
    page::{self, PageState},
    wal::segment::SegmentSize,
};

const CONTROL_FILES: [(u16, &[u8]); 3] = [
    (15, include_bytes!("fixtures/pg_control_15")),
    (17, include_bytes!("fixtures/pg_control_17")),
    (18, include_bytes!("fixtures/pg_control_18")),
];

const PAGES: [&[u8; 8192]; 3] = [
    include_bytes!("fixtures/page_15"),
    include_bytes!("fixtures/page_17"),
    include_bytes!("fixtures/page_18"),
];

#[test]
fn control_files_of_every_format_are_read() {
    for (major, bytes) in CONTROL_FILES {
        let control = ControlFile::parse(bytes).unwrap();
        assert_eq!(control.version.get(), major);
        assert_eq!(control.state, ClusterState::ShutDown);
        assert_eq!(control.checksums, Checksums::On);
        assert_eq!(control.segment_size, SegmentSize::DEFAULT);
        assert_eq!(control.blocks_per_segment, 131_072);
        assert_eq!(control.limits.max_connections, 100);
        assert_eq!(control.limits.max_wal_senders, 10);
        assert_eq!(control.limits.max_locks_per_transaction, 64);
        assert_eq!(control.redo, control.checkpoint);
    }
}

#[test]
fn damaged_and_cut_control_files_are_refused() {
    let (_, bytes) = CONTROL_FILES[0];
    let mut damaged = bytes.to_vec();
    damaged[40] ^= 1;
    assert_eq!(ControlFile::parse(&damaged), Err(ControlFileError::BadCrc));
    for len in 0..292 {
        assert!(ControlFile::parse(&bytes[..len.min(291)]).is_err());
    }
}

#[test]
fn checksums_of_real_pages_agree_and_one_flipped_bit_is_noticed() {
    for page in PAGES {
        assert_eq!(page::verify(page, BlockNumber::new(0)), PageState::Valid);
        assert!(page::page_lsn(page).is_valid());
        let mut damaged = *page;
        damaged[8191] ^= 0x10;
        assert!(matches!(
            page::verify(&damaged, BlockNumber::new(0)),
            PageState::BadChecksum { .. }
        ));
    }
}
