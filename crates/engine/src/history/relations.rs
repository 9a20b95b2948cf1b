//! What a transaction did to tables and other relations, as events. Pure.

use std::collections::HashSet;

use everpoint_pgformat::{
    Oid,
    catalog::{CLASS_CATALOG, FIRST_USER_OID, RelationDefinition},
    relation::RelationId,
    wal_summary::{
        activity::{Activity, RowCounts},
        schema_changes::{SchemaAction, SchemaChange, SchemaObject},
        transactions::NotableTransaction,
    },
};

use super::{
    digest::{NO_DATABASE, shown},
    event::{Change, EventKind, Object, ObjectAction, ObjectKind, TransactionSize},
    known::KnownRelations,
};

/// The most tables that are told of a large transaction.
const MAX_TABLES: usize = 8;

/// What the names of tables begin with that exist while another is rewritten (`make_new_heap` in
/// `src/backend/commands/cluster.c`).
const TRANSIENT: &[u8] = b"pg_temp_";

/// An event without what all events of its transaction have in common.
pub struct Told {
    /// Its kind.
    pub kind: EventKind,
    /// The database.
    pub database: Option<Oid>,
    /// What happened.
    pub change: Change,
    /// What the transaction wrote.
    pub size: TransactionSize,
}

/// What a transaction did, and to files it removed.
pub fn told(
    notable: &NotableTransaction,
    removed: &[RelationId],
    known: &mut KnownRelations,
) -> Vec<Told> {
    let activity = &notable.activity;
    if !notable.kind.is_commit() {
        return Vec::new();
    }
    let mut objects = Vec::new();
    let mut explained = HashSet::new();
    for change in activity
        .schema
        .iter()
        .filter(|change| !is_transient(change))
    {
        known.learn(change);
    }
    let net = Net::of(activity);
    for change in net.changes() {
        let (action, file) = net.action(change, activity);
        explained.extend(file);
        objects.push(object(change, action, file, known));
    }
    objects.extend(unexplained(activity, removed, &explained, known));

    let size = TransactionSize {
        first: activity.first,
        log_bytes: activity.log_bytes,
        blocks: activity.blocks,
    };
    let database = database_of(activity, removed);
    let event = |kind, change| Told {
        kind,
        database,
        change,
        size,
    };
    let mut told = Vec::new();
    let mut rest = Vec::new();
    for (action, kind) in [
        (ObjectAction::Dropped, EventKind::Drop),
        (ObjectAction::Truncated, EventKind::Truncate),
        (ObjectAction::Created, EventKind::Create),
        (ObjectAction::Renamed, EventKind::Rename),
    ] {
        let (mut of_kind, others): (Vec<_>, Vec<_>) = objects
            .into_iter()
            .partition(|object| object.action == action);
        objects = others;
        // Indexes, sequences and types come and go with their tables.
        let is_told =
            |object: &Object| object.kind.is_prominent() || matches!(object.kind, ObjectKind::File);
        if of_kind.iter().any(is_told) {
            of_kind.retain(is_told);
            let change = Change::Objects {
                objects: of_kind,
                more: 0,
            };
            told.push(event(kind, change));
        } else {
            rest.extend(of_kind);
        }
    }
    rest.extend(objects);
    if !told.is_empty() || rest.iter().any(|object| object.kind.is_prominent()) {
        rest.retain(|object| object.kind.is_prominent() || object.action != ObjectAction::Altered);
    }
    if !rest.is_empty() {
        let change = Change::Objects {
            objects: rest,
            more: activity.other_changes,
        };
        told.push(event(EventKind::Ddl, change));
    } else if told.is_empty() && activity.is_ddl() {
        let nouns = activity.catalogs.nouns();
        told.push(event(EventKind::Ddl, Change::Definitions { nouns }));
    }
    if let Some(first) = told.first_mut()
        && let Change::Objects { more, .. } = &mut first.change
    {
        *more = activity.other_changes;
    }
    if notable.is_large() {
        let tables = written(activity, known);
        told.push(event(EventKind::Bulk, Change::Rows { tables }));
    }
    told
}

