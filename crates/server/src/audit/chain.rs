//! Entries, and the chain they make.

use std::{fmt, io::BufRead, str::FromStr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The longest line that is read.
pub(super) const MAX_LINE_BYTES: usize = 1 << 20;
/// The most characters of each text that are written. JSON writes one in 12 bytes at the most.
const MAX_TEXT_CHARS: usize = 1000;
/// What the first line's hash is made upon.
const CONTEXT: &str = "everpoint audit log, version 1";

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When.
    pub time: Timestamp,
    /// Who: an object id, or `service` for what it does by itself.
    pub principal: String,
    /// The action, or what was done.
    pub action: String,
    /// Where.
    pub scope: String,
    /// How it came out.
    pub outcome: Outcome,
    /// Which assignment allowed it, which operation it began, which error it met.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub detail: Option<String>,
}

impl Entry {
    /// With texts as long as they are written, the rest of longer ones replaced by an ellipsis.
    fn cut(&self) -> Self {
        let cut = |text: &String| match text.char_indices().nth(MAX_TEXT_CHARS) {
            None => text.clone(),
            Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        };
        Self {
            time: self.time,
            principal: cut(&self.principal),
            action: cut(&self.action),
            scope: cut(&self.scope),
            outcome: self.outcome,
            detail: self.detail.as_ref().map(cut),
        }
    }
}

/// How it came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It was allowed.
    Allowed,
    /// It was not.
    Denied,
    /// It was done.
    Done,
    /// It was begun and failed.
    Failed,
}

/// The end of a chain: how many lines there are, and the last one's hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    lines: u64,
    hash: blake3::Hash,
}

impl Head {
    /// How many lines there are.
    pub const fn lines(&self) -> u64 {
        self.lines
    }

    fn empty() -> Self {
        Self {
            lines: 0,
            hash: blake3::hash(CONTEXT.as_bytes()),
        }
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.lines, self.hash.to_hex())
    }
}

impl FromStr for Head {
    type Err = ChainError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split_once(':');
        let parsed = parts.and_then(|(lines, hash)| {
            Some((lines.parse().ok()?, blake3::Hash::from_hex(hash).ok()?))
        });
        match parsed {
            Some((lines, hash)) => Ok(Self { lines, hash }),
            None => Err(ChainError::Head {
                text: text.to_owned(),
            }),
        }
    }
}

/// The chain is broken, or cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// The text is no head.
    #[error("`{text}` is no head of an audit log. It is written as LINES:HASH")]
    Head {
        /// As given.
        text: String,
    },
    /// The log cannot be read.
    #[error("the audit log cannot be read")]
    Read(#[from] std::io::Error),
    /// A line is no entry.
    #[error("line {line} of the audit log is no entry")]
    Malformed {
        /// Its number, from 1.
        line: u64,
    },
    /// A line does not follow from the one before.
    #[error(
        "line {line} of the audit log does not follow from the line before it: one of them was changed, or lines were taken out or put in"
    )]
    Broken {
        /// Its number, from 1.
        line: u64,
    },
    /// The log does not hold what it held.
    #[error(
        "the audit log no longer holds line {line} as it was noted: it was cut off or written anew"
    )]
    HeadMissing {
        /// The noted head's number of lines.
        line: u64,
    },
}

#[derive(Serialize, Deserialize)]
struct Line {
    number: u64,
    #[serde(flatten)]
    entry: Entry,
    hash: String,
}

/// A chain that entries are appended to.
#[derive(Clone, Debug)]
pub struct Chain {
    head: Head,
}

impl Default for Chain {
    fn default() -> Self {
        Self {
            head: Head::empty(),
        }
    }
}

impl Chain {
    /// A chain that goes on behind `head`.
    pub fn behind(head: Head) -> Self {
        Self { head }
    }

    /// Its end.
    pub fn head(&self) -> Head {
        self.head
    }

    /// The next line, with its line feed, and the chain's end with it.
    ///
    /// # Errors
    /// When the entry cannot be written as JSON.
    pub fn append(&mut self, entry: &Entry) -> Result<String, serde_json::Error> {
        let number = self.head.lines + 1;
        let entry = entry.cut();
        let hash = link(&self.head, number, &entry)?;
        let text = line(number, entry, hash)?;
        self.head = Head {
            lines: number,
            hash,
        };
        Ok(text)
    }
}

fn line(number: u64, entry: Entry, hash: blake3::Hash) -> Result<String, serde_json::Error> {
    let hash = hash.to_hex().to_string();
    let mut text = serde_json::to_string(&Line {
        number,
        entry,
        hash,
    })?;
    text.push('\n');
    Ok(text)
}

/// The hash of a line: of the hash before it, its number and its entry as JSON.
fn link(before: &Head, number: u64, entry: &Entry) -> Result<blake3::Hash, serde_json::Error> {
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
    hasher.update(before.hash.as_bytes());
    hasher.update(&number.to_le_bytes());
    hasher.update(&serde_json::to_vec(entry)?);
    Ok(hasher.finalize())
}

