//! Which blocks a stretch of log changes: what a differential backup must copy.
//!
//! The rules are those of `src/backend/postmaster/walsummarizer.c`. Every block reference counts. A fork that
//! was created, cut or dropped has a limit: from there on nothing of an older copy is of use, and earlier
//! changes there are forgotten. A database's directory that was created or removed is copied whole.
//!
//! Three things are not for this map to tell, and [`ChangeMap::fork`] says so: free space maps are not
//! logged whole, visibility maps are changed by records that do not name their blocks, and log written with
//! `wal_level = minimal` leaves whole relations out.

use std::collections::BTreeSet;

use crate::{
    BlockNumber, ByteCount, Lsn,
    relation::{Fork, RelationId},
    wal::{
        database::{DatabaseDirectory, DatabaseRecord},
        payload::PayloadError,
        record::Record,
        resource_manager::ResourceManager,
        storage::StorageRecord,
        transaction::TransactionEnd,
    },
};

use super::{
    block_set::{BlockRun, BlockSet},
    hash::QuickMap,
};

/// What a map may take of memory. One that would take more says that everything changed.
pub const MAX_CHANGE_MAP_MEMORY: ByteCount = ByteCount::new(512 << 20);
/// What a fork is reckoned to take besides its blocks.
const FORK_BYTES: usize = 96;

/// A fork of a relation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ForkId {
    /// The relation.
    pub relation: RelationId,
    /// The fork.
    pub fork: Fork,
}

/// Which blocks of which forks changed.
#[derive(Clone, Debug)]
pub struct ChangeMap {
    forks: QuickMap<ForkId, ForkChanges>,
    directories: BTreeSet<DatabaseDirectory>,
    everything: Option<EverythingChanged>,
    memory: usize,
    max_memory: usize,
}

impl Default for ChangeMap {
    fn default() -> Self {
        Self {
            forks: QuickMap::default(),
            directories: BTreeSet::new(),
            everything: None,
            memory: 0,
            max_memory: usize::try_from(MAX_CHANGE_MAP_MEMORY.get()).unwrap_or(usize::MAX),
        }
    }
}

/// Why the map cannot tell what did not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EverythingChanged {
    /// Log was written with `wal_level = minimal`, told by the record at this position.
    MinimalLog(Lsn),
    /// The map would have taken more than [`MAX_CHANGE_MAP_MEMORY`].
    TooManyChanges,
}

/// What changed of a fork.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForkChanges {
    limit: Option<BlockNumber>,
    blocks: BlockSet,
}

/// What a backup must copy of a fork.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForkVerdict<'a> {
    /// Nothing: it is as it was.
    Unchanged,
    /// All of it.
    Whole,
    /// These blocks, and all that the older copy does not have.
    Blocks(&'a ForkChanges),
}

impl ForkChanges {
    /// From here on nothing of an older copy is of use.
    pub fn limit(&self) -> Option<BlockNumber> {
        self.limit
    }

    /// The changed blocks below the limit, and those changed since above it.
    pub fn blocks(&self) -> &BlockSet {
        &self.blocks
    }

    /// Whether a block must be copied.
    pub fn is_changed(&self, block: BlockNumber) -> bool {
        self.limit.is_some_and(|limit| block >= limit) || self.blocks.contains(block)
    }

    pub(super) fn new(limit: Option<BlockNumber>, blocks: BlockSet) -> Self {
        Self { limit, blocks }
    }

    fn cut(&mut self, limit: BlockNumber) {
        self.limit = Some(self.limit.map_or(limit, |before| before.min(limit)));
        self.blocks.remove_from(limit);
    }
}

impl PartialEq for ChangeMap {
    fn eq(&self, other: &Self) -> bool {
        self.forks == other.forks
            && self.directories == other.directories
            && self.everything == other.everything
    }
}

impl Eq for ChangeMap {}

