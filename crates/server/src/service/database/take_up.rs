//! Taking up what an earlier run of the service left: what had come so far is finished, anything less is undone
//! and begun anew, a few times.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use everpoint_engine::{
    database::{self, journal::Journal, sweep::End},
    transplant::Gate,
};
use everpoint_repository::InstanceName;
use tokio::time::sleep;
use uuid::Uuid;

use crate::{
    audit::Outcome,
    catalog::{CatalogError, DatabaseOperation, EventRow, OperationKind, OperationState},
    service::{Service, operations::Failure},
};

/// How often an operation is begun that the service's end interrupts. One that ends the service by itself does so
/// at most so many times.
const MAX_ATTEMPTS: u32 = 3;
/// How long is waited for an instance to be looked at, when what became of a restore in it is known before.
const KNOWN_LIMIT: Duration = Duration::from_secs(30);
const KNOWN_POLL: Duration = Duration::from_millis(100);

impl Service {
    /// Takes up what is left. False when something cannot be settled yet, such as when a server does not answer.
    pub(super) async fn take_up(&self) -> bool {
        let swept = match database::sweep(&self.repository, &self.config.scratch(), |journal| {
            self.gate_of(journal)
        })
        .await
        {
            Ok(swept) => swept,
            Err(error) => {
                tracing::error!(error = %crate::chain(&error), "the scratch directory cannot be cleaned up");
                return false;
            }
        };
        let mut unsettled = Vec::new();
        for swept in &swept {
            let id = swept
                .journal
                .as_ref()
                .and_then(|journal| journal.operation.as_deref());
            let id = id.and_then(|id| Uuid::try_parse(id).ok());
            let path = swept.path.display();
            match (&swept.end, id) {
                (End::Kept(error), _) => {
                    let error = crate::chain(error);
                    tracing::warn!(
                        "the restore in {path} cannot be brought to an end yet: {error}"
                    );
                    unsettled.push((id, error));
                }
                (End::Finished(name), Some(id)) => self.settle_finished(id, name).await,
                (end, _) => tracing::info!("cleaned up after the restore in {path}: {end:?}"),
            }
            if let Some(error) = &swept.left {
                let error = crate::chain(error);
                tracing::warn!(
                    "{path} cannot be removed: {error}. It is tried again when the service starts"
                );
            }
        }
        let settled = match self.settle_rest(&unsettled).await {
            Ok(()) => unsettled.is_empty(),
            Err(error) => {
                tracing::error!(error = %crate::chain(&error), "the catalog failed");
                false
            }
        };
        self.databases.changed.notify_one();
        settled
    }

    /// Before a restore that was interrupted is brought to its end: whether it still is to be, which it is not when it
    /// was cancelled meanwhile, or another server has begun it anew.
    fn gate_of(&self, journal: &Journal) -> Option<Gate> {
        let id = Uuid::try_parse(journal.operation.as_deref()?).ok()?;
        let (catalog, server) = (self.catalog.clone(), self.databases.server.clone());
        Some(Arc::new(move |made| {
            let (catalog, server) = (catalog.clone(), server.clone());
            Box::pin(async move {
                match catalog.database_operation(id).await? {
                    Some(found) if found.server == server => {
                        Ok(catalog.set_made(&found, made).await?)
                    }
                    _ => Ok(false),
                }
            })
        }))
    }

    async fn settle_finished(&self, id: Uuid, name: &str) {
        let found = match self.catalog.database_operation(id).await {
            // One that another server has taken over is that one's to end.
            Ok(found) => found.filter(|found| {
                found.row.ended_at.is_none()
                    && found.server == self.databases.server
                    && self.pace(found.row.id).is_none()
            }),
            Err(error) => {
                tracing::error!(error = %crate::chain(&error), "the catalog failed");
                return;
            }
        };
        let Some(operation) = found else { return };
        let text =
            format!("the service ended while this ran; `{name}` was complete, and is online");
        self.note(id, event(text)).await;
        if let Ok(instance) = operation.row.instance.parse() {
            self.wait_until_known(&instance).await;
            self.look_at_server(&instance).await;
            if let Some(text) = self.keep_tags(&operation).await {
                self.note(id, event(text.to_owned())).await;
            }
        }
        self.end_as(&operation, OperationState::Succeeded, None)
            .await;
    }

    /// The instances are met one after the other when the service starts.
    async fn wait_until_known(&self, instance: &InstanceName) {
        let begun = Instant::now();
        while begun.elapsed() < KNOWN_LIMIT {
            if self
                .instance(instance)
                .is_some_and(|found| found.restorable.is_some())
            {
                return;
            }
            sleep(KNOWN_POLL).await;
        }
    }

    /// What had begun here and is not at work now.
    async fn settle_rest(&self, unsettled: &[(Option<Uuid>, String)]) -> Result<(), CatalogError> {
        for operation in self.catalog.open_database_operations().await? {
            let row = &operation.row;
            let ours = operation.server == self.databases.server
                && row.state != OperationState::Pending
                && self.pace(row.id).is_none();
            if !ours {
                continue;
            }
            let kept = unsettled.iter().find(|(id, _)| *id == Some(row.id));
            match kept {
                Some((_, why)) => {
                    if !self.databases.is_first_told(row.id) {
                        continue;
                    }
                    let text =
                        format!("what an interrupted attempt left cannot be removed yet: {why}");
                    self.note(row.id, event(text)).await;
                }
                None => {
                    let text = match row.kind {
                        OperationKind::Restore => {
                            "the service ended while this ran. What it had made was removed, and it begins anew"
                        }
                        _ => "the service ended while this ran; it goes on",
                    };
                    self.go_on(&operation, text).await?;
                }
            }
        }
        Ok(())
    }

    /// Puts back into the queue what servers had begun that are gone. What a restore had made on the instance is removed
    /// by the next one there; its scratch directory, when its server starts again.
    pub(in crate::service) async fn take_over(&self) -> Result<(), CatalogError> {
        for operation in self.catalog.abandoned_database_operations().await? {
            tracing::warn!(operation = %operation.row.id, server = operation.server, "its server is gone");
            let text = "the server that worked on this is gone; another one begins it anew";
            self.go_on(&operation, text).await?;
        }
        Ok(())
    }

    /// Ends what was to be cancelled or was tried too often, and puts anything else back into the queue.
    async fn go_on(&self, operation: &DatabaseOperation, text: &str) -> Result<(), CatalogError> {
        let row = &operation.row;
        if row.state == OperationState::CancelInProgress {
            let failure = Failure {
                code: super::queue::CANCELLED.0,
                text: super::queue::CANCELLED.1.to_owned(),
            };
            self.end_as(operation, OperationState::Cancelled, Some(failure))
                .await;
            return Ok(());
        }
        if operation.attempts >= MAX_ATTEMPTS {
            let failure = Failure {
                code: "OperationInterrupted",
                text: format!(
                    "the service ended {} times while this ran. See the service's log, and ask for it again",
                    operation.attempts
                ),
            };
            self.end_as(operation, OperationState::Failed, Some(failure))
                .await;
            return Ok(());
        }
        self.note(row.id, event(text.to_owned())).await;
        self.audit_database(
            operation,
            Outcome::Failed,
            "interrupted, and put back into the queue",
        );
        self.catalog.requeue_database_operation(operation).await?;
        self.databases.changed.notify_one();
        Ok(())
    }
}

fn event(message: String) -> EventRow {
    EventRow {
        time: jiff::Timestamp::now(),
        message,
    }
}
