//! Listing a data directory.

use std::{
    ffi::CStr,
    io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
};

use everpoint_pgformat::{MajorVersion, Oid, relation::tablespace_version_directory};
use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, fstat, openat, readlinkat, statat},
    io::Errno,
};

use super::{
    exclusion::{RelationName, is_emptied, is_left_out, is_number, is_temporary_relation},
    listing::{DirectoryRecord, FileRecord, Listing, Oddity, OddityKind, TablespaceEntry},
};

/// How deep directories may lie in each other. PostgreSQL's own lie 4 deep.
const MAX_DEPTH: usize = 64;
const PERMISSION_BITS: u32 = 0o7777;
const WAL_DIRECTORY: &str = "pg_wal";
const TABLESPACES: &str = "pg_tblspc";

/// A data directory cannot be listed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScanError {
    /// No right to read.
    #[error(
        "no right to read `{path}`. Run as the owner of the data directory, or as a member of its group in a cluster made by initdb --allow-group-access"
    )]
    NotAllowed {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The data directory is not there.
    #[error("there is no data directory at `{path}`. See where it is: SHOW data_directory")]
    Missing {
        /// Where.
        path: PathBuf,
    },
    /// Reading failed.
    #[error("`{path}` cannot be listed")]
    Read {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// More than the listing can hold: 2^32 directories, or 4 GiB of names.
    #[error("`{path}` holds too many files to be listed")]
    TooMany {
        /// The data directory.
        path: PathBuf,
    },
    /// Directories lie too deep in each other.
    #[error("`{path}` lies more than {MAX_DEPTH} directories deep")]
    TooDeep {
        /// Where.
        path: PathBuf,
    },
}

/// Lists what belongs into a backup of the data directory `root`: what PostgreSQL's own base backup would
/// send, less `backup_label`, `tablespace_map` and the WAL. Files may come and go meanwhile. Blocks.
///
/// # Errors
/// See [`ScanError`].
pub fn scan(root: &Path, version: MajorVersion) -> Result<Listing, ScanError> {
    let mut scan = Scan {
        root,
        version,
        version_directory: tablespace_version_directory(version),
        inside: Vec::new(),
        listing: Listing::default(),
    };
    let top = match open(CWD, root.as_os_str().as_bytes()) {
        Ok(top) => top,
        Err(Errno::NOENT) => {
            return Err(ScanError::Missing {
                path: root.to_owned(),
            });
        }
        Err(error) => return Err(scan.error("", error)),
    };
    scan.find_tablespaces(&top)?;
    scan.directory(top, String::new(), 0)?;
    let mut listing = scan.listing;
    listing.names.shrink_to_fit();
    listing.files.shrink_to_fit();
    listing.oddities.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(listing)
}

struct Scan<'a> {
    root: &'a Path,
    version: MajorVersion,
    version_directory: String,
    /// Tablespaces' directories that lie inside the data directory, relative to it: they are listed under
    /// `pg_tblspc` and nowhere else.
    inside: Vec<PathBuf>,
    listing: Listing,
}

/// An entry of a directory that was read.
struct Found {
    name: String,
    stat: Stat,
}

impl Found {
    fn is(&self, kind: FileType) -> bool {
        FileType::from_raw_mode(self.stat.st_mode) == kind
    }

    fn mode(&self) -> u16 {
        mode(&self.stat)
    }

    /// Its name as it sorts among paths: a directory's as if it ended in `/`.
    fn sort_key(&self) -> impl Iterator<Item = u8> {
        let slash = self.is(FileType::Directory).then_some(b'/');
        self.name.bytes().chain(slash)
    }
}

