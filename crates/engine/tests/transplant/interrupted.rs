//! Moves that are cancelled, fail, or die.

use std::sync::Arc;

use anyhow::Result;
use everpoint_engine::{
    progress::Progress,
    transplant::{
        Control, Event, MoveError, MoveState, OpenSessions, Repaired, Step, execute, leftovers,
        plan, remove_leftover, repair,
    },
};
use everpoint_testkit::{Cluster, run};

use crate::{
    copy::source,
    support::{Said, carry_out, fills_up_at, request, shared},
};

const STEPS: [Step; 7] = [
    Step::Journalled,
    Step::Created,
    Step::PreData,
    Step::Rows,
    Step::PostData,
    Step::ReadyToRegister,
    Step::Registered,
];

#[test]
fn nothing_is_left_of_a_move_that_was_cancelled_or_died_at_any_step() -> Result<()> {
    run(async {
        let source = source(15).await?;
        let target = Cluster::builder(15).start().await?;
        // The roles are not there, so that making and unmaking them is tried at every step too.
        let before = shared(&target).await?;
        let work = tempfile::tempdir()?;
        let wanted = |name: &'static str| async {
            let mut request = request(&source, &target, name, work.path()).await?;
            request.missing_roles = everpoint_engine::transplant::MissingRoles::Create;
            anyhow::Ok(request)
        };
        for at in STEPS.into_iter().take(6) {
            let plan = plan(wanted("cancelled").await?).await?;
            let control = Said::default().control(move |control, event| {
                if *event == Event::Step(at) {
                    control.progress.cancel();
                }
            });
            let error = execute(&plan, &control)
                .await
                .expect_err("it was cancelled");
            assert!(matches!(error, MoveError::Cancelled), "{at:?}: {error}");
            assert_eq!(shared(&target).await?, before, "cancelled after {at:?}");
            assert_eq!(
                std::fs::read_dir(work.path())?.count(),
                0,
                "cancelled after {at:?}"
            );
        }
        // The disk fills up.
        let filling = plan(wanted("filled").await?).await?;
        let error = execute(&filling, &fills_up_at(Step::Created))
            .await
            .expect_err("nothing has so much room");
        assert!(matches!(error, MoveError::NoRoomLeft { .. }), "{error}");
        assert_eq!(shared(&target).await?, before);
        assert_eq!(std::fs::read_dir(work.path())?.count(), 0);
        for at in STEPS {
            let plan = plan(wanted("died").await?).await?;
            let control = Control::new(Progress::default(), move |event| {
                assert!(event != Event::Step(at), "as if killed");
            });
            let died = tokio::spawn(async move { execute(&plan, &control).await }).await;
            assert!(died.is_err(), "{at:?}: {died:?}");
            let spec = target.connection_string("postgres").parse()?;
            let quiet = Said::default().control(|_, _| {});
            let repaired = retry_while_locked(async || {
                repair(&spec, work.path(), OpenSessions::Refuse, &quiet).await
            })
            .await?;
            if matches!(at, Step::ReadyToRegister | Step::Registered) {
                assert_eq!(repaired, Repaired::Finished("died".to_owned()), "{at:?}");
                assert_eq!(
                    target
                        .value("died", "SELECT count(*) FROM mixed.guarded")
                        .await?,
                    "50"
                );
                target
                    .sql(
                        "died",
                        "ALTER SUBSCRIPTION afar SET (slot_name = NONE); DROP SUBSCRIPTION afar",
                    )
                    .await?;
                target.sql("postgres", "DROP DATABASE died").await?;
                for role in ["owner_of_things", "reader_of_things", "second_reader"] {
                    target.sql("postgres", &format!("DROP ROLE {role}")).await?;
                }
            } else {
                assert_eq!(repaired, Repaired::Undone, "{at:?}");
            }
            assert_eq!(shared(&target).await?, before, "died after {at:?}");
            assert!(!work.path().join("move.json").exists());
            let again = repair(&spec, work.path(), OpenSessions::Refuse, &quiet).await?;
            assert_eq!(again, Repaired::Nothing);
        }
        without_a_journal(&source, &target).await
    })
}

