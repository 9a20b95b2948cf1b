//! Summaries say what log changes, and merge and store without loss.
#![expect(clippy::cast_possible_truncation, reason = "test lengths are small")]

#[cfg(test)]
#[allow(dead_code, reason = "shared by several test files")]
mod log_writer;

#[cfg(test)]
mod tests {
    use everpoint_pgformat::{
        BlockNumber, Lsn, MajorVersion, PgTimestamp, TimelineId, TransactionId,
        relation::{Fork, RelationId},
        wal::{
            decoder::{Next, WalDecoder},
            transaction::EndKind,
        },
        wal_summary::{
            Coverage, SummaryBuilder, SummaryError, WalSummary,
            activity::MAX_TOUCHED_RELATIONS,
            change_map::{EverythingChanged, ForkVerdict, MAX_CHANGE_MAP_MEMORY},
            format::SummaryFormatError,
            relation_events::{MAX_RELATION_EVENTS, RelationChange},
            transactions::MAX_OPEN_TRANSACTIONS,
        },
    };
    use proptest::prelude::*;

    use super::log_writer::{Block, LogWriter, Place, body};

    const RELATION: [u32; 3] = [1663, 5, 16_400];

    fn bytes(numbers: &[u32]) -> Vec<u8> {
        numbers
            .iter()
            .flat_map(|number| number.to_le_bytes())
            .collect()
    }

    fn id([tablespace, database, relfilenode]: [u32; 3]) -> RelationId {
        RelationId {
            tablespace: tablespace.into(),
            database: database.into(),
            relfilenode: relfilenode.into(),
        }
    }

    fn log(major: u16) -> LogWriter {
        LogWriter::new(major, 1 << 20, 0x10_0000)
    }

    /// Everything `log` holds from `start` to `end`, as one summary.
    fn stretch(log: &LogWriter, start: Lsn, end: Lsn) -> WalSummary {
        let mut decoder = WalDecoder::new(log.version, log.segment_size, start);
        let mut builder = SummaryBuilder::new(log.version, TimelineId::FIRST, start);
        let from = start.bytes_since(log.start) as usize;
        let to = end.bytes_since(log.start) as usize;
        let mut chunk = decoder.feed(start, &log.bytes[from..to]);
        while let Next::Record(record) = chunk.next().expect("sound log") {
            builder.add(&record).expect("sound record");
        }
        builder.cut()
    }

    /// What follows a summary up to `end`, by a builder that knows no more than that summary.
    fn following(log: &LogWriter, before: &WalSummary, end: Lsn) -> WalSummary {
        let mut decoder = WalDecoder::new(log.version, log.segment_size, before.end);
        let mut builder = SummaryBuilder::following(before);
        let from = before.end.bytes_since(log.start) as usize;
        let to = end.bytes_since(log.start) as usize;
        let mut chunk = decoder.feed(before.end, &log.bytes[from..to]);
        while let Next::Record(record) = chunk.next().expect("sound log") {
            builder.add(&record).expect("sound record");
        }
        builder.cut()
    }

    /// The end of the first record that ends behind a position.
    fn boundary_behind(log: &LogWriter, position: Lsn) -> Lsn {
        let mut decoder = WalDecoder::new(log.version, log.segment_size, log.start);
        let mut chunk = decoder.feed(log.start, &log.bytes);
        while let Next::Record(record) = chunk.next().expect("sound log") {
            if record.end() > position {
                return record.end();
            }
        }
        panic!("no record ends behind {position}")
    }

    fn summary(log: &LogWriter) -> WalSummary {
        stretch(log, log.start, log.position())
    }

    fn touch(log: &mut LogWriter, relation: [u32; 3], block: u32) {
        log.raw_record(
            10,
            0,
            700,
            &body(&[Block::new(relation, block)], &[1, 0, 0]),
        );
    }

    fn commit(log: &mut LogWriter, transaction: u32, time: i64) {
        log.record(1, 0, transaction, &time.to_le_bytes());
    }