impl Scan<'_> {
    /// Learns the tablespaces from the links of `pg_tblspc`.
    fn find_tablespaces(&mut self, top: &OwnedFd) -> Result<(), ScanError> {
        let links = match open(top, TABLESPACES.as_bytes()) {
            Ok(links) => links,
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(self.error(TABLESPACES, error)),
        };
        let canonical_root = self.root.canonicalize().ok();
        for found in self.read(&links, TABLESPACES)? {
            let Some(oid) = tablespace_oid(&found.name) else {
                continue;
            };
            let location = if found.is(FileType::Symlink) {
                let target = readlinkat(&links, found.name.as_str(), Vec::new())
                    .map_err(|error| self.error(&child(TABLESPACES, &found.name), error))?;
                let target = PathBuf::from(std::ffi::OsStr::from_bytes(target.as_bytes()));
                let inside = self
                    .root
                    .join(TABLESPACES)
                    .join(&target)
                    .canonicalize()
                    .ok();
                if let (Some(root), Some(inside)) = (&canonical_root, inside)
                    && let Ok(relative) = inside.strip_prefix(root)
                {
                    self.inside.push(relative.to_owned());
                }
                Some(target)
            } else if found.is(FileType::Directory) {
                None
            } else {
                continue;
            };
            self.listing
                .tablespaces
                .push(TablespaceEntry { oid, location });
        }
        self.listing.tablespaces.sort_by_key(|entry| entry.oid);
        Ok(())
    }

    /// Lists an open directory and what lies in it.
    fn directory(&mut self, fd: OwnedFd, path: String, depth: usize) -> Result<(), ScanError> {
        if depth > MAX_DEPTH {
            return Err(ScanError::TooDeep {
                path: self.root.join(path),
            });
        }
        let stat = fstat(&fd).map_err(|error| self.error(&path, error))?;
        let mut entries = self.read(&fd, &path)?;
        let directory = self.add_directory(path.clone(), mode(&stat))?;
        let holds_relations = self.holds_relations(&path);
        if holds_relations {
            leave_out_unlogged_and_temporary(&mut entries);
        }
        entries.sort_unstable_by(|a, b| a.sort_key().cmp(b.sort_key()));
        for found in &entries {
            let inner = child(&path, &found.name);
            if is_emptied(&found.name) || inner == WAL_DIRECTORY {
                self.emptied(&inner, found, mode(&stat))?;
            } else if found.is(FileType::RegularFile) {
                self.add_file(directory, found)?;
            } else if path == TABLESPACES && tablespace_oid(&found.name).is_some() {
                self.tablespace(&fd, inner, found)?;
            } else if found.is(FileType::Directory) {
                self.subdirectory(&fd, inner, found, depth)?;
            } else if found.is(FileType::Symlink) {
                self.odd(inner, OddityKind::SymbolicLink);
            } else {
                self.odd(inner, OddityKind::SpecialFile);
            }
        }
        Ok(())
    }

    fn subdirectory(
        &mut self,
        parent: &OwnedFd,
        path: String,
        found: &Found,
        depth: usize,
    ) -> Result<(), ScanError> {
        if self.inside.iter().any(|inside| inside == Path::new(&path)) {
            self.add_directory(path, found.mode())?;
            return Ok(());
        }
        match open(parent, found.name.as_bytes()) {
            Ok(fd) => self.directory(fd, path, depth + 1),
            Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(self.error(&path, error)),
        }
    }

    /// A directory that is kept without its contents. A link to one becomes one, with the mode of the
    /// directory that it lies in.
    fn emptied(&mut self, path: &str, found: &Found, parent_mode: u16) -> Result<(), ScanError> {
        let mode = match found.is(FileType::Directory) {
            true => found.mode(),
            false => parent_mode,
        };
        self.add_directory(path.to_owned(), mode)?;
        if path == WAL_DIRECTORY {
            self.add_directory(child(path, "archive_status"), mode)?;
            if self.version.get() >= 17 {
                self.add_directory(child(path, "summaries"), mode)?;
            }
        }
        Ok(())
    }

    /// A tablespace, link or directory: only this version's directory in it counts.
    fn tablespace(
        &mut self,
        links: &OwnedFd,
        path: String,
        found: &Found,
    ) -> Result<(), ScanError> {
        let version_directory = self.version_directory.clone();
        let inner = child(&found.name, &version_directory);
        match open(links, inner.as_bytes()) {
            Ok(fd) => {
                let location = statat(links, found.name.as_str(), AtFlags::empty())
                    .map_err(|error| self.error(&path, error))?;
                self.add_directory(path.clone(), mode(&location))?;
                self.directory(fd, child(&path, &version_directory), 3)
            }
            Err(Errno::NOENT) => {
                self.odd(path, OddityKind::MissingTablespace);
                Ok(())
            }
            Err(error) => Err(self.error(&path, error)),
        }
    }

    /// Whether a directory is a database's: all digits, in `base` or in a tablespace's directory.
    fn holds_relations(&self, path: &str) -> bool {
        let Some((parent, name)) = path.rsplit_once('/') else {
            return false;
        };
        let in_tablespace = || {
            parent
                .strip_prefix(TABLESPACES)
                .and_then(|rest| rest.strip_suffix(self.version_directory.as_str()))
                .is_some()
        };
        is_number(name) && (parent == "base" || in_tablespace())
    }

    /// Everything in a directory that is not left out by its name, with its metadata.
    fn read(&mut self, fd: &OwnedFd, path: &str) -> Result<Vec<Found>, ScanError> {
        let mut entries = Vec::new();
        for entry in Dir::read_from(fd).map_err(|error| self.error(path, error))? {
            let entry = entry.map_err(|error| self.error(path, error))?;
            let raw: &CStr = entry.file_name();
            if matches!(raw.to_bytes(), b"." | b"..") {
                continue;
            }
            let name = match raw.to_str() {
                Ok(name) if u8::try_from(name.len()).is_ok() => name,
                _ => {
                    self.odd(child(path, &raw.to_string_lossy()), OddityKind::BadName);
                    continue;
                }
            };
            if is_left_out(name) {
                continue;
            }
            match statat(fd, raw, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => entries.push(Found {
                    name: name.to_owned(),
                    stat,
                }),
                // Gone since the directory was read.
                Err(Errno::NOENT) => {}
                Err(error) => return Err(self.error(&child(path, name), error)),
            }
        }
        Ok(entries)
    }

    fn add_directory(&mut self, path: String, mode: u16) -> Result<u32, ScanError> {
        let index = u32::try_from(self.listing.directories.len()).map_err(|_| self.too_many())?;
        self.listing
            .directories
            .push(DirectoryRecord { path, mode });
        Ok(index)
    }

    fn add_file(&mut self, directory: u32, found: &Found) -> Result<(), ScanError> {
        let name_start = u32::try_from(self.listing.names.len()).map_err(|_| self.too_many())?;
        self.listing.names.push_str(&found.name);
        self.listing.files.push(FileRecord {
            size: u64::try_from(found.stat.st_size).unwrap_or(0),
            directory,
            name_start,
            name_len: u8::try_from(found.name.len()).map_err(|_| self.too_many())?,
            mode: found.mode(),
        });
        Ok(())
    }

    fn odd(&mut self, path: String, kind: OddityKind) {
        self.listing.oddities.push(Oddity { path, kind });
    }

    fn too_many(&self) -> ScanError {
        ScanError::TooMany {
            path: self.root.to_owned(),
        }
    }

    fn error(&self, path: &str, error: Errno) -> ScanError {
        let path = self.root.join(path);
        let source = io::Error::from(error);
        match error {
            Errno::ACCESS | Errno::PERM => ScanError::NotAllowed { path, source },
            _ => ScanError::Read { path, source },
        }
    }
}

