//! What the tables are in the source, what comes along with them, and what they need.

use std::collections::{BTreeMap, BTreeSet};

use everpoint_pgformat::{ByteCount, MajorVersion};

use super::name::{TableName, near};
use crate::transplant::{
    error::MoveError,
    refusal::{Refusal, Refusals},
    server::Session,
    source,
};

const WHAT: &str = "describe the tables";

/// The tables that are moved, and everything about them.
#[derive(Clone, Debug)]
pub(super) struct SourceTables {
    pub(super) version: MajorVersion,
    pub(super) encoding: String,
    /// How text is sorted, as a person reads it.
    pub(super) collation: String,
    /// Tables, and what has a name beside them: first what was asked for, then its partitions, then the rest.
    pub(super) items: Vec<Item>,
    /// Foreign keys to tables that are not moved.
    pub(super) foreign_keys: Vec<SourceForeignKey>,
    /// What they need of the database.
    pub(super) needs: Vec<Need>,
    /// Roles that own them or may use them.
    pub(super) roles: BTreeSet<String>,
    /// Schemas of the source.
    pub(super) schemas: BTreeMap<String, SchemaDefinition>,
    /// Tablespaces that they lie in, besides the database's own.
    pub(super) tablespaces: BTreeSet<String>,
    /// With indexes.
    pub(super) size: ByteCount,
    pub(super) remarks: Vec<String>,
}

/// What kind of thing has a name of its own in a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemKind {
    /// A table, a partition.
    Table,
    /// An index, and the constraint that it is for.
    Index,
    /// A sequence.
    Sequence,
    /// A statistics object.
    Statistics,
}

/// Something that has a name in a schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) kind: ItemKind,
    pub(super) oid: u32,
    /// Where it is, and how it is called.
    pub(super) name: TableName,
    /// The table that it belongs to; its own number for a table.
    pub(super) table: u32,
    /// Whether it is asked for, and not a part of what is.
    pub(super) is_root: bool,
    /// `pg_class.relkind` of tables: r, p or f.
    pub(super) relkind: char,
    /// Whether it is an unlogged table.
    pub(super) is_unlogged: bool,
}

/// A foreign key to a table that is not moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SourceForeignKey {
    pub(super) table: u32,
    pub(super) name: String,
    /// What comes behind the name.
    pub(super) definition: String,
    pub(super) referenced: TableName,
    /// Whether all rows are known to fit.
    pub(super) validated: bool,
}

/// Something that is needed and not moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Need {
    /// By what.
    pub(super) by: NeededBy,
    /// As `pg_get_object_address` takes it.
    pub(super) kind: String,
    pub(super) names: Vec<String>,
    pub(super) arguments: Vec<String>,
    /// For a person.
    pub(super) identity: String,
    /// The extension that brings it.
    pub(super) extension: Option<String>,
    /// A type's contents; see [`type_shapes`].
    pub(super) shape: Option<Shape>,
    /// A sequence that no table owns, by its number: it can be brought along.
    pub(super) free_sequence: Option<(u32, TableName)>,
}

/// What needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NeededBy {
    /// The table itself.
    Table,
    /// A trigger or a rule, without which the table can be: how it is called, and how it is dropped.
    Optional { shown: String, drop: String },
}

/// What a type is made of: its kind, and labels or columns or the type below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) kind: String,
    pub(super) parts: Vec<String>,
}

/// What it takes to make a schema as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SchemaDefinition {
    pub(super) owner: String,
    pub(super) comment: Option<String>,
    /// `GRANT` statements.
    pub(super) grants: Vec<String>,
    /// Roles that these name.
    pub(super) grantees: Vec<String>,
}

const ROOTS: &str = "SELECT coalesce(c.oid, 0), coalesce(c.relkind, ' ')::text, \
        EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid AND deptype = 'e'), \
        coalesce(c.relpersistence = 't', false) \
    FROM unnest($1::text[], $2::text[]) WITH ORDINALITY w (schema, name, number) \
    LEFT JOIN pg_namespace n ON n.nspname::text = w.schema \
    LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname::text = w.name ORDER BY number";
