//! What is known of an instance: its server, its databases, what can be restored.

use std::path::Path;

use everpoint_engine::{
    instance_record::InstanceRecord,
    window::{self, Window},
};
use everpoint_instance::{ConnectionSpec, SqlClient};
use everpoint_pgformat::TimelineId;
use everpoint_repository::{
    InstanceName, RepositoryError,
    backup::{Backup, BackupKind},
};
use jiff::Timestamp;

use crate::{
    catalog::{DatabaseRow, SeenDatabase},
    policy::RetentionDays,
    scheduler::{History, Rhythm, Running, Schedule, Taken, Window as WeeklyWindow},
};

/// Templates are no databases of anybody's, nor are those that are being filled under a hidden name; a database
/// whose `DROP` was begun (`datconnlimit` -2) is gone.
const DATABASES: &str = "SELECT oid, datname::text, datcollate::text, dattablespace \
    FROM pg_database WHERE NOT datistemplate AND datconnlimit <> -2 \
    AND datname NOT LIKE 'everpoint\\_restoring\\_%' ORDER BY oid";

/// `DEFAULTTABLESPACE_OID` (`src/include/catalog/pg_tablespace.dat`).
const DEFAULT_TABLESPACE: u32 = 1663;

/// What is known of an instance.
#[derive(Clone, Debug)]
pub struct Observed {
    /// Its name.
    pub name: InstanceName,
    /// As it was added.
    pub record: InstanceRecord,
    /// How it is reached.
    pub connection: ConnectionSpec,
    /// When its backups are due.
    pub schedule: Schedule,
    /// Whether its server answers, and why not.
    pub server: Result<ServerVersion, String>,
    /// What of it can be restored. None before it was looked at for the first time.
    pub restorable: Option<Restorable>,
}

/// A server's version, such as `18.6`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerVersion(pub String);

/// What of an instance can be restored.
#[derive(Clone, Debug)]
pub struct Restorable {
    /// The stretches.
    pub window: Window,
    /// The last full backup.
    pub full: Option<Taken>,
    /// The last differential.
    pub differential: Option<Taken>,
    /// The retention of databases that the catalog meets for the first time together with the instance. A catalog
    /// that is new to an instance with backups may stand for one that was lost: then it is the longest, so that
    /// nothing goes that somebody wanted kept.
    pub first_look: RetentionDays,
}

/// The points that one database can be restored to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Points {
    /// The earliest.
    pub earliest: Timestamp,
    /// The latest.
    pub latest: Timestamp,
}

impl Observed {
    /// What the scheduler wants to know.
    pub fn history(
        &self,
        (failures, failed_at): (u32, Option<Timestamp>),
        running: Running,
    ) -> Option<History> {
        let restorable = self.restorable.as_ref()?;
        let full = restorable.full;
        Some(History {
            full,
            differential: restorable.differential,
            gap: full
                .filter(|_| restorable.window.backup_needed)
                .map(|full| full.started_at),
            failures,
            failed_at,
            running,
        })
    }

    /// The points that a database can be restored to at `now`: those of the instance, while the database was
    /// there, within its retention. None when there are none.
    pub fn points(&self, database: &DatabaseRow, now: Timestamp) -> Option<Points> {
        let ranges = &self.restorable.as_ref()?.window.ranges;
        points(
            ranges
                .iter()
                .filter_map(|range| Some((range.earliest, range.latest?))),
            database,
            now,
        )
    }

    /// From when on a database can be restored, also while it is not known up to when: as late as possible is then all
    /// that can be asked for.
    pub fn restorable_from(&self, database: &DatabaseRow, now: Timestamp) -> Option<Timestamp> {
        let ranges = &self.restorable.as_ref()?.window.ranges;
        let ranges = ranges
            .iter()
            .map(|range| (range.earliest, range.latest.unwrap_or(Timestamp::MAX)));
        points(ranges, database, now).map(|points| points.earliest)
    }

