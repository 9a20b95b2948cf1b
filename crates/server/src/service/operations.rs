//! Operations while they run: written down as they go on, and cancelled.

use std::{sync::PoisonError, time::Duration};

use everpoint_api::{ApiError, Code};
use everpoint_engine::progress::Progress;
use everpoint_repository::InstanceName;
use jiff::Timestamp;
use tokio::time::sleep;
use uuid::Uuid;

use super::Service;
use crate::{
    audit::Outcome,
    catalog::{CatalogError, EventRow, OperationId, OperationKind, OperationRow, OperationState},
};

/// How often progress is written down.
const NOTE_INTERVAL: Duration = Duration::from_secs(1);
/// Events that wait to be written down.
const WAITING_EVENTS: usize = 256;
/// How long is waited before what could not be written down is tried again: at first, and at the most.
const RETRY_PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// How often it is tried when the service ends.
const LAST_ATTEMPTS: u32 = 3;
/// The longest text of an error that is kept.
const MAX_ERROR_CHARS: usize = 4000;

/// Why an operation did not succeed: a code, and a text for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Its code.
    pub code: &'static str,
    /// What happened and what to do.
    pub text: String,
}

impl Service {
    /// Runs an operation and writes down how it begins, goes on and ends. `work` gets the progress, and a
    /// place to tell what happens.
    pub(super) async fn operate<T>(
        &self,
        kind: OperationKind,
        instance: &InstanceName,
        work: impl AsyncFnOnce(&Progress, &(dyn Fn(String) + Sync)) -> Result<T, Failure>,
    ) -> Option<T> {
        let row = OperationRow {
            id: Uuid::new_v4(),
            kind,
            instance: instance.to_string(),
            actor: "service".to_owned(),
            state: OperationState::InProgress,
            phase: "starting".to_owned(),
            total_bytes: 0,
            done_bytes: 0,
            stored_bytes: 0,
            started_at: Timestamp::now(),
            ended_at: None,
            error: None,
        };
        if !self.begin(&row).await {
            return None;
        }
        let progress = Progress::default();
        self.set_running(row.id, Some(progress.clone()));
        let (tell, mut told) = tokio::sync::mpsc::channel(WAITING_EVENTS);
        let noting = async {
            let mut beat = tokio::time::interval(NOTE_INTERVAL);
            loop {
                tokio::select! {
                    event = told.recv() => match event {
                        Some(event) => self.note(row.id, event).await,
                        None => return,
                    },
                    _ = beat.tick() => {
                        match self.catalog.note_progress(row.id, &progress.read()).await {
                            // Another server was asked to cancel it.
                            Ok(Some(OperationState::CancelInProgress)) => progress.cancel(),
                            Ok(_) => {}
                            Err(error) => {
                                tracing::warn!(error = %crate::chain(&error), "the catalog failed");
                            }
                        }
                    }
                }
            }
        };
        let working = async {
            let say = |message: String| {
                let time = Timestamp::now();
                // What comes faster than it can be written down is left out of the events, not waited for.
                let _ = tell.try_send(EventRow { time, message });
            };
            let result = work(&progress, &say).await;
            drop(tell);
            result
        };
        let (result, ()) = tokio::join!(working, noting);
        self.finish(&row, &progress, result).await
    }

    /// Writes down that an operation begins. What cannot be written down is not begun, nor what only the server
    /// that schedules may begin, on any other.
    async fn begin(&self, row: &OperationRow) -> bool {
        let term = self.term();
        if row.kind.is_scheduled() && term.is_none() {
            return false;
        }
        let term = term.filter(|_| row.kind.is_scheduled());
        match self.catalog.begin_operation(row, self.id, term).await {
            Ok(begun) => begun,
            Err(error) => {
                let instance = &row.instance;
                tracing::error!(%instance, error = %crate::chain(&error), "the catalog failed");
                false
            }
        }
    }

    pub(super) async fn note(&self, id: OperationId, event: EventRow) {
        if let Err(error) = self.catalog.note_event(id, &event).await {
            tracing::warn!(error = %crate::chain(&error), "the catalog failed");
        }
    }

