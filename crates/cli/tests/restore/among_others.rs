//! One database of twenty, restored into the server where all of them go on working.

use std::time::Duration;

use anyhow::Result;
use everpoint_testkit::{Cluster, RunningWorkload, Target, Workload};

use crate::{
    everpoint::{Everpoint, nudge},
    remains::shared,
    versions::on_oldest_and_newest,
};

/// Databases besides the one that is restored.
const OTHERS: u32 = 19;

async fn start_all(cluster: &Cluster) -> Result<Vec<(String, RunningWorkload)>> {
    let mut others = Vec::new();
    for number in 0..OTHERS {
        let name = format!("other_{number}");
        // Some lie where the restored one has tables, which the scratch must stay away from.
        let tablespace = if number % 5 == 0 {
            " TABLESPACE outside"
        } else {
            ""
        };
        cluster
            .sql("postgres", &format!("CREATE DATABASE {name}{tablespace}"))
            .await?;
        let work = Workload::new(&name)
            .writers(1)
            .pause(Duration::from_millis(40));
        others.push((name, work.start(cluster).await?));
    }
    Ok(others)
}

on_oldest_and_newest! {
    async fn one_of_twenty_at_work_comes_back_exactly_and_the_others_keep_all(server: Server) -> Result<()> {
        let mut builder = Cluster::builder(server.major()).tablespace("outside").setting("max_connections = 150");
        builder = match server.major() {
            15 => builder.without_data_checksums(),
            _ => builder.setting("wal_level = logical"),
        };
        let cluster = builder.start().await?;
        let everpoint = Everpoint::with(&cluster).await?;
        cluster.sql("postgres", "CREATE DATABASE shop").await?;
        cluster.sql("shop", "CREATE TABLE far TABLESPACE outside AS SELECT generate_series(1, 3000) AS id").await?;
        let mut others = start_all(&cluster).await?;
        let ours = Workload::new("shop").writers(2).pause(Duration::from_millis(5)).start(&cluster).await?;
        let receiver = everpoint.receive()?;
        everpoint.full().await?;
        ours.wait_for_commits(100).await?;
        cluster.sql("shop", "DELETE FROM far WHERE id > 1000").await?;
        let then = cluster.moment().await?;
        ours.wait_for_commits(100).await?;
        // One is dropped under the hands of those who work in it.
        let (name, lost) = others.remove(7);
        cluster.sql("postgres", &format!("DROP DATABASE {name} WITH (FORCE)")).await?;
        let lost = lost.stop().await?;
        cluster.sql("shop", "TRUNCATE far").await?;
        let end = nudge(&cluster).await?;
        everpoint.wait_until_stored(end).await?;
        let before = shared(&cluster).await?;

        let at = then.time.to_string();
        let done = everpoint.put_back(&["main/shop", "--at", &at, "--to", "shop_back"]).await?;
        assert_eq!(done.code, Some(0), "{done:?}");
        let which = format!("main/{name}");
        let done = everpoint.put_back(&["--deleted", &which, "--to", &name]).await?;
        assert_eq!(done.code, Some(0), "{done:?}");
        receiver.stop().await?;
        assert_eq!(shared(&cluster).await?.len(), before.len() + 2);
        everpoint.assert_scratch_empty("restored")?;

        let ours = ours.stop().await?;
        ours.check(&cluster.connect("shop_back").await?, Target::Time(then.time)).await?;
        assert_eq!(cluster.value("shop_back", "SELECT count(*) FROM far").await?, "1000");
        lost.check(&cluster.connect(&name).await?, Target::Latest).await?;
        ours.check(&cluster.connect("shop").await?, Target::Latest).await?;
        for (name, work) in others {
            work.stop().await?.check(&cluster.connect(&name).await?, Target::Latest).await?;
        }
        Ok(())
    }
}
