//! `everpoint serve` as processes: several on one catalog, killed, and told to read their configuration again.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use everpoint_testkit::Cluster;
use rustix::process::Signal;

use crate::{
    push,
    support::{Everpoint, Finished, Halted, Running, until},
};

/// A free port, which is as good as it gets.
fn port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// The configuration of a server; `more` stands before its first table.
fn configure(everpoint: &Everpoint, name: &str, more: &str, backups: &str) -> Result<PathBuf> {
    let port = port()?;
    let text = format!(
        "listen = \"127.0.0.1:{port}\"\npublic_url = \"https://localhost:{port}\"\n\
         state_directory = \"{}\"\n{more}\n[repository]\nurl = \"{}\"\nkey_file = \"{}\"\n\
         [backups]\nlog_every = \"1s\"\njobs = 1\n{backups}\n",
        everpoint.path(name).display(),
        everpoint.repository().display(),
        everpoint.key_file().display(),
    );
    let path = everpoint.path(&format!("{name}.toml"));
    fs::write(&path, text)?;
    Ok(path)
}

fn serve(everpoint: &Everpoint, config: &Path) -> Result<Running> {
    let config = config.to_str().context("a path")?;
    everpoint.start(["serve", "--config", config])
}

async fn count(cluster: &Cluster, of: &str) -> Result<u32> {
    let sql = format!("SELECT count(*) FROM {of}");
    Ok(cluster.value("catalog", &sql).await?.parse()?)
}

async fn another_server_takes_over_when_the_one_that_schedules_is_killed() -> Result<()> {
    let cluster = Cluster::builder(18).start().await?;
    cluster.sql("postgres", "CREATE DATABASE catalog").await?;
    let everpoint = Everpoint::new()?;
    everpoint.add(&cluster)?;
    let shared = format!("catalog = \"{}\"", cluster.url("catalog"));
    let first = configure(&everpoint, "first", &shared, "")?;
    let second = configure(&everpoint, "second", &shared, "")?;

    let stalled = Halted::process(&cluster, "checkpointer").await?;
    let mut one = serve(&everpoint, &first)?;
    one.wait_until_it_says("this server schedules").await?;
    let mut two = serve(&everpoint, &second)?;
    two.wait_until_it_says("everpoint serves").await?;
    assert!(!two.printed()?.contains("this server schedules"));
    assert!(!two.printed()?.contains("client secret"), "one owner");
    until("a backup has begun", async || {
        Ok(count(&cluster, "operations WHERE ended_us IS NULL").await? == 1)
    })
    .await?;
    one.kill()?;
    drop(stalled);

    two.wait_until_it_says("this server schedules").await?;
    two.wait_until_it_says("FullBackup succeeded").await?;
    let interrupted = "operations WHERE error_code = 'OperationInterrupted'";
    assert_eq!(count(&cluster, interrupted).await?, 1);
    assert_eq!(
        count(&cluster, "operations WHERE state = 'Succeeded'").await?,
        1
    );
    two.wait_until_it_says("streaming from").await?;

    // One that ends in order leaves the lease to another one at once.
    let mut third = serve(&everpoint, &first)?;
    third.wait_until_it_says("everpoint serves").await?;
    two.signal(Signal::TERM)?;
    two.wait().await?.expect(0);
    third.wait_until_it_says("this server schedules").await?;
    third.wait_until_it_says("streaming from").await?;
    assert_eq!(count(&cluster, "servers").await?, 1);
    third.signal(Signal::TERM)?;
    third.wait().await?.expect(0);
    assert_eq!(count(&cluster, "servers").await?, 0);
    Ok(())
}

#[test]
fn another_server_takes_over_when_the_one_that_schedules_is_killed_on_18() -> Result<()> {
    everpoint_testkit::run(another_server_takes_over_when_the_one_that_schedules_is_killed())
}

/// A hung server lives on as far as PostgreSQL can see: it has its sessions, its locks and the slot.
async fn another_server_takes_over_from_one_that_hangs() -> Result<()> {
    let cluster = Cluster::builder(18).start().await?;
    cluster.sql("postgres", "CREATE DATABASE catalog").await?;
    let everpoint = Everpoint::new()?;
    everpoint.add(&cluster)?;
    let shared = format!("catalog = \"{}\"", cluster.url("catalog"));
    let first = configure(&everpoint, "first", &shared, "")?;
    let second = configure(&everpoint, "second", &shared, "")?;
    let mut one = serve(&everpoint, &first)?;
    one.wait_until_it_says("streaming from").await?;
    one.wait_until_it_says("FullBackup succeeded").await?;
    let mut two = serve(&everpoint, &second)?;
    two.wait_until_it_says("everpoint serves").await?;
    // A server of another catalog and a person are not meant.
    let others = [
        "everpoint 0123456789ab 0123456789abcdef0123456789abcdef",
        "everpoint",
    ];
    let mut sessions = Vec::new();
    for name in others {
        let session = cluster.connect("postgres").await?;
        let sql = format!("SET application_name = '{name}'");
        session.batch_execute(&sql).await?;
        sessions.push(session);
    }
    one.signal(Signal::STOP)?;
    two.wait_until_it_says("this server schedules").await?;
    two.wait_until_it_says("sessions of servers that are gone")
        .await?;
    two.wait_until_it_says("streaming from").await?;
    for session in &sessions {
        session.batch_execute("SELECT").await?;
    }
    one.signal(Signal::CONT)?;
    // It comes back as one that looks on.
    until("it is a server again", async || {
        Ok(count(&cluster, "servers").await? == 2)
    })
    .await?;
    let everybody = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'";
    assert_eq!(cluster.value("postgres", everybody).await?, "1");
    for mut server in [two, one] {
        server.signal(Signal::TERM)?;
        server.wait().await?.expect(0);
    }
    Ok(())
}