    fn prepare(log: &mut LogWriter, transaction: u32, time: i64) -> Place {
        let mut main = bytes(&[0x57F9_4534, 88, transaction, 5]);
        main.extend(time.to_le_bytes());
        main.extend(bytes(&[10, 0, 0, 0, 0, 0, 0]));
        main.extend([0, 0]);
        main.extend(4_u16.to_le_bytes());
        main.resize(72, 0);
        main.extend(b"gid\0\0\0\0\0");
        log.record(1, 0x10, transaction, &main)
    }

    fn checkpoint(log: &mut LogWriter, redo: u64, full_pages: bool) {
        let mut main = redo.to_le_bytes().to_vec();
        main.extend(bytes(&[1, 1, u32::from(full_pages)]));
        main.resize(88, 0);
        log.record(0, 0x10, 0, &main);
    }

    /// A commit or an abort with children and dropped relations.
    fn end(
        log: &mut LogWriter,
        info: u8,
        transaction: u32,
        children: &[u32],
        dropped: &[[u32; 3]],
    ) {
        let mut main = 5_i64.to_le_bytes().to_vec();
        main.extend(bytes(&[0b110, children.len() as u32]));
        main.extend(bytes(children));
        main.extend(bytes(&[dropped.len() as u32]));
        main.extend(bytes(dropped.as_flattened()));
        log.record(1, info | 0x80, transaction, &main);
    }

