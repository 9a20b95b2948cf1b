//! The service beside real servers.

use std::{process::Stdio, time::Duration};

use anyhow::{Context, Result, bail};
use everpoint_engine::instance_record::{InstanceRecord, WalSupply};
use everpoint_instance::{ConnectionSpec, ServerFacts, connect_sql, grant::grant_script};
use everpoint_server::{audit::AuditFile, http::Method, service::Service};
use everpoint_testkit::{Cluster, Server};
use jiff::Timestamp;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::support::{Place, Somebody, code, json, python_packages};

pub const PATIENCE: Duration = Duration::from_secs(180);
pub const QUICK: &str = "[backups]\nlog_every = \"1s\"\njobs = 1\n";

pub async fn add(place: &Place, cluster: &Cluster, name: &str) -> Result<()> {
    let superuser: ConnectionSpec = cluster.connection_string("postgres").parse()?;
    add_by(place, cluster, name, superuser).await
}

/// Adds an instance by a role that may do no more than backups need.
pub async fn add_with_least_rights(place: &Place, cluster: &Cluster, name: &str) -> Result<()> {
    let rights = grant_script("keeper", "postgres");
    cluster.sql("postgres", &rights).await?;
    let superuser: ConnectionSpec = cluster.connection_string("postgres").parse()?;
    add_by(place, cluster, name, superuser.with_user("keeper")).await
}

async fn add_by(
    place: &Place,
    cluster: &Cluster,
    name: &str,
    connection: ConnectionSpec,
) -> Result<()> {
    let session = connect_sql(&connection, "postgres").await?;
    let facts = ServerFacts::read(&session).await?;
    let record = InstanceRecord {
        system_identifier: facts.system_identifier,
        version: facts.major,
        connection: connection.to_text().to_string(),
        data_directory: cluster.data_directory().to_owned(),
        segment_size: facts.segment_size,
        wal: WalSupply::Stream {
            slot: format!("everpoint_{name}"),
        },
        added_at: Timestamp::now(),
    };
    let repository = place.repository().await?;
    repository
        .write_description(&name.parse()?, 0, &record)
        .await?;
    Ok(())
}

/// Asks until `done` finds what it wants.
pub async fn eventually<T>(
    who: &Somebody<'_>,
    path: &str,
    what: &str,
    done: impl Fn(&Value) -> Option<T>,
) -> Result<T> {
    let begun = Instant::now();
    loop {
        let (status, answer) = who.get(path).await;
        if let (200, Some(found)) = (status, done(&answer)) {
            return Ok(found);
        }
        if begun.elapsed() > PATIENCE {
            bail!("{what} did not come: {status} {answer}");
        }
        sleep(Duration::from_millis(200)).await;
    }
}

pub fn instance_path(service: &Service) -> String {
    let scope = service.group_scope();
    format!("{scope}/providers/Microsoft.Sql/managedInstances/one")
}

pub fn time(value: &Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}