#[test]
fn a_move_that_died_before_its_database_had_its_name_is_told_by_the_database_itself() -> Result<()>
{
    run(async {
        let source = Cluster::builder(15).start().await?;
        source.sql("postgres", "CREATE DATABASE source").await?;
        let target = Cluster::builder(15).start().await?;
        let spec = target.connection_string("postgres").parse()?;
        let work = tempfile::tempdir()?;
        let quiet = Said::default().control(|_, _| {});
        let hidden =
            "SELECT coalesce(max(datname), '') FROM pg_database WHERE datname LIKE 'everpoint%'";
        for (at, meanwhile, expected) in [
            // Somebody else has the name.
            (
                Step::ReadyToRegister,
                "CREATE DATABASE died",
                Repaired::Undone,
            ),
            // It was removed by hand.
            (
                Step::ReadyToRegister,
                "DROP DATABASE \"{hidden}\"",
                Repaired::Undone,
            ),
            // It was registered, and called otherwise since.
            (
                Step::Registered,
                "ALTER DATABASE died RENAME TO renamed",
                Repaired::Finished("died".to_owned()),
            ),
        ] {
            let mut wanted = request(&source, &target, "died", work.path()).await?;
            wanted.source_database = "source".to_owned();
            let plan = plan(wanted).await?;
            let control = Control::new(Progress::default(), move |event| {
                assert!(event != Event::Step(at), "as if killed");
            });
            let died = tokio::spawn(async move { execute(&plan, &control).await }).await;
            assert!(died.is_err(), "{at:?}: {died:?}");
            let name = target.value("postgres", hidden).await?;
            let meanwhile = meanwhile.replace("{hidden}", &name);
            target.sql("postgres", &meanwhile).await?;
            let repaired = retry_while_locked(async || {
                repair(&spec, work.path(), OpenSessions::Refuse, &quiet).await
            })
            .await?;
            assert_eq!(repaired, expected, "{meanwhile}");
            assert_eq!(target.value("postgres", hidden).await?, "", "{meanwhile}");
            assert!(!work.path().join("move.json").exists());
            target
                .sql("postgres", "DROP DATABASE IF EXISTS died")
                .await?;
        }
        let renamed = "SELECT count(*) FROM pg_database WHERE datname = 'renamed'";
        assert_eq!(target.value("postgres", renamed).await?, "1");
        Ok(())
    })
}

/// A lost journal does not hide what is left, and what runs is not taken for a remain.
async fn without_a_journal(source: &Cluster, target: &Cluster) -> Result<()> {
    let before = shared(target).await?;
    let spec: everpoint_instance::ConnectionSpec = target.connection_string("postgres").parse()?;
    let work = tempfile::tempdir()?;
    let mut wanted = request(source, target, "died", work.path()).await?;
    wanted.missing_roles = everpoint_engine::transplant::MissingRoles::Create;
    let made = plan(wanted).await?;
    let seen = Arc::new(tokio::sync::Notify::new());
    let go_on = Arc::new(std::sync::Barrier::new(2));
    let (notify, barrier) = (Arc::clone(&seen), Arc::clone(&go_on));
    let control = Control::new(Progress::default(), move |event| {
        if event == Event::State(MoveState::Checking) {
            notify.notify_one();
            barrier.wait();
            panic!("as if killed");
        }
    });
    let moving = tokio::spawn(async move { execute(&made, &control).await });
    seen.notified().await;
    assert_eq!(leftovers(&spec).await?, [], "it runs");
    tokio::task::spawn_blocking(move || go_on.wait()).await?;
    assert!(moving.await.is_err());
    std::fs::remove_file(work.path().join("move.json"))?;
    let mut found = Vec::new();
    for _ in 0..100 {
        found = leftovers(&spec).await?;
        if !found.is_empty() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(found.len(), 1);
    remove_leftover(&spec, &found[0]).await?;
    assert_eq!(shared(target).await?, before);
    Ok(())
}

/// The server notices only some time later that a session is gone, and with it its lock.
pub async fn retry_while_locked<T>(
    attempt: impl AsyncFn() -> Result<T, MoveError>,
) -> Result<T, MoveError> {
    for _ in 0..100 {
        match attempt().await {
            Err(MoveError::Lock(_)) => {}
            other => return other,
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    attempt().await
}

#[test]
fn a_program_that_fails_is_quoted_and_everything_is_undone() -> Result<()> {
    run(async {
        let source = Cluster::builder(15).start().await?;
        source.sql("postgres", "CREATE DATABASE shop").await?;
        // Valid when it was made, and not any more: the rows that arrive are refused.
        source
            .sql(
                "shop",
                "CREATE FUNCTION fine(int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT true';
                 CREATE TABLE t (a int CHECK (fine(a))); INSERT INTO t SELECT generate_series(1, 100);
                 CREATE OR REPLACE FUNCTION fine(int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT $1 < 50'",
            )
            .await?;
        let target = Cluster::builder(15).start().await?;
        let before = shared(&target).await?;
        let work = tempfile::tempdir()?;
        let error = carry_out(request(&source, &target, "back", work.path()).await?).await;
        let error = format!("{:#}", error.unwrap_err());
        assert!(
            error.contains("public.t") && error.contains("t_a_check"),
            "{error}"
        );
        assert_eq!(shared(&target).await?, before);
        assert_eq!(std::fs::read_dir(work.path())?.count(), 0);
        Ok(())
    })
}
