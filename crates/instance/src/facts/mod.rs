//! What a running server says about itself.

mod settings;

use std::collections::HashMap;

use everpoint_pgformat::{
    Lsn, MajorVersion, Oid, SystemIdentifier, TimelineId, control::Checksums,
    version::UnsupportedVersion, wal::segment::SegmentSize,
};
use jiff::Timestamp;
use tokio_postgres::{Client, Row, types::PgLsn};

use self::settings::{SETTINGS, Settings};
use crate::connect::QueryError;

const WHAT: &str = "read the server's settings and catalogs";

/// An expression: a server's timeline, an `int`. Of one in recovery it is the newest that it has replayed or receives;
/// only `IDENTIFY_SYSTEM` knows better.
pub const TIMELINE: &str = "CASE WHEN pg_is_in_recovery() \
            THEN (SELECT greatest(checkpoint.timeline_id, recovery.min_recovery_end_timeline, \
                    (SELECT received_tli FROM pg_stat_wal_receiver LIMIT 1)) \
                FROM pg_control_checkpoint() AS checkpoint, pg_control_recovery() AS recovery) \
            ELSE ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int \
        END";
/// What goes before [`TIMELINE`] and behind.
const STATE: [&str; 2] = [
    "SELECT pg_control_system.system_identifier, pg_is_in_recovery() AS in_recovery, \
        clock_timestamp() AS server_time, pg_postmaster_start_time() AS started_at, ",
    " AS timeline, \
        CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() \
        END AS wal_end, \
        (SELECT count(*) FROM pg_replication_slots) AS used_slots, \
        (SELECT count(*) FROM pg_stat_replication) AS used_senders, \
        current_user::text AS role, \
        (SELECT rolname::text FROM pg_roles WHERE oid = 10) AS bootstrap_superuser \
    FROM pg_control_system()",
];

const TABLESPACES: &str = "SELECT oid, spcname::text, pg_tablespace_location(oid) \
    FROM pg_tablespace ORDER BY oid";
const DATABASES: &str = "SELECT oid, datname::text, dattablespace, datistemplate, datallowconn, \
        datconnlimit FROM pg_database ORDER BY oid";

/// `datconnlimit` of a database whose DROP was begun (`DATCONNLIMIT_INVALID_DB`, `pg_database.h`).
const DROP_BEGUN: i32 = -2;

/// What a server says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFacts {
    /// `server_version_num`, such as 150018.
    pub version_num: u32,
    /// The major version.
    pub major: MajorVersion,
    /// Which cluster this is.
    pub system_identifier: SystemIdentifier,
    /// The data directory, as the server sees it.
    pub data_directory: String,
    /// The port it listens on.
    pub port: u16,
    /// How much goes into WAL.
    pub wal_level: WalLevel,
    /// The size of WAL segments.
    pub segment_size: SegmentSize,
    /// Bytes in a page of a relation.
    pub block_size_bytes: u32,
    /// Bytes in a page of WAL.
    pub wal_block_size_bytes: u32,
    /// Whether pages carry checksums.
    pub checksums: Checksums,
    /// Primary or standby.
    pub role: ServerRole,
    /// The timeline it is on.
    pub timeline: TimelineId,
    /// The end of flushed WAL; of a standby, of replayed WAL.
    pub wal_end: Lsn,
    /// Replication slots there can be.
    pub max_replication_slots: u32,
    /// Replication slots there are.
    pub used_replication_slots: u32,
    /// Replication connections there can be.
    pub max_wal_senders: u32,
    /// Replication connections there are.
    pub used_wal_senders: u32,
    /// What slots may hold back at most, in megabytes; `None` means everything.
    pub max_slot_wal_keep_size_mb: Option<u64>,
    /// What is kept without any slot, in megabytes.
    pub wal_keep_size_mb: u64,
    /// After how long without an answer a receiver is disconnected, in milliseconds; 0 means never.
    pub wal_sender_timeout_ms: u64,
    /// Whether the first change of a page after a checkpoint logs it whole.
    pub full_page_writes: bool,
    /// When the server archives WAL itself.
    pub archive_mode: ArchiveMode,
    /// By what command.
    pub archive_command: String,
    /// Whether the server summarises WAL (17 and later).
    pub summarize_wal: bool,
    /// The server's clock.
    pub server_time: Timestamp,
    /// When it was started.
    pub started_at: Timestamp,
    /// The role that asked.
    pub connected_as: String,
    /// The role that `initdb` made (`BOOTSTRAP_SUPERUSERID`): it is in every copy of the cluster, so a
    /// scratch server can be reached as it.
    pub bootstrap_superuser: String,
    /// Its tablespaces, by OID.
    pub tablespaces: Vec<Tablespace>,
    /// Its databases, by OID.
    pub databases: Vec<Database>,
}

