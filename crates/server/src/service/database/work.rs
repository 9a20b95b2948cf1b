//! Working on one operation: it is watched and written down as it goes on, and its end is written down before what
//! tells of it elsewhere is removed.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use everpoint_engine::{
    database::{state::State, watch::Watch},
    progress::Progress,
};
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};

use super::{Pace, restore::Restored};
use crate::{
    audit::Outcome,
    catalog::{DatabaseOperation, DatabaseRequest, EventRow, OperationId, OperationState},
    service::{Service, operations::Failure},
};

/// How often progress is written down.
const NOTE_INTERVAL: Duration = Duration::from_secs(1);
/// Events that wait to be written down; more are left out.
const WAITING_EVENTS: usize = 256;
/// The longest text of an error that is kept.
const MAX_ERROR_CHARS: usize = 4000;

/// How an operation is watched by those who carry it out. Cheap to clone.
#[derive(Clone)]
pub(super) struct Teller {
    /// How far it is; it is cancelled here.
    pub progress: Progress,
    state: Arc<Mutex<Option<State>>>,
    events: mpsc::Sender<EventRow>,
}

impl Teller {
    /// Writes down that something happened.
    pub fn say(&self, message: impl Into<String>) {
        let (time, message) = (Timestamp::now(), message.into());
        // What comes faster than it can be written down is left out of the events, not waited for.
        let _ = self.events.try_send(EventRow { time, message });
    }

    /// A state of a restore began.
    pub fn enter(&self, state: State) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = Some(state);
        self.say(state.to_string());
    }

    /// The state of a restore, once one began.
    pub fn state(&self) -> Option<State> {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn phase(&self, reading_phase: &str) -> String {
        self.state()
            .map_or_else(|| reading_phase.to_owned(), |state| state.to_string())
    }
}

/// Whether the catalog knows of an operation's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// It does.
    Yes,
    /// It could not be told.
    No,
}

/// What an operation leaves to be put away once its end is written down.
pub(super) type Remains = Option<(Box<Restored>, Watch)>;

impl Service {
    /// Carries out an operation that was claimed.
    pub(super) async fn work_on(self: Arc<Self>, operation: DatabaseOperation) {
        let id = operation.row.id;
        let (events, mut told) = mpsc::channel(WAITING_EVENTS);
        let teller = Teller {
            progress: Progress::default(),
            state: Arc::default(),
            events,
        };
        self.set_running(id, Some(teller.progress.clone()));
        self.set_pace(id, Some(Pace::new()));
        self.audit_database(&operation, Outcome::Allowed, "begun");
        let (progress, phase) = (teller.progress.clone(), teller.state.clone());
        let looking = Teller {
            events: mpsc::channel(1).0,
            progress: progress.clone(),
            state: phase,
        };
        let (ended, mut end) = oneshot::channel::<()>();
        let noting = async {
            let mut beat = tokio::time::interval(NOTE_INTERVAL);
            loop {
                tokio::select! {
                    Some(event) = told.recv() => self.note(id, event).await,
                    _ = beat.tick() => self.note_pace(&operation, &looking).await,
                    _ = &mut end => break,
                }
            }
            while let Ok(event) = told.try_recv() {
                self.note(id, event).await;
            }
        };
        let working = async {
            let result = self.carry_out(&operation, &teller).await;
            // What is noted ends with it.
            let _ = ended.send(());
            result
        };
        let (result, ()) = tokio::join!(working, noting);
        self.note_pace(&operation, &looking).await;
        self.end(&operation, &progress, result).await;
        self.set_running(id, None);
        self.set_pace(id, None);
        self.databases.changed.notify_one();
    }

    async fn carry_out(
        &self,
        operation: &DatabaseOperation,
        teller: &Teller,
    ) -> Result<Remains, Failure> {
        match &operation.request {
            DatabaseRequest::Create { collation } => {
                self.create(operation, collation.as_deref(), teller).await?;
                if let Some(text) = self.keep_tags(operation).await {
                    teller.say(text);
                }
                Ok(None)
            }
            DatabaseRequest::Delete { .. } => {
                self.delete(operation, teller).await?;
                Ok(None)
            }
            DatabaseRequest::Restore(request) => {
                let restored = self.restore(operation, request, teller).await?;
                if let Some(text) = self.keep_tags(operation).await {
                    teller.say(text);
                }
                Ok(restored.map(|(landed, watch)| (Box::new(landed), watch)))
            }
        }
    }

