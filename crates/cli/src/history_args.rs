//! Arguments of the commands that tell what happened and what can be restored.

use clap::Args;
use everpoint_engine::history::event::{EventId, EventKind};
use everpoint_repository::InstanceName;

#[derive(Debug, Args)]
pub struct Log {
    /// The instance
    pub name: InstanceName,
    /// Only what happened in or to this database: its name, or its OID
    #[arg(long, value_name = "DATABASE")]
    pub database: Option<String>,
    /// From this moment on, with its zone: 2026-11-22T21:30:00+01:00
    #[arg(long, value_name = "TIME", value_parser = crate::time::instant)]
    pub since: Option<jiff::Timestamp>,
    /// Up to this moment
    #[arg(long, value_name = "TIME", value_parser = crate::time::instant)]
    pub until: Option<jiff::Timestamp>,
    /// Only these kinds, divided by commas: drop, truncate, bulk, ddl, create, rename, move,
    /// restore-point, clock, timeline, gap
    #[arg(long = "kind", value_name = "KIND", value_delimiter = ',', value_parser = kind)]
    pub kinds: Vec<EventKind>,
    /// At most this many, the latest
    #[arg(long, value_name = "N", default_value = "50", value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,
    /// Follow this timeline instead of the latest
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    pub timeline: Option<u32>,
    /// Print how to restore to just before this event
    #[arg(long, value_name = "EVENT", conflicts_with_all = ["database", "since", "until", "kinds", "timeline"])]
    pub before: Option<EventId>,
    /// The same as --output json
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Window {
    /// The instance
    pub name: InstanceName,
    /// The same as --output json
    #[arg(long)]
    pub json: bool,
}

fn kind(text: &str) -> Result<EventKind, String> {
    EventKind::ALL
        .into_iter()
        .find(|kind| kind.name() == text)
        .ok_or_else(|| {
            let names: Vec<&str> = EventKind::ALL.iter().map(|kind| kind.name()).collect();
            format!("the kinds are {}", names.join(", "))
        })
}
