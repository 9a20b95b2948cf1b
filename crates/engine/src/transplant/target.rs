//! What the target server has and lacks for the database that is to come.

use std::{
    collections::BTreeMap,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use everpoint_instance::data_directory;
use everpoint_pgformat::{ByteCount, MajorVersion};

use super::{error::MoveError, replicas::Replica, server::Session, source};
use crate::room;

const WHAT: &str = "describe the target server";

const SESSIONS: &str = "SELECT format('%s %s (%s%s)', backend_type, pid, coalesce(usename, '-'), \
        CASE WHEN application_name <> '' THEN ', ' || application_name ELSE '' END) \
    FROM pg_stat_activity WHERE datname = $1 AND backend_type <> 'autovacuum worker' ORDER BY pid";
const PREPARED: &str = "SELECT gid FROM pg_prepared_xacts WHERE database = $1 ORDER BY gid";
const SLOTS: &str =
    "SELECT slot_name::text FROM pg_replication_slots WHERE database = $1 ORDER BY 1";
/// Of the columns of pg_subscription that everybody may read.
const SUBSCRIPTIONS: &str = "SELECT subname::text FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid \
    WHERE datname = $1 ORDER BY 1";

/// The facts about the target.
#[derive(Clone, Debug)]
pub struct TargetServer {
    /// Its major version.
    pub version: MajorVersion,
    /// The role that we are.
    pub role: String,
    /// Whether that role is a superuser.
    pub superuser: bool,
    /// Whether it is a standby.
    pub in_recovery: bool,
    /// Its databases.
    pub databases: Vec<String>,
    /// Its roles.
    pub roles: Vec<String>,
    /// Its tablespaces, and where they lie.
    pub tablespaces: BTreeMap<String, PathBuf>,
    /// Names of settings it knows.
    pub settings: Vec<String>,
    /// Versions of extensions that can be made, the one made unless told otherwise first.
    pub extensions: BTreeMap<String, Vec<String>>,
    /// Room where its data directory and tablespaces lie, as far as they are on this machine.
    pub room: BTreeMap<String, ByteCount>,
    /// Why the database's locale cannot be had there, if it cannot.
    pub locale_fault: Option<String>,
    /// The version of the locale's data there.
    pub locale_version: Option<String>,
    /// Collations of the database's that cannot be made there, and why.
    pub collation_faults: Vec<String>,
    /// What uses the living database of the wanted name.
    pub users: Users,
    /// Standbys that replay its log.
    pub replicas: Vec<Replica>,
}

/// What is bound to a living database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Users {
    /// Sessions, as a person reads them.
    pub sessions: Vec<String>,
    /// Names of prepared transactions.
    pub prepared: Vec<String>,
    /// Logical replication slots.
    pub slots: Vec<String>,
    /// Subscriptions.
    pub subscriptions: Vec<String>,
}

impl TargetServer {
    /// Asks the target, for a database of this name, and of this locale as far as it is known.
    pub(super) async fn read(
        session: &Session,
        locale: Option<&source::Locale>,
        name: &str,
    ) -> Result<Self, MoveError> {
        let state: Vec<(String, bool, bool)> = session
            .all(
                WHAT,
                "SELECT current_user::text, (SELECT rolsuper FROM pg_roles WHERE rolname = current_user), \
                    pg_is_in_recovery()",
                &[],
                |row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?)),
            )
            .await?;
        let (role, superuser, in_recovery) = state.into_iter().next().unwrap_or_default();
        let tablespaces = tablespaces(session).await?;
        let (locale_fault, locale_version) = match locale {
            Some(locale) if superuser && !in_recovery => try_locale(session, locale).await?,
            _ => (None, None),
        };
        Ok(Self {
            version: source::version(session).await?,
            role,
            superuser,
            in_recovery,
            databases: session
                .column(WHAT, "SELECT datname::text FROM pg_database", &[])
                .await?,
            roles: session
                .column(WHAT, "SELECT rolname::text FROM pg_roles", &[])
                .await?,
            room: room(&tablespaces),
            tablespaces,
            settings: session
                .column(WHAT, "SELECT lower(name) FROM pg_settings", &[])
                .await?,
            extensions: extensions(session).await?,
            locale_fault,
            locale_version,
            collation_faults: Vec::new(),
            users: Users::read(session, name).await?,
            replicas: super::replicas::read(session).await?,
        })
    }
}

impl TargetServer {
    /// Counts out room that something else takes on the file system of `place`, which need not be there yet.
    pub(super) fn set_aside(&mut self, place: &Path, bytes: ByteCount) {
        let Some(device) = place.ancestors().find_map(file_system) else {
            return;
        };
        for (name, room) in &mut self.room {
            let path = self.tablespaces.get(name);
            if path.and_then(|path| file_system(path)) == Some(device) {
                *room = ByteCount::new(room.get().saturating_sub(bytes.get()));
            }
        }
    }
}

/// The file system that a directory is on, if it is there.
fn file_system(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().map(|found| found.dev())
}

