//! The cluster's bytes: a sample spread evenly over all files, and how fast they are read.

use std::{
    error::Error,
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    thread,
};

use crate::{Outcome, timed};

/// Bytes of a piece; the largest frame that is tried.
pub(crate) const PIECE: usize = 1 << 20;
/// Bytes of a sample, about.
const SAMPLE: u64 = 384 << 20;

/// Pieces of files, each of [`PIECE`] bytes or a whole smaller file.
pub(crate) type Sample = Vec<Vec<u8>>;

pub(crate) fn take(cluster: &Path) -> Result<Sample, Box<dyn Error>> {
    let files = files(&cluster.join("base"))?;
    let total: u64 = files.iter().map(|(_, size)| size).sum();
    // Every so many bytes of all files, laid end to end, a piece begins.
    let stride = (total / (SAMPLE / PIECE as u64)).max(PIECE as u64);
    let (mut position, mut next) = (0_u64, 0_u64);
    let mut sample = Vec::new();
    for (path, size) in files {
        let file = File::open(&path)?;
        while next < position + size {
            let from = (next - position) / PIECE as u64 * PIECE as u64;
            let len = usize::try_from(size - from).map_or(PIECE, |rest| rest.min(PIECE));
            let mut piece = vec![0; len];
            file.read_exact_at(&mut piece, from)?;
            sample.push(piece);
            next += stride;
        }
        position += size;
    }
    let bytes: usize = sample.iter().map(Vec::len).sum();
    println!(
        "sample: {} MB of {} MB, {} pieces",
        bytes / 1_000_000,
        total / 1_000_000,
        sample.len()
    );
    Ok(sample)
}

/// All files below a directory with their sizes, in the order of their paths.
fn files(directory: &Path) -> io::Result<Vec<(PathBuf, u64)>> {
    let mut found = Vec::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                waiting.push(entry.path());
            } else if metadata.is_file() && metadata.len() > 0 {
                found.push((entry.path(), metadata.len()));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Reads the whole cluster, in units of 4 MiB, with one and two threads, each after a first reading that
/// brought it into the page cache.
pub(crate) fn measure_reading(cluster: &Path) -> Outcome {
    let files = files(&cluster.join("base"))?;
    let total: u64 = files.iter().map(|(_, size)| size).sum();
    read(&files, 1)?;
    for threads in [1, 2] {
        let (result, took) = timed(|| read(&files, threads));
        result?;
        println!("read, page cache, {threads} threads: {}", took.rates(total));
    }
    Ok(())
}

fn read(files: &[(PathBuf, u64)], threads: usize) -> io::Result<()> {
    thread::scope(|scope| {
        let readers: Vec<_> = (0..threads)
            .map(|number| {
                scope.spawn(move || read_some(files.iter().skip(number).step_by(threads)))
            })
            .collect();
        readers.into_iter().try_for_each(|reader| {
            reader
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("a reader panicked")))
        })
    })
}

fn read_some<'a>(files: impl Iterator<Item = &'a (PathBuf, u64)>) -> io::Result<()> {
    let mut buffer = vec![0; 4 << 20];
    for (path, size) in files {
        let file = File::open(path)?;
        let mut offset = 0;
        while offset < *size {
            match file.read_at(&mut buffer, offset)? {
                0 => break,
                read => offset += read as u64,
            }
        }
    }
    Ok(())
}
