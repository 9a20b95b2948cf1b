//! What speaks against a restore, found before anything is written.

use std::{
    io,
    path::{Path, PathBuf},
};

use everpoint_instance::data_directory::{is_running, space};
use everpoint_pgformat::{
    Oid,
    control::{ClusterState, ControlFile},
};
use everpoint_repository::backup::Backup;

use super::{MARKER, Marker};
use crate::room;

/// A restore is refused. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum RefusalError {
    /// Something lies in the directory.
    #[error(
        "{} is not empty (it holds `{found}`). Give a directory that is empty or not there yet; nothing was written", path.display()
    )]
    NotEmpty {
        /// The directory.
        path: PathBuf,
        /// What it holds.
        found: String,
    },
    /// A server runs there.
    #[error("a server is running on {}. Stop it, or restore into another directory", path.display())]
    Running {
        /// The directory.
        path: PathBuf,
    },
    /// Another restore was interrupted there.
    #[error(
        "{} holds an unfinished restore of backup {backup} of `{instance}` to {log_until}. Ask for the same again to go on with it, or remove the directory", path.display()
    )]
    OtherRestore {
        /// The directory.
        path: PathBuf,
        /// Its backup.
        backup: String,
        /// Its instance.
        instance: String,
        /// Its end.
        log_until: String,
    },
    /// The copy there has ended its recovery and lives on its own.
    #[error(
        "{} holds a restored copy that has ended its recovery by itself; what was written to it since would be lost. To keep it, remove {}; to restore once more, give another directory", path.display(), path.join(MARKER).display()
    )]
    RanByItself {
        /// The directory.
        path: PathBuf,
    },
    /// No room.
    #[error(
        "{} has room for {available_bytes} bytes; {needed_bytes} are needed. Free space or restore elsewhere", path.display()
    )]
    NoSpace {
        /// The directory.
        path: PathBuf,
        /// What there is.
        available_bytes: u64,
        /// What is needed.
        needed_bytes: u64,
    },
    /// A relative path.
    #[error("{} is not an absolute path, as the location of a data directory or tablespace must be", path.display())]
    NotAbsolute {
        /// The path.
        path: PathBuf,
    },
    /// A tablespace would be restored onto its old place.
    #[error(
        "tablespace {oid} was at {}, which exists. Say where it shall go: --tablespace {}=NEW", location.display(), location.display()
    )]
    TablespaceInPlace {
        /// Its OID.
        oid: Oid,
        /// Where it was.
        location: PathBuf,
    },
    /// Two things would be restored into each other.
    #[error("{} and {} lie in each other. Give every tablespace a directory of its own, outside the data directory", place.display(), other.display())]
    Overlapping {
        /// A tablespace's place.
        place: PathBuf,
        /// The other place.
        other: PathBuf,
    },
    /// A mapping for a tablespace that the backup does not have.
    #[error("the backup has no tablespace at {}. Its tablespaces: {known}", old.display())]
    UnknownTablespace {
        /// As asked for.
        old: PathBuf,
        /// Those there are.
        known: String,
    },
    /// It cannot be looked at.
    #[error("cannot look at {}", path.display())]
    Look {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn look(path: &Path) -> impl FnOnce(io::Error) -> RefusalError {
    let path = path.to_owned();
    move |source| RefusalError::Look { path, source }
}

/// Where each tablespace goes: as mapped, else to its old place when nothing is there.
///
/// # Errors
/// When a mapping fits none, or an old place is taken.
pub fn map_tablespaces(
    backup: &Backup,
    mapping: &[(PathBuf, PathBuf)],
    to: &Path,
) -> Result<Vec<(Oid, Option<PathBuf>)>, RefusalError> {
    let locations: Vec<&str> = backup
        .tablespaces
        .iter()
        .map(|tablespace| tablespace.location.as_str())
        .collect();
    for (old, new) in mapping {
        if !locations.iter().any(|location| Path::new(location) == old) {
            let known = match locations.is_empty() {
                true => "none".to_owned(),
                false => locations.join(", "),
            };
            return Err(RefusalError::UnknownTablespace {
                old: old.clone(),
                known,
            });
        }
        if !new.is_absolute() {
            return Err(RefusalError::NotAbsolute { path: new.clone() });
        }
    }
    for (index, (_, new)) in mapping.iter().enumerate() {
        let inside = |other: &Path| new.starts_with(other) || other.starts_with(new);
        let taken = mapping
            .iter()
            .take(index)
            .map(|(_, other)| other.as_path())
            .find(|o| inside(o));
        if let Some(other) = taken.or(inside(to).then_some(to)) {
            let (place, other) = (new.clone(), other.to_owned());
            return Err(RefusalError::Overlapping { place, other });
        }
    }
    backup
        .tablespaces
        .iter()
        .map(|tablespace| {
            if tablespace.location.is_empty() {
                return Ok((tablespace.oid, None));
            }
            let location = PathBuf::from(&tablespace.location);
            let mapped = mapping.iter().find(|(old, _)| *old == location);
            match mapped {
                Some((_, new)) => Ok((tablespace.oid, Some(new.clone()))),
                // What an interrupted restore laid there is gone on with.
                None if is_taken(&location) && !is_linked(to, tablespace.oid, &location) => {
                    Err(RefusalError::TablespaceInPlace {
                        oid: tablespace.oid,
                        location,
                    })
                }
                None => Ok((tablespace.oid, Some(location))),
            }
        })
        .collect()
}

/// Whether the data directory's link for a tablespace leads to this place: it is the restore's own.
pub fn is_linked(to: &Path, tablespace: Oid, place: &Path) -> bool {
    let link = to.join("pg_tblspc").join(tablespace.to_string());
    to.join(MARKER).exists() && std::fs::read_link(link).is_ok_and(|found| found == place)
}

fn is_taken(location: &Path) -> bool {
    std::fs::read_dir(location).is_ok_and(|mut entries| entries.next().is_some())
}

/// Whether the directory can be restored into; true when an interrupted restore of the same is gone on with.
///
/// # Errors
/// When it holds anything else, or a copy that has ended its recovery.
pub fn check_directory(
    path: &Path,
    marker: &Marker,
    backup: &Backup,
) -> Result<bool, RefusalError> {
    if !path.is_absolute() {
        return Err(RefusalError::NotAbsolute {
            path: path.to_owned(),
        });
    }
    if is_running(path).unwrap_or(false) {
        return Err(RefusalError::Running {
            path: path.to_owned(),
        });
    }
    match std::fs::read(path.join(MARKER)) {
        Ok(bytes) => {
            let found: Option<Marker> = serde_json::from_slice(&bytes).ok();
            match found {
                // A marker is written first and small: one that is cut was the first thing written.
                None if bytes.len() < 16 => check_unfinished(path, backup).map(|()| true),
                Some(found) if found == *marker => check_unfinished(path, backup).map(|()| true),
                Some(found) => Err(RefusalError::OtherRestore {
                    path: path.to_owned(),
                    backup: found.backup.to_string(),
                    instance: found.instance.to_string(),
                    log_until: found.log_until.to_string(),
                }),
                None => Err(RefusalError::NotEmpty {
                    path: path.to_owned(),
                    found: MARKER.to_owned(),
                }),
            }
        }
        Err(_) => check_empty(path).map(|()| false),
    }
}

/// Refuses an unfinished restore whose server had all log it needed when nobody waited for it any more: it
/// promoted itself. The control file tells: until recovery ends, its state is that of the backup, as it was
/// laid down, or one of an archive recovery (`StartupXLOG`, `src/backend/access/transam/xlog.c`).
fn check_unfinished(path: &Path, backup: &Backup) -> Result<(), RefusalError> {
    let control = path.join("global/pg_control");
    let found = match std::fs::read(&control) {
        Ok(found) => found,
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(look(&control)(source)),
    };
    let as_laid_down = crate::hex::encode(&found) == backup.control_file;
    let recovering = |control: ControlFile| {
        matches!(
            control.state,
            ClusterState::InArchiveRecovery | ClusterState::ShutDownInRecovery
        )
    };
    // One that cannot be parsed was cut while it was laid down; no server starts with it.
    match as_laid_down || ControlFile::parse(&found).map_or(true, recovering) {
        true => Ok(()),
        false => Err(RefusalError::RanByItself {
            path: path.to_owned(),
        }),
    }
}

/// Refuses a directory that holds anything.
///
/// # Errors
/// [`RefusalError::NotEmpty`].
pub fn check_empty(path: &Path) -> Result<(), RefusalError> {
    let mut entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(look(path)(source)),
    };
    match entries.find(|entry| {
        entry
            .as_ref()
            .map_or(true, |e| e.file_name() != "lost+found")
    }) {
        None => Ok(()),
        Some(entry) => {
            let found = entry
                .map_err(look(path))?
                .file_name()
                .to_string_lossy()
                .into_owned();
            Err(RefusalError::NotEmpty {
                path: path.to_owned(),
                found,
            })
        }
    }
}

