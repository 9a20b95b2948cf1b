//! Writers that know what they committed, and when.
//!
//! Each writer makes small transactions: it moves an amount onto an account, and writes an entry with two
//! lines that says so. Every tenth it rolls back. What it did goes into a [`Ledger`], which can say of any
//! state of the database (restored to a time or an LSN, or after a crash) whether it is one that
//! PostgreSQL promised.

mod check;
mod ledger;
mod writer;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
pub use check::Checked;
use ledger::SharedLedger;
pub use ledger::{Expectation, Ledger, Outcome, RowId, Target, Transaction};
use tokio::task::JoinHandle;
use writer::Writer;

use crate::Cluster;

const ACCOUNTS: u32 = 500;
const POLL: Duration = Duration::from_millis(5);

/// A workload to be started: in which database, and how busy.
#[derive(Clone, Debug)]
#[must_use = "nothing is written before `start`"]
pub struct Workload {
    database: String,
    writers: u32,
    pause: Duration,
}

impl Workload {
    /// Three writers in a database, which must exist. They keep to a schema of their own, `workload`.
    pub fn new(database: &str) -> Self {
        Self {
            database: database.to_owned(),
            writers: 3,
            pause: Duration::from_millis(1),
        }
    }

    /// How many writers there are.
    pub fn writers(mut self, writers: u32) -> Self {
        self.writers = writers;
        self
    }

    /// How long each writer rests after a transaction; 1 ms unless told otherwise.
    pub fn pause(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }

    /// Makes the tables if they are not there, and starts writing.
    ///
    /// # Errors
    /// When the tables cannot be made or a writer cannot connect.
    pub async fn start(self, cluster: &Cluster) -> Result<RunningWorkload> {
        self.resume(cluster, Ledger::default()).await
    }

    /// Goes on writing where an earlier run with this ledger was stopped.
    ///
    /// # Errors
    /// As for [`Workload::start`].
    pub async fn resume(self, cluster: &Cluster, ledger: Ledger) -> Result<RunningWorkload> {
        cluster.sql(&self.database, &tables()).await?;
        let first = ledger.next_writer();
        let running = RunningWorkload {
            stop: Arc::new(AtomicBool::new(false)),
            ledger: SharedLedger::new(ledger),
            writers: Vec::new(),
        };
        self.send_writers(cluster, running, first).await
    }

    async fn send_writers(
        self,
        cluster: &Cluster,
        mut running: RunningWorkload,
        first: u32,
    ) -> Result<RunningWorkload> {
        for number in first..first + self.writers {
            let client = cluster.connect(&self.database).await?;
            let writer = Writer::new(number, client, running.ledger.clone(), self.pause);
            let stop = Arc::clone(&running.stop);
            running.writers.push(tokio::spawn(writer.run(stop)));
        }
        Ok(running)
    }
}

/// A workload at work. Its writers end when it is stopped or dropped, or when their server goes away.
#[derive(Debug)]
pub struct RunningWorkload {
    stop: Arc<AtomicBool>,
    ledger: SharedLedger,
    writers: Vec<JoinHandle<Result<()>>>,
}

impl RunningWorkload {
    /// What has been done so far.
    pub fn ledger(&self) -> Ledger {
        self.ledger.snapshot()
    }

    /// Waits until `count` more transactions have been acknowledged.
    ///
    /// # Errors
    /// When the writers have ended before.
    pub async fn wait_for_commits(&self, count: usize) -> Result<()> {
        let goal = self.ledger.acknowledged() + count;
        while self.ledger.acknowledged() < goal {
            if self.writers.iter().all(JoinHandle::is_finished) {
                anyhow::bail!("the writers ended before {count} more commits");
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Lets every writer finish its transaction and returns what was done. A writer whose server went away
    /// has ended by itself; its last commit may be in doubt.
    ///
    /// # Errors
    /// When a writer failed for another reason.
    pub async fn stop(mut self) -> Result<Ledger> {
        self.stop.store(true, Ordering::Relaxed);
        for writer in std::mem::take(&mut self.writers) {
            writer.await.context("a writer panicked")??;
        }
        Ok(self.ledger.snapshot())
    }
}

impl Drop for RunningWorkload {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn tables() -> String {
    format!(
        "BEGIN;
         SELECT pg_advisory_xact_lock(7210001);
         CREATE SCHEMA IF NOT EXISTS workload;
         CREATE TABLE IF NOT EXISTS workload.account (
             id int PRIMARY KEY, balance bigint NOT NULL, filler text NOT NULL
         ) WITH (fillfactor = 80);
         CREATE TABLE IF NOT EXISTS workload.entry (
             id bigint PRIMARY KEY, account int NOT NULL REFERENCES workload.account,
             amount bigint NOT NULL, note text NOT NULL
         );
         CREATE INDEX IF NOT EXISTS entry_account ON workload.entry (account);
         CREATE TABLE IF NOT EXISTS workload.line (
             entry bigint NOT NULL REFERENCES workload.entry, number int NOT NULL, amount bigint NOT NULL,
             PRIMARY KEY (entry, number)
         );
         INSERT INTO workload.account
             SELECT i, 0, repeat('x', 60) FROM generate_series(0, {ACCOUNTS} - 1) i
             ON CONFLICT DO NOTHING;
         COMMIT"
    )
}
