//! Recovery: the log it needs, the settings that tell it where to stop, and the supply while it replays.

use std::{
    collections::VecDeque,
    fs,
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};

use everpoint_pgformat::{backup_label::BackupLabel, wal::filter::FilterCounts};
use everpoint_repository::{Repository, backup::Backup};
use tokio::time::sleep;

use super::{
    LogDelivery, RestoreError, RestorePlan, failed,
    files::{give, make_directory, write_file},
    replayable_log::{Part, ReplayableLog},
    selection::Selection,
    target::Stop,
    unlogged,
};
use crate::{log::reader::SegmentReader, progress::Progress};

/// Segments that lie ready for recovery at the most.
pub const SPOOL_SEGMENTS: usize = 8;
/// How often the supplier looks whether a segment was taken.
const SUPPLY_POLL: Duration = Duration::from_millis(5);
/// The folder in the data directory through which log is supplied.
const SPOOL: &str = "everpoint.wal";
/// The last file of the spool: nothing more will come.
const SPOOL_END: &str = "end";
const BLOCK_BEGIN: &str = "# everpoint restore: begin";
const BLOCK_END: &str = "# everpoint restore: end";

/// Writes the histories of all timelines that are stored, so that recovery follows the right one and a
/// promotion takes a number that is free.
///
/// # Errors
/// When the target cannot be written or a history not read.
pub async fn write_histories(
    repository: &Repository,
    plan: &RestorePlan,
) -> Result<(), RestoreError> {
    for document in repository
        .timeline_documents(&plan.request.instance)
        .await?
    {
        let path = plan
            .request
            .to
            .join("pg_wal")
            .join(document.timeline.history_file_name());
        write_file(&path, document.text.as_bytes(), plan.request.owner)?;
    }
    Ok(())
}

fn segments(repository: &Repository, plan: &RestorePlan) -> Result<ReplayableLog, RestoreError> {
    let backup = &plan.resolved.backup;
    let size = backup.segment_size;
    let timeline = plan.resolved.timeline;
    // What is stored of the last segment is taken whole: recovery looks at the record behind its target.
    let complete = plan.index.complete_until(timeline, backup.start_lsn);
    let to = size
        .ceil(plan.resolved.log_until)
        .min(complete)
        .max(plan.resolved.log_until);
    let reader = SegmentReader::plan(repository, &plan.index, timeline, backup, to)?;
    let databases = plan.request.selection.replayed();
    let stop = match plan.resolved.stop {
        Stop::After(lsn) => Some(lsn),
        Stop::AtConsistency => None,
    };
    Ok(ReplayableLog::new(reader, backup, databases, stop))
}

/// Puts all log that replay needs into `pg_wal`. Returns how many tablespaces it makes.
///
/// # Errors
/// When log is missing or damaged, or the target cannot be written.
pub async fn place_log(
    repository: &Repository,
    plan: &RestorePlan,
    progress: &Progress,
) -> Result<u64, RestoreError> {
    let mut reader = segments(repository, plan)?;
    let folder = plan.request.to.join("pg_wal");
    let mut file = None;
    while let Some(part) = reader.next().await? {
        if progress.is_cancelled() {
            return Err(RestoreError::Cancelled);
        }
        remove_reset(plan, &part)?;
        let path = folder.join(part.name.to_string());
        append(&mut file, &path, &part)?;
        if part.ends_segment {
            give(&path, plan.request.owner)?;
        }
        progress.add_bytes(part.bytes.len() as u64);
    }
    Ok(reader.counts().tablespaces)
}

/// Removes what recovery would fail on, before it gets the log that has it fail.
fn remove_reset(plan: &RestorePlan, part: &Part) -> Result<(), RestoreError> {
    let version = plan.resolved.backup.version;
    for relation in &part.reset {
        unlogged::remove_all_but_init(&plan.request.to, version, *relation)?;
    }
    Ok(())
}

