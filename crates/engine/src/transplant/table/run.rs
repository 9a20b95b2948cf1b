//! Carrying a plan out.

use everpoint_instance::connect::LibpqConnection;
use futures_util::future::try_join_all;

use super::{
    TablesMoved, arrange, check, hidden,
    plan::{Published, TablesPlan},
    register::{self, TableRegistration},
    source::ItemKind,
};
use crate::transplant::{
    Control, Event, MoveState, Step, create,
    error::{MoveError, Side},
    journal, objects, replicas,
    run::{archive_path, find_room, journal_path, take_lock, unless_ended},
    schema::{self, Section},
    server::{Server, Session},
    sessions::{self, SNAPSHOT},
    tables,
};

/// Does what the plan says. Cancelled or failed before the tables have their names, it leaves nothing behind.
///
/// # Errors
/// See [`MoveError`].
pub async fn execute(plan: &TablesPlan, control: &Control) -> Result<TablesMoved, MoveError> {
    let target = Server::new(Side::Target, &plan.request.target);
    let lock = take_lock(&target, plan.operation()).await?;
    let path = journal_path(&plan.request.work_directory);
    journal::write(
        &path,
        &journal::Record::FillingTables {
            operation: plan.operation(),
            database: plan.request.place.database.clone(),
        },
    )?;
    control.say(Event::Step(Step::Journalled));
    let built = match find_room(&target, &plan.tablespace, control).await {
        Err(error) => Err(error),
        Ok(room) => unless_ended(control, &room, build(plan, &target, control)).await,
    };
    let result = match built {
        Ok((rows, seeded)) => finish(plan, &target, control, rows, seeded).await,
        Err(error) => Err(error),
    };
    let result = match result {
        Ok(moved) => journal::remove(&path).map(|()| moved),
        Err(error) => Err(undo(plan, &target, error).await),
    };
    lock.give_up().await;
    result
}

/// Moves run beside others, on whatever thread is free.
const _: () = {
    const fn is_send<T: Send>(_: &T) {}
    #[expect(dead_code, reason = "compiling it is the check")]
    fn check(plan: &TablesPlan, control: &Control) {
        is_send(&execute(plan, control));
    }
};

