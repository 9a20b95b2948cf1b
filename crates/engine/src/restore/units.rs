//! The work of a restore: files cut into units, each with the frames it is made of.

use std::{ops::Range, sync::Arc};

use everpoint_pgformat::ids::BLOCK_SIZE;
use everpoint_repository::manifest::{BlockRun, Content, FileEntry, StoredFrame};

/// Bytes of a unit at the most: what a worker writes at once.
pub const UNIT_BYTES: u64 = 4 << 20;

/// Which of the two backups a frame's pack number refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layer {
    /// The full backup below a differential.
    Base,
    /// The backup that is restored.
    Top,
}

/// A file to restore.
#[derive(Debug)]
pub struct FileTask {
    /// Relative to the data directory.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Its size.
    pub size: u64,
}

/// A part of a file to restore.
#[derive(Debug)]
pub struct RestoreUnit {
    /// The file.
    pub file: Arc<FileTask>,
    /// The first byte.
    pub offset: u64,
    /// Its bytes.
    pub len: usize,
    /// Frames that follow each other in the file, each with its offset in the unit. A frame may
    /// reach beyond the unit's end, where the file is shorter than it was in the base.
    pub laid: Vec<LaidFrame>,
    /// Frames of single pages that are laid over those.
    pub overlays: Vec<Overlay>,
    /// Whether it is the file's last.
    pub last: bool,
}

/// A frame and where in the unit its contents go.
#[derive(Debug)]
pub struct LaidFrame {
    /// Which backup it is of.
    pub layer: Layer,
    /// The frame.
    pub stored: StoredFrame,
    /// Its offset in the unit.
    pub at: usize,
}

/// A frame of pages and where in the unit each goes.
#[derive(Debug)]
pub struct Overlay {
    /// The frame.
    pub stored: StoredFrame,
    /// Pairs of offsets: in the frame, in the unit, each of a page.
    pub pages: Vec<(usize, usize)>,
}

/// A differential's entry names blocks of a file that its base does not have.
#[derive(Debug, thiserror::Error)]
#[error("the differential builds on file `{path}`, which the full backup does not hold in full")]
pub struct MissingBase {
    /// The file.
    pub path: String,
}

/// Cuts a file into units. `base` is the full backup's entry, needed where `entry` holds single blocks.
///
/// # Errors
/// When the base is needed and missing.
pub fn cut(entry: &FileEntry, base: Option<&FileEntry>) -> Result<Vec<RestoreUnit>, MissingBase> {
    let missing = || MissingBase {
        path: entry.path.clone(),
    };
    let file = Arc::new(FileTask {
        path: entry.path.clone(),
        mode: entry.mode,
        size: entry.size,
    });
    let (below, layer, placed) = match &entry.content {
        Content::Whole(frames) => (frames.as_slice(), Layer::Top, Vec::new()),
        Content::Blocks { runs, frames } => {
            let Some(Content::Whole(below)) = base.map(|base| &base.content) else {
                return Err(missing());
            };
            (below.as_slice(), Layer::Base, place(runs, frames))
        }
    };
    let replaced: Vec<Range<u64>> = match &entry.content {
        Content::Blocks { runs, .. } => runs.iter().map(run_bytes).collect(),
        Content::Whole(_) => Vec::new(),
    };
    let mut units = Vec::new();
    let mut offset = 0;
    let (mut frames, mut frame_start) = (below.iter().peekable(), 0_u64);
    loop {
        let mut end = (offset + UNIT_BYTES).min(entry.size);
        let mut laid = Vec::new();
        while let Some(stored) = frames.peek().filter(|_| frame_start < end) {
            let raw = u64::from(stored.frame.raw);
            if !is_covered(&replaced, frame_start..(frame_start + raw).min(entry.size)) {
                let at = usize::try_from(frame_start - offset).unwrap_or(usize::MAX);
                laid.push(LaidFrame {
                    layer,
                    stored: **stored,
                    at,
                });
            }
            frame_start += raw;
            frames.next();
        }
        // A frame is never split between units.
        end = end.max(frame_start.min(entry.size));
        let overlays = placed
            .iter()
            .filter_map(|frame| frame.within(offset, end))
            .collect();
        let len = usize::try_from(end - offset).unwrap_or(usize::MAX);
        let last = end == entry.size;
        units.push(RestoreUnit {
            file: file.clone(),
            offset,
            len,
            laid,
            overlays,
            last,
        });
        if last {
            return Ok(units);
        }
        offset = end;
    }
}

/// A frame of pages and the offset in the file of each.
struct PlacedFrame {
    stored: StoredFrame,
    pages: Vec<u64>,
}