const ALL_TABLES: &str = "SELECT n.nspname::text, c.relname::text \
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
    WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' \
        AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')";
/// What was asked for, and all partitions below.
const TABLES: &str = "WITH RECURSIVE tree (oid, depth) AS ( \
        SELECT oid, 0 FROM unnest($1::oid[]) oid \
        UNION ALL SELECT i.inhrelid, depth + 1 FROM tree JOIN pg_inherits i ON i.inhparent = tree.oid \
            JOIN pg_class c ON c.oid = i.inhrelid WHERE c.relispartition), \
    tables AS (SELECT oid, max(depth) AS depth FROM tree GROUP BY oid) \
    SELECT c.oid, n.nspname::text, c.relname::text, c.oid, t.depth = 0, c.relkind::text || c.relpersistence::text \
    FROM tables t JOIN pg_class c USING (oid) JOIN pg_namespace n ON n.oid = c.relnamespace \
    ORDER BY t.depth, array_position($1, c.oid), 2, 3";
/// What has a name in a schema and belongs to tables.
const BELONGINGS: &str = "SELECT x.oid, n.nspname::text, x.name::text, x.of, x.kind FROM ( \
        SELECT c.oid, c.relnamespace AS namespace, c.relname AS name, i.indrelid AS of, 'i' AS kind \
            FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = ANY ($1) \
        UNION ALL SELECT c.oid, c.relnamespace, c.relname, d.refobjid, 'S' \
            FROM pg_depend d JOIN pg_class c ON c.oid = d.objid \
            WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass \
                AND d.refobjid = ANY ($1) AND d.deptype IN ('a', 'i') AND c.relkind = 'S' \
        UNION ALL SELECT oid, stxnamespace, stxname, stxrelid, 's' FROM pg_statistic_ext WHERE stxrelid = ANY ($1) \
    ) x JOIN pg_namespace n ON n.oid = x.namespace ORDER BY 2, 3";
/// Keys within a table that is moved are copies of the table's own in its partitions.
const FOREIGN_KEYS: &str = "SELECT f.conrelid, f.conname::text, pg_get_constraintdef(f.oid), n.nspname::text, \
        c.relname::text, f.convalidated \
    FROM pg_constraint f JOIN pg_class c ON c.oid = f.confrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
    WHERE f.contype = 'f' AND f.conrelid = ANY ($1) AND f.conparentid = 0 AND f.confrelid <> ALL ($1) \
    ORDER BY f.conrelid, f.conname";
/// All that the tables consist of, with what is dropped when it cannot be had. What is in $1 are tables, in $2 what
/// belongs to them.
const OWN: &str = "own (classid, objid, shown, remedy) AS ( \
        SELECT 'pg_class'::regclass::oid, oid, NULL::text, NULL::text FROM unnest($1::oid[] || $2::oid[]) oid \
        UNION ALL SELECT 'pg_statistic_ext'::regclass, oid, NULL, NULL FROM pg_statistic_ext WHERE stxrelid = ANY ($1) \
        UNION ALL SELECT 'pg_type'::regclass, oid, NULL, NULL FROM pg_type WHERE typrelid = ANY ($1) \
        UNION ALL SELECT 'pg_type'::regclass, typarray, NULL, NULL FROM pg_type WHERE typrelid = ANY ($1) \
        UNION ALL SELECT 'pg_attrdef'::regclass, oid, NULL, NULL FROM pg_attrdef WHERE adrelid = ANY ($1) \
        UNION ALL SELECT 'pg_constraint'::regclass, oid, NULL, NULL FROM pg_constraint \
            WHERE conrelid = ANY ($1) AND contype NOT IN ('f', 't') \
        UNION ALL SELECT 'pg_policy'::regclass, oid, NULL, NULL FROM pg_policy WHERE polrelid = ANY ($1) \
        UNION ALL SELECT 'pg_trigger'::regclass, oid, format('trigger %I', tgname), \
                format('DROP TRIGGER %I ON %s', tgname, tgrelid::regclass) \
            FROM pg_trigger WHERE tgrelid = ANY ($1) AND NOT tgisinternal AND tgparentid = 0 \
        UNION ALL SELECT 'pg_rewrite'::regclass, oid, format('rule %I', rulename), \
                format('DROP RULE %I ON %s', rulename, ev_class::regclass) \
            FROM pg_rewrite WHERE ev_class = ANY ($1))";
