//! Log of real servers of every version: read as `pg_waldump` reads it, whatever is in it, and summarised as the
//! server meant it.
//!
//! `real_wal.rs` does the like with stored log, without a server.

#[cfg(test)]
mod pg_waldump;
#[cfg(test)]
mod pg_walsummary;
#[cfg(test)]
#[path = "../../examples/shared/record_line.rs"]
mod record_line;
#[cfg(test)]
mod workload;

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs};

    use anyhow::{Context, Result, ensure};
    use everpoint_pgformat::{
        Lsn, Oid, TimelineId,
        ids::BLOCK_SIZE,
        page::{self, Page},
        wal::{
            block::ImageCompression,
            decoder::{Next, WalDecoder},
            record::Record,
            segment::{SegmentName, SegmentSize},
        },
        wal_summary::{
            DATABASE_CATALOG, SummaryBuilder, WalSummary, carried::Carried,
            database_events::DropSign, schema_changes::SchemaObject,
        },
    };
    use everpoint_testkit::{Cluster, Scratch, StopMode, on_every_version};

    use crate::{pg_waldump, pg_walsummary, record_line, workload};

    /// A cluster's log from a position on.
    #[derive(Clone, Copy)]
    struct Log<'a> {
        cluster: &'a Cluster,
        size: SegmentSize,
        start: Lsn,
    }

    impl Log<'_> {
        /// Calls `each` with every record, the bytes given in pieces of up to `cut`.
        fn decode(
            &self,
            cut: usize,
            mut each: impl FnMut(&Record<'_>) -> Result<()>,
        ) -> Result<()> {
            let wal = self.cluster.data_directory().join("pg_wal");
            let version = self.cluster.server().version();
            let mut decoder = WalDecoder::searching(version, self.size, self.start);
            for segment in self.size.segment_of(self.start).. {
                let name = SegmentName::new(TimelineId::FIRST, segment, self.size).to_string();
                let Ok(bytes) = fs::read(wal.join(name)) else {
                    return Ok(());
                };
                let mut at = self.size.start_of(segment);
                for piece in bytes.chunks(cut) {
                    let mut chunk = decoder.feed(at, piece);
                    loop {
                        match chunk.next()? {
                            Next::Record(record) => each(&record)?,
                            Next::NeedBytes => break,
                            Next::End(_) => return Ok(()),
                        }
                    }
                    at = at.advance(piece.len() as u64);
                }
            }
            Ok(())
        }

        /// Compares each record with what `pg_waldump` shows, and returns what that was.
        async fn compare(&self) -> Result<Vec<pg_waldump::Shown>> {
            let shown = pg_waldump::records(self.cluster, self.start).await?;
            for cut in [1 << 20, 3001] {
                let mut expected = shown.iter();
                self.decode(cut, |record| {
                    let line = record_line::line(record, self.cluster.server().version())?;
                    // pg_waldump does not print the info bits.
                    let mut fields = line.splitn(4, ' ');
                    let mut field = || fields.next().unwrap_or_default();
                    let (lsn, manager, _, rest) = (field(), field(), field(), field());
                    let line = format!("{lsn} {manager} {rest}");
                    let expected = expected.next().map(|shown| &*shown.line);
                    ensure!(expected == Some(&line), "\n{line}\n{expected:?}");
                    Ok(())
                })?;
                let left = expected.next().map(|shown| &*shown.line);
                ensure!(left.is_none(), "not found: {left:?}");
            }
            Ok(shown)
        }

        /// What the records say that begin and end up to a position.
        fn summary(&self, catalog: Oid, to: Lsn) -> Result<WalSummary> {
            let version = self.cluster.server().version();
            let mut builder: Option<SummaryBuilder> = None;
            self.decode(1 << 20, |record| {
                if record.start() >= to {
                    return Ok(());
                }
                let builder = builder.get_or_insert_with(|| {
                    let (timeline, start) = (TimelineId::FIRST, record.start());
                    SummaryBuilder::with_carried(version, timeline, start, Carried::new(catalog))
                });
                Ok(builder.add(record)?)
            })?;
            Ok(builder.context("no records")?.cut())
        }
    }

    /// The images by how they are compressed, each of which must be a page's.
    fn unpack(log: &Log<'_>) -> Result<BTreeMap<String, usize>> {
        let mut images = BTreeMap::new();
        log.decode(1 << 20, |record| {
            for image in record.blocks().filter_map(|block| block.image) {
                let mut page: Page = [0; BLOCK_SIZE];
                image.restore(&mut page)?;
                let version = page.get(18..20);
                ensure!(page::is_new(&page) || version == Some(&0x2004_u16.to_le_bytes()));
                let way = match image.compression {
                    None => "none",
                    Some(ImageCompression::Pglz) => "pglz",
                    Some(ImageCompression::Lz4) => "lz4",
                    Some(ImageCompression::Zstd) => "zstd",
                };
                *images.entry(way.to_owned()).or_default() += 1;
            }
            Ok(())
        })?;
        Ok(images)
    }

    /// Compares page images with those that `pg_waldump` unpacks.
    async fn compare_images(log: &Log<'_>, from: Lsn, to: Lsn) -> Result<usize> {
        let scratch = Scratch::new()?;
        let into = scratch.path().join("images");
        pg_waldump::save_images(log.cluster, from, to, &into).await?;
        let saved = fs::read_dir(&into)?.map(|entry| Ok(fs::read(entry?.path())?));
        let mut saved = saved.collect::<Result<Vec<_>>>()?;
        let mut ours = Vec::new();
        log.decode(1 << 20, |record| {
            if record.start() < from || record.end() > to {
                return Ok(());
            }
            for image in record.blocks().filter_map(|block| block.image) {
                let mut page: Page = [0; BLOCK_SIZE];
                image.restore(&mut page)?;
                ours.push(page.to_vec());
            }
            Ok(())
        })?;
        saved.sort();
        ours.sort();
        ensure!(
            saved == ours,
            "{} images saved, {} found",
            saved.len(),
            ours.len()
        );
        Ok(ours.len())
    }

    fn has_table(summary: &WalSummary, name: &str) -> bool {
        let ended = summary.transactions.ended().iter();
        let mut changes = ended.flat_map(|ended| &ended.activity.schema);
        changes.any(|change| match &change.object {
            SchemaObject::Relation { definition, .. } => definition.name == name.as_bytes(),
            SchemaObject::Namespace { .. } => false,
        })
    }

    on_every_version! {
        async fn records_of_every_kind_are_those_that_pg_waldump_shows(server: Server) -> Result<()> {
            let size = SegmentSize::try_from(1 << 20)?;
            let mut cluster = workload::cluster(server.major()).wal_segment_size(size).start().await?;
            let start = cluster.current_lsn().await?;
            workload::run(&mut cluster).await?;
            let lost = workload::lose_a_continuation(&mut cluster).await?;
            let behind = cluster.current_lsn().await?;
            let catalog: u32 = cluster.value("postgres", "SELECT pg_relation_filenode('pg_database')").await?.parse()?;
            assert_ne!(catalog, DATABASE_CATALOG.get());
            let ways = workload::compressions(&cluster).await?;
            for way in &ways {
                workload::drop_with_compressed_images(&cluster, way).await?;
            }
            let end = cluster.current_lsn().await?;
            cluster.stop(StopMode::Fast).await?;

            let log = Log { cluster: &cluster, size, start };
            let shown = log.compare().await?;
            let kinds = pg_waldump::kinds(&shown);
            let missing: Vec<_> = workload::KINDS.iter().filter(|kind| !kinds.contains(**kind)).collect();
            assert!(missing.is_empty(), "the workload wrote no {missing:?}, only {kinds:?}");
            // What took the lost record's place begins the next segment, and nothing lies between.
            let place = shown.iter().position(|record| record.kind == "OVERWRITE_CONTRECORD").unwrap_or_default();
            let border = size.ceil(lost);
            assert!(shown[place - 1].start < border && shown[place].start > border, "{lost}: {:?}", shown[place].line);

            let images = unpack(&log)?;
            for way in ways.iter().map(String::as_str).chain(["none"]) {
                assert!(images.get(way) > Some(&0), "{way}: {images:?}");
            }
            if server.major() >= 16 {
                assert!(compare_images(&log, behind, end).await? > 100);
            }
            let summary = log.summary(DATABASE_CATALOG, Lsn::MAX)?;
            let last = Log { start: behind, ..log }.summary(catalog.into(), Lsn::MAX)?;
            let dropped = last.databases.dropped();
            for way in &ways {
                let name = format!("squeezed_{way}");
                let found = dropped.iter().find(|database| database.name.as_deref() == Some(name.as_bytes()));
                let found = found.with_context(|| format!("{name} is not in {dropped:?}"))?;
                assert_eq!(found.begun_by, DropSign::Mark);
                // What pg_waldump shows: the mark is the last such record before the files are removed.
                let before = shown.iter().take_while(|record| Some(record.start) != found.removed);
                let mark = before.filter(|record| record.manager == "Heap" && record.kind == "INPLACE").last();
                assert_eq!(mark.map(|record| record.start), Some(found.undo), "{found:?}");
                assert!(has_table(&summary, &name), "{name}");
            }
            // Those before the catalog got another file, and behind.
            let names: Vec<_> = summary.databases.dropped().into_iter().filter_map(|dropped| dropped.name).collect();
            for name in ["by_copy", "renamed"].into_iter().map(str::to_owned)
                .chain(ways.iter().map(|way| format!("squeezed_{way}")))
            {
                assert!(names.contains(&name.clone().into_bytes()), "{name} is not in {names:?}");
            }
            assert_eq!(WalSummary::decode(&summary.encode())?, summary);
            if server.major() >= 17 {
                let told = pg_walsummary::read(&cluster).await?;
                let mut lines = 0;
                for told in told.iter().filter(|told| told.from >= start) {
                    let part = Log { start: told.from, ..log };
                    lines += told.is_within(&part.summary(DATABASE_CATALOG, told.to)?)?;
                }
                assert!(lines > 5000, "{lines} in {} summaries", told.len());
            }
            Ok(())
        }

        async fn log_in_segments_of_64_mib_is_read_over_their_borders(server: Server) -> Result<()> {
            let size = SegmentSize::try_from(64 << 20)?;
            let mut cluster = workload::cluster(server.major()).wal_segment_size(size).start().await?;
            let start = cluster.current_lsn().await?;
            cluster.sql("postgres", "CREATE TABLE t (id int PRIMARY KEY)").await?;
            for _ in 0..2 {
                let message = "SELECT pg_logical_emit_message(false, 'everpoint', repeat('long', 10000000))";
                cluster.sql("postgres", message).await?;
            }
            cluster.switch_wal().await?;
            cluster.sql("postgres", "INSERT INTO t SELECT generate_series(10, 2000)").await?;
            let end = cluster.current_lsn().await?;
            cluster.stop(StopMode::Fast).await?;
            assert!(size.segment_of(end) >= size.segment_of(start) + 2);
            let log = Log { cluster: &cluster, size, start };
            let shown = log.compare().await?;
            let border = size.ceil(start);
            let over = shown.windows(2).any(|pair| pair[0].start < border && pair[1].start > border.advance(1 << 20));
            assert!(over, "no record lies over {border}");
            Ok(())
        }
    }
}
