//! The position just before an event.

use everpoint_pgformat::{
    Lsn, TimelineId,
    wal_summary::{database_events::DatabaseEvents, time_index::TransactionMark},
};
use everpoint_repository::{InstanceName, Repository};

use super::{HistoryError, Stored, event::EventId};
use crate::{
    restore::{target::Neighbour, time_search::neighbour},
    summary::{Facts, Source},
};

/// Where a restore has to go to have everything up to an event, and nothing of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Before {
    /// The event.
    pub event: EventId,
    /// The timeline to follow; absent when it is the one that restores follow by themselves.
    pub timeline: Option<TimelineId>,
    /// Everything that ends at or before this position is wanted.
    pub lsn: Lsn,
    /// The ends of transactions around that position.
    pub neighbours: Neighbours,
}

/// The ends of transactions next to a position.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Neighbours {
    /// The last that is inside.
    pub inside: Option<Neighbour>,
    /// The first that is outside.
    pub outside: Option<Neighbour>,
}

/// Finds the position just before an event: for a drop of a database the start of the record that begins
/// it, else behind the last end of a transaction before the event's own. Nothing that another transaction
/// had committed before the event is left out.
///
/// # Errors
/// See [`HistoryError`].
pub async fn before(
    repository: &Repository,
    instance: &InstanceName,
    event: EventId,
) -> Result<Before, HistoryError> {
    let latest = Stored::read(repository, instance, None, Source::default()).await?;
    let is_on_latest = latest.history.timeline_at(event.lsn) == event.timeline;
    let (stored, timeline) = match is_on_latest {
        true => (latest, None),
        false => {
            let asked = Some(event.timeline);
            let stored = Stored::read(repository, instance, asked, Source::default()).await?;
            (stored, asked)
        }
    };
    let index = &stored.index;
    let Some(backup) = stored
        .backups
        .iter()
        .rfind(|backup| backup.stop_lsn <= event.lsn)
    else {
        let earliest = stored.backups.first();
        return Err(HistoryError::NoBackupBefore {
            event,
            earliest: earliest.map_or("never".to_owned(), |backup| backup.stopped_at.to_string()),
        });
    };
    let until = index.complete_until(stored.timeline, backup.start_lsn);
    if until < event.lsn {
        return Err(HistoryError::LogMissing {
            event,
            missing: until,
        });
    }
    let mut found = Search::new(event.lsn, backup.stop_lsn);
    let stretch = (backup.start_lsn, until);
    let chronicle = stored.chronicle(repository, instance, stretch, Facts::Databases);
    let mut chronicle = chronicle.await?;
    while let Some(chronicle) = &mut chronicle
        && let Some(summary) = chronicle.next().await?
    {
        for mark in summary.times.transactions() {
            found.see(mark);
        }
        for point in summary.times.restore_points() {
            found.is_event |= point.start == event.lsn;
        }
        found.databases.absorb(summary.databases.clone());
        if found.outside.is_some() && summary.end > event.lsn {
            break;
        }
    }
    let drops = found.databases.dropped();
    let is_drop = drops.iter().any(|drop| drop.undo == event.lsn);
    let moves = found.databases.events().iter();
    let is_move = moves.into_iter().any(|moved| moved.start == event.lsn);
    let is_promotion = stored
        .history
        .parts()
        .iter()
        .any(|part| part.from == event.lsn);
    let is_end = until == event.lsn;
    if !(found.is_event || is_drop || is_move || is_promotion || is_end) {
        let instance = instance.clone();
        return Err(HistoryError::UnknownEvent { event, instance });
    }
    let inside_end = found.inside.map_or(backup.stop_lsn, |mark| mark.end);
    let lsn = match is_drop {
        true => event.lsn,
        false => inside_end.max(backup.stop_lsn),
    };
    Ok(Before {
        event,
        timeline,
        lsn,
        neighbours: Neighbours {
            inside: found.inside.as_ref().map(neighbour),
            outside: found.outside.as_ref().map(neighbour),
        },
    })
}

/// The ends of transactions around a position, as they go by.
struct Search {
    lsn: Lsn,
    from: Lsn,
    inside: Option<TransactionMark>,
    outside: Option<TransactionMark>,
    is_event: bool,
    databases: DatabaseEvents,
}

impl Search {
    fn new(lsn: Lsn, from: Lsn) -> Self {
        Self {
            lsn,
            from,
            inside: None,
            outside: None,
            is_event: false,
            databases: DatabaseEvents::default(),
        }
    }

    fn see(&mut self, mark: &TransactionMark) {
        if mark.start < self.lsn {
            if mark.end > self.from {
                self.inside = Some(*mark);
            }
        } else {
            self.is_event |= mark.start == self.lsn;
            self.outside.get_or_insert(*mark);
        }
    }
}
