//! Locks held in an instance, so that each of Everpoint's parts runs once at most: session-level advisory
//! locks of two numbers, the kind's and one made of the instance's name.
//!
//! PostgreSQL keeps advisory locks apart by database. Ours exclude each other over all of them.

use std::time::Duration;

use everpoint_pgformat::wal::crc32c;
use tokio_postgres::Row;

use crate::connect::{QueryError, SqlClient};

const WHAT: &str = "take an advisory lock";
const GIVE_UP_PATIENCE: Duration = Duration::from_secs(2);

/// Who else holds the lock, granted, in whatever database. Two numbers make `objsubid` 2
/// (`SET_LOCKTAG_INT32`, `src/backend/utils/adt/lockfuncs.c`).
const OTHER_HOLDER: &str = "SELECT locks.pid, activity.application_name, activity.usename::text, \
        activity.client_addr::text, databases.datname::text \
    FROM pg_locks AS locks \
    LEFT JOIN pg_stat_activity AS activity USING (pid) \
    LEFT JOIN pg_database AS databases ON databases.oid = locks.database \
    WHERE locks.locktype = 'advisory' AND locks.granted AND locks.objsubid = 2 \
        AND locks.classid = $1 AND locks.objid = $2 AND locks.pid <> pg_backend_pid() \
    LIMIT 1";
const OWN: &str = "SELECT count(*) FROM pg_locks \
    WHERE locktype = 'advisory' AND granted AND objsubid = 2 \
        AND classid = $1 AND objid = $2 AND pid = pg_backend_pid()";

/// What a lock keeps to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    /// Writing backups of the instance to its repository.
    Writer,
    /// Receiving the instance's WAL.
    Receiver,
    /// Moving a database into the instance; the name is the operation's.
    Move,
    /// Making long-term copies of the instance's databases, or sweeping what interrupted ones left.
    LongTerm,
}

/// A lock, held as long as its session lives.
#[derive(Debug)]
pub struct InstanceLock {
    client: SqlClient,
    kind: LockKind,
    key: i32,
}

/// The session that holds a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockHolder {
    /// Its server process.
    pub pid: i32,
    /// Its application name.
    pub application: Option<String>,
    /// Its role.
    pub role: Option<String>,
    /// Where it comes from; `None` over a socket.
    pub address: Option<String>,
    /// Its database.
    pub database: Option<String>,
}

/// A lock is not to be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// A query failed.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// Somebody has it.
    #[error(
        "the {kind} of instance `{instance}` runs already: {}. Stop that one first; if it is gone and the server has not noticed: SELECT pg_terminate_backend({})",
        holder,
        holder.pid
    )]
    Held {
        /// Which lock.
        kind: LockKind,
        /// Of which instance.
        instance: String,
        /// Who has it.
        holder: LockHolder,
    },
    /// Somebody had it a moment ago.
    #[error(
        "another {kind} of instance `{instance}` started or ended at this very moment. Try again"
    )]
    Contended {
        /// Which lock.
        kind: LockKind,
        /// Of which instance.
        instance: String,
    },
    /// It was held and is not any more.
    #[error("the {kind} lost its lock. Stop what it protects, connect again and take it anew")]
    Lost {
        /// Which lock.
        kind: LockKind,
    },
}

impl LockKind {
    /// The first number: `Evp` and the kind's own.
    const fn class(self) -> i32 {
        let kind = match self {
            Self::Writer => 1,
            Self::Receiver => 2,
            Self::Move => 3,
            Self::LongTerm => 4,
        };
        i32::from_be_bytes([b'E', b'v', b'p', kind])
    }
}

impl std::fmt::Display for LockKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Writer => "writer",
            Self::Receiver => "receiver",
            Self::Move => "move",
            Self::LongTerm => "long-term copying",
        })
    }
}

impl std::fmt::Display for LockHolder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "server process {}", self.pid)?;
        let facts = [
            ("application", &self.application),
            ("role", &self.role),
            ("from", &self.address),
            ("database", &self.database),
        ];
        for (name, value) in facts {
            if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
                write!(f, ", {name} {value}")?;
            }
        }
        Ok(())
    }
}

