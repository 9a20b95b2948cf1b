//! Databases that were made, renamed, moved and dropped are told from the log, and how to have one back.
#![expect(clippy::cast_possible_truncation, reason = "test lengths are small")]

#[cfg(test)]
#[allow(dead_code, reason = "shared by several test files")]
mod log_writer;

#[cfg(test)]
mod tests {
    use everpoint_pgformat::{
        Lsn, Oid, TimelineId,
        wal::decoder::{Next, WalDecoder},
        wal_summary::{
            SummaryBuilder, WalSummary,
            carried::Carried,
            database_events::{DatabaseChange, DropSign},
        },
    };

    use super::log_writer::{Block, LogWriter, Place, body};

    const CATALOG: u32 = 1262;
    const DATABASE: u32 = 16_400;

    fn bytes(numbers: &[u32]) -> Vec<u8> {
        numbers
            .iter()
            .flat_map(|number| number.to_le_bytes())
            .collect()
    }

    /// A row of `pg_database`, with something of variable length behind its fixed columns.
    fn row(database: u32, name: &str, connections: i32) -> Vec<u8> {
        let mut row = bytes(&[database]);
        row.extend(name.as_bytes());
        row.resize(80, 0);
        row.extend(connections.to_le_bytes());
        row.extend(bytes(&[700, 1, 1663]));
        row.extend(b"\x05C\x05C\x0Faccess list");
        row
    }

    /// A row as insert and update log it: header, bitmap and padding, contents.
    fn logged(row: &[u8]) -> Vec<u8> {
        let mut data = vec![14, 0, 3, 9, 32];
        data.extend([0xFF; 9]);
        data.extend(row);
        data
    }

    /// A page with these rows in its line pointers from 1 on.
    fn page(rows: &[Vec<u8>]) -> Vec<u8> {
        let mut page = vec![0; 8192];
        let lower = 24 + rows.len() * 4;
        page[12..14].copy_from_slice(&(lower as u16).to_le_bytes());
        let mut upper = 8192;
        for (index, row) in rows.iter().enumerate() {
            let len = row.len() + 32;
            upper -= len.next_multiple_of(8);
            page[upper + 22] = 32;
            page[upper + 32..upper + len].copy_from_slice(row);
            let pointer = upper as u32 | 1 << 15 | (len as u32) << 17;
            page[24 + index * 4..28 + index * 4].copy_from_slice(&pointer.to_le_bytes());
        }
        page
    }

    struct Catalog {
        log: LogWriter,
        relfilenode: u32,
    }

    impl Catalog {
        fn new() -> Self {
            Self {
                log: LogWriter::new(15, 1 << 20, 0x10_0000),
                relfilenode: CATALOG,
            }
        }

        fn block(&self) -> Block {
            Block::new([1664, 0, self.relfilenode], 0)
        }

        fn heap(&mut self, info: u8, transaction: u32, block: Block, main: &[u8]) -> Place {
            self.log
                .raw_record(10, info, transaction, &body(&[block], main))
        }

        fn insert(&mut self, transaction: u32, place: u16, row: &[u8]) -> Place {
            let [low, high] = place.to_le_bytes();
            let block = self.block().with_data(&logged(row));
            self.heap(0x00, transaction, block, &[low, high, 0])
        }

        fn delete(&mut self, transaction: u32, place: u16) -> Place {
            let mut main = bytes(&[transaction]);
            main.extend(place.to_le_bytes());
            main.extend([0, 0]);
            let block = self.block();
            self.heap(0x10, transaction, block, &main)
        }

        /// An update; `prefix` and `suffix` bytes are those of the old row.
        fn update(&mut self, transaction: u32, places: (u16, u16), row: &[u8], shared: (u16, u16)) {
            let (prefix, suffix) = shared;
            let mut flags = 0;
            let mut data = Vec::new();
            if prefix > 0 {
                flags |= 1 << 5;
                data.extend(prefix.to_le_bytes());
            }
            if suffix > 0 {
                flags |= 1 << 6;
                data.extend(suffix.to_le_bytes());
            }
            data.extend(logged(
                &row[usize::from(prefix)..row.len() - usize::from(suffix)],
            ));
            let mut main = bytes(&[transaction]);
            main.extend(places.0.to_le_bytes());
            main.extend([0, flags]);
            main.extend(bytes(&[0]));
            main.extend(places.1.to_le_bytes());
            let block = self.block().with_data(&data);
            self.heap(0x40, transaction, block, &main);
        }

        fn overwrite(&mut self, place: u16, row: &[u8]) -> Place {
            let block = self.block().with_data(row);
            self.heap(0x70, 0, block, &place.to_le_bytes())
        }

        fn remove_files(&mut self, transaction: u32, database: u32) -> Place {
            let main = bytes(&[database, 1, 1663]);
            self.log.record(4, 0x20, transaction, &main)
        }

