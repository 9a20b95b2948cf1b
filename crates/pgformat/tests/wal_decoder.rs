//! The decoder gives out what was written, wherever its input is cut, and names what is wrong.
#![expect(clippy::cast_possible_truncation, reason = "test lengths are small")]

#[cfg(test)]
#[allow(dead_code, reason = "shared by several test files")]
mod log_writer;

#[cfg(test)]
mod tests {
    use everpoint_pgformat::{
        Lsn, MajorVersion, SystemIdentifier,
        wal::{
            decoder::{Next, WalDecoder},
            error::{EndOfLog, EndSign, WalError, WalFault},
            page::PageFault,
            record::{RecordFault, RecordHeader},
            segment::SegmentSize,
        },
    };
    use proptest::prelude::*;

    use super::log_writer::{CLUSTER, LogWriter, Place};

    const MIB: u32 = 1 << 20;

    /// What a decoder made of some bytes.
    #[derive(Debug, Default, PartialEq)]
    struct Outcome {
        places: Vec<Place>,
        end: Option<Result<EndOfLog, WalError>>,
    }

    fn decode(decoder: &mut WalDecoder, bytes: &[u8], cut: usize) -> Outcome {
        let mut outcome = Outcome::default();
        let mut at = decoder.position();
        for piece in bytes.chunks(cut) {
            let mut chunk = decoder.feed(at, piece);
            outcome.end = loop {
                match chunk.next() {
                    Ok(Next::Record(record)) => outcome.places.push(Place {
                        start: record.start(),
                        end: record.end(),
                    }),
                    Ok(Next::NeedBytes) => break None,
                    Ok(Next::End(end)) => break Some(Ok(end)),
                    Err(error) => break Some(Err(error)),
                }
            };
            if outcome.end.is_some() {
                return outcome;
            }
            at = at.advance(piece.len() as u64);
        }
        outcome
    }

    fn decoder(log: &LogWriter) -> WalDecoder {
        WalDecoder::new(log.version, log.segment_size, log.start)
    }

    /// Records of all lengths, over page and segment borders, with a switch in between.
    fn varied_log(start: u64) -> (LogWriter, Vec<Place>) {
        let mut log = LogWriter::new(15, MIB, start);
        let mut places = Vec::new();
        let body = [7_u8; 30_000];
        for (index, len) in [0, 1, 100, 8000, 8111, 8112, 8113, 30_000, 9, 255, 256]
            .iter()
            .enumerate()
        {
            for _ in 0..5 {
                places.push(log.record(10, 0, index as u32, &body[..*len]));
            }
            if index == 7 {
                places.push(log.switch());
            }
        }
        (log, places)
    }

    #[test]
    fn records_come_out_whole_wherever_the_bytes_are_cut() {
        let (log, places) = varied_log(u64::from(MIB) * 3 - 3 * 8192);
        for cut in [
            1, 2, 3, 4, 5, 7, 8, 23, 24, 25, 39, 40, 41, 8191, 8192, 8193, 100_000, 10_000_000,
        ] {
            let outcome = decode(&mut decoder(&log), &log.bytes, cut);
            assert_eq!(outcome.places, places, "cut every {cut} bytes");
            assert_eq!(outcome.end, None);
        }
    }

    #[test]
    fn search_finds_the_first_record_at_or_after_any_position() {
        let (log, places) = varied_log(u64::from(MIB) * 3 - 3 * 8192);
        let end = log.position().get();
        for from in (log.start.get()..end).step_by(1021) {
            let mut decoder = WalDecoder::searching(log.version, log.segment_size, Lsn::new(from));
            let skipped = decoder.position().bytes_since(log.start) as usize;
            let outcome = decode(&mut decoder, &log.bytes[skipped..], 5000);
            let switch = places
                .iter()
                .find(|place| place.end.bytes_since(place.start) > 100_000);
            let padding = switch.expect("a switch");
            if (padding.start.get() + 24..padding.end.get()).contains(&decoder_page(from)) {
                // Zero pages of padding: nothing tells that log goes on behind them.
                assert!(matches!(outcome.end, Some(Ok(_))));
                continue;
            }
            let expected: Vec<Place> = places
                .iter()
                .copied()
                .filter(|place| place.start.get() >= from)
                .collect();
            assert_eq!(outcome.places, expected, "from {}", Lsn::new(from));
        }
    }

