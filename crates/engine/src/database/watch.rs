//! How the restore of a database is watched and steered, by a person at a terminal or by a service.

use std::{fmt, path::PathBuf, sync::Arc};

use everpoint_pgformat::wal::filter::FilterCounts;

use super::state::State;
use crate::{
    progress::Progress,
    transplant::{self, Control, Gate},
};

/// What happens while a database is restored.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A state began.
    State(State),
    /// A hidden database was removed that a move had left whose journal is lost.
    LeftoverRemoved(String),
    /// The database is in its scratch server.
    Recovered {
        /// What was taken out of the log.
        filter: FilterCounts,
        /// Transactions that had been prepared in it, and were rolled back.
        rolled_back: Vec<String>,
    },
    /// Something to be known about the move that is planned.
    Remark(String),
    /// What happens in the move; its states come as [`Event::State`].
    Move(transplant::Event),
    /// A move has not come to an end. Its journals are kept here, and [`super::sweep()`] tries again.
    Kept(PathBuf),
}

/// A listener, progress, and what an operator may want in between. Cheap to clone; all clones are the same watch.
#[derive(Clone)]
pub struct Watch {
    control: Control,
    listener: Arc<dyn Fn(Event) + Send + Sync>,
}

impl Watch {
    /// With a listener, which must not block.
    pub fn new(progress: Progress, listener: impl Fn(Event) + Send + Sync + 'static) -> Self {
        let listener: Arc<dyn Fn(Event) + Send + Sync> = Arc::new(listener);
        let heard = listener.clone();
        let control = Control::new(progress, move |event| heard(event.into()));
        Self { control, listener }
    }

    /// The same watch, which asks before a database gets its name, as [`Control::with_gate`] says.
    #[must_use]
    pub fn with_gate(mut self, gate: Gate) -> Self {
        self.control = self.control.with_gate(gate);
        self
    }

    /// How far it is. It can be cancelled here until the database has its name.
    pub fn progress(&self) -> &Progress {
        &self.control.progress
    }

    /// The operator does not want to wait for replicas any longer.
    pub fn go_on_without_replicas(&self) {
        self.control.go_on_without_replicas();
    }

    /// How a move is steered by this watch. `hear` hears of it before the listener does.
    pub fn control(&self, hear: impl Fn(&Event) + Send + Sync + 'static) -> Control {
        let listener = self.listener.clone();
        self.control.with_listener(move |event| {
            let event = event.into();
            hear(&event);
            listener(event);
        })
    }

    pub(super) fn say(&self, event: Event) {
        (self.listener)(event);
    }
}

impl From<transplant::Event> for Event {
    fn from(event: transplant::Event) -> Self {
        match event {
            transplant::Event::State(state) => Self::State(state.into()),
            other => Self::Move(other),
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("control", &self.control)
            .finish_non_exhaustive()
    }
}