/// Writes the next part of a segment file, which nobody else may read. `file` is open from a file's first part to
/// its last.
fn append(file: &mut Option<fs::File>, path: &Path, part: &Part) -> Result<(), RestoreError> {
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    let open = match file {
        Some(open) => open,
        None => {
            // One that is there is written over: all segments have one length.
            let mut options = fs::OpenOptions::new();
            let options = options.write(true).create(true).truncate(false).mode(0o600);
            let options = options.custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed());
            let open = options.open(path).map_err(failed("create", path))?;
            // One that is left from an interrupted restore may have another mode.
            let private = fs::Permissions::from_mode(0o600);
            open.set_permissions(private)
                .map_err(failed("set permissions of", path))?;
            file.insert(open)
        }
    };
    open.write_all(&part.bytes).map_err(failed("write", path))?;
    if part.ends_segment {
        *file = None;
    }
    Ok(())
}

/// The settings that recovery reads. The log that was placed makes `placed_tablespaces`.
pub fn settings(plan: &RestorePlan, placed_tablespaces: u64) -> Vec<(&'static str, String)> {
    let command = match plan.request.log {
        // Everything lies in pg_wal; recovery insists on a command all the same.
        LogDelivery::InPlace => "false".to_owned(),
        LogDelivery::Supplied => {
            let script = plan.request.to.join(SPOOL).join("fetch");
            format!("/bin/sh {} %f \"%p\"", quote(&script).replace('%', "%%"))
        }
    };
    let mut settings = vec![
        ("restore_command", command),
        (
            "recovery_target_timeline",
            plan.resolved.timeline.to_string(),
        ),
        ("recovery_target_action", "promote".to_owned()),
        // A copy must not archive into the place of its origin.
        ("archive_mode", "off".to_owned()),
    ];
    // Targets that a configuration brought along would contradict ours.
    for name in [
        "recovery_target",
        "recovery_target_lsn",
        "recovery_target_name",
        "recovery_target_time",
        "recovery_target_xid",
    ] {
        settings.push((name, String::new()));
    }
    // Log that is supplied may hold some; how many is known when the setting goes away again.
    let may_come = plan.request.log == LogDelivery::Supplied;
    if placed_tablespaces > 0 || may_come || plan.tablespaces.iter().any(|t| t.1.is_none()) {
        // Recovery takes a directory in pg_tblspc for damage otherwise.
        settings.push(("allow_in_place_tablespaces", "on".to_owned()));
    }
    match plan.resolved.stop {
        Stop::After(lsn) => {
            settings.push(("recovery_target_lsn", lsn.to_string()));
            settings.push(("recovery_target_inclusive", "on".to_owned()));
        }
        Stop::AtConsistency => settings.push(("recovery_target", "immediate".to_owned())),
    }
    settings
}

/// Writes `backup_label`, `recovery.signal` and the settings that recovery reads. The log that was placed
/// makes `placed_tablespaces`.
///
/// # Errors
/// When the target cannot be written.
pub fn write_settings(plan: &RestorePlan, placed_tablespaces: u64) -> Result<(), RestoreError> {
    let root = &plan.request.to;
    let owner = plan.request.owner;
    let backup = &plan.resolved.backup;
    if plan.request.log == LogDelivery::Supplied {
        prepare_spool(plan)?;
    }
    // A standby's backup would make a standby, which follows its primary instead of ending at the target.
    let standby = root.join("standby.signal");
    if standby.exists() {
        fs::remove_file(&standby).map_err(failed("remove", &standby))?;
    }
    let path = root.join("postgresql.auto.conf");
    let before = without_block(&fs::read_to_string(&path).unwrap_or_default());
    let lines: String = settings(plan, placed_tablespaces)
        .iter()
        .map(|(name, value)| format!("{name} = '{}'\n", value.replace('\'', "''")))
        .collect();
    let text = format!("{before}{BLOCK_BEGIN}\n{lines}{BLOCK_END}\n");
    write_file(&path, text.as_bytes(), owner)?;
    write_file(
        &root.join("backup_label"),
        backup.backup_label.as_bytes(),
        owner,
    )?;
    write_file(&root.join("recovery.signal"), b"", owner)
}

