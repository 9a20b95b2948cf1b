//! Checks that need a server.

use std::error::Error;

use jiff::Timestamp;
use tokio_postgres::Client;

use super::{
    CheckName, CheckReport, Outcome, WalMode,
    judge::{self, SlotState},
};
use crate::{
    connect::{ConnectionSpec, QueryError, connect_sql, role},
    facts::{FactsError, ServerFacts},
    grant::quote_identifier,
    replication::{ReplicationClient, ReplicationError, SystemIdentity},
};

/// Asks what the server knows, one check after the other. `None` when there are no facts to go on with.
pub(super) async fn look_at(
    spec: &ConnectionSpec,
    mode: &WalMode,
    report: &mut CheckReport,
) -> Option<ServerFacts> {
    let client = match connect_sql(spec, spec.database()).await {
        Ok(client) => client,
        Err(error) => {
            report.add(CheckName::Reachable, failure(&error));
            return None;
        }
    };
    let found = format!("{}, database {}", client.endpoint(), spec.database());
    report.add(CheckName::Reachable, Outcome::ok(found));
    let facts = match ServerFacts::read(&client).await {
        Ok(facts) => facts,
        Err(error @ FactsError::Version(_)) => {
            report.add(CheckName::Version, failure(&error));
            return None;
        }
        Err(error) => {
            report.add(CheckName::Facts, failure(&error));
            return None;
        }
    };
    let now = Timestamp::now();
    report.add(
        CheckName::Version,
        Outcome::ok(facts.version_num.to_string()),
    );
    let found = format!(
        "{} databases, {} tablespaces",
        facts.databases.len(),
        facts.tablespaces.len()
    );
    report.add(CheckName::Facts, Outcome::ok(found));
    match identify(spec).await {
        Ok(identity) => {
            let found = format!("timeline {}, {}", identity.timeline, identity.flushed);
            report.add(CheckName::Replication, Outcome::ok(found));
            let outcome = judge::same_cluster(&facts, identity.system_identifier);
            report.add(CheckName::SameCluster, outcome);
        }
        Err(error) => report.add(CheckName::Replication, replication_failure(spec, &error)),
    }
    report.add(
        CheckName::BackupFunctions,
        backup_functions(&client, spec).await,
    );
    report.add(CheckName::WalLevel, judge::wal_level(&facts));
    match slot_state(&client, mode).await {
        Ok(slot) => {
            report.add(
                CheckName::ReplicationSlot,
                judge::slot(&facts, mode, slot.as_ref()),
            );
            report.add(
                CheckName::WalSenders,
                judge::wal_senders(&facts, slot.as_ref()),
            );
        }
        Err(error) => report.add(CheckName::ReplicationSlot, failure(&error)),
    }
    report.add(CheckName::SlotLimit, judge::slot_limit(&facts, mode));
    report.add(CheckName::FullPageWrites, judge::full_page_writes(&facts));
    report.add(CheckName::Checksums, judge::checksums(&facts));
    report.add(CheckName::BlockSizes, judge::block_sizes(&facts));
    report.add(CheckName::Clock, judge::clock(facts.server_time, now));
    Some(facts)
}

async fn identify(spec: &ConnectionSpec) -> Result<SystemIdentity, ReplicationError> {
    ReplicationClient::connect(spec)
        .await?
        .identify_system()
        .await
}

/// Our errors end in what to do, so the sentences behind the first are what mends them.
fn failure(error: &(dyn Error + 'static)) -> Outcome {
    let text = error.to_string();
    let (cause, mend) = text.split_once(". ").unwrap_or((text.as_str(), ""));
    Outcome::failed(format!("{cause}{}", causes(error)), mend)
}

/// An error with everything behind it.
pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
    format!("{error}{}", causes(error))
}

fn causes(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}

fn replication_failure(spec: &ConnectionSpec, error: &ReplicationError) -> Outcome {
    let outcome = failure(error);
    let refused = matches!(
        error,
        ReplicationError::Connect(crate::ConnectError::Authentication { .. })
    );
    match outcome {
        Outcome::Failed { cause, .. } if refused => {
            let user = role(spec).unwrap_or_else(|_| "all".to_owned());
            Outcome::failed(
                cause,
                format!(
                    "Add to pg_hba.conf, then SELECT pg_reload_conf(): local replication {user} peer, or: host replication {user} ADDRESS scram-sha-256"
                ),
            )
        }
        other => other,
    }
}

async fn backup_functions(client: &Client, spec: &ConnectionSpec) -> Outcome {
    let statement = "SELECT function FROM unnest(ARRAY['pg_backup_start(text, boolean)', \
            'pg_backup_stop(boolean)', 'pg_switch_wal()', 'pg_create_restore_point(text)']) \
            AS function \
        WHERE NOT has_function_privilege('pg_catalog.' || function, 'EXECUTE')";
    let rows = match client.query(statement, &[]).await {
        Ok(rows) => rows,
        Err(error) => return failure(&QueryError::when("look up rights")(error)),
    };
    let missing: Vec<String> = rows.iter().filter_map(|row| row.try_get(0).ok()).collect();
    if missing.is_empty() {
        return Outcome::ok("pg_backup_start and pg_backup_stop may be called");
    }
    let user = quote_identifier(&role(spec).unwrap_or_default());
    let grants: Vec<String> = missing
        .iter()
        .map(|function| format!("GRANT EXECUTE ON FUNCTION pg_catalog.{function} TO {user};"))
        .collect();
    let mend = format!(
        "As a superuser, in database {}: {}",
        spec.database(),
        grants.join(" ")
    );
    let cause = format!("the role may not call {}", missing.join(", "));
    if missing
        .iter()
        .any(|function| function.starts_with("pg_backup"))
    {
        Outcome::failed(cause, mend)
    } else {
        Outcome::warning(cause, mend)
    }
}

/// `None` when the mode uses no slot, or the slot is not there yet.
async fn slot_state(client: &Client, mode: &WalMode) -> Result<Option<SlotState>, QueryError> {
    let WalMode::Slot(slot) = mode else {
        return Ok(None);
    };
    let what = "look up the replication slot";
    let row = client
        .query_opt(
            "SELECT slot_type, active, wal_status, restart_lsn IS NOT NULL \
                FROM pg_replication_slots WHERE slot_name = $1",
            &[&slot.as_str()],
        )
        .await
        .map_err(QueryError::when(what))?;
    let Some(row) = row else {
        return Ok(None);
    };
    let state = || {
        Ok(SlotState {
            slot_type: row.try_get(0)?,
            active: row.try_get(1)?,
            wal_status: row.try_get(2)?,
            reserved: row.try_get(3)?,
        })
    };
    state()
        .map(Some)
        .map_err(|error: tokio_postgres::Error| QueryError::answer(what, error))
}
