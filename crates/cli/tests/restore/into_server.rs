//! `everpoint restore database --to`: one database of many, back into the running server.

use anyhow::Result;
use everpoint_testkit::{
    Cluster,
    compare::{assert_same_database, fingerprint_database, schema_text},
    mixed_data,
};

use crate::{
    everpoint::{Ended, Everpoint, REFUSED, nudge},
    versions::on_oldest_and_newest,
};

impl Everpoint {
    /// Restores a database into a server, and says how that ended.
    pub async fn put_back(&self, arguments: &[&str]) -> Result<Ended> {
        let base = self.scratch_base();
        let base = base.display().to_string();
        let mut all = vec!["restore", "database", "--scratch", &base];
        all.extend(arguments);
        self.run(&all).await
    }
}

/// The databases of a server.
pub async fn databases(cluster: &Cluster) -> Result<Vec<Vec<String>>> {
    cluster
        .rows("postgres", "SELECT datname FROM pg_database ORDER BY 1")
        .await
}

on_oldest_and_newest! {
    async fn a_database_comes_back_into_the_running_server_as_it_was(server: Server) -> Result<()> {
        let cluster = Cluster::builder(server.major()).start().await?;
        let everpoint = Everpoint::with(&cluster).await?;
        cluster.sql("postgres", "CREATE ROLE keeper").await?;
        cluster.sql("postgres", "CREATE DATABASE shop OWNER keeper").await?;
        cluster.sql("postgres", "ALTER DATABASE shop SET work_mem = '7MB'; COMMENT ON DATABASE shop IS 'the shop'").await?;
        mixed_data(&cluster.connect("shop").await?, 3_000_000.into()).await?;
        everpoint.full().await?;
        cluster.sql("shop", "CREATE TABLE late AS SELECT generate_series(1, 500) AS a").await?;
        let expected = fingerprint_database(&cluster.connect("shop").await?).await?;
        let definitions = schema_text(&cluster, "shop").await?;
        let good = cluster.moment().await?.time.to_string();
        cluster.sql("shop", "DELETE FROM late; DROP TABLE mixed.event CASCADE").await?;
        let end = nudge(&cluster).await?;
        let receiver = everpoint.receive()?;
        everpoint.wait_until_stored(end).await?;
        receiver.stop().await?;

        // Refused, all of it, before anything is fetched.
        let before = databases(&cluster).await?;
        let refused = everpoint.put_back(&["main/shop", "--at", &good, "--to", "shop"]).await?;
        assert_eq!(refused.code, Some(REFUSED), "{refused:?}");
        assert!(refused.err.contains("--replace"), "{refused:?}");
        let reserved = everpoint.put_back(&["main/shop", "--to", "template0"]).await?;
        assert_eq!(reserved.code, Some(2), "{reserved:?}");
        assert_eq!(databases(&cluster).await?, before);

        // What a move that died has left is gone afterwards.
        cluster.sql("postgres", "CREATE DATABASE everpoint_restoring_0192f0c5d4a37b3e8f0123456789abcd").await?;
        let done = everpoint.put_back(&["main/shop", "--at", &good, "--to", "shop_back"]).await?;
        assert_eq!(done.code, Some(0), "{done:?}");
        assert!(done.err.contains("removed `everpoint_restoring_0192"), "{done:?}");
        for state in ["Fetching", "Recovering", "Moving", "Checking", "Seeding replicas", "Registering", "Online"] {
            assert!(done.err.contains(state), "{state} in {done:?}");
        }
        let found = fingerprint_database(&cluster.connect("shop_back").await?).await?;
        assert_same_database(&expected, &found);
        assert_eq!(schema_text(&cluster, "shop_back").await?, definitions);
        assert!(everpoint.left_in_scratch()?.is_empty());

        // In the place of the living one.
        let session = cluster.connect("shop").await?;
        let refused = everpoint.put_back(&["main/shop", "--at", &good, "--to", "shop", "--replace"]).await?;
        assert_eq!(refused.code, Some(REFUSED), "{refused:?}");
        assert!(refused.err.contains("--end-sessions"), "{refused:?}");
        let done = everpoint
            .put_back(&["main/shop", "--at", &good, "--to", "shop", "--replace", "--end-sessions"])
            .await?;
        assert_eq!(done.code, Some(0), "{done:?}");
        assert!(session.batch_execute("SELECT 1").await.is_err());
        let found = fingerprint_database(&cluster.connect("shop").await?).await?;
        assert_same_database(&expected, &found);
        let registered = "SELECT concat_ws(',', datdba::regrole, shobj_description(d.oid, 'pg_database'), setconfig)
            FROM pg_database d JOIN pg_db_role_setting s ON s.setdatabase = d.oid WHERE datname = 'shop'";
        assert_eq!(cluster.value("postgres", registered).await?, "keeper,the shop,{work_mem=7MB}");
        let kept = "SELECT count(*) FROM pg_database WHERE datname LIKE 'shop\\_before\\_restore\\_%'
            OR datname = 'shop_back'";
        assert_eq!(cluster.value("postgres", kept).await?, "2");
        assert_eq!(databases(&cluster).await?.len(), before.len() + 2);
        Ok(())
    }
}
