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
    /// Receives until told to end. Calls `stored` whenever more can be restored.
    pub(super) async fn keep_receiving(
        &self,
        name: &InstanceName,
        stored: &Arc<Notify>,
        mut stop: watch::Receiver<bool>,
    ) {
        while !*stop.borrow() {
            if let Err(text) = self.receive_once(name, stored, stop.clone()).await {
                tracing::error!(instance = %name, "log is not received: {text}");
            }
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = told(&mut stop) => return,
            }
        }
    }

    async fn receive_once(
        &self,
        name: &InstanceName,
        stored: &Arc<Notify>,
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
            interval: positive(self.config.backups.log_every),
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

fn tell(instance: &InstanceName, stored: &Notify, event: ReceiveEvent) {
    match event {
        ReceiveEvent::Streaming { from, timeline } => {
            tracing::info!(%instance, "streaming from {from} on timeline {timeline}");
        }
        ReceiveEvent::Stored(log) => {
            tracing::debug!(%instance, "stored log from {} to {}", log.start, log.end);
            stored.notify_one();
        }
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
