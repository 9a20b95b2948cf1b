//! Sets of system catalogs whose rows make up what the database is, not what it holds.

use crate::Oid;

/// Such catalogs by OID, and what a row in each defines. Left out are those that say nothing on their own
/// (dependencies), hold statistics, or hold contents (large objects).
///
/// The order is part of the stored form of summaries: append only.
const CATALOGS: [(u32, &str); 54] = [
    (1259, "relation"),
    (1249, "column"),
    (1247, "type"),
    (2604, "default"),
    (2606, "constraint"),
    (2610, "index"),
    (2611, "inheritance"),
    (2618, "view or rule"),
    (2620, "trigger"),
    (2224, "sequence"),
    (3350, "partitioning"),
    (2609, "comment"),
    (2615, "schema"),
    (1255, "function"),
    (1260, "role"),
    (1261, "role membership"),
    (1262, "database"),
    (1213, "tablespace"),
    (1417, "foreign server"),
    (1418, "user mapping"),
    (2328, "foreign-data wrapper"),
    (2600, "aggregate"),
    (2601, "access method"),
    (2602, "operator family"),
    (2603, "operator family"),
    (2605, "cast"),
    (2607, "conversion"),
    (2612, "language"),
    (2616, "operator class"),
    (2617, "operator"),
    (2753, "operator family"),
    (2964, "setting of a role or database"),
    (3079, "extension"),
    (3256, "row security policy"),
    (3381, "extended statistics"),
    (3394, "privileges"),
    (3456, "collation"),
    (3466, "event trigger"),
    (3501, "enum value"),
    (3541, "range type"),
    (3576, "transform"),
    (3592, "security label"),
    (3596, "security label"),
    (3600, "text search dictionary"),
    (3601, "text search parser"),
    (3602, "text search configuration"),
    (3603, "text search configuration"),
    (3764, "text search template"),
    (6100, "subscription"),
    (6104, "publication"),
    (6106, "publication"),
    (6237, "publication"),
    (6243, "privileges"),
    (826, "default privileges"),
];

/// How many of the first catalogs a temporary table is written into; its schema is made with the first one.
const OF_TABLES: u32 = 13;

/// Some of the catalogs that define a database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CatalogSet(u64);

impl CatalogSet {
    /// Adds a catalog, if it is one that defines something.
    pub fn add(&mut self, catalog: Oid) {
        let place = CATALOGS.iter().position(|(oid, _)| *oid == catalog.get());
        self.0 |= place.map_or(0, |place| 1 << place);
    }

    /// Adds those of another set.
    pub fn add_all(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Those that a temporary table is never written into.
    pub fn without_those_of_tables(self) -> Self {
        Self(self.0 >> OF_TABLES << OF_TABLES)
    }

    /// What rows in these catalogs define, each once.
    pub fn nouns(self) -> Vec<&'static str> {
        let mut nouns: Vec<&str> = Vec::new();
        for (place, (_, noun)) in CATALOGS.iter().enumerate() {
            if self.0 >> place & 1 == 1 && !nouns.contains(noun) {
                nouns.push(noun);
            }
        }
        nouns
    }

    /// The set as a number, for storing.
    pub(crate) fn bits(self) -> u64 {
        self.0
    }

    /// From its number; `None` when that has catalogs which are not known.
    pub(crate) fn from_bits(bits: u64) -> Option<Self> {
        (bits >> CATALOGS.len() == 0).then_some(Self(bits))
    }
}
