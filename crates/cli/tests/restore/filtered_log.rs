//! Filtered log of real servers, as `pg_waldump` reads it.

use std::{collections::BTreeSet, fs};

use anyhow::{Context, Result};
use everpoint_pgformat::{
    Lsn, MajorVersion, Oid, TimelineId,
    wal::{
        decoder::WalDecoder,
        filter::{Databases, Piece, WalFilter},
        segment::{SegmentName, SegmentSize},
    },
};
use everpoint_testkit::{Cluster, Scratch, mixed_data};

use crate::versions::on_oldest_and_newest;

/// Pages of B-trees and GiST indexes given free and used again, relations truncated, rewritten and dropped,
/// messages, invalidated catalogs, prepared transactions.
const CHANGES: &str = "
    CREATE TABLE many (id int PRIMARY KEY, place point, filler text);
    CREATE INDEX ON many USING gist (place);
    INSERT INTO many SELECT i, point(i, i), repeat('x', 40) FROM generate_series(1, 12000) i;
    DELETE FROM many WHERE id > 20;
    VACUUM many;
    SELECT txid_current();
    VACUUM many;
    VACUUM many;
    INSERT INTO many SELECT i, point(i, i), repeat('y', 40) FROM generate_series(20001, 34000) i;
    SELECT pg_logical_emit_message(true, 'test', repeat('long', 3000));
    CREATE TABLE cut AS SELECT generate_series(1, 5000) AS id;
    DELETE FROM cut WHERE id > 10;
    VACUUM cut;
    TRUNCATE cut;
    VACUUM FULL pg_class;
    CLUSTER many USING many_pkey;
    DROP TABLE cut";

on_oldest_and_newest! {
    async fn pg_waldump_reads_filtered_log_with_what_stays_in_its_place(server: Server) -> Result<()> {
        let major = server.major();
        let compression = if major == 15 { "pglz" } else { "zstd" };
        let size = SegmentSize::try_from(1 << 20)?;
        let cluster = Cluster::builder(major)
            .wal_segment_size(size)
            .setting("wal_level = logical")
            .setting(&format!("wal_compression = {compression}"))
            .setting("wal_keep_size = 1GB")
            .setting("max_prepared_transactions = 5")
            .start()
            .await?;
        let start: Lsn = cluster.switch_wal().await?;
        let mut oids = Vec::new();
        for name in ["kept", "other"] {
            cluster.sql("postgres", &format!("CREATE DATABASE {name}")).await?;
            let client = cluster.connect(name).await?;
            mixed_data(&client, 2_000_000.into()).await?;
            for statement in CHANGES.split(';') {
                client.batch_execute(statement).await.with_context(|| statement.to_owned())?;
            }
            client.batch_execute("BEGIN; INSERT INTO many VALUES (-1); PREPARE TRANSACTION 'open'").await?;
            client.batch_execute("COMMIT PREPARED 'open'").await?;
            let oid = client.query_one("SELECT oid FROM pg_database WHERE datname = current_database()", &[]).await?;
            oids.push(oid.get::<_, u32>(0));
        }
        let [kept, other] = oids[..] else { unreachable!() };
        let end = cluster.switch_wal().await?;
        cluster.sql("postgres", "CREATE TABLE behind ()").await?;

        let source = cluster.data_directory().join("pg_wal");
        let place = Scratch::new()?;
        let filtered = place.private_directory("filtered")?;
        let version = MajorVersion::try_from(major)?;
        let databases = Databases::Only(BTreeSet::from([Oid::new(kept)]));
        let mut filter = WalFilter::new(WalDecoder::searching(version, size, start), size, databases);
        let name = |segment| SegmentName::new(TimelineId::FIRST, segment, size).to_string();
        let write = |piece: Piece| fs::write(filtered.join(name(size.segment_of(piece.start))), piece.bytes);
        let last = size.segment_of(end);
        for segment in size.segment_of(start)..=last {
            let bytes = fs::read(source.join(name(segment)))?;
            filter.push(Piece { start: size.start_of(segment), bytes })?;
            while let Some(piece) = filter.pop() {
                write(piece)?;
            }
        }
        while let Some(piece) = filter.finish() {
            write(piece)?;
        }
        let counts = filter.counts();
        assert_eq!(counts.unsure, 0, "{counts:?}");
        assert!(counts.neutralised * 3 > counts.records, "{counts:?}");

        let dump = async |directory: &std::path::Path| {
            let path = format!("--path={}", directory.display());
            cluster.server().run("pg_waldump", [path, format!("--start={start}"), format!("--end={end}")]).await
        };
        let before = dump(&source).await?;
        let after = dump(&filtered).await?;
        // rmgr: Heap len (rec/tot): 54/54, tx: 700, lsn: 0/01500028, prev 0/01500000, desc: …
        // Where it lies, and all but its link to the record before.
        let parts = |line: &str| -> Option<(Lsn, String)> {
            let (head, rest) = line.split_once("lsn:")?;
            let (lsn, rest) = rest.split_once(", prev")?;
            let (_, rest) = rest.split_once(',')?;
            Some((lsn.trim().parse().ok()?, format!("{head}{rest}")))
        };
        let lines = |text: &str| -> Result<Vec<(Lsn, String)>> {
            let records = text.lines().filter(|line| line.starts_with("rmgr:"));
            records.map(|line| parts(line).with_context(|| line.to_owned())).collect()
        };
        let mut unseen = lines(&before)?.into_iter().peekable();
        let foreign = [format!("/{other}/"), format!("db {other}"), format!("dbid {other}"), format!("database {other}")];
        let mut kinds = BTreeSet::new();
        let mut taken_out = 0;
        for (lsn, after) in lines(&after)? {
            let (start, before) = unseen.next().with_context(|| after.clone())?;
            assert_eq!(start, lsn, "{before} / {after}");
            // Ends of transactions and locks stay, whomever they concern.
            let whole = ["Transaction", "Standby"].iter().any(|kind| after.contains(&format!("rmgr: {kind}")));
            if !whole {
                assert!(!foreign.iter().any(|part| after.contains(part)), "{after}");
            }
            if before != after {
                assert!(after.contains("rmgr: XLOG") && after.contains("desc: NOOP"), "{after}");
                let mut take = |line: &str| {
                    let kind = line.split("desc: ").nth(1).and_then(|rest| rest.split(' ').next());
                    kinds.insert(kind.unwrap_or_default().to_owned());
                    taken_out += 1;
                };
                take(&before);
                // As far as its length reaches, page headers between.
                let total = after.split("len (rec/tot):").nth(1).and_then(|rest| rest.split('/').nth(1));
                let total: u64 = total.and_then(|text| text.split(',').next()).context("a length")?.trim().parse()?;
                let page = lsn.get() / 8192;
                while let Some((_, line)) = unseen.next_if(|(start, _)| {
                    start.get() / 8192 == page && start.get() < lsn.get() + total
                }) {
                    take(&line);
                }
            }
        }
        assert!(unseen.next().is_none(), "{:?}", unseen.next());
        assert_eq!(taken_out, counts.neutralised);
        for kind in ["REUSE_PAGE", "PAGE_REUSE", "TRUNCATE", "CREATE", "MESSAGE", "NEW_CID", "FPI", "UPDATE"] {
            assert!(kinds.contains(kind), "no {kind} of the other database among {kinds:?}");
        }
        Ok(())
    }
}