impl PlacedFrame {
    fn within(&self, start: u64, end: u64) -> Option<Overlay> {
        let pages: Vec<(usize, usize)> = self
            .pages
            .iter()
            .enumerate()
            .filter(|(_, at)| (start..end).contains(*at))
            .filter_map(|(index, at)| Some((index * BLOCK_SIZE, usize::try_from(at - start).ok()?)))
            .collect();
        (!pages.is_empty()).then_some(Overlay {
            stored: self.stored,
            pages,
        })
    }
}

fn place(runs: &[BlockRun], frames: &[StoredFrame]) -> Vec<PlacedFrame> {
    let mut blocks = runs.iter().flat_map(|run| {
        let first = u64::from(run.first);
        first..first + u64::from(run.count)
    });
    let pages_of = |stored: &StoredFrame| stored.frame.raw as usize / BLOCK_SIZE;
    frames
        .iter()
        .map(|stored| {
            let pages = blocks
                .by_ref()
                .take(pages_of(stored))
                .map(|b| b * BLOCK_SIZE as u64)
                .collect();
            PlacedFrame {
                stored: *stored,
                pages,
            }
        })
        .collect()
}

fn run_bytes(run: &BlockRun) -> Range<u64> {
    let first = u64::from(run.first) * BLOCK_SIZE as u64;
    first..first + u64::from(run.count) * BLOCK_SIZE as u64
}

/// Whether one of the sorted ranges covers all of `wanted`.
fn is_covered(ranges: &[Range<u64>], wanted: Range<u64>) -> bool {
    let next = ranges.partition_point(|range| range.end < wanted.end);
    ranges
        .get(next)
        .is_some_and(|range| range.start <= wanted.start && range.end >= wanted.end)
}

#[cfg(test)]
mod tests {
    use everpoint_repository::frame::{Codec, FrameRef};

    use super::*;

    fn frames(sizes: &[usize]) -> Vec<StoredFrame> {
        let frame = |raw: usize| FrameRef {
            ordinal: 0,
            offset: 64,
            stored: 17,
            raw: raw as u32,
            codec: Codec::Zstd,
        };
        sizes
            .iter()
            .map(|raw| StoredFrame {
                pack: 0,
                frame: frame(*raw),
                hash: [0; 32],
            })
            .collect()
    }

    fn file(size: u64, content: Content) -> FileEntry {
        FileEntry {
            path: "base/5/1".into(),
            mode: 0o600,
            size,
            content,
        }
    }

    const FRAME: usize = 32 * BLOCK_SIZE;

    #[test]
    fn changed_pages_are_laid_over_the_base_and_covered_frames_are_left_out() {
        let base = file(4 * FRAME as u64, Content::Whole(frames(&[FRAME; 4])));
        let runs = vec![
            BlockRun { first: 2, count: 1 },
            BlockRun {
                first: 32,
                count: 33,
            },
        ];
        let content = Content::Blocks {
            runs,
            frames: frames(&[FRAME, 2 * BLOCK_SIZE]),
        };
        let top = file(3 * FRAME as u64 + BLOCK_SIZE as u64, content);
        let units = cut(&top, Some(&base)).unwrap();
        assert_eq!(units.len(), 1);
        let laid: Vec<usize> = units[0].laid.iter().map(|frame| frame.at).collect();
        assert_eq!(laid, [0, 2 * FRAME, 3 * FRAME]);
        assert_eq!(units[0].overlays[0].pages[0], (0, 2 * BLOCK_SIZE));
        assert_eq!(units[0].overlays[0].pages[1], (BLOCK_SIZE, FRAME));
        assert_eq!(units[0].overlays[1].pages[1], (BLOCK_SIZE, 2 * FRAME));
    }

    #[test]
    fn blocks_without_a_base_are_refused() {
        let top = file(
            BLOCK_SIZE as u64,
            Content::Blocks {
                runs: vec![],
                frames: vec![],
            },
        );
        assert!(cut(&top, None).is_err());
    }

    #[test]
    fn a_file_of_several_units_and_an_empty_one_are_cut_completely() {
        let count = 3 * UNIT_BYTES as usize / FRAME / 2;
        let whole = file(
            (count * FRAME) as u64,
            Content::Whole(frames(&vec![FRAME; count])),
        );
        let units = cut(&whole, None).unwrap();
        assert_eq!(
            units.iter().map(|unit| unit.laid.len()).sum::<usize>(),
            count
        );
        assert_eq!(units.iter().filter(|unit| unit.last).count(), 1);
        let empty = cut(&file(0, Content::Whole(vec![])), None).unwrap();
        assert_eq!((empty.len(), empty[0].len, empty[0].last), (1, 0, true));
    }
}
