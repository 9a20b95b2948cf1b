//! From when to when each database can be restored.

use everpoint_pgformat::{Lsn, TimelineId};
use everpoint_repository::{InstanceName, Repository};
use jiff::Timestamp;

use super::{
    History, HistoryError, HistoryRequest,
    event::{Change, EventId, EventKind},
    lives::DatabaseLife,
    read,
};
use crate::{
    summary::Source,
    window::{Range, Window},
};

/// From when to when the databases can be restored.
#[derive(Clone, Debug)]
pub struct DatabaseWindows {
    /// The databases: those that are there first, then those that were dropped; by name.
    pub databases: Vec<DatabaseWindow>,
    /// Stretches without any point that can be restored.
    pub gaps: Vec<Gap>,
    /// Why something may be missing, for a person.
    pub troubles: Vec<String>,
}

/// From when to when a database can be restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseWindow {
    /// The database.
    pub life: DatabaseLife,
    /// Stretches in which every point can be restored, oldest first.
    pub ranges: Vec<Range>,
    /// Its drop.
    pub dropped: Option<DroppedWindow>,
}

/// The end of a database that was dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DroppedWindow {
    /// When its drop was committed.
    pub at: Option<Timestamp>,
    /// Its drop; recovery up to there, exclusive, has it whole.
    pub event: EventId,
    /// Whether that position can be restored.
    pub can_be_undone: bool,
}

/// A stretch without any point that can be restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The timeline.
    pub timeline: TimelineId,
    /// The last position that can be restored.
    pub from: Lsn,
    /// Its time, when known.
    pub from_time: Option<Timestamp>,
    /// The first position that can be restored again.
    pub to: Lsn,
    /// Its time, when known.
    pub to_time: Option<Timestamp>,
    /// Why, when it was recorded.
    pub reason: Option<String>,
}

/// Finds out from when to when each database can be restored. `window` is that of the instance.
///
/// # Errors
/// See [`HistoryError`].
pub async fn windows(
    repository: &Repository,
    instance: &InstanceName,
    window: &Window,
) -> Result<DatabaseWindows, HistoryError> {
    if window.ranges.is_empty() {
        return Ok(DatabaseWindows {
            databases: Vec::new(),
            gaps: Vec::new(),
            troubles: Vec::new(),
        });
    }
    let request = HistoryRequest {
        instance: instance.clone(),
        timeline: None,
        since: None,
        until: None,
        source: Source::default(),
    };
    let history = read(repository, &request).await?;
    let mut databases: Vec<DatabaseWindow> = history
        .databases
        .all()
        .map(|life| of_life(life, window, &history))
        .collect();
    databases.sort_by(|a, b| {
        let key = |database: &DatabaseWindow| {
            let name = database.life.name().unwrap_or_default().to_owned();
            (database.dropped.is_some(), name, database.life.oid)
        };
        key(a).cmp(&key(b))
    });
    Ok(DatabaseWindows {
        databases,
        gaps: gaps(window, &history),
        troubles: history.troubles,
    })
}

fn of_life(life: &DatabaseLife, window: &Window, history: &History) -> DatabaseWindow {
    let undo = life.dropped.as_ref().map(|dropped| dropped.undo);
    let ranges: Vec<Range> = window
        .ranges
        .iter()
        .filter_map(|range| clip(range, life))
        .collect();
    let dropped = life.dropped.as_ref().map(|dropped| DroppedWindow {
        at: dropped.at,
        event: history
            .events
            .iter()
            .find(|event| event.kind == EventKind::Drop && event.id.lsn == dropped.undo)
            .map_or(
                EventId {
                    timeline: history.timeline,
                    lsn: dropped.undo,
                },
                |event| event.id,
            ),
        can_be_undone: window
            .ranges
            .iter()
            .any(|range| Some(range.earliest_lsn) <= undo && undo <= Some(range.latest_lsn)),
    });
    DatabaseWindow {
        life: life.clone(),
        ranges,
        dropped,
    }
}

/// The part of a range in which the database lived.
fn clip(range: &Range, life: &DatabaseLife) -> Option<Range> {
    let mut part = range.clone();
    if let Some((lsn, at)) = life.created
        && lsn > part.earliest_lsn
    {
        (part.earliest, part.earliest_lsn) = (at, lsn);
    }
    if let Some(dropped) = &life.dropped
        && dropped.undo < part.latest_lsn
    {
        (part.latest, part.latest_lsn) = (dropped.at, dropped.undo);
    }
    (part.earliest_lsn <= part.latest_lsn).then_some(part)
}

/// What lies between the instance's ranges, with the reasons that were recorded.
fn gaps(window: &Window, history: &History) -> Vec<Gap> {
    let reason = |from: Lsn, to: Lsn| {
        history.events.iter().find_map(|event| match &event.change {
            Change::Lost { reason, .. } if (from..=to).contains(&event.id.lsn) => reason.clone(),
            _ => None,
        })
    };
    let pairs = window.ranges.iter().zip(window.ranges.iter().skip(1));
    pairs
        .filter(|(before, after)| before.latest_lsn < after.earliest_lsn)
        .map(|(before, after)| Gap {
            timeline: after.timeline,
            from: before.latest_lsn,
            from_time: before.latest,
            to: after.earliest_lsn,
            to_time: Some(after.earliest),
            reason: reason(before.latest_lsn, after.earliest_lsn),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use everpoint_pgformat::Oid;

    use super::*;
    use crate::history::lives::Drop;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn range(from: u64, to: u64) -> Range {
        Range {
            timeline: TimelineId::FIRST,
            earliest: at(i64::try_from(from).unwrap()),
            earliest_lsn: Lsn::new(from),
            latest: Some(at(i64::try_from(to).unwrap())),
            latest_lsn: Lsn::new(to),
        }
    }

    #[test]
    fn databases_are_restorable_while_they_live() {
        let mut life = DatabaseLife {
            oid: Oid::new(16_400),
            names: vec!["shop".to_owned()],
            created: Some((Lsn::new(150), at(149))),
            dropped: Some(Drop {
                undo: Lsn::new(250),
                at: Some(at(251)),
            }),
        };
        assert_eq!(clip(&range(10, 100), &life), None);
        let part = clip(&range(100, 300), &life).unwrap();
        assert_eq!((part.earliest, part.earliest_lsn.get()), (at(149), 150));
        assert_eq!((part.latest, part.latest_lsn.get()), (Some(at(251)), 250));
        assert_eq!(clip(&range(260, 300), &life), None);
        life.created = None;
        life.dropped = None;
        assert_eq!(clip(&range(10, 100), &life), Some(range(10, 100)));
    }
}
