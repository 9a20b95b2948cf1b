//! How far a server's log goes: up to which moment all that was committed lies before a position.
//!
//! A stream does not tell. Its keepalives carry the end of what was *sent* and the time (`WalSndKeepalive` in
//! `src/backend/replication/walsender.c`), also while there is more to send; and a data message's time is taken
//! after the end that it carries. So the server is asked, the time before the position.
//!
//! On a primary the position is the end of what is inserted, not of what is on its disk: a commit that does not wait
//! for the disk (`synchronous_commit = off`) is acknowledged before, and how long before, a WAL writer that waits for
//! the disk itself does not bound. Log only arrives once it is on the server's disk, so answers are kept until then.

use std::time::Duration;

use everpoint_instance::{ConnectionSpec, SqlClient, connect_sql, facts::TIMELINE};
use everpoint_pgformat::{
    Lsn, SystemIdentifier, TimelineId, ids::BLOCK_SIZE, wal::segment::SegmentSize,
};
use jiff::Timestamp;
use tokio::{
    task::{JoinError, JoinHandle},
    time::{Instant, sleep_until, timeout},
};

use crate::instance_record::InstanceRecord;

/// How often the server is asked while log comes.
const ASK_INTERVAL: Duration = Duration::from_secs(1);
/// How often it is asked while none comes.
const IDLE_INTERVAL: Duration = Duration::from_secs(10);
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// What begins a page of log (`SizeOfXLogShortPHD`), and a segment (`SizeOfXLogLongPHD`).
const PAGE_HEADER: u64 = 24;
/// See [`PAGE_HEADER`].
const SEGMENT_HEADER: u64 = 40;
/// Answers that are kept until the log they tell of has come. Of more, every second one is.
const MAX_ANSWERS: usize = 64;

/// On a standby, commits that were replayed are all that is known of the primary.
///
/// Whoever answers may be another server than the one that sends log: what took its address, or another of several
/// hosts. So it also says which cluster it is, and, last, on which timeline.
const QUERY: [&str; 3] = [
    "SELECT at, \
        CASE WHEN standby THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END::text, \
        (SELECT system_identifier FROM pg_control_system()), ",
    TIMELINE,
    " FROM (SELECT standby, CASE WHEN standby THEN pg_last_xact_replay_timestamp() ELSE clock_timestamp() END AS at \
        FROM (SELECT pg_is_in_recovery() AS standby OFFSET 0) s OFFSET 0) t",
];

/// What was committed up to a moment of the server's clock lies before a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reach {
    /// How many times the server had been asked, this time included.
    pub(super) number: u64,
    end: Lsn,
    pub(super) at: Timestamp,
}

/// Asks the server, in a session of its own, which is opened again when it is lost.
#[derive(Debug)]
pub(super) struct Prober {
    connection: ConnectionSpec,
    system_identifier: SystemIdentifier,
    timeline: TimelineId,
    segment_size: SegmentSize,
    session: Option<SqlClient>,
}

impl Prober {
    /// For log of a timeline of an instance.
    pub(super) fn new(
        connection: ConnectionSpec,
        record: &InstanceRecord,
        timeline: TimelineId,
    ) -> Self {
        Self {
            connection,
            system_identifier: record.system_identifier,
            timeline,
            segment_size: record.segment_size,
            session: None,
        }
    }

    /// The answer, if there is one: a connection has limits of its own, and the answer [`PATIENCE`].
    async fn ask(mut self, number: u64) -> (Self, Option<Reach>) {
        let reach = self.try_ask(number).await;
        if reach.is_none() {
            self.session = None;
        }
        (self, reach)
    }

    async fn try_ask(&mut self, number: u64) -> Option<Reach> {
        let session = match self.session.take() {
            Some(session) => session,
            None => {
                let opened = connect_sql(&self.connection, self.connection.database()).await;
                opened
                    .inspect_err(
                        |error| tracing::debug!(%error, "no session to ask how far log goes"),
                    )
                    .ok()?
            }
        };
        let query = QUERY.concat();
        let row = timeout(PATIENCE, session.query_one(&query, &[]))
            .await
            .inspect_err(|_| tracing::debug!("no answer how far log goes"))
            .ok()?
            .inspect_err(|error| tracing::debug!(%error, "cannot ask how far log goes"))
            .ok()?;
        let cluster: i64 = row.try_get(2).ok()?;
        let timeline: i32 = row.try_get(3).ok()?;
        let timeline = u32::try_from(timeline).ok().and_then(TimelineId::new);
        if SystemIdentifier::new(cluster.cast_unsigned()) != self.system_identifier
            || timeline != Some(self.timeline)
        {
            tracing::debug!(?timeline, "another server answers how far its log goes");
            return None;
        }
        self.session = Some(session);
        let at: Timestamp = row.try_get::<_, Option<Timestamp>>(0).ok()??;
        let end = row.try_get::<_, Option<String>>(1).ok()??.parse().ok()?;
        let end = end_of(end, self.segment_size);
        Some(Reach { number, end, at })
    }
}

