//! `backup_label` and `tablespace_map`, which `pg_backup_stop` returns and recovery reads.
//!
//! Source: `src/backend/access/transam/xlogbackup.c` (`build_backup_content`) and `xlogrecovery.c`
//! (`read_backup_label`, `read_tablespace_map`).

use crate::{Lsn, Oid, TimelineId};

/// The fields of a `backup_label` that matter to a restore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupLabel {
    /// Where replay must begin: the redo point of the backup's checkpoint.
    pub start: Lsn,
    /// Where that checkpoint's record lies.
    pub checkpoint: Lsn,
    /// The timeline it was taken on.
    pub timeline: TimelineId,
}

/// A backup label cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("backup_label has no readable `{field}` line")]
pub struct BackupLabelError {
    field: &'static str,
}

impl BackupLabel {
    /// Reads a label's text.
    ///
    /// # Errors
    /// When one of the needed lines is missing or malformed.
    pub fn parse(text: &str) -> Result<Self, BackupLabelError> {
        let value = |field: &'static str| {
            text.lines()
                .find_map(|line| line.strip_prefix(field)?.strip_prefix(": "))
                .map(str::trim)
                .ok_or(BackupLabelError { field })
        };
        let lsn = |field: &'static str| {
            value(field)?
                .split_ascii_whitespace()
                .next()
                .and_then(|text| text.parse().ok())
                .ok_or(BackupLabelError { field })
        };
        Ok(Self {
            start: lsn("START WAL LOCATION")?,
            checkpoint: lsn("CHECKPOINT LOCATION")?,
            timeline: value("START TIMELINE")?
                .parse()
                .ok()
                .and_then(TimelineId::new)
                .ok_or(BackupLabelError {
                    field: "START TIMELINE",
                })?,
        })
    }
}

/// One line of a `tablespace_map`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TablespaceMapEntry {
    /// The tablespace.
    pub tablespace: Oid,
    /// The directory its link points at.
    pub location: String,
}

/// Reads a `tablespace_map`. A backslash escapes the character after it, so that a location may hold a
/// newline.
///
/// Returns `None` when a line is malformed.
pub fn parse_tablespace_map(text: &str) -> Option<Vec<TablespaceMapEntry>> {
    let mut entries = Vec::new();
    let mut line = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => line.push(characters.next()?),
            '\n' | '\r' => {
                if !line.is_empty() {
                    entries.push(map_entry(&line)?);
                    line.clear();
                }
            }
            other => line.push(other),
        }
    }
    if !line.is_empty() {
        entries.push(map_entry(&line)?);
    }
    Some(entries)
}

/// Writes a `tablespace_map` that PostgreSQL reads back as the same entries.
pub fn format_tablespace_map(entries: &[TablespaceMapEntry]) -> String {
    let mut text = String::new();
    for entry in entries {
        text.push_str(&entry.tablespace.to_string());
        text.push(' ');
        for character in entry.location.chars() {
            if matches!(character, '\\' | '\n' | '\r') {
                text.push('\\');
            }
            text.push(character);
        }
        text.push('\n');
    }
    text
}

fn map_entry(line: &str) -> Option<TablespaceMapEntry> {
    let (oid, location) = line.split_once(' ')?;
    let tablespace = Oid::new(oid.parse().ok()?);
    (!location.is_empty()).then(|| TablespaceMapEntry {
        tablespace,
        location: location.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_of_a_real_server_is_read() {
        let text = "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n\
                    CHECKPOINT LOCATION: 0/2000060\nBACKUP METHOD: streamed\nBACKUP FROM: primary\n\
                    START TIME: 2026-01-01 00:00:00 UTC\nLABEL: everpoint\nSTART TIMELINE: 1\n";
        let label = BackupLabel::parse(text).unwrap();
        assert_eq!(label.start.to_string(), "0/2000028");
        assert_eq!(label.checkpoint.to_string(), "0/2000060");
        assert_eq!(label.timeline, TimelineId::FIRST);
        assert!(BackupLabel::parse("LABEL: x\n").is_err());
    }

    #[test]
    fn tablespace_map_with_odd_names_survives_a_round_trip() {
        let entries = vec![
            TablespaceMapEntry {
                tablespace: Oid::new(16384),
                location: "/a b/c\\d".into(),
            },
            TablespaceMapEntry {
                tablespace: Oid::new(16385),
                location: "/new\nline".into(),
            },
        ];
        assert_eq!(
            parse_tablespace_map(&format_tablespace_map(&entries)).unwrap(),
            entries
        );
        assert!(parse_tablespace_map("nonsense\n").is_none());
    }
}