    fn decoder_page(lsn: u64) -> u64 {
        lsn - lsn % 8192
    }

    #[test]
    fn decoding_begins_at_any_records_start_and_end() {
        let (log, places) = varied_log(u64::from(MIB) * 3 - 3 * 8192);
        for (index, place) in places.iter().enumerate() {
            for (from, expected) in [
                (place.start, &places[index..]),
                (place.end, &places[index + 1..]),
            ] {
                let mut decoder = WalDecoder::new(log.version, log.segment_size, from);
                let outcome = decode(
                    &mut decoder,
                    &log.bytes[from.bytes_since(log.start) as usize..],
                    999,
                );
                assert_eq!(outcome.places, expected);
            }
        }
    }

    #[test]
    fn padding_behind_a_switch_need_not_be_given() {
        let mut log = LogWriter::new(17, 64 * MIB, 0x400_0000);
        log.record(10, 0, 1, b"before");
        let switch = log.switch();
        let after = log.record(10, 0, 2, b"after");
        let mut decoder = decoder(&log);
        let written = 8192;
        assert_eq!(
            decode(&mut decoder, &log.bytes[..written], 8192)
                .places
                .len(),
            2
        );
        assert_eq!(decoder.wanted(), switch.end);
        assert_eq!(decoder.boundary(), Some(switch.end));
        let next = switch.end.bytes_since(log.start) as usize;
        let mut chunk = decoder.feed(switch.end, &log.bytes[next..]);
        let Ok(Next::Record(record)) = chunk.next() else {
            panic!()
        };
        assert_eq!(record.start(), after.start);
        assert_eq!(record.main_data(), b"after");
    }

    #[test]
    fn log_with_segments_of_a_gigabyte_goes_over_their_border() {
        let border = 1_u64 << 40;
        let mut log = LogWriter::new(18, 1 << 30, border - 8192);
        let places = [
            log.record(10, 0, 1, &[1; 20_000]),
            log.record(10, 0, 1, &[1; 10]),
        ];
        assert_eq!(decode(&mut decoder(&log), &log.bytes, 700).places, places);
    }

    #[test]
    fn record_that_lost_its_continuation_is_left_out() {
        for cut in [1, 100, 50_000] {
            let mut log = LogWriter::new(15, MIB, 0x10_0000);
            let first = log.record(10, 0, 1, b"first");
            let lost = log.lose_continuation();
            let mut main = lost.get().to_le_bytes().to_vec();
            main.extend([0; 8]);
            let notice = log.record(0, 0xD0, 0, &main);
            let last = log.record(10, 0, 1, b"last");
            let outcome = decode(&mut decoder(&log), &log.bytes, cut);
            assert_eq!(
                outcome,
                Outcome {
                    places: vec![first, notice, last],
                    end: None
                }
            );
        }
    }

    #[test]
    fn replacement_of_a_lost_continuation_must_name_the_record() {
        let mut log = LogWriter::new(15, MIB, 0x10_0000);
        let lost = log.lose_continuation();
        let wrong = log.record(0, 0xD0, 0, &[0; 16]);
        let outcome = decode(&mut decoder(&log), &log.bytes, 8192);
        let Some(Err(error)) = outcome.end else {
            panic!()
        };
        assert_eq!(
            (error.at, error.fault),
            (wrong.start, WalFault::WrongOverwrite { lost })
        );
    }

