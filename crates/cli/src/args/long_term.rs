//! Arguments about long-term copies.

use clap::{Args, Subcommand};
use everpoint_repository::{BackupId, CopyId, InstanceName};
use everpoint_server::policy::Period;

use super::database::DatabaseName;

#[derive(Debug, Subcommand)]
pub enum LongTermCommand {
    /// Keep one database of a full backup as a copy that needs nothing else
    Copy(CopyArgs),
    /// List copies
    List(ListArgs),
    /// Keep a copy whatever its time says, until it is released
    Hold(OneCopy),
    /// Let a copy go when its time is over
    Release(OneCopy),
    /// Delete a copy before its time
    Delete(DeleteArgs),
}

#[derive(Debug, Args)]
pub struct CopyArgs {
    /// The database, as INSTANCE/DATABASE, by its name when the backup ended
    #[arg(value_name = "NAME/DB")]
    pub source: DatabaseName,
    /// Of this full backup instead of the latest
    #[arg(long, value_name = "BACKUP")]
    pub backup: Option<BackupId>,
    /// How long it stays: 12w, 6m, 1y, or as ISO 8601 has it [default: until it is deleted]
    #[arg(long, value_name = "TIME", value_parser = keep)]
    pub keep: Option<Period>,
    /// Threads that copy [default: half the processors]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub jobs: Option<u16>,
    /// Say what would be copied, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// The server is gone for good: do not ask it whether a copy or an expiry is running
    #[arg(long)]
    pub without_server: bool,
}

#[derive(Debug, Args)]
pub struct ListArgs {
    /// The instance, or one database of it as INSTANCE/DATABASE; all when absent
    #[arg(value_name = "NAME[/DB]", value_parser = whose)]
    pub whose: Option<Whose>,
}

/// Whose copies are listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whose {
    pub instance: InstanceName,
    pub database: Option<String>,
}

#[derive(Debug, Args)]
pub struct OneCopy {
    /// The copy
    #[arg(value_name = "ID", value_parser = copy_id)]
    pub id: CopyId,
}

#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// The copy
    #[arg(value_name = "ID", value_parser = copy_id)]
    pub id: CopyId,
    /// Say what would be deleted, and delete nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// A copy by its identifier, or by the name that the service's API gives it.
pub fn copy_id(text: &str) -> Result<CopyId, String> {
    let id = text.split_once(';').map_or(text, |(id, _)| id);
    let parsed = id.to_ascii_lowercase().parse::<CopyId>();
    parsed.map_err(|error| error.to_string())
}

fn whose(text: &str) -> Result<Whose, String> {
    if text.contains('/') {
        let name: DatabaseName = text.parse()?;
        return Ok(Whose {
            instance: name.instance,
            database: Some(name.database),
        });
    }
    let instance = text.parse();
    Ok(Whose {
        instance: instance
            .map_err(|error: everpoint_repository::ids::InstanceNameError| error.to_string())?,
        database: None,
    })
}

/// A time that something is kept, as people write it or as ISO 8601 has it.
pub fn keep(text: &str) -> Result<Period, String> {
    let upper = text.to_ascii_uppercase();
    let iso = match upper.starts_with('P') {
        true => upper,
        false => format!("P{upper}"),
    };
    match Period::parse(&iso) {
        Ok(period) if period.is_none() => {
            Err("a copy that is kept for no time is no copy".to_owned())
        }
        Ok(period) => Ok(period),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_are_read_as_people_write_them() {
        for (text, iso) in [
            ("1y", "P1Y"),
            ("12w", "P12W"),
            ("P6M", "P6M"),
            ("90d", "P90D"),
        ] {
            assert_eq!(keep(text).unwrap().to_string(), iso);
        }
        for text in ["", "0d", "11y", "1h", "soon"] {
            assert!(keep(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_copy_is_named_by_its_identifier_or_by_its_name_in_the_api() {
        let id = "3f0c8a52-0f6e-4d6a-9f55-0123456789ab";
        assert_eq!(copy_id(id).unwrap().to_string(), id);
        let name = format!("{};133000000000000000", id.to_ascii_uppercase());
        assert_eq!(copy_id(&name).unwrap().to_string(), id);
        assert!(copy_id("shop").is_err());
        assert_eq!(whose("main/a/b").unwrap().database.as_deref(), Some("a/b"));
        assert_eq!(whose("main").unwrap().database, None);
    }
}
