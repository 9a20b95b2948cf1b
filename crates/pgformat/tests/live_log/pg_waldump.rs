//! `pg_waldump` on a stopped cluster's log, its lines put into the form of `examples/shared/record_line.rs`.

use std::{collections::BTreeSet, path::Path};

use anyhow::{Context, Result};
use everpoint_pgformat::Lsn;
use everpoint_testkit::Cluster;
use jiff::Timestamp;

/// A record as `pg_waldump` shows it.
pub struct Shown {
    pub start: Lsn,
    pub manager: String,
    /// The first word of its description: what kind of record of its resource manager it is.
    pub kind: String,
    /// All that is compared.
    pub line: String,
}

/// The records from `start` on, to the end of the log.
pub async fn records(cluster: &Cluster, start: Lsn) -> Result<Vec<Shown>> {
    let wal = cluster.data_directory().join("pg_wal");
    let mut command = cluster.server().command("pg_waldump")?;
    command.arg("-p").arg(wal).arg("-s").arg(start.to_string());
    // It ends with a complaint about the end of the log.
    let output = command.output().await?;
    let text = String::from_utf8_lossy(&output.stdout);
    let lines = text.lines().filter(|line| line.starts_with("rmgr: "));
    lines
        .map(|line| parse(line).with_context(|| line.to_owned()))
        .collect()
}

/// Has the page images between two positions written into a directory, a file each (from 16 on).
pub async fn save_images(cluster: &Cluster, from: Lsn, to: Lsn, into: &Path) -> Result<()> {
    let arguments = [
        "-q".to_owned(),
        format!("-p{}", cluster.data_directory().join("pg_wal").display()),
        format!("-s{from}"),
        format!("-e{to}"),
        format!("--save-fullpage={}", into.display()),
    ];
    let printed = cluster.server().run("pg_waldump", arguments).await;
    printed.map(drop)
}

/// The kinds of records among these, such as `Heap INSERT`.
pub fn kinds(records: &[Shown]) -> BTreeSet<String> {
    records
        .iter()
        .map(|record| format!("{} {}", record.manager, record.kind))
        .collect()
}

fn parse(line: &str) -> Option<Shown> {
    let rest = line.strip_prefix("rmgr: ")?;
    let (manager, rest) = rest.split_once(" len (rec/tot):")?;
    let (record_len, rest) = rest.split_once('/')?;
    let (total_len, rest) = rest.split_once(", tx:")?;
    let (transaction, rest) = rest.split_once(", lsn: ")?;
    let (start, rest) = rest.split_once(", prev ")?;
    let (previous, description) = rest.split_once(", desc: ")?;
    let (manager, transaction) = (manager.trim(), transaction.trim());
    let (record_len, total_len) = (record_len.trim(), total_len.trim());
    let (start, previous): (Lsn, Lsn) = (start.parse().ok()?, previous.parse().ok()?);
    let mut line =
        format!("{start} {manager} {transaction} {record_len}/{total_len} prev {previous}");
    for block in description.split(" blkref ").skip(1) {
        line += &format!(" blkref {}", block_reference(block)?);
    }
    line += &details(manager, transaction, description)?;
    let kind = description.split([' ', ';']).next()?;
    Some(Shown {
        start,
        manager: manager.to_owned(),
        kind: kind.to_owned(),
        line,
    })
}

/// `#0: rel 1663/5/16384 fork vm blk 0 FPW`, without the name of the main fork and what may follow.
fn block_reference(text: &str) -> Option<String> {
    let words: Vec<&str> = text.trim_end_matches(',').split_whitespace().collect();
    let (number, rest) = words.split_first()?;
    let (["rel", relation], rest) = rest.split_first_chunk()? else {
        return None;
    };
    let (fork, rest) = match rest {
        ["fork", "main", rest @ ..] => (String::new(), rest),
        ["fork", fork, rest @ ..] => (format!(" fork {fork}"), rest),
        rest => (String::new(), rest),
    };
    let ["blk", block, rest @ ..] = rest else {
        return None;
    };
    let image = match rest.first().map(|word| word.trim_end_matches(';')) {
        Some("FPW") if rest.get(1) == Some(&"for") => " FPW for WAL verification",
        Some("FPW") => " FPW",
        _ => "",
    };
    let block = block.trim_end_matches(',');
    Some(format!("{number} rel {relation}{fork} blk {block}{image}"))
}

/// What the record says, of those kinds whose contents are compared, too.
fn details(manager: &str, transaction: &str, description: &str) -> Option<String> {
    let (kind, rest) = description.split_once(' ').unwrap_or((description, ""));
    Some(match (manager, kind) {
        ("Transaction", "COMMIT") => ended("Commit", transaction, rest)?,
        ("Transaction", "ABORT") => ended("Abort", transaction, rest)?,
        ("Transaction", "COMMIT_PREPARED" | "ABORT_PREPARED") => {
            let (transaction, rest) = rest.split_once(": ")?;
            let kind = match kind {
                "COMMIT_PREPARED" => "CommitPrepared",
                _ => "AbortPrepared",
            };
            ended(kind, transaction, rest)?
        }
        ("Transaction", "PREPARE") => {
            let (_, rest) = rest.strip_prefix("gid ")?.split_once(": ")?;
            ended("Prepare", transaction, rest)?
        }
        ("XLOG", "RESTORE_POINT") => format!("; restore point {rest}"),
        ("XLOG", "CHECKPOINT_SHUTDOWN" | "CHECKPOINT_ONLINE") => {
            let redo = rest.strip_prefix("redo ")?.split_once(';')?.0;
            format!("; redo {}", redo.parse::<Lsn>().ok()?)
        }
        _ => String::new(),
    })
}

fn ended(kind: &str, transaction: &str, rest: &str) -> Option<String> {
    let mut parts = rest.split("; ");
    let time = parts.next()?.trim_end_matches(';').strip_suffix(" UTC")?;
    let time: Timestamp = format!("{}Z", time.replacen(' ', "T", 1)).parse().ok()?;
    let (mut children, mut relations) = (0, 0);
    for part in parts {
        if let Some(list) = part.strip_prefix("subxacts: ") {
            children = list.split_whitespace().count();
        } else if let Some(list) = part
            .strip_prefix("rels: ")
            .or_else(|| part.strip_prefix("rels(commit): "))
        {
            relations = list.trim_end_matches(';').split_whitespace().count();
        }
    }
    Some(format!(
        "; {kind} {transaction} time {} children {children} relations {relations}",
        time.as_microsecond()
    ))
}
