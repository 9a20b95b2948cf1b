//! Names of tables, as PostgreSQL reads and makes them.

use std::{collections::BTreeSet, fmt, str::FromStr};

use everpoint_instance::grant::quote_identifier;
use serde::{Deserialize, Serialize};

use crate::transplant::name::MAX_NAME_BYTES;

/// Names offered for one that is not there.
const NEAR_NAMES: usize = 5;
/// Letters by which a name may differ to be offered.
const NEAR_DISTANCE: usize = 2;

/// A table, by its schema and its own name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TableName {
    /// The schema.
    pub schema: String,
    /// The table.
    pub table: String,
}

/// The text names no table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableNameError {
    /// One part, or three.
    #[error("a table is written as SCHEMA.TABLE, such as public.orders or \"My Schema\".\"a.b\"")]
    Parts,
    /// What PostgreSQL would not read as a name.
    #[error(
        "`{text}` cannot be read as SCHEMA.TABLE at `{at}`: put names in double quotes that are more than letters, \
         digits and underscores"
    )]
    Character {
        /// The text.
        text: String,
        /// Where it goes wrong.
        at: String,
    },
    /// A quote without its end.
    #[error("`{text}` has a double quote without its end")]
    Open {
        /// The text.
        text: String,
    },
    /// PostgreSQL would cut it off.
    #[error("`{name}` is {} bytes long, and PostgreSQL takes {MAX_NAME_BYTES}", .name.len())]
    TooLong {
        /// The name.
        name: String,
    },
    /// Nothing, or a zero.
    #[error("a name is empty or holds a zero byte")]
    Empty,
}

impl TableName {
    /// As PostgreSQL's own functions write it.
    pub fn quoted(&self) -> String {
        quoted(&self.schema, &self.table)
    }
}

/// A name within a schema, as SQL takes it.
pub(super) fn quoted(schema: &str, name: &str) -> String {
    format!("{}.{}", quote_identifier(schema), quote_identifier(name))
}

/// Quotes where PostgreSQL needs them, for a person to read.
fn shown(name: &str) -> String {
    let plain = name
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b == b'_' || b.is_ascii_digit() || b == b'$')
        && name
            .bytes()
            .next()
            .is_some_and(|b| b.is_ascii_lowercase() || b == b'_');
    match plain {
        true => name.to_owned(),
        false => quote_identifier(name),
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", shown(&self.schema), shown(&self.table))
    }
}

/// Reads `schema.table` as PostgreSQL does: what is not in double quotes is in lower case (ASCII letters; others stay
/// as they are, as in databases of multibyte encodings, `downcase_identifier` in `src/backend/parser/scansup.c`), two
/// double quotes in quotes are one. Names that PostgreSQL would cut off are refused.
impl FromStr for TableName {
    type Err = TableNameError;

    fn from_str(text: &str) -> Result<Self, TableNameError> {
        let mut rest = text.trim();
        let mut parts = Vec::new();
        loop {
            let (part, behind) = identifier(text, rest)?;
            if part.len() > MAX_NAME_BYTES {
                return Err(TableNameError::TooLong { name: part });
            }
            if part.is_empty() || part.contains('\0') {
                return Err(TableNameError::Empty);
            }
            parts.push(part);
            let behind = behind.trim_start();
            match behind.strip_prefix('.') {
                Some(next) => rest = next.trim_start(),
                None if behind.is_empty() => break,
                None => return Err(character(text, behind)),
            }
        }
        match <[String; 2]>::try_from(parts) {
            Ok([schema, table]) => Ok(Self { schema, table }),
            Err(_) => Err(TableNameError::Parts),
        }
    }
}

fn character(text: &str, at: &str) -> TableNameError {
    TableNameError::Character {
        text: text.to_owned(),
        at: at.to_owned(),
    }
}

/// Takes one name off the beginning.
fn identifier<'a>(text: &str, rest: &'a str) -> Result<(String, &'a str), TableNameError> {
    let Some(quoted) = rest.strip_prefix('"') else {
        let end = rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '$') || !c.is_ascii()))
            .unwrap_or(rest.len());
        let (name, behind) = rest.split_at(end);
        let begins = |c: char| c.is_ascii_alphabetic() || c == '_' || !c.is_ascii();
        if !name.starts_with(begins) {
            return match rest.is_empty() {
                true => Err(TableNameError::Parts),
                false => Err(character(text, rest)),
            };
        }
        return Ok((name.to_ascii_lowercase(), behind));
    };
    let mut name = String::new();
    let mut characters = quoted.char_indices().peekable();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' if characters.next_if(|(_, next)| *next == '"').is_some() => name.push('"'),
            '"' => return Ok((name, quoted.get(at + 1..).unwrap_or_default())),
            other => name.push(other),
        }
    }
    Err(TableNameError::Open {
        text: text.to_owned(),
    })
}

