//! Rows of `pg_class` and `pg_namespace` of all databases, as far as the log has shown them.

use crate::{
    MajorVersion, Oid,
    catalog::{
        CLASS_CATALOG, FIRST_USER_OID, NAMESPACE_CATALOG, NamespaceRow, RelationRow,
        TOAST_NAMESPACE, is_temporary_namespace,
    },
    relation::{GLOBAL_TABLESPACE, RelationId},
    wal::{heap::HeapRecord, record::Record, relation_map::RelationMapUpdate},
};

use super::{
    carried::{MAX_MOVED_CATALOGS, MovedCatalog},
    hash::QuickMap,
    row_store::{RowChange, RowStore},
    schema_changes::{SchemaAction, SchemaChange, SchemaObject},
};

/// What remembered rows may take of memory, in bytes.
const MAX_ROW_BYTES: usize = 16 << 20;
/// The most schemas whose names are remembered; beyond that all are forgotten.
const MAX_NAMESPACES: usize = 1 << 14;

/// What a row of `pg_class` or `pg_namespace` says.
pub(super) enum RelationNews {
    /// A change worth telling.
    Change(SchemaChange),
    /// A change of a temporary relation.
    Temporary,
}

/// The rows seen.
#[derive(Debug)]
pub(super) struct RelationRows {
    version: MajorVersion,
    rows: RowStore,
    /// Schemas' names by database and OID.
    namespaces: QuickMap<(Oid, Oid), Box<[u8]>>,
    /// Catalogs that were rewritten into other files than `initdb` gave them.
    moved: QuickMap<RelationId, Oid>,
}

impl RelationRows {
    /// Nothing seen yet, and all catalogs where `initdb` put them, but for those that moved.
    pub(super) fn new(version: MajorVersion, moved: &[MovedCatalog]) -> Self {
        Self {
            version,
            rows: RowStore::new(MAX_ROW_BYTES),
            namespaces: QuickMap::default(),
            moved: moved
                .iter()
                .map(|moved| (moved.file, moved.catalog))
                .collect(),
        }
    }

    /// The catalogs that moved, in ascending order.
    pub(super) fn moved(&self) -> Vec<MovedCatalog> {
        let moved = self.moved.iter();
        let mut all: Vec<_> = moved
            .map(|(file, catalog)| MovedCatalog {
                file: *file,
                catalog: *catalog,
            })
            .collect();
        all.sort_unstable();
        all
    }

    /// Whether a change of a row could not be read, since this was last asked.
    pub(super) fn take_missed(&mut self) -> bool {
        self.rows.take_missed()
    }

    /// The catalog whose file this is, as far as that is known.
    #[inline]
    pub(super) fn catalog(&self, relation: RelationId) -> Option<Oid> {
        if relation.relfilenode < FIRST_USER_OID {
            Some(relation.relfilenode)
        } else if self.moved.is_empty() {
            None
        } else {
            self.moved.get(&relation).copied()
        }
    }

    /// Whether a block is worth [`RelationRows::observe`].
    #[inline]
    pub(super) fn concerns(&self, relation: RelationId) -> bool {
        relation.tablespace != GLOBAL_TABLESPACE
            && matches!(
                self.catalog(relation),
                Some(CLASS_CATALOG | NAMESPACE_CATALOG)
            )
    }

    /// Takes note of a database's new map.
    pub(super) fn map_changed(&mut self, update: &RelationMapUpdate<'_>) {
        let directory = update.directory;
        for (catalog, relfilenode) in update.map.iter() {
            self.catalog_moved(
                RelationId {
                    tablespace: directory.tablespace,
                    database: directory.database,
                    relfilenode,
                },
                catalog,
            );
        }
    }

    fn catalog_moved(&mut self, file: RelationId, catalog: Oid) {
        if file.relfilenode >= FIRST_USER_OID
            && (self.moved.len() < MAX_MOVED_CATALOGS || self.moved.contains_key(&file))
        {
            self.moved.insert(file, catalog);
        }
    }