impl Users {
    /// What is bound to a database of the target.
    pub(super) async fn read(session: &Session, database: &str) -> Result<Self, MoveError> {
        Ok(Self {
            sessions: session.column(WHAT, SESSIONS, &[&database]).await?,
            prepared: session.column(WHAT, PREPARED, &[&database]).await?,
            slots: session.column(WHAT, SLOTS, &[&database]).await?,
            subscriptions: session.column(WHAT, SUBSCRIPTIONS, &[&database]).await?,
        })
    }
}

/// All tablespaces but that of shared catalogs, and their directories.
pub(super) async fn tablespaces(session: &Session) -> Result<BTreeMap<String, PathBuf>, MoveError> {
    let sql = "SELECT spcname::text, coalesce(nullif(pg_tablespace_location(oid), ''), \
            CASE WHEN pg_has_role('pg_read_all_settings', 'USAGE') THEN current_setting('data_directory') END, '') \
        FROM pg_tablespace WHERE spcname <> 'pg_global'";
    let rows = session
        .all(WHAT, sql, &[], |row| {
            Ok((row.try_get(0)?, row.try_get::<_, String>(1)?.into()))
        })
        .await?;
    Ok(rows.into_iter().collect())
}

/// Room is known where the directory is on this machine. What a move leaves to the server is none.
fn room(tablespaces: &BTreeMap<String, PathBuf>) -> BTreeMap<String, ByteCount> {
    let known = tablespaces.iter().filter_map(|(name, path)| {
        let space = data_directory::space(path).ok()?;
        let left = room::left(space.total).get();
        let room = space.available.get().saturating_sub(left);
        Some((name.clone(), ByteCount::new(room)))
    });
    known.collect()
}

async fn extensions(session: &Session) -> Result<BTreeMap<String, Vec<String>>, MoveError> {
    let sql = "SELECT v.name::text, v.version FROM pg_available_extension_versions v \
        JOIN pg_available_extensions e USING (name) ORDER BY v.version <> e.default_version";
    let rows: Vec<(String, String)> = session
        .all(WHAT, sql, &[], |row| Ok((row.try_get(0)?, row.try_get(1)?)))
        .await?;
    let mut extensions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, version) in rows {
        extensions.entry(name).or_default().push(version);
    }
    Ok(extensions)
}

/// Tries the database's locale. Returns why it cannot be had, or of what version its data are.
async fn try_locale(
    session: &Session,
    wanted: &source::Locale,
) -> Result<(Option<String>, Option<String>), MoveError> {
    // A locale of libc is bound to an encoding, and only this database's can be tried.
    if wanted.provider == "libc" && encoding(session).await? != wanted.encoding {
        return Ok((None, None));
    }
    let options = options(
        &wanted.provider,
        wanted.locale.as_deref(),
        (&wanted.collate, &wanted.ctype),
    );
    try_collation(session, &options).await
}

/// Tries the collations that users have made in the database. Returns those that cannot be had, and why.
pub(super) async fn try_collations(
    session: &Session,
    wanted: &source::SourceDatabase,
) -> Result<Vec<String>, MoveError> {
    let same_encoding =
        !wanted.collations.is_empty() && encoding(session).await? == wanted.locale.encoding;
    let mut faults = Vec::new();
    for collation in &wanted.collations {
        if collation.provider == "libc" && !same_encoding {
            continue;
        }
        let text = |part: &Option<String>| part.clone().unwrap_or_default();
        let options = options(
            &collation.provider,
            collation.locale.as_deref(),
            (&text(&collation.collate), &text(&collation.ctype)),
        );
        if let (Some(fault), _) = try_collation(session, &options).await? {
            faults.push(format!("{} ({fault})", collation.name));
        }
    }
    Ok(faults)
}

async fn encoding(session: &Session) -> Result<String, MoveError> {
    let sql = "SELECT pg_encoding_to_char(encoding)::text FROM pg_database WHERE datname = current_database()";
    session.value(WHAT, sql, &[]).await
}

fn options(provider: &str, locale: Option<&str>, (collate, ctype): (&str, &str)) -> String {
    let quote = everpoint_instance::grant::quote_literal;
    match locale {
        Some(locale) => format!("provider = {provider}, locale = {}", quote(locale)),
        None => format!(
            "provider = libc, lc_collate = {}, lc_ctype = {}",
            quote(collate),
            quote(ctype)
        ),
    }
}

/// Makes a collation in a transaction that is rolled back: PostgreSQL loads its locale, or says why not.
async fn try_collation(
    session: &Session,
    options: &str,
) -> Result<(Option<String>, Option<String>), MoveError> {
    let what = "try a locale";
    session.run(what, "BEGIN").await?;
    let tried = session
        .run(
            what,
            &format!("CREATE COLLATION pg_temp.everpoint_try ({options})"),
        )
        .await;
    let found = match tried {
        Ok(()) => {
            let version =
                "SELECT pg_collation_actual_version('pg_temp.everpoint_try'::regcollation)";
            Ok((None, session.value(what, version, &[]).await?))
        }
        Err(MoveError::Statement { message, .. }) => Ok((Some(message.to_string()), None)),
        Err(error) => Err(error),
    };
    session.run(what, "ROLLBACK").await?;
    found
}
