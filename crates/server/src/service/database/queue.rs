//! The queue: what is asked for goes in, and what has its turn is begun.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use everpoint_api::{ApiError, Code};
use everpoint_repository::InstanceName;
use jiff::Timestamp;
use tokio::{sync::watch, time::sleep};
use uuid::Uuid;

use super::Pace;
use crate::{
    audit::Outcome,
    catalog::{
        CatalogError, DatabaseOperation, DatabaseRequest, OperationId, OperationKind, OperationRow,
        OperationState, RestoreSource, Tags,
    },
    service::{Service, thread, told},
};

/// How often the queue is looked at when nothing is told: another server may have put something in.
const QUEUE_INTERVAL: Duration = Duration::from_secs(5);
/// Databases that are made or deleted at once.
const CHANGES_AT_ONCE: usize = 4;
/// The most operations on databases that are queued or run at once.
const MAX_OPEN: usize = 1000;

/// What ends an operation that nobody wants any more.
pub(super) const CANCELLED: (&str, &str) = (
    "OperationCancelled",
    "the operation was cancelled. Nothing of it is left",
);

impl DatabaseRequest {
    fn kind(&self) -> OperationKind {
        match self {
            Self::Create { .. } => OperationKind::Create,
            Self::Restore(_) => OperationKind::Restore,
            Self::Delete { .. } => OperationKind::Delete,
        }
    }
}

/// Whether an operation can be ended while it runs. What the server does in one statement, and what deletes, cannot.
fn is_interruptible(kind: OperationKind) -> bool {
    !matches!(
        kind,
        OperationKind::Create
            | OperationKind::Delete
            | OperationKind::Expiry
            | OperationKind::LongTermExpiry
    )
}

fn failed(error: &CatalogError) -> ApiError {
    crate::handlers::internal(error)
}

impl Service {
    /// Queues what somebody asked for.
    ///
    /// # Errors
    /// [`Code::ConflictingDatabaseOperation`] when something else happens to that database;
    /// [`Code::TooManyRequests`] when the queue is full.
    pub async fn enqueue(
        &self,
        actor: Uuid,
        instance: &InstanceName,
        name: &str,
        request: DatabaseRequest,
        tags: Tags,
    ) -> Result<OperationRow, ApiError> {
        let open = self.catalog.open_database_operations().await;
        let open = open.map_err(|error| failed(&error))?;
        // One that waits for what makes the database does not hold the name yet.
        let is_deleted = |found: &DatabaseOperation| {
            found.row.kind == OperationKind::Delete
                && found.row.instance == instance.as_str()
                && found.name == name
        };
        if request.kind() != OperationKind::Delete && open.iter().any(is_deleted) {
            let text = format!(
                "a deletion of database `{name}` is queued or runs. Wait until it has ended; the instance's operations show it"
            );
            return Err(ApiError::new(Code::ConflictingDatabaseOperation, text).about(name));
        }
        if open.len() >= MAX_OPEN {
            let text = format!("{MAX_OPEN} operations are queued. Try again when some have ended");
            return Err(ApiError::new(Code::TooManyRequests, text));
        }
        let row = OperationRow {
            id: Uuid::new_v4(),
            kind: request.kind(),
            instance: instance.to_string(),
            actor: actor.to_string(),
            state: OperationState::Pending,
            phase: "queued".to_owned(),
            total_bytes: 0,
            done_bytes: 0,
            stored_bytes: 0,
            started_at: Timestamp::now(),
            ended_at: None,
            error: None,
        };
        let waits =
            matches!(&request, DatabaseRequest::Delete { instead_of, .. } if instead_of.is_some());
        let operation = DatabaseOperation {
            row: row.clone(),
            name: name.to_owned(),
            request,
            tags,
            attempts: 0,
            server: String::new(),
            made: None,
            holds: !waits,
        };
        let queued = self.catalog.queue_database_operation(&operation).await;
        if !queued.map_err(|error| failed(&error))? {
            let text = format!(
                "another operation changes database `{name}`. Wait until it has ended; the instance's operations show it"
            );
            return Err(ApiError::new(Code::ConflictingDatabaseOperation, text).about(name));
        }
        self.audit_database(&operation, Outcome::Allowed, "queued");
        tracing::info!(%instance, operation = %row.id, "{} of `{name}` is queued", row.kind.as_str());
        self.databases.changed.notify_one();
        Ok(row)
    }

    /// Asks an operation to end, whatever it is about, and writes down that somebody did.
    ///
    /// # Errors
    /// [`Code::CannotCancelOperation`] when it cannot be cancelled, or not any more.
    pub async fn cancel_asked(&self, row: &OperationRow, actor: Uuid) -> Result<(), ApiError> {
        let refuse = |text: String| ApiError::new(Code::CannotCancelOperation, text);
        if row.ended_at.is_some() {
            return Err(refuse(format!("operation {} has ended", row.id)));
        }
        let queued = row.state == OperationState::Pending
            && self
                .catalog
                .cancel_queued(row.id, CANCELLED, Timestamp::now())
                .await
                .map_err(|error| failed(&error))?;
        if !queued {
            if !is_interruptible(row.kind) {
                let text = "goes on to its end, and cannot be cancelled";
                return Err(refuse(format!("operation {} {text}", row.id)));
            }
            self.cancel(row.id).await?;
        }
        let gone = |_| refuse("the operation's instance is gone".to_owned());
        let instance = row.instance.parse().map_err(gone)?;
        self.note_done(
            OperationKind::Cancel,
            &instance,
            actor,
            &format!("operation {}", row.id),
        )
        .await;
        self.databases.changed.notify_one();
        Ok(())
    }

