//! Long-term retention by the service, beside real servers.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use everpoint_engine::{
    backup::{self, BackupPlan, ChangesUse, RequestedKind},
    progress::Progress,
};
use everpoint_instance::CheckpointMode;
use everpoint_repository::{InstanceName, backup::Backup, long_term::CopyReason};
use everpoint_server::{http::Method, service::Service};
use everpoint_testkit::{Cluster, Scratch, Server};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{
    databases::quick,
    live::{PATIENCE, add, drive_with_azures_sdk, eventually, instance_path},
    support::{Place, Somebody, VERSION, code, json},
};

/// Takes a full backup as another process would.
async fn full(service: &Service, name: &InstanceName) -> Result<Backup> {
    let observed = service.instance(name).context("the instance")?;
    let plan = BackupPlan {
        instance: name.clone(),
        record: observed.record.clone(),
        connection: observed.connection.clone(),
        kind: RequestedKind::Full,
        jobs: 1,
        checkpoint: CheckpointMode::Fast,
        log_wait: Duration::from_secs(60),
        changes: ChangesUse::Trust,
    };
    let taken = backup::run(service.repository(), &plan, &Progress::default(), &|_| ()).await?;
    service.wake_copies();
    Ok(taken)
}

/// Waits until a full backup was copied or passed over.
async fn until_considered(service: &Service, name: &InstanceName, ended: Timestamp) -> Result<()> {
    let begun = Instant::now();
    loop {
        let rows = service.catalog().long_term_policies(name).await?;
        if rows.iter().all(|row| row.considered >= ended) {
            return Ok(());
        }
        ensure!(
            begun.elapsed() < PATIENCE,
            "it was not considered: {rows:?}"
        );
        sleep(Duration::from_millis(200)).await;
    }
}

