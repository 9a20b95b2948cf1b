//! The files of a data directory, kept small: hundreds of thousands of them are ordinary.

use std::path::PathBuf;

use everpoint_pgformat::{ByteCount, MajorVersion, Oid, relation::DataPath};

/// What a data directory holds, as far as it belongs into a backup. About 30 bytes a file.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    pub(super) directories: Vec<DirectoryRecord>,
    pub(super) files: Vec<FileRecord>,
    /// The names of all files, one behind the other.
    pub(super) names: String,
    pub(super) tablespaces: Vec<TablespaceEntry>,
    pub(super) oddities: Vec<Oddity>,
}

#[derive(Clone, Debug)]
pub(super) struct DirectoryRecord {
    /// Relative to the root; empty for the root itself.
    pub(super) path: String,
    pub(super) mode: u16,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct FileRecord {
    pub(super) size: u64,
    pub(super) directory: u32,
    pub(super) name_start: u32,
    pub(super) name_len: u8,
    pub(super) mode: u16,
}

/// A directory that belongs into a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectoryEntry<'a> {
    /// Relative to the data directory, with `/` between its parts; empty for the data directory itself.
    pub path: &'a str,
    /// Its permission bits.
    pub mode: u32,
}

/// A regular file that belongs into a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileEntry<'a> {
    /// Its directory, relative to the data directory; empty for the data directory itself.
    pub directory: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Its size when it was seen. A running server may change it at any time.
    pub size: ByteCount,
    /// Its permission bits.
    pub mode: u32,
}

/// A tablespace outside `base` and `global`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TablespaceEntry {
    /// Its OID.
    pub oid: Oid,
    /// Where `pg_tblspc/OID` links to; `None` when it is a directory itself
    /// (`allow_in_place_tablespaces`).
    pub location: Option<PathBuf>,
}

/// Something that does not belong into a data directory, or could not be listed, and is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Oddity {
    /// Its path relative to the data directory.
    pub path: String,
    /// What it is.
    pub kind: OddityKind,
}

/// Why something is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OddityKind {
    /// A symbolic link where there must be none; PostgreSQL's own backup leaves it out too.
    SymbolicLink,
    /// A socket, pipe or device.
    SpecialFile,
    /// A name that is not UTF-8, or longer than 255 bytes.
    BadName,
    /// A tablespace whose directory is not there.
    MissingTablespace,
}

impl std::fmt::Display for Oddity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let what = match self.kind {
            OddityKind::SymbolicLink => "is a symbolic link, which only pg_tblspc may hold",
            OddityKind::SpecialFile => "is a socket, pipe or device",
            OddityKind::BadName => "has a name that is not UTF-8",
            OddityKind::MissingTablespace => "leads to no tablespace of this PostgreSQL version",
        };
        write!(f, "{} {what}; it is left out", self.path)
    }
}

impl Listing {
    /// The directories, in the order of their files. Each comes after the one it lies in.
    pub fn directories(&self) -> impl ExactSizeIterator<Item = DirectoryEntry<'_>> {
        self.directories.iter().map(|record| DirectoryEntry {
            path: &record.path,
            mode: u32::from(record.mode),
        })
    }

    /// The files, sorted by their paths' bytes. The files of one database in one tablespace are
    /// neighbours.
    pub fn files(&self) -> impl ExactSizeIterator<Item = FileEntry<'_>> {
        self.files.iter().map(|record| self.entry(record))
    }

    /// The file at a position in [`Listing::files`].
    pub fn file(&self, index: usize) -> Option<FileEntry<'_>> {
        self.files.get(index).map(|record| self.entry(record))
    }

    /// The tablespaces, by OID.
    pub fn tablespaces(&self) -> &[TablespaceEntry] {
        &self.tablespaces
    }

    /// What was left out and ought not to be there.
    pub fn oddities(&self) -> &[Oddity] {
        &self.oddities
    }

    /// All files' sizes together.
    pub fn total_size(&self) -> ByteCount {
        ByteCount::new(self.files.iter().map(|file| file.size).sum())
    }

    fn entry(&self, record: &FileRecord) -> FileEntry<'_> {
        let start = usize::try_from(record.name_start).unwrap_or(usize::MAX);
        let end = start.saturating_add(usize::from(record.name_len));
        let directory = usize::try_from(record.directory)
            .ok()
            .and_then(|index| self.directories.get(index));
        FileEntry {
            directory: directory.map_or("", |directory| &directory.path),
            name: self.names.get(start..end).unwrap_or_default(),
            size: ByteCount::new(record.size),
            mode: u32::from(record.mode),
        }
    }
}

impl FileEntry<'_> {
    /// Its path relative to the data directory, with `/` between its parts.
    pub fn path(&self) -> String {
        let mut path = String::with_capacity(self.directory.len() + 1 + self.name.len());
        self.write_path(&mut path);
        path
    }

    /// As [`FileEntry::path`], into a string that is emptied first.
    pub fn write_path(&self, path: &mut String) {
        path.clear();
        path.push_str(self.directory);
        if !self.directory.is_empty() {
            path.push('/');
        }
        path.push_str(self.name);
    }

    /// What it belongs to.
    pub fn kind(&self, version: MajorVersion) -> DataPath {
        DataPath::classify(&self.path(), version)
    }
}
