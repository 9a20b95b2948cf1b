//! Connection specifications for the test kit's clusters.

use std::{fs, io, os::unix::fs::MetadataExt};

use anyhow::Result;
use everpoint_instance::{ConnectionSpec, connect_sql};
use everpoint_testkit::Cluster;

/// How to reach a cluster as superuser.
pub(crate) fn spec(cluster: &Cluster) -> Result<ConnectionSpec> {
    Ok(cluster.connection_string("postgres").parse()?)
}

/// How to reach a cluster on its TCP port.
pub(crate) fn tcp_spec(cluster: &Cluster, rest: &str) -> Result<ConnectionSpec> {
    Ok(format!(
        "host=localhost port={} dbname=postgres {rest}",
        cluster.port()
    )
    .parse()?)
}

/// Puts lines in front of `pg_hba.conf`.
pub(crate) async fn let_in(cluster: &Cluster, lines: &str) -> Result<()> {
    let path = cluster.data_directory().join("pg_hba.conf");
    let text = fs::read_to_string(&path)?;
    fs::write(&path, format!("{lines}\n{text}"))?;
    cluster.sql("postgres", "SELECT pg_reload_conf()").await?;
    // The postmaster reads it when it gets to: a session that it starts afterwards has seen it.
    let seen = "SELECT count(*) > 0 FROM pg_hba_file_rules WHERE line_number = 1";
    cluster.wait_until_true(seen, "read pg_hba.conf").await?;
    drop(connect_sql(&spec(cluster)?, "postgres").await?);
    Ok(())
}

/// Writes a file into the data directory that only its owner, the server, can read.
pub(crate) fn write_private(cluster: &Cluster, name: &str, contents: &str) -> io::Result<()> {
    let root = cluster.data_directory();
    let path = root.join(name);
    fs::write(&path, contents)?;
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let owner = fs::metadata(root)?;
    std::os::unix::fs::chown(&path, Some(owner.uid()), Some(owner.gid()))
}
