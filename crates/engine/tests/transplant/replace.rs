//! A restored database in the place of a living one.

use std::time::Duration;

use anyhow::Result;
use everpoint_engine::transplant::{
    Event, Existing, MoveError, MoveState, OpenSessions, Refusal, execute, plan,
};
use everpoint_testkit::{Cluster, run};

use crate::support::{Said, request, shared};

#[test]
fn a_living_database_is_replaced_and_kept_while_clients_keep_connecting() -> Result<()> {
    run(async {
        let source = Cluster::builder(15).start().await?;
        source.sql("postgres", "CREATE DATABASE shop").await?;
        source
            .sql("shop", "CREATE TABLE t AS SELECT 'restored' AS a")
            .await?;
        let target = Cluster::builder(15)
            .setting("max_prepared_transactions = 5")
            .start()
            .await?;
        target.sql("postgres", "CREATE DATABASE living").await?;
        target
            .sql("living", "CREATE TABLE t AS SELECT 'living' AS a")
            .await?;
        let session = target.connect("living").await?;
        let prepared = target.connect("living").await?;
        prepared
            .batch_execute("BEGIN; INSERT INTO t VALUES ('p'); PREPARE TRANSACTION 'left open'")
            .await?;
        let work = tempfile::tempdir()?;
        let mut wanted = request(&source, &target, "living", work.path()).await?;
        wanted.existing = Existing::Replace;
        let Err(MoveError::Refused(refusals)) = plan(wanted.clone()).await else {
            panic!("not refused");
        };
        let [
            Refusal::PreparedTransactions { gids, .. },
            Refusal::OpenSessions { sessions, .. },
        ] = &refusals.0[..]
        else {
            panic!("{refusals}");
        };
        assert_eq!(gids, &["left open"]);
        assert_eq!(sessions.len(), 2);
        assert!(sessions[0].contains("everpoint-testkit"), "{sessions:?}");
        prepared
            .batch_execute("ROLLBACK PREPARED 'left open'")
            .await?;
        drop(prepared);

        wanted.sessions = OpenSessions::End;
        let plan = plan(wanted).await?;
        let kept = plan.kept.clone().unwrap();
        // Clients that connect again at once must not keep the rename from happening.
        let config = target.config("living");
        let storm = tokio::spawn(async move {
            loop {
                if let Ok((client, connection)) = config.connect(tokio_postgres::NoTls).await {
                    tokio::spawn(connection);
                    let _ = client.batch_execute("SELECT pg_sleep(1)").await;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        let said = Said::default();
        let moved = execute(&plan, &said.control(|_, _| {})).await?;
        storm.abort();
        assert_eq!(moved.kept.as_deref(), Some(kept.as_str()));
        assert!(kept.starts_with("living_before_restore_20"), "{kept}");
        assert_eq!(target.value("living", "SELECT a FROM t").await?, "restored");
        assert_eq!(target.value(&kept, "SELECT a FROM t").await?, "living");
        let ended = said.events();
        assert!(
            ended
                .iter()
                .any(|event| matches!(event, Event::SessionsEnded(_))),
            "{ended:?}"
        );
        assert!(
            session.batch_execute("SELECT 1").await.is_err(),
            "the session was to be ended"
        );
        Ok(())
    })
}

#[test]
fn a_rename_that_fails_leaves_the_living_database_as_it_was() -> Result<()> {
    run(async {
        let source = Cluster::builder(17).start().await?;
        source.sql("postgres", "CREATE DATABASE shop").await?;
        source
            .sql("shop", "CREATE TABLE t AS SELECT 'restored' AS a")
            .await?;
        let target = Cluster::builder(17).start().await?;
        target.sql("postgres", "CREATE DATABASE living").await?;
        target
            .sql("living", "CREATE TABLE t AS SELECT 'living' AS a")
            .await?;
        let work = tempfile::tempdir()?;
        for existing in [Existing::Replace, Existing::Refuse] {
            let name = match existing {
                Existing::Replace => "living",
                Existing::Refuse => "fresh",
            };
            let mut wanted = request(&source, &target, name, work.path()).await?;
            wanted.existing = existing;
            wanted.sessions = OpenSessions::End;
            let plan = plan(wanted).await?;
            // Somebody takes the name that the old one was to be kept under, or the new one was to have.
            let taken = plan.kept.clone().unwrap_or_else(|| name.to_owned());
            let config = target.config("postgres");
            let create = format!("CREATE DATABASE \"{taken}\"");
            let control = Said::default().control(move |_, event| {
                if *event == Event::State(MoveState::Checking) {
                    let (config, create) = (config.clone(), create.clone());
                    let taking = std::thread::spawn(move || {
                        run(async move {
                            let (client, connection) =
                                config.connect(tokio_postgres::NoTls).await?;
                            tokio::spawn(connection);
                            Ok(client.batch_execute(&create).await?)
                        })
                    });
                    taking.join().unwrap().unwrap();
                }
            });
            let failed = execute(&plan, &control).await;
            let Err(MoveError::NameTaken { name: said }) = failed else {
                panic!("{failed:?}");
            };
            assert_eq!(said, taken);
            target
                .sql("postgres", &format!("DROP DATABASE \"{taken}\""))
                .await?;
            assert_eq!(target.value("living", "SELECT a FROM t").await?, "living");
            let names: Vec<String> = shared(&target)
                .await?
                .into_iter()
                .filter(|row| row[0] == "database")
                .map(|row| row[1].clone())
                .collect();
            assert_eq!(names, ["living", "postgres", "template0", "template1"]);
            assert_eq!(std::fs::read_dir(work.path())?.count(), 0);
        }
        Ok(())
    })
}