    /// Has the catalog do something until it does. What went unwritten would stand for ever: an operation that never
    /// ended keeps others of its instance from beginning. Gives up only when the service ends; its next start finds
    /// what is left.
    ///
    /// # Errors
    /// The catalog's, when the service ends.
    pub(super) async fn insist<T, F: Future<Output = Result<T, CatalogError>>>(
        &self,
        write: impl Fn() -> F,
    ) -> Result<T, CatalogError> {
        let (mut pause, mut last) = (RETRY_PAUSES.0, 0);
        loop {
            let error = match write().await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            tracing::error!(error = %crate::chain(&error), "the catalog failed");
            if self.is_ending() {
                last += 1;
                if last >= LAST_ATTEMPTS {
                    return Err(error);
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(RETRY_PAUSES.1);
        }
    }

    async fn finish<T>(
        &self,
        row: &OperationRow,
        progress: &Progress,
        result: Result<T, Failure>,
    ) -> Option<T> {
        let _ = self.catalog.note_progress(row.id, &progress.read()).await;
        let (state, outcome) = match &result {
            Ok(_) => (OperationState::Succeeded, Outcome::Done),
            Err(_) if progress.is_cancelled() => (OperationState::Cancelled, Outcome::Failed),
            Err(_) => (OperationState::Failed, Outcome::Failed),
        };
        let text = |failure: &Failure| {
            failure
                .text
                .chars()
                .take(MAX_ERROR_CHARS)
                .collect::<String>()
        };
        let error = match (&result, state) {
            (Err(_), OperationState::Cancelled) => Some((
                "OperationCancelled",
                "the operation was cancelled".to_owned(),
            )),
            (Err(failure), _) => Some((failure.code, text(failure))),
            (Ok(_), _) => None,
        };
        let error = error.as_ref().map(|(code, text)| (*code, text.as_str()));
        let now = Timestamp::now();
        let end = || self.catalog.end_operation(row.id, state, error, now);
        // Of no consequence when it cannot be written down, for then the service ends, too.
        let _ = self.insist(end).await;
        self.set_running(row.id, None);
        let (instance, kind) = (&row.instance, row.kind.as_str());
        match error {
            None => tracing::info!(instance, operation = %row.id, "{kind} succeeded"),
            Some((code, text)) => {
                tracing::error!(instance, operation = %row.id, code, "{kind} failed: {text}");
            }
        }
        let detail = match error {
            None => format!("operation {}", row.id),
            Some((code, _)) => format!("operation {}: {code}", row.id),
        };
        self.audit_own(kind, &format!("instance {instance}"), outcome, Some(detail));
        result.ok()
    }

    pub(super) fn set_running(&self, id: OperationId, progress: Option<Progress>) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        match progress {
            Some(progress) => running.insert(id, progress),
            None => running.remove(&id),
        };
    }

    /// Asks an operation to end, wherever it runs.
    ///
    /// # Errors
    /// [`Code::CannotCancelOperation`] when it does not run any more.
    pub async fn cancel(&self, id: OperationId) -> Result<(), ApiError> {
        let here = {
            let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            running.get(&id).map(Progress::cancel)
        };
        let noted = self.catalog.note_cancel(id).await;
        let runs = noted.map_err(|error| crate::handlers::internal(&error))?;
        if here.is_none() && !runs {
            let text = format!("operation {id} does not run any more");
            return Err(ApiError::new(Code::CannotCancelOperation, text));
        }
        Ok(())
    }

    /// Asks all operations to end.
    pub(super) fn cancel_all(&self) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.values().for_each(Progress::cancel);
    }

    /// Asks those to end that the catalog ended, because the other servers took this one for dead. What was asked
    /// for on databases stays this server's.
    pub(super) fn cancel_ended(&self) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        for (id, progress) in running.iter() {
            if self.pace(*id).is_none() {
                progress.cancel();
            }
        }
    }

    /// How many run.
    pub(super) fn running_count(&self) -> usize {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.len()
    }
}
