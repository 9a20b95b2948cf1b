//! Restoring a database into an instance's server.

use std::sync::Arc;

use everpoint_engine::{
    database::{
        self, DatabaseRequest as EngineRequest,
        choose::{DropTime, Wanted},
        deleted::deleted,
        into_server::{IntoServer, Landed},
        state::State,
        watch::{Event, Watch},
    },
    restore::target::Target,
    transplant::{
        Event as MoveEvent, Existing, Method, MissingRoles, OpenSessions, TablespaceUse,
        name::DatabaseName, replicas::ReplicaPolicy,
    },
};
use everpoint_pgformat::Oid;
use jiff::{SignedDuration, Timestamp};

use super::{admin::owner, details::Kept, failure, work::Teller};
use crate::{
    catalog::{DatabaseOperation, RestoreRequest, RestoreSource},
    config::positive,
    service::{Observed, Service, operations::Failure},
};

/// A database that is online. Its scratch server is put away once that is written down.
pub(super) type Restored = Landed;

impl Service {
    /// Restores it. `None` when an earlier attempt did, and was not there any more to say so.
    pub(super) async fn restore(
        &self,
        operation: &DatabaseOperation,
        request: &RestoreRequest,
        teller: &Teller,
    ) -> Result<Option<(Landed, Watch)>, Failure> {
        let id = operation.row.id;
        let target = self.instance_of(operation)?;
        if let Some(made) = operation.made
            && self.is_registered(&target, operation, made).await?
        {
            teller.say("an earlier attempt had restored it; it is online");
            self.look_at_server(&target.name).await;
            return Ok(None);
        }
        // A long-term copy outlives the instance it was made of.
        let (repository, without) = match &request.source {
            RestoreSource::LongTerm { copy, .. } => (
                self.repository.long_term(&request.instance, *copy),
                Some(target.clone()),
            ),
            _ => (self.repository.clone(), None),
        };
        let source = self.instance(&request.instance).or(without);
        let source = source.ok_or_else(|| Failure {
            code: "RestoreSourceDatabaseNotFound",
            text: format!("there is no instance `{}` any more", request.instance),
        })?;
        let name: DatabaseName = operation.name.parse().map_err(|error| Failure {
            code: "CannotUseReservedDatabaseName",
            text: crate::chain(&error),
        })?;
        let found = match self.wanted(request).await? {
            // Dropped a moment ago, and by somebody else than the service.
            None => {
                teller.progress.phase("backing up the log of the drop", 0);
                self.store_log_until_now(&source, teller).await?;
                self.wanted(request).await?
            }
            found => found,
        };
        let (wanted, target_point) = found.ok_or_else(|| no_drop(request))?;
        let settings = self.settings();
        let config = &settings.restores;
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let engine = EngineRequest {
            instance: request.instance.clone(),
            wanted,
            target: target_point,
            timeline: None,
            scratch: self.config.scratch(),
            owner: owner(&source, &self.config.scratch())?,
            jobs: config.jobs.map_or((processors / 2).max(1), usize::from),
        };
        let plan = database::plan(&repository, engine)
            .await
            .map_err(|error| failure::of_plan(&error))?;
        let mut kept = Kept::of(&plan);
        self.keep_details(id, &kept).await;
        teller.say(format!(
            "database `{}` of `{}` as of {}: {} bytes of files, {} of log",
            plan.chosen.name,
            request.instance,
            plan.chosen.resolved.log_until,
            plan.file_bytes(),
            plan.log_bytes()
        ));
        let (reach, connection) = self.admin(&target, &operation.name)?;
        let into = IntoServer {
            reach,
            target: connection,
            name,
            existing: Existing::Refuse,
            sessions: OpenSessions::Refuse,
            // Nobody is there to ask: owners that are missing come without passwords and cannot log in.
            missing_roles: MissingRoles::Create,
            tablespaces: match target.name == request.instance {
                true => TablespaceUse::AsItWas,
                false => TablespaceUse::Default,
            },
            method: Method::Copy,
            replicas: Vec::new(),
            replica_policy: match config.replica_wait {
                None => ReplicaPolicy::Wait,
                Some(limit) if limit.is_zero() => ReplicaPolicy::GoOn,
                Some(limit) => ReplicaPolicy::WaitAtMost(positive(limit)),
            },
            bin_directory: settings
                .instances
                .get(source.name.as_str())
                .and_then(|found| found.bin_directory.clone()),
        };
        into.check(&plan)
            .await
            .map_err(|error| failure::of_move(&error))?;
        let heard = teller.clone();
        let watch = Watch::new(teller.progress.clone(), move |event| tell(&heard, event));
        let (catalog, attempt) = (self.catalog.clone(), operation.clone());
        let watch = watch.with_gate(Arc::new(move |made| {
            let (catalog, attempt) = (catalog.clone(), attempt.clone());
            Box::pin(async move { Ok(catalog.set_made(&attempt, made).await?) })
        }));
        let noting = self.keep_noting(id, &mut kept, teller);
        let restoring = into.restore(&repository, &plan, Some(id.to_string()), &watch);
        let landed = tokio::select! {
            landed = restoring => landed.map_err(|error| failure::of_move(&error))?,
            never = noting => match never {},
        };
        kept.enter(State::Online, Timestamp::now());
        self.keep_details(id, &kept).await;
        self.look_at_server(&target.name).await;
        Ok(Some((landed, watch)))
    }

