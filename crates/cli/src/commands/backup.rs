//! `everpoint backup`.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

use everpoint_engine::{
    backup::{self, BackupEvent, BackupPlan, ChangesUse, RequestedKind},
    progress::Progress,
};
use everpoint_instance::CheckpointMode;
use everpoint_repository::{Repository, backup::Backup};

use super::{known, processors};
use crate::{
    args::{self, BackupType, Global},
    exit::{Exit, Refusal},
    output,
    progress::Display,
};

pub async fn run(
    repository: &Repository,
    global: &Global,
    args: &args::Backup,
) -> anyhow::Result<Exit> {
    let kind = match (args.kind, args.independent) {
        (BackupType::Full, _) if args.check_changes => {
            let text = "changes are counted from a full backup; --check-changes goes with --type differential";
            return Err(Refusal(text.to_owned()).into());
        }
        (BackupType::Full, false) => RequestedKind::Full,
        (BackupType::Full, true) => RequestedKind::IndependentFull,
        (BackupType::Differential, false) => RequestedKind::Differential,
        (BackupType::Differential, true) => {
            let text =
                "a differential builds on a full backup; --independent goes with --type full";
            return Err(Refusal(text.to_owned()).into());
        }
    };
    let (record, connection) = known(repository, &args.name).await?;
    let plan = BackupPlan {
        instance: args.name.clone(),
        record,
        connection,
        kind,
        jobs: args
            .jobs
            .map_or_else(|| (processors() / 2).max(1), usize::from),
        checkpoint: match args.spread_checkpoint {
            true => CheckpointMode::Spread,
            false => CheckpointMode::Fast,
        },
        log_wait: args.log_wait,
        changes: match args.check_changes {
            true => ChangesUse::Compare,
            false => ChangesUse::Trust,
        },
    };
    let progress = Progress::default();
    let begun = Instant::now();
    let display = Display::new(&progress);
    let interrupt = tokio::spawn(cancel_on_interrupt(progress.clone()));
    let missed = AtomicBool::new(false);
    let listener = |event: BackupEvent| {
        // Without a map of changes nothing was compared.
        let differs = matches!(
            event,
            BackupEvent::Missed { .. } | BackupEvent::ReadingAll(_)
        );
        missed.fetch_or(differs && args.check_changes, Ordering::Relaxed);
        say(event);
    };
    let backup = backup::run(repository, &plan, &progress, &listener).await;
    interrupt.abort();
    drop(display);
    let backup = backup?;
    output::one(global.output, &Shown(&backup), || summary(&backup, begun))?;
    if backup.damaged_pages.is_empty() {
        return Ok(match missed.into_inner() {
            true => Exit::Damage,
            false => Exit::Success,
        });
    }
    for file in &backup.damaged_pages {
        let blocks: Vec<String> = file.blocks.iter().map(ToString::to_string).collect();
        eprintln!(
            "damaged in the cluster: {} block {}",
            file.path,
            blocks.join(", ")
        );
    }
    eprintln!("The backup is complete and holds these pages as they are.");
    Ok(Exit::Damage)
}

/// Without the parts that only a restore wants.
struct Shown<'a>(&'a Backup);

impl serde::Serialize for Shown<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        super::listing::BackupRow::new(self.0).serialize(serializer)
    }
}

fn summary(backup: &Backup, begun: Instant) -> String {
    let totals = &backup.totals;
    let seconds = begun.elapsed().as_secs_f64();
    format!(
        "{}\n{} in {} files read, {} stored, {} as before; {seconds:.1} s\nrestorable from {} (LSN {})",
        backup.id,
        output::bytes(totals.read_bytes),
        totals.files,
        output::bytes(totals.stored_bytes),
        output::bytes(totals.reused_bytes),
        output::time(backup.stopped_at),
        backup.stop_lsn,
    )
}

fn say(event: BackupEvent) {
    match event {
        BackupEvent::Swept { objects } => {
            eprintln!("removed what interrupted backups left: {objects} objects");
        }
        BackupEvent::BecameFull { reason } => eprintln!("taking a full backup: {reason}"),
        BackupEvent::Unreadable { id, error } => {
            eprintln!("warning: backup {id} is damaged and was left as it is: {error}");
        }
        BackupEvent::Started { id, lsn } => eprintln!("backup {id} begins at {lsn}"),
        BackupEvent::Summary(event) => {
            if let Some(text) = super::wal::summary_event(&event) {
                eprintln!("warning: {text}");
            }
        }
        BackupEvent::ReadingAll(why) => {
            let why = anyhow::Error::from(why);
            eprintln!(
                "warning: which blocks changed is not known, so all are read and compared: {why:#}"
            );
        }
        BackupEvent::Missed { path, blocks } => {
            let blocks: Vec<String> = blocks.iter().map(ToString::to_string).collect();
            eprintln!(
                "changed without the log saying so: {path} block {}",
                blocks.join(", ")
            );
        }
        BackupEvent::LeftOut(what) => eprintln!("warning: {what}"),
        BackupEvent::WaitingForLog { .. } => {}
    }
}

pub(super) async fn cancel_on_interrupt(progress: Progress) {
    if tokio::signal::ctrl_c().await.is_ok() {
        eprintln!("interrupted; ending");
        progress.cancel();
    }
}
