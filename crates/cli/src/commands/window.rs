//! `everpoint window`.

use everpoint_engine::{
    history::{self, databases::DatabaseWindow},
    instance_record::InstanceRecord,
    window::{self, Window as InstanceWindow},
};
use everpoint_repository::Repository;
use jiff::Timestamp;
use serde::Serialize;

use crate::{
    args::{Global, OutputFormat},
    exit::Exit,
    history_args::Window,
    output::{self, wrapped},
};

/// Before what is said of a database.
const INDENT: usize = 4;

pub async fn run(repository: &Repository, global: &Global, args: &Window) -> anyhow::Result<Exit> {
    repository.description::<InstanceRecord>(&args.name).await?;
    let format = match args.json {
        true => OutputFormat::Json,
        false => global.output,
    };
    let window = window::window(repository, &args.name).await?;
    let found = history::databases::windows(repository, &args.name, &window).await?;
    let shown = ShownWindow {
        instance: args.name.to_string(),
        databases: found.databases.iter().map(Into::into).collect(),
        gaps: found.gaps.iter().map(Into::into).collect(),
        troubles: found.troubles.clone(),
    };
    output::one(format, &shown, || text(&window, &found, &shown))?;
    Ok(Exit::Success)
}

#[derive(Serialize)]
struct ShownWindow {
    instance: String,
    databases: Vec<ShownDatabase>,
    gaps: Vec<ShownGap>,
    troubles: Vec<String>,
}

#[derive(Serialize)]
struct ShownDatabase {
    oid: u32,
    name: Option<String>,
    earlier_names: Vec<String>,
    ranges: Vec<ShownRange>,
    created_at: Option<String>,
    dropped: Option<ShownDrop>,
}

#[derive(Serialize)]
struct ShownRange {
    timeline: u32,
    earliest: String,
    earliest_lsn: String,
    latest: Option<String>,
    latest_lsn: String,
}

#[derive(Serialize)]
struct ShownDrop {
    at: Option<String>,
    event: String,
    undo_lsn: String,
    can_be_undone: bool,
}

#[derive(Serialize)]
struct ShownGap {
    timeline: u32,
    from_lsn: String,
    from: Option<String>,
    to_lsn: String,
    to: Option<String>,
    reason: Option<String>,
}

impl From<&DatabaseWindow> for ShownDatabase {
    fn from(database: &DatabaseWindow) -> Self {
        let names = &database.life.names;
        let text = |time: Timestamp| time.to_string();
        Self {
            oid: database.life.oid.get(),
            name: names.last().cloned(),
            earlier_names: names.iter().rev().skip(1).cloned().collect(),
            ranges: database
                .ranges
                .iter()
                .map(|range| ShownRange {
                    timeline: range.timeline.get(),
                    earliest: text(range.earliest),
                    earliest_lsn: range.earliest_lsn.to_string(),
                    latest: range.latest.map(text),
                    latest_lsn: range.latest_lsn.to_string(),
                })
                .collect(),
            created_at: database.life.created.map(|(_, at)| text(at)),
            dropped: database.dropped.as_ref().map(|dropped| ShownDrop {
                at: dropped.at.map(text),
                event: dropped.event.to_string(),
                undo_lsn: dropped.event.lsn.to_string(),
                can_be_undone: dropped.can_be_undone,
            }),
        }
    }
}

impl From<&history::databases::Gap> for ShownGap {
    fn from(gap: &history::databases::Gap) -> Self {
        let text = |time: Timestamp| time.to_string();
        Self {
            timeline: gap.timeline.get(),
            from_lsn: gap.from.to_string(),
            from: gap.from_time.map(text),
            to_lsn: gap.to.to_string(),
            to: gap.to_time.map(text),
            reason: gap.reason.clone(),
        }
    }
}

fn text(
    window: &InstanceWindow,
    found: &history::databases::DatabaseWindows,
    shown: &ShownWindow,
) -> String {
    let name = &window.instance;
    let mut text = String::new();
    if window.ranges.is_empty() {
        text.push_str("NOTHING can be restored yet.\n");
    }
    for database in &found.databases {
        text.push_str(&paragraph(database, name.as_str()));
    }
    for gap in &shown.gaps {
        let at = |time: &Option<String>| match time {
            Some(time) => format!("{time}, "),
            None => String::new(),
        };
        text.push_str(&format!(
            "\nGAP on timeline {}: no point between these two can be restored\n    after   {}LSN {}\n    before  {}LSN {}\n",
            gap.timeline,
            at(&gap.from),
            gap.from_lsn,
            at(&gap.to),
            gap.to_lsn
        ));
        if let Some(reason) = &gap.reason {
            text.push_str(&wrapped(reason, INDENT));
        }
    }
    for trouble in &shown.troubles {
        text.push('\n');
        text.push_str(&wrapped(&format!("NOTE: {trouble}"), 0));
    }
    if window.backup_needed {
        text.push_str(&format!("\nTAKE A BACKUP: everpoint backup {name}\n"));
    }
    text
}

fn paragraph(database: &DatabaseWindow, instance: &str) -> String {
    let life = &database.life;
    let name = life
        .name()
        .map_or_else(|| format!("database {}", life.oid), str::to_owned);
    let mut text = format!("{name}\n");
    for range in &database.ranges {
        let latest = range.latest.map_or_else(|| "?".to_owned(), output::time);
        text.push_str(&format!(
            "    {} to {latest}, timeline {}\n",
            output::time(range.earliest),
            range.timeline
        ));
    }
    if database.ranges.is_empty() {
        text.push_str("    cannot be restored\n");
    }
    let mut names = life.names.iter().rev().skip(1).peekable();
    if names.peek().is_some() {
        let names: Vec<&str> = names.map(String::as_str).collect();
        text.push_str(&wrapped(&format!("was named {}", names.join(", ")), INDENT));
    }
    if let Some((_, at)) = life.created {
        text.push_str(&format!("    created {}\n", output::time(at)));
    }
    if let Some(dropped) = &database.dropped {
        let at = dropped.at.map_or_else(
            || "half DROPPED, time unknown".to_owned(),
            |at| format!("DROPPED {}", output::time(at)),
        );
        text.push_str(&format!(
            "    {at}; whole up to LSN {}\n",
            dropped.event.lsn
        ));
        if dropped.can_be_undone {
            text.push_str(&format!(
                "    everpoint log {instance} --before {}\n",
                dropped.event
            ));
        }
    }
    text
}