/// The name for something that belongs to a table that gets another name. What is named after the table is named
/// after its new name; what has a name of its own keeps it. A name that is taken gets a number behind it, as
/// PostgreSQL does it (`ChooseRelationName`, `src/backend/commands/indexcmds.c`). The name is taken then.
pub(super) fn derive(
    own: &str,
    old_table: &str,
    new_table: &str,
    taken: &mut BTreeSet<String>,
) -> String {
    let after_table = own
        .strip_prefix(old_table)
        .filter(|rest| rest.starts_with('_'));
    let mut number = 0_u32;
    loop {
        let count = match number {
            0 => String::new(),
            number => number.to_string(),
        };
        let name = match after_table {
            Some(rest) => fitted(new_table, &format!("{rest}{count}")),
            None => fitted(own, &count),
        };
        if taken.insert(name.clone()) {
            return name;
        }
        number += 1;
    }
}

/// Both together, with each cut at a character so that they fit; the longer one first.
fn fitted(name: &str, suffix: &str) -> String {
    let (mut name, mut suffix) = (name.to_owned(), suffix.to_owned());
    while name.len() + suffix.len() > MAX_NAME_BYTES {
        match name.len() >= suffix.len() {
            true => name.pop(),
            false => suffix.pop(),
        };
    }
    name + &suffix
}

/// Names like one that is not there: the same in other schemas first, then those a slip away.
pub(super) fn near(wanted: &TableName, there: &[TableName]) -> Vec<String> {
    let mut found: Vec<(usize, &TableName)> = there
        .iter()
        .filter_map(|name| {
            let distance = distance(&wanted.table.to_lowercase(), &name.table.to_lowercase());
            let elsewhere = usize::from(wanted.schema != name.schema);
            let limit = NEAR_DISTANCE.min(wanted.table.chars().count() / 3);
            (distance <= limit).then_some((distance * 2 + elsewhere, name))
        })
        .collect();
    found.sort();
    let names = found.into_iter().take(NEAR_NAMES);
    names.map(|(_, name)| name.to_string()).collect()
}

/// Levenshtein's.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut next = vec![i + 1];
        for ((y, pair), left) in b.iter().zip(row.windows(2)).zip(0..) {
            let (diagonal, above) = match pair {
                [diagonal, above] => (*diagonal, *above),
                _ => continue,
            };
            let before = next.get(left).copied().unwrap_or_default();
            let changed = diagonal + usize::from(x != *y);
            next.push(changed.min(above + 1).min(before + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(schema: &str, table: &str) -> TableName {
        TableName {
            schema: schema.to_owned(),
            table: table.to_owned(),
        }
    }

    #[test]
    fn names_are_read_as_postgresql_reads_them() {
        for (text, schema, table) in [
            ("public.orders", "public", "orders"),
            ("Public.ORDERS", "public", "orders"),
            ("\"My Schema\".\"a.b\"", "My Schema", "a.b"),
            ("public.\"say \"\"hi\"\"\"", "public", "say \"hi\""),
            ("größe.Straße$1", "größe", "straße$1"),
            ("  a . \"B\" ", "a", "B"),
        ] {
            assert_eq!(text.parse::<TableName>(), Ok(name(schema, table)), "{text}");
        }
    }

    #[test]
    fn what_names_no_table_is_refused_with_the_place() {
        let error = |text: &str| text.parse::<TableName>().unwrap_err().to_string();
        for parts in ["orders", "", "a.b.c", "a."] {
            assert!(error(parts).contains("SCHEMA.TABLE"), "{parts}");
        }
        assert!(error("public.my-table").contains("at `-table`"));
        assert!(error("public.1st").contains("at `1st`"));
        assert!(error("public.\"x").contains("without its end"));
        assert!(error("public.\"\"").contains("empty"));
        assert!(error(&format!("public.{}", "ü".repeat(32))).contains("64 bytes"));
    }

    #[test]
    fn names_come_back_as_they_were_written() {
        for text in [
            "public.orders",
            "\"My Schema\".\"a.b\"",
            "a.\"1\"",
            "a.\"x\"\"y\"",
        ] {
            assert_eq!(text.parse::<TableName>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_named_after_a_table_is_named_after_its_new_name() {
        let mut taken = BTreeSet::from(["by_customer".to_owned(), "old_id_seq".to_owned()]);
        let mut derived = |own: &str| derive(own, "orders", "old", &mut taken);
        assert_eq!(derived("orders_pkey"), "old_pkey");
        assert_eq!(derived("orders_id_seq"), "old_id_seq1");
        assert_eq!(derived("by_customer"), "by_customer1");
        assert_eq!(derived("by_customer"), "by_customer2");
        assert_eq!(derived("ordersx"), "ordersx");
        let long = derive(&format!("{}_pkey", "x"), "x", &"ü".repeat(31), &mut taken);
        assert_eq!(long, format!("{}_pkey", "ü".repeat(29)));
    }

    #[test]
    fn names_a_slip_away_or_in_other_schemas_are_offered() {
        let there = [
            name("sales", "orders"),
            name("public", "order"),
            name("public", "Orders"),
            name("public", "customers"),
        ];
        assert_eq!(
            near(&name("public", "orders"), &there),
            ["public.\"Orders\"", "sales.orders", "public.order"]
        );
        assert!(near(&name("public", "ab"), &there).is_empty());
    }
}
