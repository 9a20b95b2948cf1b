//! Restores that wait, are cancelled, and outlive the service's end. A standby that does not replay holds them
//! where the test wants them.

use std::process::Stdio;

use anyhow::{Context, Result};
use everpoint_server::{
    catalog::{
        Catalog, CatalogAddress, DatabaseOperation, DatabaseRequest, OperationKind, OperationRow,
        OperationState, RestoreRequest, RestoreSource, Tags,
    },
    config::Config,
    http::Method,
    service::{Service, start},
};
use everpoint_testkit::{
    Cluster, Scratch, Server,
    compare::{assert_same_database, fingerprint_database},
};
use jiff::Timestamp;
use serde_json::Value;

use super::{
    databases::{delete, end_of, moment, operation, put, quick, state},
    live::{add, eventually, instance_path, time},
    support::{Place, Somebody, VERSION, code, json},
};

const SEEDING: &str = "Seeding replicas";
/// Names the configuration that the test binary is to serve when it is run as a process of its own.
const SERVE: &str = "EVERPOINT_TEST_SERVE";

/// An instance with a database, a standby that does not replay, and a service that was here before.
struct Held {
    cluster: Cluster,
    standby: Cluster,
    place: Place,
    scratch: Scratch,
    server: Server,
}

impl Held {
    async fn new() -> Result<Self> {
        let server = Server::find(18)?;
        let cluster = Cluster::builder(server.major()).start().await?;
        cluster.sql("postgres", "CREATE DATABASE app").await?;
        cluster
            .sql(
                "app",
                "CREATE TABLE t AS SELECT generate_series(1, 5000) AS a",
            )
            .await?;
        let standby = cluster.make_standby().await?;
        let place = Place::new().await?;
        add(&place, &cluster, "one").await?;
        Ok(Self {
            cluster,
            standby,
            place,
            scratch: Scratch::new()?,
            server,
        })
    }

    fn config(&self) -> String {
        quick(&self.scratch, &self.server, "at_once = 1")
    }

    async fn hold(&self) -> Result<()> {
        self.standby
            .sql("postgres", "SELECT pg_wal_replay_pause()")
            .await?;
        let paused = "SELECT pg_get_wal_replay_pause_state() = 'paused'";
        self.standby.wait_until_true(paused, "the pause").await
    }

    async fn let_go(&self) -> Result<()> {
        self.standby
            .sql("postgres", "SELECT pg_wal_replay_resume()")
            .await
    }

    async fn app(&self) -> Result<u32> {
        let sql = "SELECT oid FROM pg_database WHERE datname = 'app'";
        Ok(self.cluster.value("postgres", sql).await?.parse()?)
    }

    /// Databases that are being filled, or were and should not be there any more.
    async fn hidden(&self) -> Result<String> {
        let sql = "SELECT count(*) FROM pg_database WHERE datname LIKE 'everpoint\\_restoring%'";
        self.cluster.value("postgres", sql).await
    }
}

async fn owner(service: &Service) -> Result<Somebody<'_>> {
    let owner = Somebody::new(service).await?;
    owner.with("Owner", &service.group_scope()).await?;
    Ok(owner)
}

/// A moment of `app` that can be restored.
async fn window(owner: &Somebody<'_>, held: &Held, app: &str) -> Result<String> {
    eventually(owner, app, "a window", |answer| {
        time(&answer["properties"]["earliestRestorePoint"])
    })
    .await?;
    moment(owner, &held.cluster, app).await
}