    /// Puts on a new database the tags that were asked for. It is of use without them; then what is to be told is
    /// returned.
    pub(super) async fn keep_tags(&self, operation: &DatabaseOperation) -> Option<&'static str> {
        let (name, tags) = (&operation.name, &operation.tags);
        let instance = operation.row.instance.parse().ok()?;
        if tags.is_empty() {
            return None;
        }
        match self.catalog.set_tags(&instance, name, tags).await {
            Ok(true) => {
                self.store_policies(&instance).await;
                None
            }
            Ok(false) => {
                Some("its tags are not kept, for it is not seen in the server yet. Set them again")
            }
            Err(error) => {
                tracing::warn!(error = %crate::chain(&error), "the catalog failed");
                Some("its tags are not kept, for the catalog failed. Set them again")
            }
        }
    }

    async fn note_pace(&self, operation: &DatabaseOperation, teller: &Teller) {
        let id = operation.row.id;
        let reading = teller.progress.read();
        {
            let mut paces = self
                .databases
                .paces
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if let Some(pace) = paces.get_mut(&id) {
                pace.note(&reading);
            }
        }
        let phase = teller.phase(reading.phase);
        match self
            .catalog
            .note_database_progress(operation, &phase, &reading)
            .await
        {
            // Another server may have been asked, or may have taken it over when this one was taken for dead.
            Ok(Some(OperationState::CancelInProgress) | None) => teller.progress.cancel(),
            Ok(Some(_)) => {}
            Err(error) => tracing::warn!(error = %crate::chain(&error), "the catalog failed"),
        }
    }

    /// Writes down how it ended. What was cancelled because the service ends goes back into the queue.
    async fn end(
        &self,
        operation: &DatabaseOperation,
        progress: &Progress,
        result: Result<Remains, Failure>,
    ) {
        let id = operation.row.id;
        let find = || self.catalog.database_operation(id);
        let found = self.insist(find).await;
        let asked = found.is_ok_and(|found| {
            found.is_some_and(|found| found.row.state == OperationState::CancelInProgress)
        });
        let cancelled = progress.is_cancelled();
        match result {
            Ok(remains) => {
                let end = self.end_as(operation, OperationState::Succeeded, None);
                // What is left tells the next start how it ended, if nothing else does.
                if end.await == Written::Yes
                    && let Some((restored, watch)) = remains
                    && let Err(error) = restored.put_away(&watch).await
                {
                    let error = crate::chain(&error);
                    tracing::warn!(operation = %id, "a scratch server is left: {error}");
                }
            }
            Err(_) if cancelled && !asked && self.databases.is_ending() => {
                self.audit_database(operation, Outcome::Failed, "put back into the queue");
                let requeue = || self.catalog.requeue_database_operation(operation);
                // If not, the next start does.
                let _ = self.insist(requeue).await;
            }
            Err(_) if cancelled => {
                let cancelled = Failure {
                    code: super::queue::CANCELLED.0,
                    text: super::queue::CANCELLED.1.to_owned(),
                };
                self.end_as(operation, OperationState::Cancelled, Some(cancelled))
                    .await;
            }
            Err(failure) => {
                self.end_as(operation, OperationState::Failed, Some(failure))
                    .await;
            }
        }
    }

    /// Writes down the end of an attempt at an operation.
    pub(super) async fn end_as(
        &self,
        operation: &DatabaseOperation,
        state: OperationState,
        failure: Option<Failure>,
    ) -> Written {
        let row = &operation.row;
        let text =
            |failure: &Failure| -> String { failure.text.chars().take(MAX_ERROR_CHARS).collect() };
        let error = failure
            .as_ref()
            .map(|failure| (failure.code, text(failure)));
        let error = error.as_ref().map(|(code, text)| (*code, text.as_str()));
        let now = Timestamp::now();
        let end = || {
            let catalog = &self.catalog;
            catalog.end_database_operation(operation, state, error, now)
        };
        match self.insist(end).await {
            Ok(true) => {}
            Ok(false) => {
                tracing::warn!(operation = %row.id, "it is over, or another server took it over: its end here counts no more");
                return Written::Yes;
            }
            Err(_) => return Written::No,
        }
        let (instance, kind, name) = (&row.instance, row.kind.as_str(), &operation.name);
        match error {
            None => {
                tracing::info!(instance, operation = %row.id, "{kind} of `{name}` succeeded");
                self.audit_database(operation, Outcome::Done, state.as_str());
            }
            Some((code, text)) => {
                tracing::error!(instance, operation = %row.id, code, "{kind} of `{name}` ended: {text}");
                self.audit_database(operation, Outcome::Failed, code);
            }
        }
        self.databases.changed.notify_one();
        Written::Yes
    }

    pub(super) fn set_pace(&self, id: OperationId, pace: Option<Pace>) {
        let mut paces = self
            .databases
            .paces
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match pace {
            Some(pace) => paces.insert(id, pace),
            None => paces.remove(&id),
        };
    }

    /// How fast an operation goes, if it runs here.
    pub fn pace(&self, id: OperationId) -> Option<Pace> {
        let paces = self
            .databases
            .paces
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        paces.get(&id).copied()
    }
}
