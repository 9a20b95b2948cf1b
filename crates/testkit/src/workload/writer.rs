//! One writer and its transactions.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use tokio_postgres::{Client, Error};

use super::{
    ACCOUNTS,
    ledger::{Outcome, RowId, SharedLedger, Transaction},
};
use crate::Moment;

/// One in so many transactions is rolled back.
const ROLL_BACK_EVERY: u32 = 10;

pub(super) struct Writer {
    number: u32,
    client: Client,
    ledger: SharedLedger,
    pause: Duration,
}

impl Writer {
    pub(super) fn new(number: u32, client: Client, ledger: SharedLedger, pause: Duration) -> Self {
        Self {
            number,
            client,
            ledger,
            pause,
        }
    }

    pub(super) async fn run(self, stop: Arc<AtomicBool>) -> Result<()> {
        for sequence in 0.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            match self.transact(sequence).await {
                Ok(()) => tokio::time::sleep(self.pause).await,
                Err(error) if is_server_gone(&error) => break,
                Err(error) => {
                    return Err(error).with_context(|| format!("writer {} failed", self.number));
                }
            }
        }
        Ok(())
    }

    async fn transact(&self, sequence: u32) -> Result<(), Error> {
        let row = RowId::new(self.number, sequence);
        self.client
            .batch_execute(&statements(row, sequence))
            .await?;
        let before = Moment::now(&self.client).await?;
        let record = |outcome| self.ledger.record(row, Transaction { before, outcome });
        if sequence % ROLL_BACK_EVERY == ROLL_BACK_EVERY - 1 {
            record(Outcome::RolledBack);
            return self.client.batch_execute("ROLLBACK").await;
        }
        record(Outcome::InDoubt);
        self.client.batch_execute("COMMIT").await?;
        record(Outcome::Committed(Moment::now(&self.client).await?));
        Ok(())
    }
}

/// A transaction without its end. Everything follows from the row's id, so that contents can be checked.
fn statements(row: RowId, sequence: u32) -> String {
    // Writers touch the accounts in different orders, and each transaction only one: no deadlocks.
    let account =
        (u64::from(sequence) * 7919 + u64::from(row.writer()) * 131) % u64::from(ACCOUNTS);
    let amount = i64::from(sequence % 1000) + 1;
    format!(
        "BEGIN;
         UPDATE workload.account SET balance = balance + {amount} WHERE id = {account};
         INSERT INTO workload.entry VALUES ({row}, {account}, {amount}, md5('{row}'));
         INSERT INTO workload.line VALUES ({row}, 1, {amount}), ({row}, 2, -{amount})"
    )
}

/// Whether the connection broke or the server sends its clients away (SQLSTATE class 57P).
fn is_server_gone(error: &Error) -> bool {
    error.is_closed()
        || error
            .code()
            .is_none_or(|code| code.code().starts_with("57P"))
}
