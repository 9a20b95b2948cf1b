//! Moves a database between two running servers, and says what happens and when. For measurements.
//!
//! `move_database SOURCE DATABASE TARGET NEW_NAME WORK_DIRECTORY JOBS [BIN_DIRECTORY [METHOD]]`
//!
//! METHOD is `copy` or `files`; with `files` the source is stopped, and of no use afterwards.

use std::{path::PathBuf, time::Instant};

use everpoint_engine::{
    progress::Progress,
    transplant::{
        Control, Existing, Method, MissingRoles, MoveRequest, OpenSessions, TablespaceUse, execute,
        name::OperationId, plan, replicas::ReplicaPolicy,
    },
};
use everpoint_instance::{ConnectionSpec, PgBinaries, ServerFacts, connect_sql};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [source, database, target, new_name, work, jobs, bin @ ..] = &arguments[..] else {
        anyhow::bail!(
            "move_database SOURCE DATABASE TARGET NEW_NAME WORK_DIRECTORY JOBS [BIN_DIRECTORY [METHOD]]"
        );
    };
    let target: ConnectionSpec = target.parse()?;
    let session = connect_sql(&target, target.database()).await?;
    let version = ServerFacts::read(&session).await?.major;
    let request = MoveRequest {
        operation: OperationId::new(),
        source: source.parse()?,
        source_database: database.clone(),
        target,
        new_name: new_name.parse()?,
        existing: Existing::Refuse,
        sessions: OpenSessions::Refuse,
        missing_roles: MissingRoles::Refuse,
        tablespaces: TablespaceUse::AsItWas,
        method: match bin.get(1).map(String::as_str) {
            None | Some("copy") => Method::Copy,
            Some("files") => Method::Files,
            Some(other) => anyhow::bail!("there is no method `{other}`"),
        },
        replicas: Vec::new(),
        replica_policy: ReplicaPolicy::Wait,
        binaries: PgBinaries::find(bin.first().map(PathBuf::from).as_deref(), version).await?,
        jobs: jobs.parse()?,
        work_directory: work.into(),
    };
    let begun = Instant::now();
    let plan = plan(request).await?;
    eprint!("{plan}");
    let control = Control::new(Progress::default(), move |event| {
        eprintln!("{:7.3} s  {event:?}", begun.elapsed().as_secs_f64());
    });
    let moved = execute(&plan, &control).await?;
    eprintln!(
        "{:7.3} s  {} rows moved",
        begun.elapsed().as_secs_f64(),
        moved.rows
    );
    Ok(())
}
