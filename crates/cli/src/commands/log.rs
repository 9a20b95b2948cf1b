//! `everpoint log`.

use everpoint_engine::history::{
    self, Before, History, HistoryRequest,
    event::{Change, Event, EventId, EventKind, Object, ObjectKind},
};
use everpoint_engine::{instance_record::InstanceRecord, summary::Source};
use everpoint_pgformat::TimelineId;
use everpoint_repository::Repository;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::restore::ShownNeighbour;
use crate::{
    args::{Global, OutputFormat},
    exit::{Exit, Refusal},
    history_args::Log,
    output::{self, wrapped},
};

/// Around an event's time, in which it is looked for.
const NEAR: SignedDuration = SignedDuration::from_secs(2);
/// In front of what an event did.
const INDENT: usize = 4;

pub async fn run(repository: &Repository, global: &Global, args: &Log) -> anyhow::Result<Exit> {
    repository.description::<InstanceRecord>(&args.name).await?;
    let format = match args.json {
        true => OutputFormat::Json,
        false => global.output,
    };
    match args.before {
        Some(event) => before(repository, format, args, event).await,
        None => list(repository, format, args).await,
    }
}

#[derive(Serialize)]
struct ShownLog {
    instance: String,
    timeline: u32,
    events: Vec<ShownEvent>,
    earlier_events: usize,
    troubles: Vec<String>,
}

#[derive(Serialize)]
struct ShownEvent {
    id: String,
    time: Option<String>,
    kind: &'static str,
    timeline: u32,
    lsn: String,
    transaction: Option<u32>,
    database: Option<ShownDatabase>,
    what: String,
    objects: Vec<ShownObject>,
    first_lsn: Option<String>,
    log_bytes: Option<u64>,
    block_references: Option<u64>,
}

#[derive(Serialize)]
struct ShownDatabase {
    oid: u32,
    name: Option<String>,
}

#[derive(Serialize)]
struct ShownObject {
    action: &'static str,
    kind: &'static str,
    schema: Option<String>,
    name: Option<String>,
    renamed_from: Option<String>,
    relfilenode: Option<u32>,
    rows_inserted: u64,
    rows_updated: u64,
    rows_deleted: u64,
    block_references: u64,
}

impl From<&Object> for ShownObject {
    fn from(object: &Object) -> Self {
        Self {
            action: object.action.verb(),
            kind: object.kind.noun(),
            schema: object.schema.clone(),
            name: object.name.clone(),
            renamed_from: object.renamed_from.clone(),
            relfilenode: object.file.map(|file| file.relfilenode.get()),
            rows_inserted: object.rows.inserted,
            rows_updated: object.rows.updated,
            rows_deleted: object.rows.deleted,
            block_references: object.blocks,
        }
    }
}

impl From<&Event> for ShownEvent {
    fn from(event: &Event) -> Self {
        let objects = match &event.change {
            Change::Objects { objects, .. } | Change::Rows { tables: objects } => {
                objects.as_slice()
            }
            _ => &[],
        };
        Self {
            id: event.id.to_string(),
            time: event.time.map(|time| time.to_string()),
            kind: event.kind.name(),
            timeline: event.id.timeline.get(),
            lsn: event.id.lsn.to_string(),
            transaction: event.transaction.map(|transaction| transaction.get()),
            database: event.database.as_ref().map(|database| ShownDatabase {
                oid: database.oid.get(),
                name: database.name.clone(),
            }),
            what: event.what(),
            objects: objects.iter().map(Into::into).collect(),
            first_lsn: event.size.map(|size| size.first.to_string()),
            log_bytes: event.size.map(|size| size.log_bytes),
            block_references: event.size.map(|size| size.blocks),
        }
    }
}

async fn list(repository: &Repository, format: OutputFormat, args: &Log) -> anyhow::Result<Exit> {
    let request = HistoryRequest {
        instance: args.name.clone(),
        timeline: args.timeline.and_then(TimelineId::new),
        since: args.since,
        until: args.until,
        source: Source::default(),
    };
    let history = history::read(repository, &request).await?;
    let mut events: Vec<&Event> = history
        .events
        .iter()
        .filter(|event| args.kinds.is_empty() || args.kinds.contains(&event.kind))
        .filter(|event| is_of(event, args.database.as_deref()))
        .collect();
    if let Some(database) = &args.database
        && !is_known(&history, database)
    {
        let text = format!(
            "no database `{database}` was there in the time that is stored. everpoint window {} lists \
             those there were",
            args.name
        );
        return Err(Refusal(text).into());
    }
    let limit = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let earlier_events = events.len().saturating_sub(limit);
    events.drain(..earlier_events);
    let shown = ShownLog {
        instance: args.name.to_string(),
        timeline: history.timeline.get(),
        events: events
            .iter()
            .map(|event| ShownEvent::from(*event))
            .collect(),
        earlier_events,
        troubles: history.troubles.clone(),
    };
    output::one(format, &shown, || text(args, &events, &shown))?;
    Ok(Exit::Success)
}

fn is_of(event: &Event, database: Option<&str>) -> bool {
    let Some(wanted) = database else { return true };
    if let Change::DatabaseRenamed { from: Some(from) } = &event.change
        && from == wanted
    {
        return true;
    }
    match &event.database {
        Some(database) => {
            database.name.as_deref() == Some(wanted) || database.oid.to_string() == wanted
        }
        // What concerns all databases.
        None => matches!(
            event.kind,
            EventKind::RestorePoint | EventKind::Clock | EventKind::Timeline | EventKind::Gap
        ),
    }
}