    /// Whether an operation can be cancelled now.
    pub fn may_cancel(&self, row: &OperationRow) -> bool {
        match row.state {
            OperationState::Pending => true,
            OperationState::InProgress => is_interruptible(row.kind),
            _ => false,
        }
    }

    /// Writes down what was done at once: as an operation, and in the audit log.
    pub async fn note_done(
        &self,
        kind: OperationKind,
        instance: &InstanceName,
        actor: Uuid,
        what: &str,
    ) {
        let now = Timestamp::now();
        let row = OperationRow {
            id: Uuid::new_v4(),
            kind,
            instance: instance.to_string(),
            actor: actor.to_string(),
            state: OperationState::Succeeded,
            phase: what.to_owned(),
            total_bytes: 0,
            done_bytes: 0,
            stored_bytes: 0,
            started_at: now,
            ended_at: Some(now),
            error: None,
        };
        if let Err(error) = self.catalog.add_done_operation(&row).await {
            tracing::error!(error = %crate::chain(&error), "the catalog failed");
        }
        let scope = self.instance_scope(instance).to_string();
        self.audit_as(
            &row.actor,
            kind.as_str(),
            &scope,
            Outcome::Done,
            Some(what.to_owned()),
        );
    }

    /// Writes down in the audit log what becomes of an operation on a database.
    pub(super) fn audit_database(
        &self,
        operation: &DatabaseOperation,
        outcome: Outcome,
        what: &str,
    ) {
        let row = &operation.row;
        let scope = match row.instance.parse() {
            Ok(instance) => self
                .instance_scope(&instance)
                .below(&operation.name)
                .to_string(),
            Err(_) => row.instance.clone(),
        };
        let detail = format!("operation {}: {what}", row.id);
        self.audit_as(&row.actor, row.kind.as_str(), &scope, outcome, Some(detail));
    }

    /// Whether a restore of a database of this instance is queued or runs.
    pub(in crate::service) async fn is_restored_from(
        &self,
        instance: &InstanceName,
    ) -> Result<bool, CatalogError> {
        let open = self.catalog.open_database_operations().await?;
        Ok(open.iter().any(|found| match &found.request {
            DatabaseRequest::Restore(request) => request.instance == *instance,
            _ => false,
        }))
    }

    /// Works on the queue until told to end.
    pub(in crate::service) async fn keep_working(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let mut unsettled = true;
        loop {
            if unsettled {
                unsettled = !self.take_up().await;
            }
            if let Err(error) = self.begin_queued().await {
                tracing::error!(error = %crate::chain(&error), "the catalog failed");
            }
            tokio::select! {
                () = sleep(QUEUE_INTERVAL) => {}
                () = self.databases.changed.notified() => {}
                () = told(&mut stop) => break,
            }
        }
        self.databases.ending.store(true, Ordering::Relaxed);
    }

    /// Whether the instances that an operation is about were looked at since the service started.
    fn is_ready(&self, operation: &DatabaseOperation) -> bool {
        let known = |name: &InstanceName| {
            self.instance(name)
                .is_some_and(|observed| observed.restorable.is_some())
        };
        let source = match &operation.request {
            // A long-term copy outlives its instance.
            DatabaseRequest::Restore(request) => {
                matches!(request.source, RestoreSource::LongTerm { .. }) || known(&request.instance)
            }
            _ => true,
        };
        source
            && operation
                .row
                .instance
                .parse()
                .is_ok_and(|name| known(&name))
    }

    /// Begins what has its turn.
    async fn begin_queued(self: &Arc<Self>) -> Result<(), CatalogError> {
        let open = self.catalog.open_database_operations().await?;
        let running = |restores: bool| {
            open.iter()
                .filter(|found| found.row.state != OperationState::Pending)
                .filter(|found| found.server == self.databases.server)
                .filter(|found| (found.row.kind == OperationKind::Restore) == restores)
                .count()
        };
        let at_once = usize::from(self.settings().restores.at_once);
        let mut restores = at_once.saturating_sub(running(true));
        let mut changes = CHANGES_AT_ONCE.saturating_sub(running(false));
        let is_open = |id: OperationId| open.iter().any(|found| found.row.id == id);
        for operation in &open {
            // One that was put back while it is still being undone here waits for that.
            if operation.row.state != OperationState::Pending
                || self.pace(operation.row.id).is_some()
            {
                continue;
            }
            let free = match operation.row.kind {
                OperationKind::Restore => &mut restores,
                _ => &mut changes,
            };
            if *free == 0 || !self.is_ready(operation) {
                continue;
            }
            if let DatabaseRequest::Delete {
                instead_of: Some(id),
                ..
            } = operation.request
            {
                // What makes the database has to end first.
                if is_open(id) || !self.catalog.hold_name(operation.row.id).await? {
                    continue;
                }
            }
            let id = operation.row.id;
            let server = &self.databases.server;
            let claimed = self.catalog.claim_database_operation(id, server).await?;
            let Some(attempts) = claimed else {
                continue;
            };
            let operation = DatabaseOperation {
                attempts,
                server: server.clone(),
                ..operation.clone()
            };
            *free -= 1;
            // From here on it is at work, though its thread may take a moment to begin.
            self.set_pace(id, Some(Pace::new()));
            let (service, attempt) = (self.clone(), operation.clone());
            let name = format!("{} {}", operation.row.kind.as_str(), operation.name);
            if let Err(error) = thread::run(name, move || service.work_on(attempt)) {
                tracing::error!(%error, "cannot begin an operation");
                self.set_pace(id, None);
                self.catalog.requeue_database_operation(&operation).await?;
            }
        }
        Ok(())
    }
}