        fn commit(&mut self, transaction: u32, children: &[u32]) {
            let mut main = 5_i64.to_le_bytes().to_vec();
            main.extend(bytes(&[0b10, children.len() as u32]));
            main.extend(bytes(children));
            self.log.record(1, 0x80, transaction, &main);
        }

        fn summary(&self) -> WalSummary {
            self.stretch(self.log.start, self.log.position(), CATALOG)
        }

        fn stretch(&self, start: Lsn, end: Lsn, relfilenode: u32) -> WalSummary {
            let builder = SummaryBuilder::with_carried(
                self.log.version,
                TimelineId::FIRST,
                start,
                Carried::new(Oid::new(relfilenode)),
            );
            self.built(builder, start, end)
        }

        /// The summary that a builder makes of a stretch of log.
        fn built(&self, mut builder: SummaryBuilder, start: Lsn, end: Lsn) -> WalSummary {
            let log = &self.log;
            let mut decoder = WalDecoder::new(log.version, log.segment_size, start);
            let from = start.bytes_since(log.start) as usize;
            let to = end.bytes_since(log.start) as usize;
            let mut chunk = decoder.feed(start, &log.bytes[from..to]);
            while let Next::Record(record) = chunk.next().expect("sound log") {
                builder.add(&record).expect("sound record");
            }
            builder.cut()
        }
    }

    fn changes(summary: &WalSummary) -> Vec<DatabaseChange> {
        let events = summary.databases.events().iter();
        events.map(|event| event.change.clone()).collect()
    }

    fn renamed(from: Option<&str>, to: &str) -> DatabaseChange {
        DatabaseChange::Renamed {
            from: from.map(|name| name.as_bytes().to_vec()),
            to: to.as_bytes().to_vec(),
        }
    }

    #[test]
    fn dropped_database_can_be_had_back_from_just_before_its_mark() {
        let mut catalog = Catalog::new();
        catalog.overwrite(3, &row(DATABASE, "shop", -1));
        let mark = catalog.overwrite(3, &row(DATABASE, "shop", -2));
        catalog.delete(800, 3);
        let removed = catalog.remove_files(800, DATABASE);
        catalog.commit(800, &[]);
        let summary = catalog.summary();
        let [dropped] = &summary.databases.dropped()[..] else {
            panic!()
        };
        assert_eq!(dropped.database, Oid::new(DATABASE));
        assert_eq!(dropped.name.as_deref(), Some(&b"shop"[..]));
        assert_eq!(
            (dropped.undo, dropped.begun_by),
            (mark.start, DropSign::Mark)
        );
        assert_eq!(dropped.removed, Some(removed.start));
        assert_eq!(dropped.transaction.get(), 800);
    }

    #[test]
    fn mark_in_a_page_image_is_found_by_its_line_pointer() {
        let mut catalog = Catalog::new();
        let rows = [
            row(1, "template1", -1),
            row(DATABASE, "shop", -2),
            row(5, "postgres", -1),
        ];
        let block = catalog.block().with_image(&page(&rows));
        let mark = catalog.heap(0x70, 0, block, &2_u16.to_le_bytes());
        // Freezing another row shows the page again, and marks nothing.
        let block = catalog.block().with_image(&page(&rows));
        catalog.heap(0x70, 0, block, &3_u16.to_le_bytes());
        catalog.remove_files(800, DATABASE);
        let summary = catalog.summary();
        let [dropped] = &summary.databases.dropped()[..] else {
            panic!()
        };
        assert_eq!(
            (dropped.database.get(), dropped.undo),
            (DATABASE, mark.start)
        );
    }

    #[test]
    fn drop_begun_again_after_a_failure_is_undone_before_its_first_mark() {
        let mut catalog = Catalog::new();
        let first = catalog.overwrite(3, &row(DATABASE, "shop", -2));
        let failed = catalog.summary().databases.dropped();
        assert_eq!((failed[0].undo, failed[0].removed), (first.start, None));
        catalog.overwrite(3, &row(DATABASE, "shop", -2));
        catalog.delete(801, 3);
        catalog.remove_files(801, DATABASE);
        let dropped = catalog.summary().databases.dropped();
        assert_eq!(dropped.len(), 1);
        assert_eq!(dropped[0].undo, first.start);
        assert!(dropped[0].removed.is_some());
    }

    #[test]
    fn mark_taken_away_by_hand_is_no_drop() {
        let mut catalog = Catalog::new();
        catalog.overwrite(3, &row(DATABASE, "shop", -2));
        catalog.update(801, (3, 4), &row(DATABASE, "shop", -1), (20, 20));
        catalog.commit(801, &[]);
        let summary = catalog.summary();
        assert_eq!(changes(&summary)[1], DatabaseChange::Revalidated);
        assert_eq!(summary.databases.dropped(), []);
        let second = catalog.overwrite(4, &row(DATABASE, "shop", -2));
        assert_eq!(catalog.summary().databases.dropped()[0].undo, second.start);
    }

