//! How far a server's log goes: up to which moment all that was committed lies before a position.
//!
//! A stream does not tell. Its keepalives carry the end of what was *sent* and the time (`WalSndKeepalive` in
//! `src/backend/replication/walsender.c`), also while there is more to send; and a data message's time is taken
//! after the end that it carries. So the server is asked, the time before the position.

use std::time::Duration;

use everpoint_instance::{ConnectionSpec, SqlClient, connect_sql};
use everpoint_pgformat::{Lsn, ids::BLOCK_SIZE, wal::segment::SegmentSize};
use jiff::{SignedDuration, Timestamp};
use tokio::{
    task::{JoinError, JoinHandle},
    time::{Instant, sleep_until, timeout},
};

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
/// A commit that does not wait for the disk (`synchronous_commit = off`) is on it after so many `wal_writer_delay`s.
const FLUSH_DELAYS: i64 = 3;

/// On a primary, what is inserted may stay in memory for long if nothing of it is a commit. On a standby, commits that
/// were replayed are all that is known of the primary.
const QUERY: &str = "SELECT at, \
        CASE WHEN standby THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END::text, \
        CASE WHEN NOT standby THEN pg_current_wal_insert_lsn() END::text, \
        (SELECT setting::bigint FROM pg_settings WHERE name = 'wal_writer_delay') \
    FROM (SELECT standby, CASE WHEN standby THEN pg_last_xact_replay_timestamp() ELSE clock_timestamp() END AS at \
        FROM (SELECT pg_is_in_recovery() AS standby OFFSET 0) s OFFSET 0) t";

/// Up to when log is complete that ends at a position or later, by the server's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reach {
    flushed: (Lsn, Timestamp),
    inserted: Option<(Lsn, Timestamp)>,
}

impl Reach {
    /// The moment that was asked about.
    fn at(&self) -> Timestamp {
        self.inserted.unwrap_or(self.flushed).1
    }

    /// Up to when log is complete that ends here; `None` while it is not known to be so up to any moment.
    fn complete_at(&self, end: Lsn) -> Option<Timestamp> {
        let inside = |(lsn, at): (Lsn, Timestamp)| (lsn <= end).then_some(at);
        self.inserted
            .and_then(inside)
            .or_else(|| inside(self.flushed))
    }
}

/// Asks the server, in a session of its own, which is opened again when it is lost.
#[derive(Debug)]
pub(super) struct Prober {
    connection: ConnectionSpec,
    segment_size: SegmentSize,
    session: Option<SqlClient>,
}

impl Prober {
    pub(super) fn new(connection: ConnectionSpec, segment_size: SegmentSize) -> Self {
        Self {
            connection,
            segment_size,
            session: None,
        }
    }

    /// The answer, if there is one in time.
    async fn ask(mut self) -> (Self, Option<Reach>) {
        let reach = timeout(PATIENCE, self.try_ask()).await.ok().flatten();
        if reach.is_none() {
            self.session = None;
        }
        (self, reach)
    }

    async fn try_ask(&mut self) -> Option<Reach> {
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
        let row = session
            .query_one(QUERY, &[])
            .await
            .inspect_err(|error| tracing::debug!(%error, "cannot ask how far log goes"))
            .ok()?;
        self.session = Some(session);
        let at: Timestamp = row.try_get::<_, Option<Timestamp>>(0).ok()??;
        let lsn = |text: Option<String>| text?.parse().ok();
        let flushed: Lsn = lsn(row.try_get(1).ok()?)?;
        let inserted: Option<Lsn> = lsn(row.try_get(2).ok()?);
        let delay: i64 = row.try_get(3).ok()?;
        let before = match inserted {
            Some(_) => SignedDuration::from_millis(delay.saturating_mul(FLUSH_DELAYS)),
            None => SignedDuration::ZERO,
        };
        Some(Reach {
            flushed: (flushed, at.checked_sub(before).ok()?),
            inserted: inserted.map(|lsn| (end_of(lsn, self.segment_size), at)),
        })
    }
}

/// When the server is asked, and what it answered last.
#[derive(Debug)]
pub(super) struct Asking {
    /// While it is not asking.
    prober: Option<Prober>,
    task: Option<JoinHandle<(Prober, Option<Reach>)>>,
    asked_at: Instant,
    due: Instant,
    /// Somebody wants to know of a later moment than the task asks about.
    outdated: bool,
    reach: Option<Reach>,
}

impl Asking {
    /// Asks at once.
    pub(super) fn begin(prober: Prober) -> Self {
        let now = Instant::now();
        Self {
            prober: Some(prober),
            task: None,
            asked_at: now,
            due: now,
            outdated: false,
            reach: None,
        }
    }

    /// Asks when it is time to, and ends with each answer. While log that was told of has not come up to `end`, nothing
    /// is asked. May be dropped at any time.
    pub(super) async fn next(&mut self, end: Lsn) -> Result<(), JoinError> {
        loop {
            if let Some(task) = &mut self.task {
                let (prober, reach) = task.await?;
                self.task = None;
                self.prober = Some(prober);
                if !std::mem::take(&mut self.outdated) {
                    self.reach = reach;
                    return Ok(());
                }
                self.at_once();
            }
            if self.reach.is_some() && self.complete_at(end).is_none() {
                std::future::pending::<()>().await;
            }
            sleep_until(self.due).await;
            if let Some(prober) = self.prober.take() {
                self.asked_at = Instant::now();
                self.due = self.asked_at + IDLE_INTERVAL;
                self.task = Some(tokio::spawn(prober.ask()));
            }
        }
    }

    /// Log comes: what was known of the server will not do for long.
    pub(super) fn log_comes(&mut self) {
        self.due = self.due.min(self.asked_at + ASK_INTERVAL);
    }

    /// Asks again at once.
    pub(super) fn at_once(&mut self) {
        self.due = Instant::now();
    }

    /// Asks about now. What was asked about before is of no more use.
    pub(super) fn anew(&mut self) {
        self.settle();
        self.outdated = self.task.is_some();
        self.at_once();
    }

    /// Up to when log is complete that ends at `end`, and the moment that was asked about.
    pub(super) fn complete_at(&self, end: Lsn) -> Option<(Timestamp, Timestamp)> {
        let reach = self.reach?;
        Some((reach.complete_at(end)?, reach.at()))
    }

    /// The answer is of no more use.
    pub(super) fn settle(&mut self) {
        self.reach = None;
    }
}

/// The end of what was inserted. The position for the next record lies behind the header of its page, which is not
/// there yet.
fn end_of(next: Lsn, segment_size: SegmentSize) -> Lsn {
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

    #[test]
    fn more_is_known_the_more_there_is() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let reach = Reach {
            flushed: (lsn("0/100"), at(10)),
            inserted: Some((lsn("0/200"), at(11))),
        };
        assert_eq!(reach.complete_at(lsn("0/F8")), None);
        assert_eq!(reach.complete_at(lsn("0/1F8")), Some(at(10)));
        assert_eq!(reach.complete_at(lsn("0/200")), Some(at(11)));
    }
}
