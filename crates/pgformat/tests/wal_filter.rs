//! A filter takes out what concerns other databases, and leaves everything else in its place.
#![expect(clippy::cast_possible_truncation, reason = "test lengths are small")]

#[cfg(test)]
#[allow(dead_code, reason = "shared by several test files")]
mod log_writer;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use everpoint_pgformat::{
        Lsn, MajorVersion, Oid,
        wal::{
            decoder::{Next, WalDecoder},
            filter::{Databases, FilterCounts, Piece, WalFilter},
            resource_manager::ResourceManager,
            segment::SegmentSize,
            tablespace::TablespaceRecord,
            xlog::NOOP,
        },
    };
    use proptest::prelude::*;

    use super::log_writer::{Block, LogWriter, body};

    const MIB: u32 = 1 << 20;
    const KEPT: u32 = 16_400;
    const OTHER: u32 = 16_500;

    fn only(databases: &[u32]) -> Databases {
        Databases::Only(
            databases
                .iter()
                .map(|oid| Oid::new(*oid))
                .collect::<BTreeSet<_>>(),
        )
    }

    /// The log filtered, fed in pieces of `cut` bytes.
    fn filtered(log: &LogWriter, databases: Databases, cut: usize) -> (Vec<u8>, FilterCounts) {
        let decoder = WalDecoder::new(log.version, log.segment_size, log.start);
        filter(
            WalFilter::new(decoder, log.segment_size, databases),
            log.start,
            &log.bytes,
            cut,
        )
        .expect("sound log")
    }

    fn filter(
        mut filter: WalFilter,
        start: Lsn,
        bytes: &[u8],
        cut: usize,
    ) -> Result<(Vec<u8>, FilterCounts), everpoint_pgformat::wal::error::WalError> {
        let mut out = Vec::new();
        let mut at = start;
        for bytes in bytes.chunks(cut) {
            filter.push(Piece {
                start: at,
                bytes: bytes.to_vec(),
            })?;
            while let Some(piece) = filter.pop() {
                assert_eq!(piece.start, start.advance(out.len() as u64), "in order");
                out.extend(piece.bytes);
            }
            at = at.advance(bytes.len() as u64);
        }
        while let Some(piece) = filter.finish() {
            out.extend(piece.bytes);
        }
        Ok((out, filter.counts()))
    }

    /// Start, end, length, transaction, link, resource manager and info of every record.
    type Line = (Lsn, Lsn, u32, u32, Lsn, ResourceManager, u8);

    fn records(log: &LogWriter, bytes: &[u8]) -> Vec<Line> {
        let mut decoder = WalDecoder::new(log.version, log.segment_size, log.start);
        decode(&mut decoder, log.start, bytes)
    }

    fn decode(decoder: &mut WalDecoder, start: Lsn, bytes: &[u8]) -> Vec<Line> {
        let mut lines = Vec::new();
        let mut chunk = decoder.feed(start, bytes);
        while let Next::Record(record) = chunk.next().expect("sound log") {
            let header = record.header();
            lines.push((
                record.start(),
                record.end(),
                header.total_len,
                header.transaction.get(),
                header.previous,
                header.resource_manager,
                header.info,
            ));
        }
        lines
    }

    fn relation(database: u32) -> [u32; 3] {
        [1663, database, 20_000]
    }

    /// Main data of the kinds that name a database, with a record of each.
    fn kinds(database: u32) -> Vec<(u8, u8, Vec<u8>)> {
        let numbers = |numbers: &[u32]| -> Vec<u8> {
            numbers
                .iter()
                .flat_map(|number| number.to_le_bytes())
                .collect()
        };
        vec![
            (2, 0x10, numbers(&[1663, database, 20_000, 0])),
            (2, 0x20, numbers(&[7, 1663, database, 20_000, 1])),
            (4, 0x00, numbers(&[database, 1663, 1, 1663])),
            (4, 0x10, numbers(&[database, 1663])),
            (4, 0x20, numbers(&[database, 1, 1663])),
            (7, 0x00, numbers(&[database, 1663, 0])),
            (9, 0x00, numbers(&[700, database, 20_000, 0, 0, 1, 0, 0])),
            (
                9,
                0x70,
                numbers(&[700, 1, 2, 3, 1663, database, 20_000, 0, 0]),
            ),
            (10, 0x30, numbers(&[database, 1, 0, 20_000])),
            (11, 0xD0, numbers(&[1663, database, 20_000, 5, 0, 0])),
            (14, 0x20, numbers(&[1663, database, 20_000, 5, 0, 0])),
            (21, 0x00, numbers(&[database, 0, 0, 0, 0, 0])),
        ]
    }

    #[test]
    fn every_kind_that_names_another_database_does_nothing_afterwards() {
        let mut log = LogWriter::new(18, MIB, 0);
        let mut concerned = Vec::new();
        for database in [OTHER, KEPT] {
            for (manager, info, main) in kinds(database) {
                log.record(manager, info, 700, &main);
                concerned.push(database);
            }
            let block = Block::new(relation(database), 3).with_data(&[1; 30]);
            log.raw_record(10, 0x00, 700, &body(&[block], &[9; 9]));
            concerned.push(database);
            let image = Block::new(relation(database), 3).with_image(&[5; 8192]);
            log.raw_record(0, 0xB0, 0, &body(&[image], &[]));
            concerned.push(database);
        }
        let before = records(&log, &log.bytes);
        let (bytes, counts) = filtered(&log, only(&[KEPT]), 5000);
        let after = records(&log, &bytes);
        assert_eq!((counts.records, counts.unsure), (before.len() as u64, 0));
        assert_eq!(counts.neutralised, before.len() as u64 / 2);
        assert_eq!(taken_out(&before, &after), counts.neutralised);
        let kept = concerned
            .iter()
            .zip(&before)
            .filter(|(database, _)| **database == KEPT);
        for (_, line) in kept {
            assert!(after.iter().any(|after| same(line, after)), "{line:?}");
        }
    }

    /// All but the link to the record before, which the decoder checks.
    fn same(before: &Line, after: &Line) -> bool {
        let all = |line: &Line| (line.0, line.1, line.2, line.3, line.5, line.6);
        all(before) == all(after)
    }

    /// What is there afterwards is a record that was there before, or does nothing in the place of some that begin on
    /// one page. Returns how many were taken out.
    fn taken_out(before: &[Line], after: &[Line]) -> u64 {
        let mut before = before.iter().peekable();
        let mut count = 0;
        for line in after {
            let first = before.next().expect("nothing is added");
            if same(first, line) {
                continue;
            }
            assert_eq!(
                (line.5, line.6),
                (ResourceManager::XLOG, NOOP),
                "{first:?} {line:?}"
            );
            assert_eq!(line.0, first.0);
            let (mut end, mut transaction) = (first.1, first.3);
            count += 1;
            while end < line.1 {
                let next = before.next().expect("it ends where a record did");
                assert_eq!(next.0.get() / 8192, line.0.get() / 8192, "one page");
                (end, transaction) = (next.1, transaction.max(next.3));
                count += 1;
            }
            assert_eq!((end, transaction), (line.1, line.3));
        }
        assert!(before.next().is_none(), "nothing is lost");
        count
    }

    #[test]
    fn many_small_records_of_others_become_one_a_page() {
        let mut log = LogWriter::new(17, MIB, 0);
        let block = |database| {
            let block = Block::new(relation(database), 3).with_data(&[1; 10]);
            body(&[block], &[9; 3])
        };
        for number in 0..40_000_u32 {
            let database = if number % 1000 == 0 { KEPT } else { OTHER };
            log.raw_record(10, 0x00, 700 + number / 100, &block(database));
        }
        let before = records(&log, &log.bytes);
        let (bytes, counts) = filtered(&log, only(&[KEPT]), 100_000);
        let after = records(&log, &bytes);
        assert_eq!(taken_out(&before, &after), counts.neutralised);
        assert_eq!(counts.neutralised, 40_000 - 40);
        let pages = log.bytes.len() / 8192 + 1;
        assert!(
            after.len() <= pages + 2 * 40,
            "{} of {pages} pages",
            after.len()
        );
    }

    #[test]
    fn a_position_to_stop_at_begins_a_record_still() {
        let mut log = LogWriter::new(17, MIB, 0);
        for _ in 0..2000 {
            log.record(21, 0, 5, &OTHER.to_le_bytes());
        }
        let before = records(&log, &log.bytes);
        for stop in before.iter().map(|line| line.0).step_by(97) {
            let decoder = WalDecoder::new(log.version, log.segment_size, log.start);
            let wal_filter = WalFilter::new(decoder, log.segment_size, only(&[])).stopping_at(stop);
            let (bytes, _) = filter(wal_filter, log.start, &log.bytes, 5000).expect("sound log");
            let after = records(&log, &bytes);
            assert!(after.iter().any(|line| line.0 == stop), "{stop}");
            assert_eq!(taken_out(&before, &after), before.len() as u64);
        }
    }

    #[test]
    fn what_concerns_the_cluster_or_nobody_knows_whom_stays() {
        let mut log = LogWriter::new(16, MIB, 0);
        // Ends of transactions, status of transactions, checkpoints, standby, commit times, origins.
        for (manager, info) in [
            (1, 0x00),
            (3, 0),
            (6, 0),
            (8, 0x10),
            (18, 0),
            (19, 0),
            (0, 0x10),
            (0, 0xE0),
        ] {
            log.record(manager, info, 7, &OTHER.to_le_bytes().repeat(8));
        }
        let shared = Block::new([1664, 0, 1262], 0).with_data(&[1; 4]);
        log.raw_record(10, 0x70, 0, &body(std::slice::from_ref(&shared), &[1, 0]));
        // Of several databases at once, and of an extension.
        let mixed = [
            shared,
            Block::new(relation(OTHER), 1).numbered(1).with_data(&[2]),
        ];
        log.raw_record(10, 0x20, 7, &body(&mixed, &[0; 14]));
        log.record(200, 0, 7, &OTHER.to_le_bytes());
        // Too short to name one.
        log.record(2, 0x20, 7, &[1, 2, 3]);
        let (bytes, counts) = filtered(&log, only(&[KEPT]), 1 << 20);
        assert!(bytes == log.bytes);
        assert_eq!((counts.neutralised, counts.unsure), (0, 2));
    }

    #[test]
    fn records_over_pages_and_segments_are_taken_out_wherever_the_bytes_are_cut() {
        let mut log = LogWriter::new(17, MIB, u64::from(MIB) * 5 - 2 * 8192);
        for len in [
            0, 1, 229, 231, 232, 233, 234, 235, 236, 8000, 8150, 9000, 70_000, 2_500_000, 3,
        ] {
            let mut main = OTHER.to_le_bytes().to_vec();
            main.extend(vec![7; len]);
            log.record(21, 0, 5, &main);
            main[..4].copy_from_slice(&KEPT.to_le_bytes());
            log.record(21, 0, 5, &main);
            if len == 9000 {
                log.switch();
            }
            if len == 70_000 {
                let lost = log.lose_continuation();
                log.record(0, 0xD0, 0, &[lost.get().to_le_bytes(), [0; 8]].concat());
            }
        }
        let before = records(&log, &log.bytes);
        let (whole, counts) = filtered(&log, only(&[KEPT]), log.bytes.len());
        assert_eq!(counts.neutralised, 15);
        let after = records(&log, &whole);
        assert_eq!(after.len(), before.len());
        for (before, after) in before.iter().zip(&after) {
            assert_eq!(
                (before.0, before.1, before.2, before.4),
                (after.0, after.1, after.2, after.4)
            );
        }
        assert!(
            whole
                .windows(4)
                .filter(|found| **found == OTHER.to_le_bytes())
                .count()
                == 0
        );
        for cut in [1000, 4099, 8192, 8193, MIB as usize] {
            assert!(
                filtered(&log, only(&[KEPT]), cut).0 == whole,
                "cut every {cut} bytes"
            );
        }
    }

    #[test]
    fn tablespace_loses_its_location_whichever_databases_are_kept() {
        for databases in [Databases::All, only(&[KEPT])] {
            let mut log = LogWriter::new(15, MIB, 0);
            let mut main = 17_000_u32.to_le_bytes().to_vec();
            main.extend(b"/srv/live\0");
            log.record(5, 0x00, 9, &main);
            log.record(5, 0x10, 9, &17_000_u32.to_le_bytes());
            let (bytes, counts) = filtered(&log, databases, 100);
            assert_eq!((counts.tablespaces, counts.neutralised), (1, 0));
            let mut decoder = WalDecoder::new(log.version, log.segment_size, log.start);
            let mut chunk = decoder.feed(log.start, &bytes);
            let Ok(Next::Record(record)) = chunk.next() else {
                panic!()
            };
            let tablespace = Oid::new(17_000);
            let expected = TablespaceRecord::Create {
                tablespace,
                location: b"",
            };
            assert_eq!(TablespaceRecord::parse(&record), Ok(expected));
        }
    }

    #[test]
    fn end_of_written_log_lets_the_rest_through() {
        let mut log = LogWriter::new(15, MIB, 0);
        log.record(21, 0, 5, &OTHER.to_le_bytes());
        log.bytes.resize(3 * MIB as usize, 0);
        let (bytes, counts) = filtered(&log, only(&[]), 8192);
        assert_eq!((bytes.len(), counts.neutralised), (log.bytes.len(), 1));
        // A record whose end never comes stays.
        let (cut, _) = filtered(&log, Databases::All, 8192);
        assert!(cut == log.bytes);
    }

    const FIXTURES: [(u16, &[u8], &str); 4] = [
        (
            15,
            include_bytes!("fixtures/wal_15.bin"),
            include_str!("fixtures/wal_15.txt"),
        ),
        (
            16,
            include_bytes!("fixtures/wal_16.bin"),
            include_str!("fixtures/wal_16.txt"),
        ),
        (
            17,
            include_bytes!("fixtures/wal_17.bin"),
            include_str!("fixtures/wal_17.txt"),
        ),
        (
            18,
            include_bytes!("fixtures/wal_18.bin"),
            include_str!("fixtures/wal_18.txt"),
        ),
    ];

    /// Real log of a server with `wal_level = logical` and compressed images: the fixtures' changes are in
    /// database 5, and in one that is renamed and dropped.
    #[test]
    fn filtered_log_of_real_servers_has_what_stays_in_its_place() {
        for (major, bytes, text) in FIXTURES {
            let position = |name: &str| -> Lsn {
                let prefix = format!("# {name} ");
                let line = text.lines().find_map(|line| line.strip_prefix(&prefix));
                line.and_then(|text| text.parse().ok()).expect("a position")
            };
            let (page, start) = (position("page"), position("start"));
            let version = MajorVersion::try_from(major).expect("a supported version");
            let size = SegmentSize::try_from(MIB).expect("a segment size");
            let decoder = || WalDecoder::searching(version, size, start);
            let before = decode(&mut decoder(), page, bytes);
            for (kept, fewest) in [(vec![5], 0), (vec![], 200)] {
                let wal_filter = WalFilter::new(decoder(), size, only(&kept));
                let (out, counts) = filter(wal_filter, page, bytes, 3001).expect("sound log");
                let after = decode(&mut decoder(), page, &out);
                assert_eq!(counts.unsure, 0);
                assert!(counts.neutralised >= fewest, "{counts:?} of {major}");
                assert_eq!(taken_out(&before, &after), counts.neutralised);
            }
        }
    }

    proptest! {
        #[test]
        fn what_stays_stays_in_its_place_whatever_lies_between(
            sizes in prop::collection::vec((0_usize..3, 0_usize..400, 0_usize..40), 1..600),
            page in 0_u64..200, cut in 500_usize..70_000,
        ) {
            let mut log = LogWriter::new(16, MIB, page * 8192);
            let mut kept = 0;
            for (which, small, large) in sizes {
                let database = if which == 0 { KEPT } else { OTHER };
                kept += u64::from(which == 0);
                let mut main = database.to_le_bytes().to_vec();
                main.resize(4 + if large == 0 { small * 100 } else { small }, 7);
                log.record(21, 0, 5 + which as u32, &main);
            }
            let before = records(&log, &log.bytes);
            let (bytes, counts) = filtered(&log, only(&[KEPT]), cut);
            let after = records(&log, &bytes);
            prop_assert_eq!(counts.neutralised, before.len() as u64 - kept);
            prop_assert_eq!(taken_out(&before, &after), counts.neutralised);
        }

        #[test]
        fn damaged_log_is_refused_or_filtered_without_panic(
            at in 0_usize..100_000, byte: u8, cut in 1_usize..20_000, which in 0_usize..4,
        ) {
            let (major, bytes, _) = FIXTURES[which];
            let mut bytes = bytes.to_vec();
            let at = at % bytes.len();
            bytes[at] = byte;
            let version = MajorVersion::try_from(major).expect("a supported version");
            let size = SegmentSize::try_from(MIB).expect("a segment size");
            let start = Lsn::new(u64::from(MIB) * 3);
            let wal_filter = WalFilter::new(WalDecoder::searching(version, size, start), size, only(&[]));
            if let Ok((out, _)) = filter(wal_filter, start, &bytes, cut) {
                prop_assert_eq!(out.len(), bytes.len());
            }
        }
    }
}
