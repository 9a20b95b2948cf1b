//! Sessions that a server left in an instance when it hung, or was cut off from the catalog, and was struck off: with
//! them it keeps locks and the replication slot from the one that does its work now.
//!
//! Every server's sessions have its name. Only those of servers of the same catalog are ended.

use std::time::Duration;

use everpoint_instance::{ConnectionSpec, connect_sql};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::{Observed, Service};
use crate::catalog::ServerId;

/// How long sessions that were told to end may take.
const END_PATIENCE: Duration = Duration::from_secs(5);
const END_POLL: Duration = Duration::from_millis(50);
/// What sessions are called whose name nobody has set.
const USUAL_NAME: &str = "everpoint";
/// Digits of the tenant's identifier in a session's name. With a run's, of which there are 32, and what stands between,
/// it has to be shorter than `NAMEDATALEN`, 64.
const TENANT_DIGITS: usize = 12;

/// What sessions of a tenant's servers are called before the run's identifier.
fn prefix(tenant: Uuid) -> String {
    let digits = tenant.simple().to_string();
    let (digits, _) = digits.split_at_checked(TENANT_DIGITS).unwrap_or_default();
    format!("{USUAL_NAME} {digits} ")
}

/// Which run a session is of.
fn run_of(name: &str, tenant: Uuid) -> Option<ServerId> {
    let run = name.strip_prefix(&prefix(tenant))?;
    Uuid::try_parse(run).ok()
}

impl Service {
    /// The connection with this server's name on its sessions. A name that its owner gave it stays.
    pub(super) fn named(&self, connection: &ConnectionSpec) -> ConnectionSpec {
        match connection.application_name() {
            USUAL_NAME => {
                let name = format!("{}{}", prefix(self.tenant), self.id.simple());
                connection.with_application_name(&name)
            }
            _ => connection.clone(),
        }
    }

    /// Ends the sessions of servers that were struck off. What cannot be ended now shows when its lock is not to be had.
    pub(super) async fn end_strays(&self, observed: &Observed) {
        if let Err(error) = self.try_end_strays(observed).await {
            tracing::warn!(instance = %observed.name, "sessions of servers that are gone are not ended: {error}");
        }
    }

    async fn try_end_strays(&self, observed: &Observed) -> Result<(), String> {
        let connection = &observed.connection;
        let session = connect_sql(connection, connection.database())
            .await
            .map_err(|error| crate::chain(&error))?;
        let begun = Instant::now();
        let mut told = false;
        let mut failed = None;
        loop {
            let sql = "SELECT pid, application_name FROM pg_stat_activity WHERE starts_with(application_name, $1)";
            let rows = session.query(sql, &[&prefix(self.tenant)]).await;
            let rows = rows.map_err(|error| crate::chain(&error))?;
            // Behind the sessions: whoever opens one has been written down before.
            let servers = self.catalog.servers().await;
            let servers = servers.map_err(|error| crate::chain(&error))?;
            let mut left = 0;
            for row in &rows {
                let pid: i32 = row.try_get(0).map_err(|error| crate::chain(&error))?;
                let name: &str = row.try_get(1).map_err(|error| crate::chain(&error))?;
                let run = run_of(name, self.tenant);
                let is_stray = run.is_some_and(|run| {
                    run != self.id && !servers.iter().any(|(server, _)| *server == run)
                });
                if !is_stray {
                    continue;
                }
                left += 1;
                // Another session may have got the number since.
                let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = $1 AND application_name = $2";
                // One that may not be ended keeps none of the others.
                if let Err(error) = session.execute(sql, &[&pid, &name]).await {
                    failed = Some(crate::chain(&error));
                }
            }
            if left == 0 {
                return Ok(());
            }
            if !told {
                tracing::warn!(instance = %observed.name, "ended {left} sessions of servers that are gone");
                told = true;
            }
            if begun.elapsed() >= END_PATIENCE {
                let why = failed.unwrap_or_else(|| "they do not end".to_owned());
                return Err(format!("{left} are left: {why}"));
            }
            sleep(END_POLL).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sessions_name_tells_which_server_of_which_catalog_it_is_of() {
        let (tenant, run) = (Uuid::new_v4(), Uuid::new_v4());
        let name = format!("{}{}", prefix(tenant), run.simple());
        assert!(name.len() < 64, "{name}");
        assert_eq!(run_of(&name, tenant), Some(run));
        assert_eq!(run_of(&name, Uuid::new_v4()), None);
        assert_eq!(run_of(USUAL_NAME, tenant), None);
        assert_eq!(run_of(&format!("{}x", prefix(tenant)), tenant), None);
    }
}