async fn copies_follow_the_policy(server: Server) -> Result<()> {
    let cluster = Cluster::builder(server.major()).start().await?;
    cluster.sql("postgres", "CREATE DATABASE app").await?;
    cluster
        .sql("app", "CREATE TABLE t AS SELECT 1 AS a")
        .await?;
    let place = Place::new().await?;
    add(&place, &cluster, "one").await?;
    let scratch = Scratch::new()?;
    let running = place.start(&quick(&scratch, &server, "")).await?;
    let service = running.service();
    let name: InstanceName = "one".parse()?;
    let owner = Somebody::new(service).await?;
    owner.with("Owner", &service.group_scope()).await?;
    let instance = instance_path(service);
    let app = format!("{instance}/databases/app");
    let policy = format!("{app}/backupLongTermRetentionPolicies/default");
    let group = service.group_scope();
    let locations = format!("{group}/providers/Microsoft.Sql/locations/local");
    let all = format!("{locations}/longTermRetentionManagedInstanceBackups");
    let of_app = format!(
        "{locations}/longTermRetentionManagedInstances/one/longTermRetentionDatabases/app/longTermRetentionManagedInstanceBackups"
    );
    let operations = format!("{instance}/operations");
    let ended = |kind: &'static str| {
        move |answer: &Value| {
            let all = answer["value"].as_array()?;
            let found = all
                .iter()
                .find(|operation| operation["properties"]["operation"] == kind)?;
            (found["properties"]["state"] == "Succeeded").then(|| found.clone())
        }
    };
    eventually(&owner, &operations, "the first backup", ended("FullBackup")).await?;
    eventually(&owner, &app, "the database", |_| Some(())).await?;
    let (_, off) = owner.get(&policy).await;
    assert_eq!(off["properties"]["weeklyRetention"], "PT0S", "{off}");

    // What cannot be a policy is none.
    for body in [
        r#"{"properties":{"weeklyRetention":"P11Y"}}"#,
        r#"{"properties":{"yearlyRetention":"P1Y"}}"#,
        r#"{"properties":{"yearlyRetention":"P1Y","weekOfYear":53}}"#,
    ] {
        let (status, answer) = owner.put(&policy, body).await;
        let expected = (400, "InvalidBackupRetentionPeriod");
        assert_eq!((status, code(&answer)), expected, "{body}");
    }
    let wish = r#"{"properties":{"weeklyRetention":"P4W","monthlyRetention":"P1Y"}}"#;
    let (status, set) = owner.put(&policy, wish).await;
    assert_eq!(
        (status, &set["properties"]["monthlyRetention"]),
        (200, &Value::from("P1Y"))
    );
    let stored = place.repository().await?.policies(&name).await?;
    let (_, stored) = stored.context("policies in the repository")?;
    let of_it = stored.databases.iter().find(|found| found.name == "app");
    let long_term = of_it.and_then(|found| found.long_term.clone());
    assert_eq!(long_term.context("its policy")?.monthly, "P1Y");

    // The backup from before the policy is not copied, the next one is: once, for both periods.
    let taken = full(service, &name).await?;
    let listed = eventually(&owner, &all, "the copy", |answer| {
        answer["value"]
            .as_array()
            .filter(|all| !all.is_empty())
            .cloned()
    })
    .await?;
    assert_eq!(listed.len(), 1, "{listed:?}");
    eventually(&owner, &operations, "its operation", ended("LongTermCopy")).await?;
    let second = full(service, &name).await?;
    until_considered(service, &name, second.stopped_at).await?;
    let copies = service.copies(&name).await?;
    let [copy] = copies.as_slice() else {
        anyhow::bail!("one copy: {copies:?}");
    };
    assert_eq!(copy.backup, taken.id);
    assert_eq!(copy.reasons, [CopyReason::Weekly, CopyReason::Monthly]);
    let year = copy.backup_time + SignedDuration::from_hours(24 * 364);
    assert!(copy.expires_at > Some(year));
    let backup_name = listed[0]["name"].as_str().context("a name")?;
    assert!(
        backup_name.starts_with(&format!("{};13", copy.id)),
        "{backup_name}"
    );
    let one = format!("{of_app}/{}", backup_name.replace(';', "%3B"));
    assert_eq!(owner.get(&one).await, (200, listed[0].clone()));

    // Lists by what is asked for.
    let count = async |path: &str, query: &str| {
        let query = format!("{VERSION}&{query}");
        let answer = owner.ask(Method::Get, path, &query, "").await;
        json(&answer)["value"].as_array().map(Vec::len)
    };
    for (query, expected) in [
        ("databaseState=Live", 1),
        ("databaseState=Deleted", 0),
        ("onlyLatestPerDatabase=true", 1),
        ("$skip=1", 0),
        ("$top=0", 0),
    ] {
        assert_eq!(count(&all, query).await, Some(expected), "{query}");
        assert_eq!(count(&of_app, query).await, Some(expected), "{query}");
    }
    let wrong = owner
        .ask(
            Method::Get,
            &all,
            &format!("{VERSION}&databaseState=Dead"),
            "",
        )
        .await;
    assert_eq!(code(&json(&wrong)), "InvalidParameterValue");
    let absent = format!("{of_app}/{};132024306561630000", copy.id);
    assert_eq!(code(&owner.get(&absent).await.1), "LTRBackupNotExists");

    // Who may see and who may delete.
    let stranger = Somebody::new(service).await?;
    stranger
        .with("Reader", &service.instance_scope(&name).below("other"))
        .await?;
    let (status, seen) = stranger.get(&all).await;
    assert_eq!((status, &seen["value"]), (200, &Value::Array(Vec::new())));
    let manager = Somebody::new(service).await?;
    manager
        .with("SQL Managed Instance Contributor", &service.group_scope())
        .await?;
    assert_eq!(manager.get(&one).await.0, 200);
    assert_eq!(
        manager.ask(Method::Delete, &one, VERSION, "").await.status,
        403
    );

    // What a shorter retention would lose is said, and nothing is changed.
    let short = format!("{app}/backupShortTermRetentionPolicies/default");
    let query = format!("{VERSION}&dryRun=true");
    let body = r#"{"properties":{"retentionDays":1}}"#;
    let told = json(&owner.ask(Method::Put, &short, &query, body).await);
    let told = &told["properties"];
    assert_eq!(
        (&told["dryRun"], &told["retentionDays"]),
        (&Value::from(true), &Value::from(1))
    );
    assert_eq!(
        told["lostFrom"],
        Value::Null,
        "all of it is younger than a day: {told}"
    );
    assert_eq!(owner.get(&short).await.1["properties"]["retentionDays"], 7);

    if server.major() == 18 {
        drive_with_azures_sdk(&place, service, "azure_sdk_long_term.py", &[]).await?;
    }

    // A held copy is not deleted, and one of a dropped database stays.
    let immutability = |which: &str| format!("{one}/{which}LegalHoldImmutability");
    let reader = Somebody::new(service).await?;
    reader.with("Reader", &service.group_scope()).await?;
    let refused = reader
        .ask(Method::Post, &immutability("set"), VERSION, "")
        .await;
    assert_eq!(refused.status, 403);
    for _ in 0..2 {
        let held = owner
            .ask(Method::Post, &immutability("set"), VERSION, "")
            .await;
        let (status, held) = (held.status, json(&held));
        assert_eq!(
            (status, &held["properties"]["legalHoldImmutability"]),
            (200, &Value::from("Enabled"))
        );
    }
    let (_, held) = owner.get(&one).await;
    assert_eq!(held["properties"]["isBackupImmutable"], true, "{held}");
    assert_eq!(
        held["properties"]["backupExpirationTime"],
        Value::Null,
        "{held}"
    );
    let held = owner.ask(Method::Delete, &one, VERSION, "").await;
    assert_eq!(
        (held.status, code(&json(&held))),
        (409, "LongTermBackupHeld")
    );
    let released = owner
        .ask(Method::Post, &immutability("remove"), VERSION, "")
        .await;
    let released = json(&released);
    assert_eq!(
        released["properties"]["legalHoldImmutability"], "Disabled",
        "{released}"
    );
    let (_, operations) = owner.get(&format!("{instance}/operations")).await;
    let changes: Vec<&str> = operations["value"]
        .as_array()
        .context("a list")?
        .iter()
        .filter_map(|one| one["properties"]["progress"]["phase"].as_str())
        .filter(|text| text.contains("held"))
        .collect();
    // One that holds and one that releases, and as many by the SDK.
    let expected = if server.major() == 18 { 4 } else { 2 };
    assert_eq!(changes.len(), expected, "{operations}");
    cluster.sql("postgres", "DROP DATABASE app").await?;
    let gone = format!("{instance}/restorableDroppedDatabases");
    eventually(&owner, &gone, "the drop", |answer| {
        answer["value"].as_array()?.first().cloned()
    })
    .await?;
    assert_eq!(count(&all, "databaseState=Deleted").await, Some(1));
    let id = listed[0]["id"].as_str().context("an identifier")?;
    let restore = |id: &str| {
        serde_json::json!({"location": "local", "properties": {
            "createMode": "RestoreLongTermRetentionBackup",
            "longTermRetentionBackupResourceId": id,
        }})
        .to_string()
    };
    let again = format!("{instance}/databases/again");
    let absent = id.replace(&copy.id.to_string()[..8], "00000000");
    let (status, answer) = owner.put(&again, &restore(&absent)).await;
    assert_eq!((status, code(&answer)), (404, "LTRBackupNotExists"));
    // Who may read of a copy that it is there may not have its contents.
    let guest = Somebody::new(service).await?;
    let scope = service.instance_scope(&"one".parse()?);
    guest.with("Reader", &scope.below("app")).await?;
    guest.with("Contributor", &scope.below("again")).await?;
    let (status, answer) = guest.put(&again, &restore(id)).await;
    assert_eq!((status, code(&answer)), (403, "AuthorizationFailed"));
    let (status, answer) = owner.put(&again, &restore(id)).await;
    assert_eq!(status, 202, "{answer}");
    // What a restore reads stays.
    let deleted = owner.ask(Method::Delete, &one, VERSION, "").await;
    let expected = (409, "ConflictingDatabaseOperation");
    assert_eq!((deleted.status, code(&json(&deleted))), expected);
    eventually(&owner, &again, "the restored database", |answer| {
        (answer["properties"]["status"] == "Online").then_some(())
    })
    .await?;
    let restored = cluster.value("again", "SELECT a FROM t").await?;
    assert_eq!(restored, "1");
    let (_, kept) = owner.get(&one).await;
    assert!(
        kept["properties"]["databaseDeletionTime"].is_string(),
        "{kept}"
    );
    if server.major() == 15 {
        running.stop().await;
        return outlives_its_instance(&place, &cluster, &quick(&scratch, &server, ""), id).await;
    }
    let deleted = owner.ask(Method::Delete, &one, VERSION, "").await;
    assert_eq!(deleted.status, 200);
    assert_eq!(code(&owner.get(&one).await.1), "LTRBackupNotExists");
    assert_eq!(count(&all, "$skip=0").await, Some(0));
    running.stop().await;
    Ok(())
}

