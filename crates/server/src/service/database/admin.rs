//! The superuser that databases are made, moved and dropped as.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use everpoint_engine::{database::journal::Reach, restore::writer::Owner};
use everpoint_instance::{ConnectionSpec, SqlClient, connect_sql};
use rustix::process::geteuid;

use crate::{
    catalog::DatabaseOperation,
    service::{Observed, Service, operations::Failure},
};

impl Service {
    /// How an instance's server is reached as a superuser: as the configuration says, else as the instance's record
    /// does. `but` is a database that nobody may be connected to.
    pub(super) fn admin(
        &self,
        observed: &Observed,
        but: &str,
    ) -> Result<(Reach, ConnectionSpec), Failure> {
        let failed = |text: String| Failure {
            code: "InstanceNotReachable",
            text,
        };
        let settings = self.settings();
        let named = match settings.instances.get(observed.name.as_str()) {
            Some(found) => found.admin_connection(),
            None => Ok(None),
        };
        let (reach, spec) = match named.map_err(|error| failed(crate::chain(&error)))? {
            None => (
                Reach::Instance(observed.name.clone()),
                observed.connection.clone(),
            ),
            Some(text) => {
                let spec: ConnectionSpec = text.parse().map_err(|error| {
                    let (name, error) = (&observed.name, crate::chain(&error));
                    failed(format!(
                        "the admin connection of `{name}` cannot be read: {error}"
                    ))
                })?;
                (Reach::Connection(Box::new(spec.clone())), spec)
            }
        };
        // A database that we are connected to can be neither renamed nor dropped.
        let spec = match spec.database() == but {
            true => spec.with_database("postgres"),
            false => spec,
        };
        Ok((reach, spec))
    }

    /// The instance that an operation is on.
    pub(super) fn instance_of(
        &self,
        operation: &DatabaseOperation,
    ) -> Result<Arc<Observed>, Failure> {
        let name = &operation.row.instance;
        let found = name.parse().ok().and_then(|name| self.instance(&name));
        found.ok_or_else(|| Failure {
            code: "ResourceNotFound",
            text: format!("there is no instance `{name}` any more"),
        })
    }

    /// A session of that superuser.
    pub(super) async fn admin_session(
        &self,
        observed: &Observed,
        but: &str,
    ) -> Result<SqlClient, Failure> {
        let (_, spec) = self.admin(observed, but)?;
        connect_sql(&spec, spec.database())
            .await
            .map_err(|error| Failure {
                code: "InstanceNotReachable",
                text: format!(
                    "the server of instance `{}` does not let the service in: {}",
                    observed.name,
                    crate::chain(&error)
                ),
            })
    }
}

/// Root has scratch servers run as the user whose the instance's data directory is, and who has to get into `scratch`.
pub(super) fn owner(observed: &Observed, scratch: &Path) -> Result<Option<Owner>, Failure> {
    use std::os::unix::fs::MetadataExt;

    if !geteuid().is_root() {
        return Ok(None);
    }
    let directory = &observed.record.data_directory;
    let refuse = |why: String| Failure {
        code: "RestoreFailed",
        text: format!(
            "the service runs as root, and no scratch server may: {why}. Run the service as the user of PostgreSQL"
        ),
    };
    match std::fs::metadata(directory) {
        Ok(found) if found.uid() != 0 => {
            let owner = Owner {
                user: found.uid(),
                group: found.gid(),
            };
            match barred(scratch, owner) {
                None => Ok(Some(owner)),
                Some(closed) => Err(refuse(format!(
                    "user {} of {} may not enter {}. Name another place as restores.scratch",
                    owner.user,
                    directory.display(),
                    closed.display()
                ))),
            }
        }
        Ok(_) => Err(refuse(format!("{} belongs to root", directory.display()))),
        Err(error) => Err(refuse(format!(
            "{} cannot be looked at: {error}",
            directory.display()
        ))),
    }
}

/// The directory above or at `path`, of those that are there, that a user may not pass through.
fn barred(path: &Path, user: Owner) -> Option<PathBuf> {
    use std::os::unix::fs::MetadataExt;

    let is_closed = |directory: &&Path| {
        let Ok(found) = std::fs::metadata(directory) else {
            return false;
        };
        let needed = match (found.uid() == user.user, found.gid() == user.group) {
            (true, _) => 0o100,
            (false, true) => 0o010,
            (false, false) => 0o001,
        };
        found.mode() & needed == 0
    };
    path.ancestors().find(is_closed).map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_directory_that_keeps_a_user_out_is_found() {
        let place = tempfile::tempdir().unwrap();
        let state = place.path().join("state");
        std::fs::create_dir(&state).unwrap();
        let mode = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        mode(place.path(), 0o755);
        let nobody = Owner {
            user: 65_533,
            group: 65_533,
        };
        let scratch = state.join("scratch");
        mode(&state, 0o755);
        assert_eq!(barred(&scratch, nobody), None);
        mode(&state, 0o700);
        assert_eq!(barred(&scratch, nobody), Some(state));
    }
}
