//! Receiving an instance's log, all the time.

use std::{sync::Arc, time::Duration};

use everpoint_engine::{
    instance_record::WalSupply,
    log::receive::{DEFAULT_CUT_BYTES, ReceiveEvent, ReceivePlan, Until, receive},
};
use everpoint_instance::{InstanceLock, LockKind, connect_sql, replication::SlotName};
use everpoint_repository::{InstanceName, layout};
use tokio::sync::{Notify, watch};

use super::{Service, told};
use crate::config::positive;

/// How long to wait after receiving failed for a reason that does not pass by itself.
const PAUSE: Duration = Duration::from_secs(30);

impl Service {
    /// Receives until told to end, while this server schedules. Calls `stored` whenever more can be restored.
    pub(super) async fn keep_receiving(
        &self,
        name: &InstanceName,
        stored: &Arc<Notify>,
        mut stop: watch::Receiver<bool>,
    ) {
        let mut lease = self.lease.subscribe();
        let mut settings = self.settings.subscribe();
        while !*stop.borrow() {
            if lease.borrow_and_update().is_none() {
                tokio::select! {
                    _ = lease.wait_for(Option::is_some) => continue,
                    () = told(&mut stop) => return,
                }
            }
            let interval = self.settings().backups.log_every;
            let (end, ending) = watch::channel(false);
            let receiving = self.receive_once(name, stored, positive(interval), ending);
            let received = receive_until(receiving, end, async {
                tokio::select! {
                    () = told(&mut stop) => {}
                    _ = lease.wait_for(Option::is_none) => {}
                    // It begins again with the new interval.
                    _ = settings.wait_for(|now| now.backups.log_every != interval) => {}
                }
            });
            let pause = match received.await {
                Ok(Ended::Told) => Duration::ZERO,
                Ok(Ended::Itself) => PAUSE,
                Err(text) => {
                    tracing::error!(instance = %name, "log is not received: {text}");
                    PAUSE
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = told(&mut stop) => return,
            }
        }
    }

    async fn receive_once(
        &self,
        name: &InstanceName,
        stored: &Arc<Notify>,
        interval: Duration,
        stop: watch::Receiver<bool>,
    ) -> Result<(), String> {
        let Some(observed) = self.instance(name) else {
            return Ok(());
        };
        // A server that archives pushes its log itself.
        let WalSupply::Stream { slot } = &observed.record.wal else {
            return Ok(());
        };
        let slot: SlotName = slot.parse().map_err(|error| crate::chain(&error))?;
        let connection = &observed.connection;
        let session = connect_sql(connection, connection.database())
            .await
            .map_err(|error| crate::chain(&error))?;
        let lock = InstanceLock::try_acquire(session, LockKind::Receiver, name.as_str())
            .await
            .map_err(|error| crate::chain(&error))?;
        self.repository
            .store()
            .sweep_staged(&layout::logs(name))
            .map_err(|error| crate::chain(&error))?;
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
        let listener = Arc::new(move |event| tell(&instance, &stored, event));
        let received = receive(&self.repository, &plan, stop, listener).await;
        lock.give_up().await;
        received.map_err(|error| crate::chain(&error))
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
    receiving: impl Future<Output = Result<(), String>>,
    end: watch::Sender<bool>,
    until: impl Future<Output = ()>,
) -> Result<Ended, String> {
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
