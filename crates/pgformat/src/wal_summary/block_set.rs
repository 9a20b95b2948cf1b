//! Sets of block numbers, small whether they are sparse, dense or in runs.
//!
//! As in `src/common/blkreftable.c`, blocks are kept by chunks of 2^16: a chunk is a sorted array of 16-bit
//! numbers while it is sparse, and a bitmap of 8 KiB from then on.

use crate::BlockNumber;

use super::block_chunk::ChunkBlocks;

/// Blocks in a chunk.
const CHUNK_BLOCKS: u32 = 1 << 16;
/// What a chunk is reckoned to take besides its array or bitmap.
const CHUNK_BYTES: usize = 48;

/// A set of block numbers.
#[derive(Clone, Debug, Default)]
pub struct BlockSet {
    /// Sorted by number.
    chunks: Vec<Chunk>,
}

#[derive(Clone, Debug)]
struct Chunk {
    number: u32,
    blocks: ChunkBlocks,
}

/// Blocks in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRun {
    /// The first.
    pub start: BlockNumber,
    /// How many, at least one.
    pub count: u32,
}

impl BlockSet {
    /// Whether the set has no blocks.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// How many blocks it has.
    pub fn len(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.blocks.len()).sum()
    }

    /// Whether it has this block.
    pub fn contains(&self, block: BlockNumber) -> bool {
        let (number, low) = split(block);
        self.find(number)
            .ok()
            .and_then(|index| self.chunks.get(index))
            .is_some_and(|chunk| chunk.blocks.contains(low))
    }

    /// Adds a block. Returns by how many bytes the set grew.
    #[inline]
    pub fn insert(&mut self, block: BlockNumber) -> usize {
        let (number, low) = split(block);
        // Most sets have a single chunk, and most blocks go to the last.
        if let Some(last) = self.chunks.last_mut()
            && last.number == number
        {
            return last.blocks.insert(low);
        }
        match self.find(number) {
            Ok(index) => self
                .chunks
                .get_mut(index)
                .map_or(0, |chunk| chunk.blocks.insert(low)),
            Err(index) => {
                let blocks = ChunkBlocks::of_one(low);
                self.chunks.insert(index, Chunk { number, blocks });
                CHUNK_BYTES + size_of::<u16>()
            }
        }
    }

    /// Adds blocks in a row, as far as block numbers go. Returns by how many bytes the set grew.
    pub fn insert_run(&mut self, run: BlockRun) -> usize {
        let end = u64::from(run.start.get()) + u64::from(run.count);
        let mut grown = 0;
        let mut at = run.start;
        loop {
            let (number, low) = split(at);
            let chunk_end = (u64::from(number) + 1) * u64::from(CHUNK_BLOCKS);
            let here = chunk_end.min(end);
            if here <= u64::from(at.get()) {
                return grown;
            }
            // The first block makes sure of the chunk.
            grown += self.insert(at);
            let last = u32::try_from(here - 1).unwrap_or(u32::MAX);
            if let Ok(index) = self.find(number)
                && let Some(chunk) = self.chunks.get_mut(index)
            {
                grown += chunk
                    .blocks
                    .insert_all(low, split(BlockNumber::new(last)).1);
            }
            match last.checked_add(1) {
                Some(next) => at = BlockNumber::new(next),
                None => return grown,
            }
        }
    }

    /// Removes all blocks from `limit` on.
    pub fn remove_from(&mut self, limit: BlockNumber) {
        let (number, low) = split(limit);
        self.chunks.retain_mut(|chunk| {
            if chunk.number == number {
                chunk.blocks.remove_from(low);
            }
            chunk.number < number || chunk.number == number && chunk.blocks.len() > 0
        });
    }

    /// Adds all blocks of another set.
    pub fn union(&mut self, other: &Self) {
        for theirs in &other.chunks {
            match self.find(theirs.number) {
                Err(index) => self.chunks.insert(index, theirs.clone()),
                Ok(index) => {
                    if let Some(chunk) = self.chunks.get_mut(index) {
                        chunk.blocks.union(&theirs.blocks);
                    }
                }
            }
        }
    }

    /// The blocks in ascending order.
    pub fn blocks(&self) -> impl Iterator<Item = BlockNumber> {
        self.chunks.iter().flat_map(|chunk| {
            let base = chunk.number * CHUNK_BLOCKS;
            chunk
                .blocks
                .iter()
                .map(move |low| BlockNumber::new(base | u32::from(low)))
        })
    }

    /// The blocks as the fewest runs, in ascending order.
    pub fn runs(&self) -> impl Iterator<Item = BlockRun> {
        let mut blocks = self.blocks().peekable();
        std::iter::from_fn(move || {
            let start = blocks.next()?;
            let mut count = 1;
            while let Some(next) = blocks.peek()
                && start.get().checked_add(count) == Some(next.get())
            {
                blocks.next();
                count += 1;
            }
            Some(BlockRun { start, count })
        })
    }

    /// Bytes of memory it takes, about.
    pub fn memory(&self) -> usize {
        self.chunks
            .iter()
            .map(|chunk| CHUNK_BYTES + chunk.blocks.memory())
            .sum()
    }

    fn find(&self, number: u32) -> Result<usize, usize> {
        self.chunks
            .binary_search_by_key(&number, |chunk| chunk.number)
    }
}