/// Of an unlogged relation only the init fork counts, of a temporary one nothing.
fn leave_out_unlogged_and_temporary(entries: &mut Vec<Found>) {
    let mut unlogged: Vec<String> = entries
        .iter()
        .filter_map(|found| RelationName::parse(&found.name))
        .filter(|name| name.is_init)
        .map(|name| name.relation.to_owned())
        .collect();
    unlogged.sort_unstable();
    entries.retain(|found| match RelationName::parse(&found.name) {
        Some(name) if !name.is_init => {
            let unlogged =
                unlogged.binary_search_by(|relation| relation.as_str().cmp(name.relation));
            unlogged.is_err()
        }
        Some(_) => true,
        None => !is_temporary_relation(&found.name),
    });
}

fn tablespace_oid(name: &str) -> Option<Oid> {
    is_number(name)
        .then(|| name.parse().ok())
        .flatten()
        .map(Oid::new)
}

fn child(directory: &str, name: &str) -> String {
    match directory {
        "" => name.to_owned(),
        directory => format!("{directory}/{name}"),
    }
}

fn mode(stat: &Stat) -> u16 {
    u16::try_from(stat.st_mode & PERMISSION_BITS).unwrap_or(0)
}

fn open(directory: impl std::os::fd::AsFd, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(directory, path, flags, Mode::empty())
}
