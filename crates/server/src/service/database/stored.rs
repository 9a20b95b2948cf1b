//! Waiting until an instance's log is stored up to a position.

use std::time::{Duration, Instant};

use everpoint_engine::{
    database::deleted::latest_position, instance_record::WalSupply, log::receive::CUT_REQUEST,
    restore::Stored,
};
use everpoint_instance::{connect_sql, notifications::notify};
use everpoint_pgformat::Lsn;
use tokio::time::sleep;

use super::work::Teller;
use crate::{
    config::positive,
    service::{Observed, Service, operations::Failure},
};

/// How often it is looked at what is stored: at first, and at the most.
const POLLS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// How often the receiver is asked to store what it has.
const ASK_INTERVAL: Duration = Duration::from_secs(1);

impl Service {
    /// Waits until the log is stored up to `until`, behind a backup that it can be replayed on, for as long as the
    /// configuration says that a backup waits for its log.
    pub(super) async fn store_log_until(
        &self,
        observed: &Observed,
        until: Lsn,
        teller: &Teller,
    ) -> Result<(), Failure> {
        let limit = positive(self.config.backups.log_wait);
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
}

/// Has what streams cut, and what pushes switch to another segment.
async fn ask(observed: &Observed) -> Result<(), String> {
    let connection = &observed.connection;
    let session = connect_sql(connection, connection.database())
        .await
        .map_err(|error| crate::chain(&error))?;
    match observed.record.wal {
        WalSupply::Stream { .. } => notify(&session, CUT_REQUEST)
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