/// Checks a whole log, and that it still holds `noted`, when there is one. Returns its end.
///
/// # Errors
/// At the first line that is amiss.
pub fn verify(mut log: impl BufRead, noted: Option<Head>) -> Result<Head, ChainError> {
    let mut head = Head::empty();
    let mut met = noted.is_none_or(|noted| noted == head);
    let mut text = Vec::new();
    loop {
        text.clear();
        let line = head.lines + 1;
        let limit = u64::try_from(MAX_LINE_BYTES).unwrap_or(u64::MAX);
        std::io::Read::take(&mut log, limit).read_until(b'\n', &mut text)?;
        if text.is_empty() {
            break;
        }
        if text.last() != Some(&b'\n') {
            return Err(ChainError::Malformed { line });
        }
        let read: Line =
            serde_json::from_slice(&text).map_err(|_| ChainError::Malformed { line })?;
        let hash = link(&head, line, &read.entry).map_err(|_| ChainError::Malformed { line })?;
        if read.number != line || read.hash != hash.to_hex().as_str() {
            return Err(ChainError::Broken { line });
        }
        // White space, other members and other ways to write the same are changes, too.
        let written = self::line(line, read.entry, hash);
        if written
            .map_err(|_| ChainError::Malformed { line })?
            .as_bytes()
            != text
        {
            return Err(ChainError::Broken { line });
        }
        head = Head { lines: line, hash };
        met |= noted == Some(head);
    }
    match noted {
        Some(noted) if !met => Err(ChainError::HeadMissing { line: noted.lines }),
        _ => Ok(head),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn log(count: usize) -> (Vec<String>, Head) {
        let mut chain = Chain::default();
        let lines = (0..count)
            .map(|number| {
                let entry = Entry {
                    time: Timestamp::from_second(i64::try_from(number).unwrap()).unwrap(),
                    principal: format!("p{number}"),
                    action: "Microsoft.Sql/managedInstances/read".to_owned(),
                    scope: "/subscriptions/x".to_owned(),
                    outcome: Outcome::Allowed,
                    detail: (number % 2 == 0).then(|| "ä\n\"".to_owned()),
                };
                chain.append(&entry).unwrap()
            })
            .collect();
        (lines, chain.head())
    }

    fn check(lines: &[String], noted: Option<Head>) -> Result<Head, ChainError> {
        verify(lines.concat().as_bytes(), noted)
    }

    #[test]
    fn a_whole_log_is_whole_and_an_empty_one_too() {
        let (lines, head) = log(20);
        assert_eq!(check(&lines, None).unwrap(), head);
        assert_eq!(check(&lines, Some(head)).unwrap(), head);
        assert_eq!(check(&[], None).unwrap().lines(), 0);
        assert_eq!(head.to_string().parse::<Head>().unwrap(), head);
    }

    #[test]
    fn lines_left_out_put_in_moved_or_taken_from_elsewhere_are_noticed() {
        let (lines, head) = log(10);
        let mut without = lines.clone();
        without.remove(4);
        assert!(matches!(
            check(&without, None),
            Err(ChainError::Broken { line: 5 })
        ));
        let mut twice = lines.clone();
        twice.insert(4, lines[4].clone());
        assert!(check(&twice, None).is_err());
        let mut moved = lines.clone();
        moved.swap(2, 3);
        assert!(matches!(
            check(&moved, None),
            Err(ChainError::Broken { line: 3 })
        ));
        let cut = &lines[..8];
        assert!(
            check(cut, None).is_ok(),
            "a cut end does not show by itself"
        );
        assert!(matches!(
            check(cut, Some(head)),
            Err(ChainError::HeadMissing { line: 10 })
        ));
    }

    #[test]
    fn long_texts_are_cut_and_what_is_put_in_is_noticed() {
        let mut chain = Chain::default();
        let entry = Entry {
            time: Timestamp::UNIX_EPOCH,
            principal: "\u{1}".repeat(100_000),
            action: "ä".repeat(100_000),
            scope: "\"".repeat(100_000),
            outcome: Outcome::Denied,
            detail: Some("😀".repeat(100_000)),
        };
        let line = chain.append(&entry).unwrap();
        assert!(line.len() < 64 << 10, "{}", line.len());
        assert_eq!(verify(line.as_bytes(), None).unwrap(), chain.head());
        let more = line.replacen('{', "{\"note\":\"approved\",", 1);
        assert!(verify(more.as_bytes(), None).is_err());
        let more = line.replacen(':', ": ", 1);
        assert!(verify(more.as_bytes(), None).is_err());
    }

    proptest! {
        #[test]
        fn any_changed_byte_of_an_entry_is_noticed(at in 0_usize..2000, with in any::<u8>()) {
            let (lines, head) = log(12);
            let mut bytes = lines.concat().into_bytes();
            let at = at % bytes.len();
            prop_assume!(bytes[at] != with);
            bytes[at] = with;
            prop_assert!(verify(bytes.as_slice(), Some(head)).is_err());
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = verify(bytes.as_slice(), None);
        }
    }
}
