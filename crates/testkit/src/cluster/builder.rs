//! What a new cluster is to be like.

use std::{fmt::Write as _, net::TcpListener};

use anyhow::{Context, Result};
use everpoint_pgformat::wal::segment::SegmentSize;

use super::{Cluster, Listen, SUPERUSER, clock::Clock, template};
use crate::{Scratch, Server};

/// A new cluster's properties. Unless told otherwise: data checksums, 16 MiB of WAL a segment, no `fsync`,
/// only a socket, encoding UTF-8, locale C, time zone UTC, and PostgreSQL's defaults.
#[derive(Clone, Debug)]
#[must_use = "nothing is made before `start`"]
pub struct ClusterBuilder {
    major: u16,
    checksums: bool,
    fsync: bool,
    loopback: bool,
    clock: bool,
    segment_size: SegmentSize,
    settings: Vec<String>,
    tablespaces: Vec<String>,
    initdb: Vec<String>,
}

impl ClusterBuilder {
    pub(super) fn new(major: u16) -> Self {
        Self {
            major,
            checksums: true,
            fsync: false,
            loopback: false,
            clock: false,
            segment_size: SegmentSize::DEFAULT,
            settings: Vec::new(),
            tablespaces: Vec::new(),
            initdb: Vec::new(),
        }
    }

    /// Pages carry no checksums.
    pub fn without_data_checksums(mut self) -> Self {
        self.checksums = false;
        self
    }

    /// The server waits for its disks, as it does in earnest.
    pub fn with_fsync(mut self) -> Self {
        self.fsync = true;
        self
    }

    /// The server also listens on a free port of 127.0.0.1.
    pub fn on_loopback(mut self) -> Self {
        self.loopback = true;
        self
    }

    /// The server's clock can be [set](Cluster::set_clock).
    pub fn with_clock(mut self) -> Self {
        self.clock = true;
        self
    }

    /// Bytes in a WAL segment.
    pub fn wal_segment_size(mut self, size: SegmentSize) -> Self {
        self.segment_size = size;
        self
    }

    /// Adds a line to `postgresql.conf`, such as `wal_level = logical`.
    pub fn setting(mut self, line: &str) -> Self {
        self.settings.push(line.to_owned());
        self
    }

    /// Makes a tablespace, named by a plain lower-case word.
    pub fn tablespace(mut self, name: &str) -> Self {
        self.tablespaces.push(name.to_owned());
        self
    }

    /// Gives `initdb` another argument.
    pub fn initdb_argument(mut self, argument: &str) -> Self {
        self.initdb.push(argument.to_owned());
        self
    }

    /// Makes the cluster, starts it, and makes its tablespaces.
    ///
    /// # Errors
    /// When the version is not installed, or `initdb` or the server fails.
    pub async fn start(self) -> Result<Cluster> {
        let server = Server::find(self.major)?;
        let scratch = Scratch::new()?;
        let data = scratch.private_directory("data")?;
        let listen = if self.loopback {
            Listen::Loopback { port: free_port()? }
        } else {
            Listen::Socket
        };
        let mut cluster = Cluster {
            process: None,
            server,
            data,
            listen,
            clock: match self.clock {
                true => Some(Clock::new(scratch.path().join("clock"))?),
                false => None,
            },
            scratch,
        };
        template::initialise(&cluster.server, &self.initdb_arguments(), &cluster.data).await?;
        cluster.configure(&self.postgresql_conf())?;
        cluster.start().await?;
        for name in &self.tablespaces {
            let directory = cluster
                .scratch
                .private_directory(&format!("tablespace-{name}"))?;
            let sql = format!(
                "CREATE TABLESPACE {name} LOCATION '{}'",
                directory.display()
            );
            cluster.sql("postgres", &sql).await?;
        }
        Ok(cluster)
    }

    fn initdb_arguments(&self) -> Vec<String> {
        let segment_mib = self.segment_size.bytes() >> 20;
        let mut arguments = vec![
            format!("--username={SUPERUSER}"),
            format!("--wal-segsize={segment_mib}"),
            "--auth=trust".to_owned(),
            "--encoding=UTF8".to_owned(),
            "--locale=C".to_owned(),
            "--no-sync".to_owned(),
            "--no-instructions".to_owned(),
        ];
        if self.checksums {
            arguments.push("--data-checksums".to_owned());
        } else if self.major >= 18 {
            // From 18 on they are there unless declined.
            arguments.push("--no-data-checksums".to_owned());
        }
        arguments.extend(self.initdb.iter().cloned());
        arguments
    }

    fn postgresql_conf(&self) -> String {
        let mut text =
            String::from("\n# What the test asked for.\ntimezone = 'UTC'\nlog_timezone = 'UTC'\n");
        if !self.fsync {
            text.push_str("fsync = off\n");
        }
        for line in &self.settings {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{line}");
        }
        text
    }
}

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no free port on 127.0.0.1")?;
    Ok(listener.local_addr()?.port())
}
