//! The tables in the source get the names they are to have, in the hidden schemas that they are filled in. So
//! `pg_dump` writes definitions that fit, whatever refers to whatever, and nothing is done to its text.

use everpoint_instance::grant::quote_identifier;

use super::{
    name::quoted,
    plan::{Placed, TablesPlan},
    source::ItemKind,
};
use crate::transplant::{error::MoveError, server::Session};

const WHAT: &str = "give the tables their new names";
/// Statements that are one transaction. Each locks a table and what belongs to it.
const AT_ONCE: usize = 100;

/// Changes the source. The session's `search_path` is empty.
pub(super) async fn arrange(session: &Session, plan: &TablesPlan) -> Result<(), MoveError> {
    for statements in statements(plan).chunks(AT_ONCE) {
        session.run(WHAT, &statements.join(";")).await?;
    }
    Ok(())
}

/// Names are free for a moment in between, since two may want each other's, or come together in one schema.
fn statements(plan: &TablesPlan) -> Vec<String> {
    let hidden = plan.hidden();
    let mut statements = plan.left_out.clone();
    statements.extend(
        hidden
            .iter()
            .map(|schema| format!("CREATE SCHEMA {}", quote_identifier(schema))),
    );
    let between = |number: usize| format!("everpoint_{number}");
    let alter = |placed: &Placed, schema: &str, name: &str, change: String| {
        format!(
            "ALTER {} {} {change}",
            keyword(placed.kind),
            quoted(schema, name)
        )
    };
    let rename = |to: &str| format!("RENAME TO {}", quote_identifier(to));
    for (number, placed) in plan.placed.iter().enumerate() {
        let from = &placed.from;
        let change = rename(&between(number));
        statements.push(alter(placed, &from.schema, &from.table, change));
    }
    for (number, placed) in plan.placed.iter().enumerate().filter(|(_, p)| !p.follows) {
        let Some(schema) = hidden.get(placed.hidden) else {
            continue;
        };
        let change = format!("SET SCHEMA {}", quote_identifier(schema));
        statements.push(alter(placed, &placed.from.schema, &between(number), change));
    }
    for (number, placed) in plan.placed.iter().enumerate() {
        let Some(schema) = hidden.get(placed.hidden) else {
            continue;
        };
        let change = rename(&placed.to.table);
        statements.push(alter(placed, schema, &between(number), change));
    }
    statements
}

/// What `ALTER` calls it.
pub(super) fn keyword(kind: ItemKind) -> &'static str {
    match kind {
        ItemKind::Table => "TABLE",
        ItemKind::Index => "INDEX",
        ItemKind::Sequence => "SEQUENCE",
        ItemKind::Statistics => "STATISTICS",
    }
}