const NEEDS: &str = "SELECT DISTINCT o.shown, o.remedy, a.type, a.object_names, a.object_args, i.identity, \
        (SELECT e.extname::text FROM pg_depend x JOIN pg_extension e ON e.oid = x.refobjid \
            WHERE x.classid = d.refclassid AND x.objid = d.refobjid AND x.deptype = 'e'), \
        CASE WHEN c.relkind = 'S' AND NOT EXISTS (SELECT FROM pg_depend x WHERE x.classid = 'pg_class'::regclass \
                AND x.objid = c.oid AND x.deptype IN ('a', 'i', 'e')) THEN c.oid END, \
        (SELECT nspname::text FROM pg_namespace WHERE oid = c.relnamespace), c.relname::text \
    FROM own o JOIN pg_depend d USING (classid, objid) \
    LEFT JOIN pg_class c ON d.refclassid = 'pg_class'::regclass AND c.oid = d.refobjid, \
    LATERAL pg_identify_object_as_address(d.refclassid, d.refobjid, d.refobjsubid) a, \
    LATERAL pg_identify_object(d.refclassid, d.refobjid, d.refobjsubid) i \
    WHERE d.refobjid >= 16384 AND d.deptype IN ('n', 'a', 'i') \
        AND d.refclassid NOT IN ('pg_namespace'::regclass, 'pg_extension'::regclass) \
        AND NOT EXISTS (SELECT FROM own w WHERE w.classid = d.refclassid AND w.objid = d.refobjid)";
/// Pinned roles are in no row of pg_shdepend; of these only the bootstrap superuser owns what users make.
const ROLES: &str = "SELECT DISTINCT r.rolname::text FROM own o \
    JOIN pg_shdepend s ON s.classid = o.classid AND s.objid = o.objid \
        AND s.dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) \
    JOIN pg_roles r ON r.oid = s.refobjid WHERE s.refclassid = 'pg_authid'::regclass \
    UNION SELECT r.rolname::text FROM pg_roles r WHERE r.oid = 10 \
        AND EXISTS (SELECT FROM pg_class WHERE oid = ANY ($1) AND relowner = 10)";
const TABLESPACES: &str = "SELECT DISTINCT t.spcname::text FROM pg_class c JOIN pg_tablespace t ON t.oid = c.reltablespace \
    WHERE c.oid = ANY ($1)";
const SIZE: &str = "SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::bigint FROM pg_class \
    WHERE oid = ANY ($1) AND relkind = 'r'";
const SCHEMAS: &str = "SELECT n.nspname::text, r.rolname::text, obj_description(n.oid, 'pg_namespace'), \
        (SELECT coalesce(array_agg(format('GRANT %s ON SCHEMA %I TO %s%s', g.privilege_type, n.nspname, \
                CASE g.grantee WHEN 0 THEN 'PUBLIC' \
                    ELSE (SELECT quote_ident(rolname) FROM pg_roles WHERE oid = g.grantee) END, \
                CASE WHEN g.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)), '{}') \
            FROM aclexplode(n.nspacl) g WHERE g.grantee <> n.nspowner), \
        (SELECT coalesce(array_agg(p.rolname::text), '{}') FROM aclexplode(n.nspacl) g \
            JOIN pg_roles p ON p.oid = g.grantee) \
    FROM pg_namespace n JOIN pg_roles r ON r.oid = n.nspowner";
const DATABASE: &str = "SELECT pg_encoding_to_char(encoding)::text, \
        concat_ws(' ', datlocprovider, datcollate, datcollversion) FROM pg_database WHERE datname = current_database()";