/// Nothing is left of the instance in the repository but its copies.
async fn outlives_its_instance(
    place: &Place,
    cluster: &Cluster,
    config: &str,
    copy: &str,
) -> Result<()> {
    std::fs::remove_dir_all(place.path().join("repository/instances/one"))?;
    add(place, cluster, "two").await?;
    let running = place.start(config).await?;
    let service = running.service();
    let owner = Somebody::new(service).await?;
    owner.with("Owner", &service.group_scope()).await?;
    let instance = service.instance_scope(&"two".parse()?);
    let path = format!("{instance}/databases/outlived");
    let wish = serde_json::json!({"location": "local", "properties": {
        "createMode": "RestoreLongTermRetentionBackup",
        "longTermRetentionBackupResourceId": copy,
    }})
    .to_string();
    eventually(&owner, &instance.to_string(), "the instance", |_| Some(())).await?;
    let (status, answer) = owner.put(&path, &wish).await;
    assert_eq!(status, 202, "{answer}");
    eventually(&owner, &path, "the restored database", |answer| {
        (answer["properties"]["status"] == "Online").then_some(())
    })
    .await?;
    assert_eq!(cluster.value("outlived", "SELECT a FROM t").await?, "1");
    running.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_term_copies_of_15_follow_the_policy() -> Result<()> {
    copies_follow_the_policy(Server::find(15)?).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_term_copies_of_18_follow_the_policy_and_are_served_to_azures_sdk() -> Result<()> {
    copies_follow_the_policy(Server::find(18)?).await
}