impl ChangeMap {
    /// What must be copied of a fork.
    ///
    /// Free space and visibility maps are copied whole when anything of their relation changed: records that change
    /// rows clear bits in the visibility map without naming its block, and free space is not logged. Of a relation
    /// that no record speaks of they are as they were: bits are set by records that name the row's block as well, and
    /// free space that was noted without one is a hint, which may be an old one.
    pub fn fork(&self, relation: RelationId, fork: Fork) -> ForkVerdict<'_> {
        if self.everything.is_some() || self.is_whole(relation) {
            return ForkVerdict::Whole;
        }
        match fork {
            Fork::FreeSpaceMap | Fork::VisibilityMap => {
                let is_named = |fork| self.forks.contains_key(&ForkId { relation, fork });
                return match is_named(Fork::Main) || is_named(fork) {
                    true => ForkVerdict::Whole,
                    false => ForkVerdict::Unchanged,
                };
            }
            Fork::Main | Fork::Init => {}
        }
        match self.forks.get(&ForkId { relation, fork }) {
            None => ForkVerdict::Unchanged,
            Some(changes) if changes.limit == Some(BlockNumber::new(0)) => ForkVerdict::Whole,
            Some(changes) => ForkVerdict::Blocks(changes),
        }
    }

    /// Why nothing is known not to have changed, when that is so.
    pub fn everything(&self) -> Option<EverythingChanged> {
        self.everything
    }

    /// Directories of databases that are copied whole.
    pub fn directories(&self) -> impl ExactSizeIterator<Item = DatabaseDirectory> {
        self.directories.iter().copied()
    }

    /// All forks with changes, in no order; those in [`ChangeMap::directories`] may be missing.
    pub fn forks(&self) -> impl ExactSizeIterator<Item = (ForkId, &ForkChanges)> {
        self.forks.iter().map(|(id, changes)| (*id, changes))
    }

    /// Changed blocks that are listed.
    pub fn block_count(&self) -> u64 {
        self.forks
            .values()
            .map(|changes| changes.blocks.len())
            .sum()
    }

    /// Memory it takes, about.
    pub fn memory(&self) -> ByteCount {
        ByteCount::new(u64::try_from(self.memory).unwrap_or(u64::MAX))
    }

    /// Takes note of a changed block.
    #[inline]
    pub fn mark(&mut self, id: ForkId, block: BlockNumber) {
        if let Some(changes) = self.forks.get_mut(&id) {
            self.memory += changes.blocks.insert(block);
            if self.memory > self.max_memory {
                self.keep_within_memory();
            }
        } else if !self.is_whole(id.relation) && self.everything.is_none() {
            self.mark_first(id, block);
        }
    }

    #[cold]
    fn mark_first(&mut self, id: ForkId, block: BlockNumber) {
        let grown = self.entry(id).blocks.insert(block);
        self.memory += grown;
        self.keep_within_memory();
    }

    /// Takes note of blocks in a row.
    pub fn mark_run(&mut self, id: ForkId, run: BlockRun) {
        if !self.is_whole(id.relation) && self.everything.is_none() {
            let grown = self.entry(id).blocks.insert_run(run);
            self.memory += grown;
            self.keep_within_memory();
        }
    }

    /// Takes note that a fork was cut to `limit` blocks; to 0 when it was created or dropped.
    pub fn cut(&mut self, id: ForkId, limit: BlockNumber) {
        let is_told_otherwise = self.is_whole(id.relation) || self.everything.is_some();
        if is_told_otherwise || id.fork == Fork::FreeSpaceMap {
            return;
        }
        let changes = self.entry(id);
        let before = changes.blocks.memory();
        changes.cut(limit);
        let after = changes.blocks.memory();
        self.memory = (self.memory + after).saturating_sub(before);
        self.keep_within_memory();
    }

    /// Takes note that a database's directory was created or removed.
    pub fn replace_directory(&mut self, directory: DatabaseDirectory) {
        if self.everything.is_none() && self.directories.insert(directory) {
            self.forks.retain(|id, _| {
                id.relation.tablespace != directory.tablespace
                    || id.relation.database != directory.database
            });
            self.count_memory();
            self.keep_within_memory();
        }
    }

    /// Takes note that nothing is known not to have changed.
    pub fn everything_changed(&mut self, why: EverythingChanged) {
        *self = Self {
            everything: Some(self.everything.unwrap_or(why)),
            max_memory: self.max_memory,
            ..Self::default()
        };
    }

    /// Takes note of what a record about files or databases changes.
    ///
    /// # Errors
    /// When a record about files does not have the contents it must have.
    pub(super) fn apply_storage(&mut self, record: &Record<'_>) -> Result<(), PayloadError> {
        match record.resource_manager() {
            ResourceManager::STORAGE => match StorageRecord::parse(record)? {
                StorageRecord::Create { relation, fork } => {
                    self.cut(ForkId { relation, fork }, BlockNumber::new(0));
                }
                StorageRecord::Truncate(cut) => {
                    let id = |fork| ForkId {
                        relation: cut.relation,
                        fork,
                    };
                    if cut.cuts(Fork::Main) {
                        self.cut(id(Fork::Main), cut.blocks);
                    }
                    if cut.cuts(Fork::VisibilityMap) {
                        // Its own length is not in the record. It is copied whole anyway.
                        self.cut(id(Fork::VisibilityMap), BlockNumber::new(0));
                    }
                }
                StorageRecord::Other => {}
            },
            ResourceManager::DATABASE => match DatabaseRecord::parse(record)? {
                DatabaseRecord::CreateFileCopy { target, .. }
                | DatabaseRecord::CreateWalLog { target } => self.replace_directory(target),
                DatabaseRecord::Drop {
                    database,
                    tablespaces,
                } => {
                    for tablespace in tablespaces.iter() {
                        self.replace_directory(DatabaseDirectory {
                            tablespace,
                            database,
                        });
                    }
                }
                DatabaseRecord::Other => {}
            },
            _ => {}
        }
        Ok(())
    }

    /// Takes note of the relations a transaction's end removes: their numbers can be given out again.
    pub(super) fn apply_end(&mut self, end: &TransactionEnd<'_>) {
        for relation in end.dropped_relations.iter() {
            for fork in [Fork::Main, Fork::VisibilityMap, Fork::Init] {
                self.cut(ForkId { relation, fork }, BlockNumber::new(0));
            }
        }
    }

    /// Adds the changes of the log that follows.
    pub fn absorb(&mut self, later: &Self) {
        if let Some(why) = later.everything {
            self.everything_changed(why);
        }
        if self.everything.is_some() {
            return;
        }
        for directory in &later.directories {
            self.replace_directory(*directory);
        }
        for (id, theirs) in &later.forks {
            if self.is_whole(id.relation) {
                continue;
            }
            let changes = self.entry(*id);
            let before = changes.blocks.memory();
            if let Some(limit) = theirs.limit {
                changes.cut(limit);
            }
            changes.blocks.union(&theirs.blocks);
            let after = changes.blocks.memory();
            self.memory = (self.memory + after).saturating_sub(before);
            self.keep_within_memory();
            if self.everything.is_some() {
                return;
            }
        }
    }

    /// Puts a fork in as it was stored.
    pub(super) fn put(&mut self, id: ForkId, changes: ForkChanges) {
        let memory = changes.blocks.memory();
        *self.entry(id) = changes;
        self.memory += memory;
    }

    /// Puts a directory in as it was stored.
    pub(super) fn put_directory(&mut self, directory: DatabaseDirectory) {
        if self.directories.insert(directory) {
            self.memory += FORK_BYTES;
        }
    }

    fn entry(&mut self, id: ForkId) -> &mut ForkChanges {
        self.forks.entry(id).or_insert_with(|| {
            self.memory += FORK_BYTES;
            ForkChanges::default()
        })
    }

    fn is_whole(&self, relation: RelationId) -> bool {
        !self.directories.is_empty()
            && self.directories.contains(&DatabaseDirectory {
                tablespace: relation.tablespace,
                database: relation.database,
            })
    }

    fn count_memory(&mut self) {
        let forks: usize = self
            .forks
            .values()
            .map(|changes| FORK_BYTES + changes.blocks.memory())
            .sum();
        self.memory = forks + self.directories.len() * FORK_BYTES;
    }

    #[cold]
    fn keep_within_memory(&mut self) {
        if self.memory > self.max_memory {
            self.everything_changed(EverythingChanged::TooManyChanges);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(max_memory: usize) -> ChangeMap {
        ChangeMap {
            max_memory,
            ..ChangeMap::default()
        }
    }

    fn id(relfilenode: u32) -> ForkId {
        let relation = RelationId {
            tablespace: 1663.into(),
            database: 5.into(),
            relfilenode: relfilenode.into(),
        };
        ForkId {
            relation,
            fork: Fork::Main,
        }
    }

    fn block(number: u32) -> BlockNumber {
        BlockNumber::new(number)
    }

    #[test]
    fn map_that_would_grow_too_large_says_that_everything_changed() {
        let run = BlockRun {
            start: block(0),
            count: 1 << 20,
        };
        let ways: [fn(&mut ChangeMap, BlockRun); 4] = [
            |map, _| (0..1000).for_each(|number| map.mark(id(number), block(0))),
            |map, _| (0..100_000).for_each(|number| map.mark(id(1), block(number * 100))),
            |map, _| (0..1000).for_each(|number| map.cut(id(number), block(0))),
            |map, run| map.mark_run(id(1), run),
        ];
        for way in ways {
            let mut small = map(20_000);
            way(&mut small, run);
            assert_eq!(small.everything(), Some(EverythingChanged::TooManyChanges));
            assert_eq!((small.forks().len(), small.memory().get()), (0, 0));
            let mut large = map(usize::MAX);
            way(&mut large, run);
            assert_eq!(large.everything(), None);
            assert!(large.memory().get() > 20_000);
            // What is added later does not make it grow again, nor does a merge.
            small.mark(id(7), block(7));
            small.absorb(&large);
            assert_eq!(small.forks().len(), 0);
            let verdict = small.fork(id(99_999).relation, Fork::Main);
            assert_eq!(verdict, ForkVerdict::Whole);
            let mut merged = map(20_000);
            merged.absorb(&large);
            assert_eq!(merged.everything(), Some(EverythingChanged::TooManyChanges));
        }
    }

    #[test]
    fn memory_is_reckoned_the_same_however_a_map_came_about() {
        let mut map = ChangeMap::default();
        for number in 0..3000 {
            map.mark(id(number % 7), block(number * 31));
        }
        map.cut(id(3), block(5000));
        map.cut(id(8), block(0));
        map.mark_run(
            id(1),
            BlockRun {
                start: block(50),
                count: 90_000,
            },
        );
        let reckoned = map.memory();
        map.count_memory();
        assert_eq!(map.memory(), reckoned);
        let mut merged = ChangeMap::default();
        merged.absorb(&map);
        assert_eq!((merged.memory(), &merged), (reckoned, &map));
    }

    #[test]
    fn free_space_maps_are_never_listed() {
        let mut map = ChangeMap::default();
        let fsm = ForkId {
            fork: Fork::FreeSpaceMap,
            ..id(1)
        };
        map.cut(fsm, block(0));
        assert_eq!(map.forks().len(), 0);
    }
}