/// Takes the settings and the spool away again, once the server has been promoted. That the copy does not
/// archive stays: it would archive into the place of its origin.
///
/// # Errors
/// When the target cannot be written.
pub fn remove_settings(plan: &RestorePlan) -> Result<(), RestoreError> {
    let path = plan.request.to.join("postgresql.auto.conf");
    let text = fs::read_to_string(&path).map_err(failed("read", &path))?;
    let kept = format!("{}archive_mode = 'off'\n", without_block(&text));
    write_file(&path, kept.as_bytes(), plan.request.owner)?;
    let spool = plan.request.to.join(SPOOL);
    if spool.exists() {
        fs::remove_dir_all(&spool).map_err(failed("remove", &spool))?;
    }
    Ok(())
}

/// The text without our block of settings, and without settings of an earlier recovery, which would
/// contradict them.
fn without_block(text: &str) -> String {
    let mut kept = String::new();
    let mut inside = false;
    for line in text.lines() {
        match line {
            BLOCK_BEGIN => inside = true,
            BLOCK_END => inside = false,
            line if inside || is_recovery_setting(line) => {}
            line => {
                kept.push_str(line);
                kept.push('\n');
            }
        }
    }
    kept
}

/// A path as one word of a shell.
fn quote(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "'\\''"))
}

fn is_recovery_setting(line: &str) -> bool {
    let name = line.split(['=', ' ', '\t']).next().unwrap_or_default();
    name.starts_with("recovery_target") || name == "restore_command"
}

/// What recovery runs for each file: it waits until the file lies ready, takes it, and remembers that.
/// Files that were taken are in `pg_wal`, where recovery looks next. When nobody supplies any more it ends
/// with a code above 125, on which recovery stops instead of promoting too early.
fn prepare_spool(plan: &RestorePlan) -> Result<(), RestoreError> {
    let owner = plan.request.owner;
    let spool = plan.request.to.join(SPOOL);
    if spool.exists() {
        fs::remove_dir_all(&spool).map_err(failed("remove", &spool))?;
    }
    make_directory(&spool, 0o700, owner)?;
    let script = format!(
        "# Brings recovery the log it asks for: $1 is its name, $2 where it goes.\n\
         cd {} || exit 200\n\
         case $1 in *.history) exit 1;; esac\n\
         while :; do\n\
         \x20 if [ -e \"$1.taken\" ]; then exit 1; fi\n\
         \x20 if [ -e \"$1\" ]; then : > \"$1.taken\"; exec mv \"$1\" \"$OLDPWD/$2\"; fi\n\
         \x20 if [ -e {SPOOL_END} ]; then exit 1; fi\n\
         \x20 [ -e /proc/{} ] || exit 200\n\
         \x20 sleep 0.01\n\
         done\n",
        quote(&spool),
        std::process::id(),
    );
    write_file(&spool.join("fetch"), script.as_bytes(), owner)
}

/// The segment of the checkpoint that a backup begins with. Recovery reads that record first, before it goes back to
/// where replay begins: up to there log has to come without anything being taken.
fn checkpoint_segment(backup: &Backup) -> u64 {
    let label = BackupLabel::parse(&backup.backup_label);
    let checkpoint = label.map_or(backup.start_lsn, |label| label.checkpoint);
    backup.segment_size.segment_of(checkpoint)
}

/// Bytes of log that lie in the spool at the most.
pub fn spool_bytes(backup: &Backup) -> u64 {
    let size = backup.segment_size;
    let begins = size.segment_of(backup.start_lsn);
    let segments = checkpoint_segment(backup).saturating_sub(begins) + 1;
    segments.max(SPOOL_SEGMENTS as u64) * size.bytes()
}

/// Segments behind the last one taken that recovery may look at again.
const KEPT_BEHIND: u64 = 3;

