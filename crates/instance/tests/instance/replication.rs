use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::{Context, Result, bail};
use everpoint_instance::{
    ReplicationClient, ReplicationError, StreamEvent, WalMode, WalStream, check,
    check::CheckName,
    connect_sql,
    replication::{DropActive, ReceiverStatus, ReplyWanted, SlotLifetime, SlotName, StreamStart},
    wal_control,
};
use everpoint_pgformat::{
    Lsn, TimelineId,
    wal::segment::{SegmentName, SegmentSize},
};
use everpoint_testkit::{Cluster, StopMode, on_every_version};

use crate::spec::spec;

fn slot() -> SlotName {
    "everpoint_test".parse().unwrap()
}

/// Received WAL by position, whole segments at the end.
#[derive(Default)]
struct Received {
    bytes: BTreeMap<Lsn, Vec<u8>>,
    end: Lsn,
}

impl Received {
    /// Takes events until everything up to `end` is there.
    async fn until(&mut self, stream: &mut WalStream, end: Lsn) -> Result<()> {
        while self.end < end {
            match stream.next().await? {
                StreamEvent::Data { start, bytes, .. } => {
                    assert!(self.end == Lsn::INVALID || start == self.end, "a gap");
                    self.end = start.advance(bytes.len() as u64);
                    self.bytes.insert(start, bytes.to_vec());
                }
                StreamEvent::KeepAlive {
                    reply_requested: true,
                    ..
                } => {
                    self.report(stream).await?;
                }
                StreamEvent::KeepAlive { .. } => {}
                other => bail!("{other:?}"),
            }
        }
        self.report(stream).await
    }

    async fn report(&self, stream: &mut WalStream) -> Result<()> {
        let status = ReceiverStatus {
            written: self.end,
            flushed: self.end,
            applied: self.end,
        };
        Ok(stream.send_status(status, ReplyWanted::No).await?)
    }

    /// Compares what was received with a segment file, which it must fill.
    fn compare(&self, pg_wal: &Path, segment: u64, timeline: TimelineId) -> Result<()> {
        let size = SegmentSize::DEFAULT;
        let name = SegmentName::new(timeline, segment, size);
        let file = std::fs::read(pg_wal.join(name.to_string()))?;
        let (start, end) = (size.start_of(segment), size.start_of(segment + 1));
        let received: Vec<u8> = self
            .bytes
            .range(start..end)
            .flat_map(|(_, b)| b.clone())
            .collect();
        assert_eq!(received.len(), file.len(), "{name}");
        assert!(received == file, "{name} differs");
        Ok(())
    }
}

/// Streams until something goes wrong.
async fn first_error(client: ReplicationClient, start: &StreamStart) -> ReplicationError {
    let mut stream = match client.start(start).await {
        Ok(stream) => stream,
        Err(error) => return error,
    };
    loop {
        if let Err(error) = stream.next().await {
            return error;
        }
    }
}