/// Things to be said before they are missed.
const REMARKS: &str = "SELECT text FROM ( \
    SELECT 'unlogged tables come empty, as recovery leaves them: ' || string_agg(oid::regclass::text, ', ' ORDER BY oid) \
        FROM pg_class WHERE oid = ANY ($1) AND relpersistence = 'u' AND relkind = 'r' \
    UNION ALL SELECT format('tables that inherit from %s are not restored, nor are their rows: %s. Name them too if they are to come', \
            i.inhparent::regclass, string_agg(i.inhrelid::regclass::text, ', ' ORDER BY i.inhrelid)) \
        FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid \
        WHERE i.inhparent = ANY ($1) AND i.inhrelid <> ALL ($1) AND c.relkind IN ('r', 'f') GROUP BY i.inhparent \
    UNION ALL SELECT format('%s was in publications, and is put into none: %s', p.prrelid::regclass, string_agg(quote_ident(b.pubname), ', ' ORDER BY b.pubname)) \
        FROM pg_publication_rel p JOIN pg_publication b ON b.oid = p.prpubid WHERE p.prrelid = ANY ($1) GROUP BY p.prrelid \
    UNION ALL SELECT 'foreign partitions come without rows, which lie elsewhere: ' || string_agg(oid::regclass::text, ', ' ORDER BY oid) \
        FROM pg_class WHERE oid = ANY ($1) AND relkind = 'f' \
    UNION ALL SELECT 'indexes that are not valid are left out: ' || string_agg(indexrelid::regclass::text, ', ' ORDER BY indexrelid) \
        FROM pg_index WHERE indrelid = ANY ($1) AND NOT indisvalid \
            AND indrelid NOT IN (SELECT partrelid FROM pg_partitioned_table) \
    UNION ALL SELECT format('views read %s and are not restored: %s', x.read::regclass, string_agg(x.view::regclass::text, ', ')) FROM ( \
        SELECT DISTINCT d.refobjid AS read, r.ev_class AS view FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid \
            JOIN pg_class c ON c.oid = r.ev_class \
            WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = ANY ($1) \
                AND c.relkind IN ('v', 'm')) x GROUP BY x.read \
    ) remark (text) WHERE text IS NOT NULL";

impl SourceTables {
    /// Asks the source, which [`super::loosen`] has seen before. `roots` are the tables' numbers.
    pub(super) async fn read(session: &Session, roots: &[u32]) -> Result<Self, MoveError> {
        let mut items = items(session, TABLES, roots, |row| {
            let relkind: String = row.try_get(5)?;
            Ok((ItemKind::Table, row.try_get(4)?, relkind))
        })
        .await?;
        let tables: Vec<u32> = items.iter().map(|item| item.oid).collect();
        let belongings = self::items(session, BELONGINGS, &tables, |row| {
            let kind = match row.try_get::<_, String>(4)?.as_str() {
                "i" => ItemKind::Index,
                "S" => ItemKind::Sequence,
                _ => ItemKind::Statistics,
            };
            Ok((kind, false, String::new()))
        })
        .await?;
        let parts = belongings
            .iter()
            .filter(|item| item.kind != ItemKind::Statistics);
        let parts: Vec<u32> = parts.map(|item| item.oid).collect();
        items.extend(belongings);
        let all = [tables.as_slice(), &parts].concat();
        let (encoding, collation) = session
            .all(WHAT, DATABASE, &[], |row| {
                Ok((row.try_get(0)?, row.try_get(1)?))
            })
            .await?
            .into_iter()
            .next()
            .unwrap_or_default();
        let size: i64 = session.value(WHAT, SIZE, &[&tables]).await?;
        let roles = format!("WITH {OWN} {ROLES}");
        let roles: Vec<String> = session.column(WHAT, &roles, &[&tables, &parts]).await?;
        let tablespaces: Vec<String> = session.column(WHAT, TABLESPACES, &[&all]).await?;
        Ok(Self {
            version: source::version(session).await?,
            encoding,
            collation,
            foreign_keys: foreign_keys(session, &tables).await?,
            needs: needs(session, &tables, &parts).await?,
            roles: roles.into_iter().collect(),
            schemas: schemas(session).await?,
            tablespaces: tablespaces.into_iter().collect(),
            size: ByteCount::new(size.cast_unsigned()),
            remarks: session.column(WHAT, REMARKS, &[&tables]).await?,
            items,
        })
    }
}

