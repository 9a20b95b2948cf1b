//! The server's own summaries of its log (from 17 on), as `pg_walsummary` prints them.

use std::fs;

use anyhow::{Context, Result, ensure};
use everpoint_pgformat::{
    BlockNumber, Lsn,
    relation::{Fork, RelationId},
    wal_summary::{
        WalSummary,
        change_map::{ChangeMap, ForkVerdict},
    },
};
use everpoint_testkit::Cluster;

/// A stretch of log, and what the server says of it.
pub struct Told {
    pub from: Lsn,
    pub to: Lsn,
    lines: Vec<Line>,
}

struct Line {
    relation: RelationId,
    fork: Fork,
    what: What,
}

enum What {
    Block(BlockNumber),
    Limit(BlockNumber),
}

/// What the server's own summaries say, in the order of their log.
pub async fn read(cluster: &Cluster) -> Result<Vec<Told>> {
    let folder = cluster.data_directory().join("pg_wal/summaries");
    let mut told = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path
            .file_stem()
            .context("a name")?
            .to_string_lossy()
            .into_owned();
        let position = |at: usize| -> Result<Lsn> {
            let digits = name.get(at..at + 16).with_context(|| name.clone())?;
            Ok(Lsn::new(u64::from_str_radix(digits, 16)?))
        };
        let text = cluster
            .server()
            .run("pg_walsummary", ["-i".into(), path.clone()])
            .await?;
        let lines = text
            .lines()
            .map(|line| parse(line).with_context(|| line.to_owned()));
        told.push(Told {
            from: position(8)?,
            to: position(24)?,
            lines: lines.collect::<Result<_>>()?,
        });
    }
    told.sort_by_key(|told| told.from);
    Ok(told)
}

/// `TS 1663, DB 5, REL 1249, FORK main: block 3`
fn parse(line: &str) -> Option<Line> {
    let (place, what) = line.split_once(": ")?;
    let mut fields = place.split(", ");
    let mut number = |name: &str| fields.next()?.strip_prefix(name)?.parse::<u32>().ok();
    let (tablespace, database, relfilenode) = (number("TS ")?, number("DB ")?, number("REL ")?);
    let fork = match fields.next()?.strip_prefix("FORK ")? {
        "main" => Fork::Main,
        "fsm" => Fork::FreeSpaceMap,
        "vm" => Fork::VisibilityMap,
        "init" => Fork::Init,
        _ => return None,
    };
    let (kind, block) = what.split_once(' ')?;
    let block = BlockNumber::new(block.parse().ok()?);
    Some(Line {
        relation: RelationId {
            tablespace: tablespace.into(),
            database: database.into(),
            relfilenode: relfilenode.into(),
        },
        fork,
        what: match kind {
            "block" => What::Block(block),
            "limit" => What::Limit(block),
            _ => return None,
        },
    })
}

impl Told {
    /// That our summary of the same log names all that the server's does, and how much that was.
    pub fn is_within(&self, summary: &WalSummary) -> Result<usize> {
        for line in &self.lines {
            let Line { relation, fork, .. } = line;
            ensure!(
                line.is_within(&summary.changes),
                "from {} to {}: {relation:?} {fork:?} {}",
                self.from,
                self.to,
                match line.what {
                    What::Block(block) => format!("block {block}"),
                    What::Limit(block) => format!("limit {block}"),
                }
            );
        }
        Ok(self.lines.len())
    }
}

impl Line {
    fn is_within(&self, changes: &ChangeMap) -> bool {
        // The server names a database that was made or dropped as a relation without a number.
        if self.relation.relfilenode.get() == 0 {
            return changes.directories().any(|directory| {
                let here = (directory.tablespace, directory.database);
                here == (self.relation.tablespace, self.relation.database)
            });
        }
        match (changes.fork(self.relation, self.fork), &self.what) {
            (ForkVerdict::Whole, _) => true,
            (ForkVerdict::Unchanged, _) => false,
            (ForkVerdict::Blocks(fork), What::Block(block)) => fork.is_changed(*block),
            (ForkVerdict::Blocks(fork), What::Limit(limit)) => {
                fork.limit().is_some_and(|ours| ours <= *limit)
            }
        }
    }
}
