//! Unlogged relations that were being made while a backup copied them.
//!
//! Recovery empties unlogged relations: before replay it removes the files of all that have an init fork, and behind it
//! copies each init fork to the main fork, which must not be there then (`src/backend/storage/file/reinit.c`, 15 to 18).
//! A relation gets its main fork first, and an index on an unlogged table its init fork only when it is built otherwise
//! (`index_build` in `src/backend/catalog/index.c`). A backup of in between holds the main fork alone; the log makes the
//! init fork, and the recovered server ends at the very last with `could not create file …: File exists`. So the other
//! forks are removed where the log makes an init fork: nothing that was in them survives recovery in any case.

use std::{fs, io::ErrorKind, path::Path};

use everpoint_pgformat::{
    MajorVersion,
    relation::{DEFAULT_TABLESPACE, GLOBAL_TABLESPACE, RelationId, tablespace_version_directory},
};

use super::{RestoreError, failed};

/// Names of forks other than the init fork, behind the relation's number.
const OTHER_FORKS: [&str; 3] = ["", "_fsm", "_vm"];

/// Removes the files of a relation in the data directory `root`, but for its init fork.
///
/// # Errors
/// When one that is there cannot be removed.
pub fn remove_all_but_init(
    root: &Path,
    version: MajorVersion,
    relation: RelationId,
) -> Result<(), RestoreError> {
    let tablespace = match relation.tablespace {
        GLOBAL_TABLESPACE => return Ok(()),
        DEFAULT_TABLESPACE => root.join("base"),
        other => root
            .join("pg_tblspc")
            .join(other.to_string())
            .join(tablespace_version_directory(version)),
    };
    let folder = tablespace.join(relation.database.to_string());
    for fork in OTHER_FORKS {
        for segment in 0_u32.. {
            let suffix = match segment {
                0 => String::new(),
                number => format!(".{number}"),
            };
            let path = folder.join(format!("{}{fork}{suffix}", relation.relfilenode));
            match fs::remove_file(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => break,
                Err(error) => return Err(failed("remove", &path)(error)),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use everpoint_pgformat::Oid;

    use super::*;

    #[test]
    fn the_init_fork_and_other_relations_stay() {
        let directory = tempfile::tempdir().unwrap();
        let version = MajorVersion::try_from(18).unwrap();
        let inside = format!(
            "pg_tblspc/16400/{}/5",
            tablespace_version_directory(version)
        );
        for folder in ["base/5", &inside] {
            let folder = directory.path().join(folder);
            fs::create_dir_all(&folder).unwrap();
            for name in [
                "170", "170.1", "170.2", "170_fsm", "170_vm", "170_vm.1", "170_init", "1700",
                "170.4", "17",
            ] {
                fs::write(folder.join(name), b"x").unwrap();
            }
        }
        let relation = |tablespace, database| RelationId {
            tablespace,
            database: Oid::new(database),
            relfilenode: Oid::new(170),
        };
        for (tablespace, database) in [
            (DEFAULT_TABLESPACE, 5),
            (Oid::new(16_400), 5),
            (DEFAULT_TABLESPACE, 6),
            (Oid::new(16_401), 5),
            (GLOBAL_TABLESPACE, 0),
        ] {
            remove_all_but_init(directory.path(), version, relation(tablespace, database)).unwrap();
        }
        for folder in ["base/5", &inside] {
            let entries = fs::read_dir(directory.path().join(folder)).unwrap();
            let mut left: Vec<_> = entries
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            left.sort();
            // No relation has its fifth segment without the fourth.
            assert_eq!(left, ["17", "170.4", "1700", "170_init"], "{folder}");
        }
    }
}