/// `wal_level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WalLevel {
    /// Enough for crash recovery only.
    Minimal,
    /// Enough for backups and physical replication.
    Replica,
    /// Enough for logical decoding too.
    Logical,
}

/// What part a server plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerRole {
    /// It takes writes.
    Primary,
    /// It is in recovery.
    Standby,
}

/// `archive_mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchiveMode {
    /// Never.
    Off,
    /// As a primary.
    On,
    /// As a standby too.
    Always,
}

/// A tablespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tablespace {
    /// Its OID.
    pub oid: Oid,
    /// Its name.
    pub name: String,
    /// Where it lies.
    pub location: TablespaceLocation,
}

/// Where a tablespace lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TablespaceLocation {
    /// In the data directory: `pg_default` and `pg_global`.
    BuiltIn,
    /// In the data directory's `pg_tblspc/OID`, a directory (`allow_in_place_tablespaces`).
    InPlace,
    /// In a directory of its own, which `pg_tblspc/OID` links to.
    Directory(String),
}

/// A database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Database {
    /// Its OID.
    pub oid: Oid,
    /// Its name.
    pub name: String,
    /// Its default tablespace.
    pub tablespace: Oid,
    /// Whether anybody may copy it.
    pub is_template: bool,
    /// Whether it takes connections.
    pub allows_connections: bool,
    /// Whether its DROP was begun and not finished: it can only be dropped.
    pub drop_begun: bool,
}

/// The facts cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FactsError {
    /// A query failed.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// A setting is kept from the role.
    #[error(
        "role `{role}` may not see the setting `{setting}`. As a superuser: GRANT pg_read_all_settings TO \"{role}\""
    )]
    HiddenSetting {
        /// The setting.
        setting: &'static str,
        /// The role.
        role: String,
    },
    /// A setting has a value that is not known.
    #[error("the setting `{setting}` has the unknown value `{value}`")]
    UnknownValue {
        /// The setting.
        setting: &'static str,
        /// The value.
        value: String,
    },
    /// Too old or too new.
    #[error(transparent)]
    Version(#[from] UnsupportedVersion),
}

