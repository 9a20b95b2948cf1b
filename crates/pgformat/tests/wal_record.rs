//! Parts of records are read as they were written, and contradictions are refused.
#![expect(clippy::cast_possible_truncation, reason = "test lengths are small")]

#[cfg(test)]
#[allow(dead_code, reason = "shared by several test files")]
mod log_writer;

#[cfg(test)]
mod tests {
    use everpoint_pgformat::{
        MajorVersion, Oid, PgTimestamp,
        relation::Fork,
        wal::{
            block::ImageCompression,
            database::DatabaseRecord,
            decoder::{Next, WalDecoder},
            error::WalFault,
            heap::HeapRecord,
            record::{Record, RecordFault},
            relation_map::RelationMapUpdate,
            storage::StorageRecord,
            tablespace::TablespaceRecord,
            transaction::{EndKind, TransactionRecord},
            xlog::{FullPageWrites, WalLevel, XlogRecord},
        },
    };
    use proptest::prelude::*;

    use super::log_writer::{Block, LogWriter, body};

    fn version(major: u16) -> MajorVersion {
        MajorVersion::try_from(major).expect("a supported version")
    }

    /// Writes one record, decodes it and hands it to `look`.
    fn decoded<T>(
        (manager, info, transaction): (u8, u8, u32),
        body: &[u8],
        look: impl FnOnce(Result<&Record<'_>, &WalFault>) -> T,
    ) -> T {
        let mut log = LogWriter::new(15, 1 << 20, 0x10_0000);
        log.raw_record(manager, info, transaction, body);
        let mut decoder = WalDecoder::new(log.version, log.segment_size, log.start);
        let mut chunk = decoder.feed(log.start, &log.bytes);
        match chunk.next() {
            Ok(Next::Record(record)) => look(Ok(&record)),
            Ok(other) => panic!("{other:?}"),
            Err(error) => look(Err(&error.fault)),
        }
    }

    fn with_main<T>(kind: (u8, u8, u32), main: &[u8], look: impl FnOnce(&Record<'_>) -> T) -> T {
        decoded(kind, &body(&[], main), |record| {
            look(record.expect("a sound record"))
        })
    }

    fn refused(body: &[u8]) -> bool {
        decoded((10, 0, 1), body, |record| {
            matches!(record, Err(WalFault::Record(RecordFault::Layout(_))))
        })
    }

    fn bytes(numbers: &[u32]) -> Vec<u8> {
        numbers
            .iter()
            .flat_map(|number| number.to_le_bytes())
            .collect()
    }

    #[test]
    fn blocks_data_and_main_data_come_out_as_written() {
        let page = [7; 8192];
        let mut same = Block::new([0; 3], 9)
            .numbered(3)
            .of_fork(2)
            .with_data(b"vm");
        same.relation = None;
        let blocks = [
            Block::new([1663, 5, 100], 8)
                .with_data(b"heap")
                .with_image(&page),
            same,
        ];
        let mut bytes = vec![253, 7, 0, 252, 42, 0, 0, 0];
        bytes.extend(body(&blocks, &[5; 300]));
        decoded((10, 0x20, 9), &bytes, |record| {
            let record = record.expect("a sound record");
            assert_eq!(record.info(), 0x20);
            assert_eq!(record.origin().map(|origin| origin.get()), Some(7));
            assert_eq!(record.top_level_transaction().map(|id| id.get()), Some(42));
            assert_eq!(record.main_data(), [5; 300]);
            let [heap, vm] = &record.blocks().collect::<Vec<_>>()[..] else {
                panic!()
            };
            let image = heap.image.expect("an image");
            assert_eq!(
                (heap.data, image.bytes, image.applied),
                (&b"heap"[..], &page[..], true)
            );
            assert_eq!(
                (vm.id, vm.fork, vm.block.get()),
                (3, Fork::VisibilityMap, 9)
            );
            assert_eq!(
                (vm.relation, vm.data, vm.image),
                (heap.relation, &b"vm"[..], None)
            );
            assert_eq!(record.block(3), Some(*vm));
            assert_eq!(record.block(1), None);
        });
    }

    #[test]
    fn images_with_a_hole_and_compression_say_so() {
        // len 100, hole offset 40, flags: hole, applied, LZ4, hole length 60.
        let mut bytes = vec![0, 0x10, 0, 0, 100, 0, 40, 0, 0x01 | 0x02 | 0x08, 60, 0];
        bytes.extend([0; 16]);
        bytes.extend([9; 100]);
        decoded((0, 0xB0, 0), &bytes, |record| {
            let image = record
                .expect("sound")
                .block(0)
                .and_then(|block| block.image)
                .expect("image");
            assert_eq!((image.hole_offset, image.hole_length), (40, 60));
            assert_eq!(image.compression, Some(ImageCompression::Lz4));
            assert_eq!(image.bytes, [9; 100]);
        });
        // Uncompressed: the hole is what is missing to a page.
        let mut bytes = vec![0, 0x10, 0, 0, 100, 0, 40, 0, 0x01];
        bytes.extend([0; 16]);
        bytes.extend([9; 100]);
        decoded((0, 0xB0, 0), &bytes, |record| {
            let image = record
                .expect("sound")
                .block(0)
                .and_then(|block| block.image)
                .expect("image");
            assert_eq!((image.hole_length, image.applied), (8092, false));
        });
    }

    #[test]
    fn contradictory_parts_are_refused() {
        let sound = body(&[Block::new([1, 2, 3], 4).with_data(b"data")], b"main");
        assert!(!refused(&sound));
        // Cut to 24 bytes it is whole again: a block with data, and no main data.
        for cut in (1..sound.len()).filter(|cut| *cut != 24) {
            assert!(refused(&sound[..cut]), "cut to {cut}");
        }
        let changed = |at: usize, value: u8| {
            let mut bytes = sound.clone();
            bytes[at] = value;
            refused(&bytes)
        };
        // A block number beyond 32, data without its flag, an unknown fork, the same relation as none.
        assert!(changed(0, 33) && changed(1, 0) && changed(1, 0x24) && changed(1, 0xA0));
        // Blocks out of order.
        assert!(refused(&body(
            &[Block::new([1; 3], 1).numbered(1), Block::new([1; 3], 1)],
            b""
        )));
        // Image flags that contradict each other: length, hole offset, flags.
        for (len, hole, flags) in [
            (8192_u16, 0_u16, 0x01_u8),
            (100, 0, 0x00),
            (100, 0, 0x01),
            (8193, 0, 0x00),
            (8192, 0, 0x04),
            (100, 0, 0x0C),
            (100, 8000, 0x01),
            (100, 1, 0x04),
        ] {
            let mut bytes = vec![0, 0x10, 0, 0];
            bytes.extend(len.to_le_bytes());
            bytes.extend(hole.to_le_bytes());
            bytes.push(flags);
            bytes.extend([0; 16]);
            bytes.extend(vec![0; usize::from(len)]);
            assert!(refused(&bytes), "{len} {hole} {flags}");
        }
    }

    #[test]
    fn end_of_a_transaction_is_read_with_all_its_parts() {
        let mut main = 1_000_000_i64.to_le_bytes().to_vec();
        // Database, children, relations, invalidations, two phases, origin, gid, statistics.
        main.extend(bytes(&[0b1_1011_1111, 5, 1663]));
        main.extend(bytes(&[2, 801, 802]));
        main.extend(bytes(&[1, 1663, 5, 16_400]));
        let statistics_at = main.len();
        main.extend(bytes(&[1, 2, 5, 16_400]));
        let statistics_end = main.len();
        main.extend(bytes(&[1, 0, 0, 0, 0]));
        main.extend(bytes(&[800]));
        main.extend(b"a gid\0");
        main.extend(0x1234_u64.to_le_bytes());
        main.extend(2_000_000_i64.to_le_bytes());
        let check = |main: &[u8], major| {
            with_main((1, 0x30 | 0x80, 0), main, |record| {
                let end = TransactionRecord::parse(record, version(major));
                let Ok(TransactionRecord::End(end)) = end else {
                    panic!("{end:?}")
                };
                assert_eq!(
                    (end.kind, end.transaction.get()),
                    (EndKind::CommitPrepared, 800)
                );
                assert_eq!(end.time, PgTimestamp::from_raw(1_000_000));
                assert_eq!(end.database, Some(Oid::new(5)));
                assert_eq!(
                    end.children.iter().map(|id| id.get()).collect::<Vec<_>>(),
                    [801, 802]
                );
                let [relation] = &end.dropped_relations.iter().collect::<Vec<_>>()[..] else {
                    panic!()
                };
                assert_eq!(
                    (relation.database.get(), relation.relfilenode.get()),
                    (5, 16_400)
                );
                assert_eq!((end.dropped_statistics, end.gid), (1, Some(&b"a gid"[..])));
                let origin = end.origin.expect("an origin");
                assert_eq!((origin.lsn.get(), origin.time.raw()), (0x1234, 2_000_000));
            });
        };
        check(&main, 15);
        check(&main, 17);
        // From PostgreSQL 18 on a statistics entry has four more bytes.
        main.splice(statistics_end..statistics_end, bytes(&[0]));
        check(&main, 18);
        assert!(statistics_at < statistics_end);
        // An abort has no invalidations, whatever its flags say.
        let mut abort = 1_i64.to_le_bytes().to_vec();
        abort.extend(bytes(&[1 << 3 | 1 << 4, 900]));
        with_main((1, 0x40 | 0x80, 0), &abort, |record| {
            let Ok(TransactionRecord::End(end)) = TransactionRecord::parse(record, version(15))
            else {
                panic!()
            };
            assert_eq!(
                (end.kind, end.transaction.get()),
                (EndKind::AbortPrepared, 900)
            );
        });
        // Cut anywhere, it is refused.
        for cut in 8..main.len() {
            with_main((1, 0x30 | 0x80, 0), &main[..cut], |record| {
                assert!(
                    TransactionRecord::parse(record, version(18)).is_err(),
                    "cut to {cut}"
                );
            });
        }
        // Without further information, only the time is there.
        with_main((1, 0, 77), &main[..8], |record| {
            let Ok(TransactionRecord::End(end)) = TransactionRecord::parse(record, version(15))
            else {
                panic!()
            };
            assert_eq!((end.kind, end.transaction.get()), (EndKind::Commit, 77));
        });
    }

    #[test]
    fn prepared_transaction_and_assignment_are_read() {
        let mut main = bytes(&[0x57F9_4534, 0, 700, 5]);
        main.extend(99_i64.to_le_bytes());
        main.extend(bytes(&[10, 1, 1, 2, 0, 0, 0]));
        main.extend([0, 0]);
        main.extend(6_u16.to_le_bytes());
        main.extend([0; 16]);
        assert_eq!(main.len(), 72);
        main.extend(b"a gid\0\0\0");
        main.extend(bytes(&[701, 0]));
        main.extend(bytes(&[1663, 5, 16_400, 0]));
        main.extend(bytes(&[1663, 5, 16_401, 1663, 5, 16_402]));
        with_main((1, 0x10, 0), &main, |record| {
            let prepare = TransactionRecord::parse(record, version(15));
            let Ok(TransactionRecord::Prepare(prepare)) = prepare else {
                panic!("{prepare:?}")
            };
            assert_eq!(
                (prepare.transaction.get(), prepare.gid),
                (700, &b"a gid"[..])
            );
            assert_eq!((prepare.database.get(), prepare.time.raw()), (5, 99));
            assert_eq!(
                prepare
                    .children
                    .iter()
                    .map(|id| id.get())
                    .collect::<Vec<_>>(),
                [701]
            );
            let files = |list: everpoint_pgformat::wal::transaction::RelationIds<'_>| {
                list.iter()
                    .map(|relation| relation.relfilenode.get())
                    .collect::<Vec<_>>()
            };
            assert_eq!(files(prepare.dropped_on_commit), [16_400]);
            assert_eq!(files(prepare.dropped_on_abort), [16_401, 16_402]);
        });
        with_main((1, 0x50, 0), &bytes(&[700, 2, 701, 702]), |record| {
            let assignment = TransactionRecord::parse(record, version(15));
            let Ok(TransactionRecord::Assignment {
                top_level,
                children,
            }) = assignment
            else {
                panic!()
            };
            assert_eq!((top_level.get(), children.iter().len()), (700, 2));
        });
    }

    #[test]
    fn records_of_the_log_itself_are_read_by_their_version() {
        let mut checkpoint = 0x300_0028_u64.to_le_bytes().to_vec();
        checkpoint.extend(bytes(&[2, 1, 1, 0]));
        checkpoint.extend(0x1_0000_0005_u64.to_le_bytes());
        checkpoint.extend([0; 32]);
        checkpoint.extend(946_684_801_i64.to_le_bytes());
        checkpoint.extend(bytes(&[0, 0, 745, 0]));
        assert_eq!(checkpoint.len(), 88);
        for (major, level) in [(15, None), (16, None), (17, Some(WalLevel::Minimal))] {
            with_main((0, 0x10, 0), &checkpoint, |record| {
                let Ok(XlogRecord::Checkpoint(read)) = XlogRecord::parse(record, version(major))
                else {
                    panic!()
                };
                assert_eq!((read.redo.get(), read.timeline.get()), (0x300_0028, 2));
                assert_eq!(read.previous_timeline.get(), 1);
                assert_eq!(
                    (read.full_page_writes, read.wal_level),
                    (FullPageWrites::On, level)
                );
                assert_eq!(read.next_transaction, 0x1_0000_0005);
                assert_eq!(
                    (read.time.raw(), read.oldest_active.get()),
                    (1_000_000, 745)
                );
            });
        }
        let mut point = 5_i64.to_le_bytes().to_vec();
        point.extend(b"before the release");
        point.resize(72, 0);
        with_main((0, 0x70, 0), &point, |record| {
            let Ok(XlogRecord::RestorePoint(read)) = XlogRecord::parse(record, version(15)) else {
                panic!()
            };
            assert_eq!(
                (read.time.raw(), read.name),
                (5, &b"before the release"[..])
            );
        });
        with_main((0, 0x60, 0), &bytes(&[100, 8, 10, 0, 64, 2, 0]), |record| {
            let Ok(XlogRecord::ParameterChange(read)) = XlogRecord::parse(record, version(18))
            else {
                panic!()
            };
            assert_eq!(
                (read.max_connections, read.wal_level),
                (100, WalLevel::Logical)
            );
        });
        let mut end = 6_i64.to_le_bytes().to_vec();
        end.extend(bytes(&[3, 2]));
        with_main((0, 0x90, 0), &end, |record| {
            let Ok(XlogRecord::EndOfRecovery(read)) = XlogRecord::parse(record, version(16)) else {
                panic!()
            };
            assert_eq!((read.timeline.get(), read.previous_timeline.get()), (3, 2));
            assert!(XlogRecord::parse(record, version(17)).is_err());
        });
        with_main((0, 0xE0, 0), &bytes(&[1]), |record| {
            let redo = XlogRecord::CheckpointRedo {
                wal_level: WalLevel::Replica,
            };
            assert_eq!(XlogRecord::parse(record, version(17)), Ok(redo));
        });
        with_main((0, 0xD0, 0), &[1; 16], |record| {
            let read = XlogRecord::parse(record, version(15));
            assert!(matches!(read, Ok(XlogRecord::OverwriteContinuation { .. })));
        });
    }

    #[test]
    fn files_databases_and_tablespaces_are_read() {
        with_main((2, 0x10, 0), &bytes(&[1663, 5, 16_400, 3]), |record| {
            let Ok(StorageRecord::Create { relation, fork }) = StorageRecord::parse(record) else {
                panic!()
            };
            assert_eq!((relation.relfilenode.get(), fork), (16_400, Fork::Init));
        });
        with_main((2, 0x20, 0), &bytes(&[7, 1663, 5, 16_400, 3]), |record| {
            let Ok(StorageRecord::Truncate(cut)) = StorageRecord::parse(record) else {
                panic!()
            };
            assert_eq!((cut.blocks.get(), cut.relation.tablespace.get()), (7, 1663));
            assert!(cut.cuts(Fork::Main) && cut.cuts(Fork::VisibilityMap));
            assert!(!cut.cuts(Fork::FreeSpaceMap) && !cut.cuts(Fork::Init));
        });
        with_main((4, 0, 0), &bytes(&[20, 1663, 1, 1700]), |record| {
            let Ok(DatabaseRecord::CreateFileCopy { target, source }) =
                DatabaseRecord::parse(record)
            else {
                panic!()
            };
            assert_eq!((target.database.get(), target.tablespace.get()), (20, 1663));
            assert_eq!((source.database.get(), source.tablespace.get()), (1, 1700));
        });
        with_main((4, 0x20, 0), &bytes(&[20, 2, 1663, 1700]), |record| {
            let Ok(DatabaseRecord::Drop {
                database,
                tablespaces,
            }) = DatabaseRecord::parse(record)
            else {
                panic!()
            };
            assert_eq!((database.get(), tablespaces.iter().len()), (20, 2));
        });
        with_main((4, 0x20, 0), &bytes(&[20, 3, 1663, 1700]), |record| {
            assert!(DatabaseRecord::parse(record).is_err());
        });
        let mut main = bytes(&[1700]);
        main.extend(b"/srv/space\0");
        with_main((5, 0, 0), &main, |record| {
            let created = TablespaceRecord::Create {
                tablespace: Oid::new(1700),
                location: b"/srv/space",
            };
            assert_eq!(TablespaceRecord::parse(record), Ok(created));
        });
        with_main((10, 0x30, 0), &bytes(&[5, 1, 0, 16_384]), |record| {
            let Ok(HeapRecord::Truncate {
                database,
                relations,
            }) = HeapRecord::parse(record)
            else {
                panic!()
            };
            assert_eq!(
                (database.get(), relations.iter().next()),
                (5, Some(Oid::new(16_384)))
            );
        });
        let mut map = bytes(&[0, 1664, 24, 0x0059_2717, 2, 1262, 20_000, 1260, 1260]);
        with_main((7, 0, 0), &map, |record| {
            let update = RelationMapUpdate::parse(record)
                .expect("sound")
                .expect("an update");
            assert_eq!(
                update.map.relfilenode(Oid::new(1262)),
                Some(Oid::new(20_000))
            );
            assert_eq!(update.map.relfilenode(Oid::new(1)), None);
        });
        map[16] = 3;
        with_main((7, 0, 0), &map, |record| {
            assert!(RelationMapUpdate::parse(record).is_err())
        });
    }

    proptest! {
        #[test]
        fn any_contents_of_any_record_are_read_or_refused_without_panic(
            manager in 0_u8..22,
            info in any::<u8>(),
            main in prop::collection::vec(any::<u8>(), 0..400),
            major in 15_u16..=18,
        ) {
            with_main((manager, info, 1), &main, |record| {
                let _ = TransactionRecord::parse(record, version(major));
                let _ = XlogRecord::parse(record, version(major));
                let _ = StorageRecord::parse(record);
                let _ = DatabaseRecord::parse(record);
                let _ = TablespaceRecord::parse(record);
                let _ = RelationMapUpdate::parse(record);
                let _ = HeapRecord::parse(record);
            });
        }

        #[test]
        fn any_parts_are_read_or_refused_without_panic(
            body in prop::collection::vec(any::<u8>(), 0..400),
        ) {
            decoded((10, 0, 1), &body, |record| {
                if let Ok(record) = record {
                    record.blocks().for_each(drop);
                    record.main_data();
                }
            });
        }
    }
}
