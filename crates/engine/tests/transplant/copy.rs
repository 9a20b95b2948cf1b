//! Everything a database holds, moved and compared.

use anyhow::Result;
use everpoint_engine::transplant::{MissingRoles, execute, plan};
use everpoint_pgformat::ByteCount;
use everpoint_testkit::{
    Cluster,
    compare::{assert_same_database, check_integrity, fingerprint_database, schema_text},
    mixed_data, on_every_version,
};

use crate::support::{EVERYTHING, PROPERTIES, Said, properties, request, shared};

pub const ROLES: &str =
    "CREATE ROLE owner_of_things; CREATE ROLE reader_of_things LOGIN; CREATE ROLE second_reader";

/// A cluster with the database `shop`, which holds something of every kind.
pub async fn source(major: u16) -> Result<Cluster> {
    let source = Cluster::builder(major).start().await?;
    source.sql("postgres", ROLES).await?;
    source.sql("postgres", "CREATE DATABASE shop").await?;
    let client = source.connect("shop").await?;
    mixed_data(&client, ByteCount::new(3 << 20)).await?;
    client.batch_execute(EVERYTHING).await?;
    source.sql("postgres", PROPERTIES).await?;
    Ok(source)
}

/// Sequences compare as they are: both were read in good order.
async fn assert_moved(source: &Cluster, target: &Cluster, name: &str) -> Result<()> {
    let expected = fingerprint_database(&source.connect("shop").await?).await?;
    let found = fingerprint_database(&target.connect(name).await?).await?;
    assert_same_database(&expected, &found);
    assert_eq!(expected.sequences, found.sequences);
    if source.major() == target.major() {
        let (expected, found) = (
            schema_text(source, "shop").await?,
            schema_text(target, name).await?,
        );
        assert!(
            expected == found,
            "definitions differ:\n{}",
            first_difference(&expected, &found)
        );
    }
    assert_eq!(
        properties(source, "shop").await?,
        properties(target, name).await?
    );
    let comment = "SELECT obj_description(700002, 'pg_largeobject')";
    assert_eq!(target.value(name, comment).await?, "zebra");
    Ok(())
}

fn first_difference(expected: &str, found: &str) -> String {
    let mut lines = expected.lines().zip(found.lines());
    match lines.find(|(a, b)| a != b) {
        Some((a, b)) => format!("- {a}\n+ {b}"),
        None => "one is longer".to_owned(),
    }
}

on_every_version! {
    async fn everything_in_a_database_arrives(server: Server) -> Result<()> {
        let source = source(server.major()).await?;
        let target = Cluster::builder(server.major()).start().await?;
        target.sql("postgres", ROLES).await?;
        let work = tempfile::tempdir()?;
        let plan = plan(request(&source, &target, "back", work.path()).await?).await?;
        let text = plan.to_string();
        assert!(text.contains("unlogged tables come empty"), "{text}");
        assert!(text.contains("subscriptions come disabled"), "{text}");
        let said = Said::default();
        let moved = execute(&plan, &said.control(|_, _| {})).await?;
        assert_eq!(moved.name, "back");
        assert!(moved.rows > 1000, "{}", moved.rows);
        assert_moved(&source, &target, "back").await?;
        let states: Vec<String> = said.events().iter().map(|event| format!("{event:?}")).collect();
        assert!(!states.iter().any(|event| event.contains("NotTaken")), "{states:?}");
        // What is done to fill it leaves no traces: nothing fired, nothing is hidden, nothing lies about.
        let subscription = "SELECT subenabled::text || subslotname FROM pg_subscription";
        assert_eq!(target.value("back", subscription).await?, "falseafar");
        assert_eq!(std::fs::read_dir(work.path())?.count(), 0);
        let analyzed = "SELECT count(*) FROM pg_statistic s WHERE starelid = 'mixed.document'::regclass";
        assert!(target.value("back", analyzed).await?.parse::<i64>()? > 5);
        target.sql("back", "DROP EVENT TRIGGER log_ddl; ALTER DATABASE back RESET search_path;
            ALTER SUBSCRIPTION afar SET (slot_name = NONE); DROP SUBSCRIPTION afar").await?;
        check_integrity(&target).await
    }
}

#[test]
fn a_newer_server_takes_an_older_ones_database() -> Result<()> {
    everpoint_testkit::run(async {
        let source = source(15).await?;
        let target = Cluster::builder(18).start().await?;
        let before = shared(&target).await?;
        let work = tempfile::tempdir()?;
        let mut request = request(&source, &target, "back", work.path()).await?;
        request.missing_roles = MissingRoles::Create;
        let plan = plan(request).await?;
        assert_eq!(
            plan.new_roles,
            ["owner_of_things", "reader_of_things", "second_reader"]
        );
        execute(&plan, &Said::default().control(|_, _| {})).await?;
        assert_moved(&source, &target, "back").await?;
        let roles = "SELECT string_agg(rolname, ',' ORDER BY rolname) FROM pg_authid
            WHERE rolname LIKE '%\\_%' AND rolname NOT LIKE 'pg\\_%' AND NOT rolcanlogin AND rolpassword IS NULL
                AND shobj_description(oid, 'pg_authid') IS NULL";
        assert_eq!(
            target.value("postgres", roles).await?,
            "owner_of_things,reader_of_things,second_reader"
        );
        assert_ne!(shared(&target).await?, before);
        Ok(())
    })
}