/// What is to be left of a file system besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Nothing: what is restored there has it to itself.
    Nothing,
    /// A share, because a live server may be on it.
    Share,
}

/// Refuses a file system without room. The nearest directory that exists is looked at.
///
/// # Errors
/// [`RefusalError::NoSpace`].
pub fn check_space(path: &Path, needed_bytes: u64, left: Left) -> Result<(), RefusalError> {
    let existing = path
        .ancestors()
        .find(|ancestor| ancestor.exists())
        .unwrap_or(path);
    let space = space(existing).map_err(look(existing))?;
    let available_bytes = space.available.get();
    let needed_bytes = match left {
        Left::Nothing => needed_bytes,
        Left::Share => needed_bytes.saturating_add(room::left(space.total).get()),
    };
    if available_bytes < needed_bytes {
        let path = path.to_owned();
        return Err(RefusalError::NoSpace {
            path,
            available_bytes,
            needed_bytes,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_room_is_refused_where_a_directory_is_yet_to_be_made() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("not/there/yet");
        assert!(check_space(&path, 1, Left::Share).is_ok());
        let refused = check_space(&path, u64::MAX, Left::Nothing)
            .unwrap_err()
            .to_string();
        assert!(refused.contains(&u64::MAX.to_string()), "{refused}");
        assert!(refused.contains("Free space"), "{refused}");
        assert!(!path.exists());
    }
}