/// Finds the tables that are asked for. Those that cannot be had are refused together, with names like theirs.
pub(super) async fn find(
    session: &Session,
    wanted: &[TableName],
    refusals: &mut Vec<Refusal>,
) -> Result<Vec<u32>, MoveError> {
    let schemas: Vec<&str> = wanted.iter().map(|name| name.schema.as_str()).collect();
    let names: Vec<&str> = wanted.iter().map(|name| name.table.as_str()).collect();
    let rows: Vec<(u32, String, bool, bool)> = session
        .all(WHAT, ROOTS, &[&schemas, &names], |row| {
            Ok((
                row.try_get(0)?,
                row.try_get(1)?,
                row.try_get(2)?,
                row.try_get(3)?,
            ))
        })
        .await?;
    let mut oids = Vec::new();
    let mut all: Option<Vec<TableName>> = None;
    for (name, (oid, relkind, of_extension, temporary)) in wanted.iter().zip(rows) {
        let table = name.to_string();
        let reason = match relkind.as_str() {
            " " => {
                if all.is_none() {
                    all = Some(all_tables(session).await?);
                }
                refusals.push(Refusal::NoSuchTable {
                    near: near(name, all.as_deref().unwrap_or_default()),
                    table,
                });
                continue;
            }
            _ if is_system(&name.schema) || temporary => "belongs to the system, and is made by it",
            "r" | "p" if of_extension => "belongs to an extension, and is made by it",
            "r" | "p" => {
                if !oids.contains(&oid) {
                    oids.push(oid);
                }
                continue;
            }
            "v" | "m" => "is a view",
            "S" => "is a sequence; sequences that a table's columns own come with the table",
            "i" | "I" => "is an index",
            "f" => "is a foreign table: its rows lie elsewhere",
            _ => "is no table",
        };
        refusals.push(Refusal::NotATable { table, reason });
    }
    Ok(oids)
}

fn is_system(schema: &str) -> bool {
    schema.starts_with("pg_") || schema == "information_schema"
}

async fn all_tables(session: &Session) -> Result<Vec<TableName>, MoveError> {
    session
        .all(WHAT, ALL_TABLES, &[], |row| {
            Ok(TableName {
                schema: row.try_get(0)?,
                table: row.try_get(1)?,
            })
        })
        .await
}

type Described = (ItemKind, bool, String);

async fn items(
    session: &Session,
    sql: &str,
    tables: &[u32],
    describe: impl Fn(&tokio_postgres::Row) -> Result<Described, tokio_postgres::Error>,
) -> Result<Vec<Item>, MoveError> {
    session
        .all(WHAT, sql, &[&tables], |row| {
            let (kind, is_root, relkind) = describe(row)?;
            Ok(Item {
                kind,
                oid: row.try_get(0)?,
                name: TableName {
                    schema: row.try_get(1)?,
                    table: row.try_get(2)?,
                },
                table: row.try_get(3)?,
                is_root,
                is_unlogged: relkind.ends_with('u'),
                relkind: relkind.chars().next().unwrap_or(' '),
            })
        })
        .await
}

async fn foreign_keys(
    session: &Session,
    tables: &[u32],
) -> Result<Vec<SourceForeignKey>, MoveError> {
    session
        .all(WHAT, FOREIGN_KEYS, &[&tables], |row| {
            Ok(SourceForeignKey {
                table: row.try_get(0)?,
                name: row.try_get(1)?,
                definition: row.try_get(2)?,
                referenced: TableName {
                    schema: row.try_get(3)?,
                    table: row.try_get(4)?,
                },
                validated: row.try_get(5)?,
            })
        })
        .await
}