    #[test]
    fn drop_without_a_mark_is_undone_before_its_row_is_deleted() {
        let mut catalog = Catalog::new();
        catalog.insert(700, 3, &row(DATABASE, "shop", -1));
        // A delete that was rolled back, and the one that counts; of another row only the removal counts.
        catalog.delete(799, 3);
        let delete = catalog.delete(800, 3);
        catalog.remove_files(800, DATABASE);
        let unknown = catalog.delete(801, 9);
        catalog.remove_files(801, 17_000);
        let summary = catalog.summary();
        let [shop, other] = &summary.databases.dropped()[..] else {
            panic!()
        };
        assert_eq!(
            (shop.undo, shop.begun_by),
            (delete.start, DropSign::RowDeleted)
        );
        assert_eq!(shop.name.as_deref(), Some(&b"shop"[..]));
        assert_eq!((other.database.get(), other.undo), (17_000, unknown.start));
        assert_eq!(other.name, None);
    }

    #[test]
    fn moves_and_failed_creations_are_no_drops() {
        let mut catalog = Catalog::new();
        catalog
            .log
            .record(4, 0x00, 0, &bytes(&[DATABASE, 1700, DATABASE, 1663]));
        catalog.remove_files(0, DATABASE);
        catalog.insert(801, 5, &row(17_000, "failed", -1));
        catalog.log.record(4, 0x10, 801, &bytes(&[17_000, 1663]));
        catalog.remove_files(801, 17_000);
        let summary = catalog.summary();
        assert_eq!(summary.databases.dropped(), []);
        let moved = DatabaseChange::Moved {
            from: Oid::new(1663),
            to: Oid::new(1700),
        };
        assert_eq!(changes(&summary)[0], moved);
    }

    #[test]
    fn renames_are_told_although_the_log_leaves_out_what_rows_share() {
        let mut catalog = Catalog::new();
        catalog.insert(700, 3, &row(DATABASE, "shop", -1));
        catalog.update(701, (3, 4), &row(DATABASE, "shed", -1), (6, 40));
        catalog.update(702, (4, 5), &row(DATABASE, "shed", 10), (70, 0));
        catalog.update(703, (5, 6), &row(DATABASE, "barn", 10), (4, 30));
        // Of an old row that the log never showed, only a new one logged whole is known.
        catalog.update(704, (20, 21), &row(17_000, "whole", -1), (0, 0));
        catalog.update(705, (30, 31), &row(17_001, "part", -1), (4, 0));
        let summary = catalog.summary();
        let named = DatabaseChange::Named {
            name: b"shop".to_vec(),
        };
        let expected = [
            named,
            renamed(Some("shop"), "shed"),
            renamed(Some("shed"), "barn"),
            renamed(None, "whole"),
        ];
        assert_eq!(changes(&summary), expected);
    }

    #[test]
    fn rename_in_a_subtransaction_belongs_to_the_transaction_that_commits() {
        let mut catalog = Catalog::new();
        catalog.insert(700, 3, &row(DATABASE, "shop", -1));
        catalog.update(902, (3, 4), &row(DATABASE, "shed", -1), (6, 40));
        catalog.update(903, (4, 5), &row(DATABASE, "barn", -1), (4, 40));
        catalog.commit(900, &[901, 902]);
        let summary = catalog.summary();
        let transactions: Vec<u32> = summary
            .databases
            .events()
            .iter()
            .map(|event| event.transaction.get())
            .collect();
        assert_eq!(transactions, [700, 900, 903]);
    }

    #[test]
    fn catalog_is_followed_into_its_new_file() {
        let mut catalog = Catalog::new();
        // VACUUM FULL: a file is made, filled with images, and mapped.
        catalog
            .log
            .record(2, 0x10, 700, &bytes(&[1664, 0, 20_000, 0]));
        catalog.relfilenode = 20_000;
        let rows = [row(DATABASE, "shop", -1)];
        let block = catalog.block().with_image(&page(&rows));
        catalog.log.raw_record(0, 0xB0, 700, &body(&[block], &[]));
        let map = bytes(&[0, 1664, 16, 0x0059_2717, 1, CATALOG, 20_000]);
        catalog.log.record(7, 0x00, 700, &map);
        catalog.update(701, (1, 2), &row(DATABASE, "barn", -1), (4, 30));
        let summary = catalog.summary();
        assert_eq!(changes(&summary), [renamed(Some("shop"), "barn")]);
        assert_eq!(summary.carried.database_catalog.get(), 20_000);
    }

