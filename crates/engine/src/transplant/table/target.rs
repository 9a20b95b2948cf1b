//! What the database that the tables go into has and lacks.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    name::TableName,
    source::{Need, Shape, type_shapes},
};
use crate::transplant::{
    error::{MoveError, Side},
    server::{Server, Session},
    target::TargetServer,
};

const WHAT: &str = "describe the database";

/// The facts about the database that tables go into.
#[derive(Clone, Debug)]
pub(super) struct TargetDatabase {
    pub(super) name: String,
    pub(super) server: TargetServer,
    /// Its schemas.
    pub(super) schemas: BTreeSet<String>,
    /// In the schemas that tables go into, what has a name: tables, indexes, sequences, types.
    pub(super) taken: BTreeMap<String, BTreeSet<String>>,
    /// Statistics objects there.
    pub(super) statistics: BTreeMap<String, BTreeSet<String>>,
    /// The database's own tablespace.
    pub(super) tablespace: String,
    pub(super) collation: String,
    /// Publications that publish all tables, or all of schemas: what they are, and of which schema; `None` for all.
    pub(super) publications: Vec<(String, Option<String>)>,
    /// Whether rows that are written can be published.
    pub(super) is_decoded: bool,
}

const TAKEN: &str = "SELECT n.nspname::text, x.name::text FROM ( \
        SELECT relnamespace, relname FROM pg_class UNION SELECT typnamespace, typname FROM pg_type) x (namespace, name) \
    JOIN pg_namespace n ON n.oid = x.namespace WHERE n.nspname::text = ANY ($1)";
const STATISTICS: &str = "SELECT n.nspname::text, stxname::text FROM pg_statistic_ext \
    JOIN pg_namespace n ON n.oid = stxnamespace WHERE n.nspname::text = ANY ($1)";
const DATABASE: &str = "SELECT (SELECT spcname::text FROM pg_tablespace t WHERE t.oid = dattablespace), \
        concat_ws(' ', datlocprovider, datcollate, datcollversion), current_setting('wal_level') = 'logical' \
    FROM pg_database WHERE datname = current_database()";
const PUBLICATIONS: &str = "SELECT pubname::text, NULL::text FROM pg_publication WHERE puballtables \
    UNION ALL SELECT p.pubname::text, n.nspname::text FROM pg_publication p \
        JOIN pg_publication_namespace s ON s.pnpubid = p.oid JOIN pg_namespace n ON n.oid = s.pnnspid \
    ORDER BY 1, 2";

impl TargetDatabase {
    /// Asks a session in the database, for tables that go into these schemas.
    pub(super) async fn read(session: &Session, schemas: &[String]) -> Result<Self, MoveError> {
        let facts: Vec<(String, String, bool)> = session
            .all(WHAT, DATABASE, &[], |row| {
                Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))
            })
            .await?;
        let (tablespace, collation, is_decoded) = facts.into_iter().next().unwrap_or_default();
        let all: Vec<String> = session
            .column(WHAT, "SELECT nspname::text FROM pg_namespace", &[])
            .await?;
        Ok(Self {
            name: session
                .value(WHAT, "SELECT current_database()::text", &[])
                .await?,
            server: TargetServer::read(session, None, "").await?,
            schemas: all.into_iter().collect(),
            taken: names(session, TAKEN, schemas).await?,
            statistics: names(session, STATISTICS, schemas).await?,
            tablespace,
            collation,
            publications: session
                .all(WHAT, PUBLICATIONS, &[], |row| {
                    Ok((row.try_get(0)?, row.try_get(1)?))
                })
                .await?,
            is_decoded,
        })
    }

    /// Whether a schema has something of this name. The type of a table's array has a name as well.
    pub(super) fn has(&self, name: &TableName) -> bool {
        let array = format!("_{}", name.table);
        self.taken
            .get(&name.schema)
            .is_some_and(|taken| taken.contains(&name.table) || taken.contains(&array))
    }
}