#[test]
fn another_server_takes_over_from_one_that_hangs_on_18() -> Result<()> {
    everpoint_testkit::run(another_server_takes_over_from_one_that_hangs())
}

async fn an_instance_that_is_reached_otherwise_is_taken_up_while_the_service_runs() -> Result<()> {
    let cluster = Cluster::builder(15).start().await?;
    let everpoint = Everpoint::new()?;
    everpoint.add(&cluster)?;
    let path = configure(&everpoint, "state", "", "")?;
    let mut server = serve(&everpoint, &path)?;
    server.wait_until_it_says("streaming from").await?;
    server.wait_until_it_says("FullBackup succeeded").await?;
    let connection = format!(
        "{} application_name=otherwise",
        cluster.connection_string("postgres")
    );
    let add = [
        "instance",
        "add",
        "main",
        "--connection",
        &connection,
        "--slot",
        "another",
    ];
    everpoint.succeed(add)?;
    server.signal(Signal::HUP)?;
    server.wait_until_it_says("its record has changed").await?;
    let received = "SELECT count(*) = 2 FROM pg_stat_activity WHERE application_name = 'otherwise' \
        AND (pid IN (SELECT active_pid FROM pg_replication_slots WHERE slot_name = 'another') \
            OR pid IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory'))";
    until("the other slot is received", async || {
        Ok(cluster.value("postgres", received).await? == "t")
    })
    .await?;
    let old = "SELECT active FROM pg_replication_slots WHERE slot_name = 'everpoint_main'";
    assert_eq!(cluster.value("postgres", old).await?, "f");
    everpoint.succeed(["verify", "main"])?;
    server.signal(Signal::TERM)?;
    server.wait().await?.expect(0);
    Ok(())
}

#[test]
fn an_instance_that_is_reached_otherwise_is_taken_up_while_the_service_runs_on_15() -> Result<()> {
    everpoint_testkit::run(
        an_instance_that_is_reached_otherwise_is_taken_up_while_the_service_runs(),
    )
}

async fn a_configuration_is_taken_up_while_the_service_runs() -> Result<()> {
    let everpoint = Everpoint::new()?;
    let path = configure(&everpoint, "state", "", "at_once = 2")?;
    let mut server = serve(&everpoint, &path)?;
    server.wait_until_it_says("everpoint serves").await?;
    let text = fs::read_to_string(&path)?;
    let reload = async |server: &mut Running, text: &str, says: &str| {
        fs::write(&path, text)?;
        server.signal(Signal::HUP)?;
        server.wait_until_it_says(says).await
    };
    let changed = text.replace("at_once = 2", "at_once = 3\n[limits]\nburst = 9");
    reload(&mut server, &changed, "changed: backups, limits").await?;
    let wrong = changed.replace("at_once = 3", "at_onze = 3");
    reload(&mut server, &wrong, "the earlier one still holds").await?;
    assert!(
        server.printed()?.contains("at_onze"),
        "{}",
        server.printed()?
    );
    let elsewhere = format!("location = \"elsewhere\"\n{changed}");
    reload(
        &mut server,
        &elsewhere,
        "only when the service is started again: location",
    )
    .await?;
    let nosy = format!("log = \"debug\"\n{changed}");
    reload(&mut server, &nosy, "changed: log").await?;
    assert!(server.is_alive());

    // Two servers on one state directory would spoil each other's.
    let second = serve(&everpoint, &path)?.wait().await?;
    assert_eq!(second.code, 1, "{second:?}");
    assert!(
        second.stderr.contains("another server that runs"),
        "{second:?}"
    );
    server.signal(Signal::TERM)?;
    server.wait().await?.expect(0);
    Ok(())
}

#[test]
fn a_changed_configuration_is_taken_up_and_a_wrong_one_is_not() -> Result<()> {
    everpoint_testkit::run(a_configuration_is_taken_up_while_the_service_runs())
}

