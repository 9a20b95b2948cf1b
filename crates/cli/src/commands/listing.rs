//! `everpoint backups`.

use everpoint_engine::instance_record::InstanceRecord;
use everpoint_repository::{Repository, backup::Backup};
use serde::Serialize;

use crate::{
    args::{Global, OneInstance},
    exit::Exit,
    output,
};

/// A backup in a listing.
#[derive(Serialize)]
pub struct BackupRow {
    id: String,
    #[serde(rename = "type")]
    kind: &'static str,
    base: Option<String>,
    version: u16,
    timeline: u32,
    start_lsn: String,
    stop_lsn: String,
    started_at: String,
    restorable_from: String,
    files: u64,
    restored_bytes: u64,
    read_bytes: u64,
    stored_bytes: u64,
    reused_bytes: u64,
    damaged_pages: usize,
}

impl BackupRow {
    /// The row of a backup.
    pub fn new(backup: &Backup) -> Self {
        Self {
            id: backup.id.to_string(),
            kind: backup.kind.name(),
            base: backup.kind.base().map(ToString::to_string),
            version: backup.version.get(),
            timeline: backup.timeline.get(),
            start_lsn: backup.start_lsn.to_string(),
            stop_lsn: backup.stop_lsn.to_string(),
            started_at: backup.started_at.to_string(),
            restorable_from: backup.stopped_at.to_string(),
            files: backup.totals.files,
            restored_bytes: backup.totals.restored_bytes,
            read_bytes: backup.totals.read_bytes,
            stored_bytes: backup.totals.stored_bytes,
            reused_bytes: backup.totals.reused_bytes,
            damaged_pages: backup
                .damaged_pages
                .iter()
                .map(|file| file.blocks.len())
                .sum(),
        }
    }
}

pub async fn backups(
    repository: &Repository,
    global: &Global,
    args: &OneInstance,
) -> anyhow::Result<Exit> {
    repository.description::<InstanceRecord>(&args.name).await?;
    let backups = repository.backups(&args.name).await?;
    let rows: Vec<BackupRow> = backups.iter().map(BackupRow::new).collect();
    let header = [
        "BACKUP",
        "RESTORABLE FROM",
        "SIZE",
        "STORED",
        "TIMELINE",
        "STOP LSN",
        "DAMAGED",
    ];
    let cells = |row: &BackupRow| {
        let short = |time: &str| time.parse().map_or_else(|_| time.to_owned(), output::time);
        vec![
            row.id.clone(),
            short(&row.restorable_from),
            output::bytes(row.restored_bytes),
            output::bytes(row.stored_bytes),
            row.timeline.to_string(),
            row.stop_lsn.clone(),
            match row.damaged_pages {
                0 => "-".to_owned(),
                pages => format!("{pages} pages"),
            },
        ]
    };
    let empty = format!("no backups yet; `everpoint backup {}` takes one", args.name);
    output::list(global.output, &rows, &header, cells, &empty)?;
    Ok(Exit::Success)
}
