//! What the source database is, as far as it lies outside the database itself or decides whether it can be moved.

use std::collections::BTreeSet;

use everpoint_pgformat::{ByteCount, MajorVersion};
use serde::{Deserialize, Serialize};

use super::{
    error::{MoveError, Side},
    server::Session,
};

const WHAT: &str = "describe the database";

/// The facts about the database to be moved.
#[derive(Clone, Debug)]
pub struct SourceDatabase {
    /// Its name in the source.
    pub name: String,
    /// The source's major version.
    pub version: MajorVersion,
    /// How it is to be created.
    pub locale: Locale,
    /// What is registered with it.
    pub properties: Properties,
    /// Roles that own things in it, are granted something, or have settings in it.
    pub roles: BTreeSet<String>,
    /// Tablespaces that its tables and indexes lie in, besides its own.
    pub tablespaces: BTreeSet<String>,
    /// Extensions, with their versions.
    pub extensions: Vec<(String, String)>,
    /// Collations that users have made.
    pub collations: Vec<Collation>,
    /// Its size on disk.
    pub size: ByteCount,
    /// What does not come along, or not as it was.
    pub remarks: Vec<String>,
    /// And what does not when it is copied.
    pub remarks_of_copies: Vec<String>,
}

/// How a database's text is encoded, sorted and classified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Locale {
    /// The encoding.
    pub encoding: String,
    /// `libc`, `icu` or `builtin`.
    pub provider: String,
    /// `LC_COLLATE`.
    pub collate: String,
    /// `LC_CTYPE`.
    pub ctype: String,
    /// The provider's own locale.
    pub locale: Option<String>,
    /// Tailoring rules of ICU.
    pub icu_rules: Option<String>,
    /// The version of the provider's data that indexes were built by.
    pub version: Option<String>,
    /// The database's own tablespace.
    pub tablespace: String,
}

/// A collation that users have made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collation {
    /// Schema and name, quoted.
    pub name: String,
    /// `libc`, `icu` or `builtin`.
    pub provider: String,
    /// `LC_COLLATE`, of libc's.
    pub collate: Option<String>,
    /// `LC_CTYPE`, of libc's.
    pub ctype: Option<String>,
    /// The provider's own locale, of others.
    pub locale: Option<String>,
}

/// What is given to the database together with its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Properties {
    /// Its owner.
    pub owner: String,
    /// How many sessions it takes; -1 for any number.
    pub connection_limit: i32,
    /// Whether anybody may copy it.
    pub is_template: bool,
    /// Who may do what.
    pub grants: Vec<Grant>,
    /// `ALTER DATABASE … SET` and `ALTER ROLE … IN DATABASE … SET`.
    pub settings: Vec<Setting>,
    /// Its comment.
    pub comment: Option<String>,
    /// Security labels: provider and label.
    pub labels: Vec<(String, String)>,
}

/// One right on the database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Who gave it.
    pub grantor: String,
    /// Who has it; `None` for everybody.
    pub grantee: Option<String>,
    /// Which.
    pub privilege: String,
    /// Whether it may be passed on.
    pub grantable: bool,
}

/// One setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// For whom; `None` for everybody.
    pub role: Option<String>,
    /// Its name.
    pub name: String,
    /// Its value, as the catalog has it.
    pub value: String,
}

const GRANTS: &str = "SELECT \
        g.privilege_type, g.is_grantable, \
        (SELECT rolname::text FROM pg_roles WHERE oid = g.grantor), \
        (SELECT rolname::text FROM pg_roles WHERE oid = g.grantee) \
    FROM pg_database d, LATERAL aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) g \
    WHERE d.datname = current_database() \
    ORDER BY g.grantor <> d.datdba";
const SETTINGS: &str = "SELECT r.rolname::text, setting \
    FROM pg_db_role_setting s LEFT JOIN pg_roles r ON r.oid = s.setrole, unnest(s.setconfig) setting \
    WHERE s.setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())";