async fn an_instance_is_backed_up_and_served(server: Server) -> Result<()> {
    let cluster = Cluster::builder(server.major()).start().await?;
    cluster.sql("postgres", "CREATE DATABASE app").await?;
    cluster
        .sql("app", "CREATE TABLE t AS SELECT 1 AS a")
        .await?;
    let place = Place::new().await?;
    add_with_least_rights(&place, &cluster, "one").await?;
    let begun = Timestamp::now();
    let running = place.start(QUICK).await?;
    let service = running.service();
    let owner = Somebody::new(service).await?;
    owner.with("Owner", &service.group_scope()).await?;
    let instance = instance_path(service);
    let app = format!("{instance}/databases/app");

    // The first full backup comes by itself, and the window opens.
    let point = |name: &'static str| move |answer: &Value| time(&answer["properties"][name]);
    let earliest = eventually(&owner, &app, "a window", point("earliestRestorePoint")).await?;
    let (_, found) = owner.get(&app).await;
    let created = time(&found["properties"]["creationDate"]);
    assert!(created.is_some_and(|at| at <= begun), "{found}");
    let operations = format!("{instance}/operations");
    let id = eventually(&owner, &operations, "the end of the backup", |answer| {
        let all = answer["value"].as_array()?;
        assert_eq!(all.len(), 1, "one backup: {answer}");
        let done = all[0]["properties"]["state"] == "Succeeded";
        all[0]["name"].as_str().filter(|_| done).map(str::to_owned)
    })
    .await?;
    let (_, operation) = owner.get(&format!("{operations}/{id}")).await;
    assert_eq!(operation["properties"]["operation"], "FullBackup");
    assert_eq!(operation["properties"]["percentComplete"], 100);
    let events = operation["properties"]["events"].to_string();
    assert!(events.contains("there is no full backup yet"), "{events}");

    // Log is received all the time: the window's end follows what is committed.
    cluster.sql("app", "INSERT INTO t VALUES (2)").await?;
    let committed = Timestamp::now();
    eventually(&owner, &app, "a later latest point", |answer| {
        let latest = time(&answer["properties"]["latestRestorePoint"])?;
        assert_eq!(
            time(&answer["properties"]["earliestRestorePoint"]),
            Some(earliest)
        );
        (latest >= committed).then_some(())
    })
    .await?;

    if server.major() == 18 {
        drive_with_azures_sdk(&place, service, "azure_sdk.py", &[]).await?;
    }

    // Policies, and who may not change them.
    let policy = format!("{app}/backupShortTermRetentionPolicies/default");
    let days = |days: u32| format!("{{\"properties\":{{\"retentionDays\":{days}}}}}");
    assert_eq!(owner.put(&policy, &days(14)).await.0, 200);
    assert_eq!(
        owner.get(&policy).await.1["properties"]["retentionDays"],
        14
    );
    let (status, answer) = owner.put(&policy, &days(36)).await;
    assert_eq!(
        (status, code(&answer)),
        (400, "InvalidBackupRetentionPeriod")
    );
    let reader = Somebody::new(service).await?;
    reader
        .with(
            "Reader",
            &service.instance_scope(&"one".parse()?).below("app"),
        )
        .await?;
    let (_, seen) = reader.get(&format!("{instance}/databases")).await;
    assert_eq!(
        seen["value"].as_array().context("a list")?.len(),
        1,
        "{seen}"
    );
    assert_eq!(reader.put(&policy, &days(2)).await.0, 403);
    assert_eq!(reader.get(&instance).await.0, 403);

    // A dropped database is kept as one that can be had back.
    cluster.sql("postgres", "DROP DATABASE app").await?;
    let dropped = format!("{instance}/restorableDroppedDatabases");
    let gone = eventually(&owner, &dropped, "the dropped database", |answer| {
        answer["value"].as_array()?.first().cloned()
    })
    .await?;
    let name = gone["name"].as_str().context("a name")?;
    let encoded = format!("{dropped}/{}", name.replace(',', "%2C"));
    let (status, same) = owner.get(&encoded).await;
    assert_eq!((status, &same), (200, &gone));
    let shorter = format!("{encoded}/backupShortTermRetentionPolicies/default");
    assert_eq!(
        owner.get(&shorter).await.1["properties"]["retentionDays"],
        14
    );
    let (status, answer) = owner.put(&shorter, &days(15)).await;
    assert_eq!(
        (status, code(&answer)),
        (400, "InvalidBackupRetentionPeriod")
    );
    assert_eq!(owner.put(&shorter, &days(3)).await.0, 200);
    assert_eq!(owner.get(&app).await.0, 404);

    // Requests that are not in order.
    let without_version = owner.ask(Method::Get, &instance, "", "").await;
    assert_eq!(code(&json(&without_version)), "MissingApiVersionParameter");
    let (status, answer) = owner.put(&policy, "{").await;
    assert_eq!((status, code(&answer)), (400, "InvalidRequestContent"));

    // The service goes and comes back: nothing is lost, and nothing is backed up twice.
    running.stop().await;
    AuditFile::check(&place.path().join("state/audit.jsonl"), None)?;
    let running = place.start(QUICK).await?;
    assert!(running.owner().is_none(), "the owner is made once");
    let service = running.service();
    let owner = Somebody::new(service).await?;
    owner.with("Owner", &service.group_scope()).await?;
    eventually(&owner, &instance, "the instance", |answer| {
        (answer["properties"]["state"] == "Ready").then_some(())
    })
    .await?;
    assert_eq!(
        owner.get(&shorter).await.1["properties"]["retentionDays"],
        3
    );
    sleep(Duration::from_secs(3)).await;
    let (_, all) = owner.get(&operations).await;
    let backups = all["value"].as_array().context("a list")?.iter();
    let backups = backups.filter(|found| found["properties"]["operation"] == "FullBackup");
    assert_eq!(backups.count(), 1, "{all}");
    running.stop().await;
    Ok(())
}

/// Runs a script as somebody who may do everything but give rights.
pub async fn drive_with_azures_sdk(
    place: &Place,
    service: &Service,
    script: &str,
    more: &[(&str, &str)],
) -> Result<()> {
    use everpoint_server::{
        catalog::{PrincipalRow, SecretRow},
        identity::{ClientSecret, SecretHash},
    };
    let secret = ClientSecret::random().context("randomness")?;
    let hash = SecretHash::of(secret.text()).context("a hash")?;
    let now = Timestamp::now();
    let kept = SecretRow::new(hash.text(), now, None);
    let (id, client) = (uuid::Uuid::new_v4(), uuid::Uuid::new_v4());
    let row = PrincipalRow::service(id, client, "sdk", Some(kept), now);
    service.catalog().add_principal(&row).await?;
    let assignment = everpoint_server::access::Assignment {
        id: uuid::Uuid::new_v4(),
        principal: row.id,
        role: everpoint_server::access::Role::by_name("Contributor")
            .context("a role")?
            .id,
        scope: everpoint_server::access::Scope::subscription(service.subscription()),
    };
    service.catalog().add_assignment(&assignment, now).await?;
    service.reload_access().await?;
    let script = format!("{}/tests/clients/{script}", env!("CARGO_MANIFEST_DIR"));
    let output = tokio::process::Command::new("python3")
        .arg(script)
        .env("PYTHONPATH", python_packages()?)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("REQUESTS_CA_BUNDLE", place.path().join("state/tls/ca.pem"))
        .env("BASE", place.base())
        .env("SUBSCRIPTION", service.subscription().to_string())
        .env("TENANT", service.tenant().to_string())
        .env("CLIENT_ID", row.client_id.to_string())
        .env("CLIENT_SECRET", secret.text())
        .envs(more.iter().copied())
        .stdin(Stdio::null())
        .output()
        .await?;
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_of_15_is_backed_up_and_served() -> Result<()> {
    an_instance_is_backed_up_and_served(Server::find(15)?).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_of_18_is_backed_up_and_served_to_azures_sdk() -> Result<()> {
    an_instance_is_backed_up_and_served(Server::find(18)?).await
}
