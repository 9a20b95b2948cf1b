//! `everpoint restore database --to --method files`: one database's files, back into the running server.

use anyhow::Result;
use everpoint_testkit::{
    Cluster,
    compare::{assert_same_database, check_integrity, fingerprint_database, schema_text},
    many_databases, mixed_data,
};

use crate::{
    everpoint::{Everpoint, REFUSED, nudge},
    into_server::databases,
    versions::on_oldest_and_newest,
};

on_oldest_and_newest! {
    async fn a_databases_files_come_back_into_the_running_server_and_are_backed_up_from_there(server: Server) -> Result<()> {
        let cluster = Cluster::builder(server.major()).start().await?;
        let everpoint = Everpoint::with(&cluster).await?;
        cluster.sql("postgres", "CREATE ROLE keeper").await?;
        cluster.sql("postgres", "CREATE DATABASE shop OWNER keeper").await?;
        cluster.sql("postgres", "ALTER DATABASE shop SET work_mem = '7MB'; COMMENT ON DATABASE shop IS 'the shop'").await?;
        mixed_data(&cluster.connect("shop").await?, 3_000_000.into()).await?;
        many_databases(&cluster, 3).await?;
        everpoint.full().await?;
        cluster.sql("shop", "CREATE TABLE late AS SELECT generate_series(1, 500) AS a; ALTER TABLE late OWNER TO keeper").await?;
        let expected = fingerprint_database(&cluster.connect("shop").await?).await?;
        let definitions = schema_text(&cluster, "shop").await?;
        let good = cluster.moment().await?.time.to_string();
        cluster.sql("shop", "DELETE FROM late; DROP TABLE mixed.event CASCADE").await?;
        let end = nudge(&cluster).await?;
        let receiver = everpoint.receive()?;
        everpoint.wait_until_stored(end).await?;

        // Another cluster is refused before anything is fetched.
        let other = Cluster::builder(server.major()).start().await?;
        let elsewhere = other.connection_string("postgres");
        let refused = everpoint
            .put_back(&["main/shop", "--at", &good, "--to", "shop", "--method", "files", "--admin-connection", &elsewhere])
            .await?;
        assert_eq!(refused.code, Some(REFUSED), "{refused:?}");
        assert!(refused.err.contains("another cluster") && !refused.err.contains("Fetching"), "{refused:?}");

        let before = databases(&cluster).await?;
        let done = everpoint
            .put_back(&["main/shop", "--at", &good, "--to", "shop_back", "--method", "files"])
            .await?;
        assert_eq!(done.code, Some(0), "{done:?}");
        let found = fingerprint_database(&cluster.connect("shop_back").await?).await?;
        assert_same_database(&expected, &found);
        assert_eq!(schema_text(&cluster, "shop_back").await?, definitions);
        let registered = "SELECT concat_ws(',', datdba::regrole, shobj_description(d.oid, 'pg_database'), setconfig)
            FROM pg_database d JOIN pg_db_role_setting s ON s.setdatabase = d.oid WHERE datname = 'shop_back'";
        assert_eq!(cluster.value("postgres", registered).await?, "keeper,the shop,{work_mem=7MB}");
        assert_eq!(databases(&cluster).await?.len(), before.len() + 1);
        assert!(everpoint.left_in_scratch()?.is_empty());
        check_integrity(&cluster).await?;

        // What came by files is in the log, and in differentials.
        cluster.sql("shop_back", "INSERT INTO late VALUES (501)").await?;
        let expected = fingerprint_database(&cluster.connect("shop_back").await?).await?;
        everpoint.wait_until_stored(nudge(&cluster).await?).await?;
        for differential in [false, true] {
            if differential {
                everpoint.differential().await?;
            }
            let to = format!("again_{differential}");
            let done = everpoint.put_back(&["main/shop_back", "--to", &to, "--method", "files"]).await?;
            assert_eq!(done.code, Some(0), "{done:?}");
            let found = fingerprint_database(&cluster.connect(&to).await?).await?;
            assert_same_database(&expected, &found);
        }
        receiver.stop().await?;
        let restored = everpoint.restore(server.major(), &["--latest"]).await?;
        let found = fingerprint_database(&restored.connect("shop_back").await?).await?;
        assert_same_database(&expected, &found);
        check_integrity(&restored).await
    }
}
