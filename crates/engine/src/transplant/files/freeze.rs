//! The source: frozen, described, and stopped.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    time::Duration,
};

use everpoint_instance::{
    data_directory,
    process::{StopMode, stop_running},
};
use everpoint_pgformat::{Oid, control::ClusterState};
use futures_util::future::try_join_all;

use super::{
    FilesPlan,
    conditions::MAX_LEAD,
    dependencies::{self, Dependency},
    facts::{low_half, next_xid},
    refused,
};
use crate::transplant::{
    Control, Event, MoveError, MovePlan, Side, Step, check,
    server::{Server, Session},
    sessions::Queue,
};

/// How long the source may take to write what it has in its buffers.
const STOP_LIMIT: Duration = Duration::from_secs(600);
/// Transactions that the target is moved on by in one request.
const BURNT_AT_ONCE: u64 = 500;
/// The version from which on a table's vacuum is its children's too, unless told otherwise.
const CHILDREN_TOO: u16 = 18;
/// The version from which on a vacuum can leave the database's own horizon alone.
const DATABASE_STATS_OPTION: u16 = 16;

/// A source that stands still, and what is to be known of it.
#[derive(Debug)]
pub(super) struct Frozen {
    /// What its catalogs list.
    pub(super) counts: BTreeMap<String, i64>,
    /// How large its relations are.
    pub(super) sizes: BTreeMap<String, i64>,
    /// Files of its tables: tablespace and relfilenode.
    pub(super) heaps: HashSet<(Oid, Oid)>,
    /// What its objects depend on outside of the database.
    pub(super) dependencies: Vec<Dependency>,
}

/// Horizons of a shared table, as the target's tables have them.
struct Horizon {
    table: u32,
    frozen: String,
    multixact: String,
}

/// Freezes the database and stops its server, which nobody is going to need again.
pub(super) async fn freeze(
    plan: &MovePlan,
    files: &FilesPlan,
    target: &Server,
    control: &Control,
) -> Result<Frozen, MoveError> {
    control.progress.phase("freezing", 0);
    let from = Server::new(Side::Source, &plan.request.source);
    let database = &plan.request.source_database;
    let session = from.connect(database).await?;
    let living = target.connect_any().await?;
    session.run("prepare a session", SESSION).await?;
    let begun = next_xid(&session).await?;
    let multixact: i32 = session
        .value("ask for horizons", "SELECT mxid_age('1'::xid)", &[])
        .await?;
    give_horizons(&session, &horizons(&living).await?).await?;
    let tables = Queue::new(tables(&session).await?);
    let mut workers = Vec::new();
    for _ in 0..plan.request.jobs.max(1) {
        workers.push(vacuum_next(&from, plan, &tables));
    }
    try_join_all(workers).await?;
    // Last, since the others changed rows of it.
    let catalog = next_xid(&session).await?;
    vacuum(&session, plan, "pg_catalog.pg_class").await?;
    refuse_unfrozen(&session, begun, multixact, "c.oid <> 'pg_class'::regclass").await?;
    refuse_unfrozen(&session, catalog, multixact, "c.oid = 'pg_class'::regclass").await?;
    let frozen = Frozen {
        counts: check::counts(&session).await?,
        sizes: sizes(&session).await?,
        heaps: heaps(&session).await?,
        dependencies: dependencies::read(&session).await?,
    };
    let ends_with = next_xid(&session).await?;
    drop(session);
    catch_up(&living, ends_with).await?;
    stop(files).await?;
    control.say(Event::Step(Step::SourceStopped));
    Ok(frozen)
}

/// No limit of the database's or a role's is to end it, and nothing is gained by going slowly.
const SESSION: &str = "SET statement_timeout = 0; SET lock_timeout = 0; SET vacuum_cost_delay = 0; \
    SET default_transaction_read_only = off; SET search_path = pg_catalog";

async fn horizons(target: &Session) -> Result<Vec<Horizon>, MoveError> {
    let sql = "SELECT oid, relfrozenxid::text, relminmxid::text FROM pg_class \
        WHERE relisshared AND relkind IN ('r', 't') ORDER BY oid";
    target
        .all("ask for horizons of shared tables", sql, &[], |row| {
            Ok(Horizon {
                table: row.try_get(0)?,
                frozen: row.try_get(1)?,
                multixact: row.try_get(2)?,
            })
        })
        .await
}

/// What the target has found to hold for its shared tables holds from whatever database they are vacuumed, and for
/// ever.
async fn give_horizons(session: &Session, horizons: &[Horizon]) -> Result<(), MoveError> {
    let values: Vec<String> = horizons
        .iter()
        .map(
            |Horizon {
                 table,
                 frozen,
                 multixact,
             }| { format!("({table}::oid, '{frozen}'::xid, '{multixact}'::xid)") },
        )
        .collect();
    let sql = format!(
        "UPDATE pg_class SET relfrozenxid = frozen, relminmxid = multixact \
         FROM (VALUES {}) horizon (table_oid, frozen, multixact) \
         WHERE oid = table_oid AND relisshared",
        values.join(", ")
    );
    session.run("set horizons of shared tables", &sql).await
}

/// Largest first, so that the last ones to be vacuumed are small. Tables of sessions that are no more are left to
/// autovacuum, as `CREATE DATABASE` leaves them.
async fn tables(session: &Session) -> Result<VecDeque<String>, MoveError> {
    let sql = "SELECT format('%I.%I', n.nspname, c.relname) \
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
        WHERE c.relkind IN ('r', 'm') AND NOT c.relisshared AND c.relpersistence <> 't' \
            AND c.oid <> 'pg_class'::regclass \
        ORDER BY pg_table_size(c.oid) DESC, c.oid";
    let tables: Vec<String> = session.column("list tables", sql, &[]).await?;
    Ok(tables.into())
}

