//! What a user sees of the restore of a database, and can wait for.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::transplant::MoveState;

/// How far the restore of a database is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Nothing has begun.
    Queued,
    /// Its files come out of the repository.
    Fetching,
    /// The scratch server replays log.
    Recovering,
    /// Its contents go into the live server, under a hidden name.
    Moving,
    /// What arrived is compared with what left.
    Checking,
    /// Standbys of the live server replay what arrived.
    SeedingReplicas,
    /// It takes its final name.
    Registering,
    /// It can be used.
    Online,
}

impl From<MoveState> for State {
    fn from(state: MoveState) -> Self {
        match state {
            MoveState::Moving => Self::Moving,
            MoveState::Checking => Self::Checking,
            MoveState::SeedingReplicas => Self::SeedingReplicas,
            MoveState::Registering => Self::Registering,
            MoveState::Online => Self::Online,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Queued => "Queued",
            Self::Fetching => "Fetching",
            Self::Recovering => "Recovering",
            Self::Moving => "Moving",
            Self::Checking => "Checking",
            Self::SeedingReplicas => "Seeding replicas",
            Self::Registering => "Registering",
            Self::Online => "Online",
        })
    }
}
