//! Watches that a receiver never tells its server that log is safe which is not stored.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use anyhow::{Result, ensure};
use everpoint_pgformat::Lsn;
use everpoint_testkit::Cluster;
use tokio::task::JoinHandle;
use tokio_postgres::{Config, NoTls, SimpleQueryMessage};

/// A watch that goes on, over restarts of the server, until it is ended.
pub struct FlushedWatch {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Result<u64>>,
}

const REPORTED: &str = "SELECT flush_lsn FROM pg_stat_replication WHERE flush_lsn IS NOT NULL \
    UNION ALL SELECT restart_lsn FROM pg_replication_slots WHERE restart_lsn IS NOT NULL";

/// The end of the stored log, by the names of the log backups in a folder.
pub fn stored_until(log: &std::path::Path) -> Lsn {
    let timelines = std::fs::read_dir(log).into_iter().flatten().flatten();
    let objects =
        timelines.flat_map(|timeline| std::fs::read_dir(timeline.path()).into_iter().flatten());
    let ends = objects.flatten().filter_map(|object| {
        let name = object.file_name().to_string_lossy().into_owned();
        let mut fields = name.split('-').skip(1);
        let end = u64::from_str_radix(fields.next()?, 16).ok()?;
        // A name with `#` is of an object that is still being written.
        (!name.contains('#')).then_some(Lsn::new(end))
    });
    ends.max().unwrap_or(Lsn::INVALID)
}

impl FlushedWatch {
    /// Watches a cluster whose slot was made and not used yet.
    pub async fn begin(cluster: &Cluster, log: std::path::PathBuf) -> Result<Self> {
        let sql = "SELECT restart_lsn FROM pg_replication_slots";
        let made_at: Lsn = cluster.value("postgres", sql).await?.parse()?;
        let (config, stop) = (cluster.config("postgres"), Arc::new(AtomicBool::new(false)));
        let task = tokio::spawn(watch(config, log, made_at, Arc::clone(&stop)));
        Ok(Self { stop, task })
    }

    /// Ends it, and fails if the server was ever told too much, or nothing at all.
    pub async fn end(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let seen = self.task.await??;
        ensure!(seen > 0, "the server was never told anything");
        Ok(())
    }
}

async fn watch(
    config: Config,
    log: std::path::PathBuf,
    made_at: Lsn,
    stop: Arc<AtomicBool>,
) -> Result<u64> {
    let mut seen = 0;
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        let Ok((client, connection)) = config.connect(NoTls).await else {
            continue;
        };
        let connection = tokio::spawn(connection);
        while let Ok(messages) = client.simple_query(REPORTED).await {
            // In this order: what is stored only grows.
            let stored = stored_until(&log).max(made_at);
            for message in messages {
                if let SimpleQueryMessage::Row(row) = message {
                    let told: Lsn = row.get(0).unwrap_or_default().parse()?;
                    ensure!(
                        told <= stored,
                        "the server was told {told}, and stored is {stored}"
                    );
                    seen += u64::from(told > made_at);
                }
            }
            if stop.load(Ordering::Relaxed) {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        connection.abort();
    }
    Ok(seen)
}