async fn undo(plan: &TablesPlan, target: &Server, error: MoveError) -> MoveError {
    let operation = plan.operation();
    let removed = match is_registered(plan, target, &error).await {
        // What came after the tables had their names failed; they keep them, and a later start goes on.
        Ok(true) => return error,
        Ok(false) => hidden::remove(target, &plan.request.place.database, operation)
            .await
            .and_then(|()| journal::remove(&journal_path(&plan.request.work_directory))),
        Err(unknown) => Err(unknown),
    };
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

/// Whether the tables have their names although something failed.
async fn is_registered(
    plan: &TablesPlan,
    target: &Server,
    error: &MoveError,
) -> Result<bool, MoveError> {
    let path = journal_path(&plan.request.work_directory);
    let Ok(Some(journal::Record::RegisteringTables { registration })) = journal::read(&path) else {
        return Ok(false);
    };
    if matches!(error, MoveError::Cancelled | MoveError::NameTaken { .. }) {
        return Ok(false);
    }
    let session = target.connect(&registration.database).await?;
    register::is_done(&session, &registration).await
}

/// Everything before the names: may be dropped at any point.
async fn build(
    plan: &TablesPlan,
    target: &Server,
    control: &Control,
) -> Result<(u64, replicas::Seeded), MoveError> {
    let moving = Moving::begin(plan, target, control).await?;
    let rows = moving.fill().await?;
    control.say(Event::State(MoveState::Checking));
    control.progress.phase("checking", 0);
    let filled = moving.target_session().await?;
    let hidden = plan.hidden();
    check::compare(&moving.source, &filled, &hidden).await?;
    check::revoke_surplus(&moving.source, &filled, &hidden).await?;
    drop(filled);
    let _ = std::fs::remove_file(archive_path(&plan.request.work_directory));
    control.say(Event::State(MoveState::SeedingReplicas));
    control.progress.phase("seeding replicas", 0);
    let seeded = seed(plan, target, control).await?;
    Ok((rows, seeded))
}

async fn seed(
    plan: &TablesPlan,
    target: &Server,
    control: &Control,
) -> Result<replicas::Seeded, MoveError> {
    let session = target.connect_any().await?;
    let request = &plan.request;
    let policy = request.replica_policy;
    replicas::seed(target, &session, &request.replicas, policy, control).await
}

/// The names, and what follows them.
async fn finish(
    plan: &TablesPlan,
    target: &Server,
    control: &Control,
    rows: u64,
    seeded: replicas::Seeded,
) -> Result<TablesMoved, MoveError> {
    control.say(Event::State(MoveState::Registering));
    control.progress.phase("registering", 0);
    let registration = TableRegistration::of(plan);
    let record = journal::Record::RegisteringTables {
        registration: Box::new(registration.clone()),
    };
    journal::write(&journal_path(&plan.request.work_directory), &record)?;
    control.say(Event::Step(Step::ReadyToRegister));
    // The last moment.
    if control.progress.is_cancelled() {
        return Err(MoveError::Cancelled);
    }
    let server = target.undisturbed(plan.target_version).replaying();
    let lost = register::register(&server, &registration).await?;
    for lost in &lost {
        control.say(Event::NotTaken(lost.clone()));
    }
    control.say(Event::Step(Step::Registered));
    // The last transaction itself; replicas that were gone on without are not waited for again.
    let replicas = match seeded.behind.is_empty() && !seeded.replayed.is_empty() {
        true => tokio::select! {
            seeded = seed(plan, target, control) => seeded.unwrap_or_default(),
            () = control.progress.cancelled() => seeded,
        },
        false => seeded,
    };
    control.say(Event::State(MoveState::Online));
    Ok(TablesMoved {
        tables: registration.tables,
        not_taken: lost,
        rows,
        replicas,
    })
}

/// The sessions of a move while the hidden schemas are filled.
struct Moving<'a> {
    plan: &'a TablesPlan,
    control: &'a Control,
    hidden: Vec<String>,
    from: Server,
    /// The target, for sessions that fill.
    working: Server,
    /// Holds the snapshot.
    source: Session,
    snapshot: String,
}

impl<'a> Moving<'a> {
    async fn begin(
        plan: &'a TablesPlan,
        target: &Server,
        control: &'a Control,
    ) -> Result<Self, MoveError> {
        control.say(Event::State(MoveState::Moving));
        control.progress.phase("moving", 0);
        let from = Server::new(Side::Source, &plan.request.source);
        let mut working = target.filling(plan.target_version).replaying();
        // By this name a cancelled move's sessions are found and ended.
        let name = plan.operation().hidden_name();
        working.spec = working.spec.with_application_name(&name);
        let source = from.connect(&plan.request.source_database).await?;
        source
            .run("prepare a session", "SET search_path = ''")
            .await?;
        arrange::arrange(&source, plan).await?;
        sessions::prepare(&source, &plan.encoding).await?;
        source.run("begin a snapshot", SNAPSHOT).await?;
        let snapshot = source
            .value("export a snapshot", "SELECT pg_export_snapshot()", &[])
            .await?;
        Ok(Self {
            plan,
            control,
            hidden: plan.hidden(),
            from,
            working,
            source,
            snapshot,
        })
    }

