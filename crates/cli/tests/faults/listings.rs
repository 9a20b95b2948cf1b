//! Exit codes, and results as JSON, of every command that prints some.

use anyhow::Result;
use everpoint_testkit::{Cluster, on_every_version};
use serde_json::json;

use crate::support::{Everpoint, Finished};

#[test]
fn wrong_usage_ends_with_2() -> Result<()> {
    let everpoint = Everpoint::new()?;
    for arguments in [
        &[][..],
        &["unknown"],
        &["backup"],
        &["backup", "main", "--type", "half"],
        &["backup", "NOT A NAME"],
        &["restore", "instance", "main"],
        &[
            "restore", "instance", "main", "--to", "/x", "--latest", "--lsn", "0/1",
        ],
        &[
            "restore",
            "instance",
            "main",
            "--to",
            "/x",
            "--at",
            "2026-11-22 21:30:00",
        ],
        &[
            "restore", "instance", "main", "--to", "/x", "--port", "5432",
        ],
        &["expire"],
        &["expire", "main", "--retention-days", "0"],
        &["wal", "receive", "main", "--interval", "5"],
        &["status", "--output", "xml"],
    ] {
        let wrong = everpoint.run(arguments)?;
        assert_eq!(wrong.code, 2, "{arguments:?}: {wrong:?}");
        assert_eq!(wrong.stdout, "", "{arguments:?}");
    }
    Ok(())
}

#[test]
fn what_is_refused_ends_with_3_and_prints_no_result() -> Result<()> {
    let everpoint = Everpoint::new()?;
    let before = everpoint.contents()?;
    for arguments in [
        &["backup", "shop"][..],
        &["backups", "shop"],
        &["status", "shop"],
        &["verify", "shop"],
        &["expire", "shop", "--retention-days", "7"],
        &["restore", "instance", "shop", "--to", "/nowhere"],
        &["wal", "receive", "shop"],
        &["wal", "push", "shop", "000000010000000000000001"],
        &["wal", "receive", "shop", "--interval", "1ms"],
        &["backup", "shop", "--type", "differential", "--independent"],
        &["init", "--recovery-key"],
    ] {
        let mut command = everpoint.command(arguments);
        let refused = Finished::of({
            command.args(["--output", "json"]);
            command
        })?;
        assert_eq!(refused.code, 3, "{arguments:?}: {refused:?}");
        assert_eq!(refused.stdout, "", "{arguments:?}");
        assert!(
            refused.stderr.starts_with("error: "),
            "{arguments:?}: {refused:?}"
        );
    }
    assert_eq!(everpoint.contents()?, before);
    Ok(())
}

#[test]
fn an_empty_repository_lists_nothing_as_json() -> Result<()> {
    let everpoint = Everpoint::new()?;
    assert_eq!(everpoint.json(["instance", "list"])?, json!([]));
    assert_eq!(everpoint.json(["status"])?, json!([]));
    let verified = everpoint.json(["verify", "--full"])?;
    assert_eq!(verified["damage"], json!([]));
    Ok(())
}

on_every_version! {
    async fn every_listing_is_json_when_asked(server: Server) -> Result<()> {
        let everpoint = Everpoint::new()?;
        let cluster = Cluster::builder(server.major()).start().await?;
        let connection = cluster.connection_string("postgres");
        let checks = everpoint.json(["instance", "add", "main", "--connection", &connection])?;
        for check in checks.as_array().unwrap() {
            for name in ["check", "outcome", "found"] {
                assert!(check[name].is_string(), "{check}");
            }
        }
        let listed = everpoint.json(["instance", "list"])?;
        assert_eq!(listed[0]["name"], "main");
        assert_eq!(listed[0]["version"], server.major());
        assert_eq!(everpoint.json(["backups", "main"])?, json!([]));
        let status = everpoint.json(["status", "main"])?;
        assert_eq!(status[0]["backups"], 0);
        assert_eq!(status[0]["backup_needed"], true);
        everpoint.succeed(["status", "main"])?.says("NOTHING can be restored");
        let none = ["restore", "instance", "main", "--to", "/nowhere", "--dry-run"];
        everpoint.run(none)?.expect(3).says("everpoint backup main");

        let backup = everpoint.back_up()?;
        let rows = everpoint.json(["backups", "main"])?;
        assert_eq!(rows, json!([backup]));
        assert_eq!(backup["version"], server.major());
        assert_eq!(backup["damaged_pages"], 0);
        let status = everpoint.json(["status"])?;
        assert_eq!(status[0]["instance"], "main");
        assert_eq!(status[0]["ranges"][0]["earliest_lsn"], backup["stop_lsn"]);
        let verified = everpoint.json(["verify", "main", "--full"])?;
        assert_eq!(verified["damage"], json!([]));
        assert!(verified["verified_bytes"].as_u64() > Some(0));
        let expired = everpoint.json(["expire", "main", "--retention-days", "1", "--dry-run"])?;
        assert_eq!(expired["dry_run"], true);
        assert_eq!(expired["kept_backups"], json!([backup["id"]]));
        let to = everpoint.path("restored");
        let to = to.to_str().unwrap();
        let plan = everpoint.json(["restore", "instance", "main", "--to", to, "--dry-run"])?;
        assert_eq!(plan["backup"], backup["id"]);
        assert!(!everpoint.path("restored").exists());
        // The same with tables, for people.
        for arguments in [
            &["instance", "list"][..],
            &["backups", "main"],
            &["status"],
            &["verify"],
            &["expire", "main", "--retention-days", "1", "--dry-run"],
            &["restore", "instance", "main", "--to", to, "--dry-run"],
        ] {
            let printed = everpoint.succeed(arguments)?.stdout;
            assert!(printed.ends_with('\n') && !printed.starts_with(['{', '[']), "{printed}");
        }
        Ok(())
    }
}
