//! Ways to write files as a restore does, each with the time of the sync behind it.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    thread,
};

use rustix::fs::{Advice, FallocateFlags, OFlags, fadvise, fallocate, syncfs};

use crate::{Outcome, timed};

/// Alignment that direct writing wants.
const ALIGNMENT: usize = 4096;
/// Large files: as many of these.
const LARGE: Shape = Shape {
    files: 16,
    size: 128 << 20,
};
/// Small files: as many of these.
const SMALL: Shape = Shape {
    files: 8000,
    size: 16 << 10,
};
/// Directories they lie in.
const DIRECTORIES: usize = 20;
/// Bytes of one call.
const CALL: usize = 4 << 20;

#[derive(Clone, Copy)]
struct Shape {
    files: usize,
    size: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Buffered,
    BufferedPreallocated,
    BufferedPushedOut,
    Direct,
    DirectPreallocated,
    DirectSized,
}

impl Method {
    const ALL: [Self; 6] = [
        Self::Buffered,
        Self::BufferedPreallocated,
        Self::BufferedPushedOut,
        Self::Direct,
        Self::DirectPreallocated,
        Self::DirectSized,
    ];

    fn is_direct(self) -> bool {
        matches!(
            self,
            Self::Direct | Self::DirectPreallocated | Self::DirectSized
        )
    }

    fn preallocates(self) -> bool {
        matches!(self, Self::BufferedPreallocated | Self::DirectPreallocated)
    }
}

pub(crate) fn measure(scratch: &Path) -> Outcome {
    let target = scratch.join("limits");
    for (name, shape) in [("large", LARGE), ("small", SMALL)] {
        for threads in [1, 2, 4] {
            for method in Method::ALL {
                for number in 0..DIRECTORIES {
                    fs::create_dir_all(target.join(number.to_string()))?;
                }
                let directory = File::open(&target)?;
                syncfs(&directory)?;
                let (written, writing) = timed(|| write_all(&target, shape, method, threads));
                written?;
                let (synced, syncing) = timed(|| syncfs(&directory));
                synced?;
                let bytes = shape.files as f64 * shape.size as f64;
                let all = (writing.clock + syncing.clock).as_secs_f64();
                println!(
                    "write {name:5} {method:20?} {threads} threads: {:.2} s and {:.2} s of sync: {:.3} GB/s, {:.2} processor s",
                    writing.clock.as_secs_f64(),
                    syncing.clock.as_secs_f64(),
                    bytes / 1e9 / all,
                    (writing.processor + syncing.processor).as_secs_f64(),
                );
                fs::remove_dir_all(&target)?;
            }
        }
    }
    Ok(())
}

fn write_all(target: &Path, shape: Shape, method: Method, threads: usize) -> io::Result<()> {
    thread::scope(|scope| {
        let writers: Vec<_> = (0..threads)
            .map(|number| scope.spawn(move || write_some(target, shape, method, number, threads)))
            .collect();
        writers.into_iter().try_for_each(|writer| {
            writer
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("a writer panicked")))
        })
    })
}

fn write_some(
    target: &Path,
    shape: Shape,
    method: Method,
    first: usize,
    step: usize,
) -> io::Result<()> {
    let call = CALL.min(shape.size);
    let buffer = vec![0x5a_u8; call + ALIGNMENT];
    let start = buffer.as_ptr().align_offset(ALIGNMENT);
    let contents = buffer.get(start..start + call).unwrap_or_default();
    let flags = if method.is_direct() {
        OFlags::DIRECT
    } else {
        OFlags::empty()
    };
    for number in (first..shape.files).step_by(step) {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .custom_flags(flags.bits().cast_signed())
            .open(
                target
                    .join((number % DIRECTORIES).to_string())
                    .join(number.to_string()),
            )?;
        if method.preallocates() {
            fallocate(&file, FallocateFlags::empty(), 0, shape.size as u64)?;
        }
        if method == Method::DirectSized {
            file.set_len(shape.size as u64)?;
        }
        for offset in (0..shape.size).step_by(call) {
            file.write_all_at(contents, offset as u64)?;
            if method == Method::BufferedPushedOut {
                // Has what was written begin its way to the disk now.
                fadvise(&file, 0, None, Advice::DontNeed)?;
            }
        }
    }
    Ok(())
}
