//! Connection specifications for the test kit's clusters.

use anyhow::Result;
use everpoint_instance::ConnectionSpec;
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