    fn runs(summary: &WalSummary, relation: [u32; 3]) -> Vec<(u32, u32)> {
        match summary.changes.fork(id(relation), Fork::Main) {
            ForkVerdict::Blocks(changes) => changes
                .blocks()
                .runs()
                .map(|run| (run.start.get(), run.count))
                .collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_block_reference_counts_but_those_to_free_space_maps() {
        let mut log = log(15);
        let blocks = [
            Block::new(RELATION, 3),
            Block::new(RELATION, 4).numbered(1).with_image(&[0; 8192]),
            Block::new(RELATION, 9).numbered(2).of_fork(1),
            Block::new(RELATION, 0).numbered(3).of_fork(3),
        ];
        log.raw_record(200, 0, 0, &body(&blocks, b"custom"));
        log.record(200, 0, 0, b"custom");
        let summary = summary(&log);
        assert_eq!(runs(&summary, RELATION), [(3, 2)]);
        let fork = |fork| summary.changes.fork(id(RELATION), fork);
        assert!(matches!(fork(Fork::Init), ForkVerdict::Blocks(_)));
        assert_eq!(
            (summary.custom.records, summary.custom.without_blocks),
            (2, 1)
        );
        assert_eq!(summary.changes.forks().len(), 2);
        // Neither map can be told from the log.
        assert_eq!(fork(Fork::FreeSpaceMap), ForkVerdict::Whole);
        assert_eq!(fork(Fork::VisibilityMap), ForkVerdict::Whole);
        let other = summary.changes.fork(id([1663, 5, 1]), Fork::Main);
        assert_eq!(other, ForkVerdict::Unchanged);
    }

    #[test]
    fn truncation_forgets_blocks_it_cut_and_sets_a_limit() {
        let mut log = log(15);
        for block in [1, 5, 9] {
            touch(&mut log, RELATION, block);
        }
        log.record(2, 0x20, 0, &bytes(&[5, 1663, 5, 16_400, 7]));
        touch(&mut log, RELATION, 7);
        let summary = summary(&log);
        let ForkVerdict::Blocks(changes) = summary.changes.fork(id(RELATION), Fork::Main) else {
            panic!()
        };
        assert_eq!(changes.limit(), Some(BlockNumber::new(5)));
        let changed: Vec<u32> = (0..10)
            .filter(|block| changes.is_changed(BlockNumber::new(*block)))
            .collect();
        assert_eq!(changed, [1, 5, 6, 7, 8, 9]);
        assert_eq!(runs(&summary, RELATION), [(1, 1), (7, 1)]);
        let [event] = summary.relations.events() else {
            panic!()
        };
        assert_eq!(event.change, RelationChange::Truncated(BlockNumber::new(5)));
    }

    #[test]
    fn created_and_dropped_relations_are_copied_whole_if_their_number_is_used_again() {
        let other = [1663, 5, 16_500];
        let prepared = [1663, 5, 16_600];
        let mut log = log(15);
        touch(&mut log, RELATION, 3);
        log.record(2, 0x10, 0, &bytes(&[1663, 5, 16_500, 0]));
        touch(&mut log, other, 0);
        end(&mut log, 0, 700, &[], &[RELATION]);
        end(&mut log, 0x40, 0, &[], &[prepared]);
        let summary = summary(&log);
        for relation in [RELATION, other, prepared] {
            let verdict = summary.changes.fork(id(relation), Fork::Main);
            assert_eq!(verdict, ForkVerdict::Whole, "{relation:?}");
        }
        // What an abort removes was never there for anyone else.
        let dropped: Vec<_> = summary
            .relations
            .events()
            .iter()
            .map(|event| event.relation)
            .collect();
        assert_eq!(dropped, [id(RELATION)]);
    }

    #[test]
    fn databases_made_and_dropped_are_copied_whole() {
        let mut log = log(15);
        touch(&mut log, RELATION, 3);
        touch(&mut log, [1700, 5, 1], 3);
        log.record(4, 0x10, 0, &bytes(&[20, 1663]));
        touch(&mut log, [1663, 20, 16_400], 0);
        log.record(4, 0x20, 0, &bytes(&[5, 1, 1663]));
        log.record(4, 0x00, 0, &bytes(&[21, 1700, 1, 1663]));
        let summary = summary(&log);
        let directories: Vec<_> = summary
            .changes
            .directories()
            .map(|directory| (directory.tablespace.get(), directory.database.get()))
            .collect();
        assert_eq!(directories, [(1663, 5), (1663, 20), (1700, 21)]);
        assert_eq!(
            summary.changes.fork(id(RELATION), Fork::Main),
            ForkVerdict::Whole
        );
        assert_eq!(runs(&summary, [1700, 5, 1]), [(3, 1)]);
        assert_eq!(summary.changes.forks().len(), 1);
    }

    #[test]
    fn minimal_log_means_that_everything_changed() {
        for (major, info, main) in [
            (15, 0x60, bytes(&[100, 8, 0, 0, 64, 0, 0])),
            (17, 0xE0, bytes(&[0])),
            (
                18,
                0x90,
                [5_u32, 0, 1, 1, 0]
                    .map(u32::to_le_bytes)
                    .as_flattened()
                    .to_vec(),
            ),
        ] {
            let mut log = log(major);
            touch(&mut log, RELATION, 3);
            let at = log.record(0, info, 0, &main).start;
            touch(&mut log, RELATION, 4);
            let summary = summary(&log);
            let why = Some(EverythingChanged::MinimalLog(at));
            assert_eq!(summary.changes.everything(), why);
            let untouched = summary.changes.fork(id([1663, 5, 1]), Fork::Main);
            assert_eq!(untouched, ForkVerdict::Whole);
            assert_eq!(WalSummary::decode(&summary.encode()), Ok(summary));
        }
    }

    #[test]
    fn times_lead_to_the_record_before_the_first_later_end() {
        let mut log = log(15);
        commit(&mut log, 700, 10);
        let before = log.record(10, 0x60, 701, &[0; 8]);
        let late = log.record(1, 0x20, 701, &30_i64.to_le_bytes());
        commit(&mut log, 702, 20);
        let mut point = 40_i64.to_le_bytes().to_vec();
        point.extend(b"named");
        point.resize(72, 0);
        let named = log.record(0, 0x70, 0, &point);
        let summary = summary(&log);
        let times = &summary.times;
        let found = times
            .first_later_than(PgTimestamp::from_raw(10), log.start)
            .expect("an end");
        assert_eq!(
            (found.before, found.start, found.end),
            (before.start, late.start, late.end)
        );
        assert_eq!((found.kind, found.transaction.get()), (EndKind::Abort, 701));
        assert_eq!(
            times.first_later_than(PgTimestamp::from_raw(30), log.start),
            None
        );
        assert_eq!(
            times.largest_step_back().map(|step| step.microseconds()),
            Some(10)
        );
        let [point] = times.restore_points() else {
            panic!()
        };
        assert_eq!((point.start, &point.name[..]), (named.start, &b"named"[..]));
        let ended = times
            .end_of(TransactionId::new(702), log.start)
            .expect("its end");
        assert!(ended.kind.is_commit());
        assert_eq!(times.coverage(), Coverage::Whole);
    }

    #[test]
    fn preparations_and_the_last_record_are_told() {
        let mut log = log(15);
        commit(&mut log, 700, 10);
        let prepared = prepare(&mut log, 701, 20);
        let middle = log.position();
        let second = prepare(&mut log, 702, 15);
        let last = log.record(10, 0x60, 703, &[0; 8]);
        let whole = summary(&log);
        let marks: Vec<_> = whole
            .times
            .prepared()
            .iter()
            .map(|mark| {
                (
                    mark.transaction.get(),
                    mark.time.raw(),
                    mark.start,
                    mark.end,
                )
            })
            .collect();
        assert_eq!(
            marks,
            [
                (701, 20, prepared.start, prepared.end),
                (702, 15, second.start, second.end)
            ]
        );
        assert_eq!(whole.last, last.start);
        // They do not stop PostgreSQL.
        assert_eq!(whole.times.transactions().len(), 1);
        let mut merged = stretch(&log, log.start, middle);
        assert_eq!(merged.last, prepared.start);
        merged
            .absorb(stretch(&log, middle, log.position()))
            .expect("consecutive");
        assert_eq!(merged, whole);
        assert_eq!(WalSummary::decode(&merged.encode()), Ok(whole));
    }

    #[test]
    fn last_checkpoint_that_logged_full_pages_is_handed_on() {
        let mut log = log(15);
        checkpoint(&mut log, 0x0FFF_0028, true);
        let first = summary(&log);
        assert_eq!(first.carried.redo, Some(Lsn::new(0x0FFF_0028)));
        checkpoint(&mut log, 0x0FFF_0060, true);
        checkpoint(&mut log, 0x0FFF_0090, false);
        let second = following(&log, &first, log.position());
        assert_eq!(second.carried.redo, Some(Lsn::new(0x0FFF_0060)));
        touch(&mut log, RELATION, 0);
        let third = following(&log, &second, log.position());
        assert_eq!(third.carried, second.carried);
    }

    #[test]
    fn large_transactions_count_their_childrens_blocks() {
        let mut log = log(15);
        for block in 0..6_000 {
            for (transaction, relation) in [(700, 1), (701, 2), (800, 3)] {
                let block = Block::new([1663, 5, relation], block);
                log.raw_record(10, 0, transaction, &body(&[block], &[1, 0, 0]));
            }
        }
        end(&mut log, 0, 800, &[], &[]);
        end(&mut log, 0, 700, &[701], &[]);
        let summary = summary(&log);
        let [large] = summary.transactions.ended() else {
            panic!()
        };
        let activity = &large.activity;
        assert_eq!((large.transaction.get(), activity.blocks), (700, 12_000));
        assert!(large.is_large() && activity.first < large.ended);
        // Rows were inserted, and all that is under way is handed over.
        let touched: Vec<_> = activity
            .touched
            .iter()
            .map(|touched| (touched.relation.relfilenode.get(), touched.rows.inserted))
            .collect();
        assert_eq!(touched, [(1, 6_000), (2, 6_000)]);
        assert_eq!(summary.transactions.unfinished(), []);
        let middle = Lsn::new(activity.first.get() + 100_000);
        let boundary = boundary_behind(&log, middle);
        let first = stretch(&log, log.start, boundary);
        assert_eq!(first.transactions.unfinished().len(), 3);
        let first = WalSummary::decode(&first.encode()).expect("a summary");
        let second = following(&log, &first, log.position());
        assert_eq!(second.transactions, summary.transactions);
    }

    #[test]
    fn memory_is_bounded_whatever_transactions_do() {
        let mut log = log(15);
        let insert = |log: &mut LogWriter, transaction: u32, relation: u32| {
            let block = Block::new([1663, 5, relation], 0);
            log.raw_record(10, 0, transaction, &body(&[block], &[1, 0, 0]));
        };
        // A hundred thousand transactions under way, and one that touches as many relations.
        for number in 0..100_000 {
            insert(&mut log, 1_000 + number, 20_000);
        }
        for number in 0..100_000 {
            insert(&mut log, 700, 30_000 + number);
        }
        commit(&mut log, 700, 1);
        // One that drops more than a million.
        let dropped: Vec<[u32; 3]> = (0..MAX_RELATION_EVENTS as u32 + 10)
            .map(|number| [1663, 6, 20_000 + number])
            .collect();
        end(&mut log, 0, 701, &[], &dropped);
        let summary = summary(&log);
        assert!(summary.transactions.unfinished().len() <= MAX_OPEN_TRANSACTIONS);
        let [large, _] = summary.transactions.ended() else {
            panic!()
        };
        assert!(large.is_large());
        assert_eq!(large.activity.touched.len(), MAX_TOUCHED_RELATIONS);
        let listed: u64 = large
            .activity
            .touched
            .iter()
            .map(|touched| touched.blocks)
            .sum();
        assert_eq!(listed + large.activity.other_blocks, 100_000);
        assert_eq!(summary.relations.events().len(), MAX_RELATION_EVENTS);
        assert_eq!(summary.relations.coverage(), Coverage::Partial);
        assert!(summary.changes.memory() <= MAX_CHANGE_MAP_MEMORY);
    }

    #[test]
    fn records_out_of_order_are_refused() {
        let mut log = log(15);
        commit(&mut log, 1, 1);
        let later = log.position();
        let mut decoder = WalDecoder::new(log.version, log.segment_size, log.start);
        let mut chunk = decoder.feed(log.start, &log.bytes);
        let Ok(Next::Record(record)) = chunk.next() else {
            panic!()
        };
        let mut builder = SummaryBuilder::new(log.version, TimelineId::FIRST, later);
        assert!(matches!(
            builder.add(&record),
            Err(SummaryError::OutOfOrder { .. })
        ));
    }

    #[test]
    fn only_consecutive_summaries_merge() {
        let mut log = log(15);
        commit(&mut log, 1, 1);
        let middle = log.position();
        commit(&mut log, 2, 2);
        let whole = summary(&log);
        let first = stretch(&log, log.start, middle);
        let second = stretch(&log, middle, log.position());
        let mut merged = first.clone();
        assert_eq!(merged.absorb(second.clone()), Ok(()));
        assert_eq!(merged, whole);
        assert!(second.clone().absorb(first.clone()).is_err());
        assert!(first.clone().absorb(first.clone()).is_err());
        let mut other_version = second;
        other_version.version = MajorVersion::try_from(18).expect("18");
        assert!(first.clone().absorb(other_version).is_err());
    }

    #[test]
    fn stored_form_survives_a_round_trip_and_damage_is_refused() {
        let stored = summary(&rich_log()).encode();
        let read = WalSummary::decode(&stored).expect("a summary");
        assert_eq!(read, summary(&rich_log()));
        assert!(read.unread.databases.is_some() && read.unread.relations.is_some());
        assert_eq!(read.carried.moved.len(), 1);
        assert!(read.carried.redo.is_some());
        assert_eq!(read.encode(), stored);
        for len in 0..stored.len() {
            assert!(WalSummary::decode(&stored[..len]).is_err(), "cut to {len}");
        }
        for at in 0..stored.len() {
            let mut damaged = stored.clone();
            damaged[at] ^= 1;
            assert!(WalSummary::decode(&damaged).is_err(), "damaged at {at}");
        }
        let mut newer = stored.clone();
        newer[4] = 2;
        assert_eq!(
            WalSummary::decode(&newer),
            Err(SummaryFormatError::UnknownVersion { found: 2 })
        );
        let mut longer = stored[..stored.len() - 4].to_vec();
        longer.push(0);
        seal(&mut longer);
        let left_over = SummaryFormatError::Malformed { part: "end" };
        assert_eq!(WalSummary::decode(&longer), Err(left_over));
    }

    /// Log in which there is some of everything.
    fn rich_log() -> LogWriter {
        let mut log = log(15);
        for block in [0, 1, 2, 7, 70_000, 70_001] {
            touch(&mut log, RELATION, block);
        }
        log.record(2, 0x20, 0, &bytes(&[5, 1663, 5, 16_401, 7]));
        log.record(4, 0x10, 0, &bytes(&[20, 1663]));
        log.record(4, 0x00, 9, &bytes(&[21, 1700, 1, 1663]));
        log.record(4, 0x00, 9, &bytes(&[21, 1701, 21, 1700]));
        log.record(4, 0x20, 0, &bytes(&[21, 2, 1700, 1701]));
        end(&mut log, 0, 700, &[701], &[[1663, 5, 16_402]]);
        commit(&mut log, 702, -5);
        prepare(&mut log, 703, 50);
        checkpoint(&mut log, 0x10_0028, true);
        // A catalog that is rewritten, and changes of rows that the log does not show.
        log.record(
            7,
            0x00,
            704,
            &bytes(&[5, 1663, 16, 0x0059_2717, 1, 1259, 20_000]),
        );
        let main = [704_u32.to_le_bytes(), [7, 0, 0, 0]].concat();
        for relation in [[1664, 0, 1262], [1663, 5, 1259]] {
            log.raw_record(10, 0x10, 704, &body(&[Block::new(relation, 0)], &main));
        }
        let mut point = 40_i64.to_le_bytes().to_vec();
        point.extend(b"named");
        point.resize(72, 0);
        log.record(0, 0x70, 0, &point);
        for block in 0..10_000 {
            let block = Block::new([1663, 6, 1], block % 10);
            log.raw_record(10, 0, 900, &body(&[block], &[1, 0, 0]));
        }
        commit(&mut log, 900, 100);
        log
    }

    /// Appends the checksum.
    fn seal(stored: &mut Vec<u8>) {
        let crc = everpoint_pgformat::wal::crc32c(stored);
        stored.extend(crc.to_le_bytes());
    }

    /// What happens to a relation's file.
    #[derive(Clone, Debug)]
    enum Step {
        Write { relation: u32, block: u32 },
        Truncate { relation: u32, blocks: u32 },
        DropAndCreate { relation: u32 },
        ReplaceDatabase { database: u32 },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (0_u32..4, 0_u32..12).prop_map(|(relation, block)| Step::Write { relation, block }),
            2 => (0_u32..4, 0_u32..12).prop_map(|(relation, blocks)| Step::Truncate { relation, blocks }),
            1 => (0_u32..4).prop_map(|relation| Step::DropAndCreate { relation }),
            1 => (0_u32..2).prop_map(|database| Step::ReplaceDatabase { database }),
        ]
    }

    /// Relations 0 and 1 are in database 100, 2 and 3 in 101.
    fn place(relation: u32) -> [u32; 3] {
        [1663, 100 + relation / 2, 16_400 + relation]
    }

    type Files = std::collections::BTreeMap<u32, Vec<u64>>;

    /// Does a step to files whose blocks are the positions of the records that wrote them, and logs it.
    fn act(step: &Step, files: &mut Files, log: &mut LogWriter) {
        match *step {
            Step::Write { relation, block } => {
                touch(log, place(relation), block);
                let file = files.entry(relation).or_default();
                if file.len() <= block as usize {
                    // Replay fills the blocks in between with zeros; a server logs each of them.
                    for between in file.len() as u32..block {
                        touch(log, place(relation), between);
                    }
                    file.resize(block as usize + 1, log.position().get());
                }
                file[block as usize] = log.position().get();
            }
            Step::Truncate { relation, blocks } => {
                let [tablespace, database, relfilenode] = place(relation);
                let main = bytes(&[blocks, tablespace, database, relfilenode, 7]);
                log.record(2, 0x20, 0, &main);
                if let Some(file) = files.get_mut(&relation) {
                    file.truncate(blocks as usize);
                }
            }
            Step::DropAndCreate { relation } => {
                end(log, 0, 700, &[], &[place(relation)]);
                let [tablespace, database, relfilenode] = place(relation);
                log.record(2, 0x10, 0, &bytes(&[tablespace, database, relfilenode, 0]));
                files.insert(relation, Vec::new());
            }
            Step::ReplaceDatabase { database } => {
                log.record(4, 0x20, 0, &bytes(&[100 + database, 1, 1663]));
                log.record(4, 0x00, 0, &bytes(&[100 + database, 1663, 1, 1663]));
                for relation in [database * 2, database * 2 + 1] {
                    // The copy's contents are not in the log.
                    files.insert(relation, vec![log.position().get(); 3]);
                }
            }
        }
    }

    /// The new file put together from the old one and what must be copied.
    fn restored(summary: &WalSummary, relation: u32, old: &[u64], new: &[u64]) -> Vec<u64> {
        let verdict = summary.changes.fork(id(place(relation)), Fork::Main);
        (0..new.len())
            .map(|block| match verdict {
                ForkVerdict::Whole => new[block],
                ForkVerdict::Unchanged => old.get(block).copied().unwrap_or(new[block]),
                ForkVerdict::Blocks(changes) => match old.get(block) {
                    Some(old) if !changes.is_changed(BlockNumber::new(block as u32)) => *old,
                    _ => new[block],
                },
            })
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn old_files_and_changed_blocks_make_the_new_files(
            before in prop::collection::vec(step(), 0..30),
            steps in prop::collection::vec(step(), 0..60),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut log = log(15);
            let mut files = Files::new();
            for step in &before {
                act(step, &mut files, &mut log);
            }
            let old = files.clone();
            let start = log.position();
            let cut = cut.index(steps.len() + 1);
            let mut middle = start;
            for (index, step) in steps.iter().enumerate() {
                if index == cut {
                    middle = log.position();
                }
                act(step, &mut files, &mut log);
            }
            if cut == steps.len() {
                middle = log.position();
            }
            let whole = stretch(&log, start, log.position());
            let mut merged = stretch(&log, start, middle);
            let mut second = stretch(&log, middle, log.position());
            second.start = merged.end;
            merged.absorb(second).expect("consecutive");
            let stored = WalSummary::decode(&merged.encode()).expect("a summary");
            for summary in [&whole, &merged, &stored] {
                for (relation, new) in &files {
                    let old = old.get(relation).map(Vec::as_slice).unwrap_or_default();
                    prop_assert_eq!(&restored(summary, *relation, old, new), new);
                }
            }
            prop_assert_eq!(&whole.changes, &merged.changes);
            prop_assert_eq!(&stored, &merged);
        }

        #[test]
        fn any_stored_body_is_read_or_refused_without_panic(
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        ) {
            let stored = summary(&rich_log()).encode();
            let mut body = stored[..stored.len() - 4].to_vec();
            for (index, value) in damage {
                let at = 6 + index.index(body.len() - 6);
                body[at] = value;
            }
            seal(&mut body);
            if let Ok(read) = WalSummary::decode(&body) {
                prop_assert_eq!(WalSummary::decode(&read.encode()), Ok(read));
            }
        }
    }
}
