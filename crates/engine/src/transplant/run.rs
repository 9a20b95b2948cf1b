//! Carrying a plan out.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    time::Duration,
};

use everpoint_instance::{InstanceLock, lock::LockKind};
use futures_util::future::try_join_all;
use tokio::time::{Instant, sleep};

use super::{
    Control, Event, Existing, MoveError, MovePlan, MoveState, Moved, Side, Step, check, create,
    files, journal,
    name::OperationId,
    objects,
    register::{self, Registration, Standing},
    replicas, room,
    schema::{self, Section},
    server::{Server, Session},
    sessions::{self, SNAPSHOT},
    tables::{self, Piece},
};
use crate::room::Room;

/// How long a server may take to answer again that was lost while a database was registered.
const ANSWER_PATIENCE: Duration = Duration::from_secs(60);
const ANSWER_POLL: Duration = Duration::from_millis(200);

/// The journal of an operation in its directory.
pub(super) fn journal_path(work_directory: &Path) -> PathBuf {
    work_directory.join("move.json")
}

/// Whether the move of a directory has begun and not come to an end.
pub fn is_open(work_directory: &Path) -> bool {
    journal_path(work_directory).exists()
}

pub(super) fn archive_path(work_directory: &Path) -> PathBuf {
    work_directory.join("definitions.pgdump")
}

/// Does what the plan says. Cancelled or failed before the database has its name, it leaves nothing behind.
///
/// # Errors
/// See [`MoveError`].
pub async fn execute(plan: &MovePlan, control: &Control) -> Result<Moved, MoveError> {
    let target = Server::new(Side::Target, &plan.request.target);
    let lock = take_lock(&target, plan.operation()).await?;
    let path = journal_path(&plan.request.work_directory);
    journal::write(
        &path,
        &journal::Record::Filling {
            operation: plan.operation(),
        },
    )?;
    control.say(Event::Step(Step::Journalled));
    let built = match find_room(&target, &plan.locale.tablespace, control).await {
        Err(error) => Err(error),
        Ok(room) => match &plan.files {
            Some(files) => files::build(plan, files, &target, &room, control).await,
            None => unless_ended(control, &room, build(plan, &target, control)).await,
        },
    };
    let result = match built {
        Ok((rows, seeded)) => finish(plan, &target, control, rows, seeded).await,
        Err(error) => Err(error),
    };
    let result = match result {
        Ok(moved) => put_away(plan, &target, &path, control)
            .await
            .map(|()| moved),
        Err(error) => Err(undo(plan, &target, error).await),
    };
    lock.give_up().await;
    result
}

/// Moves run beside others, on whatever thread is free.
const _: () = {
    const fn is_send<T: Send>(_: &T) {}
    #[expect(dead_code, reason = "compiling it is the check")]
    fn check(plan: &MovePlan, control: &Control) {
        is_send(&execute(plan, control));
    }
};

/// Where the move goes, to be watched while it fills that.
pub(super) async fn find_room(
    target: &Server,
    tablespace: &str,
    control: &Control,
) -> Result<Room, MoveError> {
    room::find(&target.connect_any().await?, tablespace, &control.room).await
}

/// Does something until it is done, somebody does not want it any more, or the target's disk fills up.
pub(super) async fn unless_ended<T>(
    control: &Control,
    room: &Room,
    work: impl Future<Output = Result<T, MoveError>>,
) -> Result<T, MoveError> {
    tokio::select! {
        done = work => done,
        () = control.progress.cancelled() => Err(MoveError::Cancelled),
        error = room.runs_out() => Err(error.into()),
    }
}

/// A later start sees by the lock whether the operation still runs.
pub(super) async fn take_lock(
    target: &Server,
    operation: OperationId,
) -> Result<InstanceLock, MoveError> {
    let session = target.connect_any().await?;
    let name = operation.to_string();
    Ok(InstanceLock::try_acquire(session.client, LockKind::Move, &name).await?)
}

/// What is to be done when the database is online. What cannot be, a later start does, by the journal.
async fn put_away(
    plan: &MovePlan,
    target: &Server,
    journal: &Path,
    control: &Control,
) -> Result<(), MoveError> {
    control.progress.phase("dropping what is left", 0);
    if plan.files.is_some()
        && let Err(error) = create::remove_vessel(target, plan.operation()).await
    {
        let database = plan.operation().vessel_name();
        tracing::warn!(%error, database, "a database that is of no use any more cannot be dropped");
        control.say(Event::Left(database));
        return Ok(());
    }
    journal::remove(journal)
}

async fn undo(plan: &MovePlan, target: &Server, error: MoveError) -> MoveError {
    let operation = plan.operation();
    let path = journal_path(&plan.request.work_directory);
    let removed = async {
        if let Some(journal::Record::Registering { registration }) = journal::read(&path)? {
            let session = target.connect_any().await?;
            if register::standing(&session, &registration).await? == Standing::Registered {
                // It came about though nobody heard of it: a later start finishes it by its journal.
                return Ok(());
            }
            // What is half removed must not be taken for complete.
            journal::write(&path, &journal::Record::Filling { operation })?;
        }
        create::remove(target, operation).await?;
        journal::remove(&path)
    };
    let removed = removed.await;
    let _ = std::fs::remove_file(archive_path(&plan.request.work_directory));
    match removed {
        Ok(()) => error,
        Err(source) => MoveError::Left {
            error: Box::new(error),
            left: operation.hidden_name(),
            source: Box::new(source),
        },
    }
}

