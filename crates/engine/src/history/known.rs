//! Relations and schemas as the log has named them so far, by their files.

use std::collections::HashMap;

use everpoint_pgformat::{
    Oid,
    catalog::{RelationDefinition, RelationKind},
    wal_summary::schema_changes::{SchemaChange, SchemaObject},
};

use super::digest::shown;

/// The most relations remembered; beyond that all are forgotten.
const MAX_RELATIONS: usize = 1 << 18;

/// A relation's names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownRelation {
    /// Its OID.
    pub oid: Oid,
    /// What it is.
    pub kind: RelationKind,
    /// Its schema's name.
    pub schema: Option<String>,
    /// Its name.
    pub name: String,
}

/// Relations by database and file.
#[derive(Debug, Default)]
pub struct KnownRelations {
    relations: HashMap<(Oid, Oid), KnownRelation>,
    namespaces: HashMap<(Oid, Oid), String>,
}

/// The name of a schema that every database has.
pub fn usual_namespace(oid: Oid) -> Option<&'static str> {
    match oid.get() {
        11 => Some("pg_catalog"),
        99 => Some("pg_toast"),
        2200 => Some("public"),
        _ => None,
    }
}

impl KnownRelations {
    /// Learns from a change.
    pub fn learn(&mut self, change: &SchemaChange) {
        if self.relations.len() + self.namespaces.len() >= MAX_RELATIONS {
            self.relations.clear();
            self.namespaces.clear();
        }
        match &change.object {
            SchemaObject::Namespace { oid, name } => {
                self.namespaces.insert((change.database, *oid), shown(name));
            }
            SchemaObject::Relation {
                definition,
                namespace,
            } => {
                let named = namespace.as_deref().map(shown);
                let relation = self.describe(change.database, definition, named);
                let file = (change.database, definition.relfilenode);
                self.relations.insert(file, relation);
            }
        }
    }

    /// A definition with the name of its schema.
    pub fn describe(
        &self,
        database: Oid,
        definition: &RelationDefinition,
        namespace: Option<String>,
    ) -> KnownRelation {
        let schema = namespace
            .or_else(|| {
                self.namespaces
                    .get(&(database, definition.namespace))
                    .cloned()
            })
            .or_else(|| usual_namespace(definition.namespace).map(str::to_owned));
        KnownRelation {
            oid: definition.oid,
            kind: definition.kind,
            schema,
            name: shown(&definition.name),
        }
    }

    /// The relation that has a file.
    pub fn of_file(&self, database: Oid, relfilenode: Oid) -> Option<&KnownRelation> {
        self.relations.get(&(database, relfilenode))
    }
}