/// Sets are equal when they have the same blocks, in whichever form.
impl PartialEq for BlockSet {
    fn eq(&self, other: &Self) -> bool {
        self.runs().eq(other.runs())
    }
}

impl Eq for BlockSet {}

/// A block's chunk, and its number in it.
fn split(block: BlockNumber) -> (u32, u16) {
    let [low0, low1, high0, high1] = block.get().to_le_bytes();
    (
        u32::from(u16::from_le_bytes([high0, high1])),
        u16::from_le_bytes([low0, low1]),
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn set(blocks: impl IntoIterator<Item = u32>) -> BlockSet {
        let mut set = BlockSet::default();
        for block in blocks {
            set.insert(BlockNumber::new(block));
        }
        set
    }

    fn listed(set: &BlockSet) -> Vec<u32> {
        set.blocks().map(BlockNumber::get).collect()
    }

    #[test]
    fn runs_go_over_the_border_of_chunks() {
        let set = set([65_534, 65_535, 65_536, 70_000, u32::MAX - 1]);
        let runs: Vec<_> = set.runs().map(|run| (run.start.get(), run.count)).collect();
        assert_eq!(runs, [(65_534, 3), (70_000, 1), (u32::MAX - 1, 1)]);
    }

    #[test]
    fn dense_chunk_becomes_a_bitmap_and_stays_the_same_set() {
        let set = set((0..5000).rev().map(|block| block * 3));
        assert_eq!(
            listed(&set),
            (0..5000).map(|block| block * 3).collect::<Vec<_>>()
        );
        assert!(set.memory() < 9000);
        assert_eq!(set.len(), 5000);
    }

    #[test]
    fn run_reaches_the_last_number_there_is() {
        let mut set = BlockSet::default();
        let run = BlockRun {
            start: BlockNumber::new(u32::MAX - 2),
            count: 3,
        };
        set.insert_run(run);
        assert_eq!(set.runs().collect::<Vec<_>>(), [run]);
    }

    fn blocks() -> impl Strategy<Value = Vec<u32>> {
        let block = prop_oneof![0_u32..3000, 60_000_u32..70_000, any::<u32>()];
        prop::collection::vec(block, 0..3000)
    }

    proptest! {
        #[test]
        fn set_holds_what_a_plain_set_holds(
            first in blocks(),
            second in blocks(),
            run in (0_u32..140_000, 0_u32..70_000),
            limit in 0_u32..140_000,
        ) {
            let mut plain: BTreeSet<u32> = first.iter().copied().collect();
            let mut tried = BlockSet::default();
            let mut grown = 0;
            for block in first {
                grown += tried.insert(BlockNumber::new(block));
            }
            prop_assert_eq!(grown, tried.memory());
            grown += tried.insert_run(BlockRun { start: BlockNumber::new(run.0), count: run.1 });
            plain.extend(run.0..run.0 + run.1);
            prop_assert_eq!(grown, tried.memory());
            tried.union(&set(second.clone()));
            plain.extend(second);
            prop_assert_eq!(listed(&tried), plain.iter().copied().collect::<Vec<_>>());
            tried.remove_from(BlockNumber::new(limit));
            plain.retain(|block| *block < limit);
            prop_assert_eq!(listed(&tried), plain.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(tried.len(), plain.len() as u64);
            prop_assert_eq!(tried.is_empty(), plain.is_empty());
            prop_assert!(plain.iter().all(|block| tried.contains(BlockNumber::new(*block))));
            prop_assert!(!tried.contains(BlockNumber::new(limit)));
        }
    }
}