async fn a_server_that_pushes_is_backed_up_and_told_of() -> Result<()> {
    let everpoint = Everpoint::of_server_user()?;
    let cluster = Cluster::builder(18)
        .setting("archive_mode = on")
        .start()
        .await?;
    push::add_pushing(&everpoint, &cluster).await?;
    let path = configure(&everpoint, "state", "", "")?;
    let mut server = serve(&everpoint, &path)?;
    server
        .wait_until_it_says("ALTER SYSTEM SET archive_timeout = '60s'")
        .await?;
    server.wait_until_it_says("FullBackup succeeded").await?;
    server.signal(Signal::TERM)?;
    server.wait().await?.expect(0);
    everpoint.verify()
}

#[test]
fn an_instance_that_pushes_its_log_is_backed_up_and_told_of_when_it_pushes_seldom() -> Result<()> {
    everpoint_testkit::run(a_server_that_pushes_is_backed_up_and_told_of())
}

/// What an operator does around the service, by the command alone.
async fn is_looked_after_by_the_command() -> Result<()> {
    let cluster = Cluster::builder(15).start().await?;
    let everpoint = Everpoint::new()?;
    everpoint.add(&cluster)?;
    let path = configure(&everpoint, "state", "", "")?;
    let config = path.to_str().context("a path")?;
    let with = |arguments: &[&str]| -> Result<Finished> {
        let mut command = everpoint.command(arguments.iter().chain(&["--config", config]));
        command.env("EVERPOINT_USER_PASSWORD", "correct horse battery staple");
        Finished::of(command)
    };

    with(&["config", "check"])?.expect(0);
    let text = fs::read_to_string(&path)?;
    for (wrong, says) in [
        (
            text.replace("[backups]", "[backups]\nfull_dey = \"monday\""),
            "full_dey",
        ),
        (
            text.replace("log_every = \"1s\"", "log_every = \"1h\""),
            "log_every",
        ),
        (
            text.replace("key_file", "key_file = \"/nowhere\" #"),
            "/nowhere",
        ),
    ] {
        fs::write(&path, wrong)?;
        let checked = with(&["config", "check"])?;
        assert_ne!(checked.code, 0, "{says}");
        checked.says(says);
    }
    fs::write(&path, &text)?;

    let mut server = serve(&everpoint, &path)?;
    server.wait_until_it_says("FullBackup succeeded").await?;
    let printed = server.printed()?;
    let label = |line: &str| {
        line.trim()
            .strip_prefix("client id")
            .map(|id| id.trim().to_owned())
    };
    let owner = printed.lines().find_map(label).context("the owner")?;
    with(&["user", "add", "ada", "--role", "Reader"])?.expect(0);
    with(&["user", "list"])?.expect(0).says("ada");
    with(&["user", "disable", "ada"])?.expect(0);
    with(&["user", "list"])?.expect(0).says("disabled");
    with(&["user", "enable", "ada"])?.expect(0);
    let elsewhere = ["user", "add", "bea", "--role", "Owner", "--scope"];
    with(&[&elsewhere[..], &["/subscriptions/nowhere"]].concat())?
        .expect(2)
        .says("is no scope");
    let nowhere = "/subscriptions/0f3a2b10-5b1c-4d1e-9c4e-2f6a7b8c9d01";
    with(&[&elsewhere[..], &[nowhere]].concat())?
        .expect(3)
        .says("no instance is in");
    let added = with(&[
        "service-principal",
        "add",
        "nightly",
        "--role",
        "Contributor",
    ])?
    .expect(0);
    added.says("secret");
    with(&["service-principal", "list"])?
        .expect(0)
        .says("nightly")
        .says(&owner);
    // The last that may do everything stays.
    with(&["service-principal", "delete", &owner])?
        .expect(3)
        .says("last owner");
    until("what the repository keeps of them", async || {
        Ok(everpoint.objects("service")?.len() > 1)
    })
    .await?;
    server.signal(Signal::TERM)?;
    server.wait().await?.expect(0);

    let audit = everpoint.path("state/audit.jsonl");
    let log = audit.to_str().context("a path")?;
    let verified = everpoint.run(["audit", "verify", log])?.expect(0);
    verified.says("lines");
    let lines = fs::read_to_string(&audit)?;
    fs::write(&audit, lines.replacen("FullBackup", "FullBackuq", 1))?;
    everpoint.run(["audit", "verify", log])?.expect(4);
    fs::write(&audit, lines)?;

    // The catalog is lost, and made anew; who may sign in is as before.
    let catalog = everpoint.path("state/catalog.db");
    with(&["catalog", "rebuild"])?.expect(3).says("--force");
    fs::rename(&catalog, everpoint.path("lost.db"))?;
    with(&["catalog", "rebuild"])?.expect(0).says("databases");
    with(&["user", "list"])?.expect(0).says("ada");
    with(&["service-principal", "list"])?.expect(0).says(&owner);
    let mut server = serve(&everpoint, &path)?;
    server.wait_until_it_says("everpoint serves").await?;
    assert!(!server.printed()?.contains("client secret"));
    server.signal(Signal::TERM)?;
    server.wait().await?.expect(0);
    Ok(())
}

#[test]
fn a_service_is_looked_after_by_the_command() -> Result<()> {
    everpoint_testkit::run(is_looked_after_by_the_command())
}