    /// Where log is missing at `point`: the nearest points before and behind that.
    pub fn gap_at(&self, point: Timestamp) -> Option<(Timestamp, Timestamp)> {
        let ranges = &self.restorable.as_ref()?.window.ranges;
        gap_at(
            ranges
                .iter()
                .filter_map(|range| Some((range.earliest, range.latest?))),
            point,
        )
    }
}

/// The nearest points before and behind, of a point that no stretch holds.
fn gap_at(
    ranges: impl Iterator<Item = (Timestamp, Timestamp)>,
    point: Timestamp,
) -> Option<(Timestamp, Timestamp)> {
    let (mut before, mut after) = (None, None);
    for (earliest, latest) in ranges {
        if earliest <= point && point <= latest {
            return None;
        }
        if latest < point {
            before = before.max(Some(latest));
        } else {
            after = Some(after.map_or(earliest, |found: Timestamp| found.min(earliest)));
        }
    }
    Some((before?, after?))
}

fn points(
    ranges: impl Iterator<Item = (Timestamp, Timestamp)>,
    database: &DatabaseRow,
    now: Timestamp,
) -> Option<Points> {
    let from = database
        .retention
        .window_start(now)
        .max(database.there.time());
    let to = database.deleted_at.unwrap_or(Timestamp::MAX);
    let mut found: Option<Points> = None;
    for (earliest, latest) in ranges {
        let (earliest, latest) = (earliest.max(from), latest.min(to));
        if earliest <= latest {
            found = Some(match found {
                None => Points { earliest, latest },
                Some(points) => Points {
                    earliest: points.earliest.min(earliest),
                    latest: points.latest.max(latest),
                },
            });
        }
    }
    found
}

/// Reads what can be restored.
///
/// # Errors
/// When the repository cannot be read.
pub async fn restorable(
    repository: &everpoint_repository::Repository,
    name: &InstanceName,
) -> Result<Restorable, RepositoryError> {
    let window = window::window(repository, name).await?;
    let backups = repository.readable_backups(name).await?.backups;
    let index = repository.log_index(name).await?;
    let timeline = index.timelines().last().copied();
    let usable = window::usable(&backups, &index, timeline.unwrap_or(TimelineId::FIRST));
    // By position: a clock may have been wrong.
    let full = usable
        .iter()
        .rfind(|backup| backup.kind == BackupKind::Full);
    let differential = usable
        .iter()
        .rfind(|backup| full.is_some_and(|full| backup.kind.base() == Some(&full.id)));
    Ok(Restorable {
        full: full.map(|backup| taken(backup)),
        differential: differential.map(|backup| taken(backup)),
        first_look: match window.backups + window.damaged.len() {
            0 => RetentionDays::DEFAULT,
            _ => RetentionDays::LONGEST,
        },
        window,
    })
}

/// A full backup's size is that of the packs it lies in, for it shares with earlier ones.
fn taken(backup: &Backup) -> Taken {
    let size_bytes = match backup.kind {
        BackupKind::Full => backup.packs.iter().map(|pack| pack.size.get()).sum(),
        BackupKind::Differential { .. } => backup.totals.stored_bytes,
    };
    Taken {
        started_at: backup.started_at,
        size_bytes,
    }
}

/// Asks a server, whose data directory is `data`, for its databases.
pub(super) async fn databases(
    session: &SqlClient,
    data: &Path,
    now: Timestamp,
) -> Result<Vec<SeenDatabase>, String> {
    let rows = session.query(DATABASES, &[]).await;
    let rows = rows.map_err(|error| crate::chain(&error))?;
    let mut seen = Vec::with_capacity(rows.len());
    for row in &rows {
        let text = |place: usize| row.try_get(place).map_err(|error| crate::chain(&error));
        let oid: u32 = row.try_get(0).map_err(|error| crate::chain(&error))?;
        let tablespace: u32 = row.try_get(3).map_err(|error| crate::chain(&error))?;
        let created = made_at(data, tablespace, oid);
        seen.push(SeenDatabase {
            oid,
            name: text(1)?,
            collation: text(2)?,
            created_at: created.unwrap_or(now),
        });
    }
    Ok(seen)
}