fn is_known(history: &History, database: &str) -> bool {
    history.databases.all().any(|life| {
        life.oid.to_string() == database || life.names.iter().any(|name| name == database)
    })
}

fn text(args: &Log, events: &[&Event], shown: &ShownLog) -> String {
    let mut text = String::new();
    if shown.earlier_events > 0 {
        text.push_str(&format!(
            "({} earlier events are not shown; --limit shows more)\n\n",
            shown.earlier_events
        ));
    }
    for event in events {
        text.push_str(&paragraph(event));
    }
    if events.is_empty() {
        text.push_str("nothing of that kind happened in the log that is stored\n");
    }
    for trouble in &shown.troubles {
        text.push('\n');
        text.push_str(&wrapped(&format!("NOTE: {trouble}"), 0));
    }
    if let Some(event) = events.last() {
        text.push_str(&format!(
            "\nHow to have everything as it was just before one of them, for example:\n  everpoint log {} --before {}\n",
            args.name, event.id
        ));
    }
    text
}

fn paragraph(event: &Event) -> String {
    let time = event.time.map_or_else(|| "?".to_owned(), output::time);
    let database = event.database.as_ref().map_or(String::new(), |database| {
        let name = database.name.clone();
        format!(
            "  in {}",
            name.unwrap_or_else(|| format!("database {}", database.oid))
        )
    });
    let mut text = format!(
        "{time}  {:<13}  event {}{database}\n",
        event.kind.name(),
        event.id
    );
    let mut what = event.what();
    if let Some(transaction) = event.transaction {
        what.push_str(&format!(" (transaction {transaction}"));
        if let Some(size) = event.size.filter(|_| event.kind == EventKind::Bulk) {
            what.push_str(&format!(", {} of log", output::bytes(size.log_bytes)));
        }
        what.push(')');
    }
    text.push_str(&wrapped(&what, INDENT));
    text
}

#[derive(Serialize)]
struct ShownBefore {
    event: String,
    events: Vec<ShownEvent>,
    timeline: Option<u32>,
    lsn: String,
    last_inside: Option<ShownNeighbour>,
    first_outside: Option<ShownNeighbour>,
    restore: String,
}

async fn before(
    repository: &Repository,
    format: OutputFormat,
    args: &Log,
    id: EventId,
) -> anyhow::Result<Exit> {
    let found = history::before(repository, &args.name, id).await?;
    let events = around(repository, args, &found).await?;
    let mut restore = format!(
        "everpoint restore instance {} --to DIRECTORY --lsn {}",
        args.name, found.lsn
    );
    if let Some(timeline) = found.timeline {
        restore.push_str(&format!(" --timeline {timeline}"));
    }
    let shown = ShownBefore {
        event: id.to_string(),
        events: events.iter().map(Into::into).collect(),
        timeline: found.timeline.map(TimelineId::get),
        lsn: found.lsn.to_string(),
        last_inside: found.neighbours.inside.map(Into::into),
        first_outside: found.neighbours.outside.map(Into::into),
        restore,
    };
    output::one(format, &shown, || before_text(&found, &events, &shown))?;
    Ok(Exit::Success)
}

/// What the history tells of the event.
async fn around(repository: &Repository, args: &Log, found: &Before) -> anyhow::Result<Vec<Event>> {
    let near = |neighbour: Option<Timestamp>| neighbour.unwrap_or(Timestamp::MIN);
    let inside = found.neighbours.inside.map(|inside| inside.time);
    let request = HistoryRequest {
        instance: args.name.clone(),
        timeline: found.timeline,
        since: near(inside).checked_sub(NEAR).ok(),
        until: None,
        source: Source::default(),
    };
    let history = history::read(repository, &request).await?;
    let mut events = history.events;
    events.retain(|event| event.id == found.event);
    Ok(events)
}

fn before_text(found: &Before, events: &[Event], shown: &ShownBefore) -> String {
    let mut text = String::new();
    for event in events {
        text.push_str(&paragraph(event));
    }
    if events.is_empty() {
        text.push_str(&format!("event {}: a transaction ended\n", found.event));
    }
    text.push_str(&format!("\nJust before it: LSN {}", shown.lsn));
    if let Some(timeline) = shown.timeline {
        text.push_str(&format!(" on timeline {timeline}"));
    }
    text.push('\n');
    for (name, neighbour) in [
        ("last inside  ", &shown.last_inside),
        ("first outside", &shown.first_outside),
    ] {
        if let Some(neighbour) = neighbour {
            text.push_str(&format!("  {name}  {neighbour}\n"));
        }
    }
    let is_large = events.iter().any(|event| event.kind == EventKind::Bulk);
    let said = match is_large {
        true => {
            "Whatever others committed while this transaction ran is inside. What was committed after \
             it, by anybody, is not."
        }
        false => {
            "Everything that was committed before is inside. What was committed from then on, by \
             anybody, is not."
        }
    };
    text.push('\n');
    text.push_str(&wrapped(said, 0));
    text.push_str(&format!(
        "To have it in a new directory, beside the running server:\n\n  {}\n",
        shown.restore
    ));
    let names_table = events.iter().any(|event| match &event.change {
        Change::Objects { objects, .. } => objects
            .iter()
            .any(|object| matches!(object.kind, ObjectKind::File)),
        _ => false,
    });
    if names_table {
        text.push_str("\nThe names of some tables are neither in the log nor in a backup.\n");
    }
    text
}