/// Brings log into the spool while a server replays it, at most [`SPOOL_SEGMENTS`] ahead.
pub struct Supplier {
    reader: ReplayableLog,
    spool: PathBuf,
    plan: RestorePlan,
    replayed: Replayed,
}

/// Files in `pg_wal` that recovery is through with. The server of a restored database is thrown away, so they are
/// written over with later log instead of being left to a restart point: memory that the system has given them is used
/// again, and `pg_wal` stays small.
#[derive(Default)]
struct Replayed {
    /// In order; none when they are to stay.
    files: VecDeque<(u64, PathBuf)>,
    /// The last that was taken, of those that are taken in the order of the log.
    taken: u64,
}

impl Replayed {
    /// One that will never be read again.
    fn next(&mut self) -> Option<PathBuf> {
        let (segment, _) = self.files.front()?;
        match segment + KEPT_BEHIND < self.taken {
            true => self.files.pop_front().map(|(_, path)| path),
            false => None,
        }
    }
}

impl Supplier {
    /// For a directory that [`super::execute`] has made ready.
    ///
    /// # Errors
    /// When log is missing.
    pub fn new(repository: &Repository, plan: &RestorePlan) -> Result<Self, RestoreError> {
        let reader = segments(repository, plan)?;
        Ok(Self {
            reader,
            spool: plan.request.to.join(SPOOL),
            plan: plan.clone(),
            replayed: Replayed::default(),
        })
    }

    /// Supplies all log, and tells what was filtered. Ends when the last segment lies ready; cancel it by
    /// dropping.
    ///
    /// # Errors
    /// When log is damaged or the spool cannot be written.
    pub async fn run(mut self, progress: &Progress) -> Result<FilterCounts, RestoreError> {
        let mut ready: Vec<(u64, PathBuf)> = Vec::new();
        let (unfinished, mut file) = (self.spool.join("part"), None);
        let (size, asked_first) = {
            let backup = &self.plan.resolved.backup;
            (backup.segment_size, checkpoint_segment(backup))
        };
        let pg_wal = self.plan.request.to.join("pg_wal");
        let is_thrown_away = !matches!(self.plan.request.selection, Selection::Cluster);
        while let Some(part) = self.reader.next().await? {
            let segment = size.segment_of(part.start);
            if file.is_none() {
                self.wait_for_room(&mut ready, segment, asked_first).await;
                if let Some(replayed) = self.replayed.next() {
                    // A restart point may have removed it.
                    let _ = fs::rename(&replayed, &unfinished);
                }
            }
            remove_reset(&self.plan, &part)?;
            append(&mut file, &unfinished, &part)?;
            progress.add_bytes(part.bytes.len() as u64);
            if part.ends_segment {
                let name = part.name.to_string();
                let path = self.spool.join(&name);
                give(&unfinished, self.plan.request.owner)?;
                fs::rename(&unfinished, &path).map_err(failed("rename", &unfinished))?;
                ready.push((segment, path));
                if is_thrown_away {
                    self.replayed.files.push_back((segment, pg_wal.join(name)));
                }
            }
        }
        write_file(&self.spool.join(SPOOL_END), b"", self.plan.request.owner)?;
        Ok(self.reader.counts())
    }

    /// Waits until the next segment may be supplied. `ready` are those that lie in the spool.
    async fn wait_for_room(
        &mut self,
        ready: &mut Vec<(u64, PathBuf)>,
        segment: u64,
        asked_first: u64,
    ) {
        loop {
            ready.retain(|(number, path)| {
                let waits = path.exists();
                // The checkpoint's is taken before those ahead of it.
                if !waits && *number > asked_first {
                    self.replayed.taken = self.replayed.taken.max(*number);
                }
                waits
            });
            if ready.len() < SPOOL_SEGMENTS || segment <= asked_first {
                return;
            }
            sleep(SUPPLY_POLL).await;
        }
    }
}
