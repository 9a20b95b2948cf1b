//! Having an instance's log stored up to a position, or up to a moment.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use everpoint_engine::{
    database::deleted::latest_position,
    instance_record::WalSupply,
    log::{end_of, receive::CUT_REQUEST},
    restore::Stored,
};
use everpoint_instance::{SqlClient, connect_sql, notifications::notify};
use everpoint_pgformat::Lsn;
use jiff::Timestamp;
use tokio::time::{sleep, timeout};

use super::work::Teller;
use crate::{
    catalog::DatabaseRow,
    config::positive,
    service::{Observed, Service, operations::Failure},
};

/// How often it is looked at what is stored: at first, and at the most.
const POLLS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// How often the receiver is asked to store what it has.
const ASK_INTERVAL: Duration = Duration::from_secs(1);
/// How long a request waits for log that a server has written and that is not stored yet.
const HURRY: Duration = Duration::from_secs(5);

impl Service {
    /// Waits until the log is stored up to `until`, behind a backup that it can be replayed on, for as long as the
    /// configuration says that a backup waits for its log.
    pub(super) async fn store_log_until(
        &self,
        observed: &Observed,
        until: Lsn,
        teller: &Teller,
    ) -> Result<(), Failure> {
        let limit = positive(self.settings().backups.log_wait);
        let begun = Instant::now();
        let mut asked: Option<Instant> = None;
        let mut pause = POLLS.0;
        loop {
            let stored = Stored::read(&self.repository, &observed.name, None).await;
            let stored = stored.map_err(|error| missing(&crate::chain(&error)))?;
            let reached = latest_position(&stored);
            if reached >= until {
                return Ok(());
            }
            if teller.progress.is_cancelled() {
                return Err(missing("it is waited for no longer"));
            }
            if begun.elapsed() >= limit {
                return Err(match stored.backups.is_empty() {
                    true => Failure {
                        code: "FullBackupNotFound",
                        text: "the instance has no full backup yet, so nothing of it could be had back. Wait for the first one, which is taken by itself".to_owned(),
                    },
                    false => missing(&format!(
                        "it is stored up to {reached}, and {until} was waited for. See why it is not received"
                    )),
                });
            }
            if asked.is_none_or(|asked| asked.elapsed() >= ASK_INTERVAL) {
                asked = Some(Instant::now());
                if let Err(error) = ask(observed).await {
                    teller.say(format!(
                        "the log's receiver cannot be asked to hurry: {error}"
                    ));
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(POLLS.1);
        }
    }

    /// Has log that the server has written by now stored.
    pub(super) async fn store_log_until_now(
        &self,
        observed: &Observed,
        teller: &Teller,
    ) -> Result<(), Failure> {
        let now = async {
            let connection = &observed.connection;
            let session = connect_sql(connection, connection.database())
                .await
                .map_err(|error| crate::chain(&error))?;
            position(&session, observed)
                .await
                .map_err(|error| crate::chain(&error))
        };
        let now = now.await.map_err(|error| missing(&error))?;
        self.store_log_until(observed, now, teller).await
    }

    /// What is known of an instance once its log is stored as far as `point`. That is what is known of it now when
    /// `point` is still to come, or `row` can be restored to it already, or the log cannot be had within [`HURRY`].
    pub async fn with_log_of(
        &self,
        observed: Arc<Observed>,
        row: &DatabaseRow,
        point: Timestamp,
    ) -> Arc<Observed> {
        let is_later = |observed: &Observed| {
            let points = observed.points(row, Timestamp::now());
            points.is_none_or(|points| points.latest < point)
        };
        let end = row.deleted_at.unwrap_or_else(Timestamp::now);
        if point > end || !is_later(&observed) {
            return observed;
        }
        let name = observed.name.clone();
        let hurrying = async {
            let (mut asked, mut pause) = (None::<Instant>, POLLS.0);
            loop {
                if asked.is_none_or(|asked| asked.elapsed() >= ASK_INTERVAL) {
                    asked = Some(Instant::now());
                    if let Err(error) = ask(&observed).await {
                        tracing::warn!(instance = %name, "the log's receiver cannot be asked to hurry: {error}");
                        return;
                    }
                }
                sleep(pause).await;
                pause = (pause * 2).min(ASK_INTERVAL);
                self.look_at_repository(&name).await;
                if self.instance(&name).is_none_or(|found| !is_later(&found)) {
                    return;
                }
            }
        };
        // It says itself, by what is known afterwards, how far it came.
        let _ = timeout(HURRY, hurrying).await;
        self.instance(&name).unwrap_or(observed)
    }
}

/// The end of an instance's log as it is now.
pub(super) async fn position(
    session: &SqlClient,
    observed: &Observed,
) -> Result<Lsn, tokio_postgres::Error> {
    let sql = "SELECT (pg_current_wal_insert_lsn() - '0/0')::int8";
    let position: i64 = session.query_one(sql, &[]).await?.try_get(0)?;
    let next = Lsn::new(u64::try_from(position).unwrap_or(0));
    // The header of a segment that has just begun would be waited for until something is written.
    Ok(end_of(next, observed.record.segment_size))
}

/// Has an instance's log stored soon, by a session of its own.
async fn ask(observed: &Observed) -> Result<(), String> {
    let connection = &observed.connection;
    let session = connect_sql(connection, connection.database())
        .await
        .map_err(|error| crate::chain(&error))?;
    hurry(&session, observed).await
}

/// Has what streams cut, and what pushes switch to another segment.
pub(in crate::service) async fn hurry(
    session: &SqlClient,
    observed: &Observed,
) -> Result<(), String> {
    match observed.record.wal {
        WalSupply::Stream { .. } => notify(session, CUT_REQUEST)
            .await
            .map_err(|error| crate::chain(&error)),
        WalSupply::Push => session
            .batch_execute("SELECT pg_switch_wal()")
            .await
            .map_err(|error| crate::chain(&error)),
    }
}

fn missing(why: &str) -> Failure {
    Failure {
        code: "LogNotStored",
        text: format!("the instance's log is not stored: {why}"),
    }
}
