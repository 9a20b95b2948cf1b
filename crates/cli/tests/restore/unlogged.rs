//! Unlogged relations that are half made while a backup copies them.

use anyhow::Result;
use everpoint_testkit::{Cluster, Scratch, on_every_version};

use crate::everpoint::{Everpoint, nudge};

/// An index whose making waits for an advisory lock. What it is reset to after a crash is made last.
const SLOW_INDEX: &str = "
    CREATE UNLOGGED TABLE passing AS SELECT generate_series(1, 500) AS id;
    CREATE FUNCTION slowly(id int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_advisory_lock_shared(4711);
        PERFORM pg_advisory_unlock_shared(4711);
        RETURN id;
    END
    $$";

on_every_version! {
    async fn an_index_on_an_unlogged_table_that_was_being_made_does_no_harm(server: Server) -> Result<()> {
        let cluster = Cluster::builder(server.major()).tablespace("outside").start().await?;
        let everpoint = Everpoint::with(&cluster).await?;
        cluster.sql("postgres", "CREATE DATABASE shop").await?;
        cluster.sql("shop", SLOW_INDEX).await?;
        let holder = cluster.connect("shop").await?;
        holder.batch_execute("SELECT pg_advisory_lock(4711)").await?;
        let maker = cluster.connect("shop").await?;
        let other = cluster.connect("shop").await?;
        let make = maker.batch_execute("CREATE INDEX by_id ON passing (slowly(id))");
        let elsewhere = other.batch_execute("CREATE INDEX far ON passing (slowly(id)) TABLESPACE outside");
        let meanwhile = async {
            let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND wait_event = 'advisory'";
            while cluster.value("postgres", waiting).await? != "2" {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            everpoint.full().await?;
            everpoint.differential().await?;
            holder.batch_execute("SELECT pg_advisory_unlock(4711)").await?;
            anyhow::Ok(())
        };
        let (made, too, taken) = tokio::join!(make, elsewhere, meanwhile);
        taken?;
        made?;
        too?;
        cluster.sql("shop", "CREATE TABLE kept AS SELECT 1 AS one").await?;
        let end = nudge(&cluster).await?;
        let receiver = everpoint.receive()?;
        everpoint.wait_until_stored(end).await?;
        receiver.stop().await?;
        let there = cluster.value("postgres", "SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'outside'").await?;
        let place = Scratch::new()?;
        let moved = format!("{there}={}", place.path().join("outside").display());
        let restored = everpoint.restore(server.major(), &["--latest", "--tablespace", &moved]).await?;
        assert_eq!(restored.value("shop", "SELECT one FROM kept").await?, "1");
        let used = "SET enable_seqscan = off; INSERT INTO passing VALUES (7)";
        restored.sql("shop", used).await?;
        let found = "SELECT count(*) FROM passing WHERE slowly(id) = 7";
        assert_eq!(restored.value("shop", found).await?, "1");
        let back = everpoint.put_back(&["main/shop", "--latest", "--to", "shop_back"]).await?;
        assert_eq!(back.code, Some(0), "{back:?}");
        assert_eq!(cluster.value("shop_back", "SELECT one FROM kept").await?, "1");
        Ok(())
    }
}
