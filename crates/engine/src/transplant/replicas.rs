//! Standbys of the target: a restored database is online when they have it too.

use std::time::Duration;

use everpoint_pgformat::Lsn;
use tokio_postgres::types::PgLsn;

use super::{
    Control, Event,
    error::MoveError,
    server::{Server, Session},
};

const WHAT: &str = "look after the replicas";
const POLL: Duration = Duration::from_millis(100);
/// How often a replica that lags is named.
const NAMED_EVERY: Duration = Duration::from_secs(5);

/// Connected standbys, by their application name, and slots that nobody streams from. Receivers that store log
/// report no replay; our own are known by their name.
const READ: &str = "SELECT application_name, replay_lsn, extract(epoch FROM replay_lag)::float8 \
        FROM pg_stat_replication \
        WHERE replay_lsn IS NOT NULL AND state <> 'backup' AND application_name NOT LIKE 'everpoint%' \
    UNION ALL SELECT slot_name::text, NULL, NULL FROM pg_replication_slots \
        WHERE slot_type = 'physical' AND NOT active AND NOT temporary AND slot_name NOT LIKE 'everpoint%'";

/// A standby, or a slot that waits for one.
#[derive(Clone, Debug, PartialEq)]
pub struct Replica {
    /// Its application name; of a slot that nobody streams from, the slot's.
    pub name: String,
    /// How far it has replayed; `None` when it is not connected.
    pub replayed: Option<Lsn>,
    /// Its lag in seconds, as the server measures it while there is load.
    pub lag_s: Option<f64>,
}

/// What to do about replicas that have not replayed the restored database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaPolicy {
    /// Wait until they have, or the operator says to go on.
    Wait,
    /// Wait so long, then go on without those that have not.
    WaitAtMost(Duration),
    /// Go on, and say which have not.
    GoOn,
}

/// What was found when the wait ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seeded {
    /// Replicas that had everything.
    pub replayed: Vec<String>,
    /// Replicas that had not, and with how many bytes to go; `None` when not connected.
    pub behind: Vec<(String, Option<u64>)>,
}

pub(super) async fn read(session: &Session) -> Result<Vec<Replica>, MoveError> {
    session
        .all(WHAT, READ, &[], |row| {
            let replayed: Option<PgLsn> = row.try_get(1)?;
            Ok(Replica {
                name: row.try_get(0)?,
                replayed: replayed.map(|lsn| Lsn::new(lsn.into())),
                lag_s: row.try_get(2)?,
            })
        })
        .await
}

/// Waits until every connected replica, and each of `configured`, has replayed all there is in the log now. A slot
/// that nobody streams from and that is not configured is named and not waited for: it may be an archiver's.
pub(super) async fn seed(
    server: &Server,
    session: &Session,
    configured: &[String],
    policy: ReplicaPolicy,
    control: &Control,
) -> Result<Seeded, MoveError> {
    let asker = server.connect_any().await?;
    let asking = ask(&asker);
    let waiting = wait(session, configured, policy, control);
    tokio::pin!(asking, waiting);
    tokio::select! {
        seeded = &mut waiting => return seeded,
        asked = &mut asking => asked?,
    }
    waiting.await
}

/// Commits something of no consequence that asks standbys to report at once when they have replayed it; else they
/// may stay silent for `wal_receiver_status_interval`. It is a session of its own because the commit waits where
/// replication is synchronous, and we do not want to.
async fn ask(session: &Session) -> Result<(), MoveError> {
    let sql = "SET synchronous_commit = remote_apply; \
        SELECT pg_logical_emit_message(true, 'everpoint', 'report')";
    session.run(WHAT, sql).await
}

async fn wait(
    session: &Session,
    configured: &[String],
    policy: ReplicaPolicy,
    control: &Control,
) -> Result<Seeded, MoveError> {
    let sql = "SELECT pg_current_wal_insert_lsn()";
    let goal: PgLsn = session.value(WHAT, sql, &[]).await?;
    let goal = Lsn::new(goal.into());
    let begun = tokio::time::Instant::now();
    let mut named: Option<tokio::time::Instant> = None;
    loop {
        let found = judge(&read(session).await?, configured, goal);
        let waiting = found.waiting;
        let enough = match policy {
            _ if waiting.is_empty() || control.goes_on_without_replicas() => true,
            ReplicaPolicy::Wait => false,
            ReplicaPolicy::WaitAtMost(limit) => begun.elapsed() >= limit,
            ReplicaPolicy::GoOn => true,
        };
        if enough {
            if !found.seeded.behind.is_empty() {
                control.say(Event::ReplicasBehind(found.seeded.behind.clone()));
            }
            return Ok(found.seeded);
        }
        if named.is_none_or(|last| last.elapsed() >= NAMED_EVERY) {
            control.say(Event::ReplicasBehind(waiting));
            named = Some(tokio::time::Instant::now());
        }
        tokio::time::sleep(POLL).await;
    }
}

struct Judged {
    seeded: Seeded,
    /// Those to be waited for.
    waiting: Vec<(String, Option<u64>)>,
}

fn judge(found: &[Replica], configured: &[String], goal: Lsn) -> Judged {
    let mut seeded = Seeded::default();
    let mut waiting = Vec::new();
    for replica in found {
        match replica.replayed {
            Some(lsn) if lsn >= goal => seeded.replayed.push(replica.name.clone()),
            Some(lsn) => {
                let behind = (replica.name.clone(), Some(goal.bytes_since(lsn)));
                seeded.behind.push(behind.clone());
                waiting.push(behind);
            }
            None => seeded.behind.push((replica.name.clone(), None)),
        }
    }
    for name in configured {
        let known = found
            .iter()
            .any(|replica| replica.name == *name && replica.replayed.is_some());
        if !known {
            waiting.push((name.clone(), None));
            if !seeded.behind.iter().any(|(behind, _)| behind == name) {
                seeded.behind.push((name.clone(), None));
            }
        }
    }
    Judged { seeded, waiting }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configured_replicas_are_waited_for_even_when_nothing_is_seen_of_them() {
        let replica = |name: &str, replayed: Option<u64>| Replica {
            name: name.to_owned(),
            replayed: replayed.map(Lsn::new),
            lag_s: None,
        };
        let found = [
            replica("a", Some(100)),
            replica("b", Some(40)),
            replica("slot", None),
        ];
        let judged = judge(&found, &["a".to_owned(), "c".to_owned()], Lsn::new(100));
        assert_eq!(judged.seeded.replayed, ["a"]);
        assert_eq!(
            judged.seeded.behind,
            [
                ("b".to_owned(), Some(60)),
                ("slot".to_owned(), None),
                ("c".to_owned(), None)
            ]
        );
        assert_eq!(
            judged.waiting,
            [("b".to_owned(), Some(60)), ("c".to_owned(), None)]
        );
    }
}
