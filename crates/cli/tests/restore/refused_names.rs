//! What is refused before anything is fetched, with what to do about it, and names at the edge of what is taken.

use anyhow::Result;
use everpoint_testkit::{
    Cluster,
    compare::{assert_same_database, fingerprint_database},
    run,
};

use crate::{
    everpoint::{Everpoint, REFUSED, store},
    remains::shared,
};

/// What clap ends with.
const USAGE: i32 = 2;

#[test]
fn whatever_cannot_be_done_is_refused_before_anything_is_fetched() -> Result<()> {
    run(async {
        let cluster = Cluster::builder(17)
            .setting("max_prepared_transactions = 3")
            .start()
            .await?;
        let everpoint = Everpoint::with(&cluster).await?;
        cluster.sql("postgres", "CREATE DATABASE shop").await?;
        let longest = "ü".repeat(31) + "x";
        cluster
            .sql("postgres", &format!("CREATE DATABASE \"{longest}\""))
            .await?;
        cluster
            .sql(
                "shop",
                "CREATE TABLE t AS SELECT generate_series(1, 100) AS a",
            )
            .await?;
        everpoint.full().await?;
        store(&everpoint, &cluster).await?;
        let standby = cluster.make_standby().await?;
        let before = shared(&cluster).await?;

        let too_long = "ü".repeat(32);
        let standby_connection = standby.connection_string("postgres");
        let hidden = "everpoint_restoring_0192f0c5d4a37b3e8f0123456789abcd";
        let shop = ["main/shop", "--to"];
        let cases: Vec<(Vec<&str>, i32, &str)> = vec![
            (vec!["main/shop", "--to", ""], USAGE, "needs a name"),
            (vec!["main/shop", "--to", &too_long], USAGE, "64 bytes long"),
            (
                vec!["main/shop", "--to", "a\nb"],
                USAGE,
                "control character",
            ),
            (vec!["main/shop", "--to", "template0"], USAGE, "reserved"),
            (vec!["main/shop", "--to", "template1"], USAGE, "reserved"),
            (vec!["main/shop", "--to", "postgres"], USAGE, "reserved"),
            (vec!["main/shop", "--to", hidden], USAGE, "reserved"),
            (vec!["shop", "--to", "x"], USAGE, "INSTANCE/DATABASE"),
            (
                [&shop[..], &["x", "--end-sessions"]].concat(),
                USAGE,
                "--replace",
            ),
            ([&shop[..], &["shop"]].concat(), REFUSED, "--replace"),
            (
                [&shop[..], &["x", "--replace"]].concat(),
                REFUSED,
                "Leave out --replace",
            ),
            (vec!["main/nowhere", "--to", "x"], REFUSED, "There are: "),
            (
                vec!["main/template0", "--to", "x"],
                REFUSED,
                "Restore another database",
            ),
            (vec!["nowhere/shop", "--to", "x"], REFUSED, "nowhere"),
            (
                [&shop[..], &["x", "--instance", "nowhere"]].concat(),
                REFUSED,
                "nowhere",
            ),
            (
                [&shop[..], &["x", "--at", "2020-01-01T00:00:00Z"]].concat(),
                REFUSED,
                "earliest point that can be restored: ",
            ),
            (
                [&shop[..], &["x", "--at", "2100-01-01T00:00:00Z"]].concat(),
                REFUSED,
                "latest point that can be restored is",
            ),
            (
                [&shop[..], &["x", "--lsn", "FF/0"]].concat(),
                REFUSED,
                "latest point that can be restored is",
            ),
            (
                [&shop[..], &["x", "--before", "1-0/1"]].concat(),
                REFUSED,
                "1-0/1",
            ),
            (
                [&shop[..], &["x", "--admin-connection", &standby_connection]].concat(),
                REFUSED,
                "Name the connection of its primary",
            ),
            (
                vec!["--deleted", "main/shop", "--to", "x"],
                REFUSED,
                "everpoint deleted main",
            ),
        ];
        for (arguments, code, remedy) in cases {
            let refused = everpoint.put_back(&arguments).await?;
            assert_eq!(refused.code, Some(code), "{arguments:?}: {refused:?}");
            assert!(
                refused.err.contains(remedy),
                "{remedy} for {arguments:?} in {refused:?}"
            );
            assert!(
                !refused.err.contains("Fetching"),
                "{arguments:?}: {refused:?}"
            );
        }
        // Where no socket could be.
        let deep = everpoint.place().join("d".repeat(60)).display().to_string();
        let arguments = [
            "restore",
            "database",
            "main/shop",
            "--to",
            "x",
            "--scratch",
            &deep,
        ];
        let refused = everpoint.run(&arguments).await?;
        assert_eq!(refused.code, Some(REFUSED), "{refused:?}");
        assert!(
            refused.err.contains("Choose a shorter directory"),
            "{refused:?}"
        );
        // In the way of a replacement.
        let session = cluster.connect("shop").await?;
        session.batch_execute("SET application_name = 'the shop''s clerk'; BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION 'open one'").await?;
        let refused = everpoint
            .put_back(&["main/shop", "--to", "shop", "--replace"])
            .await?;
        assert_eq!(refused.code, Some(REFUSED), "{refused:?}");
        for named in [
            "the shop's clerk",
            "--end-sessions",
            "open one",
            "ROLLBACK PREPARED",
        ] {
            assert!(refused.err.contains(named), "{named} in {refused:?}");
        }
        assert!(!refused.err.contains("Fetching"), "{refused:?}");
        session
            .batch_execute("ROLLBACK PREPARED 'open one'")
            .await?;
        drop(session);
        assert_eq!(shared(&cluster).await?, before);
        assert!(!everpoint.scratch_base().exists() || everpoint.left_in_scratch()?.is_empty());

        // The longest names do, and the name that the living one is kept under is cut between characters.
        let source = format!("main/{longest}");
        let expected = fingerprint_database(&cluster.connect("shop").await?).await?;
        let done = everpoint
            .put_back(&["main/shop", "--to", &longest, "--replace"])
            .await?;
        assert_eq!(done.code, Some(0), "{done:?}");
        let found = fingerprint_database(&cluster.connect(&longest).await?).await?;
        assert_same_database(&expected, &found);
        let kept = format!(
            "SELECT count(*) FROM pg_database WHERE datname LIKE '{}\\_before\\_restore\\_%'",
            "ü".repeat(15)
        );
        assert_eq!(cluster.value("postgres", &kept).await?, "1");
        let done = everpoint.put_back(&[&source, "--to", "short"]).await?;
        assert_eq!(done.code, Some(0), "{done:?}");
        Ok(())
    })
}