async fn names(
    session: &Session,
    sql: &str,
    schemas: &[String],
) -> Result<BTreeMap<String, BTreeSet<String>>, MoveError> {
    let rows: Vec<(String, String)> = session
        .all(WHAT, sql, &[&schemas], |row| {
            Ok((row.try_get(0)?, row.try_get(1)?))
        })
        .await?;
    let mut names: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (schema, name) in rows {
        names.entry(schema).or_default().insert(name);
    }
    Ok(names)
}

/// A session in the database; `None` when there is no such database.
pub(super) async fn connect(server: &Server, database: &str) -> Result<Option<Session>, MoveError> {
    let any = server.connect_any().await?;
    let sql =
        "SELECT EXISTS (SELECT FROM pg_database WHERE datname::text = $1 AND datconnlimit <> -2)";
    match any.value(WHAT, sql, &[&database]).await? {
        true => server.connect(database).await.map(Some),
        false => Ok(None),
    }
}

/// How the database answers to what tables need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It has it.
    Has,
    /// It lacks it.
    Lacks,
    /// It has one of that name that is another.
    Differs,
}

/// Looks for everything that the tables need, in this order.
pub(super) async fn answers(session: &Session, needs: &[Need]) -> Result<Vec<Answer>, MoveError> {
    let what = "look for what the tables need";
    let types = needs.iter().filter(|need| need.shape.is_some());
    let types: Vec<String> = types.map(|need| need.identity.clone()).collect();
    let shapes = type_shapes(session, &types).await?;
    let sql = "SELECT count(*) FROM pg_get_object_address($1, $2, $3)";
    let mut answers = Vec::new();
    for need in needs {
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 3] =
            [&need.kind, &need.names, &need.arguments];
        let found = session.value::<i64>(what, sql, &parameters).await;
        answers.push(match found {
            Ok(_) => match (&need.shape, shapes.get(&need.identity)) {
                (Some(wanted), Some(found)) if !fits(wanted, found) => Answer::Differs,
                _ => Answer::Has,
            },
            // It answers by an error of the object's kind, and with a hint.
            Err(MoveError::Statement {
                side: Side::Target, ..
            }) => Answer::Lacks,
            Err(error) => return Err(error),
        });
    }
    Ok(answers)
}

/// Whether values of the one are values of the other: an enum may have more labels, all else must be equal.
fn fits(wanted: &Shape, found: &Shape) -> bool {
    wanted.kind == found.kind
        && match wanted.kind.as_str() {
            "e" => wanted.parts.iter().all(|label| found.parts.contains(label)),
            _ => wanted.parts == found.parts,
        }
}

/// Which of these tables the database has.
pub(super) async fn existing(
    session: &Session,
    tables: &[TableName],
) -> Result<Vec<bool>, MoveError> {
    let names: Vec<String> = tables.iter().map(TableName::quoted).collect();
    let sql = "SELECT EXISTS (SELECT FROM pg_class WHERE oid = to_regclass(w.name) AND relkind IN ('r', 'p')) \
        FROM unnest($1::text[]) WITH ORDINALITY w (name, number) ORDER BY number";
    session.column(WHAT, sql, &[&names]).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_enum_may_have_more_labels_and_a_composite_no_other_columns() {
        let shape = |kind: &str, parts: &[&str]| Shape {
            kind: kind.to_owned(),
            parts: parts.iter().map(|part| (*part).to_owned()).collect(),
        };
        assert!(fits(
            &shape("e", &["a", "b"]),
            &shape("e", &["b", "c", "a"])
        ));
        assert!(!fits(&shape("e", &["a", "b"]), &shape("e", &["a"])));
        assert!(!fits(
            &shape("c", &["x integer"]),
            &shape("c", &["x integer", "y text"])
        ));
        assert!(!fits(&shape("c", &[]), &shape("e", &[])));
        assert!(fits(&shape("d", &["text"]), &shape("d", &["text"])));
    }
}
