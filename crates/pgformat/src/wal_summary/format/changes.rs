//! The change map's stored form.
//!
//! ```text
//! everything changed u8: 0 no, 1 minimal log (then its position), 2 too many changes
//! directories         tablespace, database; ascending
//! forks               tablespace, database, relfilenode, fork u8, limit + 1 or 0, blocks; ascending
//! blocks              runs: distance from the end of the run before, length - 1
//! ```
//!
//! A chunk of 2^16 blocks whose bitmap is shorter than its runs could be stored as one; compression of the
//! stored summary makes up for it, so that there is one form only.

use crate::{
    BlockNumber, Lsn, Oid,
    relation::{Fork, RelationId},
    wal::database::DatabaseDirectory,
    wal_summary::{
        block_set::{BlockRun, BlockSet},
        change_map::{ChangeMap, EverythingChanged, ForkChanges, ForkId, MAX_CHANGE_MAP_MEMORY},
    },
};

use super::{
    SummaryFormatError,
    codec::{Input, Output},
};

pub(super) fn encode(map: &ChangeMap, output: &mut Output) {
    match map.everything() {
        None => output.byte(0),
        Some(EverythingChanged::MinimalLog(at)) => {
            output.byte(1);
            output.number(at.get());
        }
        Some(EverythingChanged::TooManyChanges) => output.byte(2),
    }
    output.count(map.directories().len());
    for directory in map.directories() {
        output.number(u64::from(directory.tablespace.get()));
        output.number(u64::from(directory.database.get()));
    }
    let mut forks: Vec<_> = map.forks().collect();
    forks.sort_unstable_by_key(|(id, _)| *id);
    output.count(forks.len());
    for (id, changes) in forks {
        output.number(u64::from(id.relation.tablespace.get()));
        output.number(u64::from(id.relation.database.get()));
        output.number(u64::from(id.relation.relfilenode.get()));
        output.byte(fork_number(id.fork));
        let limit = changes
            .limit()
            .map_or(0, |limit| u64::from(limit.get()) + 1);
        output.number(limit);
        let runs: Vec<BlockRun> = changes.blocks().runs().collect();
        output.count(runs.len());
        let mut at = 0;
        for run in runs {
            let start = u64::from(run.start.get());
            output.number(start - at);
            output.number(u64::from(run.count) - 1);
            at = start + u64::from(run.count);
        }
    }
}

pub(super) fn decode(input: &mut Input<'_>) -> Result<ChangeMap, SummaryFormatError> {
    input.enter("change map");
    let mut map = ChangeMap::default();
    match input.byte()? {
        0 => {}
        1 => map.everything_changed(EverythingChanged::MinimalLog(Lsn::new(input.number()?))),
        2 => map.everything_changed(EverythingChanged::TooManyChanges),
        _ => return Err(input.malformed()),
    }
    let mut before = None;
    for _ in 0..input.count(usize::MAX)? {
        let directory = DatabaseDirectory {
            tablespace: Oid::new(input.number()?),
            database: Oid::new(input.number()?),
        };
        if before >= Some(directory) || map.everything().is_some() {
            return Err(input.malformed());
        }
        before = Some(directory);
        map.put_directory(directory);
    }
    let mut before = None;
    for _ in 0..input.count(usize::MAX)? {
        let relation = RelationId {
            tablespace: Oid::new(input.number()?),
            database: Oid::new(input.number()?),
            relfilenode: Oid::new(input.number()?),
        };
        let fork = Fork::from_number(input.byte()?).ok_or_else(|| input.malformed())?;
        let id = ForkId { relation, fork };
        if before >= Some(id) || map.everything().is_some() {
            return Err(input.malformed());
        }
        before = Some(id);
        let limit = input.number::<u64>()?.checked_sub(1);
        let limit = limit.map(u32::try_from).transpose();
        let limit = limit.map_err(|_| input.malformed())?.map(BlockNumber::new);
        let blocks = blocks(input, &map)?;
        map.put(id, ForkChanges::new(limit, blocks));
    }
    Ok(map)
}

fn blocks(input: &mut Input<'_>, map: &ChangeMap) -> Result<BlockSet, SummaryFormatError> {
    let mut blocks = BlockSet::default();
    let mut at = 0_u64;
    let mut grown = map.memory().get();
    for index in 0..input.count(usize::MAX)? {
        let distance = input.number::<u64>()?;
        let count = u64::from(input.number::<u32>()?) + 1;
        let start = at.checked_add(distance).ok_or_else(|| input.malformed())?;
        at = start.checked_add(count).ok_or_else(|| input.malformed())?;
        let touches = index > 0 && distance == 0;
        // The last block number is none (`InvalidBlockNumber`), and can still stand in damaged log.
        let (Ok(start), Ok(count)) = (u32::try_from(start), u32::try_from(count)) else {
            return Err(input.malformed());
        };
        if touches || at > u64::from(u32::MAX) + 1 {
            return Err(input.malformed());
        }
        let run = BlockRun {
            start: BlockNumber::new(start),
            count,
        };
        grown += u64::try_from(blocks.insert_run(run)).unwrap_or(u64::MAX);
        if grown > MAX_CHANGE_MAP_MEMORY.get() {
            return Err(input.malformed());
        }
    }
    Ok(blocks)
}

fn fork_number(fork: Fork) -> u8 {
    match fork {
        Fork::Main => 0,
        Fork::FreeSpaceMap => 1,
        Fork::VisibilityMap => 2,
        Fork::Init => 3,
    }
}
