//! A moment of a server's life: its clock and its place in the WAL.

use std::fmt;

use anyhow::Result;
use everpoint_pgformat::Lsn;
use jiff::Timestamp;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::Cluster;

/// The server's clock and where WAL is inserted next, read together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The server's clock, in microseconds.
    pub time: Timestamp,
    /// Where the next record will begin at the earliest.
    pub lsn: Lsn,
}

impl Moment {
    /// The moment now, on a server that takes writes.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn now(client: &Client) -> Result<Self, tokio_postgres::Error> {
        let query = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, \
                     pg_current_wal_insert_lsn() - '0/0'::pg_lsn";
        let messages = client.simple_query(query).await?;
        let row = messages.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let value = |column| row.and_then(|row| row.get(column));
        let microsecond = value(0).and_then(|text| text.parse().ok());
        let position = value(1).and_then(|text| text.parse().ok());
        Ok(Self {
            time: Timestamp::from_microsecond(microsecond.expect("a number"))
                .expect("a time between the years -9999 and 9999"),
            lsn: Lsn::new(position.expect("a number")),
        })
    }

    /// The time as a value of `recovery_target_time`, which takes no names of time zones.
    pub fn setting(self) -> String {
        self.time.strftime("%Y-%m-%d %H:%M:%S%.6f+00").to_string()
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.time, self.lsn)
    }
}

impl Cluster {
    /// The moment now: what was acknowledged is before it, what is begun from here on is after it.
    ///
    /// # Errors
    /// When the server refuses or is in recovery.
    pub async fn moment(&self) -> Result<Moment> {
        Ok(Moment::now(&self.connect("postgres").await?).await?)
    }
}
