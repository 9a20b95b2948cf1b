//! Two servers on one catalog.

use std::{fs::Permissions, os::unix::fs::PermissionsExt, time::Duration};

use anyhow::{Context, Result, ensure};
use everpoint_server::http::Method;
use everpoint_testkit::{Cluster, StopMode};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

use super::{
    live::{add, eventually, instance_path},
    support::{Place, Somebody, VERSION},
};

const PATIENCE: Duration = Duration::from_secs(60);
const QUICK: &str = "[backups]\nlog_every = \"1s\"\njobs = 1\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_server_changes_and_finds_the_other_one_knows_and_can_cancel() -> Result<()> {
    let cluster = Cluster::builder(18).start().await?;
    cluster.sql("postgres", "CREATE DATABASE catalog").await?;
    let place = Place::new().await?;
    add(&place, &cluster, "one").await?;
    let shared = format!("catalog = \"{}\"\n", cluster.url("catalog"));
    let checkpointer = stop_checkpointer(&cluster).await?;

    let first = place.start_as("first", &shared, QUICK).await?;
    let second = place.start_as("second", &shared, QUICK).await?;
    assert!(first.owner().is_some() && second.owner().is_none());
    let (one, two) = (first.service(), second.service());
    assert_eq!(one.tenant(), two.tenant());
    let owner = Somebody::new(one).await?;
    owner.with("Owner", &one.group_scope()).await?;
    // The same token holds on the other server, as soon as that has heard of the assignment.
    let there = owner.on(two);
    let operations = format!("{}/operations", instance_path(one));
    let id = eventually(&there, &operations, "the backup", |answer| {
        let first = answer["value"].as_array()?.first()?;
        assert_eq!(first["properties"]["isCancellable"], true);
        first["name"].as_str().map(str::to_owned)
    })
    .await?;
    let cancel = format!("{operations}/{id}/cancel");
    let answer = there.ask(Method::Post, &cancel, VERSION, "").await;
    assert_eq!(answer.status, 200);
    // Whoever runs it writes its progress down, and learns of it. The second time shows that the first was heeded.
    let sql = format!("SELECT xmin::text FROM operations WHERE id = '{id}'");
    for _ in 0..2 {
        let before = cluster.value("catalog", &sql).await?;
        let begun = Instant::now();
        while cluster.value("catalog", &sql).await? == before {
            ensure!(begun.elapsed() < PATIENCE, "nobody runs it");
            sleep(Duration::from_millis(50)).await;
        }
    }
    kill_process(checkpointer, Signal::CONT)?;
    eventually(&owner, &format!("{operations}/{id}"), "its end", |answer| {
        (answer["properties"]["state"] == "Cancelled").then_some(())
    })
    .await?;
    // The next one comes by itself, and the other server sees what can be restored.
    let database = format!("{}/databases/catalog", instance_path(one));
    eventually(&there, &database, "a window", |answer| {
        answer["properties"]["earliestRestorePoint"]
            .as_str()
            .map(drop)
    })
    .await?;
    for (service, word) in [(one, "here"), (two, "elsewhere")] {
        let ready = owner.on(service).ask(Method::Get, "/readyz", "", "").await;
        let text = String::from_utf8(ready.body)?;
        assert!(text.contains(&format!("scheduling {word}")), "{text}");
    }
    first.stop().await;
    second.stop().await;
    Ok(())
}

