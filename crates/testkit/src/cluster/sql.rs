//! SQL on a cluster.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use everpoint_pgformat::Lsn;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

use super::{Cluster, SUPERUSER};

/// How long a server may take to replay or to end its recovery.
const PATIENCE: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(20);

impl Cluster {
    /// How to connect to a database as superuser, for tokio-postgres.
    pub fn config(&self, database: &str) -> Config {
        let mut config = Config::new();
        config
            .host_path(self.socket_dir())
            .port(self.port())
            .user(SUPERUSER)
            .dbname(database)
            .application_name("everpoint-testkit");
        config
    }

    /// How to connect to a database as superuser through the socket, in libpq's `key=value` form.
    pub fn connection_string(&self, database: &str) -> String {
        let database = database.replace('\\', r"\\").replace('\'', r"\'");
        format!(
            "host={} port={} user={SUPERUSER} dbname='{database}'",
            self.socket_dir().display(),
            self.port()
        )
    }

    /// The same as a URL.
    pub fn url(&self, database: &str) -> String {
        format!(
            "postgres:///{database}?host={}&port={}&user={SUPERUSER}",
            self.socket_dir().display(),
            self.port()
        )
    }

    /// A connection to a database as superuser. Ends when the client is dropped.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn connect(&self, database: &str) -> Result<Client> {
        let (client, connection) = self
            .config(database)
            .connect(NoTls)
            .await
            .with_context(|| format!("could not connect to database {database}"))?;
        // An error of the connection is reported to whoever uses the client.
        tokio::spawn(connection);
        Ok(client)
    }

    /// Runs any number of statements, outside a transaction if there is only one.
    ///
    /// # Errors
    /// When one of them fails.
    pub async fn sql(&self, database: &str, text: &str) -> Result<()> {
        let client = self.connect(database).await?;
        client
            .batch_execute(text)
            .await
            .with_context(|| format!("in database {database}: {text}"))
    }

    /// The rows of a query as text, nulls as empty text.
    ///
    /// # Errors
    /// When it fails.
    pub async fn rows(&self, database: &str, query: &str) -> Result<Vec<Vec<String>>> {
        let client = self.connect(database).await?;
        let messages = client
            .simple_query(query)
            .await
            .with_context(|| format!("in database {database}: {query}"))?;
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let text = |row: &tokio_postgres::SimpleQueryRow| {
            let values = (0..row.len()).map(|i| row.get(i).unwrap_or_default().to_owned());
            values.collect()
        };
        Ok(rows.map(text).collect())
    }

    /// The first value of a query's first row, as text.
    ///
    /// # Errors
    /// When it fails or there is no row.
    pub async fn value(&self, database: &str, query: &str) -> Result<String> {
        let rows = self.rows(database, query).await?;
        let value = rows.into_iter().flatten().next();
        value.with_context(|| format!("no row in database {database}: {query}"))
    }

    /// The names of the databases that take connections, sorted.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn databases(&self) -> Result<Vec<String>> {
        let query =
            "SELECT datname FROM pg_database WHERE datallowconn ORDER BY datname COLLATE \"C\"";
        let rows = self.rows("postgres", query).await?;
        Ok(rows.into_iter().flatten().collect())
    }

    /// Where WAL will be inserted next; on a standby, how far it has replayed.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn current_lsn(&self) -> Result<Lsn> {
        let query = "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
                            ELSE pg_current_wal_insert_lsn() END";
        Ok(self.value("postgres", query).await?.parse()?)
    }

    /// Writes a checkpoint.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn checkpoint(&self) -> Result<()> {
        self.sql("postgres", "CHECKPOINT").await
    }

    /// Ends the WAL segment being written. Returns where its last record ends.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn switch_wal(&self) -> Result<Lsn> {
        let lsn = self.value("postgres", "SELECT pg_switch_wal()").await?;
        Ok(lsn.parse()?)
    }

    /// Ends recovery, and waits until it has ended.
    ///
    /// # Errors
    /// When the server refuses or takes three minutes.
    pub async fn promote(&self) -> Result<()> {
        self.sql("postgres", "SELECT pg_promote(false)").await?;
        self.wait_until_promoted().await
    }

    /// Waits until recovery has ended and the server takes writes.
    ///
    /// # Errors
    /// When it has not after three minutes, or the server is gone.
    pub async fn wait_until_promoted(&self) -> Result<()> {
        let query = "SELECT NOT pg_is_in_recovery()";
        self.wait_until_true(query, "end its recovery").await
    }

    /// Waits until a standby has replayed up to `lsn`.
    ///
    /// # Errors
    /// When it has not after three minutes, or the server is gone.
    pub async fn wait_for_replay(&self, lsn: Lsn) -> Result<()> {
        let query = format!("SELECT pg_last_wal_replay_lsn() >= '{lsn}'");
        self.wait_until_true(&query, &format!("replay up to {lsn}"))
            .await
    }

    /// Waits until a query's first value is true.
    ///
    /// # Errors
    /// When it is not after three minutes, with the end of the log, or the query fails.
    pub async fn wait_until_true(&self, query: &str, purpose: &str) -> Result<()> {
        let started = Instant::now();
        while self.value("postgres", query).await? != "t" {
            if started.elapsed() > PATIENCE {
                let log = self.log()?;
                let lines: Vec<&str> = log.lines().rev().take(25).collect();
                let tail: Vec<&str> = lines.into_iter().rev().collect();
                bail!(
                    "the server did not {purpose} in {PATIENCE:?}:\n{}",
                    tail.join("\n")
                );
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }
}
