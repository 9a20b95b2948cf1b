//! What a transaction does, in numbers and in changes of schema.

use crate::{Lsn, catalog::CatalogSet, relation::RelationId, wal::heap::RowsWritten};

use super::schema_changes::{MAX_SCHEMA_CHANGES, SchemaChange};

/// The most relations listed of one transaction; beyond that the least touched give way.
pub const MAX_TOUCHED_RELATIONS: usize = 16;

/// What a transaction did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// Start of its first record that refers to a block.
    pub first: Lsn,
    /// Bytes of its records that refer to blocks.
    pub log_bytes: u64,
    /// Block references in its records, its children's included. A block counts each time.
    pub blocks: u64,
    /// The relations it touched, in the order in which it did.
    pub touched: Vec<TouchedRelation>,
    /// Block references to relations that are not listed.
    pub other_blocks: u64,
    /// What it did to relations and schemas, in the order of the log.
    pub schema: Vec<SchemaChange>,
    /// Changes of schema that are not listed.
    pub other_changes: u64,
    /// The catalogs it wrote rows into.
    pub catalogs: CatalogSet,
    /// Whether it changed temporary relations.
    pub temporary: bool,
}

/// A relation that a transaction touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TouchedRelation {
    /// The relation: a table, or one of its indexes.
    pub relation: RelationId,
    /// Block references to it.
    pub blocks: u64,
    /// Rows written to it.
    pub rows: RowCounts,
}

/// Rows written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowCounts {
    /// Added.
    pub inserted: u64,
    /// Given a new version.
    pub updated: u64,
    /// Deleted.
    pub deleted: u64,
}

impl RowCounts {
    /// Counts what a record does.
    pub(super) fn count(&mut self, written: RowsWritten) {
        match written {
            RowsWritten::Inserted(count) => self.inserted += count,
            RowsWritten::Updated => self.updated += 1,
            RowsWritten::Deleted => self.deleted += 1,
        }
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.inserted
            .saturating_add(self.updated)
            .saturating_add(self.deleted)
    }

    fn add(&mut self, other: Self) {
        self.inserted = self.inserted.saturating_add(other.inserted);
        self.updated = self.updated.saturating_add(other.updated);
        self.deleted = self.deleted.saturating_add(other.deleted);
    }
}

impl Activity {
    pub(super) fn new(first: Lsn) -> Self {
        Self {
            first,
            ..Self::default()
        }
    }

    /// Whether it changed what the database is, beyond temporary tables.
    pub fn is_ddl(&self) -> bool {
        let catalogs = match self.temporary && self.schema.is_empty() {
            true => self.catalogs.without_those_of_tables(),
            false => self.catalogs,
        };
        !self.schema.is_empty() || !catalogs.is_empty()
    }

    /// Counts a block reference.
    #[inline]
    pub(super) fn touch(&mut self, relation: RelationId) -> &mut TouchedRelation {
        self.blocks += 1;
        let touched = self.place(relation);
        touched.blocks += 1;
        touched
    }

    #[inline]
    #[expect(
        clippy::indexing_slicing,
        reason = "the place was just found or made; get_mut would need an entry that does not exist"
    )]
    fn place(&mut self, relation: RelationId) -> &mut TouchedRelation {
        let found = self
            .touched
            .iter()
            .position(|touched| touched.relation == relation);
        let place = match found {
            Some(place) => place,
            None => {
                if self.touched.len() >= MAX_TOUCHED_RELATIONS {
                    self.forget_least_touched();
                }
                self.touched.push(TouchedRelation {
                    relation,
                    blocks: 0,
                    rows: RowCounts::default(),
                });
                self.touched.len() - 1
            }
        };
        &mut self.touched[place]
    }

    fn forget_least_touched(&mut self) {
        let least = (0..)
            .zip(&self.touched)
            .min_by_key(|(_, touched)| touched.blocks);
        if let Some((place, _)) = least {
            let forgotten = self.touched.remove(place);
            self.other_blocks = self.other_blocks.saturating_add(forgotten.blocks);
        }
    }

    pub(super) fn add_change(&mut self, change: SchemaChange) {
        if self.schema.len() < MAX_SCHEMA_CHANGES {
            self.schema.push(change);
        } else {
            self.other_changes += 1;
        }
    }

    /// Keeps the first changes of schemas; tells how many are only counted from now on.
    pub(super) fn keep_changes(&mut self, count: usize) -> u64 {
        let left_out = self.schema.len().saturating_sub(count);
        self.schema.truncate(count);
        let left_out = u64::try_from(left_out).unwrap_or(u64::MAX);
        self.other_changes = self.other_changes.saturating_add(left_out);
        left_out
    }

    /// Adds what a child did.
    pub(super) fn add(&mut self, child: Self) {
        self.first = self.first.min(child.first);
        self.log_bytes = self.log_bytes.saturating_add(child.log_bytes);
        self.blocks = self.blocks.saturating_add(child.blocks);
        self.other_blocks = self.other_blocks.saturating_add(child.other_blocks);
        for touched in child.touched {
            let ours = self.place(touched.relation);
            ours.blocks = ours.blocks.saturating_add(touched.blocks);
            ours.rows.add(touched.rows);
        }
        for change in child.schema {
            self.add_change(change);
        }
        self.schema.sort_by_key(|change| change.start);
        self.other_changes = self.other_changes.saturating_add(child.other_changes);
        self.catalogs.add_all(child.catalogs);
        self.temporary |= child.temporary;
    }
}