/// When the server is asked, and what it answered.
#[derive(Debug)]
pub(super) struct Asking {
    /// While it is not asking.
    prober: Option<Prober>,
    task: Option<JoinHandle<(Prober, Option<Reach>)>>,
    /// How many times it has asked.
    asked: u64,
    asked_at: Instant,
    due: Instant,
    /// Answers about log that has not come yet.
    answers: Vec<Reach>,
    /// How far apart their numbers are, but for the last.
    stride: u64,
}

impl Asking {
    /// Asks at once.
    pub(super) fn begin(prober: Prober) -> Self {
        Self::new(Some(prober))
    }

    fn new(prober: Option<Prober>) -> Self {
        let now = Instant::now();
        Self {
            prober,
            task: None,
            asked: 0,
            asked_at: now,
            due: now,
            answers: Vec::new(),
            stride: 1,
        }
    }

    /// Asks when it is time to, and ends with each answer. May be dropped at any time.
    pub(super) async fn next(&mut self) -> Result<(), JoinError> {
        loop {
            if let Some(task) = &mut self.task {
                let (prober, reach) = task.await?;
                self.task = None;
                self.prober = Some(prober);
                if let Some(reach) = reach {
                    self.keep(reach);
                }
                return Ok(());
            }
            sleep_until(self.due).await;
            if let Some(prober) = self.prober.take() {
                self.asked += 1;
                self.asked_at = Instant::now();
                self.due = self.asked_at + IDLE_INTERVAL;
                self.task = Some(tokio::spawn(prober.ask(self.asked)));
            }
        }
    }

    fn keep(&mut self, reach: Reach) {
        match self.answers[..] {
            [] => self.stride = 1,
            [.., before, last] if last.number - before.number < self.stride => {
                self.answers.pop();
            }
            _ => {}
        }
        self.answers.push(reach);
        if self.answers.len() > MAX_ANSWERS {
            let mut kept = false;
            self.answers.retain(|_| {
                kept = !kept;
                kept
            });
            self.stride *= 2;
        }
    }

    /// Log comes: what was known of the server will not do for long.
    pub(super) fn log_comes(&mut self) {
        self.due = self.due.min(self.asked_at + ASK_INTERVAL);
    }

    /// Asks at once, or as soon as it has been answered, and tells the number of that answer: about now, or later.
    pub(super) fn anew(&mut self) -> u64 {
        self.due = Instant::now();
        self.asked + 1
    }

    /// The last answer that log bears out which ends at `end`, once.
    pub(super) fn reached(&mut self, end: Lsn) -> Option<Reach> {
        let mut reached = None;
        self.answers.retain(|answer| {
            let inside = answer.end <= end;
            if inside {
                reached = Some(*answer);
            }
            !inside
        });
        reached
    }
}

/// The end of what was inserted, by `pg_current_wal_insert_lsn()`: the position for the next record, which at the
/// beginning of a page lies behind a header that is not there yet.
pub fn end_of(next: Lsn, segment_size: SegmentSize) -> Lsn {
    let segment = segment_size.floor(next);
    let in_segment = next.bytes_since(segment);
    let in_page = in_segment % BLOCK_SIZE as u64;
    match (in_segment, in_page) {
        (SEGMENT_HEADER, _) => segment,
        (_, PAGE_HEADER) => segment.advance(in_segment - PAGE_HEADER),
        _ => next,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lsn(text: &str) -> Lsn {
        text.parse().unwrap()
    }

    #[test]
    fn position_behind_a_header_is_the_end_before_it() {
        let size = SegmentSize::try_from(16 << 20).unwrap();
        for (next, end) in [
            ("0/3000028", "0/3000000"),
            ("0/3002018", "0/3002000"),
            ("0/3002028", "0/3002028"),
            ("0/3002000", "0/3002000"),
        ] {
            assert_eq!(end_of(lsn(next), size), lsn(end), "{next}");
        }
    }

    fn reach(number: u64) -> Reach {
        Reach {
            number,
            end: Lsn::new(number * 100),
            at: Timestamp::from_second(number.cast_signed()).unwrap(),
        }
    }

    #[test]
    fn answer_holds_once_its_log_has_come() {
        let mut asking = Asking::new(None);
        for number in 1..=3 {
            asking.keep(reach(number));
        }
        assert_eq!(asking.reached(Lsn::new(99)), None);
        assert_eq!(asking.reached(Lsn::new(299)), Some(reach(2)));
        assert_eq!(asking.reached(Lsn::new(299)), None);
        assert_eq!(asking.reached(Lsn::new(300)), Some(reach(3)));
    }

    #[test]
    fn answers_about_log_that_does_not_come_are_bounded() {
        let mut asking = Asking::new(None);
        for number in 1..=1000 {
            asking.keep(reach(number));
            assert!(asking.answers.len() <= MAX_ANSWERS);
        }
        let known = asking.reached(Lsn::new(50_000)).unwrap();
        assert!(known.number > 450 && known.number <= 500, "{known:?}");
        assert_eq!(asking.reached(Lsn::new(100_000)), Some(reach(1000)));
        assert_eq!(asking.answers, []);
    }
}
