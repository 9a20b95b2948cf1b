//! Whether a database is in a state that the ledger allows.

use std::{collections::BTreeSet, fmt::Write as _};

use anyhow::{Context, Result, bail};
use tokio_postgres::Client;

use super::ledger::{Expectation, Ledger, RowId, Target};

/// Faults that an error names; of further ones only the number is told.
const NAMED_FAULTS: usize = 10;

/// How many rows were found as expected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Rows that had to be there, and are.
    pub present: usize,
    /// Rows that had to be missing, and are.
    pub absent: usize,
    /// Rows whose commit was under way at the target.
    pub either: usize,
}

impl Ledger {
    /// Checks the rows that a connection to the workload's database sees against what they must be in the
    /// state `target`: every row due is there, none other, each whole (its account, entry and lines agree),
    /// and of each writer the first so many, without gaps.
    ///
    /// # Errors
    /// When something is otherwise, naming rows; or a query fails.
    pub async fn check(&self, client: &Client, target: Target) -> Result<Checked> {
        let found = find_rows(client).await?;
        let mut checked = Checked::default();
        let mut faults = Vec::new();
        for (row, transaction) in self.transactions() {
            let expected = transaction.expected(target);
            match (expected, found.contains(row)) {
                (Expectation::Present, true) => checked.present += 1,
                (Expectation::Absent, false) => checked.absent += 1,
                (Expectation::Either, _) => checked.either += 1,
                (_, visible) => {
                    let state = if visible { "is there" } else { "is missing" };
                    faults.push(format!("row {row} {state}: {transaction:?}"));
                }
            }
        }
        for row in &found {
            if !self.transactions().contains_key(row) {
                faults.push(format!("row {row} is not in the ledger"));
            }
        }
        faults.extend(self.gaps(&found));
        faults.extend(torn_transactions(client).await?);
        if !faults.is_empty() {
            bail!("not a state of {target:?}: {}", list(&faults));
        }
        Ok(checked)
    }

    /// Rows that are missing although a later row of their writer is there.
    fn gaps(&self, found: &BTreeSet<RowId>) -> Vec<String> {
        let mut gaps = Vec::new();
        let mut later: Option<RowId> = None;
        for (&row, transaction) in self.transactions().iter().rev() {
            if found.contains(&row) {
                later = Some(row);
            } else if let Some(later) = later.filter(|later| later.writer() == row.writer())
                && transaction.expected(Target::Latest) == Expectation::Present
            {
                gaps.push(format!(
                    "row {row} is missing, yet {later} of the same writer is there"
                ));
            }
        }
        gaps
    }
}

async fn find_rows(client: &Client) -> Result<BTreeSet<RowId>> {
    let rows = client
        .query("SELECT id FROM workload.entry", &[])
        .await
        .context("could not read the workload's entries")?;
    Ok(rows
        .iter()
        .map(|row| RowId::from_stored(row.get(0)))
        .collect())
}

/// What one transaction wrote into several tables must be there together, and unharmed.
async fn torn_transactions(client: &Client) -> Result<Vec<String>> {
    let checks = [
        (
            "accounts that do not hold the sum of their entries",
            "SELECT count(*) FROM workload.account a WHERE balance <>
             (SELECT coalesce(sum(amount), 0) FROM workload.entry WHERE account = a.id)",
        ),
        (
            "entries without their two lines",
            "SELECT count(*) FROM workload.entry e LEFT JOIN (
                 SELECT entry, count(*) AS lines, sum(amount) AS rest, max(amount) AS amount
                 FROM workload.line GROUP BY entry) l ON l.entry = e.id
             WHERE l.lines IS DISTINCT FROM 2 OR l.rest <> 0 OR l.amount <> e.amount",
        ),
        (
            "lines without an entry",
            "SELECT count(*) FROM workload.line l
             WHERE NOT EXISTS (SELECT FROM workload.entry WHERE id = l.entry)",
        ),
        (
            "entries with another note than was written",
            "SELECT count(*) FROM workload.entry WHERE note <> md5(id::text)",
        ),
    ];
    let mut faults = Vec::new();
    for (what, query) in checks {
        let count: i64 = client.query_one(query, &[]).await?.get(0);
        if count > 0 {
            faults.push(format!("{count} {what}"));
        }
    }
    Ok(faults)
}

fn list(faults: &[String]) -> String {
    let mut text = String::new();
    for fault in faults.iter().take(NAMED_FAULTS) {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n  {fault}");
    }
    if faults.len() > NAMED_FAULTS {
        let _ = write!(text, "\n  and {} more", faults.len() - NAMED_FAULTS);
    }
    text
}
