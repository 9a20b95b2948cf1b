//! Databases are told by their numbers, whatever their names were, and their points begin with them.

use anyhow::{Context, Result};
use everpoint_engine::transplant::name::OperationId;
use everpoint_server::{
    catalog::{
        Catalog, CatalogAddress, DatabaseOperation, DatabaseRequest, OperationKind, OperationRow,
        OperationState, Tags,
    },
    service::Service,
};
use everpoint_testkit::{
    Cluster, Scratch, Server,
    compare::{assert_same_database, fingerprint_database},
};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{
    databases::{delete, end_of, moment, operation, put, quick, state},
    live::{add, eventually, instance_path, time},
    support::{Place, Somebody, code, json as body_of},
};

async fn owner(service: &Service) -> Result<Somebody<'_>> {
    let owner = Somebody::new(service).await?;
    owner.with("Owner", &service.group_scope()).await?;
    Ok(owner)
}

fn restore_of(source: &str, point: &str) -> String {
    json!({"properties": {
        "createMode": "PointInTimeRestore",
        "sourceDatabaseId": source,
        "restorePointInTime": point,
    }})
    .to_string()
}

/// Restores and waits until that has succeeded.
async fn succeed(who: &Somebody<'_>, instance: &str, name: &str, wish: &str) -> Result<Value> {
    let answer = put(who, &format!("{instance}/databases/{name}"), wish).await;
    let ended = end_of(who, &operation(&answer, instance)?).await?;
    assert_eq!(state(&ended), "Succeeded", "{ended}");
    Ok(ended)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn points_begin_with_the_databases_creation_and_follow_it_under_other_names() -> Result<()> {
    let server = Server::find(18)?;
    let builder = Cluster::builder(server.major());
    let cluster = builder
        .setting("track_commit_timestamp = on")
        .tablespace("elsewhere")
        .start()
        .await?;
    cluster.sql("postgres", "CREATE DATABASE app").await?;
    let filled = "CREATE TABLE t AS SELECT generate_series(1, 500) AS a";
    cluster.sql("app", filled).await?;
    let (place, scratch) = (Place::new().await?, Scratch::new()?);
    add(&place, &cluster, "one").await?;
    let running = place.start(&quick(&scratch, &server, "")).await?;
    let service = running.service();
    let who = owner(service).await?;
    let instance = instance_path(service);
    let database = |name: &str| format!("{instance}/databases/{name}");
    let earliest = |answer: &Value| time(&answer["properties"]["earliestRestorePoint"]);
    eventually(&who, &database("app"), "a window", earliest).await?;
    let before = moment(&who, &cluster, &database("app")).await?;

    // In the moment of its commit, not of its first file, nor of its being noticed.
    for (name, how) in [("late", ""), ("placed", "TABLESPACE elsewhere")] {
        let sql = format!("CREATE DATABASE {name} {how}");
        cluster.sql("postgres", &sql).await?;
        let committed = format!(
            "SELECT to_char(pg_xact_commit_timestamp(xmin) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') FROM pg_database WHERE datname = '{name}'"
        );
        let committed: Timestamp = cluster.value("postgres", &committed).await?.parse()?;
        let found = eventually(&who, &database(name), "its exact beginning", |answer| {
            let found = earliest(answer)?;
            let late = found.duration_since(committed);
            // Written in milliseconds, and never too early.
            (late < SignedDuration::from_millis(1)).then_some(found)
        })
        .await?;
        assert!(found >= committed, "{name}: {found} {committed}");
        let wish = restore_of(&database(name), &found.to_string());
        succeed(&who, &instance, &format!("{name}_first"), &wish).await?;
        let early = (committed - SignedDuration::from_millis(2)).to_string();
        let refused = put(
            &who,
            &database("never"),
            &restore_of(&database(name), &early),
        )
        .await;
        assert_eq!(code(&body_of(&refused)), "PitrPointInTimeInvalid");
    }

    // Two change their names. As of before, each is what it was, not what its name was.
    cluster
        .sql("late", "CREATE TABLE l AS SELECT 7 AS a")
        .await?;
    let old = fingerprint_database(&cluster.connect("app").await?).await?;
    let new = fingerprint_database(&cluster.connect("late").await?).await?;
    let point = moment(&who, &cluster, &database("late")).await?;
    for sql in [
        "ALTER DATABASE app RENAME TO app_old",
        "ALTER DATABASE late RENAME TO app",
    ] {
        cluster.sql("postgres", sql).await?;
    }
    eventually(&who, &database("app_old"), "its new name", earliest).await?;
    moment(&who, &cluster, &database("app")).await?;
    for (name, copy, expected) in [("app", "new_back", &new), ("app_old", "old_back", &old)] {
        succeed(&who, &instance, copy, &restore_of(&database(name), &point)).await?;
        let found = fingerprint_database(&cluster.connect(copy).await?).await?;
        assert_same_database(expected, &found);
    }
    // The other one had the name by then; this one was not there.
    let refused = put(
        &who,
        &database("never"),
        &restore_of(&database("app"), &before),
    )
    .await;
    assert_eq!(code(&body_of(&refused)), "PitrPointInTimeInvalid");

    // One that was restored has points from its name on, and one that was not has no details of a restore.
    let details = |name: &str| format!("{}/restoreDetails/Default", database(name));
    assert_eq!(who.get(&details("new_back")).await.0, 200);
    let first = eventually(&who, &database("new_back"), "its points", earliest).await?;
    let again = moment(&who, &cluster, &database("new_back")).await?;
    assert!(again.parse::<Timestamp>()? > first);
    let wish = restore_of(&database("new_back"), &again);
    succeed(&who, &instance, "twice", &wish).await?;
    let found = fingerprint_database(&cluster.connect("twice").await?).await?;
    assert_same_database(&new, &found);
    let answer = delete(&who, &database("twice")).await;
    end_of(&who, &operation(&answer, &instance)?).await?;
    succeed(&who, &instance, "twice", "{}").await?;
    assert_eq!(who.get(&details("twice")).await.0, 404);
    running.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_somebody_else_made_under_the_name_is_neither_deleted_nor_taken_for_made() -> Result<()>
{
    let server = Server::find(15)?;
    let cluster = Cluster::builder(server.major()).start().await?;
    cluster.sql("postgres", "CREATE DATABASE mine").await?;
    let (place, scratch) = (Place::new().await?, Scratch::new()?);
    add(&place, &cluster, "one").await?;
    // A server that is gone had begun two creations. One had come so far.
    let file = place.path().join("state/catalog.db");
    std::fs::create_dir_all(file.parent().context("a directory")?)?;
    let catalog = Catalog::open(&CatalogAddress::File(file)).await?;
    let (theirs, ours) = (
        begun(&catalog, "mine").await?,
        begun(&catalog, "ours").await?,
    );
    let number = OperationId::from(ours).hidden_number();
    let (row, mut attempt) = (ours, catalog.database_operation(ours).await?.context("it")?);
    attempt.server = "gone".to_owned();
    assert!(catalog.set_made(&attempt, number).await?, "{row}");
    let sql = format!("CREATE DATABASE ours OID {number}");
    cluster.sql("postgres", &sql).await?;
    drop(catalog);
    let running = place.start(&quick(&scratch, &server, "")).await?;
    let service = running.service();
    let who = owner(service).await?;
    let instance = instance_path(service);
    let ended = end_of(&who, &format!("{instance}/operations/{ours}")).await?;
    assert_eq!(state(&ended), "Succeeded", "{ended}");
    let ended = end_of(&who, &format!("{instance}/operations/{theirs}")).await?;
    assert_eq!(ended["properties"]["errorCode"], "ManagedDatabaseNameInUse");

    // A database that was to be deleted while it was made, which it never was.
    let request = DatabaseRequest::Delete {
        instead_of: Some(theirs),
        oid: None,
    };
    let name = "one".parse()?;
    let asked = service.enqueue(who.id, &name, "mine", request, Tags::default());
    let asked = asked.await.map_err(|error| anyhow::anyhow!("{error:?}"))?;
    let ended = end_of(&who, &format!("{instance}/operations/{}", asked.id)).await?;
    assert_eq!(state(&ended), "Succeeded", "{ended}");
    assert_eq!(cluster.value("mine", "SELECT 1").await?, "1");
    running.stop().await;
    Ok(())
}

/// A creation that a server has begun which is gone.
async fn begun(catalog: &Catalog, name: &str) -> Result<uuid::Uuid> {
    let operation = DatabaseOperation {
        row: OperationRow {
            id: uuid::Uuid::new_v4(),
            kind: OperationKind::Create,
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
        name: name.to_owned(),
        request: DatabaseRequest::Create { collation: None },
        tags: Tags::default(),
        attempts: 0,
        server: String::new(),
        made: None,
        holds: true,
    };
    assert!(catalog.queue_database_operation(&operation).await?);
    let id = operation.row.id;
    catalog.claim_database_operation(id, "gone").await?;
    Ok(id)
}
