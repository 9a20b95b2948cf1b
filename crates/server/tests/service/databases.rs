//! Databases that are made, restored and deleted through the service.

use std::time::Duration;

use anyhow::{Context, Result};
use everpoint_server::{
    audit::AuditFile,
    catalog::{DatabaseRequest, Tags},
    http::{Answer, Method},
    service::Service,
};
use everpoint_testkit::{
    Cluster, Scratch, Server,
    compare::{assert_same_database, fingerprint_database},
    mixed_data,
};
use jiff::Timestamp;
use serde_json::Value;
use tokio::time::sleep;

use super::{
    live::{add, add_with_least_rights, drive_with_azures_sdk, eventually, instance_path, time},
    support::{Place, Somebody, VERSION, code, json},
};

/// The configuration of a service that restores into servers of these tests.
pub fn quick(scratch: &Scratch, server: &Server, more: &str) -> String {
    let (here, bin) = (scratch.path().display(), server.bin().display());
    let mut instances = String::new();
    for name in ["one", "two"] {
        instances += &format!("[instances.{name}]\nbin_directory = \"{bin}\"\n");
        let admin = scratch.path().join(format!("{name}.admin"));
        if admin.exists() {
            let admin = admin.display();
            instances += &format!("admin_connection_file = \"{admin}\"\n");
        }
    }
    format!(
        "[backups]\nlog_every = \"1s\"\njobs = 1\ngrace = \"0s\"\n\
         [restores]\nscratch = \"{here}/scratch\"\njobs = 1\n{more}\n{instances}"
    )
}

/// An answer's operation, in the instance's list.
pub fn operation(answer: &Answer, instance: &str) -> Result<String> {
    let header = answer
        .headers
        .iter()
        .find(|(name, _)| *name == "azure-asyncoperation")
        .with_context(|| format!("an operation in {} {}", answer.status, json(answer)))?;
    let id = header.1.rsplit('/').next().context("a name")?;
    let id = id.split('?').next().context("a name")?;
    Ok(format!("{instance}/operations/{id}"))
}

pub async fn put(who: &Somebody<'_>, path: &str, body: &str) -> Answer {
    who.ask(Method::Put, path, VERSION, body).await
}

pub async fn delete(who: &Somebody<'_>, path: &str) -> Answer {
    who.ask(Method::Delete, path, VERSION, "").await
}

/// The state of an operation.
pub fn state(answer: &Value) -> &str {
    answer["properties"]["state"].as_str().unwrap_or_default()
}

/// Waits until an operation has ended.
pub async fn end_of(who: &Somebody<'_>, operation: &str) -> Result<Value> {
    eventually(who, operation, "the end of an operation", |answer| {
        answer["properties"].get("state")?;
        let over = ["Succeeded", "Failed", "Cancelled"].contains(&state(answer));
        over.then(|| answer.clone())
    })
    .await
}

/// Waits until an instance's log is stored up to now. Returns a moment that can be restored.
pub async fn moment(who: &Somebody<'_>, cluster: &Cluster, database: &str) -> Result<String> {
    let moment = cluster.moment().await?.time;
    sleep(Duration::from_millis(20)).await;
    // Something has to follow, for the log to be known up to there.
    cluster
        .sql("postgres", "SELECT pg_current_xact_id()")
        .await?;
    eventually(who, database, "a later latest point", |answer| {
        let latest = time(&answer["properties"]["latestRestorePoint"])?;
        (latest > moment).then_some(())
    })
    .await?;
    Ok(format!("{moment:.6}"))
}

