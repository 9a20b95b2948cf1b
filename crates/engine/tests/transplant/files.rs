//! Databases moved by their files.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::Result;
use everpoint_engine::transplant::{
    Event, Existing, Method, MoveError, MoveRequest, OpenSessions, Repaired, Step, execute, plan,
    repair,
};
use everpoint_testkit::{
    Cluster, StopMode,
    compare::{
        assert_same_database, check_integrity, check_stopped, fingerprint_database, schema_text,
    },
    on_every_version, run,
};

use crate::{
    copy,
    interrupted::retry_while_locked,
    support::{Said, fills_up_at, properties, request, shared},
};

const WITHOUT_SUBSCRIPTION: &str =
    "ALTER SUBSCRIPTION afar SET (slot_name = NONE); DROP SUBSCRIPTION afar";

/// A server of the same lineage, with everything as it is now.
async fn branch(living: &Cluster) -> Result<Cluster> {
    let branch = living.make_standby().await?;
    branch.wait_for_replay(living.current_lsn().await?).await?;
    branch.promote().await?;
    branch.wait_until_promoted().await?;
    // As a scratch server has it.
    branch
        .sql("postgres", "ALTER SYSTEM SET autovacuum = off")
        .await?;
    branch.sql("postgres", "SELECT pg_reload_conf()").await?;
    Ok(branch)
}

async fn by_files(
    source: &Cluster,
    target: &Cluster,
    name: &str,
    work: &Path,
) -> Result<MoveRequest> {
    let mut request = request(source, target, name, work).await?;
    request.method = Method::Files;
    Ok(request)
}

/// Directories of databases, whatever the catalog says.
fn directories(cluster: &Cluster) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(cluster.data_directory().join("base"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.bytes().all(|byte| byte.is_ascii_digit()) {
            names.insert(name);
        }
    }
    Ok(names)
}

async fn refusals(request: MoveRequest) -> Result<String> {
    match plan(request).await {
        Err(MoveError::Refused(refusals)) => Ok(refusals.to_string()),
        Err(error) => Err(error.into()),
        Ok(plan) => anyhow::bail!("not refused: {plan}"),
    }
}

