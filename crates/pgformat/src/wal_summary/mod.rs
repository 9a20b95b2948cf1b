//! Summaries of write-ahead log: what a stretch of log changes, when, and what was lost in it.
//!
//! A [`SummaryBuilder`] makes them from records as log comes in. They answer, without reading the log again:
//! which blocks a differential backup must copy ([`change_map`]), to which position a time leads
//! ([`time_index`]), which databases came, went and were renamed ([`database_events`]), which relations'
//! files went away ([`relation_events`]), and which transactions changed tables, schemas or unusually many
//! blocks ([`transactions`]).
//!
//! Summaries of consecutive stretches merge into one. [`format`](mod@format) is their stored form.
//!
//! Memory is bounded: each part has a named limit. A change map at its limit says that everything changed;
//! the other parts leave out what comes later and say so ([`Coverage`]). [`SummaryBuilder::is_full`] asks for
//! a cut long before.

pub mod activity;
mod block_chunk;
pub mod block_set;
mod builder;
pub mod carried;
mod catalog_rows;
pub mod change_map;
pub mod database_events;
pub mod format;
mod hash;
pub mod relation_events;
mod relation_rows;
mod row_store;
pub mod schema_changes;
pub mod time_index;
pub mod transactions;

use crate::{Lsn, MajorVersion, TimelineId};

pub use builder::{SummaryBuilder, SummaryError};
use carried::Carried;
pub use catalog_rows::DATABASE_CATALOG;
use change_map::ChangeMap;
use database_events::DatabaseEvents;
use relation_events::RelationEvents;
use time_index::TimeIndex;
use transactions::NotableTransactions;

/// What a stretch of log changes, when, and what was lost in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalSummary {
    /// The version that wrote the log.
    pub version: MajorVersion,
    /// The timeline it ends on.
    pub timeline: TimelineId,
    /// Where it begins.
    pub start: Lsn,
    /// Behind its last record. All records that begin from `start` on and end up to here are summarised.
    pub end: Lsn,
    /// How many records those are.
    pub records: u64,
    /// Records of extensions' resource managers.
    pub custom: CustomRecords,
    /// Start of its last record; where it begins, when it has none.
    pub last: Lsn,
    /// Changes of catalogs' rows that could not be read.
    pub unread: Unread,
    /// What the builder that goes on from its end has to know.
    pub carried: Carried,
    /// Which blocks changed.
    pub changes: ChangeMap,
    /// When transactions ended.
    pub times: TimeIndex,
    /// What happened to databases.
    pub databases: DatabaseEvents,
    /// Relations' files that went away.
    pub relations: RelationEvents,
    /// Transactions worth telling of, and what those under way at the end had done.
    pub transactions: NotableTransactions,
}

/// Records of extensions' resource managers. What they change besides the blocks they name is unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CustomRecords {
    /// All of them.
    pub records: u64,
    /// Those that name no blocks.
    pub without_blocks: u64,
}

/// The first records that change a row of a catalog which the log read so far does not show: what they do is
/// not known in full. A builder that begins where a checkpoint did has none of them, as long as the server
/// writes full pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unread {
    /// In `pg_database`: a rename may be missing.
    pub databases: Option<Lsn>,
    /// In `pg_class` or `pg_namespace`: what a transaction did to a table may be missing.
    pub relations: Option<Lsn>,
}

/// Whether a list has all that its stretch of log has to say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Coverage {
    /// All.
    #[default]
    Whole,
    /// There was more than the list's limit; the last is missing.
    Partial,
}

impl Coverage {
    const fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Whole, Self::Whole) => Self::Whole,
            _ => Self::Partial,
        }
    }
}

/// Two summaries do not follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a summary that begins at {later_start} on timeline {later_timeline} does not follow one that ends at \
     {end} on timeline {timeline}, or is of another major version"
)]
pub struct NotConsecutive {
    end: Lsn,
    timeline: TimelineId,
    later_start: Lsn,
    later_timeline: TimelineId,
}

impl WalSummary {
    fn empty(version: MajorVersion, timeline: TimelineId, start: Lsn, carried: Carried) -> Self {
        Self {
            version,
            timeline,
            start,
            end: start,
            records: 0,
            custom: CustomRecords::default(),
            last: start,
            unread: Unread::default(),
            carried,
            changes: ChangeMap::default(),
            times: TimeIndex::default(),
            databases: DatabaseEvents::default(),
            relations: RelationEvents::default(),
            transactions: NotableTransactions::default(),
        }
    }

    /// Leaves out of the lists what is not told of records that begin at or behind `from` and end at or before
    /// `to`. What transactions did is told in full if they ended there.
    pub fn keep_lists_between(&mut self, from: Lsn, to: Lsn) {
        if from <= self.start && self.end <= to {
            return;
        }
        self.times.keep_between(from, to);
        self.databases.keep_between(from, to);
        self.relations.keep_between(from, to);
        self.transactions.keep_between(from, to);
    }

    /// Adds the summary of the log that follows, on the same timeline or one that branches off here.
    ///
    /// # Errors
    /// When the other summary does not begin where this one ends.
    pub fn absorb(&mut self, later: Self) -> Result<(), NotConsecutive> {
        if later.start != self.end
            || later.timeline < self.timeline
            || later.version != self.version
        {
            return Err(NotConsecutive {
                end: self.end,
                timeline: self.timeline,
                later_start: later.start,
                later_timeline: later.timeline,
            });
        }
        self.timeline = later.timeline;
        self.end = later.end;
        self.records = self.records.saturating_add(later.records);
        self.custom.records = self.custom.records.saturating_add(later.custom.records);
        self.custom.without_blocks = self
            .custom
            .without_blocks
            .saturating_add(later.custom.without_blocks);
        if later.records > 0 {
            self.last = later.last;
        }
        self.unread.databases = self.unread.databases.or(later.unread.databases);
        self.unread.relations = self.unread.relations.or(later.unread.relations);
        self.carried = later.carried;
        self.changes.absorb(&later.changes);
        self.times.absorb(later.times);
        self.databases.absorb(later.databases);
        self.relations.absorb(later.relations);
        self.transactions.absorb(later.transactions);
        Ok(())
    }
}