impl InstanceLock {
    /// Takes the lock if nobody has it; never waits. `instance` is the name that all who must exclude each
    /// other use.
    ///
    /// # Errors
    /// [`LockError::Held`], [`LockError::Contended`], [`LockError::Query`].
    pub async fn try_acquire(
        client: SqlClient,
        kind: LockKind,
        instance: &str,
    ) -> Result<Self, LockError> {
        let key = crc32c(instance.as_bytes()).cast_signed();
        let row = client
            .query_one(
                "SELECT pg_try_advisory_lock($1, $2)",
                &[&kind.class(), &key],
            )
            .await
            .map_err(QueryError::when(WHAT))?;
        let taken: bool = row
            .try_get(0)
            .map_err(|error| QueryError::answer(WHAT, error))?;
        let lock = Self { client, kind, key };
        // Whoever holds it in another database came first. Two who come together both step back.
        let holder = lock.other_holder().await?;
        match (taken, holder) {
            (true, None) => Ok(lock),
            (taken, holder) => {
                if taken {
                    lock.unlock().await?;
                }
                let instance = instance.to_owned();
                Err(match holder {
                    Some(holder) => LockError::Held {
                        kind,
                        instance,
                        holder,
                    },
                    None => LockError::Contended { kind, instance },
                })
            }
        }
    }

    /// The session, for other statements. The lock ends with it.
    pub fn client(&self) -> &SqlClient {
        &self.client
    }

    /// Whether the session is known to be lost, and the lock with it.
    pub fn is_lost(&self) -> bool {
        self.client.is_closed()
    }

    /// Asks the server whether the lock is still held.
    ///
    /// # Errors
    /// [`LockError::Lost`]; [`LockError::Query`] when the session is lost.
    pub async fn check(&self) -> Result<(), LockError> {
        let row = self
            .client
            .query_one(OWN, &[&self.class_oid(), &self.key_oid()])
            .await
            .map_err(QueryError::when("look after an advisory lock"))?;
        match row.try_get::<_, i64>(0) {
            Ok(count) if count > 0 => Ok(()),
            _ => Err(LockError::Lost { kind: self.kind }),
        }
    }

    /// Gives the lock up and the session back.
    ///
    /// # Errors
    /// [`LockError::Query`] when the session is lost.
    pub async fn release(self) -> Result<SqlClient, LockError> {
        self.unlock().await?;
        Ok(self.client)
    }

    /// Gives the lock up and ends, so that whoever comes next is not refused: the server notices by itself
    /// that a session is gone, but only some time later. Waits for the server no longer than two seconds.
    pub async fn give_up(self) {
        // A session that is lost has no lock any more.
        let _ = tokio::time::timeout(GIVE_UP_PATIENCE, self.release()).await;
    }

    async fn unlock(&self) -> Result<(), QueryError> {
        let numbers = [self.kind.class(), self.key];
        self.client
            .query_one(
                "SELECT pg_advisory_unlock($1, $2)",
                &[&numbers[0], &numbers[1]],
            )
            .await
            .map_err(QueryError::when("give an advisory lock up"))?;
        Ok(())
    }

    async fn other_holder(&self) -> Result<Option<LockHolder>, QueryError> {
        let row = self
            .client
            .query_opt(OTHER_HOLDER, &[&self.class_oid(), &self.key_oid()])
            .await
            .map_err(QueryError::when(WHAT))?;
        row.map(|row| holder(&row))
            .transpose()
            .map_err(|error| QueryError::answer(WHAT, error))
    }

    /// `pg_locks` shows the numbers as unsigned.
    fn class_oid(&self) -> u32 {
        self.kind.class().cast_unsigned()
    }

    fn key_oid(&self) -> u32 {
        self.key.cast_unsigned()
    }
}

fn holder(row: &Row) -> Result<LockHolder, tokio_postgres::Error> {
    Ok(LockHolder {
        pid: row.try_get(0)?,
        application: row.try_get(1)?,
        role: row.try_get(2)?,
        address: row.try_get(3)?,
        database: row.try_get(4)?,
    })
}
