//! What a backup leaves out, exactly as PostgreSQL's own base backup does.
//!
//! Source: `src/backend/backup/basebackup.c` (`excludeDirContents`, `excludeFiles`, `sendDir`) of PostgreSQL
//! 15 to 18; `looks_like_temp_rel_name` in `src/backend/storage/file/fd.c`.

/// Directories, by name at any depth, that are kept without their contents, which a starting server
/// removes or makes anew.
const EMPTIED_DIRECTORIES: [&str; 7] = [
    "pg_stat_tmp",
    "pg_replslot",
    "pg_dynshmem",
    "pg_notify",
    "pg_serial",
    "pg_snapshots",
    "pg_subtrans",
];

/// Files, by name at any depth, that belong to the running server or to an earlier backup.
const LEFT_OUT_FILES: [&str; 7] = [
    "postgresql.auto.conf.tmp",
    "current_logfiles.tmp",
    "backup_label",
    "tablespace_map",
    "backup_manifest",
    "postmaster.pid",
    "postmaster.opts",
];

/// The relation cache and its temporary files.
const RELATION_CACHE_PREFIX: &str = "pg_internal.init";
/// Temporary files, and the directories they lie in.
const TEMPORARY_PREFIX: &str = "pgsql_tmp";

/// Whether a directory of this name is kept empty.
pub(super) fn is_emptied(name: &str) -> bool {
    EMPTIED_DIRECTORIES.contains(&name)
}

/// Whether anything of this name is left out, wherever it lies.
pub(super) fn is_left_out(name: &str) -> bool {
    name.starts_with(TEMPORARY_PREFIX)
        || name.starts_with(RELATION_CACHE_PREFIX)
        || LEFT_OUT_FILES.contains(&name)
}

/// Whether a file in a database's directory belongs to a temporary relation: `tNN_NNN`, with a fork and a
/// segment number perhaps.
pub(super) fn is_temporary_relation(name: &str) -> bool {
    let Some((backend, rest)) = name.strip_prefix('t').and_then(|name| name.split_once('_')) else {
        return false;
    };
    is_number(backend) && RelationName::parse(rest).is_some()
}

/// The name of a permanent or unlogged relation's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RelationName<'a> {
    /// The relfilenode's digits.
    pub(super) relation: &'a str,
    /// Whether it is the init fork, which only unlogged relations have.
    pub(super) is_init: bool,
}

impl<'a> RelationName<'a> {
    /// `None` when it is no relation's file (`parse_filename_for_nontemp_relation`).
    pub(super) fn parse(name: &'a str) -> Option<Self> {
        let name = match name.split_once('.') {
            Some((name, segment)) if is_number(segment) => name,
            Some(_) => return None,
            None => name,
        };
        let (relation, is_init) = match name.split_once('_') {
            Some((relation, "fsm" | "vm")) => (relation, false),
            Some((relation, "init")) => (relation, true),
            Some(_) => return None,
            None => (name, false),
        };
        is_number(relation).then_some(Self { relation, is_init })
    }
}

/// Whether it consists of one or more decimal digits.
pub(super) fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporary_relations_are_told_from_others() {
        for name in ["t3_16384", "t3_16384.1", "t12_16384_fsm", "t3_16384_vm.2"] {
            assert!(is_temporary_relation(name), "{name}");
        }
        for name in [
            "16384",
            "t_16384",
            "t3_",
            "t3_16384.",
            "tx_1",
            "t3_16384_x",
            "table",
        ] {
            assert!(!is_temporary_relation(name), "{name}");
        }
    }

    #[test]
    fn forks_and_segments_belong_to_their_relation() {
        for (name, relation, is_init) in [
            ("16384", "16384", false),
            ("16384.7", "16384", false),
            ("16384_init", "16384", true),
            ("16384_fsm.1", "16384", false),
        ] {
            let parsed = RelationName::parse(name).unwrap();
            assert_eq!((parsed.relation, parsed.is_init), (relation, is_init));
        }
        for name in [
            "PG_VERSION",
            "16384.x",
            "16384_other",
            "",
            "_init",
            "16384.",
        ] {
            assert_eq!(RelationName::parse(name), None, "{name}");
        }
    }

    #[test]
    fn names_are_matched_as_base_backup_matches_them() {
        for name in [
            "pgsql_tmp",
            "pgsql_tmp12.0",
            "pg_internal.init.77",
            "postmaster.pid",
        ] {
            assert!(is_left_out(name), "{name}");
        }
        for name in [
            "postgresql.auto.conf",
            "backup_label.old",
            "current_logfiles",
        ] {
            assert!(!is_left_out(name), "{name}");
        }
    }
}