/// What is left of a transaction's changes when those are left out that it took back itself.
struct Net<'a> {
    activity: &'a Activity,
    created: HashSet<Oid>,
    dropped: HashSet<Oid>,
    /// Files of relations made by the transaction, some of which another relation took over.
    new_files: HashSet<Oid>,
}

impl<'a> Net<'a> {
    fn of(activity: &'a Activity) -> Self {
        let (mut created, mut dropped) = (HashSet::new(), HashSet::new());
        let mut new_files = HashSet::new();
        for change in &activity.schema {
            match change.action {
                SchemaAction::Created => {
                    created.insert(oid(change));
                    if let SchemaObject::Relation { definition, .. } = &change.object {
                        new_files.insert(definition.relfilenode);
                    }
                }
                SchemaAction::Dropped => {
                    dropped.insert(oid(change));
                }
                _ => {}
            }
        }
        Self {
            activity,
            created,
            dropped,
            new_files,
        }
    }

    /// The changes that count, one of each object and action.
    fn changes(&self) -> Vec<&'a SchemaChange> {
        let mut seen = HashSet::new();
        let counts = |change: &&SchemaChange| {
            let oid = oid(change);
            let (is_new, is_gone) = (self.created.contains(&oid), self.dropped.contains(&oid));
            match change.action {
                SchemaAction::Created => !is_gone,
                SchemaAction::Dropped => !is_new,
                _ => !is_new && !is_gone,
            }
        };
        let mut changes: Vec<_> = self.activity.schema.iter().filter(counts).collect();
        // Of several changes of one object the telling ones come first.
        changes.sort_by_key(|change| matches!(change.action, SchemaAction::Altered));
        changes.retain(|change| {
            let action = std::mem::discriminant(&change.action);
            let again = matches!(change.action, SchemaAction::Altered)
                && seen.iter().any(|(seen, _)| *seen == oid(change));
            !again && seen.insert((oid(change), action))
        });
        changes
    }

    /// What a change is called, and the file the object had before.
    fn action(
        &self,
        change: &SchemaChange,
        activity: &Activity,
    ) -> (ObjectAction, Option<RelationId>) {
        let SchemaObject::Relation { definition, .. } = &change.object else {
            return (plain(&change.action), None);
        };
        let file = |relfilenode| RelationId {
            tablespace: definition.tablespace,
            database: change.database,
            relfilenode,
        };
        match change.action {
            SchemaAction::NewFile { from } => {
                let action = match self.is_emptied(definition, activity) {
                    true => ObjectAction::Truncated,
                    false => ObjectAction::Altered,
                };
                (action, Some(file(from)))
            }
            SchemaAction::Dropped => (ObjectAction::Dropped, Some(file(definition.relfilenode))),
            _ => (plain(&change.action), None),
        }
    }

    /// Whether a relation with a new file was emptied. What rewrites a table makes another one and
    /// exchanges the two files; what moves one copies its blocks.
    fn is_emptied(&self, definition: &RelationDefinition, activity: &Activity) -> bool {
        let is_copied = activity.touched.iter().any(|touched| {
            touched.relation.relfilenode == definition.relfilenode && touched.rows.total() == 0
        });
        definition.kind.holds_rows()
            && !self.new_files.contains(&definition.relfilenode)
            && !is_copied
    }
}

/// Whether a change is of the table that exists while another is rewritten.
fn is_transient(change: &SchemaChange) -> bool {
    matches!(&change.object, SchemaObject::Relation { definition, .. }
        if definition.name.starts_with(TRANSIENT))
}

fn plain(action: &SchemaAction) -> ObjectAction {
    match action {
        SchemaAction::Created => ObjectAction::Created,
        SchemaAction::Renamed { .. } => ObjectAction::Renamed,
        SchemaAction::Dropped => ObjectAction::Dropped,
        SchemaAction::Altered | SchemaAction::NewFile { .. } => ObjectAction::Altered,
    }
}

fn oid(change: &SchemaChange) -> Oid {
    match &change.object {
        SchemaObject::Relation { definition, .. } => definition.oid,
        SchemaObject::Namespace { oid, .. } => *oid,
    }
}

