//! Settings as text, and what they mean.

use std::collections::HashMap;

use everpoint_pgformat::wal::segment::SegmentSize;

use super::FactsError;

/// Settings that are read by name.
pub(super) const SETTINGS: [&str; 17] = [
    "server_version_num",
    "port",
    "data_directory",
    "wal_level",
    "wal_segment_size",
    "block_size",
    "wal_block_size",
    "data_checksums",
    "max_replication_slots",
    "max_wal_senders",
    "max_slot_wal_keep_size",
    "wal_keep_size",
    "wal_sender_timeout",
    "full_page_writes",
    "archive_mode",
    "archive_command",
    "summarize_wal",
];
/// Those of them that not every version has.
const OPTIONAL_SETTINGS: [&str; 1] = ["summarize_wal"];

/// Settings by name, and whose eyes they were seen with.
pub(super) struct Settings {
    pub(super) role: String,
    pub(super) values: HashMap<String, String>,
}

impl Settings {
    pub(super) fn text(&self, name: &'static str) -> Result<&str, FactsError> {
        match self.values.get(name) {
            Some(value) => Ok(value),
            None if OPTIONAL_SETTINGS.contains(&name) => Ok(""),
            None => Err(FactsError::HiddenSetting {
                setting: name,
                role: self.role.clone(),
            }),
        }
    }

    pub(super) fn number<T: std::str::FromStr>(&self, name: &'static str) -> Result<T, FactsError> {
        let text = self.text(name)?;
        text.parse().map_err(|_| unknown(name, text))
    }

    pub(super) fn on(&self, name: &'static str) -> Result<bool, FactsError> {
        match self.text(name)? {
            "on" => Ok(true),
            "off" | "" => Ok(false),
            other => Err(unknown(name, other)),
        }
    }

    pub(super) fn one_of<T: Copy>(
        &self,
        name: &'static str,
        table: &[(&str, T)],
    ) -> Result<T, FactsError> {
        let text = self.text(name)?;
        table
            .iter()
            .find(|(value, _)| *value == text)
            .map(|(_, meaning)| *meaning)
            .ok_or_else(|| unknown(name, text))
    }

    pub(super) fn segment_size(&self) -> Result<SegmentSize, FactsError> {
        let bytes: u32 = self.number("wal_segment_size")?;
        SegmentSize::try_from(bytes).map_err(|_| unknown("wal_segment_size", &bytes.to_string()))
    }
}

fn unknown(setting: &'static str, value: &str) -> FactsError {
    FactsError::UnknownValue {
        setting,
        value: value.to_owned(),
    }
}