on_every_version! {
    async fn stream_equals_the_files_of_pg_wal(server: Server) -> Result<()> {
        let cluster = Cluster::builder(server.major()).setting("wal_keep_size = 1GB").start().await?;
        let spec = spec(&cluster)?;
        let mut replication = ReplicationClient::connect(&spec).await?;
        assert_eq!(replication.version()?, server.version());
        let identity = replication.identify_system().await?;
        let from = SegmentSize::DEFAULT.floor(identity.flushed);
        let mut stream = replication
            .start(&StreamStart { slot: None, from, timeline: identity.timeline })
            .await?;
        let client = connect_sql(&spec, "postgres").await?;
        client
            .batch_execute("CREATE TABLE public.t AS SELECT g, md5(g::text) FROM generate_series(1, 600000) g")
            .await?;
        let end = wal_control::switch_wal(&client).await?;
        let end = SegmentSize::DEFAULT.ceil(end);
        let mut received = Received::default();
        received.until(&mut stream, end).await?;
        let segments = SegmentSize::DEFAULT.segment_of(from)..SegmentSize::DEFAULT.segment_of(end);
        assert!(segments.clone().count() >= 3, "too little WAL for a test");
        for segment in segments {
            received.compare(&cluster.data_directory().join("pg_wal"), segment, identity.timeline)?;
        }
        let mut replication = stream.stop().await?;
        assert_eq!(replication.show("wal_level").await?, "replica");
        Ok(())
    }

    async fn slot_follows_what_is_reported_as_flushed(server: Server) -> Result<()> {
        let cluster = Cluster::builder(server.major()).start().await?;
        let spec = spec(&cluster)?;
        let mut replication = ReplicationClient::connect(&spec).await?;
        assert_eq!(replication.read_slot(&slot()).await?, None);
        let position = replication.create_slot(&slot(), SlotLifetime::Persistent).await?;
        let from = position.restart_lsn.context("nothing reserved")?;
        let timeline = position.timeline.context("no timeline")?;
        assert!(matches!(
            replication.create_slot(&slot(), SlotLifetime::Persistent).await,
            Err(ReplicationError::SlotExists { .. })
        ));
        let start = StreamStart { slot: Some(slot()), from, timeline };
        let mut stream = replication.start(&start).await?;
        let other = ReplicationClient::connect(&spec).await?;
        let error = other.start(&start).await.unwrap_err();
        assert!(matches!(error, ReplicationError::SlotInUse { .. }), "{error}");
        let client = connect_sql(&spec, "postgres").await?;
        let end = wal_control::switch_wal(&client).await?;
        Received::default().until(&mut stream, end).await?;
        let mut replication = stream.stop().await?;
        let position = replication.read_slot(&slot()).await?.context("no slot")?;
        assert!(position.restart_lsn >= Some(end));
        replication.drop_slot(&slot(), DropActive::Refuse).await?;
        assert!(matches!(
            replication.drop_slot(&slot(), DropActive::Refuse).await,
            Err(ReplicationError::SlotMissing { .. })
        ));
        let error = replication.start(&start).await.unwrap_err();
        assert!(matches!(error, ReplicationError::SlotMissing { .. }), "{error}");
        Ok(())
    }

    async fn end_of_a_timeline_names_the_next(server: Server) -> Result<()> {
        let cluster = Cluster::builder(server.major()).start().await?;
        let standby = cluster.make_standby().await?;
        let spec = spec(&standby)?;
        let mut replication = ReplicationClient::connect(&spec).await?;
        let identity = replication.identify_system().await?;
        let from = SegmentSize::DEFAULT.floor(identity.flushed);
        let start = StreamStart { slot: None, from, timeline: identity.timeline };
        let mut stream = replication.start(&start).await?;
        standby.promote().await?;
        let (next_timeline, switch_at) = loop {
            match stream.next().await? {
                StreamEvent::TimelineEnd { next_timeline, switch_at } => {
                    break (next_timeline, switch_at);
                }
                StreamEvent::ServerStopped => bail!("the server stopped"),
                _ => {}
            }
        };
        assert_eq!(next_timeline.get(), 2);
        let mut replication = stream.into_client().context("no client")?;
        let history = replication.timeline_history(next_timeline).await?.context("no history")?;
        assert_eq!(history.name, "00000002.history");
        assert_eq!(history.history.ancestors().first().map(|a| a.left_at), Some(switch_at));
        let file = std::fs::read(standby.data_directory().join("pg_wal/00000002.history"))?;
        assert_eq!(history.contents, file);

        // From the very position of the switch, there is nothing on the old timeline.
        let start = StreamStart { slot: None, from: switch_at, timeline: identity.timeline };
        let mut stream = replication.start(&start).await?;
        let event = stream.next().await?;
        assert_eq!(event, StreamEvent::TimelineEnd { next_timeline, switch_at });
        let replication = stream.into_client().context("no client")?;
        let start = StreamStart { slot: None, from: switch_at, timeline: next_timeline };
        let mut stream = replication.start(&start).await?;
        standby.sql("postgres", "CREATE TABLE after_promotion ()").await?;
        Received::default().until(&mut stream, switch_at.advance(1)).await?;
        let past = StreamStart { slot: None, from: switch_at.advance(1 << 30), timeline: identity.timeline };
        let error = stream.stop().await?.start(&past).await.unwrap_err();
        assert!(matches!(error, ReplicationError::NotInHistory { .. }), "{error}");
        Ok(())
    }

    async fn removed_wal_has_an_error_of_its_own(server: Server) -> Result<()> {
        let cluster = Cluster::builder(server.major()).start().await?;
        let spec = spec(&cluster)?;
        let mut replication = ReplicationClient::connect(&spec).await?;
        let identity = replication.identify_system().await?;
        let client = connect_sql(&spec, "postgres").await?;
        for _ in 0..3 {
            client.batch_execute("CREATE TABLE public.t (); DROP TABLE public.t").await?;
            wal_control::switch_wal(&client).await?;
            client.batch_execute("CHECKPOINT").await?;
        }
        let from = SegmentSize::DEFAULT.floor(identity.flushed);
        let start = StreamStart { slot: None, from, timeline: identity.timeline };
        let error = first_error(replication, &start).await;
        assert!(
            matches!(error, ReplicationError::WalRemoved { from: gone, .. } if gone == from),
            "{error}"
        );
        Ok(())
    }

    async fn slot_that_lost_its_wal_is_told_from_one_that_is_missing(server: Server) -> Result<()> {
        let cluster = Cluster::builder(server.major())
            .setting("max_slot_wal_keep_size = 1MB")
            .start()
            .await?;
        let spec = spec(&cluster)?;
        let mut replication = ReplicationClient::connect(&spec).await?;
        let position = replication.create_slot(&slot(), SlotLifetime::Persistent).await?;
        let client = connect_sql(&spec, "postgres").await?;
        for _ in 0..4 {
            client.batch_execute("CREATE TABLE public.t (); DROP TABLE public.t").await?;
            wal_control::switch_wal(&client).await?;
            client.batch_execute("CHECKPOINT").await?;
        }
        let report = check(&spec, None, &WalMode::Slot(slot())).await;
        let failed: Vec<_> = report.failed().map(|check| check.name).collect();
        assert_eq!(failed, [CheckName::ReplicationSlot], "{report}");
        let start = StreamStart {
            slot: Some(slot()),
            from: position.restart_lsn.context("nothing reserved")?,
            timeline: position.timeline.context("no timeline")?,
        };
        // Only 18 refuses such a slot; the others accept it and then miss its WAL.
        let error = first_error(replication, &start).await;
        match server.major() {
            15..=17 => assert!(matches!(error, ReplicationError::WalRemoved { .. }), "{error}"),
            _ => assert!(matches!(error, ReplicationError::SlotUnusable { .. }), "{error}"),
        }
        assert!(!error.is_transient());
        Ok(())
    }

    async fn dropped_waits_lose_no_event(server: Server) -> Result<()> {
        let cluster = Cluster::builder(server.major()).setting("wal_keep_size = 1GB").start().await?;
        let spec = spec(&cluster)?;
        let mut replication = ReplicationClient::connect(&spec).await?;
        let identity = replication.identify_system().await?;
        let from = SegmentSize::DEFAULT.floor(identity.flushed);
        cluster
            .sql("postgres", "CREATE TABLE t AS SELECT g, md5(g::text) FROM generate_series(1, 200000) g")
            .await?;
        let client = connect_sql(&spec, "postgres").await?;
        let end = SegmentSize::DEFAULT.ceil(wal_control::switch_wal(&client).await?);
        let start = StreamStart { slot: None, from, timeline: identity.timeline };
        let mut stream = replication.start(&start).await?;
        let mut received = Received::default();
        while received.end < end {
            let next = tokio::time::timeout(Duration::from_micros(50), stream.next());
            if let Ok(event) = next.await
                && let StreamEvent::Data { start, bytes, .. } = event?
            {
                assert!(received.end == Lsn::INVALID || start == received.end, "a gap");
                received.end = start.advance(bytes.len() as u64);
                received.bytes.insert(start, bytes.to_vec());
            }
        }
        for segment in SegmentSize::DEFAULT.segment_of(from)..SegmentSize::DEFAULT.segment_of(end) {
            received.compare(&cluster.data_directory().join("pg_wal"), segment, identity.timeline)?;
        }
        Ok(())
    }

    async fn server_that_stops_waits_for_the_receiver_and_says_so(server: Server) -> Result<()> {
        let mut cluster = Cluster::builder(server.major()).start().await?;
        let spec = spec(&cluster)?;
        let mut replication = ReplicationClient::connect(&spec).await?;
        let identity = replication.identify_system().await?;
        let from = SegmentSize::DEFAULT.floor(identity.flushed);
        let start = StreamStart { slot: None, from, timeline: identity.timeline };
        let mut stream = replication.start(&start).await?;
        // A stream that has not sent anything yet is ended like any other session.
        let StreamEvent::Data { .. } = stream.next().await? else {
            bail!("the log since {from} was expected");
        };
        let receive = async {
            let mut received = Received::default();
            loop {
                match stream.next().await? {
                    StreamEvent::Data { start, bytes, .. } => {
                        received.end = start.advance(bytes.len() as u64);
                    }
                    StreamEvent::KeepAlive { reply_requested, .. } => {
                        if reply_requested {
                            received.report(&mut stream).await?;
                        }
                    }
                    StreamEvent::ServerStopped => return Ok(received.end),
                    other => bail!("{other:?}"),
                }
            }
        };
        let (end, stopped) = tokio::join!(receive, cluster.stop(StopMode::Fast));
        stopped?;
        let control = std::fs::read(cluster.data_directory().join("global/pg_control"))?;
        let control = everpoint_pgformat::control::ControlFile::parse(&control)?;
        assert!(end? > control.checkpoint, "the shutdown checkpoint is not among what was received");
        Ok(())
    }
}