    #[test]
    fn zeros_and_recycled_pages_end_the_log_where_the_next_record_is_to_begin() {
        let mut log = LogWriter::new(15, MIB, 0x10_0000);
        let whole = log.record(10, 0, 1, b"whole");
        let whole_len = log.bytes.len();
        let torn = log.record(10, 0, 1, &[3; 9000]);
        for cut in [3, 24, 1_000_000] {
            // Zeros instead of a record.
            let mut bytes = log.bytes.clone();
            bytes[whole_len..].fill(0);
            let outcome = decode(&mut decoder(&log), &bytes, cut);
            let end = EndOfLog {
                at: whole.end,
                sign: EndSign::Zeros,
            };
            assert_eq!(
                outcome,
                Outcome {
                    places: vec![whole],
                    end: Some(Ok(end))
                }
            );
            // Zeros instead of a record's second page.
            let mut bytes = log.bytes.clone();
            bytes[8192..].fill(0);
            let outcome = decode(&mut decoder(&log), &bytes, cut);
            let end = EndOfLog {
                at: torn.start,
                sign: EndSign::Zeros,
            };
            assert_eq!(
                outcome,
                Outcome {
                    places: vec![whole],
                    end: Some(Ok(end))
                }
            );
            // A page from an earlier use of the file.
            let mut bytes = log.bytes.clone();
            bytes[8192 + 10] -= 0x10;
            let outcome = decode(&mut decoder(&log), &bytes, cut);
            let end = EndOfLog {
                at: torn.start,
                sign: EndSign::RecycledPage,
            };
            assert_eq!(
                outcome,
                Outcome {
                    places: vec![whole],
                    end: Some(Ok(end))
                }
            );
        }
    }

    #[test]
    fn decoder_goes_on_when_the_log_was_written_further() {
        let (log, places) = varied_log(u64::from(MIB) * 3 - 3 * 8192);
        let mut decoder = decoder(&log);
        let mut found = Vec::new();
        for written in (1000..log.bytes.len())
            .step_by(7919)
            .chain([log.bytes.len()])
        {
            let mut file = log.bytes.clone();
            file[written..].fill(0);
            let at = decoder.position();
            let outcome = decode(
                &mut decoder,
                &file[at.bytes_since(log.start) as usize..],
                4096,
            );
            found.extend(outcome.places);
            if let Some(Err(error)) = outcome.end {
                // A record written in part is not told from a damaged one; its place is tried again.
                assert!(
                    matches!(error.fault, WalFault::Record(_) | WalFault::Page { .. }),
                    "{error}"
                );
            }
        }
        assert_eq!(found, places);
    }

    #[test]
    fn a_flipped_bit_anywhere_is_noticed_at_its_record() {
        let mut log = LogWriter::new(16, MIB, 0x10_0000);
        let places: Vec<Place> = (0..4).map(|n| log.record(10, 0, n, &[5; 3000])).collect();
        let flipped = log.bytes.len();
        log.record(10, 0, 1, &[5; 30_000]);
        for at in 0..flipped {
            let mut bytes = log.bytes.clone();
            bytes[at] ^= 0x40;
            let outcome = decode(&mut decoder(&log), &bytes, bytes.len());
            let lsn = log.start.advance(at as u64);
            let header_padding = matches!(at % 8192, 20..24);
            let not_continued = matches!(at, 16..20);
            let alignment = places
                .iter()
                .any(|place| (place.end.get() - 3..place.end.get()).contains(&lsn.get()));
            let unused_cluster = (24..32).contains(&at);
            // xlp_tli may grow from page to page.
            let timeline = matches!(at % 8192, 4..8);
            if header_padding || not_continued || alignment || unused_cluster || timeline {
                continue;
            }
            let noticed = match &outcome.end {
                Some(Err(error)) => error.at,
                Some(Ok(end)) => end.at,
                None => panic!("flipped bit at {lsn} was not noticed"),
            };
            assert!(
                noticed <= lsn,
                "flipped bit at {lsn} was noticed at {noticed}"
            );
        }
    }

    #[test]
    fn damage_does_not_keep_the_decoder_from_trying_a_better_copy() {
        let (log, places) = varied_log(u64::from(MIB) * 3 - 3 * 8192);
        let mut damaged = log.bytes.clone();
        damaged[60_000] ^= 1;
        let mut decoder = decoder(&log);
        let outcome = decode(&mut decoder, &damaged, 4000);
        let Some(Err(error)) = outcome.end else {
            panic!()
        };
        assert_eq!(decoder.position(), error.at);
        assert!(matches!(
            error.fault,
            WalFault::Record(RecordFault::Checksum { .. })
        ));
        let rest = &log.bytes[error.at.bytes_since(log.start) as usize..];
        let mut found = outcome.places;
        found.extend(decode(&mut decoder, rest, 4000).places);
        assert_eq!(found, places);
    }

