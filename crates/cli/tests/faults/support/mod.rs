//! What the tests share: the program with a repository of its own, and waiting for what is bound to happen.

mod aging;
mod everpoint;
mod flushed;
mod halted;
mod proxy;
mod running;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use everpoint_repository::ObjectId;
use everpoint_testkit::Cluster;

pub use everpoint::{Everpoint, Finished};
pub use flushed::{FlushedWatch, stored_until};
pub use halted::Halted;
pub use proxy::Proxy;
pub use running::Running;

/// How long anything may take on a busy machine before a test gives up on it.
pub const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(20);

/// Waits until something is so.
pub async fn until(what: &str, mut is_so: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let begun = Instant::now();
    while !is_so().await? {
        if begun.elapsed() > PATIENCE {
            bail!("waited {PATIENCE:?} in vain until {what}");
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// Waits until a server has noticed that every everpoint is gone, however it ended.
pub async fn until_let_go(cluster: &Cluster) -> Result<()> {
    let sql = "SELECT count(*) FROM pg_stat_activity
        WHERE application_name LIKE 'everpoint%' AND application_name <> 'everpoint-testkit'";
    until("the server has let the sessions go", async || {
        Ok(cluster.value("postgres", sql).await? == "0")
    })
    .await
}

/// Ends the session that holds the only lock there is in a server, as administrators do with one that hangs.
pub async fn end_lock(cluster: &Cluster) -> Result<()> {
    let ended =
        "SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_locks WHERE locktype = 'advisory'";
    anyhow::ensure!(cluster.value("postgres", ended).await? == "1");
    Ok(())
}

/// A random number below `limit`. What hangs on it says so where it fails.
pub fn random_below(limit: u64) -> u64 {
    let id = ObjectId::random();
    let (first, _) = id.as_bytes().split_first_chunk::<8>().unwrap();
    u64::from_le_bytes(*first) % limit.max(1)
}

/// Makes an asynchronous function a module of two tests, on the oldest and the newest server.
#[macro_export]
macro_rules! on_15_and_18 {
    ($($(#[$attribute:meta])*
        async fn $name:ident($server:ident: Server) -> $result:ty $body:block)+) => {$(
        mod $name {
            use super::*;

            $(#[$attribute])*
            async fn body($server: everpoint_testkit::Server) -> $result $body

            #[test]
            fn on_15() -> $result {
                everpoint_testkit::run(body(everpoint_testkit::Server::find(15)?))
            }

            #[test]
            fn on_18() -> $result {
                everpoint_testkit::run(body(everpoint_testkit::Server::find(18)?))
            }
        }
    )+};
}
