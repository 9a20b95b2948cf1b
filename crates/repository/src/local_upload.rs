//! Uploads into a directory, past the page cache.
//!
//! Packs are written once and seldom read soon: keeping them in the page cache costs more processor time than
//! the disk takes, and drives out what the server wants there. An upload grows under a staged name, the
//! object's own with `#` and a number, and gets the object's name by a link when it has reached the disk; so
//! a name that is taken is never written over. Where the file system cannot write directly (`O_DIRECT`), the
//! page cache serves.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use crate::aligned::{ALIGNMENT, AlignedBuffer};

/// Bytes written at once, and held in memory for it by each upload.
pub const WRITE_BYTES: usize = 1 << 20;
/// Names that are tried for the staged file at the most: remains of others may have some.
const STAGED_NAMES: u32 = 1000;

/// An object being written. Its calls block.
#[derive(Debug)]
pub struct LocalUpload {
    file: File,
    staged: PathBuf,
    target: PathBuf,
    buffer: AlignedBuffer,
    written: u64,
}

impl LocalUpload {
    /// Begins the object that will lie at `target`, and makes the directories it lies in.
    ///
    /// # Errors
    /// When the file or a directory cannot be made.
    pub fn begin(target: PathBuf) -> io::Result<Self> {
        if let Some(folder) = target.parent() {
            make_directories(folder)?;
        }
        let (file, staged) = create_staged(&target)?;
        Ok(Self {
            file,
            staged,
            target,
            buffer: AlignedBuffer::default(),
            written: 0,
        })
    }

    /// Writes the next part. The length of all but the last is a multiple of [`ALIGNMENT`].
    ///
    /// # Errors
    /// When the disk fails.
    pub fn part(&mut self, bytes: &Bytes) -> io::Result<()> {
        let begin = self.written;
        for piece in bytes.chunks(WRITE_BYTES) {
            // The last piece is filled up with zeros, which are cut off again below.
            let padded = piece.len().next_multiple_of(ALIGNMENT);
            self.buffer.set_len(padded);
            let (contents, padding) = self.buffer.split_at_mut(piece.len());
            contents.copy_from_slice(piece);
            padding.fill(0);
            self.write()?;
            self.written += piece.len() as u64;
        }
        let end = begin + bytes.len() as u64;
        if !bytes.len().is_multiple_of(ALIGNMENT) {
            self.file.set_len(end)?;
        }
        Ok(())
    }

    fn write(&self) -> io::Result<()> {
        let write = || self.file.write_all_at(&self.buffer, self.written);
        match write() {
            // Some file systems open files for direct writes and refuse these.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                let flags = fcntl_getfl(&self.file)?;
                fcntl_setfl(&self.file, flags - OFlags::DIRECT)?;
                write()
            }
            result => result,
        }
    }

    /// Makes the object appear, once all of it and its name are on the disk.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] when the name is taken; else when the disk fails. Nothing appears then.
    pub fn finish(self) -> io::Result<()> {
        self.file.sync_all()?;
        fs::hard_link(&self.staged, &self.target)?;
        let synced = self.target.parent().map_or(Ok(()), sync_directory);
        if synced.is_err() {
            // Whoever is told that it failed may remove what it refers to.
            fs::remove_file(&self.target)?;
        }
        synced
    }
}

/// Finished or given up, the staged name goes away.
impl Drop for LocalUpload {
    fn drop(&mut self) {
        // What cannot be removed is swept before the next backup.
        let _ = fs::remove_file(&self.staged);
    }
}

fn create_staged(target: &Path) -> io::Result<(File, PathBuf)> {
    let mut taken = io::Error::from(io::ErrorKind::AlreadyExists);
    for number in 1..=STAGED_NAMES {
        let mut name = OsString::from(target);
        name.push(format!("#{number}"));
        let staged = PathBuf::from(name);
        match create(&staged) {
            Ok(file) => return Ok((file, staged)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => taken = error,
            Err(error) => return Err(error),
        }
    }
    Err(taken)
}

fn create(path: &Path) -> io::Result<File> {
    let open = |flags: OFlags| {
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .custom_flags(flags.bits().cast_signed())
            .open(path)
    };
    match open(OFlags::DIRECT) {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            // A file system that refuses the flag may have made the file all the same.
            let _ = fs::remove_file(path);
            open(OFlags::empty())
        }
        result => result,
    }
}

/// Makes a directory and those above it; each that is new is on the disk, and known to the one it lies in.
fn make_directories(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let Some(above) = folder.parent() else {
        return fs::create_dir(folder);
    };
    make_directories(above)?;
    match fs::create_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        Ok(()) => sync_directory(above),
    }
}

fn sync_directory(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The file system in memory takes no direct writes; the other one does on most machines.
    fn places() -> Vec<tempfile::TempDir> {
        vec![
            tempfile::tempdir().unwrap(),
            tempfile::tempdir_in("/dev/shm").unwrap(),
        ]
    }

    #[test]
    fn what_was_uploaded_is_read_back_at_any_length() {
        let lens = [0, 1, ALIGNMENT, WRITE_BYTES + 1, 3 * WRITE_BYTES - 5];
        for place in places() {
            for (number, last) in lens.into_iter().enumerate() {
                let target = place.path().join(format!("a/b/{number}"));
                let mut upload = LocalUpload::begin(target.clone()).unwrap();
                let whole: Vec<u8> = (0..2 * WRITE_BYTES + ALIGNMENT + last)
                    .map(|at| u8::try_from(at % 251).unwrap())
                    .collect();
                let (part, rest) = whole.split_at(2 * WRITE_BYTES + ALIGNMENT);
                upload.part(&Bytes::copy_from_slice(part)).unwrap();
                upload.part(&Bytes::copy_from_slice(rest)).unwrap();
                assert!(!target.exists(), "it appears when it is finished");
                upload.finish().unwrap();
                assert!(fs::read(&target).unwrap() == whole, "{last} bytes at last");
            }
            let left = fs::read_dir(place.path().join("a/b")).unwrap().count();
            assert_eq!(left, lens.len(), "no staged file is left");
        }
    }

    #[test]
    fn name_that_is_taken_is_not_written_over() {
        for place in places() {
            let target = place.path().join("x");
            let mut upload = LocalUpload::begin(target.clone()).unwrap();
            upload.part(&Bytes::from_static(b"second")).unwrap();
            fs::write(&target, "first").unwrap();
            let refused = upload.finish().unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
            assert_eq!(fs::read(&target).unwrap(), b"first");
            assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn given_up_upload_leaves_nothing_and_two_of_one_name_keep_apart() {
        for place in places() {
            let target = place.path().join("x");
            let one = LocalUpload::begin(target.clone()).unwrap();
            let two = LocalUpload::begin(target).unwrap();
            assert_eq!(fs::read_dir(place.path()).unwrap().count(), 2);
            drop((one, two));
            assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
        }
    }
}