    #[test]
    fn record_that_does_not_follow_the_one_before_is_refused() {
        let mut log = LogWriter::new(15, MIB, 0x10_0000);
        let first = log.record(10, 0, 1, b"first");
        let second = log.record(10, 0, 1, b"second");
        let third = log.record(10, 0, 1, b"third");
        let cut = second.start.bytes_since(log.start) as usize
            ..second.end.bytes_since(log.start) as usize;
        log.bytes.drain(cut);
        let outcome = decode(&mut decoder(&log), &log.bytes, 50);
        assert_eq!(outcome.places, [first]);
        let Some(Err(error)) = outcome.end else {
            panic!()
        };
        assert_eq!(
            (error.at, error.fault),
            (
                first.end,
                WalFault::Record(RecordFault::Previous {
                    found: second.start
                })
            )
        );
        // A decoder that begins behind a known record checks the link to it.
        let (log, places) = varied_log(u64::from(MIB) * 3 - 3 * 8192);
        let rest = &log.bytes[places[0].end.bytes_since(log.start) as usize..];
        let at = |previous| {
            WalDecoder::new(log.version, log.segment_size, places[0].end).following(previous)
        };
        assert_eq!(decode(&mut at(places[0].start), rest, 999).end, None);
        assert!(decode(&mut at(third.start), rest, 999).end.is_some());
    }

    #[test]
    fn gaps_are_refused_and_repeated_bytes_passed_over() {
        let (log, places) = varied_log(u64::from(MIB) * 3 - 3 * 8192);
        let mut decoder = decoder(&log);
        let mut found = 0;
        for (at, to) in [
            (0, 1000),
            (500, 2000),
            (0, 2000),
            (2000, 9000),
            (1, 100_000),
        ] {
            let mut chunk = decoder.feed(log.start.advance(at), &log.bytes[at as usize..to]);
            while let Ok(Next::Record(record)) = chunk.next() {
                assert_eq!(record.start(), places[found].start);
                found += 1;
            }
        }
        assert!(found > 10);
        let mut chunk = decoder.feed(log.start.advance(100_001), &[0; 10]);
        let error = chunk.next().expect_err("a gap");
        assert!(matches!(error.fault, WalFault::Gap { .. }));
    }

    #[test]
    fn pages_of_another_log_are_refused() {
        let mut log = LogWriter::new(15, MIB, 0x10_0000);
        log.record(10, 0, 1, &[0; 10_000]);
        let of = |id| decoder(&log).of_cluster(SystemIdentifier::new(id));
        assert_eq!(decode(&mut of(CLUSTER), &log.bytes, 99).end, None);
        let fault =
            |mut decoder: WalDecoder, bytes: &[u8]| match decode(&mut decoder, bytes, 99).end {
                Some(Err(WalError {
                    fault: WalFault::Page { fault, .. },
                    ..
                })) => fault,
                other => panic!("{other:?}"),
            };
        assert!(matches!(
            fault(of(1), &log.bytes),
            PageFault::SystemIdentifier { .. }
        ));
        let newer = MajorVersion::try_from(17).expect("17");
        let other_version = WalDecoder::new(newer, log.segment_size, log.start);
        assert!(matches!(
            fault(other_version, &log.bytes),
            PageFault::Magic { .. }
        ));
        let other_size = WalDecoder::new(log.version, SegmentSize::DEFAULT, log.start);
        assert!(matches!(
            fault(other_size, &log.bytes),
            PageFault::SegmentSize { .. }
        ));
        let mut backwards = log.bytes.clone();
        backwards[4] = 2;
        assert!(matches!(
            fault(decoder(&log), &backwards),
            PageFault::Timeline {
                found: 1,
                before: 2
            }
        ));
    }

    #[test]
    fn reading_cannot_begin_inside_a_record() {
        let mut log = LogWriter::new(15, MIB, 0x10_0000);
        log.record(10, 0, 1, &[0; 10_000]);
        let from = log.start.advance(8192);
        let mut inside = WalDecoder::new(log.version, log.segment_size, from);
        let outcome = decode(&mut inside, &log.bytes[8192..], 99);
        assert!(matches!(
            outcome.end,
            Some(Err(WalError { fault: WalFault::UnexpectedContinuation { page }, .. })) if page == from
        ));
        let odd = log.start.advance(41);
        let mut inside = WalDecoder::new(log.version, log.segment_size, odd);
        let outcome = decode(&mut inside, &log.bytes[41..], 99);
        assert!(matches!(
            outcome.end,
            Some(Err(WalError {
                fault: WalFault::Position,
                ..
            }))
        ));
    }