async fn needs(session: &Session, tables: &[u32], parts: &[u32]) -> Result<Vec<Need>, MoveError> {
    let sql = format!("WITH {OWN} {NEEDS}");
    let mut needs = session
        .all(WHAT, &sql, &[&tables, &parts], |row| {
            let shown: Option<String> = row.try_get(0)?;
            let drop: Option<String> = row.try_get(1)?;
            let free: Option<u32> = row.try_get(7)?;
            let (schema, name): (Option<String>, Option<String>) =
                (row.try_get(8)?, row.try_get(9)?);
            Ok(Need {
                by: match (shown, drop) {
                    (Some(shown), Some(drop)) => NeededBy::Optional { shown, drop },
                    _ => NeededBy::Table,
                },
                kind: row.try_get(2)?,
                names: row.try_get(3)?,
                arguments: row.try_get(4)?,
                identity: row.try_get(5)?,
                extension: row.try_get(6)?,
                shape: None,
                free_sequence: match (free, schema, name) {
                    (Some(oid), Some(schema), Some(table)) => {
                        Some((oid, TableName { schema, table }))
                    }
                    _ => None,
                },
            })
        })
        .await?;
    let types = needs.iter().filter(|need| need.kind == "type");
    let types: Vec<String> = types.map(|need| need.identity.clone()).collect();
    let mut shapes = type_shapes(session, &types).await?;
    for need in needs.iter_mut().filter(|need| need.kind == "type") {
        need.shape = shapes.remove(&need.identity);
    }
    Ok(needs)
}

/// What types are made of, by their names. Those that are not there are left out.
pub(super) async fn type_shapes(
    session: &Session,
    names: &[String],
) -> Result<BTreeMap<String, Shape>, MoveError> {
    let sql = "SELECT w.name, t.typtype::text, CASE t.typtype \
            WHEN 'e' THEN (SELECT array_agg(enumlabel::text ORDER BY enumsortorder) FROM pg_enum WHERE enumtypid = t.oid) \
            WHEN 'c' THEN (SELECT array_agg(format('%I %s', attname, format_type(atttypid, atttypmod)) ORDER BY attnum) \
                FROM pg_attribute WHERE attrelid = t.typrelid AND attnum > 0 AND NOT attisdropped) \
            WHEN 'd' THEN ARRAY[format_type(t.typbasetype, t.typtypmod)] \
            WHEN 'r' THEN (SELECT ARRAY[format_type(rngsubtype, NULL)] FROM pg_range WHERE rngtypid = t.oid) \
            END \
        FROM unnest($1::text[]) w (name) JOIN pg_type n ON n.oid = to_regtype(w.name) \
        JOIN pg_type t ON t.oid = CASE WHEN n.typelem <> 0 AND n.typlen = -1 THEN n.typelem ELSE n.oid END";
    let rows = session
        .all("describe types", sql, &[&names], |row| {
            let parts: Option<Vec<String>> = row.try_get(2)?;
            let shape = Shape {
                kind: row.try_get(1)?,
                parts: parts.unwrap_or_default(),
            };
            Ok((row.try_get(0)?, shape))
        })
        .await?;
    Ok(rows.into_iter().collect())
}

async fn schemas(session: &Session) -> Result<BTreeMap<String, SchemaDefinition>, MoveError> {
    let rows = session
        .all(WHAT, SCHEMAS, &[], |row| {
            let definition = SchemaDefinition {
                owner: row.try_get(1)?,
                comment: row.try_get(2)?,
                grants: row.try_get(3)?,
                grantees: row.try_get(4)?,
            };
            Ok((row.try_get(0)?, definition))
        })
        .await?;
    Ok(rows.into_iter().collect())
}

/// Everything that speaks against it, if there is anything.
pub(super) fn refuse(refusals: Vec<Refusal>) -> Result<(), Refusals> {
    match refusals.is_empty() {
        true => Ok(()),
        false => Err(Refusals(refusals)),
    }
}
