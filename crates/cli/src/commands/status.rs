//! `everpoint status`.

use everpoint_engine::window::{self, Window};
use everpoint_repository::Repository;

use super::chosen;
use crate::{
    args::{Global, Status},
    exit::Exit,
    output,
};

pub async fn run(repository: &Repository, global: &Global, args: &Status) -> anyhow::Result<Exit> {
    let mut windows = Vec::new();
    for name in chosen(repository, args.name.as_ref()).await? {
        windows.push(window::window(repository, &name).await?);
    }
    output::one(global.output, &windows, || match windows.is_empty() {
        true => "no instances yet; `everpoint instance add` adds one".to_owned(),
        false => windows.iter().map(text).collect::<Vec<_>>().join("\n"),
    })?;
    Ok(Exit::Success)
}

fn text(window: &Window) -> String {
    let mut text = format!("{}: {} backups\n", window.instance, window.backups);
    for range in &window.ranges {
        let latest = range.latest.map_or_else(|| "?".to_owned(), output::time);
        text.push_str(&format!(
            "  restorable  {} to {latest}\n              LSN {} to {}, timeline {}\n",
            output::time(range.earliest),
            range.earliest_lsn,
            range.latest_lsn,
            range.timeline
        ));
    }
    for id in &window.damaged {
        text.push_str(&format!(
            "  DAMAGED     backup {id}; everpoint verify says what is wrong\n"
        ));
    }
    for path in &window.damaged_log {
        text.push_str(&format!(
            "  DAMAGED     log backup {path}; what it held cannot be restored\n"
        ));
    }
    for gap in &window.gaps {
        text.push_str(&format!(
            "  GAP         {} to {} on timeline {}, noticed {}\n              {}\n",
            gap.from,
            gap.to,
            gap.timeline,
            output::time(gap.noticed_at),
            gap.reason
        ));
    }
    if window.ranges.is_empty() {
        text.push_str("  NOTHING can be restored yet\n");
    }
    if window.backup_needed {
        let name = &window.instance;
        text.push_str(&format!("  TAKE A BACKUP: everpoint backup {name}\n"));
    }
    text
}
