//! The command as a client of a running service.

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use anyhow::{Context, Result};
use everpoint_testkit::{Cluster, Scratch, Server};
use serde_json::Value;

use crate::support::{Everpoint, Finished, Running, until};

/// A service, and who made it.
struct Served {
    everpoint: Everpoint,
    running: Running,
    url: String,
    client_id: String,
    secret: String,
}

impl Served {
    async fn start(everpoint: Everpoint, server: &Server, scratch: &Scratch) -> Result<Self> {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?
            .local_addr()?
            .port();
        let url = format!("https://localhost:{port}/");
        let text = format!(
            "listen = \"127.0.0.1:{port}\"\npublic_url = \"https://localhost:{port}\"\n\
             state_directory = \"{}\"\n[repository]\nurl = \"{}\"\nkey_file = \"{}\"\n\
             [backups]\nlog_every = \"1s\"\njobs = 1\n\
             [restores]\nscratch = \"{}\"\n[instances.main]\nbin_directory = \"{}\"\n",
            everpoint.path("state").display(),
            everpoint.repository().display(),
            everpoint.key_file().display(),
            scratch.path().join("scratch").display(),
            server.bin().display(),
        );
        fs::write(everpoint.path("everpoint.toml"), text)?;
        let config = everpoint.path("everpoint.toml").display().to_string();
        let mut running = everpoint.start(["serve", "--config", &config])?;
        running.wait_until_it_says("client secret").await?;
        let printed = running.printed()?;
        let after = |label: &str| {
            let line = printed
                .lines()
                .find_map(|line| line.trim().strip_prefix(label));
            line.map(|rest| rest.trim().to_owned())
                .context("nothing printed")
        };
        Ok(Self {
            client_id: after("client id")?,
            secret: after("client secret")?,
            everpoint,
            running,
            url,
        })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.everpoint.bare_command(arguments);
        command.env("EVERPOINT_SERVER", &self.url);
        command
    }

    fn run(&self, arguments: &[&str]) -> Result<Finished> {
        Finished::of(self.command(arguments))
    }

    fn log_in(&self, secret: &str, ca: &str) -> Result<Finished> {
        let mut command = self.command(&["login", "--client-id", &self.client_id, "--ca", ca]);
        command.env("EVERPOINT_CLIENT_SECRET", secret);
        Finished::of(command)
    }

    fn json(&self, arguments: &[&str]) -> Result<Value> {
        self.run(&[arguments, &["--output", "json"]].concat())?
            .expect(0)
            .json()
    }

    /// The rows of a list that have this name.
    fn named(&self, arguments: &[&str], name: &str) -> Result<Vec<Value>> {
        let rows = self
            .json(arguments)?
            .as_array()
            .cloned()
            .unwrap_or_default();
        let is_it = |row: &Value| row["name"] == name || row["properties"]["databaseName"] == name;
        Ok(rows.into_iter().filter(is_it).collect())
    }
}

