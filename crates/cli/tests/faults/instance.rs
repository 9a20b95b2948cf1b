//! `everpoint instance add`: what is checked, and with which rights everything works.

use std::{fs, process::Command};

use anyhow::{Context, Result};
use everpoint_testkit::{Cluster, StopMode, on_every_version};
use rustix::process::Signal;
use serde_json::Value;

use crate::{on_15_and_18, support::Everpoint};

/// Adds by a connection that must not do, and returns the checks that failed: name, cause and mending.
fn failed_checks(
    everpoint: &Everpoint,
    connection: &str,
    more: &[&str],
) -> Result<Vec<[String; 3]>> {
    let mut arguments = vec!["instance", "add", "main", "--connection", connection];
    arguments.extend(["--output", "json"]);
    arguments.extend(more);
    let refused = everpoint.run(arguments)?.expect(3);
    refused.says("`main` was not added");
    let checks = refused.json()?;
    let failed = checks.as_array().unwrap().iter();
    let failed = failed.filter(|check| check["outcome"] == "FAILED");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let failed = failed.map(|check| {
        [
            text(&check["check"]),
            text(&check["found"]),
            text(&check["mend"]),
        ]
    });
    let failed: Vec<_> = failed.collect();
    for [name, cause, mend] in &failed {
        assert!(
            !cause.is_empty() && !mend.is_empty(),
            "{name}: {cause}: {mend}"
        );
    }
    let listed = everpoint.json(["instance", "list"])?;
    assert_eq!(listed, serde_json::json!([]), "it was added all the same");
    Ok(failed)
}

fn the_one<'a>(failed: &'a [[String; 3]], check: &str) -> &'a [String; 3] {
    let found = failed.iter().find(|[name, ..]| name == check);
    found.unwrap_or_else(|| panic!("`{check}` did not fail: {failed:?}"))
}

/// The part of an advice that is SQL.
fn sql_of(mend: &str) -> &str {
    let start = ["ALTER ", "GRANT "]
        .iter()
        .filter_map(|verb| mend.find(verb))
        .min();
    let sql = &mend[start.unwrap_or_else(|| panic!("no SQL in: {mend}"))..];
    sql.split("; and restart").next().unwrap()
}

on_every_version! {
    async fn a_server_that_is_not_ready_is_refused_until_the_named_commands_mend_it(server: Server) -> Result<()> {
        let everpoint = Everpoint::new()?;
        let mut cluster = Cluster::builder(server.major())
            .setting("wal_level = minimal")
            .setting("max_wal_senders = 0")
            .start()
            .await?;
        let connection = cluster.connection_string("postgres");
        let failed = failed_checks(&everpoint, &connection, &[])?;
        let [_, cause, mend] = the_one(&failed, "wal_level");
        assert!(cause.contains("minimal"), "{cause}");
        let level = sql_of(mend).to_owned();
        let [_, _, mend] = the_one(&failed, "replication connections");
        cluster.sql("postgres", &level).await?;
        cluster.sql("postgres", sql_of(mend)).await?;
        cluster.sql("postgres", "ALTER SYSTEM SET max_replication_slots = 0").await?;
        cluster.restart().await?;

        let failed = failed_checks(&everpoint, &connection, &[])?;
        assert_eq!(failed.len(), 1, "{failed:?}");
        let [_, cause, mend] = the_one(&failed, "replication slot");
        assert!(cause.contains("all 0 replication slots are taken"), "{cause}");
        cluster.sql("postgres", sql_of(mend)).await?;
        cluster.restart().await?;

        let sql = "CREATE ROLE clerk LOGIN; GRANT pg_read_all_settings, pg_read_all_stats TO clerk";
        cluster.sql("postgres", sql).await?;
        let clerk = connection.replace("user=postgres", "user=clerk");
        let failed = failed_checks(&everpoint, &clerk, &[])?;
        let [_, cause, mend] = the_one(&failed, "replication connection");
        assert!(cause.contains("clerk"), "{cause}");
        cluster.sql("postgres", sql_of(mend)).await?;
        let [_, cause, mend] = the_one(&failed, "right to back up");
        assert!(cause.contains("pg_backup_start"), "{cause}");
        cluster.sql("postgres", sql_of(mend)).await?;
        // What only helps is not asked for.
        everpoint.add_by(&clerk)?;
        Ok(())
    }

    async fn a_server_that_does_not_answer_is_refused(server: Server) -> Result<()> {
        let everpoint = Everpoint::new()?;
        let mut cluster = Cluster::builder(server.major()).start().await?;
        cluster.stop(StopMode::Immediate).await?;
        let connection = cluster.connection_string("postgres");
        let failed = failed_checks(&everpoint, &connection, &[])?;
        let [_, cause, mend] = the_one(&failed, "server reachable");
        assert!(cause.contains(&cluster.socket_dir().display().to_string()), "{cause}");
        assert!(mend.contains("Check that it runs"), "{mend}");
        Ok(())
    }
}

