//! What is neither definition nor table: sequences' values, large objects, materialized views, statistics.

use everpoint_instance::grant::{quote_identifier, quote_literal};

use super::{error::MoveError, server::Session};

/// Sequences read by one statement.
const SEQUENCES_AT_ONCE: usize = 100;
/// Large objects made by one statement.
const LARGE_OBJECTS_AT_ONCE: i64 = 5_000;

const SEQUENCES: &str = "SELECT format('%I.%I', n.nspname, c.relname) \
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
    WHERE c.relkind = 'S' AND c.relpersistence <> 't' AND n.nspname <> 'pg_catalog' \
        AND (NOT EXISTS (SELECT FROM pg_depend d \
                WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e') \
            OR EXISTS (SELECT FROM pg_extension WHERE c.oid = ANY (extconfig))) \
        AND ($1::text[] IS NULL OR n.nspname::text = ANY ($1))";

/// Sets every sequence, of all schemas or of some, to its value in the source.
pub(super) async fn move_sequences(
    source: &Session,
    target: &Session,
    schemas: Option<&[String]>,
) -> Result<(), MoveError> {
    let what = "read sequences";
    let names: Vec<String> = source.column(what, SEQUENCES, &[&schemas]).await?;
    for names in names.chunks(SEQUENCES_AT_ONCE) {
        let parts: Vec<String> = names
            .iter()
            .map(|name| {
                format!(
                    "SELECT {}, last_value, is_called FROM {name}",
                    quote_literal(name)
                )
            })
            .collect();
        let values = source
            .all(what, &parts.join(" UNION ALL "), &[], |row| {
                Ok((
                    row.try_get::<_, String>(0)?,
                    row.try_get::<_, i64>(1)?,
                    row.try_get::<_, bool>(2)?,
                ))
            })
            .await?;
        let statements: Vec<String> = values
            .iter()
            .map(|(name, value, called)| {
                format!(
                    "SELECT setval({}::regclass, {value}, {called})",
                    quote_literal(name)
                )
            })
            .collect();
        target.run("set sequences", &statements.join(";")).await?;
    }
    Ok(())
}

struct LargeObject {
    oid: u32,
    owner: String,
    comment: Option<String>,
    /// Grantee (`None` for everybody), right, whether it may be passed on; `None` when nothing was ever granted.
    grants: Option<Vec<String>>,
}

const LARGE_OBJECTS: &str = "SELECT m.oid, r.rolname::text, obj_description(m.oid, 'pg_largeobject'), \
        CASE WHEN m.lomacl IS NOT NULL THEN (SELECT coalesce(array_agg( \
            format('GRANT %s ON LARGE OBJECT %s TO %s%s', g.privilege_type, m.oid, \
                CASE g.grantee WHEN 0 THEN 'PUBLIC' \
                    ELSE (SELECT quote_ident(rolname) FROM pg_roles WHERE oid = g.grantee) END, \
                CASE WHEN g.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)), '{}') \
            FROM aclexplode(m.lomacl) g) END \
    FROM pg_largeobject_metadata m JOIN pg_roles r ON r.oid = m.lomowner \
    WHERE m.oid > $1 ORDER BY m.oid LIMIT $2";

/// Makes the source's large objects, empty, with owners, rights and comments. Their pages come as a table's rows.
pub(super) async fn move_large_objects(
    source: &Session,
    target: &Session,
) -> Result<(), MoveError> {
    let own: String = target
        .value("ask who we are", "SELECT current_user::text", &[])
        .await?;
    let mut last = 0_u32;
    loop {
        let objects = source
            .all(
                "list large objects",
                LARGE_OBJECTS,
                &[&last, &LARGE_OBJECTS_AT_ONCE],
                |row| {
                    Ok(LargeObject {
                        oid: row.try_get(0)?,
                        owner: row.try_get(1)?,
                        comment: row.try_get(2)?,
                        grants: row.try_get(3)?,
                    })
                },
            )
            .await?;
        let Some(end) = objects.last() else {
            return Ok(());
        };
        last = end.oid;
        let oids: Vec<u32> = objects.iter().map(|object| object.oid).collect();
        let what = "make large objects";
        let made = "SELECT count(lo_create(oid)) FROM unnest($1::oid[]) oid";
        target.value::<i64>(what, made, &[&oids]).await?;
        let statements: Vec<String> = objects
            .iter()
            .flat_map(|object| object.statements(&own))
            .collect();
        if !statements.is_empty() {
            target.run(what, &statements.join(";")).await?;
        }
    }
}

impl LargeObject {
    fn statements(&self, own: &str) -> Vec<String> {
        let (oid, owner) = (self.oid, quote_identifier(&self.owner));
        let mut statements = Vec::new();
        if self.owner != own {
            statements.push(format!("ALTER LARGE OBJECT {oid} OWNER TO {owner}"));
        }
        if let Some(grants) = &self.grants {
            statements.push(format!("REVOKE ALL ON LARGE OBJECT {oid} FROM {owner}"));
            statements.extend(grants.iter().cloned());
        }
        if let Some(comment) = &self.comment {
            statements.push(format!(
                "COMMENT ON LARGE OBJECT {oid} IS {}",
                quote_literal(comment)
            ));
        }
        statements
    }
}

/// Materialized views that hold something, each behind those that it reads, also by way of views.
const MATERIALIZED_VIEWS: &str = "WITH RECURSIVE reads AS ( \
        SELECT DISTINCT r.ev_class AS reader, d.refobjid AS read FROM pg_depend d \
        JOIN pg_rewrite r ON r.oid = d.objid JOIN pg_class c ON c.oid = d.refobjid \
        WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass \
            AND d.refobjid <> r.ev_class AND c.relkind IN ('v', 'm')), \
    walk (oid, depth) AS ( \
        SELECT oid, 0 FROM pg_class WHERE relkind IN ('v', 'm') \
        UNION SELECT reader, depth + 1 FROM walk JOIN reads ON read = oid) \
    SELECT format('%I.%I', n.nspname, c.relname) FROM walk \
    JOIN pg_class c USING (oid) JOIN pg_namespace n ON n.oid = c.relnamespace \
    WHERE c.relkind = 'm' AND c.relispopulated GROUP BY n.nspname, c.relname ORDER BY max(depth)";

/// Fills the materialized views, by what their tables hold. Event triggers do not fire, not even those that always
/// do: their effects are in the restored tables.
pub(super) async fn refresh_views(source: &Session, target: &Session) -> Result<(), MoveError> {
    let views: Vec<String> = source
        .column("list materialized views", MATERIALIZED_VIEWS, &[])
        .await?;
    if views.is_empty() {
        return Ok(());
    }
    let triggers: Vec<(String, bool)> = target
        .all(
            "list event triggers",
            "SELECT quote_ident(evtname), evtenabled = 'A' FROM pg_event_trigger \
                WHERE evtenabled = 'A' OR evtenabled = 'O'",
            &[],
            |row| Ok((row.try_get(0)?, row.try_get(1)?)),
        )
        .await?;
    let mut statements = vec!["BEGIN".to_owned()];
    for (name, _) in &triggers {
        statements.push(format!("ALTER EVENT TRIGGER {name} DISABLE"));
    }
    statements.extend(
        views
            .iter()
            .map(|view| format!("REFRESH MATERIALIZED VIEW {view}")),
    );
    for (name, always) in &triggers {
        let always = if *always { " ALWAYS" } else { "" };
        statements.push(format!("ALTER EVENT TRIGGER {name} ENABLE{always}"));
    }
    statements.push("COMMIT".to_owned());
    target
        .run("refresh materialized views", &statements.join(";"))
        .await
}

/// Parents of partitions are read through these again.
const ANALYZED: &str = "SELECT format('%I.%I', n.nspname, c.relname) \
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
    WHERE c.relkind IN ('r', 'm', 'p') AND c.relpersistence <> 't' \
        AND n.nspname NOT IN ('pg_catalog', 'information_schema') \
        AND (c.relkind = 'p' OR pg_relation_size(c.oid) > 0) \
        AND ($1::text[] IS NULL OR n.nspname::text = ANY ($1)) \
    ORDER BY pg_relation_size(c.oid) DESC";

/// Tables whose statistics are worth gathering, quoted, of all schemas or of some.
pub(super) async fn analyzed(
    target: &Session,
    schemas: Option<&[String]>,
) -> Result<Vec<String>, MoveError> {
    target
        .column("list tables to be analyzed", ANALYZED, &[&schemas])
        .await
}
