//! Which tables' rows can go in PostgreSQL's binary format.
//!
//! Binary is faster, but it carries numbers of objects where text carries names: composite types and arrays name
//! their elements' types by number, and `regclass` and its kin are numbers. Types made by users have other
//! numbers in the target.

use std::collections::HashMap;

/// Objects from this number on are made by users (`FirstNormalObjectId`, `src/include/access/transam.h`).
const FIRST_NORMAL_OID: u32 = 16384;

/// How rows go from server to server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Binary,
    Text,
}

/// What has to be known of a type, as `pg_type` and `pg_range` have it.
#[derive(Clone, Debug)]
pub(super) struct TypeRow {
    pub(super) oid: u32,
    pub(super) name: String,
    /// `typtype`: b, c, d, e, m, p or r.
    pub(super) kind: char,
    /// The elements' type, for arrays.
    pub(super) element: Option<u32>,
    /// The type that a domain is over, or a range of.
    pub(super) base: Option<u32>,
    /// Whether it has functions for both directions.
    pub(super) has_binary: bool,
}

/// Types by number.
#[derive(Debug)]
pub(super) struct Types {
    rows: HashMap<u32, TypeRow>,
    /// Whether both servers are of the same major version: extensions' binary formats are taken for equal then.
    same_version: bool,
}

impl Types {
    pub(super) fn new(rows: Vec<TypeRow>, versions: [everpoint_pgformat::MajorVersion; 2]) -> Self {
        Self {
            rows: rows.into_iter().map(|row| (row.oid, row)).collect(),
            same_version: versions[0] == versions[1],
        }
    }

    /// The format for rows of these columns.
    pub(super) fn format(&self, columns: &[u32]) -> Format {
        match columns.iter().all(|oid| self.is_portable(*oid, 0)) {
            true => Format::Binary,
            false => Format::Text,
        }
    }

    fn is_portable(&self, oid: u32, depth: usize) -> bool {
        // Types cannot contain themselves, but what a catalog says is not to be trusted with our stack.
        let Some(row) = self.rows.get(&oid).filter(|_| depth < 32) else {
            return false;
        };
        let inner = |oid: Option<u32>| oid.is_some_and(|oid| self.is_portable(oid, depth + 1));
        let built_in = oid < FIRST_NORMAL_OID;
        row.has_binary
            && match row.kind {
                // Text by name, binary by number.
                _ if built_in && row.name.starts_with("reg") => false,
                'b' if row.element.is_some() => {
                    row.element.is_some_and(|oid| oid < FIRST_NORMAL_OID) && inner(row.element)
                }
                'b' => built_in || self.same_version,
                'e' => true,
                'd' | 'r' | 'm' => inner(row.base),
                _ => false,
            }
    }
}

#[cfg(test)]
mod tests {
    use everpoint_pgformat::MajorVersion;

    use super::*;

    fn row(oid: u32, name: &str, kind: char, element: Option<u32>, base: Option<u32>) -> TypeRow {
        TypeRow {
            oid,
            name: name.to_owned(),
            kind,
            element,
            base,
            has_binary: name != "aclitem",
        }
    }

    fn types(versions: [u16; 2]) -> Types {
        let rows = vec![
            row(23, "int4", 'b', None, None),
            row(1007, "_int4", 'b', Some(23), None),
            row(2205, "regclass", 'b', None, None),
            row(2210, "_regclass", 'b', Some(2205), None),
            row(1033, "aclitem", 'b', None, None),
            row(20000, "mood", 'e', None, None),
            row(20001, "_mood", 'b', Some(20000), None),
            row(20002, "place", 'c', None, None),
            row(20003, "amount", 'd', None, Some(23)),
            row(20004, "places", 'd', None, Some(20002)),
            row(20005, "span", 'r', None, Some(20000)),
            row(20006, "hstore", 'b', None, None),
            row(20007, "loop", 'd', None, Some(20007)),
        ];
        Types::new(rows, versions.map(|v| MajorVersion::try_from(v).unwrap()))
    }

    #[test]
    fn what_binary_names_by_number_goes_as_text() {
        let types = types([15, 15]);
        for portable in [23, 1007, 20000, 20003, 20005, 20006] {
            assert_eq!(types.format(&[23, portable]), Format::Binary, "{portable}");
        }
        for by_number in [2205, 2210, 1033, 20001, 20002, 20004, 20007, 99999] {
            assert_eq!(types.format(&[23, by_number]), Format::Text, "{by_number}");
        }
        assert_eq!(types.format(&[]), Format::Binary);
    }

    #[test]
    fn extensions_types_go_as_text_to_another_version() {
        assert_eq!(types([15, 18]).format(&[20006]), Format::Text);
        assert_eq!(types([15, 18]).format(&[20003]), Format::Binary);
    }
}