on_15_and_18! {
    async fn another_clusters_data_directory_is_refused(server: Server) -> Result<()> {
        let everpoint = Everpoint::new()?;
        let cluster = Cluster::builder(server.major()).start().await?;
        let other = Cluster::builder(server.major()).start().await?;
        let connection = cluster.connection_string("postgres");
        let directory = other.data_directory().to_str().context("a path")?;
        let failed = failed_checks(&everpoint, &connection, &["--data-directory", directory])?;
        let [_, cause, mend] = the_one(&failed, "the server's own data directory");
        assert!(cause.contains("cluster"), "{cause}");
        assert!(mend.contains(&cluster.data_directory().display().to_string()), "{mend}");

        // A copy of the right cluster is not the directory that the server writes to.
        let copy = everpoint.path("copy");
        let mut call = Command::new("cp");
        call.arg("-a").arg(cluster.data_directory()).arg(&copy);
        assert!(call.status()?.success());
        fs::remove_file(copy.join("postmaster.pid"))?;
        let failed = failed_checks(
            &everpoint,
            &connection,
            &["--data-directory", copy.to_str().context("a path")?],
        )?;
        let [_, cause, _] = the_one(&failed, "the server's own data directory");
        assert!(cause.contains("copy"), "{cause}");

        let failed = failed_checks(&everpoint, &connection, &["--data-directory", "/nowhere"])?;
        the_one(&failed, "data directory readable");
        Ok(())
    }

    async fn the_role_of_the_grant_script_may_do_everything_that_is_needed(server: Server) -> Result<()> {
        let everpoint = Everpoint::new()?;
        let cluster = Cluster::builder(server.major()).start().await?;
        let script = everpoint.succeed(["instance", "grant-script", "--role", "the keeper"])?.stdout;
        // As people run it: twice is fine.
        cluster.sql("postgres", &script).await?;
        cluster.sql("postgres", &script).await?;
        cluster.sql("postgres", "ALTER ROLE \"the keeper\" PASSWORD 'open sesame'").await?;
        let hba = cluster.data_directory().join("pg_hba.conf");
        let trust = fs::read_to_string(&hba)?;
        let scram = "local all \"the keeper\" scram-sha-256\n\
                     local replication \"the keeper\" scram-sha-256\n";
        fs::write(&hba, format!("{scram}{trust}"))?;
        cluster.sql("postgres", "SELECT pg_reload_conf()").await?;
        let connection = cluster.connection_string("postgres");
        let wrong = connection.replace("user=postgres", "user='the keeper' password=sesame");
        let failed = failed_checks(&everpoint, &wrong, &[])?;
        let [_, cause, _] = the_one(&failed, "server reachable");
        assert!(cause.contains("the keeper"), "{cause}");

        let right = connection.replace("user=postgres", "user='the keeper' password='open sesame'");
        everpoint.add_by(&right)?;
        let listed = everpoint.succeed(["instance", "list", "--output", "json"])?.stdout;
        assert!(listed.contains("the keeper") && !listed.contains("sesame"), "{listed}");
        let mut receiver = everpoint.start(["wal", "receive", "main"])?;
        receiver.wait_until_it_says("streaming from").await?;
        cluster.sql("postgres", "CREATE TABLE t AS SELECT 1 AS a").await?;
        everpoint.back_up()?;
        receiver.signal(Signal::TERM)?;
        receiver.wait().await?.expect(0);
        // With nobody receiving the backup does it itself.
        everpoint.back_up()?;
        everpoint.json(["backup", "main", "--type", "differential"])?;
        everpoint.json(["expire", "main", "--retention-days", "1"])?;
        everpoint.verify()
    }

    async fn adding_again_changes_an_instance_and_another_cluster_is_refused(server: Server) -> Result<()> {
        let everpoint = Everpoint::new()?;
        let cluster = Cluster::builder(server.major()).start().await?;
        everpoint.add(&cluster)?;
        let first = everpoint.json(["instance", "list"])?;
        assert_eq!(first[0]["wal"], "slot everpoint_main");
        let connection = cluster.connection_string("template1");
        let add = ["instance", "add", "main", "--wal", "push", "--connection"];
        everpoint.succeed(add.iter().copied().chain([connection.as_str()]))?.says("changed `main`");
        let second = everpoint.json(["instance", "list"])?;
        assert_eq!(second.as_array().map(Vec::len), Some(1));
        assert_eq!(second[0]["wal"], "archive_command");
        assert!(second[0]["connection"].as_str().unwrap().contains("template1"), "{second}");

        let other = Cluster::builder(server.major()).start().await?;
        let before = everpoint.contents()?;
        let connection = other.connection_string("postgres");
        let refused = everpoint.run(add.iter().copied().chain([connection.as_str()]))?.expect(3);
        refused.says("another cluster");
        assert_eq!(everpoint.contents()?, before);
        // Only looking changes nothing either.
        let connection = cluster.connection_string("postgres");
        everpoint.succeed(["instance", "add", "main", "--check-only", "--connection", &connection])?;
        everpoint.succeed(["instance", "add", "second", "--check-only", "--connection", &connection])?;
        assert_eq!(everpoint.contents()?, before);
        Ok(())
    }
}
