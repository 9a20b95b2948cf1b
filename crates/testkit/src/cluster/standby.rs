//! A streaming standby of a cluster.

use std::fs;

use anyhow::Result;

use super::{Cluster, Listen};
use crate::Scratch;

impl Cluster {
    /// A running standby that streams from this cluster, made by `pg_basebackup`. Its slot on this cluster is
    /// named by the standby's directory.
    ///
    /// # Errors
    /// When the backup or the standby's start fails.
    pub async fn make_standby(&self) -> Result<Self> {
        let scratch = Scratch::new()?;
        let slot = slot_name(&scratch);
        let data = scratch.private_directory("data")?;
        let mut arguments = vec![
            format!("--pgdata={}", data.display()),
            format!("--dbname={}", self.connection_string("postgres")),
            format!("--slot={slot}"),
            "--create-slot".to_owned(),
            "--checkpoint=fast".to_owned(),
            "--wal-method=stream".to_owned(),
            "--no-sync".to_owned(),
        ];
        for name in self.tablespace_names().await? {
            let from = self.tablespace_directory(&name);
            let to = scratch.path().join(format!("tablespace-{name}"));
            arguments.push(format!(
                "--tablespace-mapping={}={}",
                from.display(),
                to.display()
            ));
        }
        self.server.run("pg_basebackup", arguments).await?;
        let mut standby = Self {
            process: None,
            server: self.server.clone(),
            data,
            listen: Listen::Socket,
            clock: None,
            scratch,
        };
        let primary = self.connection_string("postgres").replace('\'', "''");
        standby.configure(&format!("primary_conninfo = '{primary}'"))?;
        standby.configure(&format!("primary_slot_name = '{slot}'"))?;
        fs::write(standby.data.join("standby.signal"), "")?;
        standby.start().await?;
        Ok(standby)
    }

    async fn tablespace_names(&self) -> Result<Vec<String>> {
        let query = "SELECT spcname FROM pg_tablespace WHERE spcname NOT LIKE 'pg\\_%'";
        let rows = self.rows("postgres", query).await?;
        Ok(rows.into_iter().flatten().collect())
    }
}

fn slot_name(scratch: &Scratch) -> String {
    let name = scratch.path().file_name().unwrap_or_default();
    let name = name.to_string_lossy().to_lowercase();
    name.replace(|c: char| !c.is_ascii_alphanumeric(), "_")
}
