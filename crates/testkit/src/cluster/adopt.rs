//! A data directory that someone else made: what a restore left behind.

use std::path::Path;

use anyhow::{Context, Result};

use super::{Cluster, Listen};
use crate::{Account, Scratch, Server};

impl Cluster {
    /// Starts a server on an existing data directory and waits until it takes connections, be it in
    /// recovery. The directory is given to the server's user and stays when the cluster is dropped.
    ///
    /// # Errors
    /// When the server gives up, with the end of its log.
    pub async fn adopt(data: &Path, major: u16) -> Result<Self> {
        let mut cluster = Self::adopt_stopped(data, major)?;
        cluster.start().await?;
        Ok(cluster)
    }

    /// As [`Cluster::adopt`], but does not start the server yet.
    ///
    /// # Errors
    /// When the directory cannot be given to the server's user.
    pub fn adopt_stopped(data: &Path, major: u16) -> Result<Self> {
        let data = std::fs::canonicalize(data)
            .with_context(|| format!("no data directory {}", data.display()))?;
        let account = Account::for_servers()?;
        account.own(&data)?;
        account.open_way_to(&data)?;
        Ok(Self {
            process: None,
            server: Server::find(major)?,
            data,
            listen: Listen::Socket,
            clock: None,
            scratch: Scratch::new()?,
        })
    }
}