    /// Fills the hidden schemas. Returns how many rows were copied.
    async fn fill(&self) -> Result<u64, MoveError> {
        let plan = self.plan;
        let jobs = plan.request.jobs.max(1);
        let archive = archive_path(&plan.request.work_directory);
        let binaries = &plan.request.binaries;
        let within = Some(self.hidden.as_slice());
        let (from_version, to_version) = (plan.source_version, plan.target_version);
        let ((), (), pieces, sources, targets) = tokio::try_join!(
            self.dump(),
            self.create(),
            tables::list(&self.source, to_version, from_version, within),
            try_join_all((0..jobs).map(|_| self.source_session())),
            try_join_all((0..jobs).map(|_| self.target_session())),
        )?;
        self.control.say(Event::Step(Step::Created));
        let filler = self.target_session().await?;
        let to = self.libpq(&filler)?;
        let more = self.restore_options();
        schema::restore(binaries, &to, &archive, Section::PreData, 1, &more).await?;
        self.control.say(Event::Step(Step::PreData));
        self.make_tables("UNLOGGED", &targets).await?;
        let pieces = tables::cut(pieces, jobs);
        let total = pieces.iter().map(|piece| piece.bytes).sum();
        self.control.progress.phase("moving", total);
        let (rows, ()) = tokio::try_join!(
            sessions::copy(&sources, &targets, pieces, &self.control.progress),
            objects::move_sequences(&self.source, &filler, within)
        )?;
        drop(sources);
        self.make_tables("LOGGED", &targets).await?;
        self.control.say(Event::Step(Step::Rows));
        self.control.progress.phase("building indexes", 0);
        let builders = schema::index_builders(&self.source, jobs).await?;
        schema::restore(binaries, &to, &archive, Section::PostData, builders, &more).await?;
        self.control.progress.phase("gathering statistics", 0);
        let analyzed = objects::analyzed(&filler, within).await?;
        sessions::analyze(&targets, analyzed).await?;
        self.control.say(Event::Step(Step::PostData));
        Ok(rows)
    }

    async fn dump(&self) -> Result<(), MoveError> {
        let request = &self.plan.request;
        let from = self.from.libpq(&self.source, &request.source_database)?;
        let mut more = vec![
            "--no-publications".to_owned(),
            "--no-subscriptions".to_owned(),
        ];
        more.extend(self.schema_options());
        let archive = archive_path(&request.work_directory);
        schema::dump(&request.binaries, &from, &self.snapshot, &archive, &more).await
    }

    /// Makes roles and the hidden schemas.
    async fn create(&self) -> Result<(), MoveError> {
        let plan = self.plan;
        let session = self.target_session().await?;
        create::create_roles(&session, plan.operation(), &plan.new_roles).await?;
        hidden::make_hidden(&session, &self.hidden, plan.operation()).await
    }

    /// The archive makes the schemas as well, and they are there: with these options only what is in them is restored.
    fn restore_options(&self) -> Vec<String> {
        let mut options = self.schema_options();
        options.extend(schema::tablespace_options(self.plan.request.tablespaces));
        options
    }

    fn schema_options(&self) -> Vec<String> {
        let names = self.hidden.iter();
        names.map(|name| format!("--schema={name}")).collect()
    }

    /// Rows of an unlogged table are published to nobody, and a table that is written anew is not published either:
    /// subscribers of all tables do not hear of names that they cannot know.
    async fn make_tables(&self, what: &str, targets: &[Session]) -> Result<(), MoveError> {
        if self.plan.published == Published::No {
            return Ok(());
        }
        let tables = self.plan.placed.iter().filter(|placed| {
            placed.kind == ItemKind::Table && placed.relkind == 'r' && !placed.is_unlogged
        });
        let statements = tables.filter_map(|placed| {
            let schema = self.hidden.get(placed.hidden)?;
            let name = super::name::quoted(schema, &placed.to.table);
            Some(format!("ALTER TABLE {name} SET {what}"))
        });
        let doing = "keep rows from being published";
        sessions::run_all(targets, doing, statements.collect()).await
    }

    /// A session that sees what `pg_dump` sees.
    async fn source_session(&self) -> Result<Session, MoveError> {
        let database = &self.plan.request.source_database;
        let session = self.from.connect(database).await?;
        sessions::prepare(&session, &self.plan.encoding).await?;
        let sql = format!("{SNAPSHOT}; SET TRANSACTION SNAPSHOT '{}'", self.snapshot);
        session.run("take the snapshot over", &sql).await?;
        Ok(session)
    }

    async fn target_session(&self) -> Result<Session, MoveError> {
        let database = &self.plan.request.place.database;
        let session = self.working.connect(database).await?;
        sessions::prepare(&session, &self.plan.encoding).await?;
        Ok(session)
    }

    fn libpq(&self, session: &Session) -> Result<LibpqConnection, MoveError> {
        self.working
            .libpq(session, &self.plan.request.place.database)
    }
}
