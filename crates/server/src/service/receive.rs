//! Receiving an instance's log, all the time.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use everpoint_engine::{
    instance_record::WalSupply,
    log::receive::{DEFAULT_CUT_BYTES, ReceiveEvent, ReceivePlan, Until, receive},
};
use everpoint_instance::{InstanceLock, LockError, LockKind, connect_sql, replication::SlotName};
use everpoint_repository::{InstanceName, layout};
use tokio::sync::{Notify, watch};

use super::{Observed, Service, told};
use crate::config::positive;

/// How long to wait after receiving failed for a reason that does not pass by itself.
const PAUSE: Duration = Duration::from_secs(30);
/// The shortest `archive_timeout` that is asked for, in seconds: each switch stores a segment.
const SHORTEST_TIMEOUT_S: i64 = 60;
/// How long to wait while somebody else receives: a server that scheduled before may not be struck off yet.
const HELD_PAUSE: Duration = Duration::from_secs(3);

impl Service {
    /// Receives until told to end, while this server schedules. Calls `stored` whenever more can be restored.
    pub(super) async fn keep_receiving(
        self: &Arc<Self>,
        name: &InstanceName,
        stored: &Arc<Notify>,
        mut stop: watch::Receiver<bool>,
    ) {
        let mut lease = self.lease.subscribe();
        let mut settings = self.settings.subscribe();
        let mut records = self.records.subscribe();
        while !*stop.borrow() {
            if lease.borrow_and_update().is_none() {
                tokio::select! {
                    _ = lease.wait_for(Option::is_some) => continue,
                    () = told(&mut stop) => return,
                }
            }
            let interval = self.settings().backups.log_every;
            let (end, ending) = watch::channel(false);
            let record = || self.instance(name).map(|observed| observed.record.clone());
            records.borrow_and_update();
            let before = record();
            let receiving = self.receive_once(name, stored, positive(interval), ending);
            let received = receive_until(receiving, end, async {
                tokio::select! {
                    () = told(&mut stop) => {}
                    _ = lease.wait_for(Option::is_none) => {}
                    // It begins again with the new interval.
                    _ = settings.wait_for(|now| now.backups.log_every != interval) => {}
                    // And of the place that the instance is at now.
                    _ = records.wait_for(|_| record() != before) => {}
                }
            });
            let pause = match received.await {
                Ok(Ended::Told) => {
                    self.note_received(name, true);
                    Duration::ZERO
                }
                Ok(Ended::Itself) => PAUSE,
                Err(failure) => {
                    self.note_received(name, false);
                    tracing::error!(instance = %name, "log is not received: {}", failure.text);
                    match failure.is_held {
                        true => HELD_PAUSE,
                        false => PAUSE,
                    }
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = told(&mut stop) => return,
            }
        }
    }

    async fn receive_once(
        self: &Arc<Self>,
        name: &InstanceName,
        stored: &Arc<Notify>,
        interval: Duration,
        stop: watch::Receiver<bool>,
    ) -> Result<(), NotReceived> {
        let Some(observed) = self.instance(name) else {
            return Ok(());
        };
        let WalSupply::Stream { slot } = &observed.record.wal else {
            return self.look_at_pushes(&observed, interval).await;
        };
        let slot: SlotName = slot.parse().map_err(|error| failed(&error))?;
        self.end_strays(&observed).await;
        let connection = &observed.connection;
        let session = connect_sql(connection, connection.database())
            .await
            .map_err(|error| failed(&error))?;
        let lock = InstanceLock::try_acquire(session, LockKind::Receiver, name.as_str())
            .await
            .map_err(|error| NotReceived {
                text: crate::chain(&error),
                is_held: matches!(error, LockError::Held { .. } | LockError::Contended { .. }),
            })?;
        self.repository
            .store()
            .sweep_staged(&layout::logs(name))
            .map_err(|error| failed(&error))?;
        let plan = ReceivePlan {
            instance: name.clone(),
            record: observed.record.clone(),
            connection: connection.clone(),
            slot,
            interval,
            cut_bytes: DEFAULT_CUT_BYTES,
            until: Until::Told,
        };
        let (instance, stored) = (name.clone(), stored.clone());
        let service = self.clone();
        let listener = Arc::new(move |event| {
            match &event {
                ReceiveEvent::Streaming { .. } => service.note_received(&instance, true),
                ReceiveEvent::Waiting { .. } => service.note_received(&instance, false),
                _ => {}
            }
            tell(&instance, &stored, event);
        });
        let received = receive(&self.repository, &plan, stop, listener).await;
        lock.give_up().await;
        received.map_err(|error| failed(&error))
    }

    /// Whether a server that archives pushes its log itself, and often enough.
    async fn look_at_pushes(
        &self,
        observed: &Observed,
        interval: Duration,
    ) -> Result<(), NotReceived> {
        let connection = &observed.connection;
        let session = connect_sql(connection, connection.database())
            .await
            .map_err(|error| failed(&error))?;
        let row = session
            .query_one(ARCHIVER, &[])
            .await
            .map_err(|error| failed(&error))?;
        let read = || -> Result<Archiver, tokio_postgres::Error> {
            Ok(Archiver {
                is_on: row.try_get(0)?,
                timeout_s: row.try_get(1)?,
                failing: row.try_get(2)?,
            })
        };
        match read().map_err(|error| failed(&error))?.trouble(interval) {
            Some(text) => Err(NotReceived {
                text,
                is_held: false,
            }),
            None => {
                self.note_received(&observed.name, true);
                Ok(())
            }
        }
    }

    fn note_received(&self, name: &InstanceName, is_received: bool) {
        let mut names = self
            .not_received
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match is_received {
            true => names.remove(name),
            false => names.insert(name.clone()),
        };
    }

    /// How many instances' log is to be received here and is not.
    pub fn not_received(&self) -> usize {
        let names = self.not_received.lock();
        names.unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// What a server's archiver does. A file that it failed to archive is told of until it is archived.
const ARCHIVER: &str = "SELECT current_setting('archive_mode') <> 'off' \
        AND current_setting('archive_command') || current_setting('archive_library') <> '', \
    (SELECT setting::bigint FROM pg_settings WHERE name = 'archive_timeout'), \
    CASE WHEN last_failed_time > coalesce(last_archived_time, '-infinity') THEN last_failed_wal END \
    FROM pg_stat_archiver";

/// A server's archiver.
struct Archiver {
    /// By a command or a library.
    is_on: bool,
    /// How long a segment may lie there; 0 for as long as it takes to fill it.
    timeout_s: i64,
    /// The file that cannot be archived.
    failing: Option<String>,
}

impl Archiver {
    /// Why log is not pushed as often as it is to be stored.
    fn trouble(&self, interval: Duration) -> Option<String> {
        let most = i64::try_from(interval.as_secs()).unwrap_or(i64::MAX);
        // Less than some seconds would fill the repository with segments.
        let most = most.max(SHORTEST_TIMEOUT_S);
        if !self.is_on {
            return Some("archive_mode is off, or there is no archive_command: ALTER SYSTEM SET archive_mode = on (and restart the server), and archive_command to `everpoint wal push`".to_owned());
        }
        if let Some(file) = &self.failing {
            return Some(format!(
                "the server's archive_command fails for {file}; the server's log says why"
            ));
        }
        (self.timeout_s == 0 || self.timeout_s > most).then(|| {
            format!("the server pushes a segment when it is full, which may take long: ALTER SYSTEM SET archive_timeout = '{most}s'; SELECT pg_reload_conf();")
        })
    }
}

/// Why log is not received.
struct NotReceived {
    text: String,
    /// Somebody else receives it.
    is_held: bool,
}

fn failed(error: &dyn std::error::Error) -> NotReceived {
    NotReceived {
        text: crate::chain(error),
        is_held: false,
    }
}

/// How receiving ended.
enum Ended {
    /// It was told to.
    Told,
    /// By itself.
    Itself,
}

/// Receives until `until` ends; then tells it to end, and waits for what it stores last.
async fn receive_until(
    receiving: impl Future<Output = Result<(), NotReceived>>,
    end: watch::Sender<bool>,
    until: impl Future<Output = ()>,
) -> Result<Ended, NotReceived> {
    let mut receiving = std::pin::pin!(receiving);
    tokio::select! {
        received = receiving.as_mut() => received.map(|()| Ended::Itself),
        () = until => {
            // It may have ended in this moment.
            let _ = end.send(true);
            receiving.await.map(|()| Ended::Told)
        }
    }
}

fn tell(instance: &InstanceName, stored: &Notify, event: ReceiveEvent) {
    match event {
        ReceiveEvent::Streaming { from, timeline } => {
            tracing::info!(%instance, "streaming from {from} on timeline {timeline}");
        }
        ReceiveEvent::Stored(log) => {
            tracing::debug!(%instance, "stored log from {} to {}", log.start, log.end);
            stored.notify_one();
        }
        ReceiveEvent::Marked(_) => stored.notify_one(),
        ReceiveEvent::NotSummarised(error) => {
            let error = crate::chain(&error);
            tracing::warn!(%instance, "log is stored without a summary: {error}");
        }
        ReceiveEvent::Gap(gap) => {
            let (from, to) = (gap.from, gap.to);
            tracing::error!(%instance, "log from {from} to {to} is lost: {}", gap.reason);
            stored.notify_one();
        }
        ReceiveEvent::SlotMade { slot } => {
            tracing::warn!(%instance, "made replication slot `{slot}`, which was not there or had lost log");
        }
        ReceiveEvent::Waiting { error, pause } => {
            let error = crate::chain(&error);
            tracing::warn!(%instance, "{error}; trying again in {:.1} s", pause.as_secs_f64());
        }
        ReceiveEvent::NewTimeline {
            timeline,
            switch_at,
        } => {
            tracing::info!(%instance, "the server went on to timeline {timeline} at {switch_at}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_pushes_seldom_or_not_at_all_is_told_of() {
        let archiver = |is_on, timeout_s, failing: Option<&str>| {
            let failing = failing.map(str::to_owned);
            let archiver = Archiver {
                is_on,
                timeout_s,
                failing,
            };
            archiver.trouble(Duration::from_secs(300))
        };
        assert_eq!(archiver(true, 300, None), None);
        assert_eq!(archiver(true, 60, None), None);
        for (found, told) in [
            (archiver(false, 300, None), "archive_mode is off"),
            (archiver(true, 0, None), "archive_timeout = '300s'"),
            (archiver(true, 301, None), "archive_timeout = '300s'"),
            (archiver(true, 300, Some("0001")), "fails for 0001"),
        ] {
            assert!(found.is_some_and(|found| found.contains(told)), "{told}");
        }
    }
}