on_every_version! {
    async fn everything_in_a_database_arrives_by_its_files(server: Server) -> Result<()> {
        let mut living = copy::source(server.major()).await?;
        living.sql("shop", WITHOUT_SUBSCRIPTION).await?;
        if server.major() >= 17 {
            living.sql("shop", "CREATE FUNCTION greet() RETURNS event_trigger LANGUAGE plpgsql
                AS $$ BEGIN PERFORM set_config('app.greeted', 'yes', false); END $$;
                CREATE EVENT TRIGGER greet ON login EXECUTE FUNCTION greet()").await?;
        }
        let replica = living.make_standby().await?;
        let source = branch(&living).await?;
        // The living server goes on; what is restored is as of then.
        living.sql("shop", "DELETE FROM mixed.every_type; DROP TABLE mixed.refers").await?;
        let expected = fingerprint_database(&source.connect("shop").await?).await?;
        let definitions = schema_text(&source, "shop").await?;
        let outside = properties(&source, "shop").await?;
        let dependencies = |database: &str| format!("SELECT classid::regclass, objid, objsubid, refclassid::regclass,
            refobjid, deptype FROM pg_shdepend WHERE dbid = (SELECT oid FROM pg_database WHERE datname = '{database}')
            ORDER BY 1, 2, 3, 4, 5, 6");
        let depends = source.rows("postgres", &dependencies("shop")).await?;
        let work = tempfile::tempdir()?;
        let plan = plan(by_files(&source, &living, "back", work.path()).await?).await?;
        let text = plan.to_string();
        assert!(text.contains("method      files"), "{text}");
        assert!(text.contains("numbers of roles") && text.contains("a_role"), "{text}");
        let said = Said::default();
        let moved = execute(&plan, &said.control(|_, _| {})).await?;
        assert_eq!(moved.name, "back");
        let found = fingerprint_database(&living.connect("back").await?).await?;
        assert_same_database(&expected, &found);
        assert_eq!(expected.sequences, found.sequences);
        assert!(definitions == schema_text(&living, "back").await?, "definitions differ");
        assert_eq!(properties(&living, "back").await?, outside);
        assert!(depends.len() > 5, "{depends:?}");
        assert_eq!(living.rows("postgres", &dependencies("back")).await?, depends);
        let dropped = living.sql("postgres", "DROP OWNED BY owner_of_things; DROP ROLE owner_of_things").await;
        let dropped = format!("{:#}", dropped.expect_err("the role owns things in `back`"));
        assert!(dropped.contains("objects in database back"), "{dropped}");
        if server.major() >= 17 {
            assert_eq!(living.value("back", "SHOW app.greeted").await?, "yes");
        }
        // Frozen to about now, and nothing says otherwise.
        let horizons = "SELECT count(*) FROM pg_database d WHERE datname = 'back' AND (age(datfrozenxid) > 20000
            OR EXISTS (SELECT FROM pg_class WHERE relkind IN ('r', 'm', 't') AND age(relfrozenxid) > age(datfrozenxid)))";
        assert_eq!(living.value("back", horizons).await?, "0");
        for sql in ["VACUUM", "VACUUM FREEZE", "INSERT INTO mixed.guarded (id) VALUES (99)", "REINDEX SCHEMA mixed"] {
            living.sql("back", sql).await?;
        }
        assert_eq!(living.value("postgres", "SELECT count(*) FROM pg_database WHERE datname LIKE 'everpoint%'").await?, "0");
        assert_eq!(fs::read_dir(work.path())?.count(), 0);
        replica.wait_for_replay(living.current_lsn().await?).await?;
        let there = fingerprint_database(&replica.connect("back").await?).await?;
        assert_same_database(&fingerprint_database(&living.connect("back").await?).await?, &there);
        living.sql("back", "DROP EVENT TRIGGER log_ddl; ALTER DATABASE back RESET search_path;
            ALTER DATABASE shop RESET search_path").await?;
        living.sql("shop", "DROP EVENT TRIGGER log_ddl").await?;
        check_integrity(&living).await?;
        living.stop(StopMode::Fast).await?;
        check_stopped(&living).await
    }
}

#[test]
fn nothing_is_left_of_a_move_by_files_that_died_with_the_server_at_any_step() -> Result<()> {
    run(async {
        let mut living = copy::source(15).await?;
        living.sql("shop", WITHOUT_SUBSCRIPTION).await?;
        let work = tempfile::tempdir()?;
        let before = (shared(&living).await?, directories(&living)?);
        for at in [
            Step::Journalled,
            Step::SourceStopped,
            Step::Frozen,
            Step::FilesPlaced,
            Step::Copied,
            Step::PostData,
            Step::ReadyToRegister,
            Step::Registered,
        ] {
            let source = branch(&living).await?;
            let plan = plan(by_files(&source, &living, "died", work.path()).await?).await?;
            let hidden = plan.operation().hidden_number();
            let control = Said::default().control(move |_, event| {
                assert!(*event != Event::Step(at), "as if killed");
            });
            let died = tokio::spawn(async move { execute(&plan, &control).await }).await;
            assert!(died.is_err(), "{at:?}: {died:?}");
            living.stop(StopMode::Immediate).await?;
            if at == Step::FilesPlaced {
                // What a crash within CREATE DATABASE leaves.
                let orphan = living.data_directory().join(format!("base/{hidden}"));
                fs::create_dir(&orphan)?;
                fs::write(orphan.join("16384"), [0; 8192])?;
            }
            living.start().await?;
            let spec = living.connection_string("postgres").parse()?;
            let quiet = Said::default().control(|_, _| {});
            let repaired = retry_while_locked(async || {
                repair(&spec, work.path(), OpenSessions::Refuse, &quiet).await
            })
            .await?;
            if matches!(at, Step::ReadyToRegister | Step::Registered) {
                assert_eq!(repaired, Repaired::Finished("died".to_owned()), "{at:?}");
                let count = "SELECT count(*) FROM mixed.guarded";
                assert_eq!(living.value("died", count).await?, "50");
                living.sql("postgres", "DROP DATABASE died").await?;
            } else {
                assert_eq!(repaired, Repaired::Undone, "{at:?}");
            }
            drop_slots(&living).await?;
            let after = (shared(&living).await?, directories(&living)?);
            assert_eq!(after, before, "died after {at:?}");
            assert!(!work.path().join("move.json").exists());
        }
        check_integrity(&living).await
    })
}

/// Those of servers that were branched off.
async fn drop_slots(cluster: &Cluster) -> Result<()> {
    let sql =
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active";
    cluster.sql("postgres", sql).await
}

#[test]
fn nothing_is_left_of_a_move_by_files_that_was_cancelled() -> Result<()> {
    run(async {
        let living = copy::source(18).await?;
        living.sql("shop", WITHOUT_SUBSCRIPTION).await?;
        let work = tempfile::tempdir()?;
        let before = (shared(&living).await?, directories(&living)?);
        for at in [
            Step::SourceStopped,
            Step::Frozen,
            Step::FilesPlaced,
            Step::ReadyToRegister,
        ] {
            let source = branch(&living).await?;
            let plan = plan(by_files(&source, &living, "cancelled", work.path()).await?).await?;
            let control = Said::default().control(move |control, event| {
                if *event == Event::Step(at) {
                    control.progress.cancel();
                }
            });
            let cancelled = execute(&plan, &control).await;
            let error = cancelled.expect_err("it was cancelled");
            assert!(matches!(error, MoveError::Cancelled), "{at:?}: {error}");
            let after = (shared(&living).await?, directories(&living)?);
            assert_eq!(after, before, "cancelled after {at:?}");
            assert_eq!(fs::read_dir(work.path())?.count(), 0, "{at:?}");
        }
        // The disk fills up, while files are placed and while pages are logged.
        for at in [Step::Frozen, Step::FilesPlaced] {
            let source = branch(&living).await?;
            let plan = plan(by_files(&source, &living, "filled", work.path()).await?).await?;
            let filled = execute(&plan, &fills_up_at(at)).await;
            let error = filled.expect_err("nothing has so much room");
            assert!(matches!(error, MoveError::NoRoomLeft { .. }), "{error}");
            let after = (shared(&living).await?, directories(&living)?);
            assert_eq!(after, before, "filled after {at:?}");
        }
        Ok(())
    })
}

#[test]
fn files_are_refused_where_numbers_would_mean_something_else() -> Result<()> {
    run(async {
        let living = copy::source(17).await?;
        let source = branch(&living).await?;
        let work = tempfile::tempdir()?;
        let other = Cluster::builder(17).start().await?;
        other.sql("postgres", copy::ROLES).await?;
        let text = refusals(by_files(&source, &other, "back", work.path()).await?).await?;
        assert!(text.contains("another cluster"), "{text}");
        assert!(text.contains("Leave out --method files"), "{text}");
        let text = refusals(by_files(&source, &living, "back", work.path()).await?).await?;
        assert!(
            text.contains("subscriptions are not in the database's files: afar"),
            "{text}"
        );
        source.sql("shop", WITHOUT_SUBSCRIPTION).await?;
        plan(by_files(&source, &living, "back", work.path()).await?).await?;
        living
            .sql(
                "postgres",
                "ALTER ROLE second_reader RENAME TO third_reader",
            )
            .await?;
        let text = refusals(by_files(&source, &living, "back", work.path()).await?).await?;
        assert!(
            text.contains("was second_reader and is third_reader"),
            "{text}"
        );
        // Without it, a move that began in time: what was done is undone.
        living
            .sql(
                "postgres",
                "ALTER ROLE third_reader RENAME TO second_reader",
            )
            .await?;
        let before = (shared(&living).await?, directories(&living)?);
        let made = plan(by_files(&source, &living, "back", work.path()).await?).await?;
        let said = Said::default();
        let renamed = living.connection_string("postgres");
        let control = said.control(move |_, event| {
            if *event == Event::Step(Step::Copied) {
                let status = rename_role(&renamed);
                assert!(status, "the role was not renamed");
            }
        });
        let error = execute(&made, &control)
            .await
            .expect_err("a role was renamed");
        let text = error.to_string();
        assert!(text.contains("roles were changed"), "{text}");
        living
            .sql(
                "postgres",
                "ALTER ROLE third_reader RENAME TO second_reader",
            )
            .await?;
        assert_eq!((shared(&living).await?, directories(&living)?), before);
        Ok(())
    })
}

/// Within what is said while a move runs, nothing can be awaited.
fn rename_role(connection: &str) -> bool {
    let sql = "ALTER ROLE second_reader RENAME TO third_reader";
    let connection = connection.to_owned();
    std::thread::spawn(move || {
        run(async {
            let spec: everpoint_instance::ConnectionSpec = connection.parse()?;
            let session = everpoint_instance::connect_sql(&spec, "postgres").await?;
            Ok(session.batch_execute(sql).await?)
        })
    })
    .join()
    .is_ok_and(|done| done.is_ok())
}

#[test]
fn a_row_that_is_not_frozen_whatever_the_visibility_map_says_is_not_moved() -> Result<()> {
    run(async {
        let living = Cluster::builder(16)
            .without_data_checksums()
            .start()
            .await?;
        living.sql("postgres", "CREATE DATABASE shop").await?;
        // Of fewer pages than 32 none is skipped by vacuum.
        living
            .sql(
                "shop",
                "CREATE TABLE t AS SELECT i AS a FROM generate_series(1, 30000) i",
            )
            .await?;
        living.sql("shop", "VACUUM t").await?;
        let mut source = branch(&living).await?;
        let map = source
            .value("shop", "SELECT pg_relation_filepath('t') || '_vm'")
            .await?;
        source.stop(StopMode::Fast).await?;
        // All visible, and now all frozen as well.
        let path = source.data_directory().join(map);
        let mut bytes = fs::read(&path)?;
        let map = &mut bytes[24..24 + 32];
        assert_eq!(map, [0x55; 32]);
        map.fill(0xFF);
        fs::write(&path, bytes)?;
        source.start().await?;
        living.sql("shop", "INSERT INTO t VALUES (2)").await?;
        // Ahead of what the source has written since it started again.
        living.switch_wal().await?;
        let before = (shared(&living).await?, directories(&living)?);
        let work = tempfile::tempdir()?;
        let made = plan(by_files(&source, &living, "back", work.path()).await?).await?;
        let moved = execute(&made, &Said::default().control(|_, _| {})).await;
        let text = moved.expect_err("a row is not frozen").to_string();
        assert!(text.contains("is not frozen, though"), "{text}");
        assert_eq!((shared(&living).await?, directories(&living)?), before);
        Ok(())
    })
}

#[test]
fn files_in_several_tablespaces_take_the_place_of_a_living_database() -> Result<()> {
    run(async {
        let living = Cluster::builder(15).tablespace("fast").start().await?;
        living
            .sql("postgres", "CREATE DATABASE shop TABLESPACE fast")
            .await?;
        living
            .sql(
                "shop",
                "CREATE TABLE here AS SELECT i AS a FROM generate_series(1, 5000) i;
                 CREATE INDEX ON here (a) TABLESPACE pg_default;
                 CREATE TABLE there TABLESPACE pg_default AS SELECT i AS a FROM generate_series(1, 5000) i",
            )
            .await?;
        let source = branch(&living).await?;
        living.sql("shop", "TRUNCATE here, there").await?;
        let work = tempfile::tempdir()?;
        let mut wanted = by_files(&source, &living, "shop", work.path()).await?;
        wanted.existing = Existing::Replace;
        wanted.sessions = OpenSessions::End;
        let made = plan(wanted).await?;
        let moved = execute(&made, &Said::default().control(|_, _| {})).await?;
        let query = "SELECT (SELECT sum(a) FROM here) || ' ' || (SELECT sum(a) FROM there) || ' ' || spcname
            FROM pg_database d JOIN pg_tablespace t ON t.oid = dattablespace WHERE datname = current_database()";
        assert_eq!(living.value("shop", query).await?, "12502500 12502500 fast");
        let kept = moved.kept.unwrap();
        assert_eq!(living.value(&kept, "SELECT count(*) FROM here").await?, "0");
        check_integrity(&living).await
    })
}
