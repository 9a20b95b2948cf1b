//! How far operations on databases are, for people who wait for them.

use std::time::{Duration, Instant};

use everpoint_api::operation::{OperationStep, OperationSteps};
use everpoint_engine::{database::state::State, progress::Reading};

use crate::catalog::{OperationKind, OperationRow, OperationState};

/// The states of a restore with the percent at which each begins and the next one does. Most of the time goes into
/// reading files, replaying log and copying rows.
const STATES: [(State, u8, u8); 8] = [
    (State::Queued, 0, 1),
    (State::Fetching, 1, 40),
    (State::Recovering, 40, 65),
    (State::Moving, 65, 92),
    (State::Checking, 92, 95),
    (State::SeedingReplicas, 95, 98),
    (State::Registering, 98, 99),
    (State::Online, 99, 99),
];

/// The state of a restore by its name.
pub fn state_of(phase: &str) -> Option<State> {
    STATES
        .iter()
        .map(|(state, _, _)| *state)
        .find(|state| state.to_string() == phase)
}

/// 0 to 100: of a restore over all its states, of anything else within its phase.
pub fn percent(row: &OperationRow) -> u8 {
    if row.state == OperationState::Succeeded {
        return 100;
    }
    let (done, total) = (u128::from(row.done_bytes), u128::from(row.total_bytes));
    let (from, to) = match row.kind {
        OperationKind::Restore => match state_of(&row.phase) {
            None => (0, 1),
            Some(state) => STATES
                .iter()
                .find(|(found, _, _)| *found == state)
                .map_or((0, 1), |(_, from, to)| (*from, *to)),
        },
        _ => (0, 99),
    };
    let span = u128::from(to.saturating_sub(from));
    let within = (done.min(total) * span).checked_div(total).unwrap_or(0);
    from.saturating_add(u8::try_from(within).unwrap_or(0))
}

/// The steps of a restore.
pub fn steps(row: &OperationRow) -> Option<OperationSteps> {
    if row.kind != OperationKind::Restore {
        return None;
    }
    let current = match row.state {
        OperationState::Succeeded => STATES.len(),
        _ => {
            let state = state_of(&row.phase).unwrap_or(State::Queued);
            STATES
                .iter()
                .position(|(found, _, _)| *found == state)
                .unwrap_or(0)
        }
    };
    let status = |place: usize| match row.state {
        _ if place < current => "Completed",
        _ if place > current => "NotStarted",
        OperationState::Failed => "Failed",
        OperationState::Cancelled => "Canceled",
        OperationState::Pending => "NotStarted",
        _ => "InProgress",
    };
    let number = |place: usize| u32::try_from(place + 1).unwrap_or(u32::MAX);
    Some(OperationSteps {
        total_steps: STATES.len().to_string(),
        current_step: number(current.min(STATES.len() - 1)),
        steps_list: STATES
            .iter()
            .enumerate()
            .map(|(place, (state, _, _))| OperationStep {
                order: number(place),
                name: state.to_string(),
                status: status(place).to_owned(),
            })
            .collect(),
    })
}

/// How fast an operation goes.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    begun: Instant,
    phase: &'static str,
    phase_begun: Instant,
    done_bytes: u64,
}

impl Pace {
    /// Of what begins now.
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self {
            begun: now,
            phase: "",
            phase_begun: now,
            done_bytes: 0,
        }
    }

    /// Looks at the progress.
    pub(super) fn note(&mut self, reading: &Reading) {
        if reading.phase != self.phase {
            self.phase = reading.phase;
            self.phase_begun = Instant::now();
        }
        self.done_bytes = reading.done_bytes;
    }

    /// Bytes a second in the present phase.
    pub fn bytes_per_second(&self) -> Option<u64> {
        let milliseconds = self.phase_begun.elapsed().as_millis();
        let rate = (u128::from(self.done_bytes) * 1000).checked_div(milliseconds)?;
        u64::try_from(rate).ok()
    }

    /// How long it will probably take, by how long it took so far.
    pub fn rest(&self, percent: u8) -> Option<Duration> {
        let left = 100_u32.saturating_sub(u32::from(percent));
        (percent > 0).then(|| self.begun.elapsed() * left / u32::from(percent))
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use uuid::Uuid;

    use super::*;

    fn row(state: OperationState, phase: &str, done: u64, total: u64) -> OperationRow {
        OperationRow {
            id: Uuid::nil(),
            kind: OperationKind::Restore,
            instance: "one".to_owned(),
            actor: String::new(),
            state,
            phase: phase.to_owned(),
            total_bytes: total,
            done_bytes: done,
            stored_bytes: 0,
            started_at: Timestamp::UNIX_EPOCH,
            ended_at: None,
            error: None,
        }
    }

    #[test]
    fn the_percent_of_a_restore_only_grows_from_state_to_state() {
        let mut last = 0;
        for (state, _, _) in STATES {
            for done in [0, 50, 100, 120] {
                let found = percent(&row(
                    OperationState::InProgress,
                    &state.to_string(),
                    done,
                    100,
                ));
                assert!(found >= last && found < 100, "{state} {done}: {found}");
                last = found;
            }
            assert_eq!(state_of(&state.to_string()), Some(state));
        }
        assert_eq!(percent(&row(OperationState::Pending, "queued", 0, 0)), 0);
        assert_eq!(
            percent(&row(OperationState::Succeeded, "Online", 0, 0)),
            100
        );
    }

    #[test]
    fn steps_tell_what_is_done_and_where_it_stopped() {
        let found = steps(&row(OperationState::Failed, "Recovering", 1, 2)).unwrap();
        let status: Vec<&str> = found.steps_list.iter().map(|step| &*step.status).collect();
        assert_eq!(
            status[..4],
            ["Completed", "Completed", "Failed", "NotStarted"]
        );
        assert_eq!(found.current_step, 3);
        let done = steps(&row(OperationState::Succeeded, "Online", 0, 0)).unwrap();
        assert!(
            done.steps_list
                .iter()
                .all(|step| step.status == "Completed")
        );
    }
}
