//! The audit log's file.

use std::{
    fs::{File, OpenOptions},
    io::{BufReader, Write},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use super::chain::{Chain, ChainError, Entry, Head, MAX_LINE_BYTES, verify};

/// An open audit log. Only one process may have it open.
#[derive(Debug)]
pub struct AuditFile {
    path: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    file: File,
    chain: Chain,
}

/// The audit log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuditFileError {
    /// It cannot be opened.
    #[error("the audit log {} cannot be opened", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another process writes to it.
    #[error("the audit log {} is in use by another process", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// It is not whole.
    #[error("the audit log {} is not whole. Move it away to begin a new one, and find out who changed it", path.display())]
    Chain {
        /// The file.
        path: PathBuf,
        /// Where.
        source: ChainError,
    },
    /// It cannot be written.
    #[error("the audit log {} cannot be written", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl AuditFile {
    /// Opens or begins a log, checking what it holds. A last line without its end, as a power failure leaves
    /// it, was never acknowledged and is taken away.
    ///
    /// # Errors
    /// When it cannot be opened, is in use, or is not whole.
    pub fn open(path: &Path) -> Result<Self, AuditFileError> {
        let open = |source| AuditFileError::Open {
            path: path.to_owned(),
            source,
        };
        let file = OpenOptions::new()
            .create(true)
            .read(true)
            .append(true)
            .mode(0o600)
            .open(path)
            .map_err(open)?;
        file.try_lock().map_err(|error| match error {
            std::fs::TryLockError::WouldBlock => AuditFileError::InUse {
                path: path.to_owned(),
            },
            std::fs::TryLockError::Error(source) => open(source),
        })?;
        cut_unfinished_line(&file).map_err(open)?;
        let head = Self::check(path, None)?;
        Ok(Self {
            path: path.to_owned(),
            inner: Mutex::new(Inner {
                file,
                chain: Chain::behind(head),
            }),
        })
    }

    /// Checks a log without opening it for writing.
    ///
    /// # Errors
    /// When it cannot be read or is not whole.
    pub fn check(path: &Path, noted: Option<Head>) -> Result<Head, AuditFileError> {
        let file = File::open(path).map_err(|source| AuditFileError::Open {
            path: path.to_owned(),
            source,
        })?;
        verify(BufReader::new(file), noted).map_err(|source| AuditFileError::Chain {
            path: path.to_owned(),
            source,
        })
    }

    /// Appends an entry. It is in the operating system's hands afterwards; [`Self::sync`] brings it to disk.
    ///
    /// # Errors
    /// When it cannot be written: then what it was about must not be done.
    pub fn append(&self, entry: &Entry) -> Result<(), AuditFileError> {
        let write = |source| AuditFileError::Write {
            path: self.path.clone(),
            source,
        };
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = inner.chain.clone();
        let line = next.append(entry).map_err(|error| write(error.into()))?;
        let before = inner.file.metadata().map_err(write)?.len();
        if let Err(source) = inner.file.write_all(line.as_bytes()) {
            // Half a line would break the chain for ever.
            let _ = inner.file.set_len(before);
            return Err(write(source));
        }
        inner.chain = next;
        Ok(())
    }

    /// Brings what was appended to disk.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn sync(&self) -> Result<(), AuditFileError> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner
            .file
            .sync_data()
            .map_err(|source| AuditFileError::Write {
                path: self.path.clone(),
                source,
            })
    }

    /// Its end.
    pub fn head(&self) -> Head {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.chain.head()
    }
}

fn cut_unfinished_line(file: &File) -> std::io::Result<()> {
    let length = file.metadata()?.len();
    let mut tail = vec![
        0;
        usize::try_from(length)
            .unwrap_or(usize::MAX)
            .min(MAX_LINE_BYTES)
    ];
    let start = length.saturating_sub(u64::try_from(tail.len()).unwrap_or(u64::MAX));
    file.read_exact_at(&mut tail, start)?;
    match tail.iter().rposition(|byte| *byte == b'\n') {
        // Nothing but one unfinished line; a longer one than there can be is left for the check to name.
        None if start == 0 && !tail.is_empty() => file.set_len(0),
        Some(last) if last + 1 < tail.len() => {
            file.set_len(start + u64::try_from(last).unwrap_or(u64::MAX) + 1)
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::audit::Outcome;

    #[test]
    fn a_log_goes_on_where_it_ended_and_a_changed_one_is_not_continued() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        let entry = Entry {
            time: Timestamp::UNIX_EPOCH,
            principal: "service".to_owned(),
            action: "start".to_owned(),
            scope: "/".to_owned(),
            outcome: Outcome::Done,
            detail: None,
        };
        for expected in 1..=3 {
            let log = AuditFile::open(&path).unwrap();
            let second = AuditFile::open(&path).unwrap_err();
            assert!(matches!(second, AuditFileError::InUse { .. }));
            log.append(&entry).unwrap();
            log.sync().unwrap();
            assert_eq!(log.head().lines(), expected);
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for torn in [&text[..text.len() - 9], &text[..9]] {
            std::fs::write(&path, torn).unwrap();
            let whole = torn.lines().count() - 1;
            let log = AuditFile::open(&path).unwrap();
            assert_eq!(log.head().lines(), u64::try_from(whole).unwrap());
            log.append(&entry).unwrap();
            drop(log);
            AuditFile::check(&path, None).unwrap();
        }
        std::fs::write(&path, text.replacen("service", "somebody", 1)).unwrap();
        let error = AuditFile::open(&path).unwrap_err();
        assert!(matches!(
            error,
            AuditFileError::Chain {
                source: ChainError::Broken { line: 1 },
                ..
            }
        ));
    }
}