    /// Whether the database that an earlier attempt was about to register has its name.
    pub(super) async fn is_registered(
        &self,
        target: &Observed,
        operation: &DatabaseOperation,
        made: Oid,
    ) -> Result<bool, Failure> {
        let session = self.admin_session(target, &operation.name).await?;
        let sql = "SELECT EXISTS (SELECT FROM pg_database WHERE oid = $1 AND datname = $2)";
        let found = session
            .query_one(sql, &[&made.get(), &operation.name])
            .await;
        let found = found.and_then(|row| row.try_get(0));
        found.map_err(|error| Failure {
            code: "InstanceNotReachable",
            text: format!(
                "the server of instance `{}` does not tell whether the database is there: {}",
                target.name,
                crate::chain(&error)
            ),
        })
    }

    /// Which database is meant, in the engine's words. A deleted one is told by when its drop committed, which the
    /// log knows to the microsecond. None when the log of the drop is not stored.
    async fn wanted(
        &self,
        request: &RestoreRequest,
    ) -> Result<Option<(Wanted, Option<Target>)>, Failure> {
        let point = request.point.map(Target::Time);
        let (oid, name, deleted_at) = match &request.source {
            RestoreSource::Living { oid, name } => {
                let name = name.clone();
                let wanted = match oid.map(Oid::new) {
                    Some(oid) => Wanted::Database { oid, name },
                    None => Wanted::Named(name),
                };
                return Ok(Some((wanted, point)));
            }
            RestoreSource::LongTerm { name, .. } => {
                return Ok(Some((Wanted::Named(name.clone()), None)));
            }
            RestoreSource::Deleted {
                oid,
                name,
                deleted_at,
            } => (*oid, name, *deleted_at),
        };
        let all = deleted(&self.repository, &request.instance).await;
        let all = all.map_err(|error| failure::of_choice(&error))?;
        let fitting = all
            .iter()
            .filter(|found| found.oid.get() == oid)
            // A server that was set back gives a number again. The name may have changed before it was noticed.
            .min_by_key(|found| {
                let away = |dropped: Timestamp| dropped.duration_since(deleted_at).abs();
                (
                    found.name != *name,
                    found.dropped.map_or(SignedDuration::MAX, away),
                )
            });
        let Some(found) = fitting else {
            return Ok(None);
        };
        let wanted = Wanted::Deleted {
            name: found.name.clone(),
            dropped: found.dropped.and_then(exactly),
        };
        // As late as possible is just before the drop.
        let behind = |point: &Timestamp| found.dropped.is_some_and(|dropped| *point >= dropped);
        let point = request
            .point
            .filter(|point| !behind(point))
            .map(Target::Time);
        Ok(Some((wanted, point)))
    }
}

fn no_drop(request: &RestoreRequest) -> Failure {
    let text = match &request.source {
        RestoreSource::Deleted {
            name, deleted_at, ..
        } => format!(
            "the stored log tells of no drop of database `{name}`, which was missed on {deleted_at}: either it is older than what is kept, or log is missing. `everpoint window` shows what is stored"
        ),
        _ => "the stored log does not tell of it".to_owned(),
    };
    Failure {
        code: "BackupSetNotFound",
        text,
    }
}

fn exactly(time: Timestamp) -> Option<DropTime> {
    let to = time.checked_add(SignedDuration::from_micros(1)).ok()?;
    Some(DropTime { from: time, to })
}

fn tell(teller: &Teller, event: Event) {
    match event {
        Event::State(state) => teller.enter(state),
        Event::LeftoverRemoved(database) => teller.say(format!(
            "removed `{database}`, which an interrupted restore had left on the server"
        )),
        Event::Recovered {
            filter,
            rolled_back,
        } => {
            let (records, others) = (filter.records, filter.neutralised);
            teller.say(format!(
                "recovered; {others} of {records} log records were other databases'"
            ));
            for gid in rolled_back {
                teller.say(format!(
                    "rolled back transaction `{gid}`, which was prepared and not committed"
                ));
            }
        }
        Event::Remark(remark) => teller.say(remark),
        Event::Kept(path) => teller.say(format!(
            "what it made could not be removed; its journal is in {}",
            path.display()
        )),
        Event::Move(event) => match event {
            MoveEvent::ReplicasBehind(replicas) => {
                for (name, behind) in replicas {
                    teller.say(match behind {
                        Some(bytes) => format!("replica `{name}` has {bytes} bytes to replay"),
                        None => format!("replica `{name}` is not connected"),
                    });
                }
            }
            MoveEvent::NotTaken(what) => teller.say(format!("the server did not take {what}")),
            _ => {}
        },
        _ => {}
    }
}
