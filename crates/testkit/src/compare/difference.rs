//! Comparison, and differences said so that a person can act on them.

use std::{collections::BTreeMap, fmt::Display};

use super::content::{DatabaseContent, Fingerprint, SequenceState};

/// How many values a sequence may be ahead after recovery: it is logged in advance (`SEQ_LOG_VALS` in
/// `src/backend/commands/sequence.c`).
const SEQUENCE_LEAD: i64 = 32;

/// Panics with a list of differences unless `actual`, a restored copy, holds what `expected` holds.
/// Sequences of the copy may be ahead by what PostgreSQL logs in advance.
#[track_caller]
pub fn assert_same(expected: &Fingerprint, actual: &Fingerprint) {
    report(&differences(expected, actual));
}

/// As [`assert_same`], for one database and its restored copy, whatever their names.
#[track_caller]
pub fn assert_same_database(expected: &DatabaseContent, actual: &DatabaseContent) {
    report(&database_differences(expected, actual));
}

#[track_caller]
fn report(found: &[String]) {
    assert!(
        found.is_empty(),
        "contents differ:\n  {}",
        found.join("\n  ")
    );
}

/// How `actual`, a restored copy, differs from `expected`: a line for each thing that is missing, surplus or
/// other. Sequences of the copy may be ahead by what PostgreSQL logs in advance.
pub fn differences(expected: &Fingerprint, actual: &Fingerprint) -> Vec<String> {
    let mut found = Vec::new();
    differ("shared", &expected.shared, &actual.shared, &mut found);
    let both = pair(&expected.databases, &actual.databases);
    for (name, (expected, actual)) in both {
        match (expected, actual) {
            (Some(expected), Some(actual)) => compare(name, expected, actual, &mut found),
            (Some(_), None) => found.push(format!("database {name} is missing")),
            (None, _) => found.push(format!("database {name} is there, but should not")),
        }
    }
    found
}

/// As [`differences`], for one database and its restored copy, whatever their names.
pub fn database_differences(expected: &DatabaseContent, actual: &DatabaseContent) -> Vec<String> {
    let mut found = Vec::new();
    compare("database", expected, actual, &mut found);
    found
}

fn compare(
    name: &str,
    expected: &DatabaseContent,
    actual: &DatabaseContent,
    found: &mut Vec<String>,
) {
    differ(name, &expected.tables, &actual.tables, found);
    let large_objects = |content: &DatabaseContent| {
        BTreeMap::from([("large objects".to_owned(), content.large_objects.clone())])
    };
    differ(
        name,
        &large_objects(expected),
        &large_objects(actual),
        found,
    );
    // A sequence within its lead counts as equal.
    let mut sequences = actual.sequences.clone();
    for (sequence, state) in &mut sequences {
        if let Some(expected) = expected.sequences.get(sequence)
            && is_within_lead(expected, state)
        {
            *state = *expected;
        }
    }
    differ(name, &expected.sequences, &sequences, found);
}

fn is_within_lead(expected: &SequenceState, actual: &SequenceState) -> bool {
    let (Some(before), Some(after)) = (expected.last, actual.last) else {
        return false;
    };
    let step = expected.increment;
    let lead = i128::from(after) - i128::from(before);
    let steps = lead / i128::from(step.max(1).max(-step));
    let steps = if step < 0 { -steps } else { steps };
    expected.increment == actual.increment && (0..=i128::from(SEQUENCE_LEAD)).contains(&steps)
}

fn differ<V: PartialEq + Display>(
    name: &str,
    expected: &BTreeMap<String, V>,
    actual: &BTreeMap<String, V>,
    found: &mut Vec<String>,
) {
    for (key, values) in pair(expected, actual) {
        match values {
            (Some(expected), Some(actual)) if expected == actual => {}
            (Some(expected), Some(actual)) => {
                found.push(format!(
                    "{name}: {key}: expected {expected}, found {actual}"
                ));
            }
            (Some(expected), None) => {
                found.push(format!("{name}: {key} is missing; expected {expected}"));
            }
            (None, Some(actual)) => {
                found.push(format!("{name}: {key} should not be there, with {actual}"));
            }
            (None, None) => {}
        }
    }
}

type Pair<'a, V> = (Option<&'a V>, Option<&'a V>);

fn pair<'a, V>(
    expected: &'a BTreeMap<String, V>,
    actual: &'a BTreeMap<String, V>,
) -> BTreeMap<&'a str, Pair<'a, V>> {
    let mut pairs: BTreeMap<&str, Pair<'_, V>> = BTreeMap::new();
    for (key, value) in expected {
        pairs.entry(key).or_default().0 = Some(value);
    }
    for (key, value) in actual {
        pairs.entry(key).or_default().1 = Some(value);
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(last: i64, increment: i64) -> DatabaseContent {
        let state = SequenceState {
            last: Some(last),
            increment,
        };
        DatabaseContent {
            sequences: BTreeMap::from([("public.s".to_owned(), state)]),
            ..DatabaseContent::default()
        }
    }

    #[test]
    fn sequence_ahead_by_what_is_logged_in_advance_is_the_same() {
        assert_same_database(&sequence(10, 5), &sequence(10 + 32 * 5, 5));
        assert_same_database(&sequence(10, -5), &sequence(10 - 32 * 5, -5));
    }

    #[test]
    #[should_panic(expected = "public.s: expected 10, found 9")]
    fn sequence_behind_is_another() {
        assert_same_database(&sequence(10, 1), &sequence(9, 1));
    }

    #[test]
    #[should_panic(expected = "expected 10, found 43")]
    fn sequence_too_far_ahead_is_another() {
        assert_same_database(&sequence(10, 1), &sequence(43, 1));
    }
}
