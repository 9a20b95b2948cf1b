//! Which blocks of a file a differential reads, by the map of changes. No I/O.

use everpoint_pgformat::{
    BlockNumber,
    relation::{Fork, RelationFile},
    wal_summary::change_map::{ChangeMap, ForkVerdict},
};
use everpoint_repository::manifest::BlockRun;

/// What is read of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// All of it.
    Whole,
    /// These blocks, counted from the file's start; the others are as in the base. There may be none.
    Blocks(Vec<BlockRun>),
}

/// Chooses what is read of a relation's file that has `blocks` blocks and had `base_blocks` in the base.
///
/// Only main forks are chosen from. Maps of free space and visibility are read whole, unless nothing of their
/// relation changed and they are as long as they were: see [`ChangeMap::fork`].
pub fn select(
    changes: &ChangeMap,
    file: RelationFile,
    blocks_per_segment: u32,
    base_blocks: u32,
    blocks: u32,
) -> Selection {
    if file.fork != Fork::Main {
        let is_map = matches!(file.fork, Fork::FreeSpaceMap | Fork::VisibilityMap);
        let unchanged = changes.fork(file.relation, file.fork) == ForkVerdict::Unchanged;
        return match is_map && unchanged && base_blocks == blocks {
            true => Selection::Blocks(Vec::new()),
            false => Selection::Whole,
        };
    }
    let Some(first) = file.first_block(blocks_per_segment) else {
        return Selection::Whole;
    };
    let mut runs = Runs::default();
    match changes.fork(file.relation, file.fork) {
        ForkVerdict::Whole => return Selection::Whole,
        ForkVerdict::Unchanged => {}
        ForkVerdict::Blocks(forks) => {
            let limit = forks.limit().map_or(u32::MAX, BlockNumber::get);
            // Whatever lies behind the limit, and behind the file's end in the base, is read anyway.
            let known = limit
                .saturating_sub(first.get())
                .min(base_blocks)
                .min(blocks);
            for run in forks.blocks().runs() {
                let end = u64::from(run.start.get()) + u64::from(run.count);
                let start = run.start.get().saturating_sub(first.get());
                let end = end.saturating_sub(u64::from(first.get()));
                runs.add(start, u32::try_from(end).unwrap_or(u32::MAX).min(known));
            }
            runs.add(known, blocks);
        }
    }
    runs.add(base_blocks, blocks);
    Selection::Blocks(runs.runs)
}

#[derive(Default)]
struct Runs {
    runs: Vec<BlockRun>,
    end: u32,
}

impl Runs {
    /// Adds blocks of `start` (inclusive) to `end` (exclusive); those that come before the last are there.
    fn add(&mut self, start: u32, end: u32) {
        let start = start.max(self.end);
        if start >= end {
            return;
        }
        let count = end - start;
        match self.runs.last_mut() {
            Some(last) if self.end == start => last.count += count,
            _ => self.runs.push(BlockRun {
                first: start,
                count,
            }),
        }
        self.end = end;
    }
}

