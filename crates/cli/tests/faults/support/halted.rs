//! Servers of which one process does nothing.

use anyhow::{Context, Result};
use everpoint_testkit::Cluster;
use rustix::process::{Pid, Signal, kill_process};

/// A process of a server, halted until this is dropped.
pub struct Halted(Pid);

impl Halted {
    /// The server's process of a `backend_type`, as `pg_stat_activity` has it.
    pub async fn process(cluster: &Cluster, backend_type: &str) -> Result<Self> {
        let sql = format!("SELECT pid FROM pg_stat_activity WHERE backend_type = '{backend_type}'");
        let pid: i32 = cluster.value("postgres", &sql).await?.parse()?;
        let pid = Pid::from_raw(pid).context("a process")?;
        kill_process(pid, Signal::STOP)?;
        Ok(Self(pid))
    }
}

impl Drop for Halted {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::CONT);
    }
}
