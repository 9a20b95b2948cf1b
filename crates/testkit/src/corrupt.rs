//! Damage done on purpose.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::Cluster;

/// Inverts every bit of one byte.
///
/// # Errors
/// When the file does not reach that far or cannot be written.
pub fn flip_byte(path: &Path, offset: u64) -> Result<()> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .with_context(|| format!("could not open {}", path.display()))?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset)
        .with_context(|| format!("{} has no byte {offset}", path.display()))?;
    file.write_all_at(&[!byte[0]], offset)?;
    Ok(())
}

/// Cuts a file off.
///
/// # Errors
/// When the file is not longer than that or cannot be written.
pub fn truncate(path: &Path, length: u64) -> Result<()> {
    let file = OpenOptions::new()
        .write(true)
        .open(path)
        .with_context(|| format!("could not open {}", path.display()))?;
    if file.metadata()?.len() <= length {
        bail!("{} has no more than {length} bytes", path.display());
    }
    Ok(file.set_len(length)?)
}

/// Removes a file.
///
/// # Errors
/// When it is not there or cannot be removed.
pub fn delete(path: &Path) -> Result<()> {
    fs::remove_file(path).with_context(|| format!("could not remove {}", path.display()))
}

impl Cluster {
    /// The first file of a table's or an index's main fork.
    ///
    /// # Errors
    /// When there is no such relation.
    pub async fn relation_path(&self, database: &str, relation: &str) -> Result<PathBuf> {
        let relation = relation.replace('\'', "''");
        let query = format!("SELECT pg_relation_filepath('{relation}')");
        let path = self.value(database, &query).await?;
        Ok(self.data_directory().join(path))
    }
}
