//! Log of real servers is read as `pg_waldump` reads it, and summarised as the server meant it.
//!
//! `pg_waldump/make_fixtures.sh` makes the fixtures. They are of PostgreSQL 15 and 16 with PGLZ, 17 with LZ4
//! and 18 with Zstandard.

#[cfg(test)]
#[path = "../examples/shared/record_line.rs"]
mod record_line;

#[cfg(test)]
mod tests {
    use everpoint_pgformat::{
        Lsn, MajorVersion, PgTimestamp, TimelineId,
        catalog::RelationKind,
        ids::BLOCK_SIZE,
        page::{self, Page},
        wal::{
            decoder::{Next, WalDecoder},
            record::Record,
            segment::SegmentSize,
        },
        wal_summary::{
            SummaryBuilder, WalSummary,
            database_events::{DatabaseChange, DropSign},
            relation_events::RelationChange,
            schema_changes::{SchemaAction, SchemaObject},
        },
    };

    use super::record_line;

    struct Fixture {
        major: u16,
        bytes: &'static [u8],
        text: &'static str,
    }

    const FIXTURES: [Fixture; 4] = [
        Fixture {
            major: 15,
            bytes: include_bytes!("fixtures/wal_15.bin"),
            text: include_str!("fixtures/wal_15.txt"),
        },
        Fixture {
            major: 16,
            bytes: include_bytes!("fixtures/wal_16.bin"),
            text: include_str!("fixtures/wal_16.txt"),
        },
        Fixture {
            major: 17,
            bytes: include_bytes!("fixtures/wal_17.bin"),
            text: include_str!("fixtures/wal_17.txt"),
        },
        Fixture {
            major: 18,
            bytes: include_bytes!("fixtures/wal_18.bin"),
            text: include_str!("fixtures/wal_18.txt"),
        },
    ];

    impl Fixture {
        fn version(&self) -> MajorVersion {
            MajorVersion::try_from(self.major).expect("a supported version")
        }

        /// A position out of the comments of the expected text.
        fn position(&self, name: &str) -> Lsn {
            let prefix = format!("# {name} ");
            let line = self
                .text
                .lines()
                .find_map(|line| line.strip_prefix(&prefix));
            line.and_then(|text| text.parse().ok()).expect("a position")
        }

        fn expected(&self) -> impl Iterator<Item = &str> {
            self.text.lines().filter(|line| !line.starts_with('#'))
        }

        /// Calls `each` with every record up to the fixture's end.
        fn decode(&self, cut: usize, mut each: impl FnMut(&Record<'_>)) {
            let size = SegmentSize::try_from(1 << 20).expect("a segment size");
            let (page, end) = (self.position("page"), self.position("end"));
            let mut decoder = WalDecoder::searching(self.version(), size, self.position("start"));
            assert_eq!(decoder.position(), page);
            let mut at = page;
            for piece in self.bytes.chunks(cut) {
                let mut chunk = decoder.feed(at, piece);
                loop {
                    match chunk.next().expect("sound log") {
                        Next::Record(record) if record.end() > end => return,
                        Next::Record(record) => each(&record),
                        Next::NeedBytes => break,
                        Next::End(_) => return,
                    }
                }
                at = at.advance(piece.len() as u64);
            }
        }

        fn summary(&self) -> WalSummary {
            let start = self.position("start");
            let mut builder = SummaryBuilder::new(self.version(), TimelineId::FIRST, start);
            self.decode(8192, |record| builder.add(record).expect("sound record"));
            builder.cut()
        }
    }

    #[test]
    fn records_are_those_that_pg_waldump_shows() {
        for fixture in FIXTURES {
            for cut in [1_000_000, 3001] {
                let mut expected = fixture.expected();
                fixture.decode(cut, |record| {
                    let line = record_line::line(record, fixture.version()).expect("sound record");
                    // pg_waldump does not print the info bits.
                    let mut fields = line.splitn(4, ' ');
                    let mut field = || fields.next().unwrap_or_default();
                    let (lsn, manager, _, rest) = (field(), field(), field(), field());
                    assert_eq!(Some(&*format!("{lsn} {manager} {rest}")), expected.next());
                });
                assert_eq!(expected.next(), None);
            }
        }
    }

    #[test]
    fn page_images_unpack_to_pages() {
        for fixture in FIXTURES {
            let mut compressed = 0;
            fixture.decode(8192, |record| {
                for image in record.blocks().filter_map(|block| block.image) {
                    let mut page: Page = [0; BLOCK_SIZE];
                    image.restore(&mut page).expect("a page");
                    compressed += usize::from(image.compression.is_some());
                    // The page size and layout version that every page carries.
                    assert!(page::is_new(&page) || page[18..20] == 0x2004_u16.to_le_bytes());
                }
            });
            assert!(
                compressed > 20,
                "{compressed} of PostgreSQL {}",
                fixture.major
            );
        }
    }

