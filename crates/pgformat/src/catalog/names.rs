//! The names of a database's relations, out of the pages of its `pg_class` and `pg_namespace`.
//!
//! Pages of a backup are of no single moment, and hold rows that are dead or were never committed. For a file
//! the newest row that may be true is taken: one not deleted before one deleted, then the one of the later
//! transaction. That names files of relations dropped shortly before, too.

use std::collections::HashMap;

use crate::{
    MajorVersion, Oid, TransactionId,
    page::{Page, Tuple, tuples},
};

use super::{NamespaceRow, RelationDefinition, RelationRow};

/// The most relations that are named; more are an error.
const MAX_RELATIONS: usize = 4 << 20;
/// The most schemas that are named.
const MAX_NAMESPACES: usize = 1 << 20;

/// A catalog has more rows than are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the catalog has more than {limit} rows")]
pub struct NameError {
    limit: usize,
}

/// The relations of a database by their files, and its schemas.
#[derive(Clone, Debug, Default)]
pub struct RelationNames {
    relations: HashMap<Oid, (Age, RelationDefinition)>,
    namespaces: HashMap<Oid, (Age, Vec<u8>)>,
}

/// How likely a row is the one that counts; the greater the better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Age {
    is_live: bool,
    is_frozen: bool,
    inserted_by: TransactionId,
}

impl Age {
    fn of(tuple: &Tuple<'_>) -> Self {
        Self {
            is_live: !tuple.is_deleted(),
            is_frozen: tuple.is_frozen(),
            inserted_by: tuple.inserted_by(),
        }
    }

    fn is_newer_than(self, other: Self) -> bool {
        if self.is_live != other.is_live {
            return self.is_live;
        }
        if self.is_frozen != other.is_frozen {
            return !self.is_frozen;
        }
        // Transactions' numbers come round: later is what lies at most half of them ahead.
        let ahead = self.inserted_by.get().wrapping_sub(other.inserted_by.get());
        ahead != 0 && ahead < 1 << 31
    }
}

impl RelationNames {
    /// Reads a page of `pg_class`.
    ///
    /// # Errors
    /// When there are more relations than are read.
    pub fn add_class_page(&mut self, page: &Page, version: MajorVersion) -> Result<(), NameError> {
        for tuple in tuples(page).filter(|tuple| !tuple.is_aborted()) {
            let row = RelationRow::new(tuple.contents(), version);
            let Some(row) = row.filter(|row| !row.is_temporary() && row.relfilenode().get() != 0)
            else {
                continue;
            };
            let limit = MAX_RELATIONS;
            replace_older(
                &mut self.relations,
                row.relfilenode(),
                (Age::of(&tuple), row.definition()),
                limit,
            )?;
        }
        Ok(())
    }

    /// Reads a page of `pg_namespace`.
    ///
    /// # Errors
    /// When there are more schemas than are read.
    pub fn add_namespace_page(&mut self, page: &Page) -> Result<(), NameError> {
        for tuple in tuples(page).filter(|tuple| !tuple.is_aborted()) {
            if let Some(row) = NamespaceRow::new(tuple.contents()) {
                let named = (Age::of(&tuple), row.name().to_vec());
                replace_older(&mut self.namespaces, row.oid(), named, MAX_NAMESPACES)?;
            }
        }
        Ok(())
    }

    /// The relation whose file this is.
    pub fn of_file(&self, relfilenode: Oid) -> Option<&RelationDefinition> {
        self.relations
            .get(&relfilenode)
            .map(|(_, definition)| definition)
    }

    /// All relations with files, in no order.
    pub fn relations(&self) -> impl ExactSizeIterator<Item = &RelationDefinition> {
        self.relations.values().map(|(_, definition)| definition)
    }

    /// A schema's name.
    pub fn namespace(&self, oid: Oid) -> Option<&[u8]> {
        self.namespaces.get(&oid).map(|(_, name)| &name[..])
    }
}

fn replace_older<T>(
    all: &mut HashMap<Oid, (Age, T)>,
    oid: Oid,
    new: (Age, T),
    limit: usize,
) -> Result<(), NameError> {
    let is_full = all.len() >= limit;
    match all.get_mut(&oid) {
        Some(old) if new.0.is_newer_than(old.0) => *old = new,
        Some(_) => {}
        None if is_full => return Err(NameError { limit }),
        None => {
            all.insert(oid, new);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{catalog::RelationKind, ids::BLOCK_SIZE};

    const XMAX_INVALID: u16 = 0x0800;
    const XMIN_INVALID: u16 = 0x0200;

    /// A page of rows with their inserting and deleting transactions and flags.
    fn page(rows: &[(u32, u32, u16, Vec<u8>)]) -> Page {
        let mut page = [0; BLOCK_SIZE];
        let lower = u16::try_from(24 + rows.len() * 4).unwrap();
        page[12..14].copy_from_slice(&lower.to_le_bytes());
        let mut upper = BLOCK_SIZE;
        for (index, (xmin, xmax, flags, row)) in rows.iter().enumerate() {
            let len = row.len() + 24;
            upper -= len.next_multiple_of(8);
            page[upper..upper + 4].copy_from_slice(&xmin.to_le_bytes());
            page[upper + 4..upper + 8].copy_from_slice(&xmax.to_le_bytes());
            page[upper + 20..upper + 22].copy_from_slice(&flags.to_le_bytes());
            page[upper + 22] = 24;
            page[upper + 24..upper + len].copy_from_slice(row);
            let pointer = u32::try_from(upper | 1 << 15 | len << 17).unwrap();
            page[24 + index * 4..28 + index * 4].copy_from_slice(&pointer.to_le_bytes());
        }
        page
    }

    fn class_row(version: MajorVersion, oid: u32, name: &str, file: u32, kind: u8) -> Vec<u8> {
        let mut row = vec![0; 144];
        row[..4].copy_from_slice(&oid.to_le_bytes());
        row[4..4 + name.len()].copy_from_slice(name.as_bytes());
        row[68..72].copy_from_slice(&2200_u32.to_le_bytes());
        row[88..92].copy_from_slice(&file.to_le_bytes());
        let persistence = version.row().class_persistence_offset;
        row[persistence] = b'p';
        row[persistence + 1] = kind;
        row
    }

    #[test]
    fn files_are_named_by_the_newest_row_that_may_be_true() {
        for major in [15, 18] {
            let version = MajorVersion::try_from(major).unwrap();
            let row = |name: &str, file| class_row(version, 16_400, name, file, b'r');
            let rows = [
                (700, 701, 0, row("before", 16_400)),
                (701, 0, XMAX_INVALID, row("after", 16_400)),
                (702, 0, XMAX_INVALID | XMIN_INVALID, row("undone", 16_400)),
                (703, 704, 0, row("gone", 16_500)),
                (705, 706, 0, row("gone later", 16_500)),
            ];
            let mut names = RelationNames::default();
            names.add_class_page(&page(&rows), version).unwrap();
            let name = |file| names.of_file(Oid::new(file)).map(|found| &found.name[..]);
            assert_eq!(name(16_400), Some(&b"after"[..]));
            assert_eq!(name(16_500), Some(&b"gone later"[..]));
            assert_eq!(name(1), None);
            let found = names.of_file(Oid::new(16_400)).unwrap();
            assert_eq!(
                (found.kind, found.namespace.get()),
                (RelationKind::TABLE, 2200)
            );
        }
    }
}
