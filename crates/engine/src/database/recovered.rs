//! A database that was recovered in a scratch server of its own, whatever it is for: to be looked at, to be moved
//! into another server, to have some of its tables taken.

use std::path::PathBuf;

use everpoint_instance::process::PgBinaries;
use everpoint_repository::Repository;

use super::{
    DatabasePlan,
    journal::Journal,
    recover,
    scratch::{self, Scratch, ScratchError},
    server::{Opened, ScratchServer, ScratchServerError},
    state::State,
    sweep::put_away,
    watch::{Event, Watch},
};
use crate::transplant::Control;

/// A database in its scratch server. It is to be put away whatever becomes of it; what is not, [`super::sweep()`]
/// removes once this process is gone.
#[derive(Debug)]
pub struct Recovered {
    /// The server. Nobody else writes in it.
    pub server: ScratchServer,
    /// Its directory, with a lock and the operation's journal.
    pub scratch: Scratch,
    /// What the journal says.
    pub(super) journal: Journal,
}

impl Recovered {
    /// Makes a scratch directory and recovers there what was planned. Nothing is left when that fails.
    ///
    /// # Errors
    /// See [`ScratchServerError`].
    pub async fn bring(
        repository: &Repository,
        plan: &DatabasePlan,
        journal: Journal,
        binaries: &PgBinaries,
        watch: &Watch,
    ) -> Result<Self, ScratchServerError> {
        let request = &plan.request;
        let scratch = Scratch::make(&request.scratch, &request.instance, request.owner)?;
        let mut journal = journal;
        let brought = fill(repository, plan, &scratch, &mut journal, binaries, watch).await;
        let server = match brought {
            Ok(server) => server,
            Err(error) => {
                // What failed first is said; what is left now, the next sweep removes.
                let _ = put_away(scratch).await;
                return Err(error);
            }
        };
        watch.say(Event::Recovered {
            filter: server.filter_counts(),
            rolled_back: server.rolled_back().to_vec(),
        });
        if server.opened() == Opened::ByUs {
            watch.say(Event::Remark(format!(
                "`{}` took no connections (ALLOW_CONNECTIONS false); what is restored takes them",
                server.name()
            )));
        }
        Ok(Self {
            server,
            scratch,
            journal,
        })
    }

    /// How a move out of it is steered. The journal notes its states.
    pub(super) fn control(&self, watch: &Watch) -> Control {
        let directory = self.scratch.path().to_owned();
        let journal = self.journal.clone();
        // That it is online has to be known before the move's own journal, which tells as much, is gone.
        watch.control(move |event| {
            if let Event::State(state) = event {
                let mut journal = journal.clone();
                journal.state = *state;
                if let Err(error) = scratch::write_journal(&directory, &journal) {
                    tracing::warn!(%error, "the journal of a restore cannot be written");
                }
            }
        })
    }

    /// Stops the server and removes everything. Where a move has not come to an end its journals are kept, and the
    /// directory with them, which is returned.
    ///
    /// # Errors
    /// When the server does not stop, or something cannot be removed.
    pub async fn put_away(self, watch: &Watch) -> Result<Option<PathBuf>, ScratchError> {
        let kept = put_away(self.scratch).await?;
        if let Some(path) = &kept {
            watch.say(Event::Kept(path.clone()));
        }
        Ok(kept)
    }
}

async fn fill(
    repository: &Repository,
    plan: &DatabasePlan,
    scratch: &Scratch,
    journal: &mut Journal,
    binaries: &PgBinaries,
    watch: &Watch,
) -> Result<ScratchServer, ScratchServerError> {
    let mut enter = |state: State| {
        watch.say(Event::State(state));
        journal.state = state;
        Ok(scratch.write_journal(journal)?)
    };
    enter(State::Queued)?;
    recover(repository, plan, scratch, binaries, watch.progress(), enter).await
}