/// Cuts runs into parts of up to `most` blocks each. There is at least one part, which may be empty.
pub fn parts(runs: Vec<BlockRun>, most: u32) -> Vec<Vec<BlockRun>> {
    let mut parts = vec![Vec::new()];
    let mut room = most;
    for run in runs {
        let (mut first, mut left) = (run.first, run.count);
        while left > 0 {
            if room == 0 {
                parts.push(Vec::new());
                room = most;
            }
            let count = left.min(room);
            if let Some(part) = parts.last_mut() {
                part.push(BlockRun { first, count });
            }
            first += count;
            left -= count;
            room -= count;
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use everpoint_pgformat::{relation::RelationId, wal_summary::change_map::ForkId};

    use super::*;

    const SEGMENT: u32 = 1000;

    fn file(segment: u32) -> RelationFile {
        RelationFile {
            relation: RelationId {
                tablespace: 1663.into(),
                database: 5.into(),
                relfilenode: 16384.into(),
            },
            fork: Fork::Main,
            segment,
        }
    }

    fn changed(blocks: &[u32], limit: Option<u32>) -> ChangeMap {
        let mut map = ChangeMap::default();
        let id = ForkId {
            relation: file(0).relation,
            fork: Fork::Main,
        };
        if let Some(limit) = limit {
            map.cut(id, BlockNumber::new(limit));
        }
        for block in blocks {
            map.mark(id, BlockNumber::new(*block));
        }
        map
    }

    fn chosen(map: &ChangeMap, segment: u32, base: u32, now: u32) -> Vec<(u32, u32)> {
        match select(map, file(segment), SEGMENT, base, now) {
            Selection::Whole => vec![(u32::MAX, u32::MAX)],
            Selection::Blocks(runs) => runs.iter().map(|run| (run.first, run.count)).collect(),
        }
    }

    #[test]
    fn changes_are_found_in_each_segment_of_a_large_relation() {
        let map = changed(&[3, 4, 9, 999, 1000, 1001, 2500], None);
        assert_eq!(chosen(&map, 0, 1000, 1000), [(3, 2), (9, 1), (999, 1)]);
        assert_eq!(chosen(&map, 1, 1000, 1000), [(0, 2)]);
        assert_eq!(chosen(&map, 2, 800, 800), [(500, 1)]);
        assert_eq!(chosen(&map, 3, 800, 800), []);
    }

    #[test]
    fn blocks_behind_the_limit_and_behind_the_end_in_the_base_are_read() {
        let map = changed(&[3, 1500, 2100], Some(1400));
        assert_eq!(chosen(&map, 0, 1000, 1000), [(3, 1)]);
        assert_eq!(chosen(&map, 1, 1000, 1000), [(400, 600)]);
        assert_eq!(chosen(&map, 2, 200, 300), [(0, 300)]);
        let none = ChangeMap::default();
        assert_eq!(chosen(&none, 0, 5, 9), [(5, 4)]);
        assert_eq!(chosen(&none, 0, 9, 5), []);
        assert_eq!(chosen(&changed(&[3, 7], None), 0, 9, 5), [(3, 1)]);
        let created = changed(&[1], Some(0));
        assert_eq!(chosen(&created, 0, 5, 5), [(u32::MAX, u32::MAX)]);
    }

    #[test]
    fn other_forks_are_read_whole_where_anything_of_their_relation_changed() {
        let relation = file(0).relation;
        let (none, row) = (ChangeMap::default(), changed(&[7], None));
        for fork in [Fork::FreeSpaceMap, Fork::VisibilityMap, Fork::Init] {
            let file = RelationFile { fork, ..file(0) };
            let unchanged = match fork {
                Fork::Init => Selection::Whole,
                _ => Selection::Blocks(Vec::new()),
            };
            assert_eq!(select(&none, file, SEGMENT, 3, 3), unchanged);
            assert_eq!(select(&none, file, SEGMENT, 3, 4), Selection::Whole);
            assert_eq!(select(&row, file, SEGMENT, 3, 3), Selection::Whole);
        }
        // Truncated by itself, as pg_truncate_visibility_map does it.
        let fork = Fork::VisibilityMap;
        let mut map = ChangeMap::default();
        map.cut(ForkId { relation, fork }, BlockNumber::new(0));
        let file = RelationFile { fork, ..file(0) };
        assert_eq!(select(&map, file, SEGMENT, 3, 3), Selection::Whole);
    }

    #[test]
    fn runs_are_cut_into_parts_of_a_size() {
        let run = |first, count| BlockRun { first, count };
        assert_eq!(parts(vec![], 4), [vec![]]);
        let cut = parts(vec![run(0, 3), run(7, 6), run(20, 1)], 4);
        assert_eq!(
            cut,
            [
                vec![run(0, 3), run(7, 1)],
                vec![run(8, 4)],
                vec![run(12, 1), run(20, 1)]
            ]
        );
    }
}