/// Everything before the name: may be dropped at any point.
async fn build(
    plan: &MovePlan,
    target: &Server,
    control: &Control,
) -> Result<(u64, replicas::Seeded), MoveError> {
    let moving = Moving::begin(plan, target, control).await?;
    let rows = moving.fill().await?;
    control.say(Event::State(MoveState::Checking));
    control.progress.phase("checking", 0);
    let filled = moving.working.connect(&plan.hidden).await?;
    check::compare(&moving.source, &filled).await?;
    drop(filled);
    let _ = std::fs::remove_file(archive_path(&plan.request.work_directory));
    control.say(Event::State(MoveState::SeedingReplicas));
    control.progress.phase("seeding replicas", 0);
    let seeded = seed(plan, target, control).await?;
    Ok((rows, seeded))
}

/// Waits until replicas have all there is.
pub(super) async fn seed(
    plan: &MovePlan,
    target: &Server,
    control: &Control,
) -> Result<replicas::Seeded, MoveError> {
    let session = target.connect_any().await?;
    let request = &plan.request;
    replicas::seed(
        target,
        &session,
        &request.replicas,
        request.replica_policy,
        control,
    )
    .await
}

/// The name, and what follows it.
async fn finish(
    plan: &MovePlan,
    target: &Server,
    control: &Control,
    rows: u64,
    seeded: replicas::Seeded,
) -> Result<Moved, MoveError> {
    control.say(Event::State(MoveState::Registering));
    control.progress.phase("registering", 0);
    let session = target.connect_any().await?;
    let database = register::hidden_oid(&session, &plan.hidden).await?;
    drop(session);
    let registration = Registration::of(plan, database);
    let path = journal_path(&plan.request.work_directory);
    let record = journal::Record::Registering {
        registration: Box::new(registration.clone()),
    };
    journal::write(&path, &record)?;
    control.say(Event::Step(Step::ReadyToRegister));
    // The last moment.
    if control.progress.is_cancelled() {
        return Err(MoveError::Cancelled);
    }
    control.may_register(database).await?;
    for lost in registered(plan, target, control, &registration).await? {
        control.say(Event::NotTaken(lost));
    }
    control.say(Event::Step(Step::Registered));
    // The rename itself; replicas that were gone on without are not waited for again.
    let replicas = match seeded.behind.is_empty() && !seeded.replayed.is_empty() {
        true => tokio::select! {
            seeded = seed(plan, target, control) => seeded.unwrap_or_default(),
            () = control.progress.cancelled() => seeded,
        },
        false => seeded,
    };
    control.say(Event::State(MoveState::Online));
    Ok(Moved {
        name: registration.name,
        kept: registration
            .kept
            .filter(|_| plan.request.existing == Existing::Replace),
        rows,
        replicas,
    })
}

/// Registers. A session that breaks during the commit does not tell whether it came about; the server does.
async fn registered(
    plan: &MovePlan,
    target: &Server,
    control: &Control,
    registration: &Registration,
) -> Result<Vec<String>, MoveError> {
    let sessions = plan.request.sessions;
    match register::register(target, registration, sessions, control).await {
        Err(error @ MoveError::Lost { .. }) => match standing(target, registration).await? {
            Standing::Registered => Ok(Vec::new()),
            Standing::Hidden | Standing::Gone => Err(error),
        },
        other => other,
    }
}

/// How the registration stands, once the server answers again.
async fn standing(target: &Server, registration: &Registration) -> Result<Standing, MoveError> {
    let begun = Instant::now();
    loop {
        let asked = async {
            let session = target.connect_any().await?;
            register::standing(&session, registration).await
        };
        match asked.await {
            Err(_) if begun.elapsed() < ANSWER_PATIENCE => sleep(ANSWER_POLL).await,
            asked => return asked,
        }
    }
}

/// The sessions of a move while the hidden database is filled.
struct Moving<'a> {
    plan: &'a MovePlan,
    control: &'a Control,
    from: Server,
    /// The target, for sessions that fill.
    working: Server,
    /// Holds the snapshot.
    source: Session,
    snapshot: String,
}

impl<'a> Moving<'a> {
    async fn begin(
        plan: &'a MovePlan,
        target: &Server,
        control: &'a Control,
    ) -> Result<Self, MoveError> {
        control.say(Event::State(MoveState::Moving));
        control.progress.phase("moving", 0);
        let from = Server::new(Side::Source, &plan.request.source);
        let mut working = target.filling(plan.target_version);
        // By this name a cancelled move's sessions are found and ended.
        working.spec = working.spec.with_application_name(&plan.hidden);
        let source = from.connect(&plan.request.source_database).await?;
        sessions::prepare(&source, &plan.locale.encoding).await?;
        source.run("begin a snapshot", SNAPSHOT).await?;
        let snapshot = source
            .value("export a snapshot", "SELECT pg_export_snapshot()", &[])
            .await?;
        Ok(Self {
            plan,
            control,
            from,
            working,
            source,
            snapshot,
        })
    }

