//! What restores may leave behind, and must not: databases, roles, directories, processes.

use std::{fs, path::Path};

use anyhow::Result;
use everpoint_testkit::Cluster;

use crate::everpoint::{Ended, Everpoint};

/// What a server has beside the contents of databases.
pub async fn shared(cluster: &Cluster) -> Result<Vec<Vec<String>>> {
    let query = "SELECT 'database', datname, datdba::regrole::text, datacl::text, datconnlimit::text,
            shobj_description(oid, 'pg_database') FROM pg_database
        UNION ALL SELECT 'role', rolname, rolcanlogin::text, shobj_description(oid, 'pg_authid'), NULL, NULL FROM pg_roles
        UNION ALL SELECT 'setting', setdatabase::text, setrole::text, setconfig::text, NULL, NULL FROM pg_db_role_setting
        UNION ALL SELECT 'slot', slot_name, slot_type, NULL, NULL, NULL FROM pg_replication_slots WHERE NOT temporary
        ORDER BY 1, 2, 3";
    cluster.rows("postgres", query).await
}

/// Processes whose working directory lies below a directory, as servers' are their data directories: what they are.
pub fn processes_below(directory: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        // It may be gone by now, or be another user's.
        let Ok(place) = fs::read_link(path.join("cwd")) else {
            continue;
        };
        if place.starts_with(directory) {
            let command = fs::read(path.join("cmdline")).unwrap_or_default();
            found.push(
                String::from_utf8_lossy(&command)
                    .replace('\0', " ")
                    .trim()
                    .to_owned(),
            );
        }
    }
    Ok(found)
}

impl Everpoint {
    /// Finishes or undoes what was killed.
    pub async fn repair(&self) -> Result<Ended> {
        let base = self.scratch_base().display().to_string();
        self.run(&["restore", "repair", "--scratch", &base]).await
    }

    /// Nothing is in the scratch directory, nobody lives there, and the server is as it was.
    pub async fn assert_nothing_left(
        &self,
        cluster: &Cluster,
        before: &[Vec<String>],
        when: &str,
    ) -> Result<()> {
        assert_eq!(shared(cluster).await?, before, "{when}");
        self.assert_scratch_empty(when)
    }

    /// Nothing is in the scratch directory, and nobody lives there.
    pub fn assert_scratch_empty(&self, when: &str) -> Result<()> {
        let left = self.left_in_scratch()?;
        assert!(left.is_empty(), "{when}: {left:?}");
        let living = processes_below(&self.scratch_base())?;
        assert!(living.is_empty(), "{when}: {living:?}");
        Ok(())
    }
}