async fn vacuum_next(
    from: &Server,
    plan: &MovePlan,
    tables: &Queue<String>,
) -> Result<(), MoveError> {
    let session = from.connect(&plan.request.source_database).await?;
    session.run("prepare a session", SESSION).await?;
    while let Some(table) = tables.next() {
        vacuum(&session, plan, &table).await?;
    }
    Ok(())
}

/// Files keep their lengths, so that nothing is locked and no transaction's number is taken for it.
async fn vacuum(session: &Session, plan: &MovePlan, table: &str) -> Result<(), MoveError> {
    let version = plan.source_version.get();
    let more = match version >= DATABASE_STATS_OPTION {
        true => ", BUFFER_USAGE_LIMIT 0, SKIP_DATABASE_STATS",
        false => "",
    };
    let only = if version >= CHILDREN_TOO { "ONLY " } else { "" };
    let sql = format!("VACUUM (FREEZE, TRUNCATE false{more}) {only}{table}");
    session.run("freeze a table", &sql).await
}

/// Refuses tables that may hold transactions from before `xid` that are not frozen. What wrote since is none.
async fn refuse_unfrozen(
    session: &Session,
    xid: u64,
    multixacts: i32,
    which: &str,
) -> Result<(), MoveError> {
    let xid = low_half(xid);
    let multixact = multixacts.cast_unsigned().wrapping_add(1);
    let sql = format!(
        "SELECT c.oid::regclass::text FROM pg_class c \
         WHERE relkind IN ('r', 'm', 't') AND NOT relisshared AND relpersistence <> 't' AND {which} \
            AND (age(relfrozenxid) > age('{xid}'::xid) OR mxid_age(relminmxid) > mxid_age('{multixact}'::xid)) \
         ORDER BY 1 LIMIT 10"
    );
    let left: Vec<String> = session
        .column("look whether all is frozen", &sql, &[])
        .await?;
    match left.is_empty() {
        true => Ok(()),
        false => Err(refused(format!(
            "something in the recovered server keeps tables from being frozen: {}",
            left.join(", ")
        ))),
    }
}

/// How many relations there are, and how many bytes they have.
pub(super) async fn sizes(session: &Session) -> Result<BTreeMap<String, i64>, MoveError> {
    let sql = "SELECT format('bytes of %s relations of kind %s', count(*), relkind), \
            coalesce(sum(pg_relation_size(oid)), 0)::int8 \
        FROM pg_class WHERE pg_relation_filenode(oid) IS NOT NULL AND NOT relisshared AND relpersistence <> 't' \
        GROUP BY relkind";
    let rows = session
        .all("measure relations", sql, &[], |row| {
            Ok((row.try_get(0)?, row.try_get(1)?))
        })
        .await?;
    Ok(rows.into_iter().collect())
}

async fn heaps(session: &Session) -> Result<HashSet<(Oid, Oid)>, MoveError> {
    let sql = "SELECT coalesce(nullif(reltablespace, 0), dattablespace), pg_relation_filenode(c.oid) \
        FROM pg_class c JOIN pg_database d ON d.datname = current_database() \
        WHERE relkind IN ('r', 'm', 't') AND NOT relisshared AND relpersistence <> 't'";
    let rows = session
        .all("list files of tables", sql, &[], |row| {
            Ok((Oid::new(row.try_get(0)?), Oid::new(row.try_get(1)?)))
        })
        .await?;
    Ok(rows.into_iter().collect())
}

/// Moves the target's counter on, until no number that the source knows lies in its future.
async fn catch_up(target: &Session, source_next: u64) -> Result<(), MoveError> {
    let lead = source_next.saturating_sub(next_xid(target).await?);
    if lead > MAX_LEAD {
        return Err(refused(format!(
            "freezing took {lead} transactions more than the target knows"
        )));
    }
    let mut left = lead;
    while left > 0 {
        let now = left.min(BURNT_AT_ONCE);
        let sql: String = (0..now)
            .map(|_| "BEGIN; SELECT pg_current_xact_id(); COMMIT;")
            .collect();
        target
            .run("move on the counter of transactions", &sql)
            .await?;
        left -= now;
    }
    Ok(())
}

async fn stop(files: &FilesPlan) -> Result<(), MoveError> {
    let path = &files.source.path;
    stop_running(path, StopMode::Fast, STOP_LIMIT).await?;
    let state = data_directory::control_file(path).map(|control| control.state);
    match state {
        Ok(ClusterState::ShutDown) => Ok(()),
        found => Err(MoveError::Differs {
            what: format!("state of the stopped server in {}", path.display()),
            expected: "shut down".to_owned(),
            found: found.map_or_else(|error| error.to_string(), |state| format!("{state:?}")),
        }),
    }
}

/// Lets the new database state how far it is frozen, which it has from `template0` until then.
pub(super) async fn settle(filled: &Session, version: u16) -> Result<(), MoveError> {
    let sql = match version >= DATABASE_STATS_OPTION {
        true => "VACUUM (ONLY_DATABASE_STATS)",
        false => "VACUUM pg_catalog.pg_am",
    };
    filled.run("settle how far it is frozen", sql).await
}