/// Pinned roles are in no row of pg_shdepend; of these only the bootstrap superuser owns what users make.
const ROLES: &str = "SELECT DISTINCT r.rolname::text \
    FROM pg_shdepend s JOIN pg_roles r ON r.oid = s.refobjid \
    JOIN pg_database d ON d.datname = current_database() \
    WHERE s.refclassid = 'pg_authid'::regclass \
        AND (s.dbid = d.oid OR (s.dbid = 0 AND s.classid = 'pg_database'::regclass AND s.objid = d.oid)) \
    UNION SELECT r.rolname::text FROM pg_db_role_setting s JOIN pg_roles r ON r.oid = s.setrole \
    WHERE s.setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database()) \
    UNION SELECT r.rolname::text FROM pg_roles r WHERE r.oid = 10 AND ( \
        EXISTS (SELECT FROM pg_class WHERE relowner = 10 AND oid >= 16384 AND relkind <> 't') \
        OR EXISTS (SELECT FROM pg_proc WHERE proowner = 10 AND oid >= 16384) \
        OR EXISTS (SELECT FROM pg_namespace WHERE nspowner = 10 AND oid >= 16384) \
        OR EXISTS (SELECT FROM pg_database WHERE datdba = 10 AND datname = current_database()))";
const TABLESPACES: &str = "SELECT DISTINCT t.spcname::text \
    FROM pg_class c JOIN pg_tablespace t ON t.oid = c.reltablespace \
    WHERE c.oid >= 16384 AND t.spcname <> 'pg_global'";
/// Things to be said before they are missed: what, and how many or which.
const REMARKS: &str = "SELECT * FROM ( \
    SELECT 'unlogged tables come empty, as recovery leaves them: ' || string_agg(oid::regclass::text, ', ' ORDER BY oid) \
        FROM pg_class WHERE relpersistence = 'u' AND relkind = 'r' \
    UNION ALL SELECT 'foreign tables come without data, which lies elsewhere: ' || string_agg(oid::regclass::text, ', ' ORDER BY oid) \
        FROM pg_class WHERE relkind = 'f' \
    ) remark (text) WHERE text IS NOT NULL";
/// And of a copy, which makes definitions anew.
const REMARKS_OF_COPIES: &str = "SELECT * FROM ( \
    SELECT 'subscriptions come disabled, and without a connection: ' || string_agg(subname, ', ' ORDER BY subname) \
        FROM pg_subscription WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database()) \
    UNION ALL SELECT 'materialized views are refreshed: ' || string_agg(oid::regclass::text, ', ' ORDER BY oid) \
        FROM pg_class WHERE relkind = 'm' AND relispopulated \
    UNION ALL SELECT 'indexes that are not valid are left out: ' || string_agg(indexrelid::regclass::text, ', ' ORDER BY indexrelid) \
        FROM pg_index WHERE NOT indisvalid AND indrelid NOT IN (SELECT partrelid FROM pg_partitioned_table) \
    UNION ALL SELECT 'prepared transactions are not part of what is restored: ' || string_agg(gid, ', ' ORDER BY gid) \
        FROM pg_prepared_xacts WHERE database = current_database() \
    ) remark (text) WHERE text IS NOT NULL";

impl SourceDatabase {
    /// Asks the source.
    pub(super) async fn read(session: &Session, name: &str) -> Result<Self, MoveError> {
        let version = version(session).await?;
        Ok(Self {
            name: name.to_owned(),
            version,
            locale: locale(session, version).await?,
            properties: properties(session).await?,
            roles: session
                .column(WHAT, ROLES, &[])
                .await?
                .into_iter()
                .collect(),
            tablespaces: session
                .column(WHAT, TABLESPACES, &[])
                .await?
                .into_iter()
                .collect(),
            extensions: session
                .all(
                    WHAT,
                    "SELECT extname::text, extversion FROM pg_extension ORDER BY 1",
                    &[],
                    |row| Ok((row.try_get(0)?, row.try_get(1)?)),
                )
                .await?,
            collations: collations(session, version).await?,
            size: size(session).await?,
            remarks: session.column(WHAT, REMARKS, &[]).await?,
            remarks_of_copies: session.column(WHAT, REMARKS_OF_COPIES, &[]).await?,
        })
    }
}

pub(super) async fn version(session: &Session) -> Result<MajorVersion, MoveError> {
    let sql = "SELECT current_setting('server_version_num')::int";
    let number: i32 = session.value(WHAT, sql, &[]).await?;
    MajorVersion::from_version_num(number.cast_unsigned()).map_err(|error| MoveError::Differs {
        what: format!("version of the {} server", session.side),
        expected: "15 to 18".to_owned(),
        found: error.found,
    })
}

async fn size(session: &Session) -> Result<ByteCount, MoveError> {
    let sql = "SELECT pg_database_size(current_database())";
    let bytes: i64 = session.value(WHAT, sql, &[]).await?;
    Ok(ByteCount::new(bytes.cast_unsigned()))
}

