//! Events in words.

use everpoint_pgformat::wal_summary::activity::RowCounts;

use super::event::{Change, Event, EventDatabase, Object, ObjectAction, ObjectKind};

/// The most objects that are named in a sentence.
const NAMED_OBJECTS: usize = 6;
/// The most tables of a large transaction that are named.
const NAMED_TABLES: usize = 3;

impl Event {
    /// What happened, in a line without a full stop.
    pub fn what(&self) -> String {
        let database = self.database.as_ref();
        match &self.change {
            Change::DatabaseDropped => format!("dropped database {}", name(database)),
            Change::DatabaseSpoilt => format!(
                "began to drop database {} and did not finish: it cannot be used any more",
                name(database)
            ),
            Change::DatabaseCreated => format!("created database {}", name(database)),
            Change::DatabaseRenamed { from } => format!(
                "renamed database {} to {}",
                from.as_deref().unwrap_or("of unknown name"),
                name(database)
            ),
            Change::DatabaseMoved { from, to } => format!(
                "moved database {} from tablespace {from} to {to}",
                name(database)
            ),
            Change::Objects { objects, more } => objects_text(objects, *more),
            Change::Definitions { nouns } => match nouns.is_empty() {
                true => "changed definitions".to_owned(),
                false => format!("changed definitions: {}", nouns.join(", ")),
            },
            Change::Rows { tables } => rows_text(tables),
            Change::RestorePoint { name } => format!("restore point `{name}`"),
            Change::ClockBack { from, to } => {
                let seconds = to.duration_until(*from).as_secs_f64();
                format!("the server's clock went back {seconds:.1} s, from {from} to {to}")
            }
            Change::Promoted { from } => format!(
                "the server was promoted: timeline {} goes on where {from} ended",
                self.id.timeline
            ),
            Change::Lost { to, reason } => match reason {
                Some(reason) => format!("log is missing up to {to}: {reason}"),
                None => format!("log is missing up to {to}"),
            },
        }
    }
}

fn name(database: Option<&EventDatabase>) -> String {
    match database {
        Some(EventDatabase {
            name: Some(name), ..
        }) => name.clone(),
        Some(EventDatabase { oid, .. }) => format!("with OID {oid}"),
        None => "of unknown name".to_owned(),
    }
}

/// `dropped tables app.orders and app.lines; changed table app.customers`.
fn objects_text(objects: &[Object], more: u64) -> String {
    let mut parts = Vec::new();
    let mut left = NAMED_OBJECTS;
    let mut groups: Vec<(ObjectAction, &str, Vec<&Object>)> = Vec::new();
    for object in objects {
        let (action, noun) = (object.action, object.kind.noun());
        match groups
            .iter_mut()
            .find(|(of, as_, _)| (*of, *as_) == (action, noun))
        {
            Some((_, _, group)) => group.push(object),
            None => groups.push((action, noun, vec![object])),
        }
    }
    for (action, noun, group) in groups {
        let named = group.len().min(left.max(1));
        left = left.saturating_sub(named);
        let mut names: Vec<String> = group
            .iter()
            .take(named)
            .map(|object| match &object.renamed_from {
                Some(from) => format!("{from} to {object}"),
                None => object.to_string(),
            })
            .collect();
        let unnamed = group.len() - named;
        if unnamed > 0 {
            names.push(format!("{unnamed} more"));
        }
        let plural = match group.len() {
            1 => noun.to_owned(),
            _ => plural(noun),
        };
        parts.push(format!("{} {plural} {}", action.verb(), listed(&names)));
    }
    if more > 0 {
        parts.push(format!("and {} more changes", grouped(more)));
    }
    parts.join("; ")
}

fn plural(noun: &str) -> String {
    match noun {
        "index" => "indexes".to_owned(),
        noun => format!("{noun}s"),
    }
}

/// `deleted 1,200,000 rows of app.orders`.
fn rows_text(tables: &[Object]) -> String {
    let parts: Vec<String> = tables
        .iter()
        .take(NAMED_TABLES)
        .map(|table| {
            let place = match table.kind {
                ObjectKind::File => format!("the relation {table}"),
                ObjectKind::Relation(_) | ObjectKind::Schema => table.to_string(),
            };
            match counts(&table.rows) {
                rows if rows.is_empty() => {
                    format!("wrote {} blocks of {place}", grouped(table.blocks))
                }
                rows => format!("{} of {place}", listed(&rows)),
            }
        })
        .collect();
    let mut text = match parts.is_empty() {
        true => "wrote many blocks".to_owned(),
        false => parts.join("; "),
    };
    let unnamed = tables.len().saturating_sub(NAMED_TABLES);
    if unnamed > 0 {
        text.push_str(&format!("; and to {unnamed} more relations"));
    }
    text
}

fn counts(rows: &RowCounts) -> Vec<String> {
    let mut counts = [
        ("deleted", rows.deleted),
        ("updated", rows.updated),
        ("inserted", rows.inserted),
    ];
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(verb, count)| match count {
            1 => format!("{verb} 1 row"),
            count => format!("{verb} {} rows", grouped(*count)),
        })
        .collect()
}

/// `a`, `a and b`, `a, b and c`.
fn listed(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

/// A number with its digits in groups of three.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use everpoint_pgformat::catalog::RelationKind;

    use super::*;

    fn object(action: ObjectAction, kind: RelationKind, name: &str) -> Object {
        Object {
            action,
            kind: ObjectKind::Relation(kind),
            schema: Some("app".to_owned()),
            name: Some(name.to_owned()),
            renamed_from: None,
            namespace: None,
            file: None,
            rows: RowCounts::default(),
            blocks: 0,
        }
    }

    #[test]
    fn objects_are_grouped_by_what_was_done_to_them() {
        let (table, index) = (RelationKind::TABLE, RelationKind::INDEX);
        let mut renamed = object(ObjectAction::Renamed, table, "new");
        renamed.renamed_from = Some("old".to_owned());
        let objects = [
            object(ObjectAction::Dropped, table, "orders"),
            object(ObjectAction::Dropped, table, "lines"),
            renamed,
            object(ObjectAction::Created, index, "i"),
        ];
        assert_eq!(
            objects_text(&objects, 0),
            "dropped tables app.orders and app.lines; renamed table old to app.new; created index app.i"
        );
        let many: Vec<Object> = (0..9)
            .map(|number| object(ObjectAction::Dropped, table, &format!("t{number}")))
            .collect();
        assert_eq!(
            objects_text(&many, 1234),
            "dropped tables app.t0, app.t1, app.t2, app.t3, app.t4, app.t5 and 3 more; \
             and 1,234 more changes"
        );
    }

    #[test]
    fn rows_are_counted_with_the_most_first() {
        let mut table = object(ObjectAction::Written, RelationKind::TABLE, "orders");
        table.rows = RowCounts {
            inserted: 1,
            updated: 0,
            deleted: 1_200_000,
        };
        let expected = "deleted 1,200,000 rows and inserted 1 row of app.orders";
        assert_eq!(rows_text(&[table.clone()]), expected);
        table.rows = RowCounts::default();
        table.blocks = 12_345;
        assert_eq!(rows_text(&[table]), "wrote 12,345 blocks of app.orders");
    }
}
