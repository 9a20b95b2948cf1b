//! What Everpoint's tests stand on: real PostgreSQL clusters of every supported version, workloads that
//! know what they committed, comparison of contents, and damage done on purpose.
//!
//! Nothing here is a mock, and nothing here uses Everpoint's own code to judge Everpoint: contents are
//! compared in SQL and integrity is checked by PostgreSQL's own tools. The servers come from
//! `make setup`; a test whose server is missing fails, it is not skipped.
//!
//! ```no_run
//! use everpoint_testkit::{Cluster, Server, on_every_version};
//!
//! on_every_version! {
//!     async fn a_row_is_read_back(server: Server) -> anyhow::Result<()> {
//!         let cluster = Cluster::builder(server.major()).start().await?;
//!         cluster.sql("postgres", "CREATE TABLE t AS SELECT 1 AS a").await?;
//!         assert_eq!(cluster.value("postgres", "SELECT a FROM t").await?, "1");
//!         Ok(())
//!     }
//! }
//! # fn main() {}
//! ```

mod account;
pub mod cluster;
pub mod compare;
pub mod corrupt;
mod every_version;
mod mixed;
mod moment;
pub mod regression;
mod scratch;
pub mod server;
pub mod workload;

pub use account::Account;
pub use cluster::{Cluster, ClusterBuilder, StopMode};
pub use every_version::run;
pub use mixed::{change_mixed_data, many_databases, mixed_data};
pub use moment::Moment;
pub use scratch::Scratch;
pub use server::Server;
pub use workload::{Ledger, RunningWorkload, Target, Workload};