async fn are_made_restored_and_deleted(server: Server) -> Result<()> {
    let one = Cluster::builder(server.major()).start().await?;
    let two = Cluster::builder(server.major()).start().await?;
    one.sql("postgres", "CREATE DATABASE app").await?;
    mixed_data(&one.connect("app").await?, 2_000_000.into()).await?;
    let (place, scratch) = (Place::new().await?, Scratch::new()?);
    add(&place, &one, "one").await?;
    add(&place, &two, "two").await?;
    // Where nothing else is said, databases are made as the role that the instance was added with.
    two.sql("postgres", "CREATE ROLE other SUPERUSER LOGIN")
        .await?;
    let superuser = two
        .connection_string("postgres")
        .replace("user=postgres", "user=other");
    std::fs::write(scratch.path().join("two.admin"), superuser)?;
    let running = place.start(&quick(&scratch, &server, "")).await?;
    let service = running.service();
    let owner = Somebody::new(service).await?;
    owner.with("Owner", &service.group_scope()).await?;
    let instance = instance_path(service);
    let app = format!("{instance}/databases/app");
    eventually(&owner, &app, "a window", |answer| {
        time(&answer["properties"]["earliestRestorePoint"])
    })
    .await?;
    let expected = fingerprint_database(&one.connect("app").await?).await?;
    let point = moment(&owner, &one, &app).await?;
    one.sql(
        "app",
        "CREATE TABLE later AS SELECT generate_series(1, 300) AS a",
    )
    .await?;
    let last = fingerprint_database(&one.connect("app").await?).await?;
    let session = one.connect("app").await?;

    if server.major() == 18 {
        let script = "azure_sdk_databases.py";
        drive_with_azures_sdk(&place, service, script, &[("POINT", &point)]).await?;
    } else {
        drive_by_hand(service, &owner, &instance, &point).await?;
    }
    assert!(
        session.batch_execute("SELECT 1").await.is_err(),
        "its session was ended"
    );
    for (cluster, name, expected) in [
        (&one, "app_back", &expected),
        (&two, "app_elsewhere", &expected),
        (&one, "app_undeleted", &last),
        (&one, "app_before", &expected),
    ] {
        let found = fingerprint_database(&cluster.connect(name).await?).await?;
        assert_same_database(expected, &found);
    }
    let owner_of = "SELECT datdba::regrole::text FROM pg_database WHERE datname = 'elsewhere'";
    let answer = put(
        &owner,
        &format!("{}/databases/elsewhere", two_path(service)?),
        "{}",
    )
    .await;
    let ended = end_of(&owner, &operation(&answer, &two_path(service)?)?).await?;
    assert_eq!(state(&ended), "Succeeded", "{ended}");
    assert_eq!(two.value("postgres", owner_of).await?, "other");
    // By the time it has its turn, another database may have the name.
    let other = DatabaseRequest::Delete {
        instead_of: None,
        oid: Some(1),
    };
    let name = "one".parse()?;
    let asked = service.enqueue(owner.id, &name, "app_back", other, Tags::default());
    let asked = asked.await.map_err(|error| anyhow::anyhow!("{error:?}"))?;
    let ended = end_of(&owner, &format!("{instance}/operations/{}", asked.id)).await?;
    assert!(
        ended.to_string().contains("another database has its name"),
        "{ended}"
    );
    assert_eq!(one.value("app_back", "SELECT 1").await?, "1");
    assert!(
        std::fs::read_dir(scratch.path().join("scratch"))?
            .flatten()
            .all(|found| !found.path().is_dir())
    );
    running.stop().await;
    let log = std::fs::read_to_string(place.path().join("state/audit.jsonl"))?;
    AuditFile::check(&place.path().join("state/audit.jsonl"), None)?;
    for told in [
        "DropManagedDatabase",
        "ends session",
        "readBackups/action",
        "begun",
    ] {
        assert!(log.contains(told), "{told}");
    }
    Ok(())
}

fn two_path(service: &Service) -> Result<String> {
    Ok(service.instance_scope(&"two".parse()?).to_string())
}

