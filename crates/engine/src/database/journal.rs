//! What the restore of a database notes in its scratch directory, so that whoever comes after a crash knows
//! what there is to clean up.

use everpoint_pgformat::Oid;
use everpoint_repository::InstanceName;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{DatabasePlan, scratch, scratch::ScratchError, state::State};

/// The journal of one operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    /// The instance the database was in.
    pub instance: InstanceName,
    /// The database.
    pub database: Oid,
    /// Its name at the target.
    pub name: String,
    /// When the operation began, by this machine's clock.
    pub started_at: Timestamp,
    /// Its process.
    pub process: u32,
    /// How far it is.
    pub state: State,
}

impl Journal {
    /// Of an operation that has not begun.
    pub fn new(plan: &DatabasePlan) -> Self {
        Self {
            instance: plan.request.instance.clone(),
            database: plan.chosen.database,
            name: plan.chosen.name.clone(),
            started_at: Timestamp::now(),
            process: std::process::id(),
            state: State::Queued,
        }
    }
}

/// Removes what operations left below `base` that died: their servers and their files. Living ones are let
/// alone.
///
/// # Errors
/// When a server does not stop, or something cannot be removed.
pub async fn sweep(base: &std::path::Path) -> Result<usize, ScratchError> {
    let mut swept = 0;
    for dead in scratch::abandoned(base)? {
        if let Some(journal) = dead.read_journal::<Journal>() {
            tracing::info!(
                instance = %journal.instance, database = journal.name, state = %journal.state,
                "cleaning up after a restore that died"
            );
        }
        dead.remove().await?;
        swept += 1;
    }
    Ok(swept)
}
