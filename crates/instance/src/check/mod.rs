//! Whether everything is in place for backups of a server, and what mends what is not.

mod directory;
mod judge;
mod report;
mod server;

use std::path::Path;

pub use report::{Check, CheckName, CheckReport, Outcome};

use crate::{connect::ConnectionSpec, replication::SlotName};

/// How WAL is to be had from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WalMode {
    /// Streamed from a replication slot, which is there or will be made.
    Slot(SlotName),
    /// Streamed without a slot: what the receiver misses for too long is lost.
    NoSlot,
}

/// Looks at a server, and at its data directory if that is on this machine. Changes nothing.
pub async fn check(
    spec: &ConnectionSpec,
    data_directory: Option<&Path>,
    mode: &WalMode,
) -> CheckReport {
    let mut report = CheckReport::default();
    let server = server::look_at(spec, mode, &mut report).await;
    if let Some(root) = data_directory {
        let root = root.to_owned();
        let look = tokio::task::spawn_blocking(move || {
            let mut report = CheckReport::default();
            directory::look_at(&root, server.as_ref(), &mut report);
            report
        });
        match look.await {
            Ok(found) => report.append(found),
            Err(error) => report.add(
                CheckName::DataDirectory,
                Outcome::failed(
                    format!("looking at it ended early: {error}"),
                    "Run the check again",
                ),
            ),
        }
    }
    report
}