impl ServerFacts {
    /// Asks the server. Works on primaries and standbys, for the role that [`crate::grant_script`] makes.
    ///
    /// # Errors
    /// See [`FactsError`].
    pub async fn read(client: &Client) -> Result<Self, FactsError> {
        let failed = QueryError::when(WHAT);
        let names: Vec<&str> = SETTINGS.to_vec();
        let rows = client
            .query(
                "SELECT name, setting FROM pg_settings WHERE name = ANY ($1)",
                &[&names],
            )
            .await
            .map_err(failed)?;
        let mut values = HashMap::new();
        for row in &rows {
            values.insert(get::<String>(row, 0)?, get::<String>(row, 1)?);
        }
        let state = STATE.join(TIMELINE);
        let state = client.query_one(&state, &[]).await.map_err(failed)?;
        let settings = Settings {
            role: get(&state, "role")?,
            values,
        };
        let tablespaces = client.query(TABLESPACES, &[]).await.map_err(failed)?;
        let databases = client.query(DATABASES, &[]).await.map_err(failed)?;
        let version_num = settings.number("server_version_num")?;
        let system_identifier: i64 = get(&state, "system_identifier")?;
        let timeline: i32 = get(&state, "timeline")?;
        let wal_end: Option<PgLsn> = get(&state, "wal_end")?;
        Ok(Self {
            version_num,
            major: MajorVersion::from_version_num(version_num)?,
            system_identifier: SystemIdentifier::new(system_identifier.cast_unsigned()),
            data_directory: settings.text("data_directory")?.to_owned(),
            port: settings.number("port")?,
            wal_level: settings.one_of(
                "wal_level",
                &[
                    ("minimal", WalLevel::Minimal),
                    ("replica", WalLevel::Replica),
                    ("logical", WalLevel::Logical),
                ],
            )?,
            segment_size: settings.segment_size()?,
            block_size_bytes: settings.number("block_size")?,
            wal_block_size_bytes: settings.number("wal_block_size")?,
            checksums: match settings.on("data_checksums")? {
                true => Checksums::On,
                false => Checksums::Off,
            },
            role: match get(&state, "in_recovery")? {
                true => ServerRole::Standby,
                false => ServerRole::Primary,
            },
            timeline: TimelineId::new(timeline.cast_unsigned())
                .ok_or_else(|| QueryError::answer(WHAT, "timeline 0"))?,
            wal_end: wal_end.map_or(Lsn::INVALID, |lsn| Lsn::new(lsn.into())),
            max_replication_slots: settings.number("max_replication_slots")?,
            used_replication_slots: count(&state, "used_slots")?,
            max_wal_senders: settings.number("max_wal_senders")?,
            used_wal_senders: count(&state, "used_senders")?,
            max_slot_wal_keep_size_mb: u64::try_from(
                settings.number::<i64>("max_slot_wal_keep_size")?,
            )
            .ok(),
            wal_keep_size_mb: settings.number("wal_keep_size")?,
            wal_sender_timeout_ms: settings.number("wal_sender_timeout")?,
            full_page_writes: settings.on("full_page_writes")?,
            archive_mode: settings.one_of(
                "archive_mode",
                &[
                    ("off", ArchiveMode::Off),
                    ("on", ArchiveMode::On),
                    ("always", ArchiveMode::Always),
                ],
            )?,
            archive_command: settings.text("archive_command")?.to_owned(),
            summarize_wal: settings.on("summarize_wal")?,
            server_time: get(&state, "server_time")?,
            started_at: get(&state, "started_at")?,
            connected_as: settings.role,
            bootstrap_superuser: get(&state, "bootstrap_superuser")?,
            tablespaces: tablespaces
                .iter()
                .map(tablespace)
                .collect::<Result<_, _>>()?,
            databases: databases.iter().map(database).collect::<Result<_, _>>()?,
        })
    }

    /// The database of that name.
    pub fn database(&self, name: &str) -> Option<&Database> {
        self.databases.iter().find(|database| database.name == name)
    }
}

fn tablespace(row: &Row) -> Result<Tablespace, FactsError> {
    let location: String = get(row, 2)?;
    Ok(Tablespace {
        oid: Oid::new(get(row, 0)?),
        name: get(row, 1)?,
        location: match location.as_str() {
            "" => TablespaceLocation::BuiltIn,
            absolute if absolute.starts_with('/') => TablespaceLocation::Directory(location),
            _ => TablespaceLocation::InPlace,
        },
    })
}

fn database(row: &Row) -> Result<Database, FactsError> {
    Ok(Database {
        oid: Oid::new(get(row, 0)?),
        name: get(row, 1)?,
        tablespace: Oid::new(get(row, 2)?),
        is_template: get(row, 3)?,
        allows_connections: get(row, 4)?,
        drop_begun: get::<i32>(row, 5)? == DROP_BEGUN,
    })
}

fn get<'a, T: tokio_postgres::types::FromSql<'a>>(
    row: &'a Row,
    column: impl tokio_postgres::row::RowIndex + std::fmt::Display,
) -> Result<T, FactsError> {
    row.try_get(column)
        .map_err(|error| QueryError::answer(WHAT, error).into())
}

fn count(row: &Row, column: &str) -> Result<u32, FactsError> {
    let number: i64 = get(row, column)?;
    u32::try_from(number).map_err(|error| QueryError::answer(WHAT, error).into())
}
