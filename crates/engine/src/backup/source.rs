//! Reading data files while the server writes them.
//!
//! A page may be caught half written. Such a page was changed after the backup began, so that replay
//! brings it back from a full-page image; one whose LSN is older and whose checksum is wrong is read
//! again, and if it stays wrong it is damaged in the cluster itself.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::Duration,
};

use everpoint_pgformat::{
    BlockNumber, Lsn,
    ids::BLOCK_SIZE,
    page::{self, Page, PageState},
};

/// How often a page with a wrong checksum is read before it counts as damaged.
const TORN_PAGE_READS: u32 = 5;
/// The pause before each of those readings.
const TORN_PAGE_PAUSE: Duration = Duration::from_millis(20);

/// A file or directory of the cluster cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}", path.display())]
pub struct SourceError {
    /// What was tried.
    pub action: &'static str,
    /// On which file.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// Keeps the file that was read last open, since its next part is likely to come next.
#[derive(Debug, Default)]
pub struct FileReader {
    open: Option<(PathBuf, File)>,
}

impl FileReader {
    /// Reads from `offset` until `buffer` is full or the file ends; returns how much was read, or `None`
    /// when the file is not there any more.
    ///
    /// # Errors
    /// When it cannot be opened or read.
    pub fn read(
        &mut self,
        path: &Path,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<Option<usize>, SourceError> {
        let error = |action| {
            move |source| SourceError {
                action,
                path: path.to_owned(),
                source,
            }
        };
        let kept = self.open.take().filter(|(kept, _)| kept == path);
        let file = match kept {
            Some((_, file)) => file,
            None => match File::open(path) {
                Ok(file) => file,
                Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(source) => return Err(error("open")(source)),
            },
        };
        let (_, file) = self.open.insert((path.to_owned(), file));
        read_full(file, offset, buffer)
            .map(Some)
            .map_err(error("read"))
    }

    /// The file that was read last.
    fn current(&self) -> Option<&File> {
        self.open.as_ref().map(|(_, file)| file)
    }
}

fn read_full(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Checks the pages in `buffer`, the first of which is at `offset` of the file `reader` read last and is
/// block `first_block` of its fork. Torn pages are read again, in place. Returns the blocks, counted
/// from the file's start, that are damaged.
pub fn verify_pages(
    reader: &FileReader,
    offset: u64,
    first_block: BlockNumber,
    backup_start: Lsn,
    buffer: &mut [u8],
) -> Vec<u32> {
    let mut damaged = Vec::new();
    let (pages, _) = buffer.as_chunks_mut::<BLOCK_SIZE>();
    for (index, page) in (0_u32..).zip(pages) {
        let block = BlockNumber::new(first_block.get().wrapping_add(index));
        if is_sound(page, block, backup_start) {
            continue;
        }
        let at = offset + u64::from(index) * BLOCK_SIZE as u64;
        let mended = reader.current().is_some_and(|file| {
            (0..TORN_PAGE_READS).any(|_| {
                std::thread::sleep(TORN_PAGE_PAUSE);
                let whole = read_full(file, at, page).is_ok_and(|read| read == BLOCK_SIZE);
                whole && is_sound(page, block, backup_start)
            })
        });
        if !mended {
            damaged.push(u32::try_from(at / BLOCK_SIZE as u64).unwrap_or(u32::MAX));
        }
    }
    damaged
}

fn is_sound(page: &Page, block: BlockNumber, backup_start: Lsn) -> bool {
    match page::verify(page, block) {
        PageState::New | PageState::Valid => true,
        // Changed since the backup began: replay overwrites it with its image.
        PageState::BadChecksum { .. } => {
            !page::is_new(page) && page::page_lsn(page) >= backup_start
        }
    }
}