    /// Takes note of the page images of a record that concerns the catalogs.
    pub(super) fn see_images(&mut self, record: &Record<'_>) {
        let moved = &self.moved;
        self.rows.see_images(record, |relation| {
            let catalog = match relation.relfilenode < FIRST_USER_OID {
                true => Some(relation.relfilenode),
                false => moved.get(&relation).copied(),
            };
            relation.tablespace != GLOBAL_TABLESPACE
                && matches!(catalog, Some(CLASS_CATALOG | NAMESPACE_CATALOG))
        });
    }

    /// Takes note of a heap record whose images were seen; tells what happened, if it is worth telling.
    pub(super) fn observe(
        &mut self,
        record: &Record<'_>,
        change: HeapRecord<'_>,
    ) -> Option<RelationNews> {
        let block = record.block(0)?;
        let catalog = self.catalog(block.relation)?;
        let version = self.version;
        let database = block.relation.database;
        let seen = self.rows.observe(record, &block, change)?;
        if catalog == NAMESPACE_CATALOG {
            let seen = seen.read(NamespaceRow::new)?;
            let (object, action) = namespace_change(seen)?;
            if is_temporary(&object) {
                return Some(RelationNews::Temporary);
            }
            if let SchemaObject::Namespace { oid, name } = &object {
                if self.namespaces.len() >= MAX_NAMESPACES {
                    self.namespaces.clear();
                }
                self.namespaces
                    .insert((database, *oid), name.as_slice().into());
            }
            return Some(RelationNews::Change(SchemaChange {
                start: record.start(),
                database,
                object,
                action,
            }));
        }
        let seen = seen.read(|row| RelationRow::new(row, version))?;
        if let RowChange::Updated { new: Some(new), .. } = seen
            && new.oid() < FIRST_USER_OID
        {
            let file = RelationId {
                relfilenode: new.relfilenode(),
                ..block.relation
            };
            let catalog = new.oid();
            self.catalog_moved(file, catalog);
            return None;
        }
        let (row, action) = relation_change(seen)?;
        if row.is_temporary() {
            return Some(RelationNews::Temporary);
        }
        let definition = row.definition();
        if definition.namespace == TOAST_NAMESPACE || definition.oid < FIRST_USER_OID {
            return None;
        }
        let namespace = self.namespaces.get(&(database, definition.namespace));
        Some(RelationNews::Change(SchemaChange {
            start: record.start(),
            database,
            object: SchemaObject::Relation {
                definition,
                namespace: namespace.map(|name| name.to_vec()),
            },
            action,
        }))
    }
}

fn relation_change(change: RowChange<RelationRow<'_>>) -> Option<(RelationRow<'_>, SchemaAction)> {
    Some(match change {
        RowChange::Inserted(row) => (row, SchemaAction::Created),
        RowChange::Deleted(row) => (row?, SchemaAction::Dropped),
        RowChange::Updated { old, new } => {
            let new = new?;
            let action = match old {
                Some(old) if old.relfilenode() != new.relfilenode() => SchemaAction::NewFile {
                    from: old.relfilenode(),
                },
                Some(old) if old.name() != new.name() => SchemaAction::Renamed {
                    from: old.name().to_vec(),
                },
                _ => SchemaAction::Altered,
            };
            (new, action)
        }
        // Statistics, and whether there are indexes.
        RowChange::Overwritten(_) => return None,
    })
}

fn namespace_change(change: RowChange<NamespaceRow<'_>>) -> Option<(SchemaObject, SchemaAction)> {
    let (row, action) = match change {
        RowChange::Inserted(row) => (row, SchemaAction::Created),
        RowChange::Deleted(row) => (row?, SchemaAction::Dropped),
        RowChange::Updated { old, new } => {
            let new = new?;
            let action = match old {
                Some(old) if old.name() != new.name() => SchemaAction::Renamed {
                    from: old.name().to_vec(),
                },
                _ => SchemaAction::Altered,
            };
            (new, action)
        }
        RowChange::Overwritten(_) => return None,
    };
    let object = SchemaObject::Namespace {
        oid: row.oid(),
        name: row.name().to_vec(),
    };
    Some((object, action))
}

fn is_temporary(object: &SchemaObject) -> bool {
    matches!(object, SchemaObject::Namespace { name, .. } if is_temporary_namespace(name))
}