    #[test]
    fn drop_is_found_even_if_the_catalogs_file_was_not_known() {
        let mut catalog = Catalog::new();
        catalog.relfilenode = 20_000;
        let mark = catalog.overwrite(3, &row(DATABASE, "shop", -2));
        catalog.remove_files(800, DATABASE);
        let summary = catalog.summary();
        assert_eq!(summary.databases.dropped()[0].undo, mark.start);
        assert_eq!(summary.carried.database_catalog.get(), 20_000);
    }

    #[test]
    fn drop_cut_in_two_is_found_in_the_merged_summary_and_the_stored_one() {
        let mut catalog = Catalog::new();
        let mark = catalog.overwrite(3, &row(DATABASE, "shop", -2));
        let middle = catalog.log.position();
        catalog.delete(800, 3);
        catalog.remove_files(800, DATABASE);
        let mut merged = catalog.stretch(catalog.log.start, middle, CATALOG);
        let second = catalog.stretch(middle, catalog.log.position(), CATALOG);
        // The second half alone knows of a deleted row, whose database the removal tells.
        assert_eq!(second.databases.dropped()[0].begun_by, DropSign::RowDeleted);
        assert_eq!(merged.absorb(second), Ok(()));
        let stored = WalSummary::decode(&merged.encode()).expect("a summary");
        for summary in [merged, stored] {
            let [dropped] = &summary.databases.dropped()[..] else {
                panic!()
            };
            assert_eq!(
                (dropped.undo, dropped.begun_by),
                (mark.start, DropSign::Mark)
            );
        }
    }
    #[test]
    fn change_of_a_row_that_the_log_does_not_show_is_said_to_be_unread() {
        let mut catalog = Catalog::new();
        catalog.insert(700, 3, &row(DATABASE, "shop", -1));
        catalog.update(701, (3, 4), &row(DATABASE, "shed", -1), (6, 40));
        let middle = catalog.log.position();
        catalog.update(702, (4, 5), &row(DATABASE, "barn", -1), (4, 40));
        let whole = catalog.summary();
        assert_eq!(whole.unread.databases, None);
        assert_eq!(changes(&whole)[2], renamed(Some("shed"), "barn"));
        let second = catalog.stretch(middle, catalog.log.position(), CATALOG);
        assert_eq!(changes(&second), []);
        assert_eq!(second.unread.databases, Some(second.last));
        // A builder that is given the log before as well knows the row.
        let first = catalog.stretch(catalog.log.start, middle, CATALOG);
        let mut builder = SummaryBuilder::following(&first);
        builder = SummaryBuilder::with_carried(
            first.version,
            first.timeline,
            catalog.log.start,
            builder.cut().carried,
        );
        let log = &catalog.log;
        let mut decoder = WalDecoder::new(log.version, log.segment_size, log.start);
        let mut chunk = decoder.feed(log.start, &log.bytes);
        while let Next::Record(record) = chunk.next().expect("sound log") {
            if record.start() == middle {
                builder.begin(TimelineId::FIRST, middle);
                builder.take_over(first.transactions.unfinished());
            }
            builder.add(&record).expect("sound record");
        }
        let warmed = builder.cut();
        assert_eq!((warmed.start, warmed.end), (middle, catalog.log.position()));
        assert_eq!(changes(&warmed), [renamed(Some("shed"), "barn")]);
        assert_eq!(warmed.unread.databases, None);
        let mut merged = first;
        merged.absorb(warmed).expect("consecutive");
        assert_eq!(merged, whole);
    }

    #[test]
    fn rename_in_a_subtransaction_is_assigned_although_summaries_end_in_between() {
        let mut catalog = Catalog::new();
        catalog.insert(700, 3, &row(DATABASE, "shop", -1));
        catalog.update(902, (3, 4), &row(DATABASE, "shed", -1), (6, 40));
        let first_end = catalog.log.position();
        catalog.commit(700, &[]);
        let second_end = catalog.log.position();
        catalog.commit(900, &[901, 902]);
        let first = catalog.stretch(catalog.log.start, first_end, CATALOG);
        let [_, rename] = first.databases.events() else {
            panic!()
        };
        assert_eq!(rename.transaction.get(), 902);
        let mut merged = WalSummary::decode(&first.encode()).expect("a summary");
        let mut last = first;
        for end in [second_end, catalog.log.position()] {
            let next = catalog.built(SummaryBuilder::following(&last), last.end, end);
            last = WalSummary::decode(&next.encode()).expect("a summary");
            merged.absorb(last.clone()).expect("consecutive");
        }
        let transactions: Vec<u32> = merged
            .databases
            .events()
            .iter()
            .map(|event| event.transaction.get())
            .collect();
        assert_eq!(transactions, [700, 900]);
        assert_eq!(merged.carried.unassigned, []);
        assert_eq!(merged.databases, catalog.summary().databases);
    }
}