    /// Fills the hidden database. Returns how many rows were copied.
    async fn fill(&self) -> Result<u64, MoveError> {
        let plan = self.plan;
        let jobs = plan.request.jobs.max(1);
        let binaries = &plan.request.binaries;
        let archive = archive_path(&plan.request.work_directory);
        let hidden = &plan.hidden;
        let from = self
            .from
            .libpq(&self.source, &plan.request.source_database)?;
        // Definitions are read while the database is made.
        let (pieces, first, (), sources) = tokio::try_join!(
            self.pieces(),
            self.create(),
            schema::dump(binaries, &from, &self.snapshot, &archive, &[]),
            self.source_sessions(jobs),
        )?;
        self.control.say(Event::Step(Step::Created));
        let to = self.working.libpq(&first, hidden)?;
        let more = self.restore_options();
        let (targets, ()) = tokio::try_join!(
            self.target_sessions(first, jobs),
            schema::restore(binaries, &to, &archive, Section::PreData, 1, &more),
        )?;
        self.control.say(Event::Step(Step::PreData));
        let total = pieces.iter().map(|piece| piece.bytes).sum();
        self.control.progress.phase("moving", total);
        let filler = self.working.connect(hidden).await?;
        let others = async {
            objects::move_large_objects(&self.source, &filler).await?;
            objects::move_sequences(&self.source, &filler, None).await
        };
        let copied = sessions::copy(&sources, &targets, pieces, &self.control.progress);
        let (rows, ()) = tokio::try_join!(copied, others)?;
        drop(sources);
        self.control.say(Event::Step(Step::Rows));
        self.control.progress.phase("building indexes", 0);
        let builders = schema::index_builders(&self.source, jobs).await?;
        schema::restore(binaries, &to, &archive, Section::PostData, builders, &more).await?;
        objects::refresh_views(&self.source, &filler).await?;
        self.control.progress.phase("gathering statistics", 0);
        let tables = objects::analyzed(&filler, None).await?;
        sessions::analyze(&targets, tables).await?;
        self.control.say(Event::Step(Step::PostData));
        Ok(rows)
    }

    async fn pieces(&self) -> Result<VecDeque<Piece>, MoveError> {
        let plan = self.plan;
        let tables =
            tables::list(&self.source, plan.target_version, plan.source_version, None).await?;
        Ok(tables::cut(tables, plan.request.jobs).into())
    }

    /// Makes roles and the hidden database. Returns a first session in it.
    async fn create(&self) -> Result<Session, MoveError> {
        let plan = self.plan;
        let session = self.working.connect_any().await?;
        create::create_roles(&session, plan.operation(), &plan.new_roles).await?;
        create::create(&session, plan).await?;
        let first = self.working.connect(&plan.hidden).await?;
        // What every new database has and this one's owner has dropped.
        let what = "compare new databases";
        for (kind, sql) in [
            (
                "SCHEMA public",
                "SELECT count(*) FROM pg_namespace WHERE nspname = 'public'",
            ),
            (
                "EXTENSION plpgsql",
                "SELECT count(*) FROM pg_extension WHERE extname = 'plpgsql'",
            ),
        ] {
            if self.source_count(sql).await? == 0 {
                first.run(what, &format!("DROP {kind}")).await?;
            }
        }
        sessions::prepare(&first, &plan.locale.encoding).await?;
        Ok(first)
    }

    async fn source_count(&self, sql: &str) -> Result<i64, MoveError> {
        self.source.value("compare new databases", sql, &[]).await
    }

    async fn source_sessions(&self, jobs: usize) -> Result<Vec<Session>, MoveError> {
        let open: Vec<_> = (0..jobs).map(|_| self.source_session()).collect();
        try_join_all(open).await
    }

    /// A session that sees what `pg_dump` sees.
    async fn source_session(&self) -> Result<Session, MoveError> {
        let session = self
            .from
            .connect(&self.plan.request.source_database)
            .await?;
        sessions::prepare(&session, &self.plan.locale.encoding).await?;
        let sql = format!("{SNAPSHOT}; SET TRANSACTION SNAPSHOT '{}'", self.snapshot);
        session.run("take the snapshot over", &sql).await?;
        Ok(session)
    }

    async fn target_sessions(
        &self,
        first: Session,
        jobs: usize,
    ) -> Result<Vec<Session>, MoveError> {
        let open: Vec<_> = (1..jobs).map(|_| self.target_session()).collect();
        let mut sessions = try_join_all(open).await?;
        sessions.push(first);
        Ok(sessions)
    }

    async fn target_session(&self) -> Result<Session, MoveError> {
        let session = self.working.connect(&self.plan.hidden).await?;
        sessions::prepare(&session, &self.plan.locale.encoding).await?;
        Ok(session)
    }

    fn restore_options(&self) -> Vec<String> {
        schema::tablespace_options(self.plan.request.tablespaces)
    }
}
