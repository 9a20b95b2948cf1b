//! Taking what is due.

use std::sync::{Arc, PoisonError};

use everpoint_engine::backup::{
    self, BackupError, BackupEvent, BackupPlan, ChangesUse, RequestedKind,
};
use everpoint_instance::CheckpointMode;
use everpoint_repository::InstanceName;
use jiff::Timestamp;

use super::{Service, operations::Failure, thread};
use crate::{
    catalog::OperationKind,
    config::positive,
    scheduler::{Due, History, Kind, Reason, Running, Schedule, due, next_look},
};

impl Service {
    /// Begins what is due now. Says when to look again at the latest.
    pub(super) async fn begin_due(self: &Arc<Self>) -> Option<Timestamp> {
        // Another server does it.
        self.term()?;
        let now = Timestamp::now();
        let mut known: Vec<(Schedule, History)> = Vec::new();
        let busy = match self.catalog.busy_instances().await {
            Ok(busy) => busy,
            Err(error) => {
                tracing::error!(error = %crate::chain(&error), "the catalog failed");
                return None;
            }
        };
        for observed in self.instances() {
            let failures = match self.catalog.failures(&observed.name).await {
                Ok(failures) => failures,
                Err(error) => {
                    tracing::error!(error = %crate::chain(&error), "the catalog failed");
                    return None;
                }
            };
            // Also what a server that scheduled before has not finished yet.
            let elsewhere = busy.contains(observed.name.as_str());
            let running = match elsewhere || self.is_busy(&observed.name) {
                true => Running::Yes,
                false => Running::No,
            };
            // Whose server does not answer cannot be backed up; that shows as its state. A backup that runs counts.
            if observed.server.is_err() && running == Running::No {
                continue;
            }
            if let Some(history) = observed.history(failures, running) {
                known.push((observed.schedule.clone(), history));
            }
        }
        let pairs = || known.iter().map(|(schedule, history)| (schedule, history));
        for item in due(pairs(), self.settings().scheduler_limits(), now) {
            self.set_busy(&item.instance, Running::Yes);
            let (service, name) = (self.clone(), format!("backup {}", item.instance));
            let instance = item.instance.clone();
            if let Err(error) = thread::run(name, move || service.take(item)) {
                tracing::error!(%instance, %error, "cannot begin a backup");
                self.set_busy(&instance, Running::No);
            }
        }
        next_look(pairs(), now)
    }

    async fn take(self: Arc<Self>, item: Due) {
        let kind = match item.kind {
            Kind::Full => OperationKind::FullBackup,
            Kind::Differential => OperationKind::DifferentialBackup,
        };
        let instance = item.instance.clone();
        self.operate(kind, &instance, async |progress, say| {
            say(reason(&item));
            let observed = self.instance(&instance).ok_or_else(|| Failure {
                code: "ResourceNotFound",
                text: "the instance is gone".to_owned(),
            })?;
            self.end_strays(&observed).await;
            let processors = std::thread::available_parallelism().map_or(1, usize::from);
            let settings = self.settings();
            let config = &settings.backups;
            let plan = BackupPlan {
                instance: instance.clone(),
                record: observed.record.clone(),
                connection: observed.connection.clone(),
                kind: match item.kind {
                    Kind::Full => RequestedKind::Full,
                    Kind::Differential => RequestedKind::Differential,
                },
                jobs: config.jobs.map_or((processors / 2).max(1), usize::from),
                // Who has no protection does not wait for minutes.
                checkpoint: match item.reason {
                    Reason::First | Reason::Gap => CheckpointMode::Fast,
                    _ => CheckpointMode::Spread,
                },
                log_wait: positive(config.log_wait),
                changes: ChangesUse::Trust,
            };
            let tell = |event| {
                if let Some(text) = text_of(&event) {
                    say(text);
                }
            };
            let backup = backup::run(&self.repository, &plan, progress, &tell)
                .await
                .map_err(|error| failure(&error))?;
            say(format!(
                "{} is complete: {} bytes read, {} stored",
                backup.id, backup.totals.read_bytes, backup.totals.stored_bytes
            ));
            for file in &backup.damaged_pages {
                say(format!(
                    "damaged in the cluster itself: {} blocks {:?}",
                    file.path, file.blocks
                ));
            }
            // Before the instance counts as idle again, so that what was just taken is not taken once more.
            self.look_at_repository(&instance).await;
            Ok(())
        })
        .await;
        self.expire(&instance).await;
        self.look_at_repository(&instance).await;
        self.wake_copies();
        self.set_busy(&instance, Running::No);
        self.wake_scheduler();
    }

    pub(super) fn is_busy(&self, instance: &InstanceName) -> bool {
        let busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.contains(instance)
    }

    pub(super) fn set_busy(&self, instance: &InstanceName, running: Running) {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        match running {
            Running::Yes => busy.insert(instance.clone()),
            Running::No => busy.remove(instance),
        };
    }
}

fn reason(item: &Due) -> String {
    let text = match item.reason {
        Reason::First => "there is no full backup yet",
        Reason::Gap => "log is missing behind the last backup",
        Reason::DatedAhead => "the last full backup is dated later than now",
        Reason::Weekly => "the week's window has come",
        Reason::LargeDifferential => "the last differential was nearly as large as a full backup",
        Reason::Rhythm => "the next differential is due",
    };
    match item.reason {
        Reason::First => text.to_owned(),
        _ => format!("{text}, since {}", item.since),
    }
}

fn text_of(event: &BackupEvent) -> Option<String> {
    Some(match event {
        BackupEvent::Swept { objects } => format!("removed {objects} remains of earlier backups"),
        BackupEvent::BecameFull { reason } => format!("becomes a full backup: {reason}"),
        BackupEvent::Unreadable { id, error } => format!("{id} cannot be read: {error}"),
        BackupEvent::Started { id, lsn } => format!("{id} begins at {lsn}"),
        BackupEvent::Summary(event) => format!("summaries of log: {event:?}"),
        BackupEvent::ReadingAll(why) => format!(
            "which blocks changed is not known, so all are read and compared: {}",
            crate::chain(why)
        ),
        BackupEvent::Missed { path, blocks } => {
            format!("changed without the log saying so: {path} blocks {blocks:?}")
        }
        BackupEvent::LeftOut(what) => format!("left out: {what}"),
        BackupEvent::WaitingForLog { until } => format!("waits for log up to {until}"),
    })
}

fn failure(error: &BackupError) -> Failure {
    let code = match error {
        BackupError::Connect(_) | BackupError::Facts(_) | BackupError::Query(_) => {
            "InstanceNotReachable"
        }
        BackupError::Lock(_) => "ConflictingDatabaseOperation",
        BackupError::LogMissing { .. } | BackupError::LogLost { .. } => {
            "BrokenRestorePlanGapInLogBackups"
        }
        _ => "BackupFailed",
    };
    Failure {
        code,
        text: crate::chain(error),
    }
}