#[test]
fn a_service_is_spoken_to_by_whoever_is_signed_in_and_by_nobody_else() -> Result<()> {
    everpoint_testkit::run(async {
        let (server, scratch) = (Server::find(18)?, Scratch::new()?);
        let cluster = Cluster::builder(server.major()).start().await?;
        cluster.sql("postgres", "CREATE DATABASE shop").await?;
        let everpoint = Everpoint::new()?;
        everpoint.add(&cluster)?;
        let served = Served::start(everpoint, &server, &scratch).await?;
        let ca = served
            .everpoint
            .path("state/tls/ca.pem")
            .display()
            .to_string();

        let list = ["database", "list", "main"];
        served
            .run(&list)?
            .expect(3)
            .says("Sign in with `everpoint login --server");
        served
            .log_in("wrong", &ca)?
            .expect(3)
            .says("the client id or its secret is wrong");
        let mut without_ca = served.command(&["login", "--client-id", &served.client_id]);
        without_ca.env("EVERPOINT_CLIENT_SECRET", &served.secret);
        Finished::of(without_ca)?
            .expect(1)
            .says("Give its authority with --ca FILE");
        served
            .log_in(&served.secret, &ca)?
            .expect(0)
            .says("signed in to");

        // What is kept is the user's alone, holds no secret, and is not used when others can read it.
        let logins = served.everpoint.path(".config/everpoint/logins");
        let kept = fs::read_dir(&logins)?
            .next()
            .context("nothing kept")??
            .path();
        assert_eq!(fs::metadata(&kept)?.permissions().mode() & 0o777, 0o600);
        assert!(!fs::read_to_string(&kept)?.contains(&served.secret));
        fs::set_permissions(&kept, fs::Permissions::from_mode(0o644))?;
        served.run(&list)?.expect(3).says("can be read by others");
        fs::set_permissions(&kept, fs::Permissions::from_mode(0o600))?;

        until("the database can be restored", async || {
            let rows = served.named(&list, "shop")?;
            Ok(rows
                .first()
                .is_some_and(|row| row["properties"]["latestRestorePoint"].is_string()))
        })
        .await?;
        assert_eq!(served.named(&["instance", "list"], "main")?.len(), 1);

        let set = ["retention", "set", "main/shop", "--days", "14"];
        served
            .run(&[&set[..], &["--dry-run"]].concat())?
            .expect(0)
            .says("no point is lost");
        served
            .run(&["retention", "show", "main/shop"])?
            .expect(0)
            .says("7 days");
        served.run(&set)?.expect(0);
        served
            .run(&["retention", "show", "main/shop"])?
            .expect(0)
            .says("14 days");

        // Long-term retention: by policy, and one made by hand.
        let policy = ["retention", "long-term", "show", "main/shop"];
        served.run(&policy)?.expect(0).says("no long-term copies");
        let set = ["retention", "long-term", "set", "main/shop"];
        served.run(&set)?.expect(2).says("--weekly");
        let weekly = ["--weekly", "4w", "--yearly", "1y", "--week-of-year", "3"];
        served.run(&[&set[..], &weekly].concat())?.expect(0);
        served
            .run(&policy)?
            .expect(0)
            .says("yearly (week 3) copies for P1Y");
        served.run(&[&set[..], &["--none"]].concat())?.expect(0);
        served.run(&policy)?.expect(0).says("no long-term copies");
        let copy = served
            .everpoint
            .json(["long-term", "copy", "main/shop", "--keep", "1y"])?;
        let id = copy["id"].as_str().context("an identifier")?;
        let copies = served.json(&["long-term", "list", "main/shop"])?;
        assert!(
            copies[0]["name"]
                .as_str()
                .unwrap_or_default()
                .starts_with(id),
            "{copies}"
        );
        served.run(&["long-term", "hold", id])?.expect(0);
        served.run(&["long-term", "list"])?.expect(0).says("held");
        served
            .run(&["long-term", "delete", id])?
            .expect(3)
            .says("LongTermBackupHeld");
        served.run(&["long-term", "release", id])?.expect(0);
        let restore = [
            "restore",
            "database",
            "--long-term",
            id,
            "--to",
            "shop_then",
        ];
        served
            .run(&restore)?
            .expect(0)
            .says("`shop_then` is online in main");
        assert_eq!(cluster.value("shop_then", "SELECT 1").await?, "1");
        served
            .run(&["long-term", "delete", id])?
            .expect(0)
            .says("deleted copy");
        served
            .run(&["long-term", "hold", id])?
            .expect(3)
            .says("there is no long-term copy");

        let operations = served.json(&["operation", "list", "main"])?;
        let rows = operations.as_array().context("a list")?;
        let full = rows
            .iter()
            .find(|row| row["properties"]["operation"] == "FullBackup");
        let id = full.context("no full backup")?["name"]
            .as_str()
            .unwrap()
            .to_owned();
        served
            .run(&["operation", "show", "main", &id])?
            .expect(0)
            .says("there is no full backup yet");
        served
            .run(&["operation", "cancel", "main", &id])?
            .expect(3)
            .says("CannotCancelOperation");
        served
            .run(&["database", "list", "absent"])?
            .expect(3)
            .says("ResourceNotFound");
        served.run(&["verify"])?.expect(3).says("without --server");

        // Without a service these commands say which is missing.
        let mut bare = served.everpoint.bare_command(list);
        bare.env_remove("EVERPOINT_SERVER");
        Finished::of(bare)?.expect(3).says("--server URL");
        served.run(&["logout"])?.expect(0);
        served.run(&list)?.expect(3).says("not signed in");
        assert!(served.running.kill()?.stderr.contains("started"));
        Ok(())
    })
}