    #[test]
    fn database_renamed_and_dropped_is_found_with_the_position_that_has_it_whole() {
        for fixture in FIXTURES {
            let summary = fixture.summary();
            let [renamed, ..] = summary.databases.events() else {
                panic!()
            };
            let to = DatabaseChange::Renamed {
                from: Some(b"shop".to_vec()),
                to: b"store".to_vec(),
            };
            assert_eq!(renamed.change, to);
            let ended = summary.times.end_of(renamed.transaction, renamed.start);
            assert!(ended.is_some_and(|mark| mark.kind.is_commit()));
            let [dropped] = &summary.databases.dropped()[..] else {
                panic!()
            };
            assert_eq!(dropped.database, renamed.database);
            assert_eq!(dropped.name.as_deref(), Some(&b"store"[..]));
            assert_eq!(
                (dropped.undo, dropped.begun_by),
                (fixture.position("undo"), DropSign::Mark)
            );
        }
    }

    #[test]
    fn times_restore_points_and_relations_are_summarised() {
        for fixture in FIXTURES {
            let summary = fixture.summary();
            let times: Vec<String> = summary
                .times
                .transactions()
                .iter()
                .map(|mark| {
                    let (kind, time) = (mark.kind, mark.time.unix_microseconds());
                    format!("; {kind:?} {} time {time} ", mark.transaction)
                })
                .collect();
            let expected: Vec<&str> = fixture
                .expected()
                .filter(|line| line.contains("; Commit") || line.contains("; Abort"))
                .collect();
            assert_eq!(times.len(), expected.len());
            for (time, line) in times.iter().zip(&expected) {
                assert!(line.contains(time.as_str()), "{time} in {line}");
            }
            let [point] = summary.times.restore_points() else {
                panic!()
            };
            assert_eq!(point.name, b"before the mistake");
            let changes = summary.relations.events().iter().map(|event| event.change);
            let dropped = changes
                .clone()
                .filter(|change| *change == RelationChange::Dropped);
            assert_eq!(dropped.count(), 1);
            assert!(
                changes
                    .clone()
                    .any(|change| matches!(change, RelationChange::Truncated(_)))
            );
            // Before the first end nothing is earlier, after the last nothing later.
            let (start, first) = (summary.start, PgTimestamp::from_raw(i64::MIN));
            let found = summary
                .times
                .first_later_than(first, start)
                .expect("an end");
            assert_eq!(Some(found), summary.times.transactions().first());
            let latest = summary.times.latest().expect("a time");
            assert_eq!(summary.times.first_later_than(latest, start), None);
        }
    }

    #[test]
    fn truncated_table_is_named_and_its_transaction_told() {
        for fixture in FIXTURES {
            let summary = fixture.summary();
            let dropped = summary.relations.events().iter();
            let removal = dropped
                .filter(|event| event.change == RelationChange::Dropped)
                .map(|event| event.start);
            let ended = summary.transactions.ended().iter();
            let truncate = ended
                .filter(|ended| removal.clone().any(|at| at == ended.ended))
                .collect::<Vec<_>>();
            let [truncate] = &truncate[..] else {
                panic!("{truncate:?}")
            };
            let [change] = &truncate.activity.schema[..] else {
                panic!("{truncate:?}")
            };
            let SchemaObject::Relation { definition, .. } = &change.object else {
                panic!("{change:?}")
            };
            assert_eq!(definition.name, b"cut");
            assert_eq!(definition.kind, RelationKind::TABLE);
            let SchemaAction::NewFile { from } = change.action else {
                panic!("{change:?}")
            };
            assert!(
                summary
                    .relations
                    .events()
                    .iter()
                    .any(|event| event.relation.relfilenode == from)
            );
            assert_eq!(truncate.activity.catalogs.nouns(), ["relation"]);
            assert!(truncate.activity.is_ddl() && !truncate.is_large());
        }
    }

    #[test]
    fn summaries_of_real_log_survive_storing_and_cutting_anywhere() {
        for fixture in FIXTURES {
            let whole = fixture.summary();
            assert_eq!(whole.end, fixture.position("end"));
            assert_eq!(WalSummary::decode(&whole.encode()), Ok(whole.clone()));
            for every in [1, 7, 100] {
                let start = fixture.position("start");
                let mut builder = SummaryBuilder::new(fixture.version(), TimelineId::FIRST, start);
                let mut parts = Vec::new();
                let mut records = 0;
                fixture.decode(8192, |record| {
                    builder.add(record).expect("sound record");
                    records += 1;
                    if records % every == 0 {
                        parts.push(builder.cut());
                    }
                });
                parts.push(builder.cut());
                let mut parts = parts.into_iter();
                let mut merged = parts.next().expect("a part");
                for part in parts {
                    merged.absorb(part).expect("consecutive");
                }
                assert_eq!(merged, whole, "cut every {every} records");
            }
        }
    }
}
