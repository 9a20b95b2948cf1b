//! The PostgreSQL versions that are understood, one row per major version.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A supported major version of PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct MajorVersion(u16);

/// What differs between major versions in the files this crate reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionRow {
    /// The major version.
    pub major: u16,
    /// `PG_CONTROL_VERSION` (`src/include/catalog/pg_control.h`).
    pub control_version: u32,
    /// `CATALOG_VERSION_NO` (`src/include/catalog/catversion.h`), which also names tablespace directories.
    pub catalog_version: u32,
    /// `XLOG_PAGE_MAGIC` (`src/include/access/xlog_internal.h`).
    pub wal_page_magic: u16,
    /// Where `relpersistence` lies in a row of `pg_class` (`src/include/catalog/pg_class.h`); `relkind`
    /// follows it.
    pub class_persistence_offset: usize,
}

/// One row per supported major version.
pub const VERSIONS: [VersionRow; 4] = [
    VersionRow {
        major: 15,
        control_version: 1300,
        catalog_version: 202_209_061,
        wal_page_magic: 0xD110,
        class_persistence_offset: 114,
    },
    VersionRow {
        major: 16,
        control_version: 1300,
        catalog_version: 202_307_071,
        wal_page_magic: 0xD113,
        class_persistence_offset: 114,
    },
    VersionRow {
        major: 17,
        control_version: 1700,
        catalog_version: 202_406_281,
        wal_page_magic: 0xD116,
        class_persistence_offset: 114,
    },
    VersionRow {
        major: 18,
        control_version: 1800,
        catalog_version: 202_506_291,
        wal_page_magic: 0xD118,
        class_persistence_offset: 118,
    },
];

/// The major version is not one that Everpoint supports.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("PostgreSQL {found} is not supported. Versions 15, 16, 17 and 18 are")]
pub struct UnsupportedVersion {
    /// What was found, as a person would write it.
    pub found: String,
}

impl MajorVersion {
    /// The number, such as 15.
    pub const fn get(self) -> u16 {
        self.0
    }

    /// From `server_version_num` or `PG_VERSION_NUM`, such as 150018.
    ///
    /// # Errors
    /// When the major version is not supported.
    pub fn from_version_num(number: u32) -> Result<Self, UnsupportedVersion> {
        let major = number / 10_000;
        u16::try_from(major)
            .ok()
            .and_then(|major| Self::try_from(major).ok())
            .ok_or_else(|| UnsupportedVersion {
                found: major.to_string(),
            })
    }

    /// From the catalog version in a control file, which is unique to a major version.
    ///
    /// # Errors
    /// When no supported release carries that catalog version.
    pub fn from_catalog_version(number: u32) -> Result<Self, UnsupportedVersion> {
        VERSIONS
            .iter()
            .find(|row| row.catalog_version == number)
            .map(|row| Self(row.major))
            .ok_or_else(|| UnsupportedVersion {
                found: format!("with catalog version {number}"),
            })
    }

    /// The table row of this version.
    pub fn row(self) -> VersionRow {
        let [row15, row16, row17, row18] = VERSIONS;
        match self.0 {
            15 => row15,
            16 => row16,
            17 => row17,
            _ => row18,
        }
    }
}

impl TryFrom<u16> for MajorVersion {
    type Error = UnsupportedVersion;

    fn try_from(major: u16) -> Result<Self, Self::Error> {
        if VERSIONS.iter().any(|row| row.major == major) {
            Ok(Self(major))
        } else {
            Err(UnsupportedVersion {
                found: major.to_string(),
            })
        }
    }
}

impl From<MajorVersion> for u16 {
    fn from(version: MajorVersion) -> Self {
        version.0
    }
}

impl fmt::Display for MajorVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