/// When a database's directory got its version file: when it was made, or moved to another tablespace. Asked of
/// the file system, because the server tells (`pg_stat_file`) superusers only.
fn made_at(data: &Path, tablespace: u32, oid: u32) -> Option<Timestamp> {
    let databases = match tablespace {
        DEFAULT_TABLESPACE => data.join("base"),
        // In it, each version has a directory of its own; a server that was upgraded may have left its old one.
        other => {
            let place = data.join("pg_tblspc").join(other.to_string());
            let entries = std::fs::read_dir(place).ok()?;
            let mut of_versions = entries.filter_map(|entry| Some(entry.ok()?.path()));
            of_versions.find(|path| path.join(oid.to_string()).is_dir())?
        }
    };
    let path = databases.join(oid.to_string()).join("PG_VERSION");
    let modified = std::fs::metadata(path).ok()?.modified().ok()?;
    Timestamp::try_from(modified).ok()
}

/// The schedule of an instance, by the configuration, whose durations were checked.
pub(super) fn schedule(
    config: &crate::config::BackupConfig,
    instance: &InstanceName,
) -> Result<Schedule, crate::scheduler::WindowError> {
    let from = config.full_from;
    let minute = u16::try_from(i32::from(from.hour()) * 60 + i32::from(from.minute()));
    Ok(Schedule {
        instance: instance.clone(),
        full: WeeklyWindow::new(
            config.full_day.into(),
            minute.unwrap_or(0),
            crate::config::positive(config.full_window),
            instance,
        )?,
        differential: Rhythm::new(crate::config::positive(config.differential_every), instance)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{Tags, There};

    fn at(hours: i64) -> Timestamp {
        Timestamp::from_second(2_000_000_000 + hours * 3600).unwrap()
    }

    fn database(created: i64, days: i64, deleted: Option<i64>) -> DatabaseRow {
        DatabaseRow {
            oid: 5,
            name: "app".to_owned(),
            collation: "C".to_owned(),
            created_at: at(created),
            there: There::Since(at(created)),
            retention: RetentionDays::of_living(days).unwrap(),
            deleted_at: deleted.map(at),
            tags: Tags::default(),
        }
    }

    fn found(ranges: &[(i64, i64)], database: &DatabaseRow) -> Option<(i64, i64)> {
        let ranges = ranges.iter().map(|(from, to)| (at(*from), at(*to)));
        let hours = |time: Timestamp| (time.as_second() - 2_000_000_000) / 3600;
        points(ranges, database, at(0)).map(|p| (hours(p.earliest), hours(p.latest)))
    }

    #[test]
    fn a_point_in_a_gap_has_its_nearest_points_named() {
        let ranges = || {
            [(-90, -60), (-30, -2)]
                .into_iter()
                .map(|(a, b)| (at(a), at(b)))
        };
        assert_eq!(gap_at(ranges(), at(-70)), None);
        assert_eq!(gap_at(ranges(), at(-30)), None);
        assert_eq!(gap_at(ranges(), at(-45)), Some((at(-60), at(-30))));
    }

    #[test]
    fn a_databases_points_are_the_instances_within_its_life_and_its_retention() {
        let all = [(-500, -1)];
        assert_eq!(found(&all, &database(-9999, 7, None)), Some((-168, -1)));
        assert_eq!(found(&all, &database(-9999, 35, None)), Some((-500, -1)));
        assert_eq!(found(&all, &database(-20, 35, None)), Some((-20, -1)));
        assert_eq!(found(&all, &database(-20, 35, Some(-10))), Some((-20, -10)));
        assert_eq!(
            found(&all, &database(-400, 7, Some(-200))),
            None,
            "all of it too old"
        );
        assert_eq!(found(&[], &database(-20, 7, None)), None);
        let with_gap = [(-90, -60), (-30, -2)];
        assert_eq!(found(&with_gap, &database(-9999, 7, None)), Some((-90, -2)));
        assert_eq!(
            found(&with_gap, &database(-9999, 7, Some(-40))),
            Some((-90, -60))
        );
        assert_eq!(
            found(&with_gap, &database(-50, 7, Some(-40))),
            None,
            "within the gap"
        );
    }
}