fn is_seeding(answer: &Value) -> Option<()> {
    (answer["properties"]["progress"]["phase"] == SEEDING).then_some(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restores_wait_for_their_turn_are_cancelled_and_go_on_after_a_restart() -> Result<()> {
    let held = Held::new().await?;
    let running = held.place.start(&held.config()).await?;
    let service = running.service();
    let who = owner(service).await?;
    let instance = instance_path(service);
    let database = |name: &str| format!("{instance}/databases/{name}");
    let point = window(&who, &held, &database("app")).await?;
    let expected = fingerprint_database(&held.cluster.connect("app").await?).await?;
    held.hold().await?;
    let body = format!(
        "{{\"properties\":{{\"createMode\":\"PointInTimeRestore\",\"sourceDatabaseId\":\"{}\",\"restorePointInTime\":\"{point}\"}}}}",
        database("app")
    );
    let mut asked = Vec::new();
    for name in ["first", "second", "third"] {
        let answer = put(&who, &database(name), &body).await;
        assert_eq!(answer.status, 202, "{}", json(&answer));
        asked.push(operation(&answer, &instance)?);
    }
    let [first, second, third] = asked.as_slice() else {
        anyhow::bail!("three operations");
    };

    // One runs, the others wait, and all are shown.
    eventually(
        &who,
        first,
        "a restore that waits for the standby",
        is_seeding,
    )
    .await?;
    for waiting in [second, third] {
        assert_eq!(state(&who.get(waiting).await.1), "Pending");
    }
    let (_, all) = who.get(&format!("{instance}/databases")).await;
    let restoring = all["value"].as_array().context("a list")?.iter();
    let restoring = restoring.filter(|found| found["properties"]["status"] == "Restoring");
    assert_eq!(restoring.count(), 3, "{all}");
    assert!(
        held.cluster.connect("first").await.is_err(),
        "nobody gets in before it is online"
    );
    let (_, details) = who
        .get(&format!("{}/restoreDetails/Default", database("first")))
        .await;
    assert_eq!(details["properties"]["status"], SEEDING, "{details}");
    assert_eq!(
        details["properties"]["fullBackupSets"][0]["status"], "Restored",
        "{details}"
    );
    let (_, details) = who
        .get(&format!("{}/restoreDetails/Default", database("second")))
        .await;
    assert_eq!(details["properties"]["status"], "Queued", "{details}");
    let again = put(&who, &database("first"), &body).await;
    assert_eq!(
        (again.status, code(&json(&again))),
        (409, "ConflictingDatabaseOperation")
    );

    // Cancelled while it waits.
    let cancel = format!("{third}/cancel");
    assert_eq!(
        who.ask(Method::Post, &cancel, VERSION, "").await.status,
        200
    );
    let ended = end_of(&who, third).await?;
    assert_eq!(state(&ended), "Cancelled");
    assert_eq!(ended["properties"]["errorCode"], "OperationCancelled");
    let again = who.ask(Method::Post, &cancel, VERSION, "").await;
    assert_eq!(code(&json(&again)), "CannotCancelOperation");

    // Cancelled by deleting what it makes.
    let answer = delete(&who, &database("first")).await;
    assert_eq!(answer.status, 202);
    let ended = end_of(&who, &operation(&answer, &instance)?).await?;
    assert_eq!(state(&ended), "Succeeded", "{ended}");
    assert_eq!(state(&who.get(first).await.1), "Cancelled");
    assert_eq!(who.get(&database("first")).await.0, 404);

    // The service ends in the middle of the next one, which begins anew when it starts.
    eventually(&who, second, "the next restore", is_seeding).await?;
    assert_eq!(
        held.hidden().await?,
        "1",
        "what the cancelled one made is gone"
    );
    running.stop().await;
    assert_eq!(held.hidden().await?, "0");
    let running = held.place.start(&held.config()).await?;
    let who = owner(running.service()).await?;
    held.let_go().await?;
    let ended = eventually(&who, second, "the end", |answer| {
        (state(answer) == "Succeeded").then(|| answer.clone())
    })
    .await?;
    assert_eq!(ended["properties"]["percentComplete"], 100);
    let found = fingerprint_database(&held.cluster.connect("second").await?).await?;
    assert_same_database(&expected, &found);
    running.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_whose_service_was_killed_is_undone_and_begun_anew() -> Result<()> {
    let held = Held::new().await?;
    let running = held.place.start(&held.config()).await?;
    let (path, point) = {
        let service = running.service();
        let path = format!("{}/databases/app", instance_path(service));
        let point = window(&owner(service).await?, &held, &path).await?;
        (instance_path(service), point)
    };
    running.stop().await;
    held.hold().await?;
    let file = held.place.path().join("state/catalog.db");
    let catalog = Catalog::open(&CatalogAddress::File(file)).await?;
    let id = queue(&catalog, held.app().await?, &point).await?;
    let mut child = serve(&held.place, &held.place.text("state", "", &held.config()))?;
    until_seeding(&catalog, id).await?;
    child.kill().await?;
    drop(catalog);
    assert_eq!(held.hidden().await?, "1", "it was killed in the middle");

    held.let_go().await?;
    let running = held.place.start(&held.config()).await?;
    let who = owner(running.service()).await?;
    let operation = format!("{path}/operations/{id}");
    succeeds_after_all(&held, &who, &operation, "begins anew").await?;
    running.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_whose_server_was_killed_is_begun_anew_by_another_server() -> Result<()> {
    let held = Held::new().await?;
    let sql = "CREATE DATABASE catalog";
    held.cluster.sql("postgres", sql).await?;
    let address = held.cluster.url("catalog");
    let shared = format!("catalog = \"{address}\"\n");
    let first = held
        .place
        .start_as("first", &shared, &held.config())
        .await?;
    let path = instance_path(first.service());
    let point = window(
        &owner(first.service()).await?,
        &held,
        &format!("{path}/databases/app"),
    )
    .await?;
    first.stop().await;
    held.hold().await?;
    let catalog = Catalog::open(&CatalogAddress::postgres(&address)?).await?;
    let id = queue(&catalog, held.app().await?, &point).await?;
    let text = held.place.text("first", &shared, &held.config());
    let mut child = serve(&held.place, &text)?;
    until_seeding(&catalog, id).await?;

    // On a machine of its own, as far as scratch servers go.
    let scratch = Scratch::new()?;
    let elsewhere = quick(&scratch, &held.server, "at_once = 1");
    let second = held.place.start_as("second", &shared, &elsewhere).await?;
    child.kill().await?;
    assert_eq!(held.hidden().await?, "1", "it was killed in the middle");
    held.let_go().await?;
    let who = owner(second.service()).await?;
    let operation = format!("{path}/operations/{id}");
    succeeds_after_all(&held, &who, &operation, "another one begins it anew").await?;
    // The one that was killed comes back, and finds that it has nothing to do any more.
    let first = held
        .place
        .start_as("first", &shared, &held.config())
        .await?;
    let left = || std::fs::read_dir(held.scratch.path().join("scratch")).map(Iterator::count);
    let begun = tokio::time::Instant::now();
    while left().unwrap_or_default() > 1 {
        assert!(
            begun.elapsed().as_secs() < 60,
            "its scratch directory is left"
        );
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(state(&who.get(&operation).await.1), "Succeeded");
    first.stop().await;
    second.stop().await;
    Ok(())
}

/// Its database has its name, and nobody has written that down.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_whose_server_was_killed_when_it_was_online_is_told_as_succeeded_by_another()
-> Result<()> {
    let held = Held::new().await?;
    held.cluster
        .sql("postgres", "CREATE DATABASE catalog")
        .await?;
    let address = held.cluster.url("catalog");
    let shared = format!("catalog = \"{address}\"\n");
    let first = held
        .place
        .start_as("first", &shared, &held.config())
        .await?;
    let path = instance_path(first.service());
    let app = format!("{path}/databases/app");
    let point = window(&owner(first.service()).await?, &held, &app).await?;
    first.stop().await;
    held.hold().await?;
    let catalog = Catalog::open(&CatalogAddress::postgres(&address)?).await?;
    let id = queue(&catalog, held.app().await?, &point).await?;
    let text = held.place.text("first", &shared, &held.config());
    let mut child = serve(&held.place, &text)?;
    until_seeding(&catalog, id).await?;
    // Nothing gets another name while this is held.
    let holder = held.cluster.connect("postgres").await?;
    holder
        .batch_execute("BEGIN; LOCK TABLE pg_database IN SHARE MODE")
        .await?;
    held.let_go().await?;
    let waits = "SELECT EXISTS (SELECT FROM pg_locks WHERE relation = 'pg_database'::regclass AND NOT granted)";
    held.cluster
        .wait_until_true(waits, "the registration")
        .await?;
    held.hold().await?;
    holder.batch_execute("ROLLBACK").await?;
    let named = "SELECT EXISTS (SELECT FROM pg_database WHERE datname = 'killed')";
    held.cluster.wait_until_true(named, "the name").await?;
    child.kill().await?;
    let (row, _) = catalog.operation(id).await?.context("the operation")?;
    assert_eq!(row.state, OperationState::InProgress);

    let scratch = Scratch::new()?;
    let elsewhere = quick(&scratch, &held.server, "at_once = 1");
    let second = held.place.start_as("second", &shared, &elsewhere).await?;
    let who = owner(second.service()).await?;
    let operation = format!("{path}/operations/{id}");
    succeeds_after_all(
        &held,
        &who,
        &operation,
        "an earlier attempt had restored it",
    )
    .await?;
    second.stop().await;
    Ok(())
}

/// A restore that was killed comes to its end, says what happened to it, and leaves nothing.
async fn succeeds_after_all(
    held: &Held,
    who: &Somebody<'_>,
    operation: &str,
    told: &str,
) -> Result<()> {
    let ended = eventually(who, operation, "the end", |answer| {
        (state(answer) == "Succeeded").then(|| answer.clone())
    })
    .await?;
    let events = ended["properties"]["events"].to_string();
    assert!(events.contains(told), "{events}");
    assert_eq!(held.hidden().await?, "0");
    let rows = held
        .cluster
        .value("killed", "SELECT count(*) FROM t")
        .await?;
    assert_eq!(rows, "5000");
    let database = operation.split("/operations/").next().context("a path")?;
    let (status, answer) = who.get(&format!("{database}/databases/killed")).await;
    assert_eq!((status, &answer["tags"]["env"]), (200, &"test".into()));
    Ok(())
}

/// A service in a process of its own, that can be killed.
fn serve(place: &Place, config: &str) -> Result<tokio::process::Child> {
    let path = place.path().join("served.toml");
    std::fs::write(&path, config)?;
    Ok(tokio::process::Command::new(std::env::current_exe()?)
        .args([
            "--exact",
            "restarts::serves_until_it_is_killed",
            "--nocapture",
        ])
        .env(SERVE, &path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()?)
}

async fn until_seeding(catalog: &Catalog, id: uuid::Uuid) -> Result<()> {
    let begun = tokio::time::Instant::now();
    loop {
        let (row, _) = catalog.operation(id).await?.context("the operation")?;
        if row.phase == SEEDING {
            return Ok(());
        }
        assert!(begun.elapsed().as_secs() < 180, "{row:?}");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

/// Puts a restore into the queue of a service that does not run.
async fn queue(catalog: &Catalog, oid: u32, point: &str) -> Result<uuid::Uuid> {
    let operation = DatabaseOperation {
        row: OperationRow {
            id: uuid::Uuid::new_v4(),
            kind: OperationKind::Restore,
            instance: "one".to_owned(),
            actor: "somebody".to_owned(),
            state: OperationState::Pending,
            phase: "queued".to_owned(),
            total_bytes: 0,
            done_bytes: 0,
            stored_bytes: 0,
            started_at: Timestamp::now(),
            ended_at: None,
            error: None,
        },
        name: "killed".to_owned(),
        request: DatabaseRequest::Restore(RestoreRequest {
            instance: "one".parse()?,
            source: RestoreSource::Living {
                oid: Some(oid),
                name: "app".to_owned(),
            },
            point: Some(point.parse()?),
        }),
        tags: Tags::new([("env".to_owned(), "test".to_owned())].into())?,
        attempts: 0,
        server: String::new(),
        made: None,
        holds: true,
    };
    assert!(catalog.queue_database_operation(&operation).await?);
    let mut other = operation.clone();
    other.row.id = uuid::Uuid::new_v4();
    assert!(
        !catalog.queue_database_operation(&other).await?,
        "one of a name at a time"
    );
    Ok(operation.row.id)
}

/// Run by the test above as a process of its own; by itself it does nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serves_until_it_is_killed() -> Result<()> {
    let Some(path) = std::env::var_os(SERVE) else {
        return Ok(());
    };
    let running = start(Config::read(path.as_ref())?).await?;
    std::future::pending::<()>().await;
    running.stop().await;
    Ok(())
}