/// The same as the SDK does, on servers that need not see it twice.
async fn drive_by_hand(
    service: &Service,
    owner: &Somebody<'_>,
    instance: &str,
    point: &str,
) -> Result<()> {
    let database = |name: &str| format!("{instance}/databases/{name}");
    let two = service.instance_scope(&"two".parse()?);
    let wish = |key: &str, id: &str, point: &str| {
        format!(
            "{{\"properties\":{{\"createMode\":\"PointInTimeRestore\",\"{key}\":\"{id}\"{point}}}}}"
        )
    };
    let at = format!(",\"restorePointInTime\":\"{point}\"");
    let living = wish("sourceDatabaseId", &database("app"), &at);
    for path in [
        database("app_back"),
        format!("{two}/databases/app_elsewhere"),
    ] {
        let answer = put(owner, &path, &living).await;
        let home = path.split("/databases/").next().context("an instance")?;
        let ended = end_of(owner, &operation(&answer, home)?).await?;
        assert_eq!(state(&ended), "Succeeded", "{ended}");
        assert_eq!(owner.get(&path).await.1["properties"]["status"], "Online");
    }
    let answer = delete(owner, &database("app")).await;
    assert_eq!(
        state(&end_of(owner, &operation(&answer, instance)?).await?),
        "Succeeded"
    );
    let (_, dropped) = owner
        .get(&format!("{instance}/restorableDroppedDatabases"))
        .await;
    let id = dropped["value"][0]["id"]
        .as_str()
        .context("the deleted one")?;
    for (name, at) in [("app_undeleted", ""), ("app_before", at.as_str())] {
        let wish = wish("restorableDroppedDatabaseId", id, at);
        let answer = put(owner, &database(name), &wish).await;
        let ended = end_of(owner, &operation(&answer, instance)?).await?;
        assert_eq!(state(&ended), "Succeeded", "{ended}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn databases_of_15_are_made_restored_and_deleted() -> Result<()> {
    are_made_restored_and_deleted(Server::find(15)?).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn databases_of_18_are_made_restored_and_deleted_by_azures_sdk() -> Result<()> {
    are_made_restored_and_deleted(Server::find(18)?).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_needs_the_right_on_its_source_and_who_asked_may_follow_it() -> Result<()> {
    let server = Server::find(18)?;
    let one = Cluster::builder(server.major()).start().await?;
    one.sql("postgres", "CREATE DATABASE app").await?;
    let (place, scratch) = (Place::new().await?, Scratch::new()?);
    add(&place, &one, "one").await?;
    let running = place.start(&quick(&scratch, &server, "")).await?;
    let service = running.service();
    let owner = Somebody::new(service).await?;
    owner.with("Owner", &service.group_scope()).await?;
    let instance = instance_path(service);
    let database = |name: &str| format!("{instance}/databases/{name}");
    eventually(&owner, &database("app"), "a window", |answer| {
        time(&answer["properties"]["earliestRestorePoint"])
    })
    .await?;
    one.sql("postgres", "CREATE DATABASE \"twin\"").await?;
    let made = owner
        .ask(Method::Put, &database("a%2Fb"), VERSION, "{}")
        .await;
    assert_eq!(code(&json(&made)), "InvalidParameterValue");
    eventually(&owner, &database("TWIN"), "another database", |answer| {
        (answer["name"] == "twin").then_some(())
    })
    .await?;
    // Which of two is meant is not guessed.
    one.sql("postgres", "CREATE DATABASE \"Twin\"").await?;
    eventually(&owner, &database("Twin"), "its twin", |answer| {
        (answer["name"] == "Twin").then_some(())
    })
    .await?;
    assert_eq!(owner.get(&database("TWIN")).await.0, 404);
    assert_eq!(delete(&owner, &database("TWIN")).await.status, 204);
    assert_eq!(
        one.value(
            "postgres",
            "SELECT count(*) FROM pg_database WHERE datname ILIKE 'twin'"
        )
        .await?,
        "2"
    );
    let point = moment(&owner, &one, &database("app")).await?;
    let body = format!(
        "{{\"properties\":{{\"createMode\":\"PointInTimeRestore\",\"sourceDatabaseId\":\"{}\",\"restorePointInTime\":\"{point}\"}}}}",
        database("app")
    );
    // Whoever may write the target alone does not get at the source.
    let scope = service.instance_scope(&"one".parse()?);
    let guest = Somebody::new(service).await?;
    guest.with("Contributor", &scope.below("copy")).await?;
    let refused = put(&guest, &database("copy"), &body).await;
    assert_eq!(code(&json(&refused)), "AuthorizationFailed");
    let text = json(&refused)["error"]["message"].to_string();
    assert!(text.contains("readBackups/action"), "{text}");
    assert!(text.contains("databases/app"), "{text}");
    guest.with("Contributor", &scope.below("app")).await?;
    let answer = put(&guest, &database("copy"), &body).await;
    assert_eq!(answer.status, 202, "{}", json(&answer));
    for name in ["azure-asyncoperation", "location", "retry-after"] {
        assert!(
            answer.headers.iter().any(|(found, _)| *found == name),
            "{name}"
        );
    }
    // He sees his operation, though not the instance's, and a stranger does not.
    let id = operation(&answer, "")?;
    let id = id.trim_start_matches("/operations/");
    let subscription = service.subscription();
    let place_of = |kind: &str| {
        format!("/subscriptions/{subscription}/providers/Microsoft.Sql/locations/local/{kind}/{id}")
    };
    let status = place_of("managedDatabaseAzureAsyncOperation");
    let ended = eventually(&guest, &status, "its end", |answer| {
        let status = answer["status"].as_str()?;
        (status != "InProgress").then(|| status.to_owned())
    })
    .await?;
    assert_eq!(ended, "Succeeded");
    let (status_code, made) = guest
        .get(&place_of("managedDatabaseOperationResults"))
        .await;
    assert_eq!((status_code, &made["name"]), (200, &Value::from("copy")));
    assert_eq!(guest.get(&format!("{instance}/operations")).await.0, 403);
    let stranger = Somebody::new(service).await?;
    stranger.with("Reader", &scope.below("app")).await?;
    assert_eq!(stranger.get(&status).await.0, 404);
    running.stop().await;
    Ok(())
}

/// Log is stored every five minutes, and what was lost was lost a moment ago.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_has_log_stored_that_the_server_has_written_and_that_is_not_stored_yet()
-> Result<()> {
    let server = Server::find(18)?;
    let one = Cluster::builder(server.major()).start().await?;
    one.sql("postgres", "CREATE DATABASE app").await?;
    one.sql("app", "CREATE TABLE t AS SELECT 1 AS a").await?;
    let (place, scratch) = (Place::new().await?, Scratch::new()?);
    add_with_least_rights(&place, &one, "one").await?;
    let superuser = one.connection_string("postgres");
    std::fs::write(scratch.path().join("one.admin"), superuser)?;
    let slow = quick(&scratch, &server, "").replace("\"1s\"", "\"5m\"");
    let running = place.start(&slow).await?;
    let service = running.service();
    let owner = Somebody::new(service).await?;
    owner.with("Owner", &service.group_scope()).await?;
    let instance = instance_path(service);
    let database = |name: &str| format!("{instance}/databases/{name}");
    // Though the server is idle, and log is stored every five minutes.
    eventually(&owner, &database("app"), "a window", |answer| {
        time(&answer["properties"]["earliestRestorePoint"])
    })
    .await?;
    let request = |source: &str, id: &str, point: Option<Timestamp>| {
        let mut properties = serde_json::json!({"createMode": "PointInTimeRestore", source: id});
        if let Some(point) = point {
            properties["restorePointInTime"] = format!("{point:.6}").into();
        }
        serde_json::json!({ "properties": properties }).to_string()
    };

    // Of a database that lives.
    let expected = fingerprint_database(&one.connect("app").await?).await?;
    let point = one.moment().await?.time;
    sleep(Duration::from_millis(20)).await;
    one.sql("app", "DROP TABLE t").await?;
    let (_, app) = owner.get(&database("app")).await;
    let latest = time(&app["properties"]["latestRestorePoint"]).context("a latest point")?;
    assert!(latest < point, "it is not stored yet: {latest} {point}");
    let living = |point| request("sourceDatabaseId", &database("app"), Some(point));
    let answer = put(&owner, &database("back"), &living(point)).await;
    assert_eq!(answer.status, 202, "{}", json(&answer));
    let ended = end_of(&owner, &operation(&answer, &instance)?).await?;
    assert_eq!(state(&ended), "Succeeded", "{ended}");
    let found = fingerprint_database(&one.connect("back").await?).await?;
    assert_same_database(&expected, &found);
    // What is still to come cannot be had.
    let coming = Timestamp::now() + Duration::from_secs(60);
    let refused = put(&owner, &database("never"), &living(coming)).await;
    assert_eq!(code(&json(&refused)), "PitrPointInTimeInvalid");

    // Of one that was dropped, as of just before that, while the server sends no log.
    let point = one.moment().await?.time;
    sleep(Duration::from_millis(20)).await;
    let earlier = fingerprint_database(&one.connect("app").await?).await?;
    one.sql("app", "CREATE TABLE later AS SELECT 2 AS a")
        .await?;
    let last = fingerprint_database(&one.connect("app").await?).await?;
    one.sql("postgres", "ALTER ROLE keeper NOREPLICATION")
        .await?;
    let sql = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_replication";
    assert_eq!(one.value("postgres", sql).await?, "t");
    one.sql("postgres", "DROP DATABASE app WITH (FORCE)")
        .await?;
    let dropped = format!("{instance}/restorableDroppedDatabases");
    let id = eventually(&owner, &dropped, "the dropped database", |answer| {
        let first = answer["value"].as_array()?.first()?;
        first["id"].as_str().map(str::to_owned)
    })
    .await?;
    let wish = |point| request("restorableDroppedDatabaseId", &id, point);
    let answer = put(&owner, &database("last"), &wish(None)).await;
    assert_eq!(answer.status, 202, "{}", json(&answer));
    let last_operation = operation(&answer, &instance)?;
    eventually(&owner, &last_operation, "its waiting", |answer| {
        let phase = answer["properties"]["progress"]["phase"].as_str()?;
        (phase == "backing up the log of the drop").then_some(())
    })
    .await?;
    one.sql("postgres", "ALTER ROLE keeper REPLICATION").await?;
    let ended = end_of(&owner, &last_operation).await?;
    assert_eq!(state(&ended), "Succeeded", "{ended}");
    // And as of a moment before it.
    let answer = put(&owner, &database("earlier"), &wish(Some(point))).await;
    assert_eq!(answer.status, 202, "{}", json(&answer));
    let ended = end_of(&owner, &operation(&answer, &instance)?).await?;
    assert_eq!(state(&ended), "Succeeded", "{ended}");
    for (name, expected) in [("last", &last), ("earlier", &earlier)] {
        let found = fingerprint_database(&one.connect(name).await?).await?;
        assert_same_database(expected, &found);
    }
    running.stop().await;
    Ok(())
}
