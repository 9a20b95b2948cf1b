//! What is asked of both servers before a move by files.

use std::collections::{BTreeMap, BTreeSet};

use everpoint_pgformat::{Lsn, Oid, SystemIdentifier, TransactionId};
use tokio_postgres::types::PgLsn;

use super::{
    LoginTriggers,
    local::{self, LocalDirectory},
};
use crate::transplant::{error::MoveError, server::Session};

const WHAT: &str = "ask what its files depend on";

/// One of the two servers.
#[derive(Clone, Debug)]
pub(in crate::transplant) struct ServerFacts {
    pub(super) system_identifier: SystemIdentifier,
    pub(super) version_num: i32,
    pub(super) catalog_version: i32,
    /// What was chosen when the server was built or its cluster made, by name (`pg_control_init`).
    pub(super) layout: BTreeMap<String, String>,
    pub(super) wal_level: String,
    pub(super) next_xid: u64,
    pub(super) next_multixact: u32,
    /// Of the source, where recovery ended: positions behind it are in no page but as its own.
    pub(super) position: Lsn,
    pub(super) roles: BTreeMap<Oid, String>,
    pub(super) tablespaces: BTreeMap<Oid, String>,
    /// Or why it is of no use.
    pub(super) directory: Result<LocalDirectory, String>,
}

/// The database in the source.
#[derive(Clone, Debug)]
pub(in crate::transplant) struct DatabaseFacts {
    pub(super) oid: Oid,
    pub(super) tablespace: Oid,
    /// Tablespaces that its tables lie in by their own choice.
    pub(super) other_tablespaces: Vec<Oid>,
    pub(super) login_triggers: LoginTriggers,
    /// Roles that its objects depend on.
    pub(super) roles: BTreeSet<Oid>,
    pub(super) subscriptions: Vec<String>,
    pub(super) prepared: Vec<String>,
    /// Tables that are not heaps.
    pub(super) foreign_storage: Vec<String>,
    /// Collations in use whose data had another version when indexes were built.
    pub(super) changed_collations: Vec<String>,
    /// Columns that hold numbers of roles.
    pub(super) role_numbers: Vec<String>,
}

/// Both, and the database.
#[derive(Clone, Debug)]
pub(in crate::transplant) struct Facts {
    pub(super) source: ServerFacts,
    pub(super) target: ServerFacts,
    pub(super) database: DatabaseFacts,
}

impl Facts {
    pub(in crate::transplant) async fn read(
        source: &Session,
        target: &Session,
    ) -> Result<Self, MoveError> {
        Ok(Self {
            source: ServerFacts::read(source).await?,
            target: ServerFacts::read(target).await?,
            database: DatabaseFacts::read(source).await?,
        })
    }
}

/// Nobody else is at work in the source, so that what its snapshots end with is its next number. In the target it
/// may be further, which does no harm. Ages are signed differences of 32 bits, and number 1 is the first multixact.
const SERVER: &str = "SELECT s.system_identifier, current_setting('server_version_num')::int, \
        s.catalog_version_no, current_setting('wal_level'), \
        pg_snapshot_xmax(pg_current_snapshot())::text::int8, mxid_age('1'::xid), \
        CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() \
            ELSE coalesce(CASE WHEN $1 THEN pg_last_wal_replay_lsn() END, pg_current_wal_insert_lsn()) END \
    FROM pg_control_system() s";
const LAYOUT: &str = "SELECT key, value FROM pg_control_init() c, jsonb_each_text(to_jsonb(c))";

impl ServerFacts {
    pub(in crate::transplant) async fn read(session: &Session) -> Result<Self, MoveError> {
        let is_source = session.side == crate::transplant::Side::Source;
        let layout = session
            .all(WHAT, LAYOUT, &[], |row| {
                Ok((row.try_get(0)?, row.try_get(1)?))
            })
            .await?;
        let roles = numbers(session, "SELECT oid, rolname::text FROM pg_roles").await?;
        let tablespaces = numbers(session, "SELECT oid, spcname::text FROM pg_tablespace").await?;
        let directory = local::find(session).await?;
        let rows = session
            .all(WHAT, SERVER, &[&is_source], |row| {
                let position: PgLsn = row.try_get(6)?;
                let multixacts: i32 = row.try_get(5)?;
                Ok(Self {
                    system_identifier: SystemIdentifier::new(
                        row.try_get::<_, i64>(0)?.cast_unsigned(),
                    ),
                    version_num: row.try_get(1)?,
                    catalog_version: row.try_get(2)?,
                    layout: layout.iter().cloned().collect(),
                    wal_level: row.try_get(3)?,
                    next_xid: row.try_get::<_, i64>(4)?.cast_unsigned(),
                    next_multixact: multixacts.cast_unsigned().wrapping_add(1),
                    position: Lsn::new(position.into()),
                    roles: roles.clone(),
                    tablespaces: tablespaces.clone(),
                    directory: directory.clone(),
                })
            })
            .await?;
        rows.into_iter().next().ok_or_else(|| MoveError::Differs {
            what: "what a server says of itself".to_owned(),
            expected: "a row".to_owned(),
            found: "nothing".to_owned(),
        })
    }
}