fn object(
    change: &SchemaChange,
    action: ObjectAction,
    file: Option<RelationId>,
    known: &KnownRelations,
) -> Object {
    let (kind, schema, name) = match &change.object {
        SchemaObject::Namespace { name, .. } => (ObjectKind::Schema, None, shown(name)),
        SchemaObject::Relation {
            definition,
            namespace,
        } => {
            let named = namespace.as_deref().map(shown);
            let relation = known.describe(change.database, definition, named);
            let kind = ObjectKind::Relation(definition.kind);
            (kind, relation.schema, relation.name)
        }
    };
    let renamed_from = match &change.action {
        SchemaAction::Renamed { from } => Some(shown(from)),
        _ => None,
    };
    let namespace = match &change.object {
        SchemaObject::Relation { definition, .. } => Some((change.database, definition.namespace)),
        SchemaObject::Namespace { .. } => None,
    };
    Object {
        action,
        kind,
        schema,
        name: Some(name),
        renamed_from,
        namespace,
        file,
        rows: RowCounts::default(),
        blocks: 0,
    }
}

/// Files that were removed although the log does not show of which relation: its row is older than the log.
fn unexplained(
    activity: &Activity,
    removed: &[RelationId],
    explained: &HashSet<RelationId>,
    known: &KnownRelations,
) -> Vec<Object> {
    let class_rows = activity.touched.iter().find(|touched| {
        touched.relation.relfilenode == CLASS_CATALOG && touched.relation.database != NO_DATABASE
    });
    let is_drop = class_rows.is_none_or(|class| class.rows.deleted > 0);
    let is_rewrite = activity.schema.iter().any(is_transient);
    let action = match (is_rewrite, is_drop) {
        (true, _) => ObjectAction::Altered,
        (false, true) => ObjectAction::Dropped,
        (false, false) => ObjectAction::Truncated,
    };
    // Files that the transaction made and took back tell nothing.
    let own: HashSet<Oid> = activity
        .schema
        .iter()
        .filter(|change| matches!(change.action, SchemaAction::Created))
        .filter_map(|change| match &change.object {
            SchemaObject::Relation { definition, .. } => Some(definition.relfilenode),
            SchemaObject::Namespace { .. } => None,
        })
        .collect();
    let is_explained = |file: &&RelationId| {
        own.contains(&file.relfilenode)
            || explained
                .iter()
                .any(|other| other.relfilenode == file.relfilenode)
    };
    removed
        .iter()
        .filter(|file| !is_explained(file))
        .map(|file| of_file(*file, action, known))
        .collect()
}

fn of_file(file: RelationId, action: ObjectAction, known: &KnownRelations) -> Object {
    let relation = known.of_file(file.database, file.relfilenode);
    Object {
        action,
        kind: relation.map_or(ObjectKind::File, |found| ObjectKind::Relation(found.kind)),
        schema: relation.and_then(|found| found.schema.clone()),
        name: relation.map(|found| found.name.clone()),
        renamed_from: None,
        namespace: None,
        file: Some(file),
        rows: RowCounts::default(),
        blocks: 0,
    }
}

/// The tables a large transaction wrote to, those with the most rows first; without rows, the relations with
/// the most blocks.
fn written(activity: &Activity, known: &KnownRelations) -> Vec<Object> {
    let mut touched: Vec<_> = activity
        .touched
        .iter()
        .filter(|touched| touched.relation.relfilenode >= FIRST_USER_OID)
        .collect();
    if touched.iter().any(|touched| touched.rows.total() > 0) {
        touched.retain(|touched| touched.rows.total() > 0);
    }
    touched.sort_by_key(|touched| std::cmp::Reverse((touched.rows.total(), touched.blocks)));
    touched
        .into_iter()
        .take(MAX_TABLES)
        .map(|touched| Object {
            rows: touched.rows,
            blocks: touched.blocks,
            ..of_file(touched.relation, ObjectAction::Written, known)
        })
        .collect()
}

fn database_of(activity: &Activity, removed: &[RelationId]) -> Option<Oid> {
    let changed = activity.schema.first().map(|change| change.database);
    let touched = activity
        .touched
        .iter()
        .map(|touched| touched.relation.database);
    let removed = removed.iter().map(|file| file.database);
    changed
        .into_iter()
        .chain(touched)
        .chain(removed)
        .find(|database| *database != NO_DATABASE)
}
