//! Databases that come and go between a full backup and a differential.

use anyhow::{Context, Result};
use everpoint_testkit::{
    Cluster, Moment,
    compare::{Fingerprint, assert_same, check_integrity, differences, fingerprint},
};

use crate::{
    everpoint::{Everpoint, nudge},
    versions::on_oldest_and_newest,
};

/// What the cluster held, and when that was.
struct State {
    what: String,
    moment: Moment,
    held: Fingerprint,
}

async fn state(cluster: &Cluster, what: &str) -> Result<State> {
    let held = fingerprint(cluster).await?;
    let moment = cluster.moment().await?;
    let what = what.to_owned();
    Ok(State { what, moment, held })
}

async fn fill(cluster: &Cluster, database: &str, first: u32) -> Result<()> {
    let table = format!(
        "CREATE TABLE content AS SELECT i AS id, md5(i::text) AS note
         FROM generate_series({first}, {first} + 999) i;
         CREATE INDEX ON content (id)"
    );
    cluster.sql(database, &table).await
}

on_oldest_and_newest! {
    async fn databases_that_come_and_go_are_restored_as_of_each_moment(server: Server) -> Result<()> {
        let major = server.major();
        let cluster = Cluster::builder(major).start().await?;
        let everpoint = Everpoint::with(&cluster).await?;
        for strategy in ["file_copy", "wal_log"] {
            cluster.sql("postgres", &format!("CREATE DATABASE {strategy} STRATEGY {strategy}")).await?;
            fill(&cluster, strategy, 1).await?;
        }
        let full = everpoint.full().await?;
        let mut states = vec![state(&cluster, "before all").await?];
        for (number, strategy) in (1..).zip(["file_copy", "wal_log"]) {
            cluster.sql("postgres", &format!("DROP DATABASE {strategy}")).await?;
            states.push(state(&cluster, &format!("{strategy} dropped")).await?);
            let create = format!("CREATE DATABASE {strategy} STRATEGY {strategy}");
            cluster.sql("postgres", &create).await?;
            states.push(state(&cluster, &format!("{strategy} created empty")).await?);
            fill(&cluster, strategy, number * 5000).await?;
            states.push(state(&cluster, &format!("{strategy} filled")).await?);
            // A copy of a database with content of its own.
            let copy = format!("CREATE DATABASE of_{strategy} TEMPLATE {strategy} STRATEGY {strategy}");
            cluster.sql("postgres", &copy).await?;
            states.push(state(&cluster, &format!("{strategy} copied")).await?);
        }
        everpoint.differential().await?;
        let last = state(&cluster, "differential").await?;
        cluster.sql("postgres", "DROP DATABASE of_file_copy").await?;
        states.push(last);
        states.push(state(&cluster, "dropped behind the differential").await?);
        let end = nudge(&cluster).await?;
        let receiver = everpoint.receive()?;
        everpoint.wait_until_stored(end).await?;
        receiver.stop().await?;

        assert!(states[0].moment.time > full.restorable_from);
        for (number, state) in states.iter().enumerate() {
            // Dropping makes its files go before it commits, which a time alone does not tell.
            let dropped_next = [0, 4, 9].contains(&number);
            let target = match dropped_next {
                true => ["--at", &state.moment.time.to_string()],
                false => ["--lsn", &state.moment.lsn.to_string()],
            };
            let restored = everpoint.restore(major, &target).await?;
            let found = fingerprint(&restored).await;
            let found = found.with_context(|| format!("{}: {target:?}", state.what))?;
            let differences = differences(&state.held, &found);
            assert!(differences.is_empty(), "{}: {differences:#?}", state.what);
        }
        let restored = everpoint.restore(major, &[]).await?;
        assert_same(&states[states.len() - 1].held, &fingerprint(&restored).await?);
        check_integrity(&restored).await
    }

    async fn database_made_anew_under_its_old_number_is_backed_up_whole(server: Server) -> Result<()> {
        let major = server.major();
        let cluster = Cluster::builder(major).start().await?;
        let everpoint = Everpoint::with(&cluster).await?;
        cluster.sql("postgres", "CREATE DATABASE one").await?;
        fill(&cluster, "one", 1).await?;
        cluster.sql("postgres", "CREATE DATABASE other TEMPLATE template0 STRATEGY file_copy").await?;
        // Files of the same names, with other contents.
        fill(&cluster, "other", 70_000).await?;
        let make = |from: &str| format!("CREATE DATABASE made OID 50000 TEMPLATE {from} STRATEGY file_copy");
        cluster.sql("postgres", &make("one")).await?;
        everpoint.full().await?;
        cluster.sql("postgres", "DROP DATABASE made").await?;
        cluster.sql("postgres", &make("other")).await?;
        everpoint.differential().await?;
        let expected = fingerprint(&cluster).await?;
        let restored = everpoint.restore(major, &[]).await?;
        assert_same(&expected, &fingerprint(&restored).await?);
        check_integrity(&restored).await
    }

    async fn database_that_moved_to_another_tablespace_and_back_is_restored(server: Server) -> Result<()> {
        let major = server.major();
        let cluster = Cluster::builder(major).tablespace("far").start().await?;
        let everpoint = Everpoint::with(&cluster).await?;
        cluster.sql("postgres", "CREATE DATABASE traveller").await?;
        fill(&cluster, "traveller", 1).await?;
        everpoint.full().await?;
        cluster.sql("postgres", "ALTER DATABASE traveller SET TABLESPACE far").await?;
        cluster.sql("traveller", "UPDATE content SET note = 'far' WHERE id % 7 = 0").await?;
        cluster.sql("postgres", "ALTER DATABASE traveller SET TABLESPACE pg_default").await?;
        everpoint.differential().await?;
        cluster.sql("postgres", "ALTER DATABASE traveller SET TABLESPACE far").await?;
        let end = nudge(&cluster).await?;
        let receiver = everpoint.receive()?;
        everpoint.wait_until_stored(end).await?;
        receiver.stop().await?;
        let expected = fingerprint(&cluster).await?;
        let place = everpoint_testkit::Scratch::new()?;
        let mapping = format!(
            "{}={}",
            cluster.tablespace_directory("far").display(),
            place.path().join("far").display()
        );
        let restored = everpoint.restore(major, &["--tablespace", &mapping]).await?;
        assert_same(&expected, &fingerprint(&restored).await?);
        check_integrity(&restored).await
    }
}
