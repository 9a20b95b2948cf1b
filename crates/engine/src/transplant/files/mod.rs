//! The move by files: the recovered database's own files become a database of the running server.
//!
//! Rows are neither read nor written one by one, and no index is built. What a database's files mean lies in
//! part outside of them, so this holds for a target of the same cluster only, and only where everything that
//! the files refer to is in the target what it was in the source. [`conditions`] has the list.
//!
//! ```text
//! source   VACUUM FREEZE: rows name no transactions any more              freeze
//!          rows about the cluster's shared tables get the target's horizons
//!          stopped in good order
//! target   CREATE DATABASE vessel TEMPLATE template0 STRATEGY file_copy   vessel
//!          marked as invalid: no session, no autovacuum enters
//! files    out with template0's, in with the source's, page by page       place
//!          checked to be frozen; brought to the disk
//! target   marked as valid; CREATE DATABASE hidden TEMPLATE vessel
//!          STRATEGY wal_log: every page gets a position in the target's log
//!          the vessel is marked as invalid again
//!          who owns and may do what (pg_shdepend)                         dependencies
//!          compared, replayed by replicas, registered as any other move
//!          DROP DATABASE vessel: last, since it waits for a checkpoint
//! ```
//!
//! # Why this is safe
//!
//! **What is swapped is a throwaway.** Files are put into the vessel alone. Nothing of the server's log speaks
//! of its contents, so no standby, backup or crash recovery depends on them: those have an empty database
//! of that name, and then the log of its drop. The database that stays is made by the server itself, page by page,
//! through its buffers and its log.
//!
//! **Nobody looks into the vessel while it changes.** `file_copy` makes it without buffers
//! (`CreateDatabaseUsingFileCopy`, `src/backend/commands/dbcommands.c`), and before the first file goes it is
//! marked as `DROP DATABASE` marks what it has begun to remove (`datconnlimit` -2, from 15.4 on). The server lets
//! no session in then, not even a superuser's, which `datallowconn` would not keep autovacuum from; does not
//! vacuum it; does not count it when it looks how far transactions may be forgotten; and allows to drop it. A
//! crash leaves it so. While it is copied `CREATE DATABASE` itself locks it.
//!
//! **Transaction numbers.** Frozen rows are visible to all whatever their transaction. That no other is left is
//! looked up in every page of every table, whatever the visibility map says. The horizons that tables state
//! (`relfrozenxid`, `relminmxid`) must not lie in the target's future: its counter is moved on by the few numbers
//! that freezing took, if need be, and a source that is further ahead is refused, as one is that is so far behind
//! that numbers wrap around. Shared tables are the target's, so rows of `pg_class` about them are given horizons
//! that the target has found to hold.
//!
//! **Log positions.** Pages keep the source's positions until `wal_log` gives them new ones, and that is why
//! `wal_level = minimal`, where it does not, is refused: pages from the future could never be written. One kind of
//! position stays, inside GiST pages (the node sequence number, by which scans tell that a page was split behind
//! their back, `src/backend/access/gist/README`). If they lay in the target's future, scans would return rows twice;
//! so the source's log must not have come further than the target's. Nothing that is done here splits one.
//!
//! **The visibility and free space maps** lose their contents in the log, since `log_newpage_buffer` takes
//! their pages for standard ones and leaves out what lies between `pd_lower` and `pd_upper`. Standbys, and the
//! server after a crash, begin with empty ones. That costs a vacuum, and is right.

pub(super) mod conditions;
mod dependencies;
pub(super) mod facts;
mod freeze;
mod local;
mod orphans;
mod place;
mod vessel;

use everpoint_pgformat::{ByteCount, Oid};

use self::{freeze::Frozen, local::LocalDirectory};
use super::{
    Control, Event, MoveError, MovePlan, MoveState, Refusals, Step, check, replicas,
    run::{self, unless_ended},
    server::Server,
};
use crate::room::Room;

pub(super) use orphans::remove as remove_orphans;

/// What a move by files is to know besides.
#[derive(Clone, Debug)]
pub struct FilesPlan {
    /// The database in the source.
    database: Oid,
    /// Where its files are.
    source: LocalDirectory,
    /// Where they go.
    target: LocalDirectory,
    /// The database's own tablespace, in the source and in the target.
    own_tablespace: (Oid, Oid),
    /// Others that some of its tables lie in; they are the same in both.
    tablespaces: Vec<Oid>,
    /// Roles that the files name by number.
    roles: Vec<(Oid, String)>,
    /// Whether it has event triggers on login that are enabled.
    login_triggers: LoginTriggers,
}

impl FilesPlan {
    /// What the target's file system must have room for: the database, and the vessel unless its files are there
    /// already.
    pub(super) fn room(&self, size: ByteCount) -> ByteCount {
        match self.source.device == self.target.device {
            true => size,
            false => ByteCount::new(size.get().saturating_mul(2)),
        }
    }
}

/// Whether a database has enabled event triggers on login, which its row in `pg_database` has to say (17 and
/// later).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LoginTriggers {
    /// It has.
    Some,
    /// It has none.
    None,
}

/// Everything before the name. Nothing goes on when it returns, be it cancelled: threads that move files are
/// waited for.
pub(super) async fn build(
    plan: &MovePlan,
    files: &FilesPlan,
    target: &Server,
    room: &Room,
    control: &Control,
) -> Result<(u64, replicas::Seeded), MoveError> {
    control.say(Event::State(MoveState::Moving));
    let working = target.lasting(&plan.hidden);
    let prepared = async {
        let (frozen, ()) = tokio::try_join!(
            freeze::freeze(plan, files, &working, control),
            vessel::create(plan, &working)
        )?;
        Ok(frozen)
    };
    let frozen = unless_ended(control, room, prepared).await?;
    control.say(Event::Step(Step::Frozen));
    place::place(plan, files, &frozen, room, control).await?;
    control.say(Event::Step(Step::FilesPlaced));
    unless_ended(
        control,
        room,
        complete(plan, files, &frozen, &working, control),
    )
    .await?;
    control.say(Event::State(MoveState::SeedingReplicas));
    control.progress.phase("seeding replicas", 0);
    let seeded = unless_ended(control, room, run::seed(plan, target, control)).await?;
    Ok((0, seeded))
}

/// From the vessel with its files to the hidden database.
async fn complete(
    plan: &MovePlan,
    files: &FilesPlan,
    frozen: &Frozen,
    working: &Server,
    control: &Control,
) -> Result<(), MoveError> {
    control.progress.phase("logging pages", 0);
    vessel::copy(plan, working).await?;
    control.say(Event::Step(Step::Copied));
    dependencies::give(plan, files, frozen, &working.connect_any().await?).await?;
    control.say(Event::Step(Step::PostData));
    control.say(Event::State(MoveState::Checking));
    control.progress.phase("checking", 0);
    // Its event triggers on login are not ours to fire.
    let quiet = working.filling(plan.target_version);
    let filled = quiet.connect(&plan.hidden).await?;
    // At once, as autovacuum may cut off empty ends.
    check::differ(&frozen.sizes, &freeze::sizes(&filled).await?)?;
    freeze::settle(&filled, plan.target_version.get()).await?;
    check::differ(&frozen.counts, &check::counts(&filled).await?)
}

/// For what turns out only when the move has begun.
fn refused(reason: String) -> MoveError {
    MoveError::Refused(Refusals(vec![super::Refusal::NotByFiles { reason }]))
}