async fn locale(session: &Session, version: MajorVersion) -> Result<Locale, MoveError> {
    // The columns' names, by version: 16 knows rules, and 17 calls the provider's locale by another name.
    let (locale, rules) = match version.get() {
        ..=15 => ("daticulocale", "NULL::text"),
        16 => ("daticulocale", "daticurules"),
        _ => ("datlocale", "daticurules"),
    };
    let sql = format!(
        "SELECT pg_encoding_to_char(encoding)::text, \
            CASE datlocprovider WHEN 'i' THEN 'icu' WHEN 'b' THEN 'builtin' ELSE 'libc' END, \
            datcollate::text, datctype::text, {locale}::text, {rules}, datcollversion, \
            (SELECT spcname::text FROM pg_tablespace t WHERE t.oid = dattablespace) \
        FROM pg_database WHERE datname = current_database()"
    );
    let rows = session
        .all(WHAT, &sql, &[], |row| {
            Ok(Locale {
                encoding: row.try_get(0)?,
                provider: row.try_get(1)?,
                collate: row.try_get(2)?,
                ctype: row.try_get(3)?,
                locale: row.try_get(4)?,
                icu_rules: row.try_get(5)?,
                version: row.try_get(6)?,
                tablespace: row.try_get(7)?,
            })
        })
        .await?;
    rows.into_iter().next().ok_or_else(|| missing(session.side))
}

async fn collations(session: &Session, version: MajorVersion) -> Result<Vec<Collation>, MoveError> {
    let locale = match version.get() {
        ..=16 => "colliculocale",
        _ => "colllocale",
    };
    let sql = format!(
        "SELECT format('%I.%I', n.nspname, c.collname), \
            CASE collprovider WHEN 'i' THEN 'icu' WHEN 'b' THEN 'builtin' ELSE 'libc' END, \
            collcollate::text, collctype::text, {locale}::text \
        FROM pg_collation c JOIN pg_namespace n ON n.oid = c.collnamespace \
        WHERE c.oid >= 16384 AND NOT EXISTS (SELECT FROM pg_depend d \
            WHERE d.classid = 'pg_collation'::regclass AND d.objid = c.oid AND d.deptype = 'e') \
        ORDER BY 1"
    );
    session
        .all(WHAT, &sql, &[], |row| {
            Ok(Collation {
                name: row.try_get(0)?,
                provider: row.try_get(1)?,
                collate: row.try_get(2)?,
                ctype: row.try_get(3)?,
                locale: row.try_get(4)?,
            })
        })
        .await
}

fn missing(side: Side) -> MoveError {
    MoveError::Differs {
        what: format!("database in the {side} server"),
        expected: "there".to_owned(),
        found: "not there".to_owned(),
    }
}

async fn properties(session: &Session) -> Result<Properties, MoveError> {
    let grants = session
        .all(WHAT, GRANTS, &[], |row| {
            Ok(Grant {
                grantor: row.try_get(2)?,
                grantee: row.try_get(3)?,
                privilege: row.try_get(0)?,
                grantable: row.try_get(1)?,
            })
        })
        .await?;
    let settings = session
        .all(WHAT, SETTINGS, &[], |row| {
            let text: String = row.try_get(1)?;
            let (name, value) = text.split_once('=').unwrap_or((&text, ""));
            Ok(Setting {
                role: row.try_get(0)?,
                name: name.to_owned(),
                value: value.to_owned(),
            })
        })
        .await?;
    let labels = session
        .all(
            WHAT,
            "SELECT provider, label FROM pg_shseclabel WHERE classoid = 'pg_database'::regclass \
                AND objoid = (SELECT oid FROM pg_database WHERE datname = current_database())",
            &[],
            |row| Ok((row.try_get(0)?, row.try_get(1)?)),
        )
        .await?;
    let sql = "SELECT (SELECT rolname::text FROM pg_roles r WHERE r.oid = datdba), datconnlimit, \
            datistemplate, shobj_description(oid, 'pg_database') \
        FROM pg_database WHERE datname = current_database()";
    let rows = session
        .all(WHAT, sql, &[], |row| {
            Ok(Properties {
                owner: row.try_get(0)?,
                connection_limit: row.try_get(1)?,
                is_template: row.try_get(2)?,
                comment: row.try_get(3)?,
                grants: grants.clone(),
                settings: settings.clone(),
                labels: labels.clone(),
            })
        })
        .await?;
    rows.into_iter().next().ok_or_else(|| missing(session.side))
}