    #[test]
    fn page_that_does_not_continue_the_record_is_damage() {
        let mut log = LogWriter::new(15, MIB, 0x10_0000);
        let place = log.record(10, 0, 1, &[0; 10_000]);
        for (at, value) in [(8192 + 2, 0), (8192 + 16, 1)] {
            let mut bytes = log.bytes.clone();
            bytes[at] = value;
            let outcome = decode(&mut decoder(&log), &bytes, 1000);
            let Some(Err(error)) = outcome.end else {
                panic!()
            };
            assert_eq!(error.at, place.start);
            assert!(matches!(error.fault, WalFault::LostContinuation { .. }));
        }
    }

    #[test]
    fn impossible_lengths_do_not_make_the_buffer_grow() {
        for length in [23, 0x4000_0000, u32::MAX] {
            let mut log = LogWriter::new(15, MIB, 0x10_0000);
            log.record(10, 0, 1, &[0; 100]);
            log.bytes[40..44].copy_from_slice(&length.to_le_bytes());
            for cut in [1, 1000] {
                let Some(Err(error)) = decode(&mut decoder(&log), &log.bytes, cut).end else {
                    panic!()
                };
                assert_eq!(
                    error.fault,
                    WalFault::Record(RecordFault::Length { found: length })
                );
            }
        }
    }

    #[test]
    fn header_of_a_record_is_read_field_by_field() {
        let mut bytes = [0; 24];
        bytes[0] = 24;
        bytes[4] = 9;
        bytes[8] = 0x28;
        bytes[16..18].copy_from_slice(&[0x41, 0]);
        let header = RecordHeader::parse(&bytes).expect("a header");
        assert_eq!(
            (header.transaction.get(), header.previous.get(), header.info),
            (9, 0x28, 0x41)
        );
        assert!(header.is_switch());
        bytes[17] = 100;
        assert_eq!(
            RecordHeader::parse(&bytes),
            Err(RecordFault::ResourceManager { found: 100 })
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_without_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..20_000),
            cut in 1_usize..9000,
            start in 0_u64..1 << 33,
        ) {
            let version = MajorVersion::try_from(15).expect("15");
            decode(&mut WalDecoder::new(version, SegmentSize::DEFAULT, Lsn::new(start)), &bytes, cut);
            decode(&mut WalDecoder::searching(version, SegmentSize::DEFAULT, Lsn::new(start)), &bytes, cut);
        }

        #[test]
        fn damaged_log_is_refused_without_panic(
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
            cut in 1_usize..9000,
        ) {
            let (log, _) = varied_log(u64::from(MIB) * 3 - 3 * 8192);
            let mut bytes = log.bytes.clone();
            for (index, value) in damage {
                let at = index.index(bytes.len());
                bytes[at] = value;
            }
            decode(&mut decoder(&log), &bytes, cut);
            decode(&mut WalDecoder::searching(log.version, log.segment_size, log.start), &bytes, cut);
        }

        #[test]
        fn cuts_at_random_places_change_nothing(cuts in prop::collection::vec(1_usize..3000, 1..200)) {
            let (log, places) = varied_log(u64::from(MIB) * 3 - 3 * 8192);
            let mut decoder = decoder(&log);
            let mut found = Vec::new();
            let (mut at, mut cuts) = (0, cuts.into_iter().cycle());
            while at < log.bytes.len() {
                let to = (at + cuts.next().expect("endless")).min(log.bytes.len());
                let mut chunk = decoder.feed(log.start.advance(at as u64), &log.bytes[at..to]);
                while let Next::Record(record) = chunk.next().expect("sound log") {
                    found.push(Place { start: record.start(), end: record.end() });
                }
                at = to;
            }
            prop_assert_eq!(found, places);
        }
    }
}