async fn numbers(session: &Session, sql: &str) -> Result<BTreeMap<Oid, String>, MoveError> {
    let rows = session
        .all(WHAT, sql, &[], |row| {
            Ok((Oid::new(row.try_get(0)?), row.try_get(1)?))
        })
        .await?;
    Ok(rows.into_iter().collect())
}

/// The next transaction's number, at least.
pub(super) async fn next_xid(session: &Session) -> Result<u64, MoveError> {
    let sql = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::int8";
    let next: i64 = session.value(WHAT, sql, &[]).await?;
    Ok(next.cast_unsigned())
}

/// The low half of a transaction's number, as rows have it.
pub(super) fn low_half(xid: u64) -> TransactionId {
    let [.., a, b, c, d] = xid.to_be_bytes();
    TransactionId::new(u32::from_be_bytes([a, b, c, d]))
}

const DATABASE: &str = "SELECT oid, dattablespace, EXISTS (SELECT FROM pg_event_trigger \
        WHERE evtevent = 'login' AND evtenabled <> 'D') \
    FROM pg_database WHERE datname = current_database()";
const OTHER_TABLESPACES: &str = "SELECT DISTINCT reltablespace FROM pg_class \
    WHERE reltablespace NOT IN (0, 1664) AND relpersistence <> 't'";
const ROLES: &str = "SELECT DISTINCT refobjid FROM pg_shdepend \
    WHERE refclassid = 'pg_authid'::regclass \
        AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database())";
const SUBSCRIPTIONS: &str = "SELECT subname::text FROM pg_subscription \
    WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database()) ORDER BY 1";
const PREPARED: &str =
    "SELECT gid FROM pg_prepared_xacts WHERE database = current_database() ORDER BY gid";
const FOREIGN_STORAGE: &str = "SELECT c.oid::regclass::text || ' (' || a.amname || ')' \
    FROM pg_class c JOIN pg_am a ON a.oid = c.relam \
    WHERE c.relkind IN ('r', 'm', 't') AND a.amname <> 'heap' ORDER BY 1";
/// Collations that something but themselves depends on. Those that are built in are in no row of pg_depend, and
/// have no version.
const CHANGED_COLLATIONS: &str = "SELECT format('%s (%s, not %s)', oid::regcollation, \
        pg_collation_actual_version(oid), collversion) \
    FROM pg_collation WHERE collversion <> pg_collation_actual_version(oid) \
        AND oid IN (SELECT refobjid FROM pg_depend WHERE refclassid = 'pg_collation'::regclass) ORDER BY 1";
const ROLE_NUMBERS: &str = "SELECT format('%s.%I', attrelid::regclass, attname) \
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid \
    WHERE c.oid >= 16384 AND c.relkind IN ('r', 'm') AND a.attnum > 0 AND NOT a.attisdropped \
        AND a.atttypid IN ('regrole'::regtype, 'regrole[]'::regtype, 'aclitem'::regtype, 'aclitem[]'::regtype) \
    ORDER BY 1";

impl DatabaseFacts {
    async fn read(session: &Session) -> Result<Self, MoveError> {
        let rows: Vec<(u32, u32, bool)> = session
            .all(WHAT, DATABASE, &[], |row| {
                Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))
            })
            .await?;
        let (oid, tablespace, login) = rows.into_iter().next().unwrap_or_default();
        let others: Vec<u32> = session.column(WHAT, OTHER_TABLESPACES, &[]).await?;
        let roles: Vec<u32> = session.column(WHAT, ROLES, &[]).await?;
        Ok(Self {
            oid: Oid::new(oid),
            tablespace: Oid::new(tablespace),
            other_tablespaces: others.into_iter().map(Oid::new).collect(),
            login_triggers: match login {
                true => LoginTriggers::Some,
                false => LoginTriggers::None,
            },
            roles: roles.into_iter().map(Oid::new).collect(),
            subscriptions: session.column(WHAT, SUBSCRIPTIONS, &[]).await?,
            prepared: session.column(WHAT, PREPARED, &[]).await?,
            foreign_storage: session.column(WHAT, FOREIGN_STORAGE, &[]).await?,
            changed_collations: session.column(WHAT, CHANGED_COLLATIONS, &[]).await?,
            role_numbers: session.column(WHAT, ROLE_NUMBERS, &[]).await?,
        })
    }
}
