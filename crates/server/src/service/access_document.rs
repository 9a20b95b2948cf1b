//! The repository's copy of who may do what: written by the server that schedules, after each change.

use std::{sync::Arc, time::Duration};

use everpoint_repository::access_document::{
    AccessDocument, StoredAssignment, StoredPrincipal, StoredSecret,
};
use jiff::Timestamp;
use tokio::{sync::watch, time::sleep};
use uuid::Uuid;

use super::{Service, told};
use crate::{
    access::{Assignment, Scope},
    catalog::{AccessSnapshot, PrincipalKind, PrincipalRow, SecretRow},
};

/// How long to wait after the repository or the catalog failed.
const PAUSE: Duration = Duration::from_secs(10);

impl Service {
    /// Keeps the repository's copy up to date until told to end.
    pub(super) async fn keep_access_document(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        loop {
            let pause = match self.write_access_document().await {
                Ok(()) => Duration::MAX,
                Err(error) => {
                    let error = crate::chain(error.as_ref());
                    tracing::error!(
                        "who may do what is not copied into the repository: {error}; trying again"
                    );
                    PAUSE
                }
            };
            tokio::select! {
                () = self.access_changed.notified() => {}
                () = sleep(pause) => {}
                () = told(&mut stop) => return,
            }
        }
    }

    async fn write_access_document(&self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        if self.term().is_none() {
            return Ok(());
        }
        let written = self.repository.access_number().await?;
        // That of another tenant is the copy of a catalog that was lost, and must not be covered.
        if let Ok(Some((_, found))) = self.repository.access().await
            && found.tenant != self.tenant
        {
            let text = format!(
                "the repository's is of tenant {}, not of {}",
                found.tenant, self.tenant
            );
            return Err(text.into());
        }
        let mut snapshot = self.catalog.access_snapshot().await?;
        let number = |snapshot: &AccessSnapshot| u64::try_from(snapshot.number).unwrap_or(0);
        match written {
            Some(written) if written == number(&snapshot) => return Ok(()),
            Some(written) if written > number(&snapshot) => {
                // The catalog is an older copy, and what holds from now on.
                tracing::warn!(
                    "the repository knows later assignments (number {written}) than this catalog ({}): was it restored from a copy? The catalog's hold",
                    snapshot.number
                );
                let written = i64::try_from(written)?;
                self.catalog.raise_access_changes(written).await?;
                snapshot = self.catalog.access_snapshot().await?;
            }
            _ => {}
        }
        let document = document(&snapshot, self.tenant, self.subscription);
        self.repository
            .write_access(number(&snapshot), &document)
            .await?;
        tracing::debug!(
            number = snapshot.number,
            "who may do what is in the repository"
        );
        Ok(())
    }
}

fn document(snapshot: &AccessSnapshot, tenant: Uuid, subscription: Uuid) -> AccessDocument {
    let principals = snapshot.principals.iter().map(|row| StoredPrincipal {
        id: row.id,
        client_id: row.client_id,
        name: row.name.clone(),
        kind: row.kind.as_str().to_owned(),
        external: row.external.clone(),
        disabled_at: row.disabled_at,
        created_at: row.created_at,
        secrets: row
            .secrets
            .iter()
            .map(|secret| StoredSecret {
                id: secret.id,
                hash: secret.hash.clone(),
                created_at: secret.created_at,
                expires_at: secret.expires_at,
            })
            .collect(),
    });
    let assignments = snapshot
        .assignments
        .iter()
        .map(|(assignment, since)| StoredAssignment {
            id: assignment.id,
            principal: assignment.principal,
            role: assignment.role,
            scope: assignment.scope.to_string(),
            created_at: *since,
        });
    AccessDocument {
        written_at: Timestamp::now(),
        tenant,
        subscription,
        principals: principals.collect(),
        assignments: assignments.collect(),
    }
}

/// The principals and assignments of a document.
///
/// # Errors
/// Names what no version wrote.
pub(super) fn snapshot(number: u64, document: &AccessDocument) -> Result<AccessSnapshot, String> {
    let principals = document
        .principals
        .iter()
        .map(|stored| {
            let kind = PrincipalKind::parse(&stored.kind)
                .ok_or_else(|| format!("`{}` is no kind of principal", stored.kind))?;
            let secrets = stored.secrets.iter().map(|secret| SecretRow {
                id: secret.id,
                hash: secret.hash.clone(),
                created_at: secret.created_at,
                expires_at: secret.expires_at,
            });
            Ok(PrincipalRow {
                id: stored.id,
                client_id: stored.client_id,
                name: stored.name.clone(),
                kind,
                external: stored.external.clone(),
                disabled_at: stored.disabled_at,
                created_at: stored.created_at,
                secrets: secrets.collect(),
            })
        })
        .collect::<Result<_, String>>()?;
    let assignments = document
        .assignments
        .iter()
        .map(|stored| {
            let scope = Scope::parse(&stored.scope).map_err(|error| error.to_string())?;
            let assignment = Assignment {
                id: stored.id,
                principal: stored.principal,
                role: stored.role,
                scope,
            };
            Ok((assignment, stored.created_at))
        })
        .collect::<Result<_, String>>()?;
    Ok(AccessSnapshot {
        number: i64::try_from(number).map_err(|_| format!("{number} is no number of a change"))?,
        principals,
        assignments,
    })
}