/// What is not written down when it ends would keep the instance from being backed up for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ends_while_the_catalog_is_away_is_written_down_when_it_is_back() -> Result<()> {
    let cluster = Cluster::builder(18).start().await?;
    let mut keeper = Cluster::builder(18).start().await?;
    keeper.sql("postgres", "CREATE DATABASE catalog").await?;
    let place = Place::new().await?;
    add(&place, &cluster, "one").await?;
    let checkpointer = stop_checkpointer(&cluster).await?;
    let catalog = format!("catalog = \"{}\"\n", keeper.url("catalog"));
    let running = place.start_as("state", &catalog, QUICK).await?;
    let service = running.service();
    let owner = Somebody::new(service).await?;
    owner.with("Owner", &service.group_scope()).await?;
    let operations = format!("{}/operations", instance_path(service));
    let id = eventually(&owner, &operations, "the backup", |answer| {
        let first = answer["value"].as_array()?.first()?;
        first["name"].as_str().map(str::to_owned)
    })
    .await?;
    keeper.stop(StopMode::Immediate).await?;
    kill_process(checkpointer, Signal::CONT)?;
    let repository = place.repository().await?;
    let begun = Instant::now();
    while repository.backups(&"one".parse()?).await?.is_empty() {
        ensure!(begun.elapsed() < PATIENCE, "the backup does not end");
        sleep(Duration::from_millis(50)).await;
    }
    // So long that its end was tried to be written down.
    sleep(Duration::from_secs(2)).await;
    keeper.start().await?;
    eventually(&owner, &format!("{operations}/{id}"), "its end", |answer| {
        (answer["properties"]["state"] == "Succeeded").then_some(())
    })
    .await?;
    running.stop().await;
    Ok(())
}

async fn stop_checkpointer(cluster: &Cluster) -> Result<Pid> {
    let sql = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'";
    let pid: i32 = cluster.value("postgres", sql).await?.parse()?;
    let checkpointer = Pid::from_raw(pid).context("a process")?;
    kill_process(checkpointer, Signal::STOP)?;
    Ok(checkpointer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_catalog_is_reached_over_tls_and_only_behind_the_certificate_that_is_asked_for()
-> Result<()> {
    let mut cluster = Cluster::builder(18).on_loopback().start().await?;
    let roots = cluster.encrypt().await?;
    let sql = "CREATE ROLE keeper LOGIN PASSWORD 'sesame'";
    cluster.sql("postgres", sql).await?;
    let sql = "CREATE DATABASE catalog OWNER keeper";
    cluster.sql("postgres", sql).await?;
    let lines = "hostssl catalog keeper all scram-sha-256\nhost all keeper all reject";
    cluster.let_in(lines).await?;
    let place = Place::new().await?;
    let password = place.path().join("catalog.password");
    std::fs::write(&password, "sesame\n")?;
    std::fs::set_permissions(&password, Permissions::from_mode(0o600))?;
    let (port, roots) = (cluster.port(), roots.path().display());
    let first = |host: &str, query: &str| {
        format!(
            "catalog = \"postgres://keeper@{host}:{port}/catalog?{query}\"\ncatalog_password_file = \"{}\"\n",
            password.display()
        )
    };
    for (host, query, told) in [
        (
            "localhost",
            format!("sslmode=verify-full&sslrootcert={roots}/other.crt"),
            "certificate",
        ),
        (
            "127.0.0.1",
            format!("sslmode=verify-full&sslrootcert={roots}/root.crt"),
            "certificate",
        ),
        ("localhost", "sslmode=disable".to_owned(), "pg_hba.conf"),
    ] {
        let refused = place.start_as("state", &first(host, &query), QUICK).await;
        let error = refused.err().context("it was let in")?;
        let text = format!("{error:#}");
        assert!(text.contains(told), "{query}: {text}");
        assert!(!text.contains("sesame"), "{text}");
    }
    for (host, query) in [
        (
            "localhost",
            format!("sslmode=verify-full&sslrootcert={roots}/root.crt"),
        ),
        (
            "127.0.0.1",
            format!("sslmode=verify-ca&sslrootcert={roots}/root.crt"),
        ),
    ] {
        let running = place.start_as("state", &first(host, &query), QUICK).await?;
        let owner = Somebody::new(running.service()).await?;
        let group = running.service().group_scope();
        owner.with("Owner", &group).await?;
        assert_eq!(owner.get(&group.to_string()).await.0, 200);
        let sql = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = 'keeper'";
        assert_eq!(cluster.value("postgres", sql).await?, "t");
        running.stop().await;
    }
    Ok(())
}
