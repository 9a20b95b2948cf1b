//! What a database's objects depend on outside of it: who owns them and who may do what, and tablespaces.
//!
//! PostgreSQL keeps this in `pg_shdepend`, which all databases share, so that a role cannot be dropped while
//! something is its. Rows name objects by their numbers, which files keep; so they come as they are, under the
//! new database's number.

use std::collections::BTreeMap;

use everpoint_pgformat::Oid;

use super::{FilesPlan, LoginTriggers, conditions::changed, freeze::Frozen, refused};
use crate::transplant::{MoveError, MovePlan, server::Session};

const WHAT: &str = "record what the database depends on";
/// Rows written by one statement.
const ROWS_AT_ONCE: usize = 10_000;
/// The version from which on a database's row says whether it has event triggers on login.
const LOGIN_TRIGGERS: u16 = 17;

/// A row of `pg_shdepend`, without its database.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dependency {
    class: u32,
    object: u32,
    part: i32,
    on_class: u32,
    on_object: u32,
    kind: i8,
}

pub(super) async fn read(session: &Session) -> Result<Vec<Dependency>, MoveError> {
    let sql = "SELECT classid, objid, objsubid, refclassid, refobjid, deptype FROM pg_shdepend \
        WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())";
    session
        .all("read what the database depends on", sql, &[], |row| {
            Ok(Dependency {
                class: row.try_get(0)?,
                object: row.try_get(1)?,
                part: row.try_get(2)?,
                on_class: row.try_get(3)?,
                on_object: row.try_get(4)?,
                kind: row.try_get(5)?,
            })
        })
        .await
}

/// Gives the hidden database its dependencies, and what else its row has to say, in one transaction. Roles and
/// tablespaces can neither be dropped nor renamed until it ends, and cannot be dropped afterwards.
pub(super) async fn give(
    plan: &MovePlan,
    files: &FilesPlan,
    frozen: &Frozen,
    session: &Session,
) -> Result<(), MoveError> {
    session
        .run(
            WHAT,
            "BEGIN; LOCK TABLE pg_catalog.pg_authid, pg_catalog.pg_tablespace IN SHARE MODE",
        )
        .await?;
    let oids: Vec<u32> = files.roles.iter().map(|(oid, _)| oid.get()).collect();
    let sql = "SELECT oid, rolname::text FROM pg_roles WHERE oid = ANY ($1)";
    let roles: BTreeMap<Oid, String> = session
        .all(WHAT, sql, &[&oids], |row| {
            Ok((Oid::new(row.try_get(0)?), row.try_get(1)?))
        })
        .await?
        .into_iter()
        .collect();
    let others = changed(&files.roles, &roles);
    if !others.is_empty() {
        session.run(WHAT, "ROLLBACK").await?;
        return Err(refused(format!(
            "roles were changed while the database was being moved: {}",
            others.join(", ")
        )));
    }
    let database = plan.operation().hidden_number().get();
    for rows in frozen.dependencies.chunks(ROWS_AT_ONCE) {
        insert(session, database, rows).await?;
    }
    // The same version of the locale's data as before, be it none: whether indexes fit it was looked at.
    let version = plan.locale.version.as_deref();
    let sql = "UPDATE pg_catalog.pg_database SET datcollversion = $2 WHERE oid = $1 RETURNING oid";
    session.rows(WHAT, sql, &[&database, &version]).await?;
    if plan.target_version.get() >= LOGIN_TRIGGERS && files.login_triggers == LoginTriggers::Some {
        let sql = format!(
            "UPDATE pg_catalog.pg_database SET dathasloginevt = true WHERE oid = {database}"
        );
        session.run(WHAT, &sql).await?;
    }
    session.run(WHAT, "COMMIT").await
}

async fn insert(session: &Session, database: u32, rows: &[Dependency]) -> Result<(), MoveError> {
    fn column<T>(rows: &[Dependency], of: impl Fn(&Dependency) -> T) -> Vec<T> {
        rows.iter().map(of).collect()
    }
    let sql = "INSERT INTO pg_catalog.pg_shdepend (dbid, classid, objid, objsubid, refclassid, refobjid, deptype) \
        SELECT $1::oid, * FROM unnest($2::oid[], $3::oid[], $4::int4[], $5::oid[], $6::oid[], $7::\"char\"[]) \
        RETURNING 1";
    session
        .rows(
            WHAT,
            sql,
            &[
                &database,
                &column(rows, |row| row.class),
                &column(rows, |row| row.object),
                &column(rows, |row| row.part),
                &column(rows, |row| row.on_class),
                &column(rows, |row| row.on_object),
                &column(rows, |row| row.kind),
            ],
        )
        .await
        .map(drop)
}
