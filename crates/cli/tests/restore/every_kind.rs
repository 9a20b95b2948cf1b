//! A database with something of every kind in it, back in the running server, compared in all that it holds.

use anyhow::Result;
use everpoint_testkit::{
    Cluster,
    compare::{assert_same_database, check_integrity, creation_text, database_differences},
    on_every_version, regression,
};

use crate::{
    everpoint::{Everpoint, REFUSED, store},
    into_server::databases,
};

/// What is not in a dump of definitions, or not in one of each version: of large objects, of roles, of what replays.
const BESIDES: &str = "SELECT 'large object', m.oid::text, obj_description(m.oid, 'pg_largeobject'), lomowner::regrole::text, lomacl::text
        FROM pg_largeobject_metadata m
    UNION ALL SELECT 'subscription', subname, subenabled::text, subslotname, array_to_string(subpublications, ',')
        FROM pg_subscription WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())
    UNION ALL SELECT 'populated', oid::regclass::text, relispopulated::text, NULL, NULL FROM pg_class WHERE relkind = 'm'
    UNION ALL SELECT 'index', indexrelid::regclass::text, concat_ws(',', indisvalid, indisready, indisclustered, indisreplident), NULL, NULL
        FROM pg_index WHERE indexrelid >= 16384 AND indrelid NOT IN (SELECT oid FROM pg_class WHERE relkind = 't')
    UNION ALL SELECT 'compression', attrelid::regclass::text, attname, attcompression::text, attstorage::text
        FROM pg_attribute WHERE attcompression <> '' AND attrelid >= 16384
    ORDER BY 1, 2, 3";

/// The first lines that differ, as a person wants to see them.
fn first_difference(expected: &str, found: &str) -> String {
    let mut lines = expected.lines().zip(found.lines()).enumerate();
    match lines.find(|(_, (a, b))| a != b) {
        Some((number, (a, b))) => format!("line {number}:\n- {a}\n+ {b}"),
        None => "one is longer".to_owned(),
    }
}

on_every_version! {
    async fn a_database_with_something_of_every_kind_comes_back_as_it_was(server: Server) -> Result<()> {
        let even = server.major().is_multiple_of(2);
        let mut builder = Cluster::builder(server.major()).setting("max_prepared_transactions = 5");
        builder = match even {
            true => builder.without_data_checksums(),
            false => builder.setting("wal_level = logical"),
        };
        let cluster = builder.start().await?;
        let everpoint = Everpoint::with(&cluster).await?;
        regression::begin(&cluster, "kinds").await?;
        everpoint.full().await?;
        regression::complete(&cluster, "kinds").await?;
        let open = "BEGIN; INSERT INTO kinds.journal (what) VALUES ('never'); CREATE TABLE kinds.never (id int);
            PREPARE TRANSACTION 'left ''open'''";
        cluster.sql("kinds", open).await?;
        let expected = regression::content(&cluster, "kinds").await?;
        let definitions = creation_text(&cluster, "kinds").await?;
        let besides = cluster.rows("kinds", BESIDES).await?;
        let good = cluster.moment().await?.time.to_string();
        cluster.sql("kinds", "ROLLBACK PREPARED 'left ''open'''").await?;
        cluster.sql("kinds", "DROP TABLE kinds.wide CASCADE; DELETE FROM kinds.indexed").await?;
        cluster.sql("postgres", "ALTER DATABASE kinds RENAME TO living").await?;
        store(&everpoint, &cluster).await?;
        let living = regression::content(&cluster, "living").await?;
        let before = databases(&cluster).await?;

        let done = everpoint.put_back(&["main/kinds", "--at", &good, "--to", "kinds"]).await?;
        assert_eq!(done.code, Some(0), "{done:?}");
        for said in [
            "rolled back transaction `left 'open'`",
            "unlogged tables come empty",
            "subscriptions come disabled",
            "materialized views are refreshed",
        ] {
            assert!(done.err.contains(said), "{said} in {done:?}");
        }
        assert!(!done.err.contains("did not take"), "{done:?}");
        assert_same_database(&expected, &regression::content(&cluster, "kinds").await?);
        let found = creation_text(&cluster, "kinds").await?;
        assert!(definitions == found, "{}", first_difference(&definitions, &found));
        assert_eq!(besides, cluster.rows("kinds", BESIDES).await?);
        assert_eq!(cluster.value("kinds", "SELECT count(*) FROM kinds.unlogged").await?, "0");
        assert!(database_differences(&living, &regression::content(&cluster, "living").await?).is_empty());
        assert_eq!(databases(&cluster).await?.len(), before.len() + 1);
        assert!(everpoint.left_in_scratch()?.is_empty());
        // What is defined works.
        let works = "SET app.tenant = 'x'; INSERT INTO kinds.watched VALUES (1001, 1, 'new'); INSERT INTO kinds.replaced VALUES (1, 'x');
            DELETE FROM kinds.of_type; INSERT INTO kinds.ranged VALUES (7, '2024-04-01'); INSERT INTO kinds.every_type DEFAULT VALUES;
            REFRESH MATERIALIZED VIEW CONCURRENTLY kinds.summed";
        cluster.sql("kinds", works).await?;
        let noted = "SELECT count(*) FROM kinds.journal WHERE n > (SELECT max(n) FROM kinds.journal WHERE what LIKE 'ddl%' OR what LIKE 'after_rows60') - 20
            AND what IN ('after_rows1', 'before_row INSERT an ''argument''', 'instead INSERT', 'in_partitions INSERT partition', 'ddl REFRESH MATERIALIZED VIEW')";
        assert_eq!(cluster.value("kinds", noted).await?, "5");
        let refused = cluster.sql("kinds", "INSERT INTO kinds.rooms VALUES (1, '[2024-02-01,)'), (1, '[2024-02-02,)')").await;
        assert!(refused.is_err());
        let dropped = everpoint.put_back(&["main/living", "--to", "postgres"]).await?;
        assert_ne!(dropped.code, Some(0), "{dropped:?}");
        assert_ne!(dropped.code, Some(REFUSED), "its name alone is wrong: {dropped:?}");
        regression::remove(&cluster, "living").await?;
        regression::remove(&cluster, "kinds").await?;
        check_integrity(&cluster).await
    }
}
