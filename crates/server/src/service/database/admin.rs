//! The superuser that databases are made, moved and dropped as.

use std::sync::Arc;

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
        let named = match self.config.instances.get(observed.name.as_str()) {
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

/// Root has scratch servers run as the user whose the instance's data directory is.
pub(super) fn owner(observed: &Observed) -> Result<Option<Owner>, Failure> {
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
        Ok(found) if found.uid() != 0 => Ok(Some(Owner {
            user: found.uid(),
            group: found.gid(),
        })),
        Ok(_) => Err(refuse(format!("{} belongs to root", directory.display()))),
        Err(error) => Err(refuse(format!(
            "{} cannot be looked at: {error}",
            directory.display()
        ))),
    }
}
